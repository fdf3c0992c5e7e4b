"""What chance looks like in a vocabulary: the best scores of vectors that mean nothing, drawn once and kept.

A random vector drawn like the vocabulary's own rows, N(μ, Σ), has a nearest word too, and so has one in a direction of no
preference at all. What a virtual token scores is compared with what these score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.kept import KeptArrays
from analysis.models import Report, no_report
from analysis.neighbours import nearest, unit_rows
from analysis.vocabulary import Vocabulary

DRAWS = 1_000
SEED = 20_211  # of the null, not of anything a person chooses: figures of two runs can be compared
TIGHTNESS_WORDS = 10
_VERSION = 2  # raise it when the content changes


@dataclass(frozen=True, eq=False)
class Null:
    """The best scores of `DRAWS` random vectors.

    Attributes
    ----------
    draws : (1000, d) float32, the draws from N(μ, Σ) themselves.
    drawn : (1000,) float64, sorted: the best centred cosine of each draw from N(μ, Σ), Σ the vocabulary's own covariance.
    uniform : (1000,) float64, sorted: that of directions μ + u, u uniform on the sphere.
    tightness : (1000,) float64, sorted: the mean pairwise centred cosine among the ten nearest words of each draw from N(μ, Σ).
    """

    draws: np.ndarray
    drawn: np.ndarray
    uniform: np.ndarray
    tightness: np.ndarray

    def p_drawn(self, scores: np.ndarray) -> np.ndarray:
        """The share of draws from N(μ, Σ) that score as high or higher: (1 + #) / 1001."""
        return p_values(self.drawn, scores)

    def p_direction(self, scores: np.ndarray) -> np.ndarray:
        """The larger p-value of a direction's score, against N(0, Σ) and against uniform directions."""
        return np.maximum(p_values(self.drawn, scores), p_values(self.uniform, scores))


def p_values(null: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(1 + #{null ≥ score}) / (1 + #null) for each score; `null` is sorted ascending (Davison and Hinkley 1997, section 4.2)."""
    at_least = len(null) - np.searchsorted(null, scores, side="left")
    return (1 + at_least) / (1 + len(null))


def null_of(vocabulary: Vocabulary, *, report: Report = no_report) -> Null:
    """The null of a vocabulary, drawn once and kept in its cache: some ten seconds for 50,000 words on two cores."""
    shapes = {"draws": (DRAWS, vocabulary.width), "drawn": (DRAWS,), "uniform": (DRAWS,), "tightness": (DRAWS,)}
    kept = KeptArrays(vocabulary.cache, "null", _VERSION, shapes=shapes)
    return Null(**kept.get(lambda: vars(_drawn(vocabulary, report))))


def normal_draws(vocabulary: Vocabulary, count: int, seed: int, *, report: Report = no_report) -> np.ndarray:
    """Vectors from N(μ, Σ), (count, d) float64: x = μ + (E − μ)ᵀ g / √V with g standard normal, which needs no factorisation of Σ."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros((count, vocabulary.width))
    for start, rows in vocabulary.blocks():
        weights = rng.standard_normal((count, len(rows)), dtype=np.float32)
        drawn += weights @ (rows - vocabulary.mean.astype(np.float32))
        report(start / len(vocabulary), f"drawing random vectors like the words of {vocabulary.model}")
    return vocabulary.mean + drawn / np.sqrt(len(vocabulary))


def uniform_draws(vocabulary: Vocabulary, count: int, seed: int) -> np.ndarray:
    """μ + u, u uniform on the unit sphere, (count, d) float64."""
    return vocabulary.mean + unit_rows(np.random.default_rng(seed).standard_normal((count, vocabulary.width)))


def tightness(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """The mean pairwise centred cosine among k words, for each row of token ids (n, k); nan for fewer than two words.

    Lester et al. 2021, section 7, say of a virtual token's nearest words that they form tight clusters; any vector's nearest
    words resemble each other, so the value is to be compared with `Null.tightness`.
    """
    k = ids.shape[1]
    if k < 2:
        return np.full(len(ids), np.nan)
    units = unit_rows(vocabulary.embeddings[ids].astype(np.float64) - vocabulary.mean)
    total = (units.sum(axis=1) ** 2).sum(axis=1)  # of all pairs, each word with itself among them
    return (total - (units**2).sum(axis=(1, 2))) / (k * (k - 1))


def _drawn(vocabulary: Vocabulary, report: Report) -> Null:
    draws = normal_draws(vocabulary, DRAWS, SEED, report=report)
    report(0.5, f"scoring random vectors against {vocabulary.model}")
    ids, scores = nearest(draws, vocabulary, top_k=TIGHTNESS_WORDS)
    report(0.8, f"scoring random vectors against {vocabulary.model}")
    _, uniform = nearest(uniform_draws(vocabulary, DRAWS, SEED + 1), vocabulary, top_k=1)
    report(1.0, "ready")
    return Null(draws.astype(np.float32), np.sort(scores[:, 0]), np.sort(uniform[:, 0]), np.sort(tightness(ids, vocabulary)))
