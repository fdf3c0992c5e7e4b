"""The tests of the first version, kept so that everybody sees why they were replaced: they find words in what knows none."""

import numpy as np

from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.null import null_of, p_values
from soft_prompt_explorer.analysis.prompts.search import nearest, unit_rows
from tests.support.nulls import LEVEL


def old_words_p(direction: np.ndarray, ids: np.ndarray, vocabulary: Vocabulary, draws: int = 1_000) -> float:
    """The test of the first version: the median rank of the words against medians of words drawn one by one from the same tenths of the ids."""
    scores = (vocabulary.embeddings.astype(np.float64) - vocabulary.mean) @ direction / np.maximum(vocabulary.centred_norms, 1e-12)
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    edges = np.linspace(0, len(ranks), 11).astype(np.int64)
    deciles = np.searchsorted(edges, ids, side="right") - 1
    rng = np.random.default_rng(0)
    drawn = np.stack([rng.integers(edges[decile], edges[decile + 1], size=draws) for decile in deciles], axis=1)
    return (1 + int((np.median(ranks[drawn], axis=1) <= np.median(ranks[ids])).sum())) / (1 + draws)


def old_verdicts(now: np.ndarray, begin: np.ndarray | None, vocabulary: Vocabulary) -> np.ndarray:
    """What the first version took for learned: nearer to a word than N(μ, Σ) and not to its start; or a drift nearer to one than N(0, Σ)."""
    null = null_of(vocabulary)
    ids, scores = nearest(now, vocabulary, top_k=1)
    near = null.p_drawn(scores[:, 0]) <= LEVEL
    if begin is None:
        return near
    started, _ = nearest(begin, vocabulary, top_k=1)
    _, along = nearest(vocabulary.mean + unit_rows(now - begin), vocabulary, top_k=1)
    return (near & (ids[:, 0] != started[:, 0])) | (np.maximum(null.p_drawn(along[:, 0]), p_values(null.uniform, along[:, 0])) <= LEVEL)
