"""Was a prompt ever trained? Known where its start is, inferred where its rows are as an untouched random start's.

The rows of an untouched start are one draw from a known distribution: every entry independent, of a known mean and size. Training
changes their size, or moves them together. Seven p-values ask for that, each at a seventh of one per cent. Measured: 0.5 to 3 % of untouched
starts are missed; none of the gallery's 26 prompts, with its start at hand or not, and none of 23 that others published is taken for one.
Trained prompts are taken for untouched where training moved them by little of their start's length: 57 to 81 % of those that it moved by a fifth,
0 to 7 % at three tenths, none at a half. So this is said of a prompt only where its start is unknown, and as what it looks like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.starts import mark_of

NEVER_TRAINED, LOOKS_UNTOUCHED = "never trained", "looks like an untouched random start"
LEVEL = 0.01  # of the untouched starts are missed
FEWEST_VALUES = 2_000  # fewer tell too little of where they come from
MOST_VALUES = 100_000  # that the shape of the distribution is judged by
MOST_ROWS = 256  # whose pairs are compared

# What rounding may have moved a row by, of its own length: the storage's, and that of a vocabulary quantised to 4 to 8 bits.
_ROUNDING = {"float64": 1e-6, "float32": 1e-6, "float16": 1e-3, "bfloat16": 4e-3}
_QUANTISED = 0.01


@dataclass(frozen=True)
class _Start:
    """A distribution that trainers draw a start from: `says` names it, `size` is the entries' standard deviation about `mean`."""

    says: str
    cdf: Callable[[np.ndarray], np.ndarray]
    mean: float
    size: float
    kurtosis: float  # E z⁴ of the standardised entries


def _normal(says: str, size: float) -> _Start:
    def cdf(values: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr

        return ndtr(values / size)

    return _Start(says, cdf, 0.0, size, 3.0)


def _uniform(says: str, low: float, high: float) -> _Start:
    return _Start(says, lambda values: np.clip((values - low) / (high - low), 0.0, 1.0), (low + high) / 2, (high - low) / 12**0.5, 1.8)


_STARTS = (
    _normal("N(0, 1), as PEFT's RANDOM and torch's Embedding draw it", 1.0),
    _normal("N(0, 0.02²), as transformers draws embeddings", 0.02),
    _uniform("uniform between −0.5 and 0.5", -0.5, 0.5),
    _uniform("uniform between 0 and 1", 0.0, 1.0),
)


def untrained(prompt: SoftPrompt, vocabulary: Vocabulary | None = None) -> str | None:
    """Why a prompt has nothing to be read, as the words of a note; None where it was trained as far as can be told.

    Parameters
    ----------
    prompt : as it was read, or with the start that `analysis.prompts.starts` found.
    vocabulary : the one that it is read against: what starts of its words' size (our own random ones) and 8-bit copies of its rows are judged by.

    Returns
    -------
    It begins with `NEVER_TRAINED` where every row is known to be the one that it started from, or is zero. It begins with `LOOKS_UNTOUCHED`, and
    names the distribution, where that is inferred; or with "looks never trained" where the rows differ from their start by less than a quantised
    copy's rounding.
    """
    rows = prompt.embeddings
    if not rows.any():
        return f"{NEVER_TRAINED}, or the wrong tensor: every virtual token is zero"
    if prompt.initial is not None:
        return _as_it_started(prompt, vocabulary)
    if prompt.kind != "soft_prompt":
        return None
    known: tuple[_Start, ...] = _STARTS
    if vocabulary is not None and vocabulary.width == prompt.width:
        size = float(np.sqrt(np.mean(vocabulary.norms**2) / vocabulary.width))
        known = (*_STARTS, _normal(f"{vocabulary.model}'s words in size and nothing else", size))
    for start in known:
        if _is_draw(rows, start):
            return f"{LOOKS_UNTOUCHED} ({start.says})"
    return None


def _as_it_started(prompt: SoftPrompt, vocabulary: Vocabulary | None) -> str | None:
    start = prompt.start.astype(np.float64)
    moved, length = np.linalg.norm(prompt.embeddings - start, axis=1), np.linalg.norm(start, axis=1)
    rounding = _ROUNDING.get(prompt.source.dtype, 1e-6) if prompt.source is not None else 1e-6
    found = mark_of(prompt)
    if (moved <= rounding * length).all():
        return f"{NEVER_TRAINED}: every row is the one that it started from{found}"
    if not found or vocabulary is None:
        return None
    quantised = vocabulary.model == EMBEDDED_MODEL or vocabulary.model.lower().endswith(".gguf")
    if quantised and (moved <= _QUANTISED * length).all():
        return f"looks never trained: no row is further from its start than {vocabulary.model} is rounded{found}"
    return None


def _is_draw(rows: np.ndarray, start: _Start) -> bool:
    """Whether (n, d) rows pass for independent draws from a start's distribution, at `LEVEL` over all tests together."""
    n, d = rows.shape
    if rows.size < FEWEST_VALUES or n < 2:
        return False
    z = (rows.astype(np.float64) - start.mean) / start.size
    excess = start.kurtosis - 1.0  # the variance of z²
    squares = z**2
    if abs(squares.mean() - 1.0) > 6 * np.sqrt(excess / rows.size):  # most prompts: spares the rest
        return False
    from scipy import stats

    entries = rows.ravel()[:: max(1, rows.size // MOST_VALUES)]
    of_rows, of_columns, mean = squares.sum(axis=1), squares.sum(axis=0), z.mean(axis=0)
    some = z[:MOST_ROWS]
    pairs = (some @ some.T)[np.triu_indices(len(some), 1)] / np.sqrt(d)
    p_values = (
        stats.kstest(entries, start.cdf).pvalue,
        2 * stats.norm.sf(abs(squares.mean() - 1.0) / np.sqrt(excess / rows.size)),
        2 * stats.norm.sf(abs(z.mean()) * np.sqrt(rows.size)),
        stats.chi2.sf(((of_rows - d) ** 2 / (d * excess)).sum(), n),  # rows of one length
        stats.norm.sf((((of_columns - n) ** 2 / (n * excess)).sum() - d) / np.sqrt(d * (2 + 12 / n))),  # no column stands out
        _two_sided(stats.chi2(d), n * float(mean @ mean)),  # no direction that all share
        stats.norm.sf(abs((pairs**2).sum() - len(pairs)) / np.sqrt(len(pairs) * (2 + 6 / d))) * 2,  # no pair that knows of the other
    )
    return min(p_values) >= LEVEL / len(p_values)


def _two_sided(distribution, value: float) -> float:
    return 2 * min(distribution.sf(value), distribution.cdf(value))
