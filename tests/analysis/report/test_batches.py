"""Many adapters at once: the same tables as one at a time, from every engine; what was stopped goes on, and what is refused stands by itself."""

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet
import pytest
from safetensors.numpy import save, save_file

import soft_prompt_explorer
from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.adapters.places import places_of
from soft_prompt_explorer.analysis.behaviour import lens_null
from soft_prompt_explorer.analysis.behaviour.difference_lens import lens
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.loras.ranks import health, spectra
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.analysis.report import batch_files, batches
from soft_prompt_explorer.analysis.report.batch_files import Found, find
from soft_prompt_explorer.analysis.report.batches import batch, read
from soft_prompt_explorer.analysis.report.inspection import inspect
from tests.support.lora_files import gaussian, lora_file
from tests.support.waiting import wait_until


@pytest.fixture
def many(llama_folder, tmp_path, own_cache):
    """Twelve prompts, three LoRAs, a copy and a damaged file, and the tiny model."""
    folder, rng = tmp_path / "adapters", np.random.default_rng(1)
    folder.mkdir()
    width = load_vocabulary(str(llama_folder)).width
    for i in range(12):
        np.save(folder / f"prompt-{i:02}.npy", rng.normal(size=(4, width)).astype(np.float32))
    for i in range(3):
        (folder / f"lora-{i}").mkdir()
        (folder / f"lora-{i}" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
        lora_file(
            folder / f"lora-{i}" / "adapter_model.safetensors",
            {"model.layers.0.self_attn.q_proj": gaussian(16, 16, 2, np.random.default_rng(i))},
        )
    shutil.copy(folder / "prompt-03.npy", folder / "zz-copy.npy")
    (folder / "damaged.npy").write_bytes(b"\x93NUMPY" + b"\0" * 40)
    (folder / "README.md").write_text("not an adapter")
    return folder


def over_digests(files) -> str:
    """The sha256 of the files' sha256s."""
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()


def tables(folder) -> dict[str, pd.DataFrame]:
    """All tables of a batch, as any tool that knows hive partitions reads them."""
    found = {"manifest": pd.read_parquet(folder / "manifest.parquet"), "refused": pd.read_parquet(folder / "refused.parquet")}
    for name in ("tokens", "modules", "health", "lens", "sketches"):
        if (folder / name).is_dir():
            found[name] = pyarrow.dataset.dataset(folder / name, partitioning="hive").to_table().to_pandas()
    return found


def test_the_tables_are_those_of_the_single_adapters(many, llama_folder, tmp_path):
    manifest = batch(str(many), tmp_path / "out", model=str(llama_folder))
    found = tables(tmp_path / "out")
    names = sorted(path for path in many.iterdir() if path.name not in ("damaged.npy", "README.md"))
    assert len(manifest) == len(names) == 16
    alone = inspect(names, model=str(llama_folder)).set_index("sha256")
    for row in manifest.itertuples():
        wanted = alone.loc[[row.sha256]].iloc[0]
        assert (row.kind, row.format, row.notes) == (wanted["kind"], wanted["format"], wanted["notes"])
    copy = manifest[manifest["copy_of"].notna()]
    assert copy["path"].str.endswith("zz-copy.npy").tolist() == [True] and copy["copy_of"].str.endswith("prompt-03.npy").all()
    (refused,) = found["refused"].itertuples()
    assert refused.path.endswith("damaged.npy") and "damaged" in refused.why
    vocabulary = load_vocabulary(str(llama_folder))
    own = readings(load_adapter(many / "prompt-05.npy"), vocabulary)
    told = found["tokens"][found["tokens"]["path"].str.endswith("prompt-05.npy")]
    assert told["nearest_token"].tolist() == own["nearest_token"].tolist() and told["verdict"].tolist() == own["verdict"].tolist()
    np.testing.assert_allclose(told["p_chance"], own["p_chance"])
    lora = load_adapter(many / "lora-1")
    module = found["modules"][found["modules"]["path"].str.endswith("lora-1")].iloc[0]
    np.testing.assert_allclose(module["singular_values"], np.array(spectra(lora)["singular_values"][0].split(), float))
    findings = sum(len(health(load_adapter(many / f"lora-{i}"), spectra(load_adapter(many / f"lora-{i}")))) for i in range(3))
    assert len(found.get("health", [])) == findings


def test_duckdb_reads_the_tables_without_us(many, llama_folder, tmp_path):
    config = many / "lora-1" / "adapter_config.json"
    config.write_text(config.read_text().replace("{", '{"base_model_name_or_path": "somebody/large: 1", ', 1))
    batch(str(many), tmp_path / "out", model=str(llama_folder))
    asked = """
import json, sys, duckdb
files = sys.argv[1] + "/modules/**/*.parquet"
print(json.dumps(duckdb.sql(f"select base_model, path, singular_values, singular_values[1], len(singular_values) from read_parquet('{files}', hive_partitioning = true) order by path").fetchall()))
assert not any(name.startswith("soft_prompt_explorer") for name in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", asked, str(tmp_path / "out")], capture_output=True, text=True, check=True)
    for i, (base, path, values, first, count) in enumerate(json.loads(done.stdout)):
        assert (base, path) == ("somebody/large: 1" if i == 1 else "unknown", f"file://{many}/lora-{i}")
        np.testing.assert_allclose(values, np.array(spectra(load_adapter(many / f"lora-{i}"))["singular_values"][0].split(), float))
        assert (first, count) == (values[0], len(values))
    assert i == 2


def test_every_file_says_where_it_comes_from_also_after_a_second_run(many, llama_folder, tmp_path):
    for command in ("first", "second"):
        batch(str(many), tmp_path / "out", model=str(llama_folder), command=command)
        files = list((tmp_path / "out").rglob("*.parquet"))
        assert {path.relative_to(tmp_path / "out").parts[0] for path in files} >= {
            "manifest.parquet",
            "refused.parquet",
            "tokens",
            "modules",
        }
        for path in files:
            told = json.loads(pyarrow.parquet.read_schema(path).metadata[b"provenance"])
            assert told["command"] == command and told["version"] == soft_prompt_explorer.__version__
            (model,) = told["models"]
            assert model["sha256"] == over_digests([llama_folder / "model.safetensors"])


def test_the_lens_is_that_of_the_single_adapters_and_what_cannot_be_looked_at_keeps_its_other_tables(
    many, llama_folder, tmp_path, monkeypatch
):
    for i in range(2, 12):
        (many / f"prompt-{i:02}.npy").unlink()
    factors = {"model.layers.9.self_attn.q_proj": gaussian(16, 16, 2, np.random.default_rng(9))}
    lora_file(many / "unfit.safetensors", factors)
    batch(str(many), tmp_path / "out", model=str(llama_folder), lens=True)
    found = tables(tmp_path / "out")
    watch, vocabulary = Watch(load_model(str(llama_folder))), load_vocabulary(str(llama_folder))
    for name in ("prompt-00.npy", "prompt-01.npy", "lora-0"):
        told = found["lens"][found["lens"]["path"].str.endswith(name)]
        alone = lens([load_adapter(many / name)], watch, vocabulary)
        assert told["token"].tolist() == alone["token"].tolist()
        np.testing.assert_allclose(told[["score", "z", "q"]], alone[["score", "z", "q"]], rtol=1e-4, atol=1e-6)
    notes = found["manifest"].set_index("path")["notes"]
    unfit = notes[[path for path in notes.index if path.endswith("unfit.safetensors")]].iloc[0]
    assert "name the model that the LoRA was trained on" in unfit and found["modules"]["path"].str.endswith("unfit.safetensors").any()
    monkeypatch.setattr(lens_null, "_see", None)  # what the null adapters did was kept: nothing is looked at again
    batch(str(many / "prompt-0*"), tmp_path / "again", model=str(llama_folder), lens=True)
    assert not tables(tmp_path / "again")["manifest"]["notes"].str.contains("unexpectedly").any()
    with pytest.raises(InputError, match="with the lens; choose another folder"):
        batch(str(many), tmp_path / "out", model=str(llama_folder))


def test_without_a_named_model_the_lens_loads_none_for_an_adapter_of_another(many):
    config = many / "lora-0" / "adapter_config.json"
    config.write_text(config.read_text().replace("{", '{"base_model_name_or_path": "somebody/large", ', 1))
    done = read(Found(str(many / "lora-0"), (), 0, ""), None, True)
    assert "the adapter is for somebody/large, and only a model that is named is loaded" in done.row["notes"] and "modules" in done.tables


def test_what_was_done_is_not_done_again_and_what_changed_is(many, llama_folder, tmp_path):
    batch(str(many), tmp_path / "out", model=str(llama_folder))
    lines = len((tmp_path / "out" / "batch.log").read_text().splitlines())
    np.save(many / "prompt-07.npy", np.ones((2, load_vocabulary(str(llama_folder)).width), np.float32))
    (many / "prompt-08.npy").unlink()
    manifest = batch(str(many), tmp_path / "out", model=str(llama_folder))
    log = (tmp_path / "out" / "batch.log").read_text().splitlines()
    assert len(log) == lines + 1 and log[-1].endswith("prompt-07.npy")
    assert not manifest["path"].str.endswith("prompt-08.npy").any()
    tokens = tables(tmp_path / "out")["tokens"]
    assert (tokens["path"].str.endswith("prompt-07.npy")).sum() == 2 and not tokens["path"].str.endswith("prompt-08.npy").any()


def test_another_config_and_another_start_are_a_change_too(many, llama_folder, tmp_path):
    (many / "alone").mkdir()
    shutil.move(many / "prompt-00.npy", many / "alone")
    for _ in range(2):
        batch(str(many), tmp_path / "out", model=str(llama_folder))
    log = tmp_path / "out" / "batch.log"
    lines = len(log.read_text().splitlines())
    before = tables(tmp_path / "out")["modules"].set_index("path")["spectral_norm"]
    config = many / "lora-0" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 2', '"lora_alpha": 20'))
    start = np.load(many / "alone" / "prompt-00.npy") + 1
    save_file({"initial": start}, many / "alone" / "initial.safetensors")
    batch(str(many), tmp_path / "out", model=str(llama_folder))
    assert [line.rpartition("/")[2] for line in log.read_text().splitlines()[lines:]] == ["prompt-00.npy", "lora-0"]
    found, url = tables(tmp_path / "out"), f"file://{many}/lora-0"
    np.testing.assert_allclose(found["modules"].set_index("path")["spectral_norm"][url], 10 * before[url])
    tokens = found["tokens"][found["tokens"]["path"].str.endswith("prompt-00.npy")]
    np.testing.assert_allclose(tokens["drift"], 4, rtol=1e-4)  # one in each of 16 dimensions
    save_file({"initial": start + 1}, many / "alone" / "initial.safetensors")
    batch(str(many), tmp_path / "out", model=str(llama_folder))
    assert len(log.read_text().splitlines()) == lines + 3


def test_what_another_version_did_is_done_again(many, llama_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "__version__", "0.0.1")
    batch(str(many), tmp_path / "out", model=str(llama_folder))
    log = tmp_path / "out" / "batch.log"
    lines = len(log.read_text().splitlines())
    monkeypatch.undo()
    for _ in range(2):
        batch(str(many), tmp_path / "out", model=str(llama_folder))
        assert len(log.read_text().splitlines()) == 2 * lines


def test_the_adapters_are_those_that_every_command_finds(many, tmp_path):
    """What a training leaves beside an adapter is none, nor is what lies below one."""
    run = many / "lora-0"
    for name in ("initial.safetensors", "trajectory.safetensors", "optimizer.pt", "training_args.bin", "checkpoint-1/optimizer.pt"):
        (run / name).parent.mkdir(exist_ok=True)
        shutil.copy(many / "lora-1" / "adapter_model.safetensors", run / name)
    shutil.copytree(many / "lora-1", run / "checkpoint-2")
    (many / "plain").mkdir()
    shutil.copy(many / "prompt-00.npy", many / "plain")
    shutil.copy(many / "lora-1" / "adapter_model.safetensors", many / "plain" / "trajectory.safetensors")
    (many / "model").mkdir()
    for name in ("config.json", "model.safetensors", ".hidden.npy"):
        (many / "model" / name).write_text("{}")
    wanted = sorted(f"file://{each.path}" for each in places_of([many], from_hub=lambda *_: many))
    assert len(wanted) == 18
    for pattern in (many, many / "*", many / "**"):
        assert sorted(each.url for each in find(str(pattern))) == wanted
    assert [each.url.removeprefix("file://") for each in find(str(run / "checkpoint-*"))] == [str(run / "checkpoint-2")]
    (only,) = find(str(run / "adapter_model.safetensors"))
    assert only.url.removeprefix("file://") == str(run) and only.size == sum((run / file).stat().st_size for file in only.files)


def same(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> None:
    assert one.keys() == other.keys()
    for name, table in one.items():
        pd.testing.assert_frame_equal(table, other[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "workers"), [("loky", 2), ("dask", 2), ("dask", 1), ("scheduler", 2), ("scheduler", 1), ("ray", 2), ("ray", 1)]
)
def test_every_engine_makes_the_same_tables_and_computes_elsewhere(engine, workers, many, llama_folder, tmp_path, monkeypatch):
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    batch(str(many), tmp_path / "here", model=str(llama_folder))
    if engine == "scheduler":
        from distributed import LocalCluster

        with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", protocol="tcp://") as cluster:
            batch(str(many), tmp_path / "there", model=str(llama_folder), engine="dask", scheduler=cluster.scheduler_address)
    else:
        batch(str(many), tmp_path / "there", model=str(llama_folder), engine=engine, workers=workers)
    same(tables(tmp_path / "here"), tables(tmp_path / "there"))
    processes = {line.split("\t")[1] for line in (tmp_path / "there" / "batch.log").read_text().splitlines()}
    assert str(os.getpid()) not in processes


# Runs `batch` by so many processes, slowly enough to be seen in the middle, and notes beside its tables what each has read, however it ends.
NOTED = """
import os, sys, time
from pathlib import Path
from soft_prompt_explorer.analysis.report import batches
folder, out, model, workers = sys.argv[1:]
whole = batches.read
def read(one, *rest):
    done = whole(one, *rest)
    with open(out + ".read", "a") as file:
        file.write(one.url + chr(10))
    time.sleep(0.05)
    return done
batches.read = read
batches.batch(folder, Path(out), model=model, workers=int(workers))
"""


@pytest.mark.slow
def test_after_kill_9_in_the_middle_at_most_one_file_is_done_twice(many, llama_folder, tmp_path):
    for i in range(12, 150):
        shutil.copy(many / "prompt-00.npy", many / f"prompt-{i:03}.npy")
    words = [sys.executable, "-c", NOTED, str(many), str(tmp_path / "out"), str(llama_folder), "1"]
    log = tmp_path / "out" / "batch.log"
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    wait_until(lambda: log.is_file() and len(log.read_text().splitlines()) >= 20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(log.read_text().splitlines())
    assert 20 <= before < 154
    subprocess.run(words, check=True, capture_output=True)
    urls = pd.Series([line.split("\t")[-1] for line in log.read_text().splitlines()])
    assert urls.nunique() == 155 and len(urls) - urls.nunique() <= 1
    batch(str(many), tmp_path / "whole", model=str(llama_folder))
    same(tables(tmp_path / "out"), tables(tmp_path / "whole"))


@pytest.mark.slow
def test_after_kill_9_of_two_workers_at_most_two_files_a_worker_are_done_twice(many, llama_folder, tmp_path):
    for i in range(12, 150):
        shutil.copy(many / "prompt-00.npy", many / f"prompt-{i:03}.npy")
    words = [sys.executable, "-c", NOTED, str(many), str(tmp_path / "out"), str(llama_folder), "2"]
    log, done = tmp_path / "out" / "batch.log", tmp_path / "out.read"
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    wait_until(lambda: log.is_file() and len(log.read_text().splitlines()) >= 20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(log.read_text().splitlines()) < 154
    subprocess.run(words, check=True, capture_output=True)
    urls = pd.Series(done.read_text().splitlines())
    assert urls.nunique() == 155 and len(urls) - urls.nunique() <= 4
    batch(str(many), tmp_path / "whole", model=str(llama_folder))
    same(tables(tmp_path / "out"), tables(tmp_path / "whole"))


def test_a_pattern_of_another_file_system_is_fetched_and_one_that_names_nothing_is_refused(many, llama_folder, tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/adapters/a.npy", (many / "prompt-00.npy").read_bytes())
    memory.pipe("/adapters/notes.txt", b"no")
    manifest = batch("memory://adapters/*", tmp_path / "out", model=str(llama_folder))
    assert manifest["path"].tolist() == ["memory:///adapters/a.npy"] and manifest["virtual_tokens"].tolist() == [4]
    for pattern, says in (
        ("memory://nothing/*", "names no file"),
        ("nosuchprotocol://x/*", "cannot be looked at"),
        (str(tmp_path / "no"), "names no file"),
    ):
        with pytest.raises(InputError, match=says):
            find(pattern)


def test_of_a_folder_on_another_file_system_what_the_adapter_needs_is_fetched_and_counted(
    many, tmp_path, monkeypatch, tiny_llama, llama_folder
):
    from fsspec.implementations.memory import MemoryFileSystem

    memory, rows = MemoryFileSystem(), tiny_llama.get_input_embeddings().weight.detach().numpy()[[7, 250]].copy()
    names = {"prompt_embeddings": (rows, "adapter_model.safetensors"), "initial": (rows - 1, "initial.safetensors")}
    for key, (values, name) in names.items():
        memory.pipe(f"/runs/one/{name}", save({key: values}))
    memory.pipe("/runs/one/adapter_config.json", json.dumps({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2}).encode())
    for name in ("optimizer.pt", "trajectory.safetensors", "checkpoint-1/adapter_model.safetensors", "checkpoint-1/optimizer.pt"):
        memory.pipe(f"/runs/one/{name}", bytes(100_000))
    fetched, opened = [], MemoryFileSystem.open

    def told(self, source, *how, **options):
        fetched.append(source.rpartition("/")[2])
        return opened(self, source, *how, **options)

    monkeypatch.setattr(MemoryFileSystem, "open", told)
    size = sum(memory.size(f"/runs/one/{name}") for name in ("adapter_config.json", "adapter_model.safetensors", "initial.safetensors"))
    monkeypatch.setattr(batch_files, "LARGEST_FETCHED", size)
    manifest = batch("memory://runs", tmp_path / "out", model=str(llama_folder))
    assert manifest["path"].tolist() == ["memory:///runs/one"]
    assert sorted(fetched) == ["adapter_config.json", "adapter_model.safetensors", "initial.safetensors"]
    np.testing.assert_allclose(tables(tmp_path / "out")["tokens"]["drift"], 4, rtol=1e-4)
    memory.pipe("/runs/one/initial.safetensors", save({"initial": rows - 2, "more": rows}))
    assert not len(batch("memory://runs", tmp_path / "out", model=str(llama_folder)))
    (refused,) = tables(tmp_path / "out")["refused"].itertuples()
    assert "are the most that is fetched" in refused.why
    memory.rm("/runs", recursive=True)


def test_a_folder_of_another_batch_is_refused(many, llama_folder, tmp_path):
    batch(str(many / "prompt-00.npy"), tmp_path / "out", model=str(llama_folder))
    with pytest.raises(InputError, match="choose another folder"):
        batch(str(many / "prompt-00.npy"), tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be kept"):
        batch(str(many / "prompt-00.npy"), tmp_path / "file" / "out")
