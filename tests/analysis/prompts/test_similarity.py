"""A prompt is like its shuffled, scaled or turned self, and random prompts are as alike as chance has it."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import subspace_angles
from scipy.optimize import linear_sum_assignment

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.prompts.likeness import (
    CHANCE_COLUMNS,
    COLUMNS,
    LONGEST,
    MEASURES,
    chance,
    matched,
    matrix,
    similarity,
    tree,
)
from soft_prompt_explorer.analysis.prompts.null import normal_draws
from soft_prompt_explorer.analysis.prompts.search import nearest
from tests.support.made_prompts import made_vocabulary, prompt_of, unit

FIVE = [measure for measure in MEASURES if measure != "z"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return replace(made_vocabulary("hub-ridden"), cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def compared(a, b, vocabulary, starts=(None, None)) -> pd.Series:
    """The one row of two prompts with these rows and starts."""
    return similarity([prompt_of(rows, start) for rows, start in zip((a, b), starts, strict=True)], vocabulary).iloc[0]


def z_between(first, second, vocabulary) -> np.ndarray:
    """z of each of some (start, rows) with each of some others, in one table."""
    prompts = [
        replace(prompt_of(rows, None if start is None else start.astype(np.float32)), name=f"{side} {i}")
        for side, made in (("a", first), ("b", second))
        for i, (start, rows) in enumerate(made)
    ]
    table = similarity(prompts, vocabulary)
    return table.loc[table["prompt_a"].str.startswith("a") & table["prompt_b"].str.startswith("b"), "z"].to_numpy()


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def turn(d, rng, *, angle=None):
    """A random rotation of d dimensions; with an angle, one by that angle in each of d / 2 random planes."""
    q, _ = np.linalg.qr(rng.standard_normal((d, d)))
    if angle is None:
        return q
    c, s = np.cos(angle), np.sin(angle)
    return q @ np.kron(np.eye(d // 2), [[c, -s], [s, c]]) @ q.T


def cka_by_hand(a, b):
    h = np.eye(len(a)) - 1 / len(a)
    k, l = h @ a @ a.T @ h, h @ b @ b.T @ h  # noqa: E741
    return np.trace(k @ l) / np.sqrt(np.trace(k @ k) * np.trace(l @ l))


@pytest.mark.parametrize(("n_a", "n_b"), [(5, 5), (3, 6), (6, 3)])
def test_each_measure_is_what_its_definition_says(vocabulary, rng, n_a, n_b):
    a, b = ((rng.standard_normal((n, 64)) + 0.3).astype(np.float32).astype(np.float64) for n in (n_a, n_b))
    row = compared(a, b, vocabulary)
    assert row["pooled_cosine"] == pytest.approx(cosine(sum(a) / n_a, sum(b) / n_b))
    assert row["mean_cosine"] == pytest.approx(sum(cosine(x, y) for x in a for y in b) / (n_a * n_b))
    short, long = (a, b) if n_a <= n_b else (b, a)
    total, order = max(
        (sum(cosine(x, long[j]) for x, j in zip(short, order, strict=True)), order) for order in permutations(range(len(long)), len(short))
    )
    assert row["matched_cosine"] == pytest.approx(total / len(short))
    assert row["cka"] == pytest.approx(cka_by_hand(short, long[list(order)]))
    assert row["principal_angle_mean"] == pytest.approx(np.cos(subspace_angles(a.T, b.T)).mean())


def test_rows_in_another_order_or_of_another_scale_are_the_same_prompt(vocabulary, rng):
    rows = rng.standard_normal((12, 64)) + 0.2
    itself = compared(rows, rows, vocabulary)
    for copy in (rows[rng.permutation(12)], 3 * rows, 0.01 * rows[::-1]):
        row = compared(rows, copy, vocabulary)
        assert row[["pooled_cosine", "matched_cosine", "cka", "principal_angle_mean"]].to_numpy(dtype=float) == pytest.approx(np.ones(4))
        assert row["mean_cosine"] == pytest.approx(itself["mean_cosine"]) and row["mean_cosine"] < 0.9
    other = rng.standard_normal((9, 64))
    assert list(compared(5 * rows, other / 7, vocabulary)[FIVE]) == pytest.approx(list(compared(rows, other, vocabulary)[FIVE]), rel=1e-4)


def test_a_rotation_of_both_prompts_changes_nothing(vocabulary, rng):
    a, b, q = rng.standard_normal((7, 64)), rng.standard_normal((10, 64)), turn(64, rng)
    assert list(compared(a @ q, b @ q, vocabulary)[FIVE]) == pytest.approx(list(compared(a, b, vocabulary)[FIVE]), abs=1e-5)


def test_a_rotation_of_one_of_them_leaves_its_shape_and_nothing_else(vocabulary, rng):
    rows = rng.standard_normal((12, 64))
    little, wholly = (compared(rows, rows @ turn(64, rng, angle=angle), vocabulary) for angle in (0.3, None))
    assert little["cka"] == pytest.approx(1)
    assert little["matched_cosine"] == pytest.approx(np.cos(0.3))
    assert wholly["matched_cosine"] < 0.35
    assert wholly["principal_angle_mean"] < little["principal_angle_mean"] < 1


def test_prompts_that_span_the_same_have_no_angle_between_them(vocabulary, rng):
    rows = rng.standard_normal((6, 64))
    assert compared(rows, turn(6, rng) @ rows, vocabulary)["principal_angle_mean"] == pytest.approx(1)
    # A row that others make up spans nothing new, and one of no weight beside the others counts as any.
    assert compared(rows, np.vstack([rows, rows[0] - 2 * rows[1]]), vocabulary)["principal_angle_mean"] == pytest.approx(1)
    apart = np.eye(64)[:3] * [[1e-8], [1], [1e4]], np.eye(64)[[0, 5, 6]]
    assert compared(*apart, vocabulary)["principal_angle_mean"] == pytest.approx(1 / 3)


def test_the_measures_do_not_depend_on_which_prompt_comes_first(vocabulary, rng):
    a, b = rng.standard_normal((4, 64)), rng.standard_normal((9, 64))
    assert list(compared(a, b, vocabulary)[MEASURES]) == pytest.approx(list(compared(b, a, vocabulary)[MEASURES]))


def test_what_is_not_defined_is_missing_and_what_has_no_length_has_the_cosine_0(vocabulary, rng):
    one, other, rows = rng.standard_normal((1, 64)), rng.standard_normal((1, 64)), rng.standard_normal((4, 64))
    single = compared(one, other, vocabulary)
    assert np.isnan(single["cka"])
    assert list(single[["pooled_cosine", "mean_cosine", "matched_cosine"]]) == pytest.approx([cosine(one[0], other[0])] * 3, abs=1e-6)
    assert single["principal_angle_mean"] == pytest.approx(abs(cosine(one[0], other[0])), abs=1e-6)
    assert np.isnan(compared(np.repeat(one, 4, axis=0), rows, vocabulary)["cka"])
    assert compared(rows[:2], rng.standard_normal((2, 64)), vocabulary)["cka"] == pytest.approx(1)  # whatever two tokens are
    zeros = compared(np.zeros((4, 64)), rows, vocabulary)
    assert list(zeros[["pooled_cosine", "mean_cosine", "matched_cosine"]]) == [0, 0, 0]
    assert zeros[["cka", "principal_angle_mean"]].isna().all()
    with_zero = compared(np.vstack([rows, np.zeros(64)]), np.vstack([rows, np.ones(64)]), vocabulary)
    assert with_zero["matched_cosine"] == pytest.approx(4 / 5)


@pytest.mark.parametrize("lengths", [(1, 1), (8, 8), (5, 40), (100, 100)])
def test_the_z_of_unrelated_draws_seldom_passes_196_on_either_side(vocabulary, lengths):
    side = 8 if max(lengths) < 100 else 4
    made = [[(None, normal_draws(vocabulary, n, seed=1_000 * n + 100 * j + i)) for i in range(side)] for j, n in enumerate(lengths)]
    z = z_between(*made, vocabulary)
    assert np.mean(np.abs(z) > 1.96) <= 0.07
    assert np.abs(z.mean()) < 1


def test_prompts_that_left_the_common_direction_are_alike_where_they_started_alike_and_z_asks_beyond_a_known_start(embedded_vocabulary):
    rng = np.random.default_rng(8)
    start, other = (embedded_vocabulary.embeddings[rng.choice(5_000, 10, replace=False)] for _ in range(2))
    drift = [5 * rng.standard_normal((10, 576)) / 24 for _ in range(3)]  # rows are 3 long: training drives them as far
    same = compared(start + drift[0], start + drift[1], embedded_vocabulary)
    different = compared(start + drift[0], other + drift[2], embedded_vocabulary)
    assert same["matched_cosine"] < 0.3  # under that of unrelated words, 0.5
    assert same["z"] > 4 and same["against"] == "mean rows"
    assert abs(different["z"]) < 1.96
    known = compared(start + drift[0], start + drift[1], embedded_vocabulary, (start, start))
    assert abs(known["z"]) < 1.96 and known["against"] == "starts"  # all that they have in common is their start
    moved_alike = compared(start + drift[0], start + drift[0] + drift[1], embedded_vocabulary, (start, start))
    assert moved_alike["z"] > 4
    assert compared(start + drift[0], other + drift[2], embedded_vocabulary, (start, None))["against"] == "one start"


def test_the_z_of_a_copy_is_large(vocabulary):
    rows = normal_draws(vocabulary, 10, seed=5)
    assert abs(compared(rows, normal_draws(vocabulary, 10, seed=6), vocabulary)["z"]) < 2.5
    assert compared(rows, rows, vocabulary)["z"] > 10


def test_unrelated_prompts_score_as_chance_says(vocabulary):
    table = chance(6, 15, vocabulary).set_index("measure")
    assert list(table.index) == FIVE and list(table.reset_index().columns) == CHANCE_COLUMNS
    prompts = [replace(prompt_of(normal_draws(vocabulary, n, seed=100 * n + i)), name=f"{n} {i}") for n in (6, 15) for i in range(12)]
    scores = similarity(prompts, vocabulary)
    scores = scores[scores["prompt_a"].str.startswith("6 ") & scores["prompt_b"].str.startswith("15 ")]
    for measure in FIVE:
        low, mean, high = table.loc[measure, ["low", "mean", "high"]]
        assert low < mean < high
        assert scores[measure].between(low, high).mean() > 0.8
        assert scores[measure].mean() == pytest.approx(mean, abs=(high - low) / 4)
    assert table.loc["pooled_cosine", "mean"] > 0.2  # the common direction alone


def test_z_is_against_prompts_that_began_and_moved_likewise_in_place_of_either(vocabulary):
    """Untrained random starts: what the table says is what other random starts of the same lengths say, drawn and scored here by themselves."""
    rng = np.random.default_rng(20)
    a, b = (vocabulary.median_norm * unit(rng.standard_normal((n, 64))) for n in (6, 9))
    z = []
    for rows, length in ((a, 9), (b, 6)):
        scores = [centred_matched(rows, vocabulary.median_norm * unit(rng.standard_normal((length, 64))), vocabulary) for _ in range(200)]
        z.append((centred_matched(a, b, vocabulary) - np.mean(scores)) / np.std(scores))
    nearest_to_0 = min(z, key=abs) if min(z) * max(z) > 0 else 0.0
    assert compared(a, b, vocabulary, (a.astype(np.float32), b.astype(np.float32)))["z"] == pytest.approx(nearest_to_0, abs=0.5)


def centred_matched(a, b, vocabulary):
    cosines = np.array([[cosine(x, y) for y in b - vocabulary.mean] for x in a - vocabulary.mean])
    return cosines[linear_sum_assignment(-cosines)].mean()


def test_nothing_is_said_of_chance_where_the_pool_is_too_small_or_all_the_same(vocabulary, rng):
    rows = rng.standard_normal((LONGEST + 1, 64))
    row = compared(rows, rows[:3], vocabulary)
    assert np.isnan(row["z"]) and row["matched_cosine"] == pytest.approx(1)
    assert chance(3, LONGEST + 1, vocabulary)[["mean", "low", "high"]].isna().all(axis=None)
    assert compared(rows[:LONGEST], rows[:3], vocabulary)["z"] > 4
    equal = type(vocabulary).from_embeddings(["a", "b", "c"], np.ones((3, 64), dtype=np.float32), model="equal rows")
    assert np.isnan(compared(rows[:4], rows[:4], equal)["z"])


def test_chance_of_single_tokens_says_nothing_of_cka(vocabulary):
    table = chance(1, 4, vocabulary).set_index("measure")
    assert table.loc["cka"].isna().all()
    assert table.drop(index="cka").notna().all(axis=None)


def test_the_table_has_a_row_for_each_pair_in_the_order_given(vocabulary, rng):
    prompts = [replace(prompt_of(rng.standard_normal((n, 64))), name=name) for n, name in ((3, "c"), (5, "a"), (4, "b"), (3, "a"))]
    table = similarity(prompts, vocabulary)
    assert list(table.columns) == COLUMNS
    assert (table["prompt_a"] + table["prompt_b"]).tolist() == ["ca", "cb", "ca", "ab", "aa", "ba"]
    assert (table["against"] == "mean rows").all()
    assert table.notna().all(axis=None)
    pd.testing.assert_frame_equal(table, similarity(prompts, vocabulary))
    pd.testing.assert_frame_equal(chance(3, 5, vocabulary), chance(5, 3, vocabulary))


def test_tokens_are_matched_one_to_one_and_named(vocabulary, rng):
    rows = vocabulary.embeddings[[500, 600, 700, 800, 900]]
    order = np.array([3, 0, 4, 1])
    longer, shorter = prompt_of(rows), prompt_of(2 * rows[order])
    table = matched(longer, shorter, vocabulary)
    assert table["position_a"].tolist() == [0, 1, 3, 4]
    assert order[table["position_b"]].tolist() == [0, 1, 3, 4]
    assert table["cosine"].to_numpy() == pytest.approx(np.ones(4))
    assert table["nearest_a"].tolist() == [" w500", " w600", " w800", " w900"]
    ids, _ = nearest(shorter.embeddings, vocabulary, top_k=1)
    assert table["nearest_b"].tolist() == [vocabulary.tokens[ids[i, 0]] for i in table["position_b"]]
    assert table["same_start"].isna().all()
    started = matched(
        replace(longer, initial=rows + 1), replace(shorter, initial=np.r_["0", rows[order[:2]] + 1, rows[order[2:]]]), vocabulary
    )
    assert started.set_index("position_b")["same_start"].sort_index().tolist() == [True, True, False, False]
    back = matched(shorter, longer, vocabulary)
    assert back["position_a"].tolist() == [0, 1, 2, 3] and back["position_b"].tolist() == order.tolist()
    one, other = prompt_of(rng.standard_normal((6, 64))), prompt_of(rng.standard_normal((8, 64)))
    assert matched(one, other, vocabulary)["cosine"].mean() == pytest.approx(similarity([one, other], vocabulary)["matched_cosine"][0])


@pytest.fixture
def family(vocabulary, rng):
    """Two heaps of prompts: a and c are nearly the same, and so are b, d and e."""
    first, second = rng.standard_normal((2, 6, 64))
    centres = {"a": first, "b": second, "c": first, "d": second, "e": second}
    return similarity(
        [replace(prompt_of(rows + 0.1 * rng.standard_normal(rows.shape)), name=name) for name, rows in centres.items()], vocabulary
    )


def test_a_matrix_holds_the_tables_values_in_the_order_asked_for(family):
    square = matrix(family, "cka", list("dbaec"))
    assert list(square.index) == list(square.columns) == list("dbaec")
    for row in family.itertuples():
        assert square.loc[row.prompt_a, row.prompt_b] == square.loc[row.prompt_b, row.prompt_a] == row.cka
    assert (np.diag(square) == 1).all()
    assert np.isnan(np.diag(matrix(family, "mean_cosine", list("abc")))).all()
    z = matrix(family, "z", list("abc"))
    assert np.isnan(np.diag(z)).all() and z.isna().to_numpy().sum() == 3


def test_a_matrix_that_the_table_cannot_fill_is_refused(family, vocabulary, rng):
    with pytest.raises(InputError, match="choose one of pooled_cosine"):
        matrix(family, "likeness", list("ab"))
    prompts = [replace(prompt_of(rng.standard_normal((3, 64))), name=name) for name in "xxy"]
    namesakes = similarity(prompts, vocabulary)
    for table, names in ((family, "abx"), (family, "aab"), (namesakes, "xy"), (namesakes, "xxy"), (namesakes, "x")):
        with pytest.raises(InputError, match="each pair of these names once"):
            matrix(table, "cka", list(names))


def test_the_tree_joins_what_is_alike_first(family):
    from scipy.cluster.hierarchy import fcluster

    names = list("abcde")
    links = tree(family, names)
    assert links.shape == (4, 4)
    heaps = fcluster(links, 2, criterion="maxclust")
    assert heaps[0] == heaps[2] != heaps[1] == heaps[3] == heaps[4]
    # The last link is between the heaps, at the mean distance of their members.
    square = matrix(family, "matched_cosine", names)
    assert links[-1, 2] == pytest.approx(1 - square.loc[["a", "c"], ["b", "d", "e"]].to_numpy().mean())
    with pytest.raises(InputError, match="two prompts or more"):
        tree(family, ["a"])


def test_what_cannot_be_compared_is_refused(vocabulary, rng):
    rows = rng.standard_normal((3, 64))
    narrow = prompt_of(rows[:, :32])
    for refused in (lambda: similarity([prompt_of(rows), narrow], vocabulary), lambda: matched(narrow, prompt_of(rows), vocabulary)):
        with pytest.raises(InputError, match="32"):
            refused()
    for prompts in ([], [prompt_of(rows)]):
        with pytest.raises(InputError, match="two by two"):
            similarity(prompts, vocabulary)
    with pytest.raises(InputError, match="at least one"):
        chance(0, 3, vocabulary)


def test_words_of_the_embedded_model_are_as_alike_as_chance_and_a_noisy_copy_is_more(embedded_vocabulary):
    rng = np.random.default_rng(1)
    rows, others = (embedded_vocabulary.embeddings[rng.choice(len(embedded_vocabulary), 10)] for _ in range(2))
    noise = rng.standard_normal(rows.shape) * np.linalg.norm(rows, axis=1, keepdims=True) / np.sqrt(rows.shape[1])
    assert abs(compared(rows, others, embedded_vocabulary)["z"]) < 2.5
    assert compared(rows, rows[::-1] + noise / 2, embedded_vocabulary)["z"] > 10
