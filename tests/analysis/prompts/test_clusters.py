"""Planted clusters are found, and in noise nothing is called a cluster that can be believed."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.prompts.clusters import COLUMNS, MEMBER_COLUMNS, STABLE, find_clusters, is_echo, is_real, may_be_echo
from soft_prompt_explorer.analysis.prompts.null import normal_draws
from soft_prompt_explorer.analysis.prompts.search import allowed_tokens, nearest
from tests.support.made_prompts import planted, prompt_of, unit
from tests.support.places import EMBEDDED

pytestmark = pytest.mark.slow


def test_planted_clusters_are_found_and_believed(embedded_vocabulary):
    rows, truth = planted(embedded_vocabulary, 0)
    found = find_clusters([prompt_of(rows[::2], name="even"), prompt_of(rows[1::2], name="odd")], embedded_vocabulary)
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
    assert unknown.clusters["shared_start"].isna().all() and unknown.clusters["start_tightness"].isna().all()
    assert not is_echo(unknown.clusters).any() and may_be_echo(unknown.clusters).all()


def test_a_cluster_is_an_echo_where_its_tokens_lay_together_from_the_start_though_no_two_share_a_word(embedded_vocabulary):
    """Ten tokens that started from ten words about one place and stayed there, among fifty that started apart."""
    rows = np.asarray(embedded_vocabulary.embeddings, dtype=np.float64)
    rng = np.random.default_rng(0)
    near, _ = nearest(rows[[1_192]], embedded_vocabulary, top_k=10)  # forms of " organ" and words like it
    ids = np.r_[near[0], rng.choice(np.arange(2_000, 20_000), size=50, replace=False)]
    initial = rows[ids].astype(np.float32)
    trained = initial + 0.8 * unit(rng.standard_normal(initial.shape))
    found = find_clusters([prompt_of(trained, initial=initial)], embedded_vocabulary)
    ours = found.members["cluster"].to_numpy()[:10]
    family = np.bincount(ours[ours >= 0]).argmax()
    assert (ours == family).sum() >= 8
    row = found.clusters.loc[family]
    assert row["shared_start"] < 0.5
    units = unit(initial[found.members["cluster"] == family] - embedded_vocabulary.mean)
    pairs = (units @ units.T)[np.triu_indices(len(units), 1)]
    assert row["start_tightness"] == pytest.approx(pairs.mean(), abs=1e-6) and row["start_tightness"] >= row["tightness"] / 2
    assert is_echo(found.clusters)[family] and not may_be_echo(found.clusters)[family]


def test_of_a_cluster_of_which_half_the_starts_are_unknown_nothing_is_told(embedded_vocabulary):
    rng = np.random.default_rng(1)
    start = embedded_vocabulary.embeddings[rng.choice(np.arange(200, 4_900), size=20, replace=False)]
    rows = embedded_vocabulary.embeddings[[1_192] * 20] + 0.3 * unit(rng.standard_normal(start.shape))
    for known, told in ((11, True), (10, False)):
        prompts = [prompt_of(rows[:known], start[:known], "known"), prompt_of(rows[known:], name="unknown")]
        found = find_clusters(prompts, embedded_vocabulary)
        assert len(found.clusters) == 1 and found.clusters["size"][0] == 20
        assert may_be_echo(found.clusters)[0] != told
        assert not is_echo(found.clusters)[0]


@pytest.mark.parametrize("method", ["hdbscan", "agglomerative", "kmeans"])
def test_a_prompt_that_collapsed_into_one_point_is_one_cluster_and_one_that_drifted_whole_is_none(embedded_vocabulary, method):
    rng = np.random.default_rng(2)
    start = embedded_vocabulary.embeddings[rng.choice(np.arange(200, 4_900), size=12, replace=False)]
    point = embedded_vocabulary.embeddings[1_192].astype(np.float64)
    collapsed = point + 0.3 * unit(rng.standard_normal(start.shape))
    for initial in (start, None):
        found = find_clusters([prompt_of(collapsed, initial=initial)], embedded_vocabulary, method=method).clusters
        assert found["size"].tolist() == [12]
        assert is_real(found).all() and not is_echo(found).any()
        assert may_be_echo(found).all() == (initial is None)
    for way in (embedded_vocabulary.mean, rng.standard_normal(576)):
        drifted = start + 9 * way / np.linalg.norm(way) + 0.3 * unit(rng.standard_normal(start.shape))
        for initial in (start, None):
            found = find_clusters([prompt_of(drifted, initial=initial)], embedded_vocabulary, method=method).clusters
            if method == "hdbscan":  # the others may divide it, by the words that it started from
                assert found["size"].tolist() == [12] and found["tightness"][0] > 0.8
            assert not (is_real(found) & ~is_echo(found)).any()


def test_the_one_dense_place_of_a_set_is_found_though_the_rest_is_noise(embedded_vocabulary):
    """HDBSCAN by itself answers two clusters or more, or none."""
    rng = np.random.default_rng(3)
    rows = unit(rng.standard_normal((60, 576)))
    rows[:10] = np.sqrt(0.4) * unit(rng.standard_normal(576)[None]) + np.sqrt(0.6) * rows[:10]
    found = find_clusters([prompt_of(embedded_vocabulary.mean + rows)], embedded_vocabulary)
    assert np.flatnonzero(found.members["cluster"] == 0).tolist() == list(range(10))
    assert is_real(found.clusters).tolist() == [True]
    strength = found.members["probability"].to_numpy()
    assert strength[:10].max() == 1 and (strength[:10] > 0.8).all() and not strength[10:].any()


def test_the_tightness_of_a_set_is_beside_sets_of_its_recipe_drawn_here_by_themselves(embedded_vocabulary):
    """Twelve words, and no training: the p-value of the whole set's tightness is the share of other sets of such words that are as tight."""
    rng = np.random.default_rng(4)
    pool = np.flatnonzero(allowed_tokens(embedded_vocabulary, whole_words=True))
    pool = pool[pool < len(embedded_vocabulary) // 10]  # the most frequent tenth
    common = 9 * unit(rng.standard_normal(576)[None])  # so that the set lies together

    def tightness(rows):
        units = unit(rows - embedded_vocabulary.mean)
        return (units @ units.T)[np.triu_indices(12, 1)].mean()

    def drawn():
        return embedded_vocabulary.embeddings[rng.choice(pool, 12, replace=False)].astype(np.float64)

    scores = np.array([tightness(drawn() + common) for _ in range(400)])
    for quantile in (0.1, 0.5, 0.9):
        starts = [drawn() for _ in range(60)]
        start = min(starts, key=lambda rows: abs(tightness(rows + common) - np.quantile(scores, quantile)))
        prompt = prompt_of(start + common, initial=start.astype(np.float32))
        found = find_clusters([prompt], embedded_vocabulary).clusters
        assert found["size"].tolist() == [12]
        assert found["tightness_p"][0] == pytest.approx((scores >= tightness(start + common)).mean(), abs=0.2)


def test_three_tokens_in_one_place_are_resampled_without_a_fault(embedded_vocabulary):
    """Of three tokens drawn with replacement, one in nine resamples holds a single one."""
    row = embedded_vocabulary.embeddings[5_000]
    rows = row + 1e-3 * np.random.default_rng(3).standard_normal((3, len(row)))
    found = find_clusters([SoftPrompt("three", rows.astype(np.float32), None, None, None, None)], embedded_vocabulary)
    assert found.clusters["size"].tolist() == [3] and 0 < found.clusters["stability"][0] < 1
