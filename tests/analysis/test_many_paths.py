"""Every command of analysis takes several adapters: their rows are told apart, what cannot be read is left out and said, and the model is found without being named."""

import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from tests.support.places import REPOSITORY

GALLERY = REPOSITORY / "trained_prompts" / "gallery"


def table_of(done) -> pd.DataFrame:
    assert done.status == 0, done.err
    return pd.read_csv(io.StringIO(done.out), keep_default_na=False, na_values=[""])


@pytest.fixture
def rows(tiny_llama):
    return tiny_llama.get_input_embeddings().weight.detach().numpy()


@pytest.fixture
def seeds(rows, tmp_path, own_cache):
    """Three runs of one script, each with its adapter under the same name, and a LoRA beside them."""
    folder = tmp_path / "runs"
    for seed in range(3):
        (folder / f"seed-{seed}" / "final").mkdir(parents=True)
        save_file({"prompt_embeddings": rows[[7 + seed, 250 + seed]]}, folder / f"seed-{seed}" / "final" / "adapter_model.safetensors")
        config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "base_model_name_or_path": None}
        (folder / f"seed-{seed}" / "final" / "adapter_config.json").write_text(json.dumps(config))
    return folder


# --- Several at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command_name", ["neighbours", "readings"])
def test_three_seeds_are_told_apart_by_name_and_path(seeds, llama_folder, command, command_name):
    options = ("--top-k", 1) if command_name == "neighbours" else ()
    table = table_of(command(command_name, seeds, "--model", llama_folder, "--format", "csv", *options))
    assert table.columns[-1] == "path"
    assert dict(zip(table["prompt"], table["path"], strict=True)) == {
        f"seed-{i}/final": str(seeds / f"seed-{i}" / "final") for i in range(3)
    }
    alone = table_of(command(command_name, seeds / "seed-1" / "final", "--model", llama_folder, "--format", "csv", *options))
    again = table[table["path"] == str(seeds / "seed-1" / "final")].drop(columns="path").reset_index(drop=True)
    pd.testing.assert_frame_equal(again.drop(columns="prompt"), alone.drop(columns="prompt"))


def test_inspect_has_a_row_for_each_adapter_that_a_glob_matches(seeds, command):
    table = table_of(command("inspect", seeds / "*" / "final", "--format", "csv"))
    assert table["path"].tolist() == [str(seeds / f"seed-{i}" / "final") for i in range(3)]


def test_similarity_and_the_members_of_clusters_say_whose_a_row_is(seeds, llama_folder, command, tmp_path):
    table = table_of(command("similarity", seeds, "--model", llama_folder, "--format", "csv"))
    assert table.columns[-2:].tolist() == ["path_a", "path_b"]
    assert table["path_b"].tolist() == [str(seeds / f"seed-{i}" / "final") for i in (1, 2, 2)]
    done = command("clusters", seeds, "--model", llama_folder, "--members", tmp_path / "members.csv")
    assert done.status == 0
    members = pd.read_csv(tmp_path / "members.csv")
    assert members["path"].tolist() == [str(seeds / f"seed-{i}" / "final") for i in (0, 0, 1, 1, 2, 2)]


def test_a_name_is_given_to_each_adapter_in_their_order(seeds, llama_folder, command):
    given = [seeds / f"seed-{i}" / "final" for i in range(2)]
    names = ("--name", "first", "--name", "second")
    table = table_of(command("readings", *given, *names, "--model", llama_folder, "--format", "csv"))
    assert table["prompt"].tolist() == ["first", "first", "second", "second"]
    done = command("readings", seeds, *names, "--model", llama_folder)
    assert (done.status, done.out) == (2, "")
    assert "There are 2 names for 3 adapters" in done.err


def test_spectra_of_several_say_whose_a_module_is(tiny_lora, command, tmp_path):
    shutil.copytree(tiny_lora, tmp_path / "other" / "lora")
    table = table_of(command("spectra", tiny_lora, tmp_path / "other" / "lora", "--format", "csv"))
    assert table.columns[-2:].tolist() == ["adapter", "path"]
    assert set(table["path"]) == {str(tiny_lora), str(tmp_path / "other" / "lora")}
    alone = table_of(command("spectra", tiny_lora, "--format", "csv"))
    assert len(table) == 2 * len(alone) and "path" not in alone
    done = command("spectra", tiny_lora, tmp_path / "other" / "lora", "--truncate", 0.9, "--save", tmp_path / "small")
    assert (done.status, done.out) == (2, "") and not (tmp_path / "small").exists()


def test_in_a_folder_what_is_of_another_kind_is_left_out_and_said(seeds, tiny_lora, llama_folder, command):
    shutil.copytree(tiny_lora, seeds / "lora")
    done = command("readings", seeds, "--model", llama_folder, "--format", "csv")
    assert set(table_of(done)["prompt"]) == {f"seed-{i}/final" for i in range(3)}
    assert "Left out: The adapter lora is a LoRA" in done.err
    done = command("readings", seeds / "seed-0" / "final", seeds / "lora", "--model", llama_folder)
    assert (done.status, done.out) == (2, "")  # what a person names is refused


def test_in_a_folder_what_is_damaged_is_left_out_and_the_status_tells(seeds, llama_folder, command):
    (seeds / "broken.npy").touch()
    done = command("readings", seeds, "--model", llama_folder, "--format", "csv")
    assert done.status == 2
    assert len(pd.read_csv(io.StringIO(done.out))) == 6
    assert "Left out: The file" in done.err and "is empty" in done.err
    assert done.err.splitlines()[-1] == "1 of the adapters that were found was refused and left out."


def test_a_folder_without_any_of_the_kind_is_refused(tiny_lora, command, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(tiny_lora, tmp_path / "loras" / name)
    done = command("readings", tmp_path / "loras")
    assert (done.status, done.out) == (2, "")
    assert "None of the 2 adapters can be used here" in done.err


# --- Where it started ------------------------------------------------------------------------------------------------


def test_a_start_is_given_once_a_path_in_their_order(seeds, rows, llama_folder, command, prompt_file):
    starts = [prompt_file(rows[[i, 100 + i]], f"start-{i}") for i in range(3)]
    options = [each for start in starts for each in ("--initial", start)]
    table = table_of(command("readings", seeds, *options, "--model", llama_folder, "--format", "csv"))
    expected = [np.linalg.norm(rows[[7 + i, 250 + i]] - rows[[i, 100 + i]], axis=1) for i in range(3)]
    assert table["drift"].to_numpy() == pytest.approx(np.concatenate(expected), rel=1e-5)
    done = command("readings", seeds, *options[:4], "--model", llama_folder)
    assert (done.status, done.out) == (2, "") and "There are 2 --initial for 3 prompts" in done.err


def test_the_lens_too_takes_a_start_for_each_of_several_prompts(seeds, rows, llama_folder, command, prompt_file):
    starts = [prompt_file(rows[[i, 100 + i]], f"start-{i}") for i in range(3)]
    done = command("effect", seeds, *(each for start in starts[:2] for each in ("--initial", start)), "--model", llama_folder)
    assert (done.status, done.out) == (2, "") and "There are 2 --initial for 3 prompts" in done.err


def test_the_start_of_a_bare_file_is_found_beside_it(rows, llama_folder, own_cache, command, tmp_path):
    np.save(tmp_path / "mine.npy", rows[[7, 250]])
    save_file({"initial": rows[[3, 4]]}, tmp_path / "initial.safetensors")
    table = table_of(command("readings", tmp_path / "mine.npy", "--model", llama_folder, "--format", "csv"))
    assert table["drift"].to_numpy() == pytest.approx(np.linalg.norm(rows[[7, 250]] - rows[[3, 4]], axis=1), rel=1e-5)
    np.save(tmp_path / "another.npy", rows[[8, 251]])  # whose start it is, is not known any more
    table = table_of(command("readings", tmp_path / "mine.npy", "--model", llama_folder, "--format", "csv"))
    assert table["drift"].isna().all()


# --- Which model -----------------------------------------------------------------------------------------------------


def test_spe_model_is_the_model_of_prompts_that_name_none(seeds, llama_folder, command, monkeypatch):
    refused = command("readings", seeds)
    assert refused.status == 2 and "name the prompt's model" in refused.err
    named = command("readings", seeds, "--model", llama_folder, "--format", "csv")
    monkeypatch.setenv("SPE_MODEL", str(llama_folder))
    assert command("readings", seeds, "--format", "csv").out == named.out


def test_spe_model_takes_no_prompt_from_the_model_that_it_names(command, llama_folder, monkeypatch):
    prompt = GALLERY / "plural-words-1"
    expected = command("readings", prompt, "--format", "csv").out
    monkeypatch.setenv("SPE_MODEL", str(llama_folder))
    assert command("readings", prompt, "--format", "csv").out == expected


def test_a_path_in_an_adapter_is_followed_only_where_spe_model_names_it(seeds, llama_folder, command, monkeypatch):
    path = seeds / "seed-0" / "final" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(llama_folder.resolve())}))
    refused = command("readings", path.parent)
    assert refused.status == 2 and "a path in an adapter is not followed" in refused.err
    monkeypatch.setenv("SPE_MODEL", str(llama_folder))
    assert command("readings", path.parent).status == 0
    monkeypatch.setenv("SPE_MODEL", str(llama_folder.parent / "another"))
    assert command("readings", path.parent).status == 2


def test_a_run_that_was_trained_here_on_a_folder_is_known(toy_config, language_model, own_runs, llama_folder, command, tmp_path):
    from soft_prompt_explorer.trained_prompts.runs import store
    from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
    from tests.support.training import trained

    recording = trained(toy_config, language_model)
    run = store.save(recording, "mine", evaluate_run(recording, language_model=language_model))
    named = command("readings", run, "--model", llama_folder, "--format", "csv")
    assert (named.status, command("readings", run, "--format", "csv").out) == (0, named.out)
    for verb in ("neighbours", "clusters", "trajectory", "direction"):
        assert command(verb, run).status == 0
    shutil.copytree(run, tmp_path / "copy" / "mine")  # from elsewhere it is a stranger's word
    refused = command("readings", tmp_path / "copy" / "mine")
    assert refused.status == 2 and "a path in an adapter is not followed" in refused.err


# --- Without a vocabulary --------------------------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path):
    """Two prompts of an unknown model, 10 wide: six tokens that lie about two places, and the same again a little moved."""
    rng = np.random.default_rng(5)
    places = 10 * rng.standard_normal((2, 10))
    rows = np.repeat(places, 6, axis=0) + 0.1 * rng.standard_normal((12, 10))
    paths = []
    for i in range(2):
        path = tmp_path / f"foreign-{i}.npy"
        np.save(path, (rows + 0.1 * i * rng.standard_normal((12, 10))).astype(np.float32))
        paths.append(path)
    return paths


def test_similarity_of_prompts_of_an_unknown_model_is_told_but_for_what_chance_is(foreign, command):
    done = command("similarity", *foreign, "--format", "csv")
    (row,) = table_of(done).to_dict("records")
    a, b = (np.load(path).astype(np.float64) for path in foreign)
    assert row["pooled_cosine"] == pytest.approx(a.mean(0) @ b.mean(0) / np.linalg.norm(a.mean(0)) / np.linalg.norm(b.mean(0)))
    cosines = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
    assert row["mean_cosine"] == pytest.approx(cosines.mean())
    assert np.isnan(row["z"]) and pd.isna(row["against"])
    assert "Told is what needs no vocabulary" in done.err


def test_clusters_of_prompts_of_an_unknown_model_are_found_but_not_named(foreign, command, tmp_path):
    done = command("clusters", *foreign, "--members", tmp_path / "members.csv", "--format", "csv")
    table = table_of(done)
    assert table["size"].tolist() == [12, 12]
    assert (table["stability"] > 0.9).all()
    assert table[["label", "tightness_p", "shared_start"]].isna().all(axis=None)
    assert pd.read_csv(tmp_path / "members.csv")["cluster"].nunique() == 2
    assert "2 of 2 clusters are stable" in done.err and "only the vocabulary tells" in done.err


def test_displacements_need_no_vocabulary(foreign, command):
    options = [each for path in reversed(foreign) for each in ("--initial", path)]
    done = command("clusters", *foreign, "--space", "displacement", "--method", "kmeans", *options, "--format", "csv")
    assert table_of(done)["start_tightness"].notna().any()


@pytest.mark.parametrize("command_name", ["neighbours", "readings", "direction"])
def test_what_is_about_words_is_refused_and_the_rest_is_pointed_at(foreign, command, command_name):
    done = command(command_name, foreign[0])
    assert (done.status, done.out) == (2, "")
    assert "which model it was trained on" in done.err


@pytest.mark.parametrize(("width", "options", "says"), [(12, (), "wide"), (10, ("--model", "smollm2-135m"), "10 wide")])
def test_geometry_does_not_bend_the_rules(foreign, command, prompt_file, width, options, says):
    other = prompt_file(np.ones((3, width)), "other")
    done = command("similarity", foreign[0], other, *options)
    assert (done.status, done.out) == (2, "")
    assert says in done.err


def test_inspect_tells_the_rank_and_what_repeats_without_any_model(prompt_file, command):
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.standard_normal((10, 10)))[0]
    flat = np.vstack([basis[:4], basis[:4]])  # of rank 4, all four directions alike; each row twice
    table = table_of(command("inspect", prompt_file(flat.astype(np.float32)), "--format", "csv"))
    assert table.columns[-1] == "effective_rank"
    assert table["effective_rank"].tolist() == pytest.approx([4.0], rel=1e-5)
    assert "4 of 8 rows repeat another" in table["notes"].iloc[0]
