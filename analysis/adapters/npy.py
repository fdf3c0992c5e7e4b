"""A `.npy` file: one array of (tokens, width), as google-research/prompt-tuning and many scripts write it."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np

from analysis.adapters.soft_prompt import SoftPrompt, Source, check_size, checked_embeddings, file_sha256
from analysis.errors import AdapterError


def reads(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(6) == b"\x93NUMPY"


def read(path: Path, name: str) -> SoftPrompt:
    check_size(path)
    try:
        # Memory-mapped first: a header that promises more than the file holds is refused without taking memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    # numpy parses the header as a Python literal, and what that raises it does not translate.
    except (
        ValueError,
        TypeError,
        OSError,
        EOFError,
        OverflowError,
        MemoryError,
        RecursionError,
        SyntaxError,
        tokenize.TokenError,
    ) as error:
        raise AdapterError(
            f"The file {path} starts like a NumPy array but cannot be read ({error}); save it again with numpy.save."
        ) from error
    embeddings = checked_embeddings(array, path)
    source = Source(path, "NumPy array", file_sha256(path), str(array.dtype), tensors=1)
    return SoftPrompt(name, embeddings, initial=None, base_model=None, method=None, source=source)
