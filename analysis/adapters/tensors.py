"""The named tensors of one file, whatever its format, read one at a time and only when they are asked for."""

from __future__ import annotations

import hashlib
import math
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.core.errors import AdapterError

MAX_FILE = 16 * 2**30  # bytes; the LoRA of a model of 400 billion parameters at rank 64 takes a third of it
MAX_TENSORS = 100_000
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


@dataclass(frozen=True)
class Entry:
    """One tensor of a file, known by its header: `read` fetches the values, bfloat16 as float32."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    @property
    def values(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Tensors(Mapping[str, np.ndarray]):
    """A mapping from names to arrays whose values are read from the file each time they are asked for, so that memory holds one at a time.

    Attributes
    ----------
    path : the file.
    format : in words: `safetensors`, `PyTorch` or `NumPy array`.
    entries : shape, dtype and reader of each tensor. The one tensor of a file without names is called the empty string.
    metadata : what else the file says of itself.
    checks : (what was checked, what was found) pairs, for the receipt.
    """

    path: Path
    format: str
    entries: dict[str, Entry]
    metadata: dict = field(default_factory=dict)
    checks: tuple[tuple[str, str], ...] = ()

    def __getitem__(self, name: str) -> np.ndarray:
        return self.entries[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def sha256(self) -> str:
        """Of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def floats(self) -> dict[str, Entry]:
        """The tensors of floating-point numbers, without those of no value and single numbers."""
        return {name: entry for name, entry in self.entries.items() if entry.dtype in FLOATS and entry.shape and entry.values}

    def listing(self, most: int = 4) -> str:
        """The first names and shapes, for a sentence."""
        shown = [f"{name or 'a tensor'} {entry.shape}" for name, entry in list(self.entries.items())[:most]]
        return ", ".join(shown) + (f" and {len(self) - most} more" if len(self) > most else "") if shown else "no tensor"


def check_file(path: Path) -> int:
    """The size of a file that may be read, in bytes.

    Raises
    ------
    AdapterError
        It is no file (a pipe would be waited for, a device read for ever), or larger than `MAX_FILE`.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise AdapterError(f"{path} is no file; put the file in its place.")
    size = found.st_size
    if size > MAX_FILE:
        raise AdapterError(
            f"The file {path} has {size:,} bytes and an adapter's at most {MAX_FILE:,}; give the prompt or LoRA alone, not the model."
        )
    return size


def check_count(count: int, path: Path) -> None:
    """Refuse a file of more than `MAX_TENSORS` tensors."""
    if count > MAX_TENSORS:
        raise AdapterError(
            f"The file {path} holds {count:,} tensors and an adapter's at most {MAX_TENSORS:,}; give the prompt or LoRA alone, not the model."
        )


def starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic
