"""The task direction: what the displacements of a prompt, or of several prompts on one task, have in common, and whether it points at words.

Each virtual token drifts along no word at all while its task is learned; the mean of the drifts' directions does point somewhere. Where it points at a
task's words, that may still be the form of an answer and not the task: a prompt trained on answers dealt out anew shares most of its direction with
the true one. So the words are tested on such a twin as well, and on what is left of the direction without the twin's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.remedies import INITIAL_OR_RECOVERED
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.words import word_ids
from soft_prompt_explorer.analysis.prompts.null import null_of, p_values, uniform_draws
from soft_prompt_explorer.analysis.prompts.search import unit_rows
from soft_prompt_explorer.analysis.prompts.verdicts import LEVEL, displacements

COLUMNS = [
    "rank",
    "token_id",
    "token",
    "score",
    "concentration",
    "concentration_p",
    "words_median_rank",
    "words_p",
    "twins",
    "twin_cosine",
    "twin_words_p",
    "beyond_twin_p",
]
SIGN_FLIPS = 1_000
ROUNDING = 1e-9  # of a concentration: flips of all displacements, and of none, reach it but for their last digits
DECILES = 10
FEWEST_ALIKE = 30  # tokens of the same decile and form that a word is compared with; where there are fewer, those of its decile
LEADING = 16  # principal directions without which the words are tested a second time
RIDGE = 4.0  # of the mean variance: less finds other tasks' words in the gallery's prompts more often, more loses power
WORDS_SHOWN = 10
SEED = 20_212


@dataclass(frozen=True, eq=False)
class TaskDirection:
    """What displacements share.

    Attributes
    ----------
    mean : (d,) float64, D: the mean of the unit displacements.
    concentration, concentration_p : ‖D‖, between 0 and 1, and the share of 1,000 random sign flips of the displacements that reach it. Any training moves its
        tokens alike, one on random answers too: this tells how a prompt was trained and not what it learned.
    scores : (V,) float64, the cosine of D with each e − μ.
    ranks : (V,) int64, each token's place by its score, from 0; ties by token id.
    word_ids : the task's words, as token ids; empty where none were given.
    words_median_rank, words_p : the median of their ranks, and the p-value of `WordsTest`; nan without words.
    twins : how many prompts trained on answers dealt out anew it was compared with.
    twin_cosine : the largest cosine of D with what the displacements of a twin share; nan without twins.
    twin_words_p : the smallest p-value of the same words on a twin's direction: where it is small, the words are the form of an answer.
    beyond_twin_p : the p-value of the words on D less the twins' directions, of several their mean. Taken off whole, not projected out: what D and a twin's direction have
        in common goes then, as far as both are equally long.
    """

    mean: np.ndarray
    concentration: float
    concentration_p: float
    scores: np.ndarray
    ranks: np.ndarray
    word_ids: np.ndarray
    words_median_rank: float
    words_p: float
    twins: int
    twin_cosine: float
    twin_words_p: float
    beyond_twin_p: float


def points_beyond_twins(found: TaskDirection | pd.Series) -> bool:
    """Whether a direction, or a row of the table of it, points at the words, and does what no twin does: no twin points at them, and it still does once their direction is taken off.

    Both are asked for: where a prompt and its twin point faintly, one of them is often found and the other missed. Without a twin nothing is known to point beyond one.
    """
    return bool(found.twins and found.words_p < LEVEL and found.beyond_twin_p < LEVEL and not found.twin_words_p < LEVEL)


class WordsTest:
    """Whether a direction points at a set of words, against directions that know nothing of them.

    The words stay as they are and directions are drawn (Goeman and Bühlmann 2007; Wu and Smyth 2012), because words of a task resemble one another: one that is
    near brings the others with it, and a test that draws words as if they had nothing to do with each other finds something in noise.
    T = cosine of (Σ + λI)⁻¹ D with w̃, λ = 4 tr Σ / d, w̃ the mean of the words less the mean of tokens like them: of the same tenth of the token ids, which run with frequency, and
    of the same form (a space before it, letters alone, a capital). p is the largest of four: against 1,000 draws from N(0, Σ) and 1,000 uniform
    directions, both whole and with the mean, the sixteen leading principal directions and the means of tenths and forms taken off.

    Attributes
    ----------
    vocabulary, null : what the words are of, and its random vectors.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        from scipy.linalg import cho_factor, cho_solve, eigh

        self.vocabulary, self.null = vocabulary, null_of(vocabulary)
        self._alike, self._sums, self._counts = _sums_alike(vocabulary)
        sigma = self.null.covariance.astype(np.float64)
        ridge = RIDGE * np.trace(sigma) / vocabulary.width or 1.0
        factor = cho_factor(sigma + ridge * np.eye(vocabulary.width))
        draws = [
            self.null.draws.astype(np.float64) - vocabulary.mean,
            uniform_draws(vocabulary, len(self.null.draws), SEED) - vocabulary.mean,
        ]
        count = min(LEADING, vocabulary.width // 8)
        last = vocabulary.width - 1
        leading = eigh(sigma, subset_by_index=(last - count + 1, last))[1] if count else np.empty((vocabulary.width, 0))
        deciles, forms = self._sums.sum(axis=1), self._sums.sum(axis=0)
        means = np.concatenate([_means(deciles, self._counts.sum(axis=1)), _means(forms, self._counts.sum(axis=0))])
        off = _basis(np.concatenate([vocabulary.mean[:, None], leading, means.T], axis=1))
        self._views = (lambda rows: cho_solve(factor, rows.T).T, lambda rows: _without(cho_solve(factor, _without(rows, off).T).T, off))
        self._null_units = [[unit_rows(view(each)) for each in draws] for view in self._views]

    def p(self, directions: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """The p-value of each direction (n, d) pointing at the words, (n,)."""
        words = self.words(ids)
        directions = np.atleast_2d(np.asarray(directions, dtype=np.float64))
        if not words.any():
            return np.ones(len(directions))
        found = [
            p_values(np.sort(null @ words), unit_rows(view(directions)) @ words)
            for view, nulls in zip(self._views, self._null_units, strict=True)
            for null in nulls
        ]
        return np.where(directions.any(axis=1), np.max(found, axis=0), 1.0)

    def words(self, ids: np.ndarray) -> np.ndarray:
        """w̃, (d,) float64: the mean of the words less, for each, the mean of the tokens like it."""
        deciles, forms = self._alike[:, ids]
        rows = self.vocabulary.embeddings[ids].astype(np.float64) - self.vocabulary.mean
        few = self._counts[deciles, forms] < FEWEST_ALIKE
        alike = _means(self._sums[deciles, forms], self._counts[deciles, forms])
        of_decile = _means(self._sums.sum(axis=1)[deciles], self._counts.sum(axis=1)[deciles])
        return (rows - np.where(few[:, None], of_decile, alike)).mean(axis=0)


@lru_cache(maxsize=1)
def words_test_of(vocabulary: Vocabulary) -> WordsTest:
    """The words test of a vocabulary, made ready once."""
    return WordsTest(vocabulary)


def task_direction(
    prompts: Sequence[SoftPrompt],
    vocabulary: Vocabulary,
    *,
    words: Sequence[str] = (),
    twins: Sequence[SoftPrompt] = (),
    report: Report = no_report,
) -> TaskDirection:
    """What the displacements of all virtual tokens of these prompts have in common.

    Parameters
    ----------
    prompts : with initial values, all as wide as the vocabulary.
    words : the task's label or target words; see `analysis.models.words.word_ids`.
    twins : prompts of the same settings trained on answers dealt out anew (see `analysis.prompts.twins`).

    Raises
    ------
    InputError
        No prompt, one without initial values or of another width, the same one twice, no token that moved, or a word that is no token.
    """
    units = unit_displacements(prompts, vocabulary)
    _check_different(prompts)
    ids = word_ids(vocabulary, words)
    mean = units.mean(axis=0)
    concentration = float(np.linalg.norm(mean))
    rng = np.random.default_rng(SEED)
    signs = rng.choice(np.array([-1.0, 1.0]), size=(SIGN_FLIPS, len(units)))
    flipped = np.sort(np.linalg.norm(signs @ units / len(units), axis=1))
    scores = word_cosines(mean, vocabulary, report=report)
    order = np.lexsort((np.arange(len(scores)), -scores))
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[order] = np.arange(len(scores))
    moved = [twin for twin in twins if twin.initial is not None and (twin.embeddings != twin.initial).any()]
    of_twins = np.array([unit_displacements([twin], vocabulary).mean(axis=0) for twin in moved]).reshape(-1, vocabulary.width)
    cosines = unit_rows(of_twins) @ unit_rows(mean)
    nan = float("nan")
    median, p, twin_p, beyond = nan, nan, nan, nan
    if len(ids):
        test = words_test_of(vocabulary)
        median, p = float(np.median(ranks[ids])), float(test.p(mean, ids)[0])
        if len(moved):
            twin_p = float(test.p(of_twins, ids).min())
            beyond = float(test.p(mean - of_twins.mean(axis=0), ids)[0])
    return TaskDirection(
        mean, concentration, float(p_values(flipped, np.array([concentration * (1 - ROUNDING)]))[0]), scores, ranks, ids, median, p,
        len(moved), float(cosines.max()) if len(moved) else nan, twin_p, beyond,
    )  # fmt: skip


def _check_different(prompts: Sequence[SoftPrompt]) -> None:
    """A copy is no further evidence of what prompts have in common."""
    seen: dict[bytes, str] = {}
    for prompt in prompts:
        rows = np.ascontiguousarray(prompt.embeddings).tobytes()
        if rows in seen:
            raise InputError(f"{seen[rows]} and {prompt.name} are the same prompt, which would count twice; give each once.")
        seen[rows] = prompt.name


def direction(
    prompts: Sequence[SoftPrompt],
    vocabulary: Vocabulary,
    *,
    words: Sequence[str] = (),
    twins: Sequence[SoftPrompt] = (),
    top_k: int = 20,
    report: Report = no_report,
) -> pd.DataFrame:
    """The words that the task direction points at.

    Parameters
    ----------
    prompts, words, twins : see `task_direction`.
    top_k : as many words, and after them the best ten of `words` that are not among them.

    Returns
    -------
    rank (from 0, of the whole vocabulary), token_id, token, score (cosine of D with e − μ), and, the same on each row, concentration,
    concentration_p, words_median_rank, words_p, twins, twin_cosine, twin_words_p, beyond_twin_p: see `TaskDirection`.

    Raises
    ------
    InputError
        As `task_direction`.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> vocabulary = spe.load_vocabulary("smollm2-135m")
    >>> prompt = spe.load_adapter(spe.GALLERY / "plural-words-1")
    >>> spe.task_direction([prompt], vocabulary, words=[" rings"], top_k=2)["token"].tolist()
    ['amm', ' Pneum', ' rings']
    """
    return table_of(task_direction(prompts, vocabulary, words=words, twins=twins, report=report), vocabulary, top_k=top_k)


def table_of(found: TaskDirection, vocabulary: Vocabulary, *, top_k: int = 20) -> pd.DataFrame:
    """The table of `direction` of a task direction that is at hand."""
    ids = np.argsort(found.ranks)[: max(1, top_k)]
    best_words = found.word_ids[np.argsort(found.ranks[found.word_ids])][:WORDS_SHOWN]
    ids = np.concatenate([ids, [i for i in best_words if i not in set(ids)]]).astype(np.int64)
    return pd.DataFrame(
        {
            "rank": found.ranks[ids],
            "token_id": ids,
            "token": [vocabulary.tokens[i] for i in ids],
            "score": found.scores[ids],
            "concentration": found.concentration,
            "concentration_p": found.concentration_p,
            "words_median_rank": found.words_median_rank,
            "words_p": found.words_p,
            "twins": found.twins,
            "twin_cosine": found.twin_cosine,
            "twin_words_p": found.twin_words_p,
            "beyond_twin_p": found.beyond_twin_p,
        },
        columns=COLUMNS,
    )


def unit_displacements(prompts: Sequence[SoftPrompt], vocabulary: Vocabulary) -> np.ndarray:
    """Δ_i / ‖Δ_i‖ of every token that moved, (n, d)."""
    if not prompts:
        raise InputError("No prompt was given; a direction needs at least one, with its initial values.")
    for prompt in prompts:
        prompt.check_width(vocabulary.width, vocabulary.model)
        if prompt.initial is None:
            raise InputError(
                f"The initial values of {prompt.name} are unknown, so what training added to it cannot be told; give them",
                remedy=INITIAL_OR_RECOVERED,
            )
    delta = np.concatenate([displacements(prompt) for prompt in prompts])
    moved = delta.any(axis=1)
    if not moved.any():
        raise InputError("No virtual token moved from its initial value, so there is no direction.")
    return unit_rows(delta[moved])


def word_cosines(direction: np.ndarray, vocabulary: Vocabulary, *, report: Report = no_report) -> np.ndarray:
    """The cosine of a direction (d,) with every e − μ, (V,) float64; a row of no length scores 0."""
    unit = unit_rows(direction)
    scores = np.empty(len(vocabulary))
    for start, rows in vocabulary.blocks():
        stop = start + len(rows)
        scores[start:stop] = rows.astype(np.float64) @ unit - vocabulary.mean @ unit
        report(stop / len(vocabulary), f"scoring the words of {vocabulary.model}")
    norms = vocabulary.centred_norms
    return np.divide(scores, norms, out=np.zeros_like(scores), where=norms > 0)


def _sums_alike(vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each token's tenth of the ids and form, (2, V); the sums of the centred rows of every tenth and form, (10, 8, d); and how many they are, (10, 8)."""
    edges = np.linspace(0, len(vocabulary), min(DECILES, len(vocabulary)) + 1).astype(np.int64)
    deciles = np.searchsorted(edges, np.arange(len(vocabulary)), side="right") - 1
    forms = np.array([_form(token) for token in vocabulary.tokens], dtype=np.int64)
    both = deciles * 8 + forms
    sums = np.zeros((DECILES * 8, vocabulary.width))
    for start, rows in vocabulary.blocks():
        of_rows = both[start : start + len(rows)]
        for group in np.unique(of_rows):
            members = rows[of_rows == group].astype(np.float64)
            sums[group] += members.sum(axis=0) - len(members) * vocabulary.mean
    counts = np.bincount(both, minlength=DECILES * 8).reshape(DECILES, 8)
    return np.stack([deciles, forms]), sums.reshape(DECILES, 8, -1), counts


def _form(token: str) -> int:
    bare = token.strip()
    return 4 * token.startswith(" ") + 2 * bare.isalpha() + bare[:1].isupper()


def _means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return sums / np.maximum(counts, 1)[..., None]


def _basis(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis (d, k) of what the columns span."""
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > 1e-8 * max(sizes.max(initial=0.0), 1e-300)]


def _without(rows: np.ndarray, basis: np.ndarray) -> np.ndarray:
    return rows - (rows @ basis) @ basis.T
