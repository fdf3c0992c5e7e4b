"""Where virtual tokens were while they were learned, read step by step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.verdicts import START_COLUMNS, start_and_now

COLUMNS = ["prompt", "step", *START_COLUMNS[1:]]


def trajectory(prompt: SoftPrompt, steps: np.ndarray, embeddings: np.ndarray, vocabulary: Vocabulary) -> pd.DataFrame:
    """One row a snapshot and virtual token: what it was nearest to then, and how far from its start.

    Parameters
    ----------
    prompt : whose name and initial values are told; where these are unknown, the first snapshot's stand for them if it is of step 0.
    steps, embeddings : (s,) and (s, n, d), of `analysis.adapters.recorded.trajectory_of`.

    Returns
    -------
    prompt, step, position, norm, norm_ratio, nearest_token, score, initial_token, echo, drift; the last three are missing where the start is unknown.

    Raises
    ------
    InputError
        The prompt is not as wide as the vocabulary.
    """
    start = prompt.initial if prompt.initial is not None else embeddings[0] if steps[0] == 0 else None
    whole = replace(
        prompt,
        embeddings=embeddings.reshape(-1, embeddings.shape[2]),
        initial=None if start is None else np.tile(start, (len(steps), 1)),
        parts=(),
    )
    table = start_and_now(whole, vocabulary)
    return table.assign(step=np.repeat(steps, embeddings.shape[1]), position=table["position"] % embeddings.shape[1])[COLUMNS]
