"""Prompts drawn to words: what the model sees, what the vectors behind it receive, and that without the pull nothing is different."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.plain_calls import nearest_token, plain_loss
from tests.support.training import trained


@pytest.fixture
def vocabulary(toy_config):
    return load_vocabulary(toy_config.model)


def words_of(vocabulary) -> np.ndarray:
    """Ids of the tokens that are a space and then letters."""
    return np.array([i for i, token in enumerate(vocabulary.tokens) if token.startswith(" ") and token[1:].isalpha()])


def by_likeness(vectors: np.ndarray, vocabulary) -> np.ndarray:
    """The ids of all whole words by their centred cosine with each vector, the likest first, one vector at a time."""
    rows = vocabulary.embeddings.astype(np.float64)
    mean, ids = rows.mean(axis=0), words_of(vocabulary)
    ranked = []
    for vector in vectors.astype(np.float64) - mean:
        cosines = [row @ vector / (np.linalg.norm(row) * np.linalg.norm(vector)) for row in rows[ids] - mean]
        ranked.append(ids[np.argsort(cosines)[::-1]])
    return np.array(ranked)


def likest(vectors: np.ndarray, not_these: np.ndarray, vocabulary) -> np.ndarray:
    """The row of the likest word of each vector, its own initial word left out."""
    ranked = by_likeness(vectors, vocabulary)
    return vocabulary.embeddings[[next(i for i in ids if i != own) for ids, own in zip(ranked, not_these, strict=True)]]


def test_without_a_pull_training_is_the_plain_one_bit_for_bit_and_with_the_weakest_it_is_not(toy_config, language_model):
    plain = trained(toy_config, language_model)
    without = trained(replace(toy_config, readable=0.0), language_model)
    np.testing.assert_array_equal(without.embeddings, plain.embeddings)
    assert without.losses()["loss"].tolist() == plain.losses()["loss"].tolist()
    assert "readable" not in toy_config.described()
    assert not np.array_equal(trained(replace(toy_config, readable=1e-3), language_model).embeddings, plain.embeddings)


def test_a_pull_too_weak_to_be_felt_learns_what_plain_training_learns(toy_config, language_model):
    np.testing.assert_allclose(
        trained(replace(toy_config, readable=1e-7), language_model).embeddings, trained(toy_config, language_model).embeddings, atol=1e-4
    )


@pytest.mark.parametrize("gamma", [0.3, 4.0])
def test_the_model_sees_a_mean_of_vector_and_word_and_the_vector_gets_its_gradient(gamma, toy_task, toy_config, language_model, vocabulary):
    """Five steps made by hand: Adam on p, with the gradient of the loss at e = (p + γ w) / (1 + γ)."""
    model, tokenizer = language_model
    config = replace(toy_config, readable=gamma, steps=5)
    steps = list(train(config, language_model=language_model))
    examples = toy_task.examples("train")

    behind = torch.nn.Parameter(torch.from_numpy(next(train(toy_config, language_model=language_model)).embeddings.copy()))
    own = nearest_token(behind.detach().numpy(), vocabulary)
    optimiser = torch.optim.Adam([behind])

    def seen() -> torch.Tensor:
        words = torch.from_numpy(likest(behind.detach().numpy(), own, vocabulary))
        return (behind.detach() + gamma * words) / (1 + gamma)

    np.testing.assert_allclose(steps[0].embeddings, seen().numpy(), atol=1e-6)
    for step in steps[1:]:
        optimiser.param_groups[0]["lr"] = config.learning_rate * (6 - step.step) / 5
        given = seen().requires_grad_()
        loss = plain_loss(model, tokenizer, given, examples["text"], examples["target"])
        assert step.loss == pytest.approx(loss.item(), abs=1e-5)
        loss.backward()
        behind.grad = given.grad.clone()
        optimiser.step()
        np.testing.assert_allclose(step.embeddings, seen().numpy(), atol=1e-4)


def test_with_an_endless_pull_the_model_sees_nothing_but_words_and_never_the_one_that_a_token_started_from(
    toy_config, language_model, vocabulary
):
    config = replace(toy_config, readable=float("inf"), init="sample-vocab", steps=30, learning_rate=0.5, tokens=6)
    started = next(train(replace(config, readable=0.0), language_model=language_model)).embeddings
    own = nearest_token(started, vocabulary)
    np.testing.assert_array_equal(vocabulary.embeddings[own], started)
    words, seen = words_of(vocabulary), set()
    for step in train(config, language_model=language_model):
        ids = [int(np.flatnonzero((vocabulary.embeddings == row).all(axis=1))[0]) for row in step.embeddings]
        assert set(ids) <= set(words.tolist())
        assert not (np.array(ids) == own).any()
        seen.add(tuple(ids))
    assert len(seen) > 1  # the vectors behind go on to move


def test_at_first_a_token_is_drawn_to_the_second_likest_word_where_it_starts_from_the_likest(toy_config, language_model, vocabulary):
    config = replace(toy_config, readable=1e6, init="sample-vocab", tokens=6)
    first = next(train(config, language_model=language_model)).embeddings
    started = next(train(replace(config, readable=0.0), language_model=language_model)).embeddings
    np.testing.assert_allclose(first, vocabulary.embeddings[by_likeness(started, vocabulary)[:, 1]], atol=1e-5)


def test_what_is_kept_is_what_the_model_saw_and_says_how_it_was_drawn(toy_config, language_model, own_runs):
    recording = trained(replace(toy_config, readable=2.0), language_model)
    path = store.save(recording, "mine", evaluate_run(recording, language_model=language_model))
    prompt = load_soft_prompt(path)
    np.testing.assert_array_equal(prompt.embeddings, recording.last.embeddings)
    assert "drawn to words" in " ".join(prompt.notes)
    assert store.list_runs().set_index("name").loc["mine", "readable"] == 2.0
    assert "--readable 2.0" in store.read_card("mine")


@pytest.mark.parametrize(
    ("change", "says"),
    [({"readable": -0.1}, "0 or more"), ({"readable": float("nan")}, "0 or more"), ({"readable": 1.0, "method": "lora"}, "lora")],
)
def test_impossible_pulls_are_refused(change, says):
    with pytest.raises(InputError, match=says):
        TrainingConfig(task="sentiment", **change)
