"""Planted clusters are found, and in noise nothing is called a cluster that can be believed."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from analysis.adapters import SoftPrompt
from analysis.clusters import COLUMNS, MEMBER_COLUMNS, STABLE, find_clusters, is_echo, is_real
from analysis.errors import InputError
from analysis.null import normal_draws
from tests.conftest import EMBEDDED

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


@pytest.mark.parametrize("seed", range(4))
def test_planted_clusters_are_recovered(embedded_vocabulary, seed):
    rows, truth = planted(embedded_vocabulary, 10 + seed)
    found = find_clusters([prompt_of(rows)], embedded_vocabulary, seed=seed)
    assert adjusted_rand_score(truth, found.members["cluster"]) >= 0.9


@pytest.mark.parametrize("like_words", [False, True])
def test_in_noise_no_cluster_is_believed_in_19_of_20_seeds(embedded_vocabulary, like_words):
    """Vectors drawn like the vocabulary's rows fall into two heaps that every resample finds again: it takes the second question to see through them."""
    believed = stable = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = (
            normal_draws(embedded_vocabulary, 100, seed + 50) if like_words else embedded_vocabulary.mean + rng.standard_normal((100, 576))
        )
        clusters = find_clusters([prompt_of(rows)], embedded_vocabulary, seed=seed).clusters
        believed += bool(is_real(clusters).any())
        stable += bool((clusters["stability"] >= STABLE).any())
    assert believed <= 1
    assert stable >= 19 if like_words else stable <= 1


def test_the_command_line_says_that_no_cluster_in_noise_is_believed(command, prompt_file, embedded_vocabulary):
    rows = embedded_vocabulary.mean + np.random.default_rng(0).standard_normal((100, 576))
    outcome = command("clusters", prompt_file(rows.astype(np.float32)), "--model", embedded_vocabulary.model, "--format", "csv")
    assert outcome.status == 0
    assert outcome.out.splitlines()[0] == ",".join(COLUMNS)
    found = len(outcome.out.splitlines()) - 1
    expected = f"0 of {found} clusters are stable and tighter than chance" if found else "There are no clusters"
    assert f"{expected} among 100 virtual tokens." in outcome.err


def test_displacements_are_clustered_apart_from_where_they_started(embedded_vocabulary):
    rows, truth = planted(embedded_vocabulary, 1)
    start = np.random.default_rng(2).standard_normal(rows.shape).astype(np.float32)
    found = find_clusters([prompt_of(start + rows - embedded_vocabulary.mean, initial=start)], embedded_vocabulary, space="displacement")
    assert adjusted_rand_score(truth, found.members["cluster"]) >= 0.9
    with pytest.raises(InputError, match="initial values"):
        find_clusters([prompt_of(rows)], embedded_vocabulary, space="displacement")


@pytest.mark.parametrize("method", ["agglomerative", "kmeans"])
def test_a_token_by_itself_is_no_cluster_to_believe(embedded_vocabulary, method):
    rng = np.random.default_rng(5)
    pairs = np.repeat(rng.standard_normal((3, 576)), 2, axis=0) + 0.1 * rng.standard_normal((6, 576))
    rows = embedded_vocabulary.mean + np.vstack([pairs, rng.standard_normal(576)])
    clusters = find_clusters([prompt_of(rows)], embedded_vocabulary, method=method).clusters
    alone = clusters["size"] == 1
    assert alone.any()
    assert clusters.loc[alone, ["tightness", "tightness_p"]].isna().all(axis=None)
    assert not is_real(clusters)[alone].any()


def test_the_same_seed_gives_the_same_clusters(embedded_vocabulary):
    rows, _ = planted(embedded_vocabulary, 3)
    first, again = (find_clusters([prompt_of(rows[:60])], embedded_vocabulary, seed=4).clusters for _ in range(2))
    assert first.equals(again)


def test_a_cluster_of_tokens_that_started_together_is_an_echo_and_one_of_tokens_that_met_is_none(embedded_vocabulary):
    """Eight prompts of two tokens: the first started from one word and stayed; the others started apart and were moved to one other word."""
    rows = np.asarray(embedded_vocabulary.embeddings, dtype=np.float32)
    rng = np.random.default_rng(0)
    ids = rng.choice(np.arange(2_000, 20_000), size=10, replace=False)
    prompts = []
    for i in range(8):
        initial = rows[[ids[8], ids[i]]]
        trained = rows[[ids[8], ids[9]]] + 0.3 * rng.standard_normal((2, rows.shape[1])).astype(np.float32) / 24
        prompts.append(SoftPrompt(f"p{i}", trained.astype(np.float32), initial, EMBEDDED, None, None))
    found = find_clusters(prompts, embedded_vocabulary)
    assert len(found.clusters) == 2
    by_position = found.members.groupby("position")["cluster"].unique()
    shares = found.clusters["shared_start"]
    assert shares[by_position[0][0]] == 1.0 and shares[by_position[1][0]] == 0.0
    assert is_echo(found.clusters)[by_position[0][0]] and not is_echo(found.clusters)[by_position[1][0]]
    unknown = find_clusters([replace(prompt, initial=None) for prompt in prompts], embedded_vocabulary)
    assert unknown.clusters["shared_start"].isna().all() and not is_echo(unknown.clusters).any()
