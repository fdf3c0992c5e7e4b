"""A GGUF file's header, read by counting: whatever it announces is compared with the bytes that are left before memory is taken for it.

The format (github.com/ggml-org/ggml, docs/gguf.md): magic, version, counts, then keys with values, then the tensors' names, shapes, types and
places, all little-endian; then the tensors themselves. Only versions 2 and 3 are read, as `gguf.GGUFReader` does.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.core.errors import ModelError
from soft_prompt_explorer.analysis.core.words import printable

MAX_NAME = 65_535  # bytes of a key, as the format says
MAX_DEPTH = 3  # arrays of arrays are allowed, and nobody writes them
MAX_KEYS = 10_000  # a large model has some fifty
MAX_TENSORS = 200_000
MAX_ITEMS = 2_000_000  # strings in all arrays together; a vocabulary of 262,144 tokens and its merges have 776,000
MAX_ROWS = 2**20  # of a vocabulary; the largest have some 900,000
_NUMBERS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "<u1", 10: "<u8", 11: "<i8", 12: "<f8"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]  # the fastest axis first, as the file has it
    type: int
    offset: int


class GgufFile:
    """A GGUF file's keys and tensors, known by their places; values are read when they are asked for.

    Raises
    ------
    ModelError
        It is no GGUF file, damaged, or announces more than it holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # a file of no bytes cannot be mapped
            raise self.refused("it is empty or cannot be read") from error
        self._at = self._items = 0
        if self._take(4) != b"GGUF":
            raise self.refused("it does not start with GGUF")
        version, tensors, keys = struct.unpack("<IQQ", self._take(20))
        if version not in (2, 3):
            raise self.refused(f"its version is {version:,} where 2 and 3 are read; convert the model again")
        # A key takes 13 bytes at least, a tensor 24: what is announced must have room.
        if keys > MAX_KEYS or tensors > MAX_TENSORS or 13 * keys + 24 * tensors > self._left:
            raise self.refused(f"it announces {keys:,} keys and {tensors:,} tensors, which its {len(self._bytes):,} bytes do not hold")
        self._places: dict[str, tuple[int, int]] = {}
        for _ in range(keys):
            key = self._name()
            (kind,) = struct.unpack("<I", self._take(4))
            self._places[key] = kind, self._at
            self._skip(kind)
        self.tensors: dict[str, _Tensor] = {}
        for _ in range(tensors):
            key = self._name()
            (axes,) = struct.unpack("<I", self._take(4))
            if not 1 <= axes <= 4:
                raise self.refused(f"the tensor {printable(key)[:60]} has {axes:,} axes")
            shape = struct.unpack(f"<{axes}Q", self._take(8 * axes))
            self.tensors[key] = _Tensor(shape, *struct.unpack("<IQ", self._take(12)))
        alignment = self.number("general.alignment", 32)
        if not 1 <= alignment <= 2**20:
            raise self.refused(f"its alignment is {alignment:,}")
        self._data = -(-self._at // alignment) * alignment

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def refused(self, what: str) -> ModelError:
        return ModelError(f"The file {self.path.name} cannot be read as GGUF: {what[:300]}.")

    def text(self, key: str) -> str | None:
        """The string under a key, or None."""
        kind, self._at = self._places.get(key, (None, 0))
        return self._string(2**20).decode("utf-8", "replace") if kind == _STRING else None

    def number(self, key: str, default: int) -> int:
        """The whole number under a key."""
        kind, at = self._places.get(key, (_STRING, 0))
        dtype = np.dtype(_NUMBERS.get(kind, "<f4"))
        return int(np.frombuffer(self._bytes, dtype, 1, at)[0]) if dtype.kind in "iu" else default

    def real(self, key: str) -> float | None:
        """The number under a key, or None."""
        kind, at = self._places.get(key, (_STRING, 0))
        return float(np.frombuffer(self._bytes, _NUMBERS[kind], 1, at)[0]) if kind in _NUMBERS else None

    def strings(self, key: str, most: int) -> list[str] | None:
        """The first `most` strings of the array under a key; None where it holds no strings."""
        kind, count, start = self._array(key)
        if kind != _STRING:
            return None
        self._at = start
        return [self._string(2**20).decode("utf-8", "replace") for _ in range(min(count, most))]

    def numbers(self, key: str, most: int) -> np.ndarray | None:
        """The first `most` numbers of the array under a key; None where it holds no numbers."""
        kind, count, start = self._array(key)
        return np.frombuffer(self._bytes, _NUMBERS[kind], min(count, most), start) if kind in _NUMBERS else None

    def rows_shape(self, name: str) -> tuple[int, int]:
        """(rows, width) of a matrix, all of whose values are in the file."""
        self._row_bytes(name)
        width, rows = self.tensors[name].shape
        return rows, width

    def rows(self, name: str, at_a_time: int) -> Iterator[np.ndarray]:
        """The rows of a matrix as float32, so many at a time."""
        import gguf

        each, tensor = self._row_bytes(name), self.tensors[name]
        kind = gguf.GGMLQuantizationType(tensor.type)
        dtype = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}.get(kind.name, "u1")
        for start in range(0, tensor.shape[1], at_a_time):
            count = min(at_a_time, tensor.shape[1] - start)
            raw = np.frombuffer(self._bytes, "u1", count * each, self._data + tensor.offset + start * each).reshape(count, each)
            try:
                rows = gguf.quants.dequantize(raw.view(dtype), kind)
            except (NotImplementedError, ValueError) as error:
                raise self.refused(
                    f"the tensor {name} is of the type {kind.name}, which cannot be unpacked; convert the model again"
                ) from error
            yield rows.reshape(count, -1).astype(np.float32, copy=False)

    def _row_bytes(self, name: str) -> int:
        import gguf

        tensor = self.tensors.get(name)
        if tensor is None:
            raise self.refused(f"it holds no {name}, so it is not a language model")
        if len(tensor.shape) != 2 or 0 in tensor.shape or tensor.shape[1] > MAX_ROWS:
            raise self.refused(f"the tensor {name} has the shape {tensor.shape} where input embeddings have two dimensions")
        try:
            block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(tensor.type)]
        except (ValueError, KeyError) as error:
            raise self.refused(f"the tensor {name} is of the type {tensor.type:,}, which is not known here") from error
        each = tensor.shape[0] // block * size
        if tensor.shape[0] % block or self._data + tensor.offset + each * tensor.shape[1] > len(self._bytes):
            raise self.refused(f"the tensor {name} claims {math.prod(tensor.shape):,} values, which it does not hold; download it again")
        return each

    @property
    def _left(self) -> int:
        return len(self._bytes) - self._at

    def _take(self, size: int) -> bytes:
        if size > self._left:
            raise self.refused("it ends in the middle of its header; download it again")
        self._at += size
        return self._bytes[self._at - size : self._at]

    def _string(self, most: int) -> bytes:
        (length,) = struct.unpack("<Q", self._take(8))
        if length > most or length > self._left:
            raise self.refused(f"a text in it is {length:,} bytes long with {self._left:,} left; download it again")
        return self._take(length)

    def _name(self) -> str:
        return self._string(MAX_NAME).decode("utf-8", "replace")

    def _array(self, key: str) -> tuple[int | None, int, int]:
        """The kind of an array's items, their number, and where they start."""
        kind, self._at = self._places.get(key, (None, 0))
        if kind != _ARRAY:
            return None, 0, 0
        item, count = struct.unpack("<IQ", self._take(12))
        return item, count, self._at

    def _skip(self, kind: int, depth: int = 0) -> None:
        """Go past a value; its items are counted against the bytes that are left."""
        if kind in _NUMBERS:
            self._take(np.dtype(_NUMBERS[kind]).itemsize)
        elif kind == _STRING:
            (length,) = struct.unpack("<Q", self._take(8))
            self._go(length)
        elif kind == _ARRAY and depth < MAX_DEPTH:
            item, count = struct.unpack("<IQ", self._take(12))
            if item in _NUMBERS:
                self._go(count * np.dtype(_NUMBERS[item]).itemsize)
                return
            self._items += count
            if count * (8 if item == _STRING else 12) > self._left or self._items > MAX_ITEMS:
                raise self.refused(f"an array in it announces {count:,} items with {self._left:,} bytes left; download it again")
            for _ in range(count):
                self._skip(item, depth + 1)
        else:
            raise self.refused(
                "its arrays are nested too deep" if kind == _ARRAY else f"a value in it is of the kind {kind:,}, which there is not"
            )

    def _go(self, size: int) -> None:
        if size > self._left:
            raise self.refused(f"a value in it announces {size:,} bytes with {self._left:,} left; download it again")
        self._at += size
