"""The task direction: what the displacements of a prompt, or of several prompts on one task, have in common.

Each virtual token drifts along no word at all while its task is learned; the mean of the drifts' directions does point somewhere, and on
the embedded model it names the words that the prompt learned to answer with. Two tests say whether that is more than chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.adapters import SoftPrompt
from analysis.errors import InputError
from analysis.models import Report, no_report
from analysis.neighbours import unit_rows
from analysis.null import p_values
from analysis.readings import displacements
from analysis.vocabulary import Vocabulary
from analysis.words import word_ids

COLUMNS = ["rank", "token_id", "token", "score", "concentration", "concentration_p", "words_median_rank", "words_p"]
SIGN_FLIPS = 1_000
WORD_DRAWS = 10_000
DECILES = 10
WORDS_SHOWN = 10
SEED = 20_212


@dataclass(frozen=True, eq=False)
class TaskDirection:
    """What displacements share.

    Attributes
    ----------
    mean : (d,) float64, D: the mean of the unit displacements.
    concentration, concentration_p : ‖D‖, between 0 and 1, and the share of 1,000 random sign flips of the displacements that reach it.
    scores : (V,) float64, the cosine of D with each e − μ.
    ranks : (V,) int64, each token's place by its score, from 0; ties by token id.
    word_ids : the task's words, as token ids; empty where none were given.
    words_median_rank, words_p : the median of their ranks, and the share of 10,000 draws of as many words from the same tenths of the
        token ids (ids run with frequency) whose median is as low; nan without words.
    """

    mean: np.ndarray
    concentration: float
    concentration_p: float
    scores: np.ndarray
    ranks: np.ndarray
    word_ids: np.ndarray
    words_median_rank: float
    words_p: float


def task_direction(
    prompts: Sequence[SoftPrompt], vocabulary: Vocabulary, *, words: Sequence[str] = (), report: Report = no_report
) -> TaskDirection:
    """What the displacements of all virtual tokens of these prompts have in common.

    Parameters
    ----------
    prompts : with initial values, all as wide as the vocabulary.
    words : the task's label or target words; see `analysis.words.word_ids`.

    Raises
    ------
    InputError
        No prompt, one without initial values or of another width, no token that moved, or a word that is no token.
    """
    units = _unit_displacements(prompts, vocabulary)
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
    median, p = _words_test(ranks, ids, rng) if len(ids) else (float("nan"), float("nan"))
    return TaskDirection(mean, concentration, float(p_values(flipped, np.array([concentration]))[0]), scores, ranks, ids, median, p)


def direction(
    prompts: Sequence[SoftPrompt],
    vocabulary: Vocabulary,
    *,
    words: Sequence[str] = (),
    top_k: int = 20,
    report: Report = no_report,
) -> pd.DataFrame:
    """The words that the task direction points at.

    Parameters
    ----------
    prompts, words : see `task_direction`.
    top_k : as many words, and after them the best ten of `words` that are not among them.

    Returns
    -------
    rank (from 0, of the whole vocabulary), token_id, token, score (cosine of D with e − μ), and, the same on each row, concentration,
    concentration_p, words_median_rank, words_p.

    Raises
    ------
    InputError
        As `task_direction`.
    """
    return table_of(task_direction(prompts, vocabulary, words=words, report=report), vocabulary, top_k=top_k)


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
        },
        columns=COLUMNS,
    )


def _unit_displacements(prompts: Sequence[SoftPrompt], vocabulary: Vocabulary) -> np.ndarray:
    """Δ_i / ‖Δ_i‖ of every token that moved, (n, d)."""
    if not prompts:
        raise InputError("No prompt was given; a direction needs at least one, with its initial values.")
    for prompt in prompts:
        prompt.check_width(vocabulary.width, vocabulary.model)
        if prompt.initial is None:
            raise InputError(
                f"The initial values of {prompt.name} are unknown, so what training added to it cannot be told; give them with --initial FILE, or --initial recover."
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


def _words_test(ranks: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The median rank of the words, and the p-value of one as low among words of the same tenths of the ids."""
    edges = np.linspace(0, len(ranks), min(DECILES, len(ranks)) + 1).astype(np.int64)
    deciles = np.searchsorted(edges, ids, side="right") - 1
    drawn = np.stack([rng.integers(edges[decile], edges[decile + 1], size=WORD_DRAWS) for decile in deciles], axis=1)
    median = float(np.median(ranks[ids]))
    medians = np.median(ranks[drawn], axis=1)
    return median, (1 + int((medians <= median).sum())) / (1 + WORD_DRAWS)
