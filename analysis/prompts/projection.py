"""Maps: the vocabulary in two or three dimensions, and the virtual tokens in their places on it.

The map of a vocabulary is made once and kept; virtual tokens are then placed on it in milliseconds, and never change it. What a map shows
of a space of hundreds of dimensions is little: beside each stands how far its neighbourhoods can be trusted.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.directions import word_cosines
from soft_prompt_explorer.analysis.prompts.search import allowed_tokens, nearest, unit_rows

Projection = Literal["umap", "pca"]
PROJECTIONS = get_args(Projection)
AXES = ("x", "y", "z")
NEIGHBOUR_COLUMNS = ["token_id", "token", "score", "true_rank", "map_rank"]

MOST_WORDS = 60_000  # beyond, a sample of as many
COMPONENTS = 50
NEIGHBOURS = 15
TRUSTED_SAMPLE = 3_000  # words on which trustworthiness is measured: it takes the square of their number
LANDMARK_LETTERS = 4
LANDMARKS_FROM = 3_000  # of the most frequent whole words
CROWD = 0.01  # of the map's spread: how near to each other words lie that count as one crowd
SEED = 20_213
SHIPPED = Path(__file__).parent / "maps"
_VERSION = 1  # raise it when the content changes


@dataclass(frozen=True, eq=False)
class VocabularyMap:
    """A vocabulary's words in two or three dimensions.

    Attributes
    ----------
    projection : `umap` or `pca`.
    ids : (m,) int64, the token ids that are on the map: all of them, or a random 60,000 of a larger vocabulary.
    places : (m, k) float32, k 2 or 3.
    trustworthiness : how far neighbours on the map are neighbours in truth (Venna & Kaski 2001; k = 15), over 3,000 of the words: 1 where all
        are, about 0.5 where the map is drawn at random.
    centre, axes : (d,) and (d, k) float64, the linear map of PCA; for UMAP of no use.
    """

    projection: Projection
    ids: np.ndarray
    places: np.ndarray
    trustworthiness: float
    centre: np.ndarray
    axes: np.ndarray

    @property
    def dimensions(self) -> int:
        return self.places.shape[1]


def vocabulary_map(
    vocabulary: Vocabulary, *, projection: Projection = "umap", dimensions: int = 2, report: Report = no_report
) -> VocabularyMap:
    """The map of a vocabulary, made once and kept in its cache: half a minute for 50,000 words by UMAP, seconds by PCA. That of the embedded model ships.

    Each word stands as the unit vector of its centred row, so that straight distances on the sphere are cosines. UMAP (McInnes et al. 2018)
    is given the exact fifteen nearest words by cosine among the fifty leading principal components, and a fixed seed.

    Raises
    ------
    InputError
        The projection is unknown, the dimensions are not 2 or 3, or there are too few words.
    """
    if projection not in PROJECTIONS:
        raise InputError(f"The map {projection!r} is not known; choose one of {', '.join(PROJECTIONS)}.")
    if dimensions not in (2, 3):
        raise InputError(f"A map has 2 or 3 dimensions, not {dimensions}.")
    if len(vocabulary) < 2 * NEIGHBOURS:
        raise InputError(f"A map needs at least {2 * NEIGHBOURS} words, and {vocabulary.model} has {len(vocabulary)}.")
    made = _shipped(vocabulary, projection, dimensions).read()
    if made is None:
        made = _kept(vocabulary, projection, dimensions).get(lambda: _make(vocabulary, projection, dimensions, report))
    report(1.0, "ready")
    return VocabularyMap(projection, made["ids"], made["places"], float(made["trustworthiness"]), made["centre"], made["axes"])


def map_is_made(vocabulary: Vocabulary, *, projection: Projection = "umap", dimensions: int = 2) -> bool:
    """Whether `vocabulary_map` only has to read what was made before."""
    return any(kept(vocabulary, projection, dimensions).read() is not None for kept in (_shipped, _kept))


def ship_map(vocabulary: Vocabulary, *, report: Report = no_report) -> None:
    """Make the map by UMAP in two dimensions that ships with the package; `make map` does."""
    _shipped(vocabulary, "umap", 2).keep(_make(vocabulary, "umap", 2, report))


def place(points: np.ndarray, on: VocabularyMap, vocabulary: Vocabulary) -> np.ndarray:
    """Where vectors stand on a map.

    PCA places them as it does the words. On a UMAP, a vector stands where most of its fifteen nearest words are: at the one of them that the others lie
    most densely around (a Gaussian kernel of 1 % of the map's spread), moved to the mean of those near it, weighted as UMAP weights neighbours (McInnes et
    al. 2018, section 3.1). The mean of all fifteen lies between their crowds, where none of them is: beside it the map keeps 1 % of the nearest words of the
    gallery's tokens, and here 13 %; of words themselves it keeps 8 %. A vector that is near to no word stands amid words that it is least far from.

    Parameters
    ----------
    points : (n, d), centred: P − μ, or Δ.

    Returns
    -------
    (n, k) float64.
    """
    points = unit_rows(np.asarray(points, dtype=np.float64))
    return _places(points, on, *(_near(points, on, vocabulary) if on.projection == "umap" else (None, None)))


@dataclass(frozen=True, eq=False)
class Placed:
    """Vectors on a map, and how far their places tell what they are near to.

    Attributes
    ----------
    places : (n, k) float64.
    near : (n, 15) int64, the token ids of the words on the map that are nearest in truth, by centred cosine, the nearest first; `scores` are their cosines.
    kept : (n,) float64, the share of these that are among the fifteen nearest words on the map too.
    """

    places: np.ndarray
    near: np.ndarray
    scores: np.ndarray
    kept: np.ndarray


def placed(points: np.ndarray, on: VocabularyMap, vocabulary: Vocabulary) -> Placed:
    """Where vectors stand on a map, as `place` says, with their nearest words in truth and the share of them that the map keeps beside each.

    Parameters
    ----------
    points : (n, d), centred: P − μ, or Δ.
    """
    from scipy.spatial import KDTree

    points = unit_rows(np.asarray(points, dtype=np.float64))
    near, scores = _near(points, on, vocabulary)
    places = _places(points, on, near, scores)
    _, rows = KDTree(on.places).query(places, k=near.shape[1])
    kept = [np.isin(words, beside).mean() for words, beside in zip(near, on.ids[rows], strict=True)]
    return Placed(places, near, scores, np.array(kept))


def _near(points: np.ndarray, on: VocabularyMap, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """The ids of the words on the map that are nearest to unit vectors, and their cosines."""
    on_map = np.zeros(len(vocabulary), dtype=bool)
    on_map[on.ids] = True
    return nearest(vocabulary.mean + points, vocabulary, top_k=NEIGHBOURS, allowed=on_map)


def _places(points: np.ndarray, on: VocabularyMap, near: np.ndarray | None, scores: np.ndarray | None) -> np.ndarray:
    if on.projection == "pca":
        return (points - on.centre) @ on.axes
    assert near is not None and scores is not None  # of `_near`
    of_words = on.places[np.searchsorted(on.ids, near)].astype(np.float64)
    wide = 2.0 * max(CROWD * float(np.linalg.norm(on.places.std(axis=0))), 1e-9) ** 2
    together = np.exp(-np.square(of_words[:, :, None] - of_words[:, None]).sum(axis=-1) / wide)
    rows = np.arange(len(points))
    weights = together[rows, together.sum(axis=-1).argmax(axis=-1)] * np.maximum(_membership(1.0 - scores), 1e-6)
    return (weights[:, :, None] * of_words).sum(axis=1) / weights.sum(axis=1)[:, None]


def trustworthiness(points: np.ndarray, places: np.ndarray) -> float:
    """How far the neighbours of these points on the map are their neighbours in truth, by cosine; nan for fewer than four points.

    Venna & Kaski 2001 (equation 1), at k = 15, or at just under half the number of points where there are fewer than 32: 1 less what false neighbours on the map weigh
    by their true ranks. An atlas shows it of 320 tokens, at once; scikit-learn, which has it too, takes a second to import.

    Parameters
    ----------
    points : (n, d), their directions in truth.
    places : (n, k), on the map.
    """
    n = len(points)
    if n < 4:
        return float("nan")
    k = min(NEIGHBOURS, (n - 1) // 2)
    units, places = unit_rows(np.asarray(points, dtype=np.float64)), np.asarray(places, dtype=np.float64)
    squares = (places**2).sum(axis=1)
    true, on_map = -(units @ units.T), squares[:, None] + squares - 2 * (places @ places.T)
    for distances in (true, on_map):
        np.fill_diagonal(distances, np.inf)  # nobody is a neighbour of itself
    ranks = np.empty((n, n), dtype=np.int64)
    np.put_along_axis(ranks, np.argsort(true, axis=1), np.arange(1, n + 1)[None], axis=1)
    near = np.argpartition(on_map, k, axis=1)[:, :k]
    beyond = np.take_along_axis(ranks, near, axis=1) - k
    return float(1 - 2 / (n * k * (2 * n - 3 * k - 1)) * beyond[beyond > 0].sum())


def map_neighbours(point: np.ndarray, at: np.ndarray, on: VocabularyMap, vocabulary: Vocabulary) -> pd.DataFrame:
    """The words nearest to one vector in truth and on the map.

    Parameters
    ----------
    point : (d,), centred.
    at : (k,), its place on the map.

    Returns
    -------
    A row a word that is among the fifteen nearest by cosine or on the map: token_id, token, score (centred cosine), true_rank and map_rank (both
    from 0, among the words on the map), by true_rank.
    """
    cosines = word_cosines(point, vocabulary)[on.ids]
    true_rank = _ranks(-cosines)
    map_rank = _ranks(np.linalg.norm(on.places - at, axis=1))
    rows = np.flatnonzero((true_rank < NEIGHBOURS) | (map_rank < NEIGHBOURS))
    rows = rows[np.argsort(true_rank[rows])]
    return pd.DataFrame(
        {
            "token_id": on.ids[rows],
            "token": [vocabulary.tokens[i] for i in on.ids[rows]],
            "score": cosines[rows],
            "true_rank": true_rank[rows],
            "map_rank": map_rank[rows],
        },
        columns=NEIGHBOUR_COLUMNS,
    )


def landmarks(on: VocabularyMap, vocabulary: Vocabulary, count: int = 40) -> pd.DataFrame:
    """Words to write on a map so that a person knows where on it they are: frequent whole words, none near another.

    Returns
    -------
    token_id, token, and the place: x, y and, of a map of three dimensions, z.
    """
    words = on.ids[_told(on, vocabulary)][:LANDMARKS_FROM]  # ids run with frequency
    places = on.places[np.searchsorted(on.ids, words)]
    apart = np.linalg.norm(on.places.std(axis=0)) / 2
    chosen: list[int] = []
    while len(chosen) < count and apart > 1e-3:  # nearer together where the map has not as many places so far apart
        for i, at in enumerate(places):
            if len(chosen) < count and i not in chosen and (np.linalg.norm(places[chosen] - at, axis=1) > apart).all():
                chosen.append(i)
        apart *= 0.8
    table = pd.DataFrame({"token_id": words[chosen], "token": [vocabulary.tokens[i] for i in words[chosen]]})
    return table.join(pd.DataFrame(places[chosen], columns=list(AXES[: on.dimensions])))


def label_order(on: VocabularyMap, vocabulary: Vocabulary) -> np.ndarray:
    """Which words to write on a map first, where there is room for some: (m,) int64, rows of `on.ids`.

    Frequent whole words that begin no other token come first (see `landmarks`), then other whole words, then the rest; special tokens last.
    """
    whole = allowed_tokens(vocabulary, whole_words=True)[on.ids]
    return np.lexsort((on.ids, ~whole, ~_told(on, vocabulary), vocabulary.special[on.ids]))


def _told(on: VocabularyMap, vocabulary: Vocabulary) -> np.ndarray:
    """Which of a map's words a person knows by themselves, (m,) bool: fragments too count as whole words, such as " activ", but those begin other tokens."""
    beginnings = {token[:end] for token in vocabulary.tokens for end in range(LANDMARK_LETTERS + 1, len(token))}
    whole = allowed_tokens(vocabulary, whole_words=True)[on.ids]
    words = [vocabulary.tokens[i] for i in on.ids]
    return whole & np.array([len(word.strip()) >= LANDMARK_LETTERS and word not in beginnings for word in words])


def _shipped(vocabulary: Vocabulary, projection: Projection, dimensions: int) -> KeptArrays:
    """Where the map of this very vocabulary is in the package, if it ships."""
    return _in_folder(SHIPPED / vocabulary.digest[:24], vocabulary, projection, dimensions)


def _kept(vocabulary: Vocabulary, projection: Projection, dimensions: int) -> KeptArrays:
    return _in_folder(vocabulary.cache, vocabulary, projection, dimensions)


def _in_folder(folder: Path | None, vocabulary: Vocabulary, projection: Projection, dimensions: int) -> KeptArrays:
    shapes = {"ids": (None,), "places": (None, dimensions), "trustworthiness": (), "centre": (vocabulary.width,), "axes": (None, None)}
    return KeptArrays(folder, f"map-{projection}-{dimensions}d", _VERSION, shapes=shapes)


def _ranks(distances: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(distances), dtype=np.int64)
    ranks[np.argsort(distances, kind="stable")] = np.arange(len(distances))
    return ranks


def _membership(distances: np.ndarray) -> np.ndarray:
    """UMAP's weights of each row's neighbours, (n, k): exp(−(d − ρ)/σ), ρ the smallest, σ such that they add up to log2 k."""
    excess = distances - distances.min(axis=1, keepdims=True)
    low, high = np.full(len(distances), 1e-6), np.full(len(distances), 1e3)
    for _ in range(60):
        sigma = np.sqrt(low * high)
        too_many = np.exp(-excess / sigma[:, None]).sum(axis=1) > np.log2(distances.shape[1])
        high, low = np.where(too_many, sigma, high), np.where(too_many, low, sigma)
    return np.exp(-excess / np.sqrt(low * high)[:, None])


def _make(vocabulary: Vocabulary, projection: Projection, dimensions: int, report: Report) -> dict[str, np.ndarray]:
    """The arrays of a `VocabularyMap`, its trustworthiness as an array of one number."""
    from sklearn.decomposition import PCA

    report(0.0, f"finding the principal components of {vocabulary.model}'s words")
    rng = np.random.default_rng(SEED)
    sampled = len(vocabulary) > MOST_WORDS
    ids = np.sort(rng.choice(len(vocabulary), MOST_WORDS, replace=False)) if sampled else np.arange(len(vocabulary))
    units = unit_rows(vocabulary.embeddings[ids] - vocabulary.mean.astype(np.float32))
    pca = PCA(min(COMPONENTS, *units.shape), random_state=SEED)
    components = pca.fit_transform(units)
    places = components[:, :dimensions] if projection == "pca" else _umap(components, dimensions, report)
    report(0.95, "measuring how far the map can be trusted")
    some = rng.choice(len(ids), min(TRUSTED_SAMPLE, len(ids)), replace=False)
    return {
        "ids": ids,
        "places": np.ascontiguousarray(places, dtype=np.float32),
        "trustworthiness": np.array(trustworthiness(units[some], places[some])),
        "centre": pca.mean_.astype(np.float64),
        "axes": pca.components_[:dimensions].T.astype(np.float64),
    }


def _umap(components: np.ndarray, dimensions: int, report: Report) -> np.ndarray:
    import faiss
    import umap

    report(0.2, "finding each word's nearest words")
    units = np.ascontiguousarray(unit_rows(components), dtype=np.float32)
    index = faiss.IndexFlatIP(units.shape[1])
    index.add(units)
    cosines, neighbours = index.search(units, NEIGHBOURS)
    progress = {"disable": False, "file": _Percentage(report), "bar_format": "{percentage}", "mininterval": 0.3}
    with _tqdm_unlocked_on_error(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="precomputed_knn", module="umap")  # that no further points can be added by its own means
        fitted = umap.UMAP(
            n_components=dimensions,
            n_neighbors=NEIGHBOURS,
            metric="cosine",
            init="pca",
            random_state=SEED,
            n_jobs=1,  # what a seed allows
            precomputed_knn=(neighbours, np.clip(1.0 - cosines, 0.0, 2.0)),
            tqdm_kwds=progress,
        ).fit(units)
    return fitted.embedding_


@contextmanager
def _tqdm_unlocked_on_error() -> Iterator[None]:
    """Let go of tqdm's lock where the file that a bar writes to raised: `refresh` then keeps it, and no other bar would ever be drawn again."""
    from tqdm import tqdm

    try:
        yield
    except BaseException:
        with suppress(AssertionError, RuntimeError):  # raised elsewhere, so that this thread does not hold it
            tqdm.get_lock().release()
        raise


class _Percentage(io.StringIO):
    """Where umap's progress bar writes its percentages: they are passed on to whoever watches, who may stop the work by raising."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    def write(self, text: str) -> int:
        number = text.strip().rstrip("%")
        if number.replace(".", "", 1).isdigit():
            self._report(0.3 + 0.65 * float(number) / 100, "laying out the map")
        return len(text)
