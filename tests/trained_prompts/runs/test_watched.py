"""A run is watched on examples set aside, and stops when it no longer gets better."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs.scores import recorded
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.plain_calls import label_scores, plain_loss
from tests.support.training import broken_off, gone_on_with, trained


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
