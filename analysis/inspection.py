"""What is in these files: one row a file, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.adapters import SoftPrompt, load_adapter
from analysis.errors import printable
from analysis.models import EMBEDDED_ALIASES, EMBEDDED_MODEL

COLUMNS = [
    "path",
    "kind",
    "format",
    "tensors",
    "virtual_tokens",
    "width",
    "dtype",
    "base_model",
    "method",
    "norm_median",
    "sha256",
    "notes",
]


def inspect(paths: Sequence[str | Path]) -> pd.DataFrame:
    """One row a file or folder, with the columns of `COLUMNS`; norm_median is that of the virtual tokens.

    Raises
    ------
    AdapterError
        One of the paths is not an adapter that can be read.
    """
    return pd.DataFrame([_row(path, load_adapter(path)) for path in paths], columns=COLUMNS)


def _row(path: str | Path, prompt: SoftPrompt) -> list:
    norms = np.linalg.norm(prompt.embeddings.astype(np.float64), axis=1)
    source = prompt.source
    return [
        printable(str(path)), "soft_prompt", source.format, source.tensors, len(prompt), prompt.width, source.dtype, prompt.base_model and printable(prompt.base_model),
        prompt.method, float(np.median(norms)), source.sha256, "; ".join(_notes(prompt, norms)),
    ]  # fmt: skip


def _notes(prompt: SoftPrompt, norms: np.ndarray) -> list[str]:
    notes = []
    if not norms.any():
        notes.append("every virtual token is zero: never trained, or the wrong tensor")
    if prompt.base_model is None:
        notes.append("the base model is unknown")
    elif prompt.base_model in EMBEDDED_ALIASES and prompt.base_model != EMBEDDED_MODEL:
        notes.append(f"{EMBEDDED_MODEL} is the 4-bit copy of the base model")
    if prompt.initial is None:
        notes.append("the initial values are unknown")
    repeated = len(prompt) - len(np.unique(prompt.embeddings, axis=0))
    if repeated:
        notes.append(f"{repeated} of {len(prompt)} rows repeat another")
    return notes
