"""Sets of virtual tokens in which there is nothing, and sets in which something was planted, and what is told of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts import clusters
from soft_prompt_explorer.analysis.prompts.clusters import Method, Space, points_of
from soft_prompt_explorer.analysis.prompts.null import normal_draws, null_of, p_values
from soft_prompt_explorer.analysis.prompts.search import allowed_tokens, unit_rows

LEVEL = 0.05


# --- Sets in which there is nothing -------------------------------------------------------------------------------------


def frequent(vocabulary: Vocabulary) -> np.ndarray:
    """The ids that `train --init sample-vocab` draws from; of a vocabulary without whole words the first eighth."""
    try:
        return np.flatnonzero(allowed_tokens(vocabulary, exclude_special=True, whole_words=True)[:5_000])
    except InputError:
        return np.arange(len(vocabulary) // 8)


def word_rows(vocabulary: Vocabulary, rng: np.random.Generator, n: int) -> np.ndarray:
    return vocabulary.embeddings[rng.choice(frequent(vocabulary), n, replace=False)].astype(np.float64)


def random_rows(vocabulary: Vocabulary, rng: np.random.Generator, n: int) -> np.ndarray:
    return np.sqrt(np.mean(vocabulary.norms**2) / vocabulary.width) * rng.standard_normal((n, vocabulary.width))


def leading(vocabulary: Vocabulary, which: int) -> np.ndarray:
    """μ (0) or a leading component of the vocabulary's covariance (from 1), of length one."""
    if which == 0:
        return vocabulary.mean / (np.linalg.norm(vocabulary.mean) or 1.0)
    draws = null_of(vocabulary).draws - vocabulary.mean
    return np.linalg.svd(draws, full_matrices=False)[2][which - 1]


def prompts_of(kind: str, vocabulary: Vocabulary, rng: np.random.Generator, *, known: bool, count: int | None = None) -> list[SoftPrompt]:
    """3 to 30 prompts of 10 to 20 tokens that have nothing to say, by the name of what they are instead: one of `KINDS`."""
    count = int(rng.integers(3, 31)) if count is None else count
    what, _, start = kind.partition(", ")
    usual = float(np.median(vocabulary.norms))
    prompts: list[SoftPrompt] = []
    for i in range(count):
        n = int(rng.integers(10, 21))
        rows_of = {"random": random_rows, "words": word_rows}[str(rng.choice(["words", "random"])) if start == "both" else start or "words"]
        initial = rows_of(vocabulary, rng, n)
        if what == "noise":
            initial = vocabulary.mean + usual * unit_rows(rng.standard_normal((n, vocabulary.width)))
        elif what == "normal":
            initial = normal_draws(vocabulary, n, int(rng.integers(1 << 30)))
        elif what == "special":
            control = np.flatnonzero(vocabulary.special)
            initial = vocabulary.embeddings[rng.choice(control if len(control) else np.arange(len(vocabulary))[-17:], n)].astype(np.float64)
        elif what == "copies" and i % 3:
            initial = prompts[-1].embeddings.astype(np.float64)
        rows = initial
        if what.startswith("drift"):
            sign = rng.choice([-1, 1]) if what != "drift 0" else 1
            rows = initial + rng.uniform(0.3, 3) * usual * sign * leading(vocabulary, int(what[-1]))
        elif what == "growth":
            rows = 3 * initial
        elif what == "trained":  # a way that the whole prompt goes, and each token's own
            n = len(initial)
            rows = initial + usual * (
                0.4 * unit_rows(rng.standard_normal(vocabulary.width)) + 0.9 * unit_rows(rng.standard_normal(initial.shape))
            )
        rows = rows + 0.01 * usual * unit_rows(rng.standard_normal(rows.shape))  # so that something moved
        prompts.append(SoftPrompt(f"p{i}", rows.astype(np.float32), initial.astype(np.float32) if known else None, None, None, None))
    return prompts


KINDS = [
    *("untrained, words", "untrained, random", "untrained, both", "noise", "normal"),
    *("drift 0, words", "drift 1, words", "drift 2, words", "drift 0, random", "drift 1, random"),
    *("growth, words", "growth, random", "trained, both", "copies, words", "special"),
]


# --- Clusters ---------------------------------------------------------------------------------------------------------


def believed(prompts: Sequence[SoftPrompt], vocabulary: Vocabulary, method: Method, space: Space, *, seed: int = 0) -> tuple[bool, bool]:
    """Whether any cluster is real, and whether any is real and not known or suspected to be an echo."""
    found = clusters.find_clusters(prompts, vocabulary, method=method, space=space, seed=seed).clusters
    real = clusters.is_real(found)
    return bool(real.any()), bool((real & ~clusters.is_echo(found) & ~clusters.may_be_echo(found)).any())


def planted(base: str, size: int, cosine: float, vocabulary: Vocabulary, rng: np.random.Generator, *, n: int = 60) -> SoftPrompt:
    """One prompt of n tokens, of which the first ones met: their cosine with each other is as given. The others are where they started.

    The starts are noise about μ, draws from N(μ, Σ) or words.
    """
    if base == "noise":
        away = np.median(vocabulary.centred_norms) * unit_rows(rng.standard_normal((n, vocabulary.width)))
    elif base == "normal":
        away = normal_draws(vocabulary, n, int(rng.integers(1 << 30))) - vocabulary.mean
    else:
        away = word_rows(vocabulary, rng, n) - vocabulary.mean
    met = away.copy()
    lengths = np.linalg.norm(away[:size], axis=1, keepdims=True)
    centre = unit_rows(rng.standard_normal((1, vocabulary.width)))
    met[:size] = lengths * (np.sqrt(cosine) * centre + np.sqrt(1 - cosine) * unit_rows(away[:size]))
    rows, initial = ((vocabulary.mean + vectors).astype(np.float32) for vectors in (met, away))
    return SoftPrompt("planted", rows, initial, None, None, None)


def is_found(labels: np.ndarray, told: np.ndarray, size: int) -> bool:
    """Whether one of the clusters that are told has six tenths or more of its union with the first `size` tokens in common with them."""
    true = np.arange(len(labels)) < size
    return any((true & (labels == i)).sum() >= 0.6 * (true | (labels == i)).sum() for i in told)


def found_now(prompt: SoftPrompt, vocabulary: Vocabulary, size: int, method: Method = "hdbscan") -> bool:
    found = clusters.find_clusters([prompt], vocabulary, method=method)
    told = clusters.is_real(found.clusters) & ~clusters.is_echo(found.clusters)
    return is_found(found.members["cluster"].to_numpy(), np.flatnonzero(told), size)


def was_found(prompt: SoftPrompt, vocabulary: Vocabulary, size: int) -> bool:
    """The same by the test as it was: HDBSCAN alone, the tightest cluster of 99 sets drawn from N(0, Σ) and of 99 uniform ones."""
    from sklearn.cluster import HDBSCAN

    def cluster(points: np.ndarray, smallest: int = clusters.SMALLEST) -> np.ndarray:
        return (
            HDBSCAN(min_cluster_size=smallest, min_samples=smallest, metric="precomputed", copy=True)
            .fit(clusters._cosine_distances(points))
            .labels_
        )

    def tightness(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
        distances = clusters._cosine_distances(points)
        return np.array([clusters._tightness(distances, labels == i) for i in range(labels.max(initial=-1) + 1)])

    points = points_of(prompt, vocabulary, "position")
    labels, rng = cluster(points), np.random.default_rng(1)
    values = tightness(points, labels)
    if not len(values):
        return False
    jaccard = np.zeros(len(values))
    for _ in range(clusters.BOOTSTRAPS):
        drawn = np.unique(rng.integers(0, len(labels), size=len(labels)))
        jaccard += clusters._best_jaccard(labels[drawn], cluster(points[drawn], 3), len(values)) / clusters.BOOTSTRAPS
    pool = null_of(vocabulary).draws.astype(np.float64) - vocabulary.mean
    p = np.zeros(len(values))
    for uniform in (False, True):
        best = []
        for _ in range(99):
            vectors = rng.standard_normal(points.shape) if uniform else pool[rng.choice(len(pool), len(points), replace=False)]
            best.append(max([-1.0, *tightness(unit_rows(vectors), cluster(unit_rows(vectors)))]))
        p = np.maximum(p, p_values(np.sort(best), values))
    return is_found(labels, np.flatnonzero((p < LEVEL) & (jaccard >= clusters.STABLE)), size)


# --- Likeness ---------------------------------------------------------------------------------------------------------


def alike_pair(what: str, strength: float, vocabulary: Vocabulary, rng: np.random.Generator, *, start: str = "words") -> list[SoftPrompt]:
    """Two prompts of ten tokens from starts of their own, each token of which moved as far as a word is long, in a direction of its own; and beside that

    `tokens`: so many of the ten met: they went the same way, both to one place each.
    `direction`: all twenty tokens moved one way together, by so much of a word's length.
    """
    usual = float(np.median(vocabulary.norms))
    rows_of = word_rows if start == "words" else random_rows
    places = word_rows(vocabulary, rng, 10)
    together = strength * usual * unit_rows(rng.standard_normal(vocabulary.width)) if what == "direction" else np.zeros(vocabulary.width)
    prompts = []
    for name in ("one", "other"):
        initial = rows_of(vocabulary, rng, 10)
        rows = initial + together + 0.9 * usual * unit_rows(rng.standard_normal(initial.shape))
        if what == "tokens":
            met = int(strength)
            rows[:met] = places[:met] + 0.5 * usual * unit_rows(rng.standard_normal((met, vocabulary.width)))
        prompts.append(SoftPrompt(name, rows.astype(np.float32), initial.astype(np.float32), None, None, None))
    return prompts
