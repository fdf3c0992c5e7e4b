"""A safetensors file: a JSON header, then the tensors, mapped into memory and copied one at a time."""

from __future__ import annotations

from pathlib import Path

from analysis.adapters.tensors import Entry, Tensors, check_count, check_file
from analysis.errors import AdapterError

MAX_HEADER = 2**20
_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


def reads(path: Path) -> bool:
    """Eight bytes of the header's length, then a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size


def read(path: Path) -> Tensors:
    size = check_file(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise AdapterError(
            f"The header of {path} has {length:,} bytes and an adapter's at most {MAX_HEADER:,}; the file is damaged or not an adapter."
        )
    from safetensors import SafetensorError, safe_open

    try:
        opened = safe_open(path, framework="pt")  # checks that offsets lie within the file, do not overlap and leave no hole
        names = list(opened.keys())
        check_count(len(names), path)
        entries = {}
        for name in names:
            part = opened.get_slice(name)
            entries[name] = Entry(tuple(part.get_shape()), _DTYPES.get(part.get_dtype(), part.get_dtype()), _reader(opened, name, path))
        metadata = opened.metadata() or {}
    except (SafetensorError, TypeError, RuntimeError, OSError, UnicodeError) as error:
        raise AdapterError(f"The file {path} is not whole safetensors ({error}); download or save it again.") from error
    checks = (
        ("size", f"{size:,} bytes"),
        ("header", f"{length:,} bytes, at most {MAX_HEADER:,}"),
        ("offsets", "every tensor lies within the file, none overlaps another"),
        ("pickle", "none: the format holds plain numbers only"),
    )
    return Tensors(path, "safetensors", entries, dict(metadata), checks)


def _reader(opened, name: str, path: Path):
    def read_one():
        import torch
        from safetensors import SafetensorError

        try:
            tensor = opened.get_tensor(name)
            return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        except (SafetensorError, TypeError, RuntimeError, OSError) as error:
            raise AdapterError(f"The tensor {name} in {path} cannot be read ({error}); download or save the file again.") from error

    return read_one
