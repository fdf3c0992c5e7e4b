"""Semantic clusters of virtual tokens, within and across prompts, and how far they can be believed.

Every method finds clusters somewhere: words of one frequency lie together, and so do tokens that one training moved the same way, whatever was learned.
So each cluster is asked three questions. Is it found again when tokens are left out? Is it tighter than the clusters which the same method finds among
prompts of the same recipe, whose tokens have nothing more to do with one another (see `recipe`)? One that fails either is not called real. And did
its members lie together from the start? Then it is an echo of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.remedies import INITIAL
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.null import p_values
from soft_prompt_explorer.analysis.prompts.recipe import DIRECTIONS, Recipe, recipe_of
from soft_prompt_explorer.analysis.prompts.search import nearest, unit_rows
from soft_prompt_explorer.analysis.prompts.verdicts import LEVEL, displacements

Method = Literal["hdbscan", "agglomerative", "kmeans"]
Space = Literal["position", "displacement"]
COLUMNS = ["cluster", "label", "size", "prompts", "tightness", "tightness_p", "stability", "shared_start", "start_tightness", "echo"]
MEMBER_COLUMNS = ["prompt", "position", "cluster", "probability", "nearest_token"]

SMALLEST = 5  # tokens in a cluster of HDBSCAN
MOST_CLUSTERS = 20  # for the methods that are told a number
BOOTSTRAPS = 100
NULL_RUNS = 66  # sets of the same recipe for each kind of directions
NULL_POINTS = 400  # tokens at most in each; the null's clusters hardly change beyond
STABLE = 0.6  # Hennig 2007: below it a cluster should not be trusted
NEIGHBOURS = 10
LABEL_WORDS = 3
ECHO = 0.5  # a cluster of which so many members started together, or whose starts are so tight beside it, tells of the start
TOGETHER = 0.5  # the mean cosine from which on a whole set lies together: its tokens have more in common than not
NO_PARTS = 0.25  # a silhouette below it shows no structure (Kaufman and Rousseeuw 1990, chapter 2)
MOST_POINTS = 10_000

# On the embedded model, with known starts, 12 sets each: the planted rows of `python -m tests.benchmarks.clusters 12`.
POWER = (
    "Of 60 tokens, 20 that met at a cosine of 0.5 are found (by HDBSCAN) in 12 of 12 sets amid noise, in 9 amid draws from the words' covariance and in 8 amid "
    "words; 10 that met at 0.3 in 12, 2 and none: so where no cluster is told, there may be one."
)


@dataclass(frozen=True, eq=False)
class Clustering:
    """What was found.

    Attributes
    ----------
    clusters : one row a cluster, the largest first: cluster (from 0), label (the words most frequent among the members' neighbours and
        distinctive of this cluster), size, prompts (in how many its members are), tightness (mean cosine of the members' pairs),
        tightness_p (share of the sets of the same recipe in which the method finds a cluster as tight for its size; both missing for a cluster of one
        token), stability (mean Jaccard of its best matches over bootstrap resamples), shared_start (share of the members that started from a word which another
        member started from too, of those whose initial values are known; missing where none are), start_tightness (mean cosine of the same members'
        initial values: less μ among positions, less their own mean among displacements; missing with fewer than two), echo (whether they lay
        together from the start; missing where half of them or more have no known start, so that it may be one). See `is_real` and `is_echo`.
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
    """Which clusters are found again and are tighter than their recipe makes them: stability of 0.6 or more and tightness_p under 0.05."""
    return (clusters["stability"] >= STABLE) & (clusters["tightness_p"] < LEVEL)


def is_echo(clusters: pd.DataFrame) -> pd.Series:
    """Which clusters are known to tell how the prompts began: their members' starts are half as tight as they are, or tighter, or half of the members or
    more started from a word together with another member."""
    return clusters["echo"].fillna(False).astype(bool)


def may_be_echo(clusters: pd.DataFrame) -> pd.Series:
    """Of which clusters too few starts are known to tell."""
    return clusters["echo"].isna()


def find_clusters(
    prompts: Sequence[SoftPrompt],
    vocabulary: Vocabulary | None,
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
    vocabulary : None where it is not at hand: then positions are centred by their own mean, and labels, nearest words, tightness_p and shared_start are missing.
    method : `hdbscan` (Campello et al. 2013; it leaves tokens out), `agglomerative` (average linkage) or `kmeans`, the latter two with the
        number of clusters of the best silhouette; all by the cosine of centred vectors.
    space : `position`, P − μ; or `displacement`, P − P⁰, what training added.
    tasks : the task of each prompt, by its name, as far as known.
    seed : of k-means and of the resamples.

    Raises
    ------
    InputError
        An unknown method or space, no such seed, widths that differ, fewer than three tokens, or no initial values where displacements are asked for.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> vocabulary = spe.load_vocabulary("smollm2-135m")
    >>> found = spe.find_clusters([spe.load_adapter(spe.GALLERY / "plural-words-1")], vocabulary)
    >>> len(found.members)
    10
    """
    for value, known, what in ((method, get_args(Method), "method"), (space, get_args(Space), "space")):
        if value not in known:
            raise InputError(f"The {what} {value!r} is not known; choose one of {', '.join(known)}.")
    if not 0 <= seed < 2**32:
        raise InputError(f"A seed of clusters is a whole number from 0 to {2**32 - 1:,}, not {seed}.")
    centre = _centre(prompts, vocabulary)
    points = np.concatenate([_points(prompt, centre, space) for prompt in prompts]) if prompts else np.empty((0, len(centre)))
    n = len(points)
    if not 3 <= n <= MOST_POINTS:
        raise InputError(f"Clusters are looked for among 3 to {MOST_POINTS:,} virtual tokens, and these are {n:,}; give other prompts.")
    distances = _cosine_distances(points)
    labels, probabilities = _cluster(distances, points, method, seed, report=report)
    report(0.1, "looking for clusters")
    found = labels.max(initial=-1) + 1
    tightness = np.array([_tightness(distances, labels == i) for i in range(found)])
    stability = _stability(distances, points, labels, method, seed, report)
    has_start = np.repeat([prompt.initial is not None for prompt in prompts], [len(prompt) for prompt in prompts])
    if vocabulary is None:
        starts = np.concatenate([np.zeros((len(prompt), len(centre))) if prompt.initial is None else prompt.initial for prompt in prompts])
        words: Sequence[str | None] = [None] * n
        cluster_labels: Sequence[str | None] = [None] * found
        tightness_p, shared_start = np.full((2, found), np.nan)
    else:
        ids, scores = nearest(vocabulary.mean + points, vocabulary, top_k=NEIGHBOURS)
        recipe = recipe_of(prompts, vocabulary, report=report)
        starts, words = recipe.start, [vocabulary.tokens[i] for i in ids[:, 0]]
        cluster_labels = _labels(labels, found, ids, scores, vocabulary)
        tightness_p = _tightness_p(distances, labels, recipe, vocabulary, method, space, seed, report)
        shared_start = _shared_start(labels, found, np.where(has_start, recipe.ids, -1))
    start_tightness, enough = _start_tightness(labels, found, starts, has_start, centre, space)
    # What cannot be compared is no echo: a cluster of one token.
    echo = (shared_start >= ECHO) | (start_tightness >= ECHO * tightness)
    owners = np.repeat(np.arange(len(prompts)), [len(prompt) for prompt in prompts])
    names = np.array([prompt.name for prompt in prompts])
    clusters = pd.DataFrame(
        {
            "cluster": np.arange(found),
            "label": cluster_labels,
            "size": np.bincount(labels[labels >= 0], minlength=found),
            "prompts": [len(set(owners[labels == i])) for i in range(found)],
            "tightness": tightness,
            "tightness_p": tightness_p,
            "stability": stability,
            "shared_start": shared_start,
            "start_tightness": start_tightness,
            "echo": pd.array([bool(value) if told else None for value, told in zip(echo, enough, strict=True)], dtype="boolean"),
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


def _shared_start(labels: np.ndarray, found: int, word: np.ndarray) -> np.ndarray:
    shares = []
    for i in range(found):
        _, which, counts = np.unique(word[(labels == i) & (word >= 0)], return_inverse=True, return_counts=True)
        shares.append(float((counts[which] > 1).mean()) if len(which) else np.nan)
    return np.array(shares, dtype=np.float64)


def _start_tightness(
    labels: np.ndarray, found: int, starts: np.ndarray, known: np.ndarray, middle: np.ndarray, space: Space
) -> tuple[np.ndarray, np.ndarray]:
    """The tightness of each cluster's members in their initial values, and whether more than half of them, and two, have any.

    What all starts share, such as that random ones lie off the words' mean, is no reason for displacements to be alike.
    """
    centre = starts[known].mean(axis=0) if space == "displacement" else middle
    tightness, enough = np.full(found, np.nan), np.zeros(found, dtype=bool)
    for i in range(found):
        units = unit_rows(starts[(labels == i) & known] - centre)
        m = len(units)
        if m >= 2:
            tightness[i] = (np.square(units.sum(axis=0)).sum() - np.square(units).sum()) / (m * (m - 1))
            enough[i] = 2 * m > (labels == i).sum()
    return tightness, enough


def points_of(prompt: SoftPrompt, vocabulary: Vocabulary, space: Space) -> np.ndarray:
    """The unit vectors that are clustered, (n, d) float64: of P − μ, or of P − P⁰ in the displacement space.

    Raises
    ------
    InputError
        The widths differ, or displacements are asked for of a prompt whose initial values are unknown.
    """
    prompt.check_width(vocabulary.width, vocabulary.model)
    return _points(prompt, vocabulary.mean, space)


def _centre(prompts: Sequence[SoftPrompt], vocabulary: Vocabulary | None) -> np.ndarray:
    """What positions are centred by, (d,) float64: the words' mean, or without a vocabulary the virtual tokens' own. The widths are checked."""
    if vocabulary is not None:
        for prompt in prompts:
            prompt.check_width(vocabulary.width, vocabulary.model)
        return vocabulary.mean
    for prompt in prompts:
        prompt.check_width(prompts[0].width, prompts[0].name)
    return np.concatenate([prompt.embeddings for prompt in prompts]).mean(axis=0, dtype=np.float64) if prompts else np.empty(0)


def _points(prompt: SoftPrompt, centre: np.ndarray, space: Space) -> np.ndarray:
    if space == "displacement" and prompt.initial is None:
        raise InputError(
            f"The initial values of {prompt.name} are unknown, so its displacements are too; cluster by position, or give them",
            remedy=INITIAL,
        )
    return unit_rows(displacements(prompt) if space == "displacement" else prompt.embeddings.astype(np.float64) - centre)


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

        if len(distances) < 2:  # of three tokens, a resample may hold one
            return np.full(len(distances), -1), np.zeros(len(distances))
        size = min(smallest, len(distances) - 1)
        fitted = HDBSCAN(min_cluster_size=max(2, size), min_samples=size, metric="precomputed", copy=True).fit(distances)
        if fitted.labels_.max() < 0:
            return _lone(distances, max(2, size))
        return _largest_first(fitted.labels_), fitted.probabilities_
    labels = _by_silhouette(distances, points, method, seed, report)
    return _largest_first(labels), np.full(len(labels), np.nan)


def _lone(distances: np.ndarray, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """The one dense place of a set that falls into no two, which HDBSCAN never answers: labels of 0 and -1, and each member's density over the densest's.

    Of HDBSCAN's hierarchy (single linkage of mutual reachability: Campello et al. 2013, section 3) the level below the widest gap, the gap up to
    unrelated tokens, of distance 1, being the last. That last level is the whole set, which counts only where it lies together.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    core = np.partition(distances, smallest - 1, axis=1)[:, smallest - 1]
    reach = np.maximum(distances, np.maximum(core[:, None], core[None]))
    np.fill_diagonal(reach, 0.0)
    tree = linkage(squareform(reach, checks=False), method="single")
    gaps = np.diff(tree[:, 2], append=max(1.0, tree[-1, 2]))
    usable = tree[:, 3] >= smallest
    usable[-1] &= _tightness(distances, np.ones(len(distances), dtype=bool)) >= TOGETHER
    if not usable.any():
        return np.full(len(distances), -1), np.zeros(len(distances))
    groups = fcluster(tree, tree[np.argmax(np.where(usable, gaps, -1.0)), 2], criterion="distance")
    member = groups == np.bincount(groups).argmax()
    density = np.divide(core[member].min(), core, out=np.ones_like(core), where=core > 0)
    return np.where(member, 0, -1), np.where(member, density, 0.0)


def _by_silhouette(distances: np.ndarray, points: np.ndarray, method: Method, seed: int, report: Report) -> np.ndarray:
    from sklearn.metrics import silhouette_score

    candidates = []
    for k in range(2, min(MOST_CLUSTERS, len(distances) - 1) + 1):
        report(0.1 * k / MOST_CLUSTERS, f"trying {k} clusters")
        candidates.append(_told_number(distances, points, method, k, seed, starts=4))
    usable = [labels for labels in candidates if 1 < len(np.unique(labels)) < len(labels)]
    whole = np.zeros(len(distances), dtype=np.int64)
    if not usable:
        return whole
    scores = [silhouette_score(distances, labels, metric="precomputed") for labels in usable]
    if max(scores) < NO_PARTS and _tightness(distances, whole == 0) >= TOGETHER:
        return whole
    return usable[int(np.argmax(scores))]


def _told_number(distances: np.ndarray, points: np.ndarray, method: Method, k: int, seed: int, *, starts: int = 1) -> np.ndarray:
    if method == "kmeans":
        from sklearn.cluster import KMeans

        return KMeans(k, n_init=starts, random_state=seed).fit_predict(points)
    from scipy.cluster.hierarchy import fcluster

    return fcluster(_average_linkage(distances), k, criterion="maxclust") - 1


def _average_linkage(distances: np.ndarray) -> np.ndarray:
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    return linkage(squareform(distances, checks=False), method="average")


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
    if m < 2:
        return float("nan")
    among = distances if members.all() else distances[np.ix_(members, members)]
    return float(1.0 - among.sum() / (m * (m - 1)))


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


def _tightness_p(
    distances: np.ndarray,
    labels: np.ndarray,
    recipe: Recipe,
    vocabulary: Vocabulary,
    method: Method,
    space: Space,
    seed: int,
    report: Report,
) -> np.ndarray:
    """The largest p-value of each cluster's tightness for its size, against the best in sets of the same recipe with either kind of directions.

    A cluster of all tokens is compared with the whole sets. One of a single token has none.
    """
    found = labels.max(initial=-1) + 1
    if not found:
        return np.empty(0)
    rng = np.random.default_rng(seed + 1)
    best, whole = np.empty((2, len(DIRECTIONS), NULL_RUNS))
    for run in range(NULL_RUNS):
        report(0.7 + 0.3 * run / NULL_RUNS, f"is the same recipe as tight? set {run + 1} of {NULL_RUNS}")
        for kind, directions in enumerate(DIRECTIONS):
            part = recipe[rng.choice(len(recipe), size=NULL_POINTS, replace=False)] if len(recipe) > NULL_POINTS else recipe
            vectors = part.moves(rng, directions) if space == "displacement" else part.rows(rng, directions) - vocabulary.mean
            points = unit_rows(vectors)
            among = _cosine_distances(points)
            best[kind, run] = np.nanmax([-np.inf, *_for_its_size(among, _of_chance(among, points, method, found, seed))])
            whole[kind, run] = _tightness(among, np.ones(len(points), dtype=bool))
    values = _for_its_size(distances, _members(labels))
    p = np.max([p_values(np.sort(runs), values) for runs in best], axis=0)
    if (labels == 0).all():
        p = np.max([p_values(np.sort(runs), np.array([_tightness(distances, labels == 0)])) for runs in whole], axis=0)
    return np.where(np.isnan(values), np.nan, p)


def _of_chance(distances: np.ndarray, points: np.ndarray, method: Method, found: int, seed: int) -> list[np.ndarray]:
    """The clusters that a method finds in a set of the recipe, each as (n,) bool.

    Where a method is told a number, that number was chosen among many, so the set may choose as well: all clusters that average linkage makes with any number, and
    of k-means, which would take minutes for all, those of the number found.
    """
    if method == "hdbscan":
        return _members(_cluster(distances, points, method, seed)[0])
    clusters = [np.arange(len(distances)) == i for i in range(len(distances))]
    tree = _average_linkage(distances)
    for one, other, *_ in tree:
        clusters.append(clusters[int(one)] | clusters[int(other)])
    cut = [clusters[int(child)] for merge in tree[-(min(MOST_CLUSTERS, len(distances) - 1) - 1) :] for child in merge[:2]]
    if method == "kmeans":
        cut += _members(_told_number(distances, points, method, min(found, len(points)), seed))
    return cut


def _members(labels: np.ndarray) -> list[np.ndarray]:
    return [labels == i for i in range(labels.max(initial=-1) + 1)]


def _for_its_size(distances: np.ndarray, clusters: list[np.ndarray]) -> np.ndarray:
    """How much tighter each cluster of m tokens is than the whole set, times (m − 1)^¼: many tokens are less often as tight as few by chance alone."""
    everything = _tightness(distances, np.ones(len(distances), dtype=bool))
    return np.array([(_tightness(distances, members) - everything) * (members.sum() - 1) ** 0.25 for members in clusters])


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
    totals = {i: sum(words.values()) for i, words in weights.items()}
    everywhere: dict[str, float] = {}
    for words in weights.values():
        for word, weight in words.items():
            everywhere[word] = everywhere.get(word, 0.0) + weight
    weighty = [total for total in totals.values() if total]
    average = sum(weighty) / max(1, len(weighty))

    def rank(cluster: int, word: str) -> tuple[float, str]:
        weight = weights[cluster][word]
        importance = weight / totals[cluster] * np.log1p(average / everywhere[word]) if weight else 0.0
        return -importance, word

    return [", ".join(sorted(weights[i], key=partial(rank, i))[:LABEL_WORDS]) for i in range(found)]


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
