"""A planted direction is found and named, and noise has none."""

from dataclasses import replace

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.words import word_ids
from soft_prompt_explorer.analysis.prompts.directions import SEED, SIGN_FLIPS, direction, task_direction
from tests.support.made_prompts import WORDS, drifted


def test_the_direction_is_the_mean_of_the_unit_displacements(embedded_vocabulary):
    prompt = drifted(embedded_vocabulary, 0, planted=0.15)
    delta = prompt.embeddings.astype(np.float64) - prompt.initial
    mean = (delta / np.linalg.norm(delta, axis=1, keepdims=True)).mean(axis=0)
    found = task_direction([prompt], embedded_vocabulary, words=WORDS)
    assert found.concentration == pytest.approx(np.linalg.norm(mean))
    row = embedded_vocabulary.embeddings[1234] - embedded_vocabulary.mean
    assert found.scores[1234] == pytest.approx(row @ mean / np.linalg.norm(row) / np.linalg.norm(mean), abs=1e-6)
    table = direction([prompt], embedded_vocabulary, words=WORDS, top_k=3)
    assert table["rank"].tolist()[:3] == [0, 1, 2]
    assert table["score"].is_monotonic_decreasing
    assert set(word_ids(embedded_vocabulary, WORDS)) <= set(table["token_id"])


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 6])
def test_flips_of_all_displacements_reach_what_is_seen_whatever_their_last_digits(embedded_vocabulary, tokens):
    """Displacements that all but agree: only turning round all of them, or none, keeps their mean as long."""
    signs = np.random.default_rng(SEED).choice(np.array([-1.0, 1.0]), size=(SIGN_FLIPS, tokens))
    expected = (1 + (np.abs(signs.sum(axis=1)) == tokens).sum()) / (1 + SIGN_FLIPS)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        start = embedded_vocabulary.embeddings[rng.choice(len(embedded_vocabulary), tokens, replace=False)]
        moved = rng.standard_normal(576) + 0.1 * rng.standard_normal((tokens, 576))
        prompt = SoftPrompt(f"seed {seed}", (start + moved).astype(np.float32), start, None, None, None)
        assert task_direction([prompt], embedded_vocabulary).concentration_p == expected
    assert tokens > 1 or expected == 1.0  # one token alone shares nothing


@pytest.mark.slow
def test_a_planted_direction_is_found_and_named_in_19_of_20_seeds(embedded_vocabulary):
    """In five prompts of ten tokens, along words that go together as a task's do; see the next test for words that do not."""
    good = (" positive", " good", " great")
    found = []
    for seed in range(20):
        prompts = [drifted(embedded_vocabulary, 5 * seed + i, planted=0.15, words=good) for i in range(5)]
        found.append(task_direction(prompts, embedded_vocabulary, words=good))
    assert sum(direction.words_p < 0.01 for direction in found) >= 19
    assert sum(direction.ranks[direction.word_ids].max() < 20 for direction in found) >= 19


@pytest.mark.slow
def test_of_unrelated_words_the_mean_is_found_though_their_own_relatives_come_before_them(embedded_vocabulary):
    found = [task_direction([drifted(embedded_vocabulary, seed, planted=0.15)], embedded_vocabulary, words=WORDS) for seed in range(20)]
    assert sum(direction.words_p < 0.01 for direction in found) >= 19
    assert np.median([direction.words_median_rank for direction in found]) < 20


@pytest.mark.slow
def test_noise_drift_has_no_direction_in_19_of_20_seeds(embedded_vocabulary):
    found = [task_direction([drifted(embedded_vocabulary, seed, planted=0.0)], embedded_vocabulary, words=WORDS) for seed in range(20)]
    assert sum(direction.concentration_p < 0.05 for direction in found) <= 1
    assert sum(direction.words_p < 0.05 for direction in found) <= 1


def test_a_copy_is_no_further_evidence(embedded_vocabulary):
    prompt = drifted(embedded_vocabulary, 0, planted=0.15)
    for copy in (prompt, replace(prompt, name="copy", embeddings=prompt.embeddings.copy())):
        with pytest.raises(InputError, match="are the same prompt, which would count twice"):
            task_direction([prompt, copy], embedded_vocabulary)


def test_a_prompt_whose_start_is_unknown_has_no_direction(embedded_vocabulary):
    prompt = SoftPrompt("made", np.ones((2, 576), dtype=np.float32), None, None, None, None)
    with pytest.raises(InputError, match="recover_initial"):
        task_direction([prompt], embedded_vocabulary)
