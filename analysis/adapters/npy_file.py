"""A `.npy` file: one array without a name, as google-research/prompt-tuning and many scripts write it."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.adapters.tensors import Entry, Tensors, check_file, starts_with
from soft_prompt_explorer.analysis.core.errors import AdapterError

_BFLOAT16 = np.dtype("V2")  # what numpy.save makes of JAX's bfloat16, which numpy has no name for


def reads(path: Path) -> bool:
    return starts_with(path, b"\x93NUMPY")


def read(path: Path) -> Tensors:
    size = check_file(path)
    try:
        # Memory-mapped: a header that promises more than the file holds is refused without taking memory.
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
    dtype = "bfloat16" if array.dtype == _BFLOAT16 else array.dtype.newbyteorder("=").name
    checks = (
        ("size", f"{size:,} bytes, the header's shape {array.shape} within them"),
        ("pickle", "none: an array of plain numbers"),
    )
    return Tensors(path, "NumPy array", {"": Entry(array.shape, dtype, lambda: _values(array))}, checks=checks)


def _values(array: np.ndarray) -> np.ndarray:
    if array.dtype == _BFLOAT16:  # the upper half of a float32
        return (np.ascontiguousarray(array).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.asarray(array)
