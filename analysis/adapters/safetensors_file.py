"""A safetensors file: a JSON header, then the tensors, read one at a time when they are asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from soft_prompt_explorer.analysis.adapters.tensors import Entry, Tensors, check_count, check_file
from soft_prompt_explorer.analysis.core.errors import AdapterError

MAX_HEADER = 2**20
_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_BFLOAT16 = "bfloat16"
_STORED = {"F16": "<f2", "BF16": _BFLOAT16, "F32": "<f4", "F64": "<f8"}  # how numpy reads them


def reads(path: Path) -> bool:
    """Eight bytes of the header's length, then a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size


def read(path: Path) -> Tensors:
    size = check_file(path)
    file = path.open("rb")  # kept open, since a zip's unpacked file goes before its tensors are asked for
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise AdapterError(
            f"The header of {path} has {length:,} bytes and an adapter's at most {MAX_HEADER:,}; the file is damaged or not an adapter."
        )
    header = file.read(length)
    from safetensors import SafetensorError, safe_open

    try:
        opened = safe_open(path, framework="np")  # checks that offsets lie within the file, do not overlap and leave no hole
        names = list(opened.keys())
        check_count(len(names), path)
        described = json.loads(header)  # as safetensors has checked it just now
        entries = {}
        for name in names:
            part = opened.get_slice(name)
            entries[name] = Entry(
                tuple(part.get_shape()),
                _DTYPES.get(part.get_dtype(), part.get_dtype()),
                _reader(opened, file, name, part, path, 8 + length, described[name]["data_offsets"]),
            )
        metadata = opened.metadata() or {}
    except (SafetensorError, TypeError, RuntimeError, OSError, ValueError, KeyError) as error:
        raise AdapterError(f"The file {path} is not whole safetensors ({error}); download or save it again.") from error
    checks = (
        ("size", f"{size:,} bytes"),
        ("header", f"{length:,} bytes, at most {MAX_HEADER:,}"),
        ("offsets", "every tensor lies within the file, none overlaps another"),
        ("pickle", "none: the format holds plain numbers only"),
    )
    return Tensors(path, "safetensors", entries, dict(metadata), checks)


def _reader(opened, file: BinaryIO, name: str, part, path: Path, data: int, offsets: list[int]):
    def read_one():
        stored = _STORED.get(part.get_dtype())
        if stored is not None:
            return _read_plain(file, path, name, data + offsets[0], offsets[1] - offsets[0], stored).reshape(part.get_shape())
        from safetensors import SafetensorError

        try:
            return opened.get_tensor(name)
        except (SafetensorError, TypeError, AttributeError, RuntimeError, OSError) as error:
            raise AdapterError(f"The tensor {name} in {path} cannot be read ({error}); download or save the file again.") from error

    return read_one


def _read_plain(file: BinaryIO, path: Path, name: str, start: int, size: int, stored: str) -> np.ndarray:
    """The numbers of one tensor, read and not mapped: the pages of a mapped file would stay with this process, all of a large LoRA in the end."""
    try:
        content = os.pread(file.fileno(), size, start)
    except OSError as error:
        raise AdapterError(f"The tensor {name} in {path} cannot be read ({error}); download or save the file again.") from error
    if len(content) != size:
        raise AdapterError(f"The tensor {name} in {path} cannot be read (the file has changed); download or save it again.")
    if stored == _BFLOAT16:
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, stored)
