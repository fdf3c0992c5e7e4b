"""Made-up vocabularies, and prompts in which it is known what there is to find."""

import numpy as np

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.words import word_ids


def prompt_of(rows, initial=None, name="made") -> SoftPrompt:
    return SoftPrompt(name, np.asarray(rows, dtype=np.float32), initial, None, None, None)


def made_vocabulary(kind: str) -> Vocabulary:
    """4,000 words, 64 wide: isotropic; or with a common direction, a strong spectrum and 40 hubs near the mean."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((4_000, 64))
    if kind == "hub-ridden":
        rows = rows * np.geomspace(4, 0.2, 64) + 3 * np.eye(64)[5]
        rows[:40] = rows.mean(axis=0) + 0.05 * rng.standard_normal((40, 64))
    return Vocabulary.from_embeddings([f" w{i}" for i in range(len(rows))], rows.astype(np.float32), model=kind)


WORDS = (" river", " apple", " music")


def drifted(vocabulary, seed, *, planted: float, words=WORDS, tokens=10) -> SoftPrompt:
    """Vocabulary rows with noise of norm 1 added, and `planted` along the mean of three words."""
    rng = np.random.default_rng(seed)
    start = vocabulary.embeddings[rng.choice(len(vocabulary), tokens, replace=False)].astype(np.float64)
    noise = rng.standard_normal(start.shape)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    mean = (vocabulary.embeddings[word_ids(vocabulary, words)] - vocabulary.mean).mean(axis=0)
    now = start + noise + planted * mean / np.linalg.norm(mean)
    return SoftPrompt(f"seed {seed}", now.astype(np.float32), start.astype(np.float32), None, None, None)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def planted(vocabulary, seed):
    """Five clusters of twenty tokens over a hundred of noise, and which token belongs where."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((5, vocabulary.width)))
    members = np.concatenate([centre + unit(rng.standard_normal((20, vocabulary.width))) for centre in centres])
    noise = rng.standard_normal((100, vocabulary.width)) * np.sqrt(2 / vocabulary.width)
    return vocabulary.mean + np.concatenate([members, noise]), np.r_[np.repeat(np.arange(5), 20), np.full(100, -1)]
