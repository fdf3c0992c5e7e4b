"""How often what was planted is found, beside the tests of the first version and what either finds in nothing: `python -m tests.benchmarks.power [DRAWS]`.

On the embedded vocabulary, at 0.05. An effect of 0 is a draw that knows nothing: what is found there is false.
"""

from __future__ import annotations

import sys

import numpy as np

from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary, load_vocabulary
from soft_prompt_explorer.analysis.prompts.directions import words_test_of
from soft_prompt_explorer.analysis.prompts.null import null_of, p_as_word, read_words
from soft_prompt_explorer.analysis.prompts.search import nearest, unit_rows
from tests.support.first_version import old_verdicts, old_words_p
from tests.support.nulls import LEVEL, Draws, starts, word_sets

TASKS = ("sentiment", "plural", "antonyms")
SHARES = (0.0, 0.025, 0.05, 0.1)  # of the words' direction in each of ten displacements
WAYS = (0.0, 0.1, 0.25, 0.5)  # of the way from a token's start to a word
NOISE = (1.0, 1.5, 2.0)  # of a word's length, beside the word


def words_found(vocabulary: Vocabulary, task: str, share: float, count: int) -> tuple[float, float]:
    """Of directions of ten tokens that hold so much of a task's words: found by the words test, and by that of the first version."""
    test, ids = words_test_of(vocabulary), word_sets(vocabulary)[task]
    draws = Draws(vocabulary, seed=107)
    tokens = unit_rows(np.sqrt(1 - share**2) * draws.like_words(10 * count) + share * unit_rows(test.words(ids)))
    directions = tokens.reshape(count, 10, -1).mean(axis=1)
    old = [old_words_p(each, ids, vocabulary, 200) <= LEVEL for each in directions]
    return float((test.p(directions, ids) <= LEVEL).mean()), float(np.mean(old))


def read_on_the_way(vocabulary: Vocabulary, way: float, count: int) -> tuple[float, float]:
    """Of tokens that went so far to a word, and as far as a word is long in any direction."""
    draws = Draws(vocabulary, seed=109)
    begin, words = (starts(vocabulary, draws.rng, "words")[:count] for _ in range(2))
    moved = way * (words - begin) + 0.5 * vocabulary.median_norm * draws.uniform(count)
    _, p = read_words(moved, vocabulary, null_of(vocabulary), but=begin)
    return float((p <= LEVEL).mean()), float(old_verdicts(begin + moved, begin, vocabulary).mean())


def drifted(vocabulary: Vocabulary, count: int) -> tuple[float, float]:
    """Of tokens that drifted along the vocabulary's mean: what either reads in them is false."""
    begin = starts(vocabulary, np.random.default_rng(113), "words")[:count]
    moved = -3 * vocabulary.median_norm * np.tile(unit_rows(vocabulary.mean), (count, 1))
    _, p = read_words(moved, vocabulary, null_of(vocabulary), but=begin)
    return float((p <= LEVEL).mean()), float(old_verdicts(begin + moved, begin, vocabulary).mean())


def near(vocabulary: Vocabulary, rows: np.ndarray) -> tuple[float, float]:
    """Of rows whose start is unknown: near a word now, and by the first version."""
    null = null_of(vocabulary)
    ids, scores = nearest(rows, vocabulary, top_k=1)
    p = np.maximum(p_as_word(rows, ids[:, 0], vocabulary, null), null.p_drawn(scores[:, 0]))
    return float((p <= LEVEL).mean()), float(old_verdicts(rows, None, vocabulary).mean())


def main(count: int) -> None:
    vocabulary = load_vocabulary("smollm2-135m")
    print("| what | effect | found | by the first version |\n|---|--:|--:|--:|")

    def told(what: str, effect: float, found: tuple[float, float]) -> None:
        print(f"| {what} | {effect:g} | {found[0]:.2f} | {found[1]:.2f} |", flush=True)

    for task in TASKS:
        for share in SHARES:
            told(f"the words of {task} in a shared direction", share, words_found(vocabulary, task, share, count))
    for way in WAYS:
        told("a word that tokens moved towards, amid noise", way, read_on_the_way(vocabulary, way, count))
    told("drift along the vocabulary's mean, no word", 0, drifted(vocabulary, count))
    draws = Draws(vocabulary, seed=127)
    words = starts(vocabulary, draws.rng, "words")[:count]
    lengths = np.linalg.norm(words - vocabulary.mean, axis=1, keepdims=True)
    for size in NOISE:
        told(
            "a word, its start unknown, and noise of so many lengths", size, near(vocabulary, words + size * lengths * draws.uniform(count))
        )
    small = 0.02 * draws.rng.standard_normal((count, vocabulary.width))
    told("small random rows, their start unknown, no word", 0, near(vocabulary, small))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
