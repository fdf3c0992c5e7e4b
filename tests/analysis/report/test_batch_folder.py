"""The folder of a batch, opened again: one row an adapter, near copies and shared starts found, a stranger's folder refused in a sentence."""

import shutil

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.loras.ranks import spectra
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.analysis.report.batch_folder import COLUMNS, collection, groups, refused, short_names
from soft_prompt_explorer.analysis.report.batches import batch
from tests.support.lora_files import lora_file


@pytest.fixture
def made(llama_folder, tmp_path, own_cache):
    """A batch of six prompts, one of them twice, a damaged file, and five LoRAs: a base, a near copy, another of the same A, an unrelated one, and the base again."""
    rng, files = np.random.default_rng(4), tmp_path / "adapters"
    files.mkdir()
    width = load_vocabulary(str(llama_folder)).width
    for i in range(6):
        np.save(files / f"prompt-{i}.npy", rng.normal(size=(4, width)).astype(np.float32))
    shutil.copy(files / "prompt-1.npy", files / "prompt-6.npy")
    (files / "prompt-9.npy").write_bytes(b"\x93NUMPY" + b"\0" * 40)

    def factor(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    names = [f"model.layers.{i}.self_attn.q_proj" for i in range(3)]
    base = {name: (factor(4, 96), factor(80, 4)) for name in names}
    loras = {
        "a-base": base,
        "b-near": {name: (a + 0.05 * factor(4, 96), b + 0.05 * factor(80, 4)) for name, (a, b) in base.items()},
        "c-start": {name: (a + 0.05 * factor(4, 96), factor(80, 4)) for name, (a, _) in base.items()},
        "d-other": {name: (factor(4, 96), factor(80, 4)) for name in names},
    }
    for name, modules in loras.items():
        lora_file(files / f"{name}.safetensors", modules)
    shutil.copy(files / "a-base.safetensors", files / "e-again.safetensors")
    batch(str(files), tmp_path / "out", model=str(llama_folder))
    return files, tmp_path / "out"


def test_each_adapter_is_a_row_with_what_its_own_tables_say(made, llama_folder):
    files, out = made
    table = collection(out)
    assert table.columns.tolist() == COLUMNS and len(table) == 12
    table = table.set_index(table["path"].str.rpartition("/")[2])
    verdicts = readings(load_adapter(files / "prompt-2.npy"), load_vocabulary(str(llama_folder)))["verdict"].value_counts()
    for verdict, count in verdicts.items():
        assert table.loc["prompt-2.npy", verdict] == count
    own = spectra(load_adapter(files / "d-other.safetensors"))
    for name in ("effective_rank", "rank_90", "spectral_norm"):
        assert table.loc["d-other.safetensors", name] == pytest.approx(own[name].median())
    assert table.loc["d-other.safetensors", "modules"] == 3 and pd.isna(table.loc["prompt-2.npy", "modules"])
    assert table["copies"].to_dict() == dict.fromkeys(table.index, 1) | dict.fromkeys(
        ["prompt-1.npy", "prompt-6.npy", "a-base.safetensors", "e-again.safetensors"], 2
    )
    assert refused(out)["path"].str.endswith("prompt-9.npy").tolist() == [True]


def test_near_copies_and_shared_starts_are_told_and_the_unrelated_is_left_alone(made):
    table = collection(made[1])
    table = table.set_index(table["path"].str.rpartition("/")[2].str[0])
    assert table.loc[list("abcde"), "near_copies"].tolist() == [2, 2, 1, 1, 2]
    assert table.loc[list("abcde"), "same_start"].tolist() == [2, 2, 2, 1, 2]
    assert table.loc["b", "near_copy_of"].endswith("a-base.safetensors")
    assert table.loc["c", "same_start_as"].endswith("a-base.safetensors")
    assert pd.isna(table.loc["d", ["near_copy_of", "same_start_as"]]).all()
    assert table.loc["p", "near_copies"].isna().all()


def test_groups_hold_all_that_are_alike_the_first_of_each_first(made):
    table = collection(made[1])
    letters = table["path"].str.rpartition("/")[2].str.removesuffix(".npy").str.replace(r"^([a-e])-.*", r"\1", regex=True)
    told = {
        by: [letters[rows.index].tolist() for _, rows in groups(table, by).groupby("group")]
        for by in ("copies", "near_copies", "same_start")
    }
    assert told == {
        "copies": [["a", "e"], ["prompt-1", "prompt-6"]],
        "near_copies": [["a", "b", "e"]],
        "same_start": [["a", "b", "c", "e"]],
    }
    found = groups(table, "copies")
    assert (found["first"] == table["path"][found.groupby("group")["path"].transform(lambda paths: paths.index[0])].to_numpy()).all()
    unknown = table.assign(sha256=None, copies=1)
    assert not len(groups(unknown, "copies"))  # what has no digest is no copy of another without one


def test_names_are_as_short_as_tells_them_apart():
    paths = ["file:///a/run1/final", "file:///a/run2/final", "file:///a/run2/first.npy", "file:///b/run2/final", "x", "y/x", "same", "same"]
    assert short_names(paths) == ["run1/final", "a/run2/final", "first.npy", "b/run2/final", "x", "y/x", "same", "same"]
    assert short_names([]) == []
    deep = [f"{top}/{'/'.join('same' for _ in range(20))}" for top in "ab"]
    assert short_names(deep) == deep


def test_a_foreign_a_damaged_and_a_linked_folder_are_refused_in_a_sentence(made, tmp_path):
    _, out = made
    with pytest.raises(InputError, match="has written"):
        collection(tmp_path)
    modules = next((out / "modules").glob("*/part.parquet"))
    whole = modules.read_bytes()
    modules.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        collection(out)
    modules.unlink()
    (tmp_path / "elsewhere.parquet").write_bytes(whole)
    modules.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(InputError, match="There is no"):
        collection(out)
    modules.unlink()
    pd.DataFrame({"path": ["x"], "rank": ["y"]}).to_parquet(modules)
    with pytest.raises(InputError, match="no table of a batch"):
        collection(out)
