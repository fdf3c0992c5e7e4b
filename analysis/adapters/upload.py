"""Files that arrive as bytes, for instance dropped on a page. Their names are shown, never used as paths."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from analysis.adapters import load_adapter, peft_folder
from analysis.adapters.safetensors_file import read_header
from analysis.adapters.soft_prompt import MAX_BYTES, SoftPrompt
from analysis.errors import AdapterError


def load_uploaded(files: Sequence[tuple[str, bytes]], *, name: str | None = None) -> SoftPrompt:
    """Read the soft prompt that one or several uploaded files make up.

    Parameters
    ----------
    files : (name, content) of a `.npy`, a `.safetensors`, or the files of one PEFT folder, whatever they are called.
    name : what the prompt is called; made from the first file's name when None.

    Raises
    ------
    AdapterError
    """
    if not files:
        raise AdapterError("No file was given; choose a .npy, a .safetensors, or the files of a PEFT folder.")
    if sum(len(content) for _, content in files) > MAX_BYTES:
        raise AdapterError(
            f"The files are larger than {MAX_BYTES:,} bytes together, more than a soft prompt needs; give the prompt alone, not the model."
        )
    name = name or (_label(files[0][0]) if len(files) == 1 else "uploaded")
    with tempfile.TemporaryDirectory() as folder:
        if len(files) == 1:
            path = Path(folder) / "uploaded"
            path.write_bytes(files[0][1])
            return _renamed(load_adapter, path, name, files[0][0])
        for file_name, content in _of_one_adapter(files):
            path = Path(folder) / _role(file_name, content, Path(folder))
            if path.exists():
                raise AdapterError(f"Several of the files are a {path.name}; give the files of one adapter at a time.")
            path.write_bytes(content)
        return _renamed(load_adapter, Path(folder), name, "the uploaded files")


def _of_one_adapter(files: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Where the files bear PEFT's own names, those alone: a whole folder holds a card and more beside them."""
    known = [(name, content) for name, content in files if name in (peft_folder.CONFIG, peft_folder.WEIGHTS, peft_folder.INITIAL)]
    return known if len(known) >= 2 else list(files)


def _role(file_name: str, content: bytes, folder: Path) -> str:
    """Which file of a PEFT folder this is, by its content."""
    if content[:1] == b"{":
        try:
            if isinstance(json.loads(content), dict):
                return peft_folder.CONFIG
        except (ValueError, RecursionError):
            pass
    elif content[8:9] == b"{":
        probe = folder / "probe"
        probe.write_bytes(content)
        try:
            return peft_folder.INITIAL if "initial" in read_header(probe) else peft_folder.WEIGHTS
        finally:
            probe.unlink()
    raise AdapterError(
        f"The file {_label(file_name)} is neither an adapter's config nor safetensors; together with others, those of one PEFT folder are expected."
    )


def _renamed(load, path: Path, name: str, shown: str) -> SoftPrompt:
    try:
        return load(path, name=name)
    except AdapterError as error:  # the person knows the file by its own name, not by where it was put
        raise AdapterError(str(error).replace(str(path), shown)) from error


def _label(file_name: str) -> str:
    stem = Path(file_name.replace("\\", "/")).name.rsplit(".", 1)[0]
    return "".join(c for c in stem if c.isprintable())[:64] or "uploaded"
