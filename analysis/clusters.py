"""Semantic clusters of virtual tokens, within and across prompts, and how far they can be believed.

Every method finds clusters somewhere, and vectors drawn like the vocabulary's rows fall into two heaps, at the two ends of its strongest
direction, however often one asks. So each cluster is asked two questions: is it found again when tokens are left out, and is it
tighter than the clusters which the same method finds among random vectors? One that fails either is not called real.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from analysis.adapters import SoftPrompt
from analysis.errors import InputError
from analysis.models import Report, no_report
from analysis.neighbours import nearest, unit_rows
from analysis.null import Null, null_of, p_values
from analysis.readings import LEVEL, displacements
from analysis.vocabulary import Vocabulary

Method = Literal["hdbscan", "agglomerative", "kmeans"]
Space = Literal["position", "displacement"]
COLUMNS = ["cluster", "label", "size", "prompts", "tightness", "tightness_p", "stability", "shared_start"]
MEMBER_COLUMNS = ["prompt", "position", "cluster", "probability", "nearest_token"]

SMALLEST = 5  # tokens in a cluster of HDBSCAN
MOST_CLUSTERS = 20  # for the methods that are told a number
BOOTSTRAPS = 100
NULL_RUNS = 99
NULL_POINTS = 400  # of random vectors at most in each; the null's clusters hardly change beyond
STABLE = 0.6  # Hennig 2007: below it a cluster should not be trusted
NEIGHBOURS = 10
LABEL_WORDS = 3
ECHO = 0.5  # a cluster of which so many members started together tells of the start
MOST_POINTS = 10_000


@dataclass(frozen=True, eq=False)
class Clustering:
    """What was found.

    Attributes
    ----------
    clusters : one row a cluster, the largest first: cluster (from 0), label (the words most frequent among the members' neighbours and
        distinctive of this cluster), size, prompts (in how many its members are), tightness (mean cosine of the members' pairs),
        tightness_p (share of random sets in which the method finds a cluster as tight; both missing for a cluster of one token), stability (mean Jaccard of its best matches over
        bootstrap resamples), shared_start (share of the members that started from a word which another member started from too, of those whose initial values
        are known; missing where none are). See `is_real` and `is_echo`.
    members : one row a virtual token: prompt, position, cluster (-1 for none), probability (HDBSCAN's strength of membership, else
        missing), nearest_token (in the position space the nearest word; in the displacement space the one nearest to the drift's direction).
    agreement : rows of with (prompt, task), nmi (normalised mutual information of clusters with it, over the members) and n.
    points : (n, d) float64, the unit vectors that were clustered, in the order of `members`.
    """

    clusters: pd.DataFrame
    members: pd.DataFrame
    agreement: pd.DataFrame
    points: np.ndarray


def is_real(clusters: pd.DataFrame) -> pd.Series:
    """Which clusters are found again and are tighter than chance: stability of 0.6 or more and tightness_p under 0.05."""
    return (clusters["stability"] >= STABLE) & (clusters["tightness_p"] < LEVEL)


def is_echo(clusters: pd.DataFrame) -> pd.Series:
    """Which clusters tell how the prompts began: half of the members or more started from a word together with another member."""
    return clusters["shared_start"] >= ECHO


def find_clusters(
    prompts: Sequence[SoftPrompt],
    vocabulary: Vocabulary,
    *,
    method: Method = "hdbscan",
    space: Space = "position",
    tasks: Mapping[str, str] | None = None,
    seed: int = 0,
    report: Report = no_report,
) -> Clustering:
    """Cluster the virtual tokens of one or many prompts.

    Parameters
    ----------
    prompts : of different names, all as wide as the vocabulary.
    method : `hdbscan` (Campello et al. 2013; it leaves tokens out), `agglomerative` (average linkage) or `kmeans`, the latter two with the
        number of clusters of the best silhouette; all by the cosine of centred vectors.
    space : `position`, P − μ; or `displacement`, P − P⁰, what training added, free of the initialisation.
    tasks : the task of each prompt, by its name, as far as known.
    seed : of k-means and of the resamples.

    Raises
    ------
    InputError
        An unknown method or space, widths that differ, fewer than three tokens, or no initial values where displacements are asked for.
    """
    for value, known, what in ((method, get_args(Method), "method"), (space, get_args(Space), "space")):
        if value not in known:
            raise InputError(f"The {what} {value!r} is not known; choose one of {', '.join(known)}.")
    points = np.concatenate([points_of(prompt, vocabulary, space) for prompt in prompts]) if prompts else np.empty((0, vocabulary.width))
    n = len(points)
    if not 3 <= n <= MOST_POINTS:
        raise InputError(f"Clusters are looked for among 3 to {MOST_POINTS:,} virtual tokens, and these are {n:,}; give other prompts.")
    distances = _cosine_distances(points)
    labels, probabilities = _cluster(distances, points, method, seed, report=report)
    report(0.1, "looking for clusters")
    ids, scores = nearest(vocabulary.mean + points, vocabulary, top_k=NEIGHBOURS)
    found = labels.max(initial=-1) + 1
    tightness = np.array([_tightness(distances, labels == i) for i in range(found)])
    stability = _stability(distances, points, labels, method, seed, report)
    null = _null_tightness(null_of(vocabulary, report=report), vocabulary, n, found, method, seed, report) if found else np.empty((0, 0))
    owners = np.repeat(np.arange(len(prompts)), [len(prompt) for prompt in prompts])
    names = np.array([prompt.name for prompt in prompts])
    words = [vocabulary.tokens[i] for i in ids[:, 0]]
    clusters = pd.DataFrame(
        {
            "cluster": np.arange(found),
            "label": _labels(labels, found, ids, scores, vocabulary),
            "size": np.bincount(labels[labels >= 0], minlength=found),
            "prompts": [len(set(owners[labels == i])) for i in range(found)],
            "tightness": tightness,
            "tightness_p": _tightness_p(null, tightness),
            "stability": stability,
            "shared_start": _shared_start(labels, found, prompts, vocabulary),
        },
        columns=COLUMNS,
    )
    members = pd.DataFrame(
        {
            "prompt": names[owners],
            "position": np.concatenate([np.arange(len(prompt)) for prompt in prompts]),
            "cluster": labels,
            "probability": probabilities,
            "nearest_token": words,
        },
        columns=MEMBER_COLUMNS,
    )
    report(1.0, "ready")
    return Clustering(clusters, members, _agreement(members, tasks or {}), points)


def _shared_start(labels: np.ndarray, found: int, prompts: Sequence[SoftPrompt], vocabulary: Vocabulary) -> list[float]:
    starts = [
        np.full(len(prompt), -1) if prompt.initial is None else nearest(prompt.initial, vocabulary, top_k=1)[0][:, 0] for prompt in prompts
    ]
    word = np.concatenate(starts)
    shares = []
    for i in range(found):
        _, which, counts = np.unique(word[(labels == i) & (word >= 0)], return_inverse=True, return_counts=True)
        shares.append(float((counts[which] > 1).mean()) if len(which) else np.nan)
    return shares


def points_of(prompt: SoftPrompt, vocabulary: Vocabulary, space: Space) -> np.ndarray:
    """The unit vectors that are clustered, (n, d) float64: of P − μ, or of P − P⁰ in the displacement space.

    Raises
    ------
    InputError
        The widths differ, or displacements are asked for of a prompt whose initial values are unknown.
    """
    prompt.check_width(vocabulary.width, vocabulary.model)
    if space == "displacement" and prompt.initial is None:
        raise InputError(
            f"The initial values of {prompt.name} are unknown, so its displacements are too; cluster by position, or give them with --initial."
        )
    vectors = displacements(prompt) if space == "displacement" else prompt.embeddings.astype(np.float64) - vocabulary.mean
    return unit_rows(vectors)


def _cosine_distances(points: np.ndarray) -> np.ndarray:
    distances = np.clip(1.0 - points @ points.T, 0.0, 2.0)
    distances = (distances + distances.T) / 2
    np.fill_diagonal(distances, 0.0)
    return distances


# --- The methods -----------------------------------------------------------------------------------------------------


def _cluster(
    distances: np.ndarray, points: np.ndarray, method: Method, seed: int, *, smallest: int = SMALLEST, report: Report = no_report
) -> tuple[np.ndarray, np.ndarray]:
    """Labels from 0, the largest cluster first, -1 for no cluster; and the strength of each membership."""
    if method == "hdbscan":
        from sklearn.cluster import HDBSCAN

        size = min(smallest, len(distances) - 1)
        fitted = HDBSCAN(min_cluster_size=max(2, size), min_samples=size, metric="precomputed", copy=True).fit(distances)
        return _largest_first(fitted.labels_), fitted.probabilities_
    labels = _by_silhouette(distances, points, method, seed, report)
    return _largest_first(labels), np.full(len(labels), np.nan)


def _by_silhouette(distances: np.ndarray, points: np.ndarray, method: Method, seed: int, report: Report) -> np.ndarray:
    from sklearn.metrics import silhouette_score

    candidates = []
    for k in range(2, min(MOST_CLUSTERS, len(distances) - 1) + 1):
        report(0.1 * k / MOST_CLUSTERS, f"trying {k} clusters")
        candidates.append(_told_number(distances, points, method, k, seed, starts=4))
    usable = [labels for labels in candidates if 1 < len(np.unique(labels)) < len(labels)]
    if not usable:
        return np.zeros(len(distances), dtype=np.int64)
    return max(usable, key=lambda labels: silhouette_score(distances, labels, metric="precomputed"))


def _told_number(distances: np.ndarray, points: np.ndarray, method: Method, k: int, seed: int, *, starts: int = 1) -> np.ndarray:
    if method == "kmeans":
        from sklearn.cluster import KMeans

        return KMeans(k, n_init=starts, random_state=seed).fit_predict(points)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    return fcluster(linkage(squareform(distances, checks=False), method="average"), k, criterion="maxclust") - 1


def _largest_first(labels: np.ndarray) -> np.ndarray:
    sizes = np.bincount(labels[labels >= 0])
    order = np.argsort(-sizes, kind="stable")
    places = np.empty(len(order) + 1, dtype=np.int64)
    places[order] = np.arange(len(order))
    places[-1] = -1  # index -1 is no cluster
    return places[labels]


# --- Can it be believed? ---------------------------------------------------------------------------------------------


def _tightness(distances: np.ndarray, members: np.ndarray) -> float:
    """The mean cosine of the members' pairs."""
    m = int(members.sum())
    return float("nan") if m < 2 else float(1.0 - distances[np.ix_(members, members)].sum() / (m * (m - 1)))


def _stability(distances: np.ndarray, points: np.ndarray, labels: np.ndarray, method: Method, seed: int, report: Report) -> np.ndarray:
    """Mean Jaccard of each cluster with its best match over bootstrap resamples, on the tokens drawn (Hennig 2007, section 3).

    A token drawn twice counts once: copies of a point would be a cluster of their own. As five in eight are left, so is the smallest size.
    """
    found = labels.max(initial=-1) + 1
    total = np.zeros(found)
    rng = np.random.default_rng(seed)
    for run in range(BOOTSTRAPS if found else 0):
        report(0.1 + 0.6 * run / BOOTSTRAPS, f"is it found again? resample {run + 1} of {BOOTSTRAPS}")
        drawn = np.unique(rng.integers(0, len(labels), size=len(labels)))
        part = distances[np.ix_(drawn, drawn)]
        if method == "hdbscan":
            again, _ = _cluster(part, points[drawn], method, seed, smallest=round(SMALLEST * 0.632))
        else:
            again = _told_number(part, points[drawn], method, min(found, len(drawn)), seed)
        total += _best_jaccard(labels[drawn], again, found)
    return total / BOOTSTRAPS


def _best_jaccard(labels: np.ndarray, again: np.ndarray, found: int) -> np.ndarray:
    """For each cluster of `labels` the largest share of a cluster of `again` that they have in common."""
    others = again.max(initial=-1) + 1
    table = np.zeros((found + 1, others + 1))
    np.add.at(table, (labels, again), 1)  # the last row and column are of no cluster
    both = table[:found, :others]
    union = table[:found].sum(axis=1)[:, None] + table[:, :others].sum(axis=0)[None] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0).max(axis=1, initial=0.0)


def _null_tightness(null: Null, vocabulary: Vocabulary, n: int, found: int, method: Method, seed: int, report: Report) -> np.ndarray:
    """The tightness of the tightest cluster among as many random vectors, (2, runs): drawn from N(0, Σ), and uniform on the sphere.

    A set in which the method finds none has the tightness -1.
    """
    rng = np.random.default_rng(seed + 1)
    count = min(n, NULL_POINTS)
    pool = null.draws.astype(np.float64) - vocabulary.mean
    result = np.full((2, NULL_RUNS), -1.0)
    for run in range(NULL_RUNS):
        report(0.7 + 0.3 * run / NULL_RUNS, f"are random vectors as tight? set {run + 1} of {NULL_RUNS}")
        drawn = pool[rng.choice(len(pool), size=count, replace=False)]
        for kind, vectors in enumerate((drawn, rng.standard_normal((count, vocabulary.width)))):
            points = unit_rows(vectors)
            distances = _cosine_distances(points)
            if method == "hdbscan":
                labels, _ = _cluster(distances, points, method, seed)
            else:  # as many clusters as were found: looking for their number in each set would take minutes
                labels = _told_number(distances, points, method, min(found, count), seed)
            tightest = [_tightness(distances, labels == i) for i in range(labels.max(initial=-1) + 1)]
            result[kind, run] = np.nanmax([-1.0, *tightest])
    return result


def _tightness_p(null: np.ndarray, tightness: np.ndarray) -> np.ndarray:
    """The larger p-value of each cluster's tightness, against either kind of random vectors; nan for a cluster of one token, which has none."""
    if not len(tightness):
        return np.empty(0)
    p = np.max([p_values(np.sort(runs), tightness) for runs in null], axis=0)
    return np.where(np.isnan(tightness), np.nan, p)


# --- Words -----------------------------------------------------------------------------------------------------------


def _labels(labels: np.ndarray, found: int, ids: np.ndarray, scores: np.ndarray, vocabulary: Vocabulary) -> list[str]:
    """The words of each cluster by class-based TF-IDF (Grootendorst 2022, section 3.3), a neighbour counting as much as its score.

    Forms of a word that differ by the space before it or by capitals count together.
    """
    weights: dict[int, dict[str, float]] = {i: {} for i in range(-1, found)}
    for label, row, values in zip(labels, ids, np.clip(scores, 0.0, None), strict=True):
        for token_id, value in zip(row, values, strict=True):
            word = vocabulary.tokens[token_id].strip().lower() or vocabulary.tokens[token_id]
            weights[label][word] = weights[label].get(word, 0.0) + float(value)
    totals = {i: sum(words.values()) or 1.0 for i, words in weights.items()}
    everywhere: dict[str, float] = {}
    for words in weights.values():
        for word, weight in words.items():
            everywhere[word] = everywhere.get(word, 0.0) + weight
    average = sum(totals.values()) / len(totals)

    def importance(cluster: int, word: str) -> float:
        return weights[cluster][word] / totals[cluster] * np.log1p(average / everywhere[word]) if everywhere[word] else 0.0

    return [", ".join(sorted(weights[i], key=lambda word, i=i: (-importance(i, word), word))[:LABEL_WORDS]) for i in range(found)]


def _agreement(members: pd.DataFrame, tasks: Mapping[str, str]) -> pd.DataFrame:
    from sklearn.metrics import normalized_mutual_info_score

    inside = members[members["cluster"] >= 0]
    rows = []
    for what, groups in (("prompt", inside["prompt"]), ("task", inside["prompt"].map(dict(tasks)))):
        known = groups.notna()
        several = len(set(groups[known])) > 1
        nmi = normalized_mutual_info_score(groups[known], inside.loc[known, "cluster"]) if several else float("nan")
        rows.append((what, nmi, int(known.sum())))
    return pd.DataFrame(rows, columns=["with", "nmi", "n"])
