"""What a prompt's rows tell by themselves, where no vocabulary is at hand: how long they are, how alike each other, and how many directions they use."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.prompts.search import unit_rows

WITHIN_COLUMNS = ["position_a", "position_b", "cosine", "same"]
MOST_TOKENS = 500  # of which every pair is told
_ROUNDING = 1e-6  # of a row's length; rows are float32, which keeps them to 6e-8


def cosines_within(prompt: SoftPrompt) -> pd.DataFrame:
    """How alike the virtual tokens of a prompt are, pair by pair, by plain cosine in float64; of the first `MOST_TOKENS`.

    Returns
    -------
    position_a, position_b, cosine, and same: whether the two rows are one, up to rounding. A row of zeros has the cosine 0 with every other.
    """
    rows = prompt.embeddings[:MOST_TOKENS].astype(np.float64)
    units = unit_rows(rows)
    norms = np.linalg.norm(rows, axis=1)
    pairs = np.array(list(combinations(range(len(rows)), 2)), dtype=np.int64).reshape(-1, 2)
    a, b = pairs.T
    apart = np.linalg.norm(rows[a] - rows[b], axis=1)
    return pd.DataFrame(
        {
            "position_a": a,
            "position_b": b,
            "cosine": np.einsum("ij,ij->i", units[a], units[b]),
            "same": apart <= _ROUNDING * np.maximum(norms[a], norms[b]),
        },
        columns=WITHIN_COLUMNS,
    )


def directions_used(prompt: SoftPrompt) -> pd.DataFrame:
    """The singular values of a prompt's rows, the largest first, in float64; of the first `MOST_TOKENS`.

    Returns
    -------
    rank (from 0), singular_value, and energy: its share of the sum of squares (0 of a prompt of zeros).
    """
    values = np.linalg.svd(prompt.embeddings[:MOST_TOKENS].astype(np.float64), compute_uv=False)
    total = float((values**2).sum())
    return pd.DataFrame({"rank": np.arange(len(values)), "singular_value": values, "energy": values**2 / total if total else 0.0 * values})
