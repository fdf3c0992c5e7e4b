"""What a virtual token is near to now, beside what it started from.

A prompt that starts from vocabulary rows stays nearest to those rows long after it has learned its task: its list of neighbours
then says how it was initialised and nothing of what it learned. A reading that does not say so misleads.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.adapters import SoftPrompt
from analysis.neighbours import nearest
from analysis.vocabulary import Vocabulary

COLUMNS = ["prompt", "position", "norm", "norm_ratio", "nearest_token", "score", "initial_token", "echo", "drift"]


def start_and_now(prompt: SoftPrompt, vocabulary: Vocabulary) -> pd.DataFrame:
    """One row a virtual token: what it is nearest to, and what it started from.

    Returns
    -------
    prompt, position (from 0), norm (Euclidean), norm_ratio (norm over the vocabulary's median norm), nearest_token and its score
    (centred cosine), initial_token (nearest word of the initial value), echo (whether both words are the same token), drift (distance
    from the initial value). The last three are missing where the initial values are unknown.

    Raises
    ------
    InputError
        The prompt is not as wide as the vocabulary.
    """
    prompt.check_width(vocabulary.width, vocabulary.model)
    n = len(prompt)
    ids, scores = nearest(prompt.embeddings, vocabulary, top_k=1)
    norms = np.linalg.norm(prompt.embeddings.astype(np.float64), axis=1)
    initial_token, echo, drift = [None] * n, [None] * n, np.full(n, np.nan)
    if prompt.initial is not None:
        initial_ids, _ = nearest(prompt.initial, vocabulary, top_k=1)
        initial_token = [vocabulary.tokens[i] for i in initial_ids[:, 0]]
        echo = (initial_ids[:, 0] == ids[:, 0]).tolist()
        drift = np.linalg.norm(prompt.embeddings.astype(np.float64) - prompt.initial, axis=1)
    return pd.DataFrame(
        {
            "prompt": prompt.name,
            "position": np.arange(n),
            "norm": norms,
            "norm_ratio": norms / vocabulary.median_norm,
            "nearest_token": [vocabulary.tokens[i] for i in ids[:, 0]],
            "score": scores[:, 0],
            "initial_token": pd.array(initial_token, dtype="string"),
            "echo": pd.array(echo, dtype="boolean"),
            "drift": drift,
        },
        columns=COLUMNS,
    )
