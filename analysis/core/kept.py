"""What is computed once and kept on disk: checked when it is read, made again when it is damaged, done without where it cannot be kept.

A cache may make an answer quicker, and must never make it another one. So each kept file says what it is and carries a checksum of all its bytes, and
is read only where both are right; whatever else lies there (a damaged file, half of one, an empty one, an older version's, another vocabulary's) counts
as nothing, and is replaced. Where nothing can be kept (a full disk, a folder that may not be written), the answer is computed each time.

The checksum is zlib's CRC-32, at two gigabytes a second: any single flipped bit and any run of up to 32 bits changes it, and of other damage one case
in four billion does not. It guards against damage and not against a person, who could write a checksum too.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import (
    appears_whole,
    cache_folder,
    cache_folders,
    file_appears_whole,
    remove_at_once,
    temporary_folder,
    write_whole,
)

if TYPE_CHECKING:
    import pandas as pd

CHECKSUMS = "checksums.json"
READ_WHOLE_UP_TO = 1 << 24  # bytes; larger files are memory-mapped
CHECKED_DAILY_ABOVE = 1 << 30  # bytes; smaller files are checked by every process that reads them
_A_DAY = 24 * 3600
_A_MOMENT = 2.0  # seconds: a change so soon after another one may leave a file's times as they were
_BLOCK = 1 << 20
_ALIGNED = 64
_CHECKED = ".checked"
_FIRST_LINE = "soft-prompt-explorer kept 1 crc32 {:08x}\n"  # raise the number when the layout of the file changes
_checked: dict[Path, tuple] = {}  # how the large files looked that this process has checked
_told: set[Path] = set()  # folders of which this process has said that nothing can be kept in them


@dataclass(frozen=True)
class Blocks:
    """An array that is handed out in blocks of rows, as often as asked, because it is too large to be held in memory."""

    dtype: np.dtype
    shape: tuple[int, ...]
    blocks: Callable[[], Iterable[np.ndarray]]

    def whole(self) -> np.ndarray:
        array, start = np.empty(self.shape, self.dtype), 0
        for block in self.blocks():
            array[start : start + len(block)] = block
            start += len(block)
        return array


class KeptArrays:
    """Named arrays in one file of a cache folder, `<folder>/<name>.kept`.

    The file is a line with the checksum of all that follows; a line of JSON that says which folder's, which name's and which version's arrays these are,
    with the dtype, the shape and the place of each; and the arrays, row by row. It is written beside its place and renamed, so that there is one file
    or none. Up to 16 MB it is read whole each time, so that what was checked is what is used. A larger one is memory-mapped, and is checked once in a
    process for as long as its inode, size and times stay. Above 1 GB a check takes seconds, so that one is good for all processes for a day, for as
    long as inode, size and times stay (a file `<name>.checked` says so): what is missed there until the next day is only what changes on the disk
    without the system's writing to the file, which always sets its ctime.

    Parameters
    ----------
    folder : where it is kept; None to keep nothing. Its own name is a part of what the file says that it is.
    version : of the content. It is to be another one when the same computation would answer otherwise.
    shapes : of arrays without which, or in other shapes, what is kept counts as nothing; None in a shape is any number.
    """

    def __init__(
        self, folder: Path | None, name: str, version: int | str, *, shapes: Mapping[str, tuple[int | None, ...]] | None = None
    ) -> None:
        self.path = None if folder is None else folder / f"{name}.kept"
        self._shapes = shapes or {}
        self._label = {} if folder is None else {"folder": folder.name, "name": name, "version": version}

    def get(self, compute: Callable[[], Mapping[str, np.ndarray | Blocks]]) -> dict[str, np.ndarray]:
        """The kept arrays; where there are none, those of `compute`, which are kept if that is possible.

        Whatever `compute` raises is raised. `Blocks` are gone through while they are written, and once more if that fails.
        """
        kept = self.read()
        if kept is None:
            made = compute()
            self.keep(made)
            kept = self.read() or {name: _in_rows(array) for name, array in made.items()}
        return kept

    def read(self) -> dict[str, np.ndarray] | None:
        """What is kept, where it is whole and what it should be; else None. Arrays of a large file are memory-mapped, to read only."""
        if self.path is None:
            return None
        try:
            with self.path.open("rb") as file:
                large = os.fstat(file.fileno()).st_size > READ_WHOLE_UP_TO
                return self._mapped(file) if large else self._in_memory(file)
        except OSError:  # there is none, or the disk does not give it back
            return None

    def keep(self, arrays: Mapping[str, np.ndarray | Blocks]) -> None:
        """Keep arrays, in the place of what was kept before. Where that is not possible nothing is kept, and a warning is logged once."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():  # whoever put it there: no file could take its place
                remove_at_once(self.path)
            with file_appears_whole(self.path) as file:
                _write(file, self._label, arrays)
        except OSError as error:
            not_kept(self.path.parent, error)

    def _in_memory(self, file: BinaryIO) -> dict[str, np.ndarray] | None:
        content = bytearray(file.read())
        start = len(_FIRST_LINE.format(0))
        if content[:start] != _FIRST_LINE.format(zlib.crc32(memoryview(content)[start:])).encode():
            return None
        end = content.index(b"\n", start) + 1
        places = self._places(bytes(content[start:end]))
        if places is None:
            return None
        return {name: np.frombuffer(content, dtype, math.prod(shape), end + place).reshape(shape) for name, dtype, shape, place in places}

    def _mapped(self, file: BufferedReader) -> dict[str, np.ndarray] | None:
        first = file.readline(len(_FIRST_LINE.format(0)))
        crc = first[-9:-1].decode("latin-1")
        if first != _FIRST_LINE.replace("{:08x}", crc).encode("latin-1") or not _goes_on_with(file, crc):
            return None
        header = file.readline()
        places = self._places(header)
        if places is None:
            return None
        start = len(first) + len(header)
        return {
            name: np.memmap(file, dtype, "r", start + place, shape) if math.prod(shape) else np.empty(shape, dtype)
            for name, dtype, shape, place in places
        }

    def _places(self, header: bytes) -> list[tuple[str, np.dtype, tuple[int, ...], int]] | None:
        """Name, dtype, shape and place after the header of each array, by a header whose checksum is right; None where it is another thing's."""
        label, arrays = json.loads(header)
        shapes = {name: shape for name, _, shape, _ in arrays}
        if label != self._label or not all(name in shapes and _is_like(shapes[name], wanted) for name, wanted in self._shapes.items()):
            return None
        return [(name, np.dtype(dtype), tuple(shape), place) for name, dtype, shape, place in arrays]


def as_array(table: pd.DataFrame) -> np.ndarray:
    """A table as `KeptArrays` can keep it: the bytes of its Parquet, which holds the types of its columns."""
    from soft_prompt_explorer.analysis.core.export import to_parquet

    return np.frombuffer(to_parquet(table), dtype=np.uint8)


def as_table(array: np.ndarray) -> pd.DataFrame:
    """The table that `as_array` was given."""
    import pandas as pd

    return pd.read_parquet(io.BytesIO(array.tobytes()))


class KeptFiles:
    """The files of a folder that other code reads by their names (a model's), and the checksum that each had when it was written.

    The checksums are in a file of their own beside them. A file is checked once in a process for as long as its inode, size and times stay; above 1 GB,
    once a day for as long as they stay: see `KeptArrays` for what that misses.

    Parameters
    ----------
    name : what the folder is to be called when it is complete; its files are taken for nothing else's.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def are_whole(self) -> bool:
        """Whether every file is there and as it was written, and none beside them."""
        written = self._written()
        return bool(written) and set(self._there()) == set(written) and all(map(self.is_whole, written))

    def is_whole(self, file: str) -> bool:
        """Whether this file is there and as it was written."""
        crc = self._written().get(file)
        try:
            with (self.folder / file).open("rb") as content:
                return crc is not None and _goes_on_with(content, crc)
        except OSError:
            return False

    def written(self, file: str, crc: int) -> None:
        """Remember the CRC-32 of the bytes that were written to this file."""
        self._remember(self._written() | {file: f"{crc:08x}"})

    def all_written(self) -> None:
        """Remember the checksums of all files of the folder, as they are now."""
        files = {}
        for name in self._there():
            with (self.folder / name).open("rb") as file:
                files[name] = f"{checksum(file):08x}"
        self._remember(files)

    def remove_others(self) -> None:
        """Remove the files beside those whose checksums are known."""
        for file in set(self._there()) - set(self._written()):
            (self.folder / file).unlink()

    def _there(self) -> list[str]:
        paths = (path for path in self.folder.rglob("*") if path.is_file() and path.name != CHECKSUMS and path.suffix != _CHECKED)
        return sorted(path.relative_to(self.folder).as_posix() for path in paths)

    def _written(self) -> dict[str, str]:
        try:
            name, files = json.loads((self.folder / CHECKSUMS).read_bytes())
            return dict(files) if name == self.name else {}
        except (OSError, ValueError, TypeError, RecursionError):  # there is none, or it is damaged
            return {}

    def _remember(self, files: dict[str, str]) -> None:
        write_whole(self.folder / CHECKSUMS, json.dumps([self.name, files]).encode("ascii"))


def whole_folder(room: str, name: str) -> Path | None:
    """The folder of a cache that `make_folder` made, if all files in it are as they were written; see `KeptFiles`."""
    places = (cache / room / name for cache in cache_folders())
    return next((place for place in places if KeptFiles(place, name).are_whole()), None)


def make_folder(room: str, name: str, write: Callable[[Path], None]) -> Path | None:
    """The folder `<cache>/<room>/<name>` with what `write` writes into it, in the place of a damaged one.

    Where the cache has no room for it, which is logged, the folder stands among the temporary files until this process ends; where there is no room
    either, the answer is None. What `write` raises counts as want of room, for the writers of weights and of tokenizers each raise a kind of their own
    of a full disk; but an `InputError` is raised.
    """
    for root in (cache_folder, temporary_folder):
        try:
            folder = root() / room / name
            if folder.exists():
                remove_at_once(folder)
            with appears_whole(folder) as partial:
                write(partial)
                KeptFiles(partial, name).all_written()
            return folder
        except InputError:
            raise
        except Exception as error:
            not_kept(cache_folder() / room, error)
    return None


def checksum(file: BufferedReader, size: int | None = None) -> int:
    """The CRC-32 of what is left to read of an open file, or of so many bytes of it; of fewer where it ends before."""
    crc, buffer = 0, memoryview(bytearray(_BLOCK))
    while count := file.readinto(buffer if size is None else buffer[: max(size, 0)]):
        crc = zlib.crc32(buffer[:count], crc)
        size = None if size is None else size - count
    return crc


def not_kept(folder: Path, error: Exception) -> None:
    """Tell whoever reads the log, once, that nothing can be kept in a folder."""
    if folder not in _told:
        _told.add(folder)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        logging.getLogger(__name__).warning(
            "Nothing can be kept in %s (%s), so that it is computed each time; make room there, or name another folder with "
            "SOFT_PROMPT_EXPLORER_CACHE.",
            folder,
            reason,
        )


def _write(file: BinaryIO, label: dict, arrays: Mapping[str, np.ndarray | Blocks]) -> None:
    places, end = [], 0
    for name, array in arrays.items():
        places.append((name, np.dtype(array.dtype).str, array.shape, end))
        end += _padded(math.prod(array.shape) * np.dtype(array.dtype).itemsize)
    header = json.dumps([label, places]).encode("ascii")
    first = len(_FIRST_LINE.format(0))
    header += b" " * (_padded(first + len(header) + 1) - first - len(header) - 1) + b"\n"
    file.write(bytes(first))
    crc = 0
    for piece in _pieces(header, arrays.values()):
        file.write(piece)
        crc = zlib.crc32(piece, crc)
    file.seek(0)
    file.write(_FIRST_LINE.format(crc).encode("ascii"))


def _in_rows(array: np.ndarray | Blocks) -> np.ndarray:
    """In memory, row by row as on the disk: products of arrays in another order may differ in their last bit."""
    return array.whole() if isinstance(array, Blocks) else np.asarray(array, order="C")


def _pieces(header: bytes, arrays: Iterable[np.ndarray | Blocks]) -> Iterator[bytes | memoryview]:
    yield header
    for array in arrays:
        size = 0
        for block in array.blocks() if isinstance(array, Blocks) else [array]:
            content = np.ascontiguousarray(block, dtype=array.dtype)
            size += content.nbytes
            yield content.reshape(-1).view(np.uint8).data
        yield bytes(_padded(size) - size)


def _is_like(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(b is None or a == b for a, b in zip(shape, wanted, strict=True))


def _padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _goes_on_with(file: BufferedReader, crc: str) -> bool:
    """Whether the rest of an open file has this checksum. It is not read where it was checked before and looks as it did then."""
    path, stat = Path(file.name), os.fstat(file.fileno())
    looks = (crc, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    large = stat.st_size > CHECKED_DAILY_ABOVE
    if _checked.get(path) == looks or (large and _checked_today(path, looks)):
        return True
    begin = file.tell()
    right = f"{checksum(file):08x}" == crc
    file.seek(begin)
    if right and time.time() - stat.st_ctime > _A_MOMENT:
        _checked[path] = looks
        if large:
            with suppress(OSError):  # then it is checked again the next time
                write_whole(_checked_file(path), json.dumps([time.time(), looks]).encode("ascii"))
    return right


def _checked_today(path: Path, looks: tuple) -> bool:
    try:
        when, looked = json.loads(_checked_file(path).read_bytes())
        return tuple(looked) == looks and 0 <= time.time() - when < _A_DAY
    except (OSError, ValueError, TypeError, RecursionError):  # there is none, or it is damaged
        return False


def _checked_file(path: Path) -> Path:
    return path.with_name(path.name + _CHECKED)
