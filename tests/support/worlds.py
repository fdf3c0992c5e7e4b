"""Worlds in which it is known what carries the behaviour: a vocabulary of made-up words, prompts on its rows, and a model that asks one direction."""

import numpy as np

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.behaviour.asked import Examples
from soft_prompt_explorer.analysis.behaviour.resampling import Answers
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary

WIDTH, TOKENS = 24, 6


def word(i: int) -> str:
    """A whole word of letters, another one for each number."""
    return " word" + "".join(chr(ord("a") + int(digit)) for digit in f"{i:03d}")


def vocabulary_of_words() -> Vocabulary:
    """400 of them."""
    rows = np.random.default_rng(0).standard_normal((400, WIDTH)).astype(np.float32)
    return Vocabulary.from_embeddings([word(i) for i in range(400)], rows)


def moved(vocabulary, drift: np.ndarray, name="it") -> SoftPrompt:
    """Rows of the vocabulary, moved."""
    start = np.array(vocabulary.embeddings[10 : 10 + len(drift)])
    return SoftPrompt(name, (start + drift).astype(np.float32), start, None, None, None)


def world(carrier: np.ndarray, start: np.ndarray, *, n=60) -> Examples:
    """A model that gets the more examples right the further the prompt's mean has gone along one direction from where it started."""
    thresholds = np.linspace(-0.2, 0.8, n)

    def ask(rows, report):
        report(1.0, "asked")
        gone = 0.0 if rows is None else float((rows.astype(np.float64).mean(axis=0) - start.mean(axis=0)) @ carrier)
        right = gone > thresholds
        return Answers(np.logaddexp(0, 4 * (thresholds - gone)), np.column_stack([right, np.ones(n)]).astype(np.float64))

    return Examples("toy", "accuracy", ask, lambda sums: sums[..., 0] / sums[..., 1])
