"""The ten exact neighbours of 100 vectors: `analysis.prompts.search.nearest` beside brute force in scikit-learn, faiss and torch.

Both vocabularies are measured: the embedded model's, and a random one of 262,144 × 640 with a common mean as real ones have. The
vectors are rows of the vocabulary plus noise of half their norm.

Ours starts from the vocabulary as it is: centring, weighting and the second scoring in float64 are inside its time. The others are
handed the rows and the vectors centred, normalised and in float32, ready made, in their favour; scikit-learn and IndexFlatIP have
their own preparation (fit, add) inside their time, as a search in a vocabulary just opened has. All use the threads that they
choose by themselves.

The extra memory is the peak of a process that makes this one call, above what it held before the call, with the rows it needs
in memory. Each contestant has a process of its own, after a small search that loads its library.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from soft_prompt_explorer.analysis.models.vocabulary import ROWS_AT_A_TIME, Vocabulary, load_vocabulary
from soft_prompt_explorer.analysis.prompts.search import nearest
from tests.benchmarks.measure import median_and_range, ratio, take_turns, text_table
from tests.support.memory import memory_now, peak_memory

VECTORS, TOP_K = 100, 10
RANDOM_SHAPE = (262_144, 640)
ROUNDS = {"embedded": 11, "random": 5}
TIE = 1e-6  # cosines that are closer are beyond float32
OURS = "ours"


@dataclass(frozen=True, eq=False)
class Search:
    """Find `vectors` in `vocabulary`; `units` and `queries` are both as the others get them, centred and of norm 1, float32."""

    vocabulary: Vocabulary
    vectors: np.ndarray
    units: np.ndarray
    queries: np.ndarray


def tables() -> Iterator[str]:
    """One table a vocabulary."""
    vocabulary = load_vocabulary("smollm2-135m")
    yield _table(_search(replace(vocabulary, embeddings=np.array(vocabulary.embeddings))), "embedded")
    yield _table(_search(_random_vocabulary()), "random")


# --- The contestants: each gives the ids, (n, TOP_K) -------------------------------------------------------------------


def ours(search: Search) -> np.ndarray:
    return nearest(search.vectors, search.vocabulary, top_k=TOP_K)[0]


def scikit_learn(search: Search) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=TOP_K, algorithm="brute", metric="cosine").fit(search.units)
    return index.kneighbors(search.queries, return_distance=False)


def faiss_knn(search: Search) -> np.ndarray:
    import faiss

    return faiss.knn(search.queries, search.units, TOP_K, metric=faiss.METRIC_INNER_PRODUCT)[1]


def faiss_index(search: Search) -> np.ndarray:
    import faiss

    index = faiss.IndexFlatIP(search.units.shape[1])
    index.add(search.units)
    return index.search(search.queries, TOP_K)[1]


def torch_topk(search: Search) -> np.ndarray:
    import torch

    return (torch.from_numpy(search.queries) @ torch.from_numpy(search.units).T).topk(TOP_K, dim=1).indices.numpy()


CONTESTANTS = {
    OURS: ours,
    "scikit-learn brute": scikit_learn,
    "faiss.knn": faiss_knn,
    "faiss IndexFlatIP, build + search": faiss_index,
    "torch matmul + topk": torch_topk,
}


# --- The measurements --------------------------------------------------------------------------------------------------


def _table(search: Search, name: str) -> str:
    title = f"exact neighbours, top {TOP_K} of {VECTORS} vectors in {len(search.vocabulary):,} × {search.vocabulary.width} ({name})"
    found: dict[str, np.ndarray] = {}
    calls = {who: partial(_find, who, search, found) for who in CONTESTANTS}
    seconds = take_turns(calls, rounds=ROUNDS[name], subject=f"neighbours, {name}")
    extra = _extra_memory(search, name)
    same = _agreement(search, found)
    rows = [
        [who, *median_and_range(seconds[who]), ratio(seconds, who, OURS), f"{extra[who] / 2**20:,.0f} MiB", same[who]]
        for who in CONTESTANTS
    ]
    columns = ["", "median", "range", "against ours", "extra memory", "same ids as ours"]
    note = "The others get centred, normalised float32 rows and vectors ready made. Expected: above 1 × all but torch, about 1 × torch."
    return text_table(title, columns, rows, f"{ROUNDS[name]} rounds. {note}")


def _find(who: str, search: Search, found: dict[str, np.ndarray]) -> None:
    found[who] = CONTESTANTS[who](search)


def _agreement(search: Search, found: dict[str, np.ndarray]) -> dict[str, str]:
    """How many ids are those that ours gives at the same rank; the others have to be ties, or the run ends here."""
    expected, scores = nearest(search.vectors, search.vocabulary, top_k=TOP_K)
    centred = search.vectors.astype(np.float64) - search.vocabulary.mean
    for who, ids in found.items():
        for row, rank in np.argwhere(ids != expected):
            other = search.vocabulary.embeddings[ids[row, rank]].astype(np.float64) - search.vocabulary.mean
            cosine = other @ centred[row] / np.linalg.norm(other) / np.linalg.norm(centred[row])
            if abs(cosine - scores[row, rank]) > TIE:
                raise RuntimeError(f"{who}: vector {row}, rank {rank} is id {ids[row, rank]} at {cosine}, ours at {scores[row, rank]}.")
    return {who: f"{(ids == expected).sum():,} of {ids.size:,}" for who, ids in found.items()}


def _extra_memory(search: Search, name: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "embeddings.npy"), search.vocabulary.embeddings)
        np.save(Path(folder, "units.npy"), search.units)
        bare = replace(search, vocabulary=replace(search.vocabulary, embeddings=None), units=None)
        extra = {}
        for who in tqdm(CONTESTANTS, desc=f"memory, {name}"):
            with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as fresh_process:
                extra[who] = fresh_process.submit(_extra_memory_here, who, folder, bare).result()
    return extra


def _extra_memory_here(who: str, folder: str, bare: Search) -> int:
    if who == OURS:
        search = replace(bare, vocabulary=replace(bare.vocabulary, embeddings=np.load(Path(folder, "embeddings.npy"))))
    else:
        search = replace(bare, units=np.load(Path(folder, "units.npy")))
    CONTESTANTS[who](_search(_random_vocabulary((1000, bare.vectors.shape[1]))))
    before = memory_now()
    CONTESTANTS[who](search)
    return max(peak_memory() - before, 0)


# --- The data ----------------------------------------------------------------------------------------------------------


def _random_vocabulary(shape: tuple[int, int] = RANDOM_SHAPE) -> Vocabulary:
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal(shape, dtype=np.float32)
    embeddings += rng.standard_normal(shape[1], dtype=np.float32)
    return Vocabulary.from_embeddings([""] * len(embeddings), embeddings)


def _search(vocabulary: Vocabulary) -> Search:
    rng = np.random.default_rng(1)
    rows = vocabulary.embeddings[rng.choice(len(vocabulary), size=VECTORS, replace=False)]
    noise = rng.standard_normal(rows.shape)
    noise *= 0.5 * np.linalg.norm(rows, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    vectors = (rows + noise).astype(np.float32)
    return Search(vocabulary, vectors, _centred_units(vocabulary.embeddings, vocabulary.mean), _centred_units(vectors, vocabulary.mean))


def _centred_units(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    units = np.empty(rows.shape, dtype=np.float32)
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        centred = rows[start : start + ROWS_AT_A_TIME] - mean
        units[start : start + len(centred)] = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return units
