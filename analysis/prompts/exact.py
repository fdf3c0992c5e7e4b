"""The search for nearest rows: exact, in bounded memory, by whatever metric can be written as a `Space`.

It has two passes. A fast one multiplies float32 blocks of the vocabulary and keeps every word that could, within a proven
bound on the rounding error, be among the k best. A slow one scores those few again in float64 and sorts them, ties by token id. So
the answer is exact, also where rows repeat, and no more than one block of scores is ever in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # a command line's help is made of the metrics, and needs none
    from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary

QUERIES_AT_A_TIME = 128
SHORTEST_ROW = 1e-25  # under it the products of a float32 row lose digits
_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Space:
    """A metric in the form that the fast pass needs: score ~ (q · e − shift) · weight_e + bias_e for a direction q of each vector.

    `direction` turns (n, d) float64 vectors into q (n, d) and shift (n,); `weight` and `bias` are (V,), None for ones and zeros;
    `exact` scores one vector against rows in float64, in the same order; `error` (V,) bounds what float32 rounding does to
    (q · e − shift) · weight_e for a q of norm 1. `own` is a constant of each of the vectors that is taken off its scores; None for zeros.
    """

    direction: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    exact: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    error: np.ndarray
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    own: Callable[[np.ndarray], np.ndarray] | None = None


def rounding(vocabulary: Vocabulary) -> float:
    """How far a float32 product with a row may be off, as a share of the product of the norms."""
    # A float32 dot product of d terms errs by at most d·ε/2 of the product of the norms (Higham 2002, section 3.1); ε for the
    # rounding of the factors and of what is done to the product.
    return _EPSILON * (vocabulary.width / 2 + 4)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """The vectors, along the last axis, divided by their Euclidean norms; one of norm zero stays as it is."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def rowwise_dot(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The product of each row with a vector, summed row by row: equal rows then have equal scores to the last bit, wherever they stand."""
    return (rows * vector).sum(axis=1)


def search(vectors: np.ndarray, vocabulary: Vocabulary, space: Space, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The ids and scores of the k nearest rows of each vector, (n, k) int64 and float64, best first; ties go to the smaller id.

    Parameters
    ----------
    k : no more than rows may be named.
    allowed : (V,) bool, the rows that may be named; all when None.
    """
    ids, scores = np.empty((len(vectors), k), dtype=np.int64), np.empty((len(vectors), k))
    for start in range(0, len(vectors), QUERIES_AT_A_TIME):
        part = vectors[start : start + QUERIES_AT_A_TIME]
        for i, candidates in enumerate(_candidates(part, vocabulary, space, k, allowed), start=start):
            exact = _exact_scores(vectors[i], vocabulary, space, candidates)
            best = np.lexsort((candidates, -exact))[:k]
            ids[i], scores[i] = candidates[best], exact[best]
    return ids, scores if space.own is None else scores - space.own(vectors)[:, None]


def _candidates(vectors: np.ndarray, vocabulary: Vocabulary, space: Space, k: int, allowed: np.ndarray | None) -> list[np.ndarray]:
    """For each vector the ids of all rows that could be among its k best."""
    directions, shifts = space.direction(vectors)
    # A row whose bound is far above the usual one (a centred row of almost no length, say) would loosen the bound for all, so
    # such rows are always candidates; the others share the largest bound among them.
    # The same goes for rows so short that float32 cannot hold their products or the inverse of their length.
    fragile = (space.error > 8 * np.median(space.error)) | ((vocabulary.norms > 0) & (vocabulary.norms < SHORTEST_ROW))
    usable = ~fragile if allowed is None else allowed & ~fragile
    always = np.flatnonzero(fragile if allowed is None else fragile & allowed)
    slack = np.linalg.norm(directions, axis=1) * space.error[usable].max(initial=0.0)
    if space.bias is not None:
        slack += 2 * _EPSILON * np.abs(space.bias).max()

    queries, shifts = directions.astype(np.float32), shifts.astype(np.float32)
    weight = None if space.weight is None else np.where(fragile, 0.0, space.weight).astype(np.float32)
    bias = None if space.bias is None else space.bias.astype(np.float32)
    all_usable = bool(usable.all())
    found = _Found(len(vectors), k, 2 * slack)
    for start, rows in vocabulary.blocks():
        stop = start + len(rows)
        block = queries @ rows.T
        if weight is not None:
            block -= shifts[:, None]
            block *= weight[start:stop]
        if bias is not None:
            block += bias[start:stop]
        if not all_usable:
            block[:, ~usable[start:stop]] = -np.inf
        found.add(start, block)
    return [np.concatenate([ids, always]) for ids in found.ids()]


class _Found:
    """The rows that could still be among the k best of each of n vectors, block after block.

    A row survives while its score is no more than `margin` below the k-th best score seen so far.
    """

    TIDY_ABOVE = 1 << 21  # survivors held at once before those that newer ones have ruled out are dropped

    def __init__(self, n: int, k: int, margin: np.ndarray) -> None:
        self.n, self.k, self.margin = n, k, margin.astype(np.float32)
        self.kth = np.full(n, -np.inf, dtype=np.float32)
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, first_id: int, block: np.ndarray) -> None:
        columns = block.shape[1]
        if columns > self.k and np.isneginf(self.kth).any():
            # The k-th best of the groups' best scores is no better than the k-th best of all, hardly worse, and soon found.
            groups = min(4 * self.k, columns)
            best = block[:, : columns - columns % groups].reshape(self.n, -1, groups).max(axis=1)
            self.kth = np.maximum(self.kth, np.partition(best, -self.k, axis=1)[:, -self.k])
        survives = block >= (self.kth - self.margin)[:, None]
        if np.isneginf(self.kth).any():
            survives &= block > -np.inf
        query, column = np.divmod(np.flatnonzero(survives), columns)  # several times as fast as np.nonzero of a matrix
        self.parts.append((query.astype(np.int32), column + first_id, block[query, column]))
        if sum(len(part[0]) for part in self.parts) > self.TIDY_ABOVE:
            self._tidy()

    def ids(self) -> list[np.ndarray]:
        query, ids, _ = self._tidy()
        return np.split(ids, np.searchsorted(query, np.arange(1, self.n)))

    def _tidy(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        query, ids, scores = (np.concatenate(arrays) for arrays in zip(*self.parts, strict=True))
        order = np.lexsort((-scores, query))
        query, ids, scores = query[order], ids[order], scores[order]
        first = np.searchsorted(query, np.arange(self.n + 1))
        enough = np.flatnonzero(np.diff(first) >= self.k)
        self.kth[enough] = np.maximum(self.kth[enough], scores[first[enough] + self.k - 1])
        kept = scores >= (self.kth - self.margin)[query]
        self.parts = [(query[kept], ids[kept], scores[kept])]
        return self.parts[0]


def _exact_scores(vector: np.ndarray, vocabulary: Vocabulary, space: Space, ids: np.ndarray) -> np.ndarray:
    from soft_prompt_explorer.analysis.models.vocabulary import ROWS_AT_A_TIME

    scores = np.empty(len(ids))
    for start in range(0, len(ids), ROWS_AT_A_TIME):
        part = ids[start : start + ROWS_AT_A_TIME]
        scores[start : start + len(part)] = space.exact(vector, vocabulary.embeddings[part].astype(np.float64), part)
    return scores
