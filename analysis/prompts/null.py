"""What chance looks like in a vocabulary: the best scores of vectors that mean nothing, drawn once and kept.

A random vector drawn like the vocabulary's own rows, N(μ, Σ), has a nearest word too, and so has one in a direction of no
preference at all. What a virtual token scores is compared with what these score.

Directions that all words share name no word: the mean and the strongest principal directions of the vocabulary. A token that drifts along one of them
is near to hundreds of words at once. So what is read as a word must be read with these common directions taken off, and stand out from the words
after it. The same is done to the random vectors that it is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.search import nearest, unit_rows

DRAWS = 1_000
SEED = 20_211  # of the null, not of anything a person chooses: figures of two runs can be compared
TIGHTNESS_WORDS = 10
COMMON = 6  # leading principal directions of the vocabulary that no word is read from
SHORTEST_LEFT = 0.1  # of a word's length; one of which less is left without the common directions is no word to be read
NEXT_WORDS = 10  # that a word must stand out from
UNMOVED = 1e-4  # of a vector's length: what is left of it below that is rounding
_VERSION = 5  # raise it when the content changes


@dataclass(frozen=True, eq=False)
class Null:
    """The best scores of `DRAWS` random vectors.

    Attributes
    ----------
    draws : (1000, d) float32, the draws from N(μ, Σ) themselves.
    drawn : (1000,) float64, sorted: the best centred cosine of each draw from N(μ, Σ), Σ the vocabulary's own covariance.
    uniform : (1000,) float64, sorted: that of directions μ + u, u uniform on the sphere.
    tightness : (1000,) float64, sorted: the mean pairwise centred cosine among the ten nearest words of each draw from N(μ, Σ).
    covariance : (d, d) float32, Σ.
    common : (d, ≤ 7) float32, an orthonormal basis of the mean and the six leading principal directions of the vocabulary (fewer where it is narrow).
    lengths : (V,) float32, of each e − μ with the common directions taken off; 0 where less than a tenth is left, and of special tokens.
    margins : (2, 1000) float64, sorted: by how much the best word, with the common directions taken off, stands out from the mean of the next ten; of draws
        from N(0, Σ) and of uniform directions.
    """

    draws: np.ndarray
    drawn: np.ndarray
    uniform: np.ndarray
    tightness: np.ndarray
    covariance: np.ndarray
    common: np.ndarray
    lengths: np.ndarray
    margins: np.ndarray

    def p_drawn(self, scores: np.ndarray) -> np.ndarray:
        """The share of draws from N(μ, Σ) that score as high or higher: (1 + #) / 1001."""
        return p_values(self.drawn, scores)

    def p_margin(self, margins: np.ndarray) -> np.ndarray:
        """The p-value of a word that stands out so far from the next ten, the larger one against N(0, Σ) and against uniform directions."""
        return np.max([p_values(null, margins) for null in self.margins], axis=0)

    def without_common(self, vectors: np.ndarray, *, but: np.ndarray | None = None) -> np.ndarray:
        """Vectors (n, d) with the common directions taken off, and of each the direction of its own row of `but`; a vector of which nothing is left becomes 0."""
        vectors = np.asarray(vectors, dtype=np.float64)
        left = _off(vectors, self.common)
        if but is not None:
            own = unit_rows(_off(np.asarray(but, dtype=np.float64), self.common))
            left = left - (left * own).sum(axis=1, keepdims=True) * own
        lengths, before = np.linalg.norm(left, axis=1), np.linalg.norm(vectors, axis=1)
        return np.where((lengths > UNMOVED * before)[:, None], left, 0.0)


def p_values(null: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(1 + #{null ≥ score}) / (1 + #null) for each score; `null` is sorted ascending (Davison and Hinkley 1997, section 4.2)."""
    at_least = len(null) - np.searchsorted(null, scores, side="left")
    return (1 + at_least) / (1 + len(null))


def read_words(vectors: np.ndarray, vocabulary: Vocabulary, null: Null, *, but: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The word that each vector is read as once the common directions are taken off, and its p-value. Special tokens take no part.

    Parameters
    ----------
    vectors : (n, d), displacements or virtual tokens.
    but : (n, d), rows whose own direction is taken off too: growth along its start is no word that a token learned.

    Returns
    -------
    ids, p : (n,) int64 and float64; of a vector of which nothing is left, the word nearest to the whole of it (of one of no length the first token), and p is 1.
    """
    ids, p = _read(null.without_common(vectors, but=but), vocabulary, null)
    return _or_whole(ids, vectors, vocabulary), p


def p_as_word(vectors: np.ndarray, named: np.ndarray, vocabulary: Vocabulary, null: Null) -> np.ndarray:
    """The p-value of each vector being read as the word named (n,), the common directions taken off; 1 where another word is nearer then."""
    ids, p = _read(null.without_common(vectors), vocabulary, null)
    return np.where(ids == named, p, 1.0)


def p_as_word_and_read(
    vectors: np.ndarray, named: np.ndarray, moved: np.ndarray, vocabulary: Vocabulary, null: Null, *, but: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`p_as_word` of virtual tokens, and the ids and p-values that `read_words` tells of their displacements, in one pass over the vocabulary."""
    left = np.concatenate([null.without_common(vectors), null.without_common(moved, but=but)])
    ids, p = _read(left, vocabulary, null)
    n = len(vectors)
    return np.where(ids[:n] == named, p[:n], 1.0), _or_whole(ids[n:], moved, vocabulary), p[n:]


def _or_whole(ids: np.ndarray, vectors: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """The ids, and where nothing was left to read the word nearest to the whole vector; of a vector of no length the first one."""
    vectors = np.asarray(vectors, dtype=np.float64)
    whole = np.flatnonzero((ids < 0) & vectors.any(axis=1))
    if len(whole):
        ids[whole] = nearest(vocabulary.mean + unit_rows(vectors[whole]), vocabulary, top_k=1)[0][:, 0]
    return np.maximum(ids, 0)


def _read(left: np.ndarray, vocabulary: Vocabulary, null: Null) -> tuple[np.ndarray, np.ndarray]:
    """The word of each vector without the common directions, and its p-value; −1 and 1 where nothing is left (every word would be as near)."""
    ids, p = np.full(len(left), -1), np.ones(len(left))
    some = np.flatnonzero(left.any(axis=1))
    if len(some):
        best, scores = _best_words(left[some], vocabulary, null.lengths)
        ids[some], p[some] = best[:, 0], null.p_margin(_margins(scores))
    return ids, p


def _best_words(left: np.ndarray, vocabulary: Vocabulary, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids and scores (cosine of what is left of both) of the best word of each vector and of the next ten, (n, 11)."""
    lengths = lengths.astype(np.float64)
    allowed = lengths > 0 if (lengths > 0).any() else None
    return nearest(vocabulary.mean + unit_rows(left), vocabulary, top_k=1 + NEXT_WORDS, allowed=allowed, lengths=lengths)


def _margins(scores: np.ndarray) -> np.ndarray:
    return scores[:, 0] - (scores[:, 1:].mean(axis=1) if scores.shape[1] > 1 else 0.0)


def _lengths_left(vocabulary: Vocabulary, common: np.ndarray) -> np.ndarray:
    lengths = np.empty(len(vocabulary))
    for start, rows in vocabulary.blocks():
        lengths[start : start + len(rows)] = np.linalg.norm(_off(rows - vocabulary.mean, common), axis=1)
    return np.where((lengths < SHORTEST_LEFT * vocabulary.centred_norms) | vocabulary.special, 0.0, lengths)


def _off(vectors: np.ndarray, basis: np.ndarray) -> np.ndarray:
    basis = basis.astype(np.float64)
    return vectors - (vectors @ basis) @ basis.T


def covariance(vocabulary: Vocabulary) -> np.ndarray:
    """Σ, the covariance of the vocabulary's rows, (d, d) float64: a product of float32 blocks, added up in float64."""
    total = np.zeros((vocabulary.width, vocabulary.width))
    mean = vocabulary.mean.astype(np.float32)
    for _, rows in vocabulary.blocks():
        centred = rows - mean
        total += centred.T @ centred
    return total / max(len(vocabulary), 1)


def common_directions(vocabulary: Vocabulary, sigma: np.ndarray) -> np.ndarray:
    """An orthonormal basis (d, ≤ 7) of the mean row and the leading principal directions; at most an eighth of the width."""
    from scipy.linalg import eigh

    count = min(COMMON, vocabulary.width // 8)
    last = vocabulary.width - 1
    leading = eigh(sigma, subset_by_index=(last - count + 1, last))[1][:, ::-1] if count else np.empty((vocabulary.width, 0))
    return np.linalg.qr(np.concatenate([vocabulary.mean[:, None], leading], axis=1))[0]


def null_of(vocabulary: Vocabulary, *, report: Report = no_report) -> Null:
    """The null of a vocabulary, drawn once and kept in its cache: some ten seconds for 50,000 words on two cores."""
    return Null(**_kept(vocabulary).get(lambda: vars(_drawn(vocabulary, report))))


def is_drawn(vocabulary: Vocabulary) -> bool:
    """Whether the null of a vocabulary lies in the cache."""
    return _kept(vocabulary).read() is not None


def _kept(vocabulary: Vocabulary) -> KeptArrays:
    shapes = {"draws": (DRAWS, vocabulary.width), "drawn": (DRAWS,), "uniform": (DRAWS,), "tightness": (DRAWS,)}
    return KeptArrays(vocabulary.cache, "null", _VERSION, shapes=shapes)


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
    doing = f"scoring random vectors against {vocabulary.model}"
    draws, uniform = normal_draws(vocabulary, DRAWS, SEED, report=report), uniform_draws(vocabulary, DRAWS, SEED + 1)
    report(0.4, doing)
    ids, scores = nearest(draws, vocabulary, top_k=TIGHTNESS_WORDS)
    report(0.6, doing)
    _, of_uniform = nearest(uniform, vocabulary, top_k=1)
    report(0.7, doing)
    sigma = covariance(vocabulary)
    common = common_directions(vocabulary, sigma)
    lengths = _lengths_left(vocabulary, common).astype(np.float32)
    margins = [_margins(_best_words(_off(each - vocabulary.mean, common), vocabulary, lengths)[1]) for each in (draws, uniform)]
    report(1.0, "ready")
    return Null(
        draws.astype(np.float32), np.sort(scores[:, 0]), np.sort(of_uniform[:, 0]), np.sort(tightness(ids, vocabulary)),
        sigma.astype(np.float32), common.astype(np.float32), lengths, np.sort(margins, axis=1),
    )  # fmt: skip
