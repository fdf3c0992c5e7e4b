"""How alike prompts are: six measures of each pair, and what two prompts that have nothing in common score on them.

All vectors of a model share a direction, and the more tokens a prompt has, the better its best matches are: so a cosine of 0.4 between two
prompts may be chance and nothing else. `chance` says what random prompts of the same lengths score, and z how far a pair is beyond prompts of the
same recipe, which began and moved as these two did and have nothing else in common (see `recipe`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.null import DRAWS, null_of
from soft_prompt_explorer.analysis.prompts.recipe import DIRECTIONS, Directions, Recipe, recipe_of
from soft_prompt_explorer.analysis.prompts.search import nearest, unit_rows

COLUMNS = ["prompt_a", "prompt_b", "pooled_cosine", "mean_cosine", "matched_cosine", "cka", "principal_angle_mean", "z", "against"]
MEASURES = COLUMNS[2:-1]
CHANCE_COLUMNS = ["measure", "mean", "low", "high"]
MATCHED_COLUMNS = ["position_a", "position_b", "cosine", "nearest_a", "nearest_b", "same_start"]

RANDOM_PAIRS = 200
OF_RECIPE = 50  # prompts for each kind of directions, of 40 tokens at most; of longer ones fewer
ALIKE = 0.5  # the centred cosine of starts from which on two tokens began alike
_TOKENS = 2_000
LEADING = 6  # components of the vocabulary's covariance along which prompts drift whatever they learn
LEVEL = 0.05
SEED = 20_214  # of the random pairs, not of anything a person chooses: figures of two runs can be compared
LONGEST = DRAWS // 4  # of random prompts: from half of the draws longer ones would be nearly the same each time
INTERVAL = (0.025, 0.975)
_ROUNDING = 1e-6  # of a row's length; rows are float32, which keeps them to 6e-8


def similarity(prompts: Sequence[SoftPrompt], vocabulary: Vocabulary | None, *, report: Report = no_report) -> pd.DataFrame:
    """How alike the prompts of each pair are, by plain cosines (nothing is centred) in float64.

    Parameters
    ----------
    prompts : two or more, all as wide as the vocabulary; of any lengths.
    vocabulary : None where it is not at hand: then z is missing, since what is chance is told beside the model's words.

    Returns
    -------
    One row for each unordered pair, in the order given: prompt_a, prompt_b (names), and

    - pooled_cosine: the cosine of the mean rows.
    - mean_cosine: the mean cosine over all pairs of rows (SPoT: Vu et al. 2022). A prompt's own is below 1.
    - matched_cosine: the mean cosine over the optimal one-to-one assignment of rows, as many pairs as the shorter prompt has rows.
    - cka: linear CKA (Kornblith et al. 2019) of the matched rows. Missing for a single pair and for rows without variance;
      always 1 for two pairs, and high for few tokens in a wide space, whatever they are: see `chance`.
    - principal_angle_mean: the mean cosine of the principal angles of the row spaces (Björck and Golub 1973), as many as the smaller rank.
      Missing for a prompt of zeros.
    - z: how far the matched cosine is beyond that of other prompts of the same recipe, (value − mean) / standard deviation. Either prompt is put in the
      place of 50 times three others: their words are others of the same band (a start that is like one of the other prompt is kept), what moved all their tokens is
      as long, and as far along μ and the six leading components of the vocabulary's covariance, but otherwise in a random direction, and so is what
      moved each token by itself: uniform, from N(0, Σ), or along words. Of the six comparisons the z nearest to 0 counts, and 0 where they disagree
      on the sign. Where the initial values of a prompt are unknown, its mean row is kept and the rest of each row is in a random direction. Here, and
      here alone, μ is taken off first: prompts that training has driven away from it have small plain cosines with each other and with any word.
      Missing for a prompt of more than 250 tokens, and where the others all score the same.
    - against: what z took as given: `starts` (both are known), `one start` (the other's mean row) or `mean rows` (both starts are unknown); missing without a
      vocabulary.

    A row of norm zero has the cosine 0 with everything.

    Raises
    ------
    InputError
        Fewer than two prompts, one that is not as wide as the vocabulary, or one whose rows are no input embeddings.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> vocabulary = spe.load_vocabulary("smollm2-135m")
    >>> two = [spe.load_adapter(spe.GALLERY / name) for name in ("plural-words-1", "plural-words-2")]
    >>> spe.similarity(two, vocabulary)["matched_cosine"].round(2).tolist()
    [0.2]
    """
    if len(prompts) < 2:
        raise InputError(f"Prompts are compared two by two, and here is {len(prompts)}; give another one.")
    width, whose = (prompts[0].width, prompts[0].name) if vocabulary is None else (vocabulary.width, vocabulary.model)
    spaces = [_space_of(prompt, width, whose) for prompt in prompts]
    pairs = list(combinations(range(len(prompts)), 2))
    z = np.full((len(prompts), len(prompts)), np.nan) if vocabulary is None else _beyond_recipe(prompts, vocabulary, report)
    rows = []
    for i, (a, b) in enumerate(pairs):
        report(0.8 + 0.2 * i / len(pairs), f"comparing pair {i + 1} of {len(pairs)}")
        known = (prompts[a].initial is not None) + (prompts[b].initial is not None)
        against = None if vocabulary is None else ("mean rows", "one start", "starts")[known]
        rows.append((prompts[a].name, prompts[b].name, *_five(spaces[a], spaces[b]), z[a, b], against))
    report(1.0, "ready")
    return pd.DataFrame(rows, columns=COLUMNS)


def remarkable(pairs: int) -> float:
    """The z that one in twenty sets of so many unrelated pairs exceeds (Bonferroni): 1.96 for one pair, 3.8 for 325."""
    from scipy.stats import norm

    return float(norm.isf(LEVEL / 2 / max(pairs, 1)))


def chance(n_a: int, n_b: int, vocabulary: Vocabulary, *, report: Report = no_report) -> pd.DataFrame:
    """What prompts that have nothing in common score, n_a and n_b tokens long, over 200 random pairs.

    Returns
    -------
    One row for each measure but z: measure, mean, low, high (the quantiles 2.5 % and 97.5 %). Missing where the measure is, and beyond 250
    tokens. The random prompts are drawn from two pools of 500 rows, so for long ones the interval is too narrow: by some 5 % at 50 tokens,
    by 30 % at 250.

    Raises
    ------
    InputError
        A length under one.
    """
    if min(n_a, n_b) < 1:
        raise InputError(f"Prompts of {n_a} and {n_b} tokens were asked for; a prompt has at least one.")
    first, second = _pool(vocabulary, report)
    values = np.full((RANDOM_PAIRS, len(MEASURES) - 1), np.nan)
    for i, (a, b) in enumerate(_random_rows(*_shape(n_a, n_b))):
        report(i / RANDOM_PAIRS, f"comparing random prompts, pair {i + 1} of {RANDOM_PAIRS}")
        values[i] = _five(_Space.of(first[a]), _Space.of(second[b]))
    report(1.0, "ready")
    low, high = np.quantile(values, INTERVAL, axis=0)
    return pd.DataFrame({"measure": MEASURES[:-1], "mean": values.mean(axis=0), "low": low, "high": high}, columns=CHANCE_COLUMNS)


def matched(a: SoftPrompt, b: SoftPrompt, vocabulary: Vocabulary) -> pd.DataFrame:
    """Which token of one prompt goes with which token of the other, in the assignment that matched_cosine is of.

    Returns
    -------
    One row a pair, by position_a: position_a, position_b (from 0), cosine (plain), nearest_a, nearest_b (each token's nearest word by the
    centred cosine), same_start (whether both started from the same values, so that they may share nothing else; missing where either is unknown).

    Raises
    ------
    InputError
        As `similarity`.
    """
    one, other = (_space_of(prompt, vocabulary.width, vocabulary.model) for prompt in (a, b))
    cosines = _cosines(one.units, other.units)
    position_a, position_b = _assignment(cosines)
    ids_a, _ = nearest(one.rows[position_a], vocabulary, top_k=1)
    ids_b, _ = nearest(other.rows[position_b], vocabulary, top_k=1)
    return pd.DataFrame(
        {
            "position_a": position_a,
            "position_b": position_b,
            "cosine": cosines[position_a, position_b],
            "nearest_a": [vocabulary.tokens[i] for i in ids_a[:, 0]],
            "nearest_b": [vocabulary.tokens[i] for i in ids_b[:, 0]],
            "same_start": pd.array(_same_start(a, b, position_a, position_b), dtype="boolean"),
        },
        columns=MATCHED_COLUMNS,
    )


def matrix(table: pd.DataFrame, measure: str, names: Sequence[str]) -> pd.DataFrame:
    """One measure of the table that `similarity` gives, as a symmetric square.

    Parameters
    ----------
    names : of the prompts, all different, in the order that the rows and columns shall have; some of the table's or all.

    Returns
    -------
    (n, n) with the names as index and columns; 1 on the diagonal by convention, and missing there for z and mean_cosine, which is not 1 of a prompt
    with itself.

    Raises
    ------
    InputError
        The measure is unknown, or the table does not hold each pair of names exactly once.
    """
    if measure not in MEASURES:
        raise InputError(f"The measure {measure!r} is not known; choose one of {', '.join(MEASURES)}.")
    places = {name: i for i, name in enumerate(names)}
    inside = table[table["prompt_a"].isin(places) & table["prompt_b"].isin(places)]
    a, b = (inside[column].map(places).to_numpy(dtype=np.int64) for column in ("prompt_a", "prompt_b"))
    times = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(times, (a, b), 1)
    if len(places) < len(names) or (times + times.T != 1 - np.eye(len(names))).any():
        raise InputError(
            "The table does not hold each pair of these names once; give prompts of different names, and those that were compared."
        )
    square = np.full((len(names), len(names)), np.nan if measure in ("z", "mean_cosine") else 1.0)
    square[a, b] = square[b, a] = inside[measure]
    return pd.DataFrame(square, index=list(names), columns=list(names))


def tree(table: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """The average-linkage tree of the prompts over 1 − matched_cosine (UPGMA: Sokal and Michener 1958).

    Returns
    -------
    (n − 1, 4) float64, as `scipy.cluster.hierarchy.linkage` gives it; leaf i is names[i].

    Raises
    ------
    InputError
        As `matrix`, or fewer than two names.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    if len(names) < 2:
        raise InputError(f"A tree is of two prompts or more, and here is {len(names)}; give another one.")
    return linkage(squareform(1.0 - matrix(table, "matched_cosine", names).to_numpy(), checks=False), method="average")


# --- The measures ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Space:
    """The rows of a prompt, (n, d) float64, the same of norm one, and an orthonormal basis of their span, (rank, d)."""

    rows: np.ndarray
    units: np.ndarray
    basis: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> _Space:
        units = unit_rows(rows)
        # Lengths do not change what the rows span, and with all of them 1 a singular value that rounding alone made is under ε √n.
        _, values, directions = np.linalg.svd(units, full_matrices=False)
        return cls(rows, units, directions[values > _ROUNDING * np.sqrt(len(rows))])


def _space_of(prompt: SoftPrompt, width: int, whose: str) -> _Space:
    prompt.check_width(width, whose)
    return _Space.of(prompt.embeddings.astype(np.float64))


def _five(a: _Space, b: _Space) -> tuple[float, float, float, float, float]:
    """All measures but z, in the order of `MEASURES`."""
    cosines = _cosines(a.units, b.units)
    of_a, of_b = _assignment(cosines)
    pooled = _cosines(unit_rows(a.rows.mean(axis=0)), unit_rows(b.rows.mean(axis=0)))
    matched_cosine = float(cosines[of_a, of_b].mean())
    return float(pooled), float(cosines.mean()), matched_cosine, _cka(a.rows[of_a], b.rows[of_b]), principal_angle_mean(a.basis, b.basis)


def _cosines(units: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.clip(units @ others.T, -1.0, 1.0)


def _assignment(cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The one-to-one pairs of rows and columns with the largest sum, the rows ascending."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(cosines, maximize=True)


def _cka(a: np.ndarray, b: np.ndarray) -> float:
    """⟨HKH, HLH⟩ / (‖HKH‖ ‖HLH‖), K and L the Gram matrices of as many rows each; nan where either has no variance."""
    grams = []
    for rows in (a, b):
        centred = rows - rows.mean(axis=0)
        if np.linalg.norm(centred) <= _ROUNDING * np.linalg.norm(rows):
            return float("nan")
        centred /= np.linalg.norm(centred)
        grams.append(centred @ centred.T)
    return float(np.clip((grams[0] * grams[1]).sum() / (np.linalg.norm(grams[0]) * np.linalg.norm(grams[1])), 0.0, 1.0))


def principal_angle_mean(a: np.ndarray, b: np.ndarray) -> float:
    """The mean cosine of the principal angles between the spans of two orthonormal bases, the rows of each (Björck and Golub 1973); nan where one is empty."""
    if not len(a) or not len(b):
        return float("nan")
    return float(np.clip(np.linalg.svd(a @ b.T, compute_uv=False), 0.0, 1.0).mean())


def _same_start(a: SoftPrompt, b: SoftPrompt, of_a: np.ndarray, of_b: np.ndarray) -> list[bool | None]:
    if a.initial is None or b.initial is None:
        return [None] * len(of_a)
    return _same_values(a.initial[of_a], b.initial[of_b]).tolist()


def _same_values(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.isclose(rows, others, rtol=1e-3, atol=1e-6).all(axis=-1)


# --- Chance ----------------------------------------------------------------------------------------------------------


def _pool(vocabulary: Vocabulary, report: Report) -> tuple[np.ndarray, np.ndarray]:
    """The halves of the null's draws from N(μ, Σ), (500, d) float64: the random prompts of a pair have no row in common."""
    draws = null_of(vocabulary, report=report).draws.astype(np.float64)
    return draws[: len(draws) // 2], draws[len(draws) // 2 :]


def _shape(n_a: int, n_b: int) -> tuple[int, int]:
    return min(n_a, n_b), max(n_a, n_b)  # so the order of two prompts changes nothing


def _random_rows(shorter: int, longer: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Which rows of the two halves each of the random pairs has, none twice in a prompt; no pair beyond `LONGEST`.

    Rows drawn with replacement would do for no length: two that are the same compete for one match, which lowers the matched cosine.
    """
    rng = np.random.default_rng(SEED)
    for _ in range(RANDOM_PAIRS if longer <= LONGEST else 0):
        yield rng.choice(2 * LONGEST, size=shorter, replace=False), rng.choice(2 * LONGEST, size=longer, replace=False)


def _beyond_recipe(prompts: Sequence[SoftPrompt], vocabulary: Vocabulary, report: Report) -> np.ndarray:
    """z of each pair, (n, n) float64, symmetric: see `similarity`."""
    centred = [unit_rows(prompt.embeddings.astype(np.float64) - vocabulary.mean).astype(np.float32) for prompt in prompts]
    starts = [None if prompt.initial is None else unit_rows(prompt.initial.astype(np.float64) - vocabulary.mean) for prompt in prompts]
    least, most = np.full((2, len(prompts), len(prompts)), np.nan)
    whole = recipe_of(prompts, vocabulary, report=report)
    ends = np.cumsum([len(prompt) for prompt in prompts])
    usual = _usual_drift(vocabulary, report)
    rng = np.random.default_rng(SEED)
    for b, prompt in enumerate(prompts):
        report(0.8 * b / len(prompts), f"comparing prompts like {prompt.name} with the others")
        recipe = whole[np.arange(ends[b] - len(prompt), ends[b])]
        for kept, others in _by_common_start(b, prompts, starts):
            z = np.array([_z(recipe, kept, centred[b], [centred[a] for a in others], usual, rng, kind, vocabulary) for kind in DIRECTIONS])
            least[b, others], most[b, others] = z.min(axis=0), z.max(axis=0)
    least, most = np.minimum(least, least.T), np.maximum(most, most.T)
    return np.where(least > 0, least, np.where(most < 0, most, np.where(np.isnan(least), np.nan, 0.0)))


def _by_common_start(
    place: int, prompts: Sequence[SoftPrompt], starts: Sequence[np.ndarray | None]
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """The other prompts that are short enough, in groups by which tokens of this one started as one of theirs did, or near it: (n,) bool."""
    groups: dict[bytes, list[int]] = {}
    for a, other in enumerate(prompts):
        if a == place or max(len(other), len(prompts[place])) > LONGEST:
            continue
        kept = np.zeros(len(prompts[place]), dtype=bool)
        own, others = starts[place], starts[a]
        if own is not None and others is not None:
            kept = (own @ others.T).max(axis=1) >= ALIKE
        groups.setdefault(kept.tobytes(), []).append(a)
    for alike, places in groups.items():
        yield np.frombuffer(alike, dtype=bool), places


def _z(
    recipe: Recipe,
    kept: np.ndarray,
    own: np.ndarray,
    others: list[np.ndarray],
    usual: np.ndarray,
    rng: np.random.Generator,
    directions: Directions,
    vocabulary: Vocabulary,
) -> list[float]:
    """z of a prompt with each of the others, beside prompts of its recipe in its place; nan where these score the same."""
    n = len(recipe)
    runs = int(np.clip(_TOKENS // n, 20, OF_RECIPE))
    rows = _turned(recipe, usual, runs, rng).rows(rng, directions, kept=np.tile(kept, runs))
    made = unit_rows(rows - vocabulary.mean).astype(np.float32)
    result = []
    for other in others:
        cosines = (other @ made.T).reshape(len(other), runs, n).transpose(1, 0, 2)
        values = np.array([part[_assignment(part)].mean(dtype=np.float64) for part in cosines])
        between = other @ own.T
        deviation = values.std(ddof=1)
        result.append(
            (between[_assignment(between)].mean(dtype=np.float64) - values.mean()) / deviation if deviation > _ROUNDING else np.nan
        )
    return result


def _turned(recipe: Recipe, usual: np.ndarray, times: int, rng: np.random.Generator) -> Recipe:
    """The recipe so many times, each time with what moved all tokens in another direction, but for what is along the usual drift.

    Where the start is unknown it stays as it is.
    """
    again = recipe[np.tile(np.arange(len(recipe)), times)]
    if not recipe.start.any(axis=1).all():
        return again
    common, random = recipe.common[0], rng.standard_normal((times, recipe.common.shape[1]))
    along = (common @ usual.T) @ usual
    random -= (random @ usual.T) @ usual
    return replace(again, common=np.repeat(along + np.linalg.norm(common - along) * unit_rows(random), len(recipe), axis=0))


def _usual_drift(vocabulary: Vocabulary, report: Report) -> np.ndarray:
    """An orthonormal basis of μ and the leading components of Σ, as the null's draws have them, (≤ 7, d)."""
    draws = null_of(vocabulary, report=report).draws.astype(np.float64) - vocabulary.mean
    values, vectors = np.linalg.eigh(draws @ draws.T)
    leading = vectors[:, ::-1][:, :LEADING].T @ draws
    return _Space.of(np.vstack([vocabulary.mean, leading[values[::-1][:LEADING] > 0]])).basis
