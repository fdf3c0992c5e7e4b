"""The slow analyses behind the pages. They run in this process, after one call that is not counted; the null and the map are in the cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary, load_vocabulary
from soft_prompt_explorer.analysis.prompts.clusters import find_clusters
from soft_prompt_explorer.analysis.prompts.null import null_of
from soft_prompt_explorer.analysis.prompts.projection import vocabulary_map
from soft_prompt_explorer.analysis.prompts.search import unit_rows
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from tests.benchmarks.measure import median_and_range, take_turns, text_table

MANY, FEW = 2000, 20
ROUNDS = 3


def tables() -> Iterator[str]:
    vocabulary = load_vocabulary(EMBEDDED_MODEL)
    null_of(vocabulary)
    vocabulary_map(vocabulary)
    yield _analyses(vocabulary)


# --- The analyses --------------------------------------------------------------------------------------------------------


def _analyses(vocabulary: Vocabulary) -> str:
    few, many = (SoftPrompt("planted", _planted(vocabulary, count), None, None, None, None) for count in (FEW, MANY))
    calls = {
        f"readings of {FEW} tokens, the null cached": (lambda: readings(few, vocabulary), "under 2 s"),
        f"clusters of {MANY:,} tokens, 100 bootstraps": (lambda: find_clusters([many], vocabulary), "under 30 s"),
    }
    seconds = take_turns({name: call for name, (call, _) in calls.items()}, rounds=ROUNDS, subject="analyses")
    rows = [[name, *median_and_range(seconds[name]), expected] for name, (_, expected) in calls.items()]
    return text_table("the analyses behind the pages", ["", "median", "range", "expected"], rows, f"{ROUNDS} rounds.")


def _planted(vocabulary: Vocabulary, count: int) -> np.ndarray:
    """A quarter of the tokens in clusters of twenty (of five where there are few), and noise, around the vocabulary's mean."""
    rng = np.random.default_rng(0)
    size = 20 if count >= 100 else 5
    centres = np.repeat(unit_rows(rng.standard_normal((count // 4 // size, vocabulary.width))), size, axis=0)
    members = centres + unit_rows(rng.standard_normal(centres.shape))
    noise = rng.standard_normal((count - len(members), vocabulary.width)) * np.sqrt(2 / vocabulary.width)
    return (vocabulary.mean + np.concatenate([members, noise])).astype(np.float32)
