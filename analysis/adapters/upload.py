"""Files that arrive as bytes, for instance dropped on a page. Their names are shown, never used as paths."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt, load_adapter
from soft_prompt_explorer.analysis.adapters.opening import CONFIG, HALVES, INITIAL, KOBOLD, WEIGHTS, format_of
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.core.words import printable

MAX_BYTES = 256 * 2**20

_KNOWN = {CONFIG, INITIAL, *WEIGHTS, *HALVES, *KOBOLD}  # names that mean something in a folder, written here and not by a stranger


def load_uploaded(files: Sequence[tuple[str, bytes]], *, name: str | None = None) -> SoftPrompt | LoraAdapter:
    """Read the adapter that one or several uploaded files make up.

    Parameters
    ----------
    files : (name, content) of one file of any known format, or the files of one adapter, whatever they are called.
    name : what it is called; made from the first file's name when None.

    Raises
    ------
    AdapterError
    """
    name = name or (label(files[0][0]) if len(files) == 1 else "uploaded")
    shown = printable(files[0][0])[:200] if len(files) == 1 else "uploaded"
    with tempfile.TemporaryDirectory() as folder:  # what is read lazily stays mapped after it is gone
        path = place(files, Path(folder))
        try:
            return load_adapter(path, name=name)
        except AdapterError as error:  # the person knows the file by its own name, not by where it was put
            raise AdapterError(str(error).replace(f"{path}/", "").replace(str(path), shown)) from error


def place(files: Sequence[tuple[str, bytes]], folder: Path) -> Path:
    """Write uploaded files into an empty folder under names of our own, and answer what `load_adapter` is to be given.

    Raises
    ------
    AdapterError
        There is no file, they are too large together, or two have the same part to play.
    """
    if not files:
        raise AdapterError("No file was given; choose one, or all the files of one adapter.")
    total = sum(len(content) for _, content in files)
    if total > MAX_BYTES:
        raise AdapterError(
            f"The files have {total:,} bytes together and an upload at most {MAX_BYTES:,}; give the path of a folder on this machine instead."
        )
    if len(files) == 1:
        (folder / "uploaded").write_bytes(files[0][1])
        return folder / "uploaded"
    for i, (file_name, content) in enumerate(_of_one_adapter(files)):
        path = folder / f"file-{i}"
        path.write_bytes(content)
        role = file_name if file_name in _KNOWN else _role(path, content)
        if role is not None:
            if (folder / role).exists():
                raise AdapterError(f"Several of the files are a {role}; give the files of one adapter at a time.")
            path.rename(folder / role)
    return folder


def label(file_name: str) -> str:
    """What an uploaded file is called in tables: the last part of its name, without the ending."""
    stem = Path(file_name.replace("\\", "/")).name.rsplit(".", 1)[0]
    return "".join(c for c in stem if c.isprintable())[:64] or "uploaded"


def _of_one_adapter(files: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Where the files bear known names, those alone: a whole folder holds a card and more beside them."""
    known = [(name, content) for name, content in files if name in _KNOWN]
    return known if len(known) >= 2 else list(files)


def _role(path: Path, content: bytes) -> str | None:
    """Which file of a PEFT folder one with another name is, by its content; None for a file that has no part in it."""
    if content[:1] == b"{" and len(content) < 2**20:
        try:
            parsed = json.loads(content)
            return CONFIG if isinstance(parsed, dict) and "peft_type" in parsed else None
        except (ValueError, RecursionError):
            return None
    reader = format_of(path)
    if reader is None:
        return None
    return INITIAL if set(reader.read(path)) == {"initial"} else WEIGHTS[0]
