"""Draws that know nothing of any word, of the kinds that a test is built on and of harder ones, and sets of words that resemble one another."""

import numpy as np

from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.words import word_ids
from soft_prompt_explorer.analysis.prompts.null import covariance
from soft_prompt_explorer.analysis.prompts.search import nearest, unit_rows

DRAWS = 1_000
MOST = 0.07
LEVEL = 0.05


class Draws:
    """Directions that know nothing of any word, `DRAWS` of each kind, of length 1."""

    def __init__(self, vocabulary: Vocabulary, seed: int = 31) -> None:
        self.vocabulary, self.rng = vocabulary, np.random.default_rng(seed)
        self.values, self.vectors = np.linalg.eigh(covariance(vocabulary))
        self.values, self.vectors = np.maximum(self.values[::-1], 0), self.vectors[:, ::-1]

    def uniform(self, count: int = DRAWS) -> np.ndarray:
        return unit_rows(self.rng.standard_normal((count, self.vocabulary.width)))

    def like_words(self, count: int = DRAWS, power: float = 0.5) -> np.ndarray:
        """N(0, Σ), or of another power of Σ."""
        return unit_rows((self.rng.standard_normal((count, self.vocabulary.width)) * self.values**power) @ self.vectors.T)

    def leading(self, number: int) -> np.ndarray:
        """Up and down the k-th principal direction, with noise of a third."""
        sign = self.rng.choice([-1.0, 1.0], (DRAWS, 1))
        return unit_rows(sign * self.vectors[:, number] + 0.3 * self.uniform())

    def mean(self) -> np.ndarray:
        sign = self.rng.choice([-1.0, 1.0], (DRAWS, 1))
        return unit_rows(sign * unit_rows(self.vocabulary.mean) + 0.3 * self.uniform())

    def leading_mixed(self) -> np.ndarray:
        return unit_rows(unit_rows(self.rng.standard_normal((DRAWS, 6))) @ self.vectors[:, :6].T + 0.3 * self.uniform())

    def rows_apart(self, count: int = DRAWS) -> np.ndarray:
        """From one word to another, of no task."""
        ids = self.rng.integers(0, len(self.vocabulary), (count, 2))
        return unit_rows(self.vocabulary.embeddings[ids[:, 0]].astype(np.float64) - self.vocabulary.embeddings[ids[:, 1]])

    def prompts_to_frequent_words(self) -> np.ndarray:
        """What ten tokens share that went from any word to a frequent one."""
        ends = self.rng.integers(0, len(self.vocabulary) // 10, 10 * DRAWS)
        starts = self.rng.integers(0, len(self.vocabulary), 10 * DRAWS)
        rows = self.vocabulary.embeddings
        return unit_rows(rows[ends].astype(np.float64) - rows[starts]).reshape(DRAWS, 10, -1).mean(axis=1)


# Nulls of a direction. The first two are what the tests compare with; the tests were built without the others.
DIRECTIONS = {
    "uniform": lambda draws: draws.uniform(),
    "N(0, Σ)": lambda draws: draws.like_words(),
    "N(0, Σ²)": lambda draws: draws.like_words(power=1.0),
    "along the mean": lambda draws: draws.mean(),
    "along the first principal direction": lambda draws: draws.leading(0),
    "along the second": lambda draws: draws.leading(1),
    "along the leading six": lambda draws: draws.leading_mixed(),
    "from word to word": lambda draws: draws.rows_apart(),
    "from words to frequent words": lambda draws: draws.prompts_to_frequent_words(),
}


def word_sets(vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """Sets of words that resemble one another, as those of a task do: for the embedded vocabulary the tasks' own, else the neighbours of a word."""
    if vocabulary.model == "smollm2-135m":
        from soft_prompt_explorer.analysis.tasks.shipped import TASKS

        return {name: word_ids(vocabulary, task.answer_words()[:1_000]) for name, task in TASKS.items() if task.scored_by != "rouge"}
    ids, _ = nearest(vocabulary.embeddings[[100, 500, 3_000]], vocabulary, top_k=40)
    return {f"{count} near w{row[0]}": row[:count] for row, count in zip(ids, (3, 15, 40), strict=True)}


def few_words_of(vocabulary: Vocabulary) -> Vocabulary:
    """Fifty of its words, for what does not depend on them."""
    return Vocabulary.from_embeddings(vocabulary.tokens[:50], np.array(vocabulary.embeddings[:50]), model=f"some of {vocabulary.model}")


def starts(vocabulary: Vocabulary, rng: np.random.Generator, kind: str) -> np.ndarray:
    if kind == "words":
        usual = np.flatnonzero((vocabulary.centred_norms > 0.5 * np.median(vocabulary.centred_norms)) & ~vocabulary.special)
        return vocabulary.embeddings[rng.choice(usual, DRAWS)].astype(np.float64)
    return np.sqrt(np.mean(vocabulary.norms**2) / vocabulary.width) * rng.standard_normal((DRAWS, vocabulary.width))
