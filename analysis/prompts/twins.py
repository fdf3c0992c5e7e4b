"""Twins of a prompt: prompts of the same settings that were trained on answers dealt out anew among the examples, and lie in its folder.

A twin starts from the same values and sees the same inputs and the same answers; which answer belongs to which input is all that it cannot learn. What is
read in a prompt and in its twin as well is the form of an answer, never the task (control tasks and selectivity: Hewitt and Liang 2019).
`python -m trained_prompts twins` makes them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.adapters import SoftPrompt, safetensors_file
from soft_prompt_explorer.analysis.core.strange_files import DAMAGED

PATTERN = "twin-*.safetensors"
MOST = 50  # of one prompt
MADE = "twin"  # in a twin's metadata: how it was made


def twins_of(prompts: Sequence[SoftPrompt]) -> list[SoftPrompt]:
    """The twins in the folders that these prompts were read from.

    Returns
    -------
    Prompts named `NAME, shuffled 1`, with the initial values of the prompt itself and in their metadata `twin`: config, loss, measure, score and n. A file that
    is damaged or of another shape is left out.
    """
    return [twin for prompt in prompts for twin in _twins(prompt)]


def _twins(prompt: SoftPrompt) -> list[SoftPrompt]:
    if prompt.source is None or prompt.initial is None or not prompt.source.path.is_dir():
        return []
    found = (_read(path, prompt) for path in sorted(prompt.source.path.glob(PATTERN))[:MOST])
    return [twin for twin in found if twin is not None]


def _read(path: Path, prompt: SoftPrompt) -> SoftPrompt | None:
    try:
        file = safetensors_file.read(path)
        if file.entries["embeddings"].shape != prompt.embeddings.shape:  # before any row is read
            return None
        rows, made = file["embeddings"].astype(np.float32), json.loads(file.metadata["made"])
        shuffle = int(made["config"]["shuffled"])
    except DAMAGED:
        return None
    if not np.isfinite(rows).all():
        return None
    metadata = {key: value for key, value in prompt.metadata.items() if key != "initial"} | {MADE: made}
    return replace(prompt, name=f"{prompt.name}, shuffled {shuffle}", embeddings=rows, metadata=metadata)
