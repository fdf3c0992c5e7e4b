"""The values that virtual tokens start from."""

from __future__ import annotations

import numpy as np

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.remedies import START_AT_RANDOM
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

FREQUENT_IDS = 5000  # Lester et al. 2021, section 3.1.2: rows of the 5,000 most frequent tokens


def initial_values(config: TrainingConfig, vocabulary: Vocabulary, tokenizer) -> np.ndarray:
    """The virtual tokens that a run starts from, (n, d) float32; the same for the same config."""
    if config.init == "random":
        scale = scale_of(vocabulary)
        rng = np.random.default_rng([config.seed, 1])
        return (scale * rng.standard_normal((config.tokens, vocabulary.width))).astype(np.float32)
    return np.array(vocabulary.embeddings[initial_ids(config, vocabulary, tokenizer)], dtype=np.float32)


def scale_of(vocabulary: Vocabulary) -> float:
    """The root mean square of the values of a vocabulary's rows."""
    return float(np.sqrt(np.mean(vocabulary.norms**2) / vocabulary.width))


def initial_ids(config: TrainingConfig, vocabulary: Vocabulary, tokenizer) -> list[int]:
    """The ids of the words that a run starts from: frequent ones, or those of a text."""
    if config.init == "text":
        ids = tokenizer(config.init_text, add_special_tokens=False).input_ids
        return [ids[i % len(ids)] for i in range(config.tokens)]
    words = frequent_words(vocabulary)
    if len(words) < config.tokens:
        raise InputError(
            f"{vocabulary.model} has only {len(words)} frequent whole words to start from; ask for fewer virtual tokens or",
            remedy=START_AT_RANDOM,
        )
    return np.random.default_rng([config.seed, 1]).choice(words, size=config.tokens, replace=False).tolist()


def frequent_words(vocabulary: Vocabulary) -> np.ndarray:
    """Ids of the whole words among the vocabulary's first 5,000 tokens."""
    from soft_prompt_explorer.analysis.prompts.search import allowed_tokens

    return np.flatnonzero(allowed_tokens(vocabulary, exclude_special=True, whole_words=True)[:FREQUENT_IDS])
