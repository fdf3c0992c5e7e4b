"""Exact nearest vocabulary words of vectors, under five metrics, in bounded memory.

The search has two passes. A fast one multiplies float32 blocks of the vocabulary and keeps every word that could, within a proven
bound on the rounding error, be among the k best. A slow one scores those few again in float64 and sorts them, ties by token id. So
the answer is exact, also where rows repeat, and no more than one block of scores is ever in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import ROWS_AT_A_TIME, Vocabulary
from soft_prompt_explorer.analysis.prompts.metrics import METRICS, MetricName

if TYPE_CHECKING:
    import pandas as pd

    from soft_prompt_explorer.analysis.adapters import SoftPrompt

COLUMNS = ["prompt", "position", "rank", "token_id", "token", "score", "metric"]

QUERIES_AT_A_TIME = 128
_CROWDING_SCORES = 1 << 25  # float32 cosines held at once while the rows' neighbourhoods are measured
_CROWDING_VERSION = 1  # raise it when the content changes
CSLS_NEIGHBOURS = 10  # Conneau et al. 2018, section 2.3
LARGEST_VALUE = 1e15  # beyond it float32 products overflow; trained prompts stay under 1e4
SHORTEST_ROW = 1e-25  # under it the products of a float32 row lose digits
_EPSILON = float(np.finfo(np.float32).eps)


def neighbours(
    prompt: SoftPrompt,
    vocabulary: Vocabulary,
    *,
    metric: MetricName = "centred",
    top_k: int = 10,
    exclude_special: bool = False,
    whole_words: bool = False,
    script: str | None = None,
    report: Report = no_report,
) -> pd.DataFrame:
    """The nearest vocabulary words of each virtual token of a soft prompt.

    Parameters
    ----------
    prompt : SoftPrompt of n virtual tokens, as wide as the vocabulary.
    metric : see `nearest`.
    exclude_special, whole_words, script : see `allowed_tokens`.

    Returns
    -------
    n · top_k rows (fewer where the vocabulary allows fewer words): prompt (its name), position and rank (both from 0), token_id, token,
    score (higher is nearer), metric.

    Raises
    ------
    InputError
        The widths differ, the metric or script is unknown, or no word is allowed.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> vocabulary = spe.load_vocabulary("smollm2-135m")
    >>> prompt = spe.load_adapter(spe.GALLERY / "plural-words-1")
    >>> spe.neighbours(prompt, vocabulary, top_k=1)["token"].head(3).tolist()
    [' organ', ' foot', ' picture']
    """
    prompt.check_width(vocabulary.width, vocabulary.model)
    allowed = allowed_tokens(vocabulary, exclude_special=exclude_special, whole_words=whole_words, script=script)
    ids, scores = nearest(prompt.embeddings, vocabulary, metric=metric, top_k=top_k, allowed=allowed, report=report)
    n, k = ids.shape
    import pandas as pd

    return pd.DataFrame(
        {
            "prompt": prompt.name,
            "position": np.repeat(np.arange(n), k),
            "rank": np.tile(np.arange(k), n),
            "token_id": ids.ravel(),
            "token": [vocabulary.tokens[i] for i in ids.ravel()],
            "score": scores.ravel(),
            "metric": metric,
        },
        columns=COLUMNS,
    )


def allowed_tokens(
    vocabulary: Vocabulary, *, exclude_special: bool = False, whole_words: bool = False, script: str | None = None
) -> np.ndarray:
    """Which tokens may be named as neighbours, (V,) bool.

    Parameters
    ----------
    exclude_special : leave out control tokens and rows that no text uses.
    whole_words : only tokens that start a word and hold nothing but its letters.
    script : only tokens with at least one letter, all letters being of this Unicode script (`Latin`, `Cyrillic`, `Han`, `Arabic`, …);
        `CJK` means Han, Hiragana, Katakana and Hangul.

    Raises
    ------
    InputError
        The script is unknown, or no token is allowed.
    """
    allowed = np.ones(len(vocabulary), dtype=bool)
    if exclude_special:
        allowed &= ~vocabulary.special
    if whole_words:
        allowed &= ~vocabulary.special & _matches(vocabulary.tokens, _whole_word_pattern(vocabulary.tokens))
    if script is not None:
        allowed &= ~vocabulary.special & _matches(vocabulary.tokens, _script_pattern(script)) & ~_matches(vocabulary.tokens, _not_text())
    if not allowed.any():
        raise InputError(f"No token of {vocabulary.model} is left after the filters; loosen one of them.")
    return allowed


def nearest(
    vectors: np.ndarray,
    vocabulary: Vocabulary,
    *,
    metric: MetricName = "centred",
    top_k: int = 10,
    allowed: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
    report: Report = no_report,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest vocabulary rows of vectors, exactly; ties go to the smaller token id.

    Parameters
    ----------
    vectors : (n, d) float array.
    metric : a name of `METRICS`, whose record holds its formula. A vector or row of norm zero has the cosine 0 with everything.
    allowed : (V,) bool, the rows that may be named; all when None.
    lengths : (V,) float64, of the metric `centred`: what the product with each e − μ is divided by in place of its own length; a row of length 0 scores 0.
    report : told the progress of the rows' CSLS neighbourhoods, which are computed once per vocabulary.

    Returns
    -------
    ids, scores : (n, k) int64 and float64, best first; k is `top_k` or the number of allowed rows if that is smaller.

    Raises
    ------
    InputError
    """
    if metric not in METRICS:
        raise InputError(f"The metric {metric!r} is not known; choose one of {', '.join(METRICS)}.")
    if top_k < 1:
        raise InputError(f"At least one neighbour has to be asked for, not {top_k}.")
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or vectors.shape[1] != vocabulary.width:
        raise InputError(
            f"Vectors of shape {vectors.shape} do not go with {vocabulary.model}, whose embeddings are {vocabulary.width} wide."
        )
    if not (np.abs(vectors) <= LARGEST_VALUE).all():
        raise InputError(f"A vector holds NaN, infinity or a value beyond {LARGEST_VALUE:g}; it is not near to any word.")
    if metric == "csls":
        return _nearest_csls(vectors, vocabulary, top_k, allowed, report)
    space = _SPACES[metric](vocabulary) if lengths is None else _cosine_space(vocabulary, vocabulary.mean, lengths)
    k = min(top_k, len(vocabulary) if allowed is None else int(allowed.sum()))
    return _search(vectors, vocabulary, space, k, allowed)


# --- The metrics -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Space:
    """A metric in the form that the fast pass needs: score ~ (q · e − shift) · weight_e + bias_e for a direction q of each vector.

    `direction` turns (n, d) float64 vectors into q (n, d) and shift (n,); `weight` and `bias` are (V,), None for ones and zeros;
    `exact` scores one vector against rows in float64, in the same order; `error` (V,) bounds what float32 rounding does to
    (q · e − shift) · weight_e for a q of norm 1.
    """

    direction: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    exact: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    error: np.ndarray
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None


def _cosine_space(vocabulary: Vocabulary, centre: np.ndarray, norms: np.ndarray) -> _Space:
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)

    def direction(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        units = unit_rows(vectors - centre)
        return units, units @ centre

    def exact(vector: np.ndarray, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return _rowwise_dot(rows - centre, unit_rows((vector - centre)[None])[0]) * inverse[ids]

    error = _rounding(vocabulary) * (vocabulary.norms + np.linalg.norm(centre)) * inverse
    return _Space(direction, exact, error, weight=inverse)


def _dot_space(vocabulary: Vocabulary) -> _Space:
    def direction(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return unit_rows(vectors), np.zeros(len(vectors))

    def exact(vector: np.ndarray, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return _rowwise_dot(rows, vector)

    return _Space(direction, exact, _rounding(vocabulary) * vocabulary.norms)


def _euclidean_space(vocabulary: Vocabulary) -> _Space:
    def direction(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return vectors, np.zeros(len(vectors))

    def exact(vector: np.ndarray, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        difference = rows - vector
        return -np.sqrt(_rowwise_dot(difference, difference))

    # −‖p − e‖ orders the rows as p · e − ‖e‖²/2 does.
    return _Space(direction, exact, _rounding(vocabulary) * vocabulary.norms, bias=-(vocabulary.norms**2) / 2)


_SPACES: dict[MetricName, Callable[[Vocabulary], _Space]] = {
    "centred": lambda vocabulary: _cosine_space(vocabulary, vocabulary.mean, vocabulary.centred_norms),
    "cosine": lambda vocabulary: _cosine_space(vocabulary, np.zeros(vocabulary.width), vocabulary.norms),
    "dot": _dot_space,
    "euclidean": _euclidean_space,
}


def _rounding(vocabulary: Vocabulary) -> float:
    # A float32 dot product of d terms errs by at most d·ε/2 of the product of the norms (Higham 2002, section 3.1); ε for the
    # rounding of the factors and of what is done to the product.
    return _EPSILON * (vocabulary.width / 2 + 4)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """The vectors, along the last axis, divided by their Euclidean norms; one of norm zero stays as it is."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def _rowwise_dot(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    # A sum along each row, not a matrix product: equal rows then have equal scores to the last bit, wherever they stand.
    return (rows * vector).sum(axis=1)


# --- The search ------------------------------------------------------------------------------------------------------


def _search(
    vectors: np.ndarray, vocabulary: Vocabulary, space: _Space, k: int, allowed: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    ids, scores = np.empty((len(vectors), k), dtype=np.int64), np.empty((len(vectors), k))
    for start in range(0, len(vectors), QUERIES_AT_A_TIME):
        part = vectors[start : start + QUERIES_AT_A_TIME]
        for i, candidates in enumerate(_candidates(part, vocabulary, space, k, allowed), start=start):
            exact = _exact_scores(vectors[i], vocabulary, space, candidates)
            best = np.lexsort((candidates, -exact))[:k]
            ids[i], scores[i] = candidates[best], exact[best]
    return ids, scores


def _candidates(vectors: np.ndarray, vocabulary: Vocabulary, space: _Space, k: int, allowed: np.ndarray | None) -> list[np.ndarray]:
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


def _exact_scores(vector: np.ndarray, vocabulary: Vocabulary, space: _Space, ids: np.ndarray) -> np.ndarray:
    scores = np.empty(len(ids))
    for start in range(0, len(ids), ROWS_AT_A_TIME):
        part = ids[start : start + ROWS_AT_A_TIME]
        scores[start : start + len(part)] = space.exact(vector, vocabulary.embeddings[part].astype(np.float64), part)
    return scores


# --- CSLS ------------------------------------------------------------------------------------------------------------


def _nearest_csls(
    vectors: np.ndarray, vocabulary: Vocabulary, k: int, allowed: np.ndarray | None, report: Report
) -> tuple[np.ndarray, np.ndarray]:
    # CSLS adds a constant of the vector and a constant of the row to the centred cosine: the same search with a bias.
    crowding = csls_crowding(vocabulary, report=report)
    cosine = _SPACES["centred"](vocabulary)
    own = nearest(vectors, vocabulary, top_k=CSLS_NEIGHBOURS)[1].mean(axis=1)
    space = replace(
        cosine,
        bias=-crowding / 2,
        exact=lambda vector, rows, ids: 2 * cosine.exact(vector, rows, ids) - crowding[ids],
    )
    k = min(k, len(vocabulary) if allowed is None else int(allowed.sum()))
    ids, scores = _search(vectors, vocabulary, space, k, allowed)
    return ids, scores - own[:, None]


def csls_crowding(vocabulary: Vocabulary, *, report: Report = no_report) -> np.ndarray:
    """r(e): the mean centred cosine of every row to its ten nearest other rows, (V,) float64; computed once and kept in the cache."""
    kept = KeptArrays(vocabulary.cache, "csls-crowding", _CROWDING_VERSION, shapes={"crowding": (len(vocabulary),)})
    return kept.get(lambda: {"crowding": _crowding(vocabulary, report)})["crowding"]


def _crowding(vocabulary: Vocabulary, report: Report) -> np.ndarray:
    units = _centred_units(vocabulary)
    crowding = np.empty(len(vocabulary))
    k = min(CSLS_NEIGHBOURS, len(vocabulary) - 1)
    spare = min(2 * k, len(vocabulary) - 1)  # float32 finds the candidates, float64 measures them
    at_a_time = max(1, _CROWDING_SCORES // len(units))
    for start in range(0, len(units), at_a_time):
        report(start / len(units), f"measuring how crowded the words of {vocabulary.model} are (once)")
        cosines = units[start : start + at_a_time] @ units.T
        own = np.arange(len(cosines))
        cosines[own, own + start] = -np.inf
        if not k:
            crowding[start : start + len(cosines)] = 0.0
            continue
        candidates = np.argpartition(cosines, -spare, axis=1)[:, -spare:]
        rows = _centred_unit_rows(vocabulary, np.arange(start, start + len(cosines)))
        others = _centred_unit_rows(vocabulary, candidates.ravel()).reshape(*candidates.shape, -1)
        exact = (others * rows[:, None]).sum(axis=2)
        crowding[start : start + len(cosines)] = np.sort(exact, axis=1)[:, -k:].mean(axis=1)
    report(1.0, "measured")
    return crowding


def _centred_unit_rows(vocabulary: Vocabulary, ids: np.ndarray) -> np.ndarray:
    return unit_rows(vocabulary.embeddings[ids].astype(np.float64) - vocabulary.mean)


def _centred_units(vocabulary: Vocabulary) -> np.ndarray:
    units = np.empty(vocabulary.embeddings.shape, dtype=np.float32)
    for start, rows in vocabulary.blocks():
        units[start : start + len(rows)] = unit_rows(rows.astype(np.float64) - vocabulary.mean)
    return units


# --- The filters -----------------------------------------------------------------------------------------------------


def _matches(tokens: list[str], pattern) -> np.ndarray:
    return np.fromiter((pattern.fullmatch(token) is not None for token in tokens), dtype=bool, count=len(tokens))


def _whole_word_pattern(tokens: list[str]):
    import regex

    # Most tokenizers mark a word's start by a space; WordPiece marks its continuation by ##, which is no letter.
    marks_starts = sum(token.startswith(" ") for token in tokens[:20000]) > len(tokens[:20000]) / 20
    return regex.compile(r" \p{L}[\p{L}\p{M}]*" if marks_starts else r"\p{L}[\p{L}\p{M}]*")


def _not_text():
    import regex

    return regex.compile(r"(<0x[0-9A-F]{2}>)+|.*\\.*")  # what `errors.printable` writes with letters of its own


def _script_pattern(script: str):
    import regex

    try:
        if not re.fullmatch(r"[A-Za-z][A-Za-z_ ]*", script):
            raise regex.error("not a name")
        letters = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}ー" if script.upper() == "CJK" else rf"\p{{Script={script}}}"
        return regex.compile(rf"[\P{{L}}{letters}]*[{letters}][\P{{L}}{letters}]*")
    except regex.error:
        raise InputError(
            f"The script {script!r} is not known; use a Unicode script's name such as Latin, Cyrillic, Greek, Arabic or Han, or CJK."
        ) from None
