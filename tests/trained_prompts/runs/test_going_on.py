"""A run that was killed or broken off goes on where it was, to the very same end."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs.recording import Recording, checkpoint_path, unfinished
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.places import REPOSITORY, names_in
from tests.support.training import broken_off, gone_on_with, trained

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
