import json
import math
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.core.errors import AdapterError, InputError
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.card import command_of
from soft_prompt_explorer.trained_prompts.runs.recording import Recording
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.places import REPOSITORY, names_in
from tests.support.training import trained
from tests.support.waiting import PATIENCE


@pytest.fixture
def recording(toy_config, language_model):
    recording = Recording(toy_config)
    for step in train(toy_config, language_model=language_model):
        recording.add(step)
    return recording


@pytest.fixture
def scores(recording, language_model):
    return evaluate_run(recording, language_model=language_model)


def test_peft_loads_a_saved_run_and_puts_the_same_rows_in_front(recording, scores, own_runs, language_model):
    from peft import PeftModel

    path = store.save(recording, "mine", scores)
    peft_model = PeftModel.from_pretrained(language_model[0], path)
    torch.testing.assert_close(peft_model.get_prompt(batch_size=1)[0], torch.from_numpy(recording.embeddings), atol=0, rtol=0)

    ids = torch.tensor([[5, 6, 7]])
    prefixed = torch.cat([torch.from_numpy(recording.embeddings)[None], language_model[0].get_input_embeddings()(ids)], dim=1)
    torch.testing.assert_close(peft_model(input_ids=ids).logits, language_model[0](inputs_embeds=prefixed).logits)


def test_a_saved_run_has_the_very_files_that_peft_writes(recording, scores, own_runs, language_model, tmp_path):
    from peft import PeftModel

    path = store.save(recording, "mine", scores)
    PeftModel.from_pretrained(language_model[0], path).save_pretrained(tmp_path / "by-peft")
    ours, theirs = load_file(path / "adapter_model.safetensors"), load_file(tmp_path / "by-peft" / "adapter_model.safetensors")
    assert list(ours) == list(theirs)
    np.testing.assert_array_equal(ours["prompt_embeddings"], theirs["prompt_embeddings"])
    assert json.loads((path / "adapter_config.json").read_text()) == json.loads((tmp_path / "by-peft" / "adapter_config.json").read_text())


def test_a_run_keeps_what_is_needed_to_understand_and_repeat_it(recording, scores, own_runs, toy_config):
    path = store.save(recording, "mine", scores)
    prompt = load_adapter(path)
    np.testing.assert_array_equal(prompt.embeddings, recording.embeddings)
    np.testing.assert_array_equal(prompt.initial, recording.initial)

    trajectory = load_file(path / "trajectory.safetensors")
    assert trajectory["steps"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(trajectory["embeddings"][-1].astype(np.float32), recording.embeddings, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(trajectory["embeddings"][0].astype(np.float32), recording.initial, rtol=1e-3, atol=1e-6)

    losses = pd.read_csv(path / "losses.csv")
    assert losses["step"].tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(losses["learning_rate"], [0.1, 0.075, 0.05, 0.025])

    run = read_description(path)
    assert run["config"]["seed"] == toy_config.seed
    assert set(run["scores"]) == {"no prompt", "initial values", "trained"}
    assert run["versions"]["torch"] == torch.__version__
    assert len(run["model"]["sha256"]) == 64


def test_a_long_run_keeps_some_twenty_snapshots():
    from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
    from soft_prompt_explorer.trained_prompts.training.trainer import TrainingStep

    recording = Recording(TrainingConfig(task="sentiment", steps=1003))
    for step in range(1004):
        recording.add(TrainingStep(step, 1003, 0.5, 0.1, float(step), np.full((2, 3), step, dtype=np.float32)))
    steps, embeddings = recording.trajectory()
    assert 20 <= len(steps) <= 23
    assert (steps[0], steps[-1]) == (0, 1003)
    np.testing.assert_array_equal(embeddings[:, 0, 0], steps.astype(np.float16))


def test_a_run_that_cannot_be_written_leaves_nothing(recording, scores, own_runs, monkeypatch):
    import pandas

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pandas.DataFrame, "to_csv", full_disk)
    with pytest.raises(InputError, match="No space"):
        store.save(recording, "mine", scores)
    assert list(own_runs.iterdir()) == []


def test_a_name_is_used_once_and_stays_in_its_folder(recording, scores, own_runs):
    store.save(recording, "mine", scores)
    with pytest.raises(InputError, match="already"):
        store.save(recording, "mine", scores)
    for name in ("", "..", "../mine", "/tmp/mine", "a/b", ".hidden", "x" * 65, "new\nline"):
        with pytest.raises(InputError, match="cannot be used"):
            store.save(recording, name, scores)
    assert [path.name for path in own_runs.iterdir()] == ["mine"]


def test_a_gallery_name_cannot_be_taken(recording, scores, own_runs):
    shipped = store.list_runs().query("origin == 'gallery'")["name"].iloc[0]
    with pytest.raises(InputError, match="already"):
        store.save(recording, shipped, scores)


def test_a_run_is_listed_found_and_deleted(recording, scores, own_runs):
    path = store.save(recording, "mine", scores)
    row = store.list_runs().set_index("name").loc["mine"]
    assert (row["origin"], row["task"], row["tokens"], row["steps"]) == ("yours", "toy", 3, 4)
    assert row["score"] == scores.set_index("prompt").loc["trained", "score"]
    assert store.find("mine") == path
    store.delete("mine")
    assert "mine" not in set(store.list_runs()["name"])
    with pytest.raises(InputError, match="No prompt is called 'mine'"):
        store.find("mine")


def test_a_run_that_is_just_being_written_is_not_listed(recording, scores, own_runs):
    store.save(recording, "mine", scores).rename(own_runs / ".spe-partial-abc")
    assert ".spe-partial-abc" not in set(store.list_runs()["name"])


def test_a_cards_command_cannot_run_anything_else(recording, scores, own_runs):
    import shlex

    recording.config = replace(recording.config, init="text", init_text='"; $(touch /tmp/x) `id`')
    command = next(line for line in (store.save(recording, "mine", scores) / "README.md").read_text().splitlines() if "python -m" in line)
    assert '"; $(touch /tmp/x) `id`' in shlex.split(command)
    assert "'\"; $(touch /tmp/x) `id`'" in command


def test_a_foreign_folder_in_the_store_does_no_harm(own_runs):
    (own_runs / "foreign").mkdir(parents=True)
    (own_runs / "foreign" / "run.json").write_text('{"config": 3}')
    (own_runs / "broken").mkdir()
    (own_runs / "broken" / "run.json").write_text("{")
    assert set(store.list_runs()["origin"]) <= {"gallery"}


def test_the_galleries_prompts_cannot_be_deleted(own_runs):
    shipped = store.list_runs().query("origin == 'gallery'").iloc[0]
    with pytest.raises(InputError):
        store.delete(shipped["name"])
    assert Path(shipped["path"]).is_dir()


@pytest.mark.slow
def test_a_killed_training_leaves_nothing_half_written(own_runs, llama_folder, tmp_path):
    environment = os.environ | {"SOFT_PROMPT_EXPLORER_RUNS": str(own_runs), "SOFT_PROMPT_EXPLORER_CACHE": str(tmp_path / "cache")}
    arguments = ["train", "--task", "capitals", "--model", str(llama_folder), "--steps", "100000", "--init", "random", "--name", "killed"]
    process = subprocess.Popen(
        [sys.executable, "-m", "trained_prompts", *arguments], cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE
    )
    seen = b""
    deadline = time.monotonic() + PATIENCE
    while b"loss" not in seen and time.monotonic() < deadline:
        seen += os.read(process.stderr.fileno(), 4096)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert b"loss" in seen
    assert not list(own_runs.glob("[!.]*"))
    assert "killed" not in set(store.list_runs()["name"])


def test_somebodys_file_is_kept_byte_for_byte_listed_found_read_and_removed(own_runs, tmp_path):
    np.save(tmp_path / "theirs.npy", np.eye(3, 4, dtype=np.float16))
    content = (tmp_path / "theirs.npy").read_bytes()
    assert store.name_like("../their file!") == "their-file-"
    path = store.keep([("../../theirs.npy", content)], "theirs")
    assert path == own_runs / "theirs"
    assert (path / "uploaded").read_bytes() == content
    assert store.name_like("theirs") == "theirs-2"
    kept = store.list_kept()
    assert kept[["name", "kind", "format"]].to_numpy().tolist() == [["theirs", "soft_prompt", "NumPy array"]]
    prompt = load_adapter(store.adapter_path("theirs"))
    assert np.array_equal(prompt.embeddings, np.eye(3, 4))
    assert prompt.source.sha256 == kept["sha256"].item()
    assert store.own_model("theirs") is None
    with pytest.raises(InputError, match="already"):
        store.keep([("theirs.npy", content)], "theirs")
    store.delete("theirs")
    assert names_in(own_runs) == []


def test_a_zip_that_is_kept_can_still_be_read(own_runs, tmp_path):
    np.save(tmp_path / "tensor.npy", np.ones((2, 4), dtype=np.float32))
    with zipfile.ZipFile(tmp_path / "theirs.zip", "w") as archive:
        archive.write(tmp_path / "tensor.npy", "tensor.npy")
        archive.writestr("meta.json", "{}")
    store.keep([("theirs.zip", (tmp_path / "theirs.zip").read_bytes())], "theirs")
    assert len(load_adapter(store.adapter_path("theirs"))) == 2


def test_a_file_that_cannot_be_read_is_not_kept(own_runs):
    with pytest.raises(AdapterError):
        store.keep([("theirs.npy", b"no prompt")], "theirs")
    assert names_in(own_runs) == []


def test_a_run_of_nothing_but_words_is_described_in_json_that_every_reader_takes(toy_config, language_model, own_runs):
    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    recording = trained(replace(toy_config, readable=math.inf), language_model)
    scores = evaluate_run(recording, language_model=language_model)
    path = store.save(recording, "words", scores.assign(loss=math.nan))
    text = (path / "run.json").read_text()
    assert json.loads(text, parse_constant=refuse)["config"]["readable"] == "inf"
    assert read_description(path)["config"]["readable"] == math.inf
    assert "--readable inf" in store.read_card("words")
    (path / "run.json").write_text(text.replace('"readable": "inf"', '"readable": Infinity'))  # as it was written before
    assert read_description(path)["config"]["readable"] == math.inf
    assert "--readable inf" in command_of(read_description(path))
    assert store.list_runs().set_index("name").loc["words", "readable"] == math.inf


def test_the_losses_of_a_run_are_read_or_refused_in_a_sentence(recording, scores, own_runs):
    path = store.save(recording, "mine", scores)
    pd.testing.assert_frame_equal(store.read_losses("mine"), recording.losses().dropna(axis=1, how="all"), check_exact=False)
    for spoil in (lambda file: file.write_bytes(b""), lambda file: file.unlink()):
        spoil(path / "losses.csv")
        with pytest.raises(InputError, match="losses of mine cannot be read"):
            store.read_losses("mine")
    with pytest.raises(InputError, match="No prompt is called"):
        store.read_losses("nosuchrun")
