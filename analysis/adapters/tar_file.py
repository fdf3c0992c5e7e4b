"""A tar that is not packed, as NeMo saves a `.nemo`: its headers are followed by counting, and one file is taken out. No name in it is used as a path."""

from __future__ import annotations

from pathlib import Path

from soft_prompt_explorer.analysis.adapters.zip_file import MAX_FILES, MAX_UNPACKED
from soft_prompt_explorer.analysis.core.errors import AdapterError

_BLOCK = 512
_FILE = (b"0", b"\0")


def reads(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(257)
        return file.read(5) == b"ustar"


def unpack_one(path: Path, wanted: str, target: Path) -> bool:
    """Write the file of a name in a tar's outermost folder to `target`; whether there is one.

    Raises
    ------
    AdapterError
        The tar is damaged, or the file larger than a zip may unpack to.
    """
    left = path.stat().st_size
    with path.open("rb") as file:
        for _ in range(MAX_FILES):
            header = file.read(_BLOCK)
            left -= len(header)
            if len(header) < _BLOCK or not any(header):
                return False
            size = _size(header[124:136], path)
            if size > left:
                raise AdapterError(f"The tar {path} announces a file of {size:,} bytes with {left:,} left; download it again.")
            name = header[:100].split(b"\0")[0]
            if header[156:157] in _FILE and name in (wanted.encode(), b"./" + wanted.encode()):
                if size > MAX_UNPACKED:
                    raise AdapterError(
                        f"The tar {path} holds a {wanted} of {size:,} bytes, at most {MAX_UNPACKED:,} are unpacked; unpack it yourself (tar -xf), and give that file."
                    )
                with target.open("wb") as out:
                    out.write(file.read(size))
                return True
            whole = -(-size // _BLOCK) * _BLOCK
            file.seek(whole, 1)
            left -= whole
    return False


def _size(octal: bytes, path: Path) -> int:
    digits = octal.strip(b" \0") or b"0"
    if not digits.isdigit() or set(digits) & set(b"89"):
        raise AdapterError(f"The tar {path} is damaged: a size in it is no number; download it again.")
    return int(digits, 8)
