"""A tar, packed with gzip or not, as NeMo saves a `.nemo`: its headers are followed by counting, and one file is taken out. No name in it is used as a path."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from soft_prompt_explorer.analysis.adapters.tensors import starts_with
from soft_prompt_explorer.analysis.adapters.zip_file import MAX_FILES, MAX_UNPACKED
from soft_prompt_explorer.analysis.core.errors import AdapterError

_BLOCK = 512
_FILE = (b"0", b"\0")
_GZIP = b"\x1f\x8b"
_DAMAGED = (OSError, EOFError, zlib.error)  # what gzip raises


def reads(path: Path) -> bool:
    try:
        with _opened(path) as file:
            return file.read(_BLOCK)[257:262] == b"ustar"
    except _DAMAGED:
        return False


def unpack_one(path: Path, wanted: str, target: Path) -> bool:
    """Write the file of a name in a tar's outermost folder to `target`; whether there is one.

    Raises
    ------
    AdapterError
        The tar is damaged, or the file larger than a zip may unpack to; of one that is packed, all its files together.
    """
    packed = starts_with(path, _GZIP)
    left = MAX_UNPACKED if packed else path.stat().st_size
    try:
        with _opened(path) as file:
            for _ in range(MAX_FILES):
                header = file.read(_BLOCK)
                left -= len(header)
                if len(header) < _BLOCK or not any(header):
                    return False
                size = _size(header[124:136], path)
                if size > left:
                    if packed:
                        raise _too_large(path, wanted)
                    raise AdapterError(f"The tar {path} announces a file of {size:,} bytes with {left:,} left; download it again.")
                name = header[:100].split(b"\0")[0]
                if header[156:157] in _FILE and name in (wanted.encode(), b"./" + wanted.encode()):
                    if size > MAX_UNPACKED:
                        raise AdapterError(
                            f"The tar {path} holds a {wanted} of {size:,} bytes, at most {MAX_UNPACKED:,} are unpacked; unpack it yourself (tar -xf), and give that file."
                        )
                    with target.open("wb") as out:
                        out.write(file.read(size))
                    if packed and len(file.read(left - size + 1)) > left - size:  # whether it is damaged, only its end tells
                        raise _too_large(path, wanted)
                    return True
                whole = -(-size // _BLOCK) * _BLOCK
                file.seek(whole, 1)
                left -= whole
    except _DAMAGED as error:
        raise AdapterError(f"The tar {path} cannot be unpacked ({error}); download it again.") from error
    return False


def _too_large(path: Path, wanted: str) -> AdapterError:
    return AdapterError(
        f"The tar {path} would unpack to more than {MAX_UNPACKED:,} bytes; unpack it yourself (tar -xzf) if you trust it, and give {wanted}."
    )


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if starts_with(path, _GZIP) else path.open("rb")


def _size(octal: bytes, path: Path) -> int:
    digits = octal.strip(b" \0") or b"0"
    if not digits.isdigit() or set(digits) & set(b"89"):
        raise AdapterError(f"The tar {path} is damaged: a size in it is no number; download it again.")
    return int(digits, 8)
