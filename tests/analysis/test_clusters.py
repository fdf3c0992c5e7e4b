"""Planted clusters are found, and in noise nothing is called a cluster that can be believed."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from analysis.adapters import SoftPrompt
from analysis.clusters import COLUMNS, MEMBER_COLUMNS, find_clusters, is_real
from analysis.errors import InputError
from analysis.null import normal_draws

pytestmark = pytest.mark.slow


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def prompt_of(rows, name="made", initial=None) -> SoftPrompt:
    return SoftPrompt(name, np.asarray(rows, dtype=np.float32), initial, None, None, None)


def planted(vocabulary, seed):
    """Five clusters of twenty tokens over a hundred of noise, and which token belongs where."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((5, vocabulary.width)))
    members = np.concatenate([centre + unit(rng.standard_normal((20, vocabulary.width))) for centre in centres])
    noise = rng.standard_normal((100, vocabulary.width)) * np.sqrt(2 / vocabulary.width)
    return vocabulary.mean + np.concatenate([members, noise]), np.r_[np.repeat(np.arange(5), 20), np.full(100, -1)]


def test_planted_clusters_are_found_and_believed(embedded_vocabulary):
    rows, truth = planted(embedded_vocabulary, 0)
    found = find_clusters([prompt_of(rows[::2], "even"), prompt_of(rows[1::2], "odd")], embedded_vocabulary)
    assert list(found.clusters.columns) == COLUMNS
    assert list(found.members.columns) == MEMBER_COLUMNS
    order = np.r_[truth[::2], truth[1::2]]
    assert adjusted_rand_score(order, found.members["cluster"]) >= 0.9
    assert is_real(found.clusters).sum() == 5
    assert (found.clusters["prompts"] == 2).all()


@pytest.mark.parametrize("like_words", [False, True])
def test_noise_holds_no_cluster_that_is_believed(embedded_vocabulary, like_words):
    """Vectors drawn like the vocabulary's rows fall into two stable heaps: it takes the second question to see through them."""
    believed = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rows = normal_draws(embedded_vocabulary, 60, seed + 50) if like_words else embedded_vocabulary.mean + rng.standard_normal((60, 576))
        believed += bool(is_real(find_clusters([prompt_of(rows)], embedded_vocabulary, seed=seed).clusters).any())
    assert believed == 0


def test_displacements_are_clustered_apart_from_where_they_started(embedded_vocabulary):
    rows, truth = planted(embedded_vocabulary, 1)
    start = np.random.default_rng(2).standard_normal(rows.shape).astype(np.float32)
    found = find_clusters([prompt_of(start + rows - embedded_vocabulary.mean, initial=start)], embedded_vocabulary, space="displacement")
    assert adjusted_rand_score(truth, found.members["cluster"]) >= 0.9
    with pytest.raises(InputError, match="initial values"):
        find_clusters([prompt_of(rows)], embedded_vocabulary, space="displacement")


def test_the_same_seed_gives_the_same_clusters(embedded_vocabulary):
    rows, _ = planted(embedded_vocabulary, 3)
    first, again = (find_clusters([prompt_of(rows[:60])], embedded_vocabulary, seed=4).clusters for _ in range(2))
    assert first.equals(again)
