"""A run whose loss becomes no number ends in a sentence, and its last good state is kept."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs.recording import Recording, unfinished
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.trainer import DivergedError, TrainingStep, train
from tests.support.places import names_in
from tests.support.training import ABSURD, absurd

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # of numbers near the end of float32


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
