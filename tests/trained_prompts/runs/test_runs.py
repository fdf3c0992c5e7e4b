"""A run from its settings to its folder: killed and gone on with, out of disk, out of numbers, stopped early; and what it costs in memory."""

import math
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.memory import PeakMemory
from soft_prompt_explorer.trained_prompts.runs.recording import Recording, checkpoint_path, unfinished
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run, recorded
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.trainer import DivergedError, TrainingStep, train
from tests.support.full_disk import files_limited_to
from tests.support.places import REPOSITORY, names_in
from tests.support.plain_calls import label_scores, plain_loss
from tests.support.training import ABSURD, absurd, trained

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # of numbers near the end of float32


@pytest.fixture
def checkpoint_each_step(monkeypatch):
    monkeypatch.setattr(runs, "CHECKPOINT_SECONDS", -1.0)


# --- Killed, and gone on with ----------------------------------------------------------------------------------------


# Trains a run for each step given, each in a process of its own, which kills itself at that step. A checkpoint is due at steps 1, 4, 7, …
KILLED = """
import os, signal, sys
import peft, torch
torch.set_num_threads(1)
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.asking import scores as evaluation
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

task, model, *steps = sys.argv[1:]
language_model = load_model(model, device="cpu")
for killed_at in map(int, steps):
    child = os.fork()
    if child == 0:
        def watch(step):
            runs.CHECKPOINT_SECONDS = -1.0 if step.step % 3 == 0 else 1e9
            if step.step == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
        config = TrainingConfig(**eval(os.environ["CONFIG"]))
        runs.run(config, f"killed-{killed_at}", language_model=language_model, watch=watch)
        os._exit(0)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


def files_of(path) -> dict:
    """What a run left behind, without the times and the name."""
    losses = pd.read_csv(path / "losses.csv")
    run = read_description(path)
    return {
        "adapter": (path / "adapter_model.safetensors").read_bytes(),
        "initial": (path / "initial.safetensors").read_bytes(),
        "trajectory": {name: array.tolist() for name, array in load_file(path / "trajectory.safetensors").items()},
        "losses": losses.drop(columns="seconds").fillna(-1.0).to_numpy().tolist(),
        "scores": run["scores"],
        "steps": (run["steps_done"], run["kept_step"], run["trainable_parameters"]),
        "config": run["config"],
    }


@pytest.mark.slow
def test_a_run_killed_at_any_step_goes_on_to_the_very_same_end(config, language_model, own_runs, one_thread):
    config = replace(config, steps=14)
    steps = {0: None, 2: 1, 7: 7, 9: 7, 12: 10, 14: 14}  # where it is killed: the last step that was kept
    done = subprocess.run(
        [sys.executable, "-c", KILLED, config.task, config.model, *map(str, steps)],
        cwd=REPOSITORY, env=os.environ | {"CONFIG": repr(vars(config))}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * len(steps), done.stderr
    assert names_in(own_runs) == [".unfinished"]
    kept = {row.name: row.steps for row in unfinished().itertuples(index=False)}
    assert kept == {f"killed-{killed_at}": step for killed_at, step in steps.items() if step is not None}

    seen = []
    runs.run(config, "unbroken", language_model=language_model, watch=lambda step: seen.append(step.step))
    assert seen == list(range(15))
    unbroken = files_of(own_runs / "unbroken")
    for killed_at, step in steps.items():
        seen.clear()
        runs.run(config, f"killed-{killed_at}", language_model=language_model, watch=lambda step: seen.append(step.step))
        assert seen == list(range(step or 0, 15))
        assert files_of(own_runs / f"killed-{killed_at}") == unbroken
    assert unfinished().empty
    assert not (own_runs / ".unfinished").exists()


def broken_off(config, language_model, at: int = 3) -> None:
    broken = runs.record(config, "mine", language_model=language_model)
    for _, step in broken:
        if step.step == at:
            broken.close()


def gone_on_with(config, language_model, seen: list[int] | None = None) -> Recording:
    """What the run leaves behind at its end."""
    made = list(runs.record(config, "mine", language_model=language_model))
    if seen is not None:
        seen.extend(step.step for _, step in made)
    return made[-1][0]


METHODS = {
    "prompt-tuning": {},
    "readable": {"method": "prompt-tuning", "readable": 0.5},
    "p-tuning": {"init": "sample-vocab"},
    "prefix-tuning": {},
    "lora": {"rank": 2},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("broken_at", [1, 10])
def test_every_method_but_full_fine_tuning_goes_on_where_it_was_broken_off(method, broken_at, config, language_model, checkpoint_each_step):
    settings = {"steps": 11, "learning_rate": 0.02, "validate_every": None, "patience": None, "method": method} | METHODS[method]
    config = replace(config, **settings)
    unbroken = trained(config, language_model)
    broken_off(config, language_model, at=broken_at)
    seen = []
    recording = gone_on_with(config, language_model, seen)
    assert seen == list(range(broken_at, 12))
    kept, whole = recording.losses().drop(columns="seconds"), unbroken.losses().drop(columns="seconds")
    pd.testing.assert_frame_equal(kept, whole, check_exact=True)
    assert recording.last.trainable == unbroken.last.trainable
    if recording.embeddings is not None:
        np.testing.assert_array_equal(recording.embeddings, unbroken.embeddings)
        np.testing.assert_array_equal(recording.initial, unbroken.initial)
        for ours, theirs in zip(recording.trajectory(), unbroken.trajectory(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    else:
        assert recording.weights.keys() == unbroken.weights.keys()
        assert all(np.array_equal(array, unbroken.weights[name]) for name, array in recording.weights.items())


def test_the_snapshots_of_a_run_gone_on_with_stand_in_the_order_of_their_steps(config, language_model, checkpoint_each_step):
    broken_off(config, language_model, at=13)
    recording = gone_on_with(config, language_model)
    assert recording.trajectory()[0].tolist() == list(range(25))


def test_seconds_go_on_where_they_were(config, language_model, checkpoint_each_step):
    broken = runs.record(config, "mine", language_model=language_model)
    for recording, step in broken:
        if step.step == 5:
            before = recording.last.seconds
            broken.close()
    recording = gone_on_with(config, language_model)
    seconds = recording.losses()["seconds"]
    assert seconds.iloc[4] == before
    assert (seconds.diff().dropna() > 0).all()


def test_full_fine_tuning_keeps_nothing_to_go_on_with_and_begins_again(config, language_model, own_runs, checkpoint_each_step):
    config = replace(config, method="full", learning_rate=0.001, patience=None, steps=4)
    broken = runs.record(config, "mine", language_model=language_model)
    for _, step in broken:
        assert step.checkpoint is None
        if step.step == 2:
            broken.close()
    assert not (own_runs / ".unfinished").exists()
    assert next(runs.record(config, "mine", language_model=language_model))[1].step == 0


def test_other_settings_under_the_name_of_an_unfinished_run_are_refused(config, language_model, own_runs, checkpoint_each_step):
    broken_off(config, language_model)
    path = checkpoint_path("mine")
    before = path.read_bytes()
    for change in (
        {"seed": 1},
        {"steps": 25},
        {"learning_rate": 0.2},
        {"readable": 0.5},
        {"method": "p-tuning"},
        {"tokens": 4},
        {"patience": 2},
    ):
        with pytest.raises(InputError, match="other settings"):
            runs.run(replace(config, **change), "mine", language_model=language_model)
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="other settings"):
        next(train(replace(config, tokens=4), language_model=language_model, resume=Recording.from_checkpoint(config, path)[1]))


@pytest.mark.parametrize("damage", ["cut", "empty", "no safetensors", "a tensor missing", "no metadata"])
def test_a_damaged_checkpoint_is_refused_in_a_sentence(damage, config, language_model, own_runs, checkpoint_each_step):
    from safetensors.numpy import save_file

    broken_off(config, language_model)
    path = checkpoint_path("mine")
    content, arrays = path.read_bytes(), load_file(path)
    if damage in ("a tensor missing", "no metadata"):
        from safetensors import safe_open

        with safe_open(path, framework="np") as file:
            metadata = file.metadata()
        arrays.pop("state.exp_avg.0" if damage == "a tensor missing" else "losses")
        save_file(arrays, path, metadata if damage == "a tensor missing" else None)
    else:
        path.write_bytes({"cut": content[:-50], "empty": b"", "no safetensors": b"x" * 500}[damage])
    with pytest.raises(InputError) as refused:
        runs.run(config, "mine", language_model=language_model)
    assert "\n" not in str(refused.value)
    assert str(path.parent) in str(refused.value) or "other settings" in str(refused.value)


# --- The disk full ---------------------------------------------------------------------------------------------------


@contextmanager
def full_disk(folder, size: int):
    """A disk of so many bytes at `folder`, where this process may mount one."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def no_larger_files(folder, size: int):
    return files_limited_to(size)


@pytest.mark.skipif(sys.platform == "win32", reason="no such disks")
@pytest.mark.parametrize("limited", [full_disk, no_larger_files])
def test_a_full_disk_ends_a_run_in_a_sentence_and_leaves_its_earlier_checkpoint(
    limited, config, language_model, own_runs, checkpoint_each_step, monkeypatch
):
    config = replace(config, tokens=30, validate_every=None, patience=None)
    unbroken = trained(config, language_model)
    # 24 snapshots of 30 × 16 in 16 bits and eight states of as many numbers in 32 take 40 kB: the disk is full on the way
    with limited(own_runs, 28 * 1024 if limited is no_larger_files else 56 * 1024):  # where the new file stands beside the old one
        seen = []
        with pytest.raises(InputError, match="cannot be kept") as ended:
            runs.run(config, "mine", language_model=language_model, watch=lambda step: seen.append(step.step))
        assert "\n" not in str(ended.value) and "checkpoint of an earlier step is unchanged" in str(ended.value)
        assert 3 < len(seen) < 24
        assert names_in(own_runs / ".unfinished") == ["mine.safetensors"]
        assert unfinished()["steps"].tolist() == [seen[-1]]
        content = checkpoint_path("mine").read_bytes()
    checkpoint_path("mine").parent.mkdir(parents=True, exist_ok=True)
    checkpoint_path("mine").write_bytes(content)
    runs.run(config, "mine", language_model=language_model)
    np.testing.assert_array_equal(load_soft_prompt(own_runs / "mine").embeddings, unbroken.embeddings)


@pytest.mark.parametrize("method", ["prompt-tuning", "full"])
@pytest.mark.parametrize("limited", [full_disk, no_larger_files])
def test_a_run_that_does_not_fit_on_the_disk_is_refused_in_a_sentence(limited, method, config, language_model, own_runs):
    config = replace(config, method=method, steps=2, tokens=30, patience=None, validate_every=None, learning_rate=0.001)
    recording = trained(config, language_model)
    scores = evaluate_run(recording, language_model=language_model)
    with limited(own_runs, 1024 if limited is no_larger_files else 8 * 1024):
        with pytest.raises(InputError, match="cannot be kept in") as refused:
            store.save(recording, "mine", scores)
        assert "\n" not in str(refused.value)
        assert names_in(own_runs) == []


# --- No number -------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_ends_the_run_and_the_last_good_state_is_kept(config, language_model, own_runs):
    config = absurd(replace(config, validate_every=None, patience=None))
    with pytest.raises(InputError, match=r"The loss became (nan|inf) at step \d+; a smaller learning rate than 1\.1e\+09") as ended:
        runs.run(config, "mine", language_model=language_model)
    assert "\n" not in str(ended.value) and str(own_runs / "mine") in str(ended.value)
    prompt, run = load_soft_prompt(own_runs / "mine"), read_description(own_runs / "mine")
    assert np.isfinite(prompt.embeddings).all()
    assert run["steps_done"] >= 1
    assert all(math.isfinite(score["loss"]) for score in run["scores"].values())
    assert len(pd.read_csv(own_runs / "mine" / "losses.csv")) == run["steps_done"]
    steps = load_file(own_runs / "mine" / "trajectory.safetensors")["steps"]
    assert steps.max() == run["steps_done"]
    assert unfinished().empty

    states = [step.embeddings for step in _until_no_number(config, language_model)]
    assert not np.isfinite(states[-1]).all()
    np.testing.assert_array_equal(prompt.embeddings, states[run["steps_done"]])


def _until_no_number(config, language_model):
    try:
        yield from train(config, language_model=language_model)
    except DivergedError:
        return


@pytest.mark.parametrize("steps", range(1, 6))
def test_an_update_that_leaves_no_numbers_is_never_what_is_kept_even_if_it_is_the_last(steps, config, language_model, own_runs):
    """The loss of a step is measured before its update, so nothing measures what the last one leaves."""
    try:
        runs.run(absurd(replace(config, steps=steps, validate_every=None, patience=None)), "mine", language_model=language_model)
    except InputError as error:
        assert "learning rate" in str(error)
    if (own_runs / "mine").exists():
        assert np.isfinite(load_soft_prompt(own_runs / "mine").embeddings).all()
    assert steps == 1 or (own_runs / "mine").exists()


def test_a_state_without_numbers_is_not_the_best_one(config):
    """Where all probabilities are NaN, the first label is chosen, which may well score better than what was learned before."""
    recording = Recording(config)
    for number, (value, validation) in enumerate([(0.0, 0.4), (1.0, 0.5), (math.nan, 0.9)]):
        rows = np.full((3, 16), value, dtype=np.float32)
        recording.add(TrainingStep(number, 24, 1.0, 0.1, float(number), rows, validation=validation))
    assert recording.kept.step == 2
    recording.step_back()
    assert (recording.kept.step, recording.steps_done, len(recording.losses())) == (1, 1, 1)
    assert (recording.embeddings == 1.0).all()


def test_full_fine_tuning_cannot_go_back_and_says_so(config, language_model, own_runs):
    config = absurd(replace(config, method="full", validate_every=None, patience=None))
    with pytest.raises(InputError, match="smaller learning rate") as ended:
        runs.run(config, "mine", language_model=language_model)
    assert "\n" not in str(ended.value)
    assert names_in(own_runs) == []


def test_the_command_says_that_the_rate_was_absurd_and_ends_with_status_2(config, own_runs, monkeypatch, training_command):
    words = ("train", "--task", config.task, "--model", config.model, "--method", "p-tuning", "--tokens", 3, "--name", "mine")
    refused = training_command(*words, "--learning-rate", "1e9")
    assert refused.status == 2
    assert refused.err.strip().startswith("A learning rate lies above 0 and at most at 100")
    assert not own_runs.exists()

    checked = TrainingConfig.__post_init__

    def absurdly(self) -> None:
        checked(self)
        object.__setattr__(self, "learning_rate", ABSURD)

    monkeypatch.setattr(TrainingConfig, "__post_init__", absurdly)
    status, _, said = training_command(*words, "--steps", 9)
    assert status == 2
    assert "Traceback" not in said
    assert "The loss became" in said and f"is kept in {own_runs / 'mine'}." in said.splitlines()[-1]
    assert np.isfinite(load_soft_prompt(own_runs / "mine").embeddings).all()


# --- Watched while it learns -----------------------------------------------------------------------------------------


def test_what_a_run_is_watched_on_is_neither_learned_from_nor_held_out(config, language_model):
    """The first loss is that of all examples but those set aside, and the score is that of those set aside, both by plain calls."""
    model, tokenizer = language_model
    task = get_task(config.task)
    examples = task.examples("train")
    aside = len(examples) // 5
    learned, watched = examples.iloc[: len(examples) - aside], examples.iloc[len(examples) - aside :]
    assert len(watched) == 6
    assert not set(watched["text"]) & (set(learned["text"]) | set(task.examples("held-out")["text"]))

    first, then = list(train(replace(config, batch_size=100, steps=1, validate_every=1), language_model=language_model))
    assert then.loss == pytest.approx(
        plain_loss(model, tokenizer, torch.from_numpy(first.embeddings), learned["text"], learned["target"]).item(), abs=1e-5
    )
    for step in (first, then):
        chosen = [int(np.argmax(label_scores(model, tokenizer, step.embeddings, text, task.labels))) for text in watched["text"]]
        assert step.validation == np.mean([task.labels[label] == target for label, target in zip(chosen, watched["target"], strict=True)])
    unwatched = list(train(replace(config, batch_size=100, steps=1, validate_every=None, patience=None), language_model=language_model))
    everything = plain_loss(model, tokenizer, torch.from_numpy(first.embeddings), examples["text"], examples["target"]).item()
    assert unwatched[1].loss == pytest.approx(everything, abs=1e-5)
    assert unwatched[1].validation is None


def test_watching_more_often_changes_nothing_but_what_is_seen(config, language_model):
    often, seldom = (trained(replace(config, validate_every=every), language_model) for every in (1, 8))
    assert often.losses()["loss"].tolist() == seldom.losses()["loss"].tolist()
    seen = seldom.losses().set_index("step")["validation"].dropna()
    assert seen.index.tolist() == [8, 16, 24]
    assert seen.tolist() == often.losses().set_index("step")["validation"][[8, 16, 24]].tolist()


@pytest.fixture
def hasty(config) -> TrainingConfig:
    """Steps so large that the score goes up and down."""
    return replace(config, validate_every=1, patience=3, learning_rate=2.0, steps=60)


def test_a_run_out_of_patience_stops_and_keeps_its_best_state(hasty, language_model):
    steps = list(train(hasty, language_model=language_model))
    scores = [step.validation for step in steps]
    assert 4 <= len(steps) < 61
    bests = [max(scores[: i + 1]) for i in range(len(scores))]
    not_better = [0 if i == 0 or scores[i] > bests[i - 1] else 1 for i in range(len(scores))]
    in_a_row = [next((j for j in range(i + 1) if not not_better[i - j]), i + 1) for i in range(len(scores))]
    assert in_a_row[-1] == 3 and max(in_a_row[:-1]) < 3

    recording = trained(hasty, language_model)
    best = int(np.argmax(scores))
    assert (recording.kept.step, recording.steps_done) == (best, steps[-1].step) and best < steps[-1].step
    np.testing.assert_array_equal(recording.embeddings, steps[best].embeddings)
    with recorded(recording, language_model) as subject, torch.no_grad():
        in_front = subject.model.get_prompt(batch_size=1)[0]
    np.testing.assert_array_equal(in_front.numpy(), steps[best].embeddings)

    patient = trained(replace(hasty, patience=None, steps=60), language_model)
    assert patient.steps_done == 60
    np.testing.assert_array_equal(patient.embeddings, patient.last.embeddings)


def test_a_run_killed_when_its_patience_was_over_does_not_go_on(hasty, language_model, checkpoint_each_step):
    unbroken = trained(hasty, language_model)
    broken_off(hasty, language_model, at=unbroken.steps_done)
    seen = [step.step for _, step in runs.record(hasty, "mine", language_model=language_model)]
    assert seen == [unbroken.steps_done]
    recording = gone_on_with(hasty, language_model)
    assert recording.kept.step == unbroken.kept.step
    np.testing.assert_array_equal(recording.embeddings, unbroken.embeddings)


def test_a_run_killed_before_its_patience_was_over_stops_where_it_would_have(hasty, language_model, checkpoint_each_step):
    unbroken = trained(hasty, language_model)
    broken_off(hasty, language_model, at=unbroken.steps_done - 1)
    recording = gone_on_with(hasty, language_model)
    assert (recording.steps_done, recording.kept.step) == (unbroken.steps_done, unbroken.kept.step)
    np.testing.assert_array_equal(recording.embeddings, unbroken.embeddings)


# --- What a run costs ------------------------------------------------------------------------------------------------


def test_the_peak_sees_200_megabytes_that_come_and_go(config, language_model):
    with PeakMemory() as nothing:
        pass
    with PeakMemory() as peak:
        taken = np.ones(25_000_000)
        until = np.sum(taken[:10])
        for _ in range(20):  # longer than the time between two looks
            until += np.sum(taken)
        del taken
    assert until > 0
    assert 190e6 < peak.bytes - nothing.bytes < 300e6


def test_a_run_says_what_it_cost(config, language_model, own_runs):
    runs.run(config, "mine", language_model=language_model)
    run = read_description(own_runs / "mine")
    assert run["trainable_parameters"] == 3 * 16
    assert run["peak_memory_bytes"] > 50e6
    assert 0 < run["seconds_training"] < 60
