"""What every reader of a soft prompt answers, and the checks that all of them make."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from analysis.errors import AdapterError

MAX_BYTES = 256 * 2**20  # 1,000 virtual tokens of width 16,384 in float64 take half of this
MAX_TOKENS = 10_000


@dataclass(frozen=True)
class Source:
    """Where a prompt was read from.

    Attributes
    ----------
    path : the file or folder that was given.
    format : in words, for instance `PEFT folder`.
    sha256 : of the file that holds the tensor.
    dtype : of the tensor in the file.
    tensors : number of tensors in that file.
    """

    path: Path
    format: str
    sha256: str
    dtype: str
    tensors: int


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """A soft prompt: n learned vectors in the space of a model's input embeddings.

    Attributes
    ----------
    embeddings : (n, d) float32.
    initial : (n, d) float32, the values that training started from, or None where they are not at hand.
    base_model : the model it was trained on as the file names it, or None.
    method : how it was trained, in PEFT's words, for instance `PROMPT_TUNING`, or None.
    metadata : what else the file says of itself.
    """

    name: str
    embeddings: np.ndarray
    initial: np.ndarray | None
    base_model: str | None
    method: str | None
    source: Source | None
    metadata: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def width(self) -> int:
        return self.embeddings.shape[1]

    def at_start(self) -> SoftPrompt:
        """The same prompt before training; its initial values must be known."""
        return replace(self, embeddings=self.initial)

    def check_width(self, width: int, model: str) -> None:
        """Raise AdapterError unless the prompt is as wide as the model's embeddings."""
        if self.width != width:
            raise AdapterError(
                f"The prompt {self.name} is {self.width} wide and {model}'s embeddings are {width} wide; name the model that it was trained on with --model."
            )


def check_size(path: Path) -> None:
    """Refuse a file that is too large to be a soft prompt, before it is read."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise AdapterError(
            f"The file {path} has {size:,} bytes and a soft prompt at most {MAX_BYTES:,}; give the prompt alone, not the model."
        )


def checked_embeddings(array: np.ndarray, path: Path, *, what: str = "virtual tokens") -> np.ndarray:
    """The array as (n, d) float32.

    Raises
    ------
    AdapterError
        It is not two-dimensional, not of floats, empty, or holds NaN or infinity.
    """
    if array.dtype.kind != "f":
        raise AdapterError(f"The array in {path} holds {array.dtype}; {what} are floating-point numbers.")
    if array.ndim != 2 or 0 in array.shape:
        raise AdapterError(f"The array in {path} has the shape {array.shape}; {what} have the shape (tokens, width), neither of them 0.")
    if len(array) > MAX_TOKENS:
        raise AdapterError(
            f"The array in {path} has {len(array):,} rows and a soft prompt at most {MAX_TOKENS:,}; a vocabulary or a transposed array, perhaps."
        )
    bad = ~np.isfinite(array)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise AdapterError(
            f"The array in {path} holds NaN or infinity ({int(bad.sum())} values, the first in row {row}, column {column}); the training diverged or the file is damaged."
        )
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(result).all():
        raise AdapterError(f"The array in {path} holds values beyond the range of float32; the training diverged or the file is damaged.")
    return result


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
