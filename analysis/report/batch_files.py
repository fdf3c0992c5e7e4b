"""Which adapters a glob or a URL names, on any file system that fsspec knows, which files each is made of, and how these come to this machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from soft_prompt_explorer.analysis.adapters import foreign_config
from soft_prompt_explorer.analysis.adapters.hub_adapter import WHOLE_MODEL
from soft_prompt_explorer.analysis.adapters.opening import CONFIG, ENDINGS, HALVES, INITIAL, KOBOLD, WEIGHTS
from soft_prompt_explorer.analysis.adapters.places import are_adapter, may_hold_one
from soft_prompt_explorer.analysis.core.errors import AdapterError, InputError
from soft_prompt_explorer.analysis.core.words import printable

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LARGEST_FETCHED = 2_000_000_000  # bytes of an adapter that is not on this machine
_OWN = frozenset({CONFIG, *WEIGHTS, *HALVES, *KOBOLD, *foreign_config.WEIGHTS})  # by whose names a folder is one adapter
_BESIDE = (INITIAL, "run.json")


class Found(NamedTuple):
    """A file or a folder that may be an adapter: where it is, the paths of the files that it is made of, their size, and what changes when one of them does."""

    url: str
    files: tuple[str, ...]
    size: int
    state: str


def find(pattern: str) -> list[Found]:
    """The adapters that a glob or a URL names: files by their endings, and folders of PEFT as one each.

    What lies below an adapter, such as the checkpoints of its training, is left out, and so is what a training leaves beside it.

    Parameters
    ----------
    pattern : a path or a URL, with `*`, `?`, `[…]` and `**`; a folder stands for all that is in it.

    Raises
    ------
    InputError
        It names nothing, or the file system is not known or not installed.
    """
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(pattern)
        named, known = _files(fs, path)
    except (ValueError, ImportError, OSError) as error:
        raise InputError(f"{pattern} cannot be looked at: {str(error).rstrip('.')}.") from error
    in_folder: dict[str, set[str]] = defaultdict(set)
    for each in known:
        folder, _, name = each.rpartition("/")
        in_folder[folder].add(name)
    whole = {folder for folder, names in in_folder.items() if are_adapter(names)}
    found = {}
    for each in sorted(named):
        folder, _, name = each.rpartition("/")
        if _is_below(folder, whole) or (folder in whole and name not in _OWN):
            continue
        if folder in whole:
            place, files = folder, _of_folder(in_folder[folder])
        elif may_hold_one(name) and not ("config.json" in in_folder[folder] and WHOLE_MODEL.fullmatch(name)):
            place, files = each, _of_file(name, in_folder[folder])
        else:
            continue
        if place not in found:
            paths = [f"{folder}/{file}" for file in files]
            size = sum(int(known[file].get("size") or 0) for file in paths)
            found[place] = Found(fs.unstrip_protocol(place), tuple(paths), size, "; ".join(_state(known[file]) for file in paths))
    if not found:
        raise InputError(f"{pattern} names no file or folder that could be an adapter; give a glob such as 'adapters/*'.")
    return list(found.values())


def _files(fs: AbstractFileSystem, path: str) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The files that a pattern names, itself or by their folder, and what is told of each and of those beside it."""
    listed = fs.glob(path, detail=True) if any(letter in path for letter in "*?[") else fs.find(path, withdirs=False, detail=True)
    if not listed and fs.exists(path):
        listed = {path: fs.info(path)}
    listed = {name: info or fs.info(name) for name, info in listed.items()}  # of a file by HTTP nothing is listed
    inside = not any(letter in path for letter in "*?[") and path not in listed
    named = [name for name, info in listed.items() if info["type"] == "file" and not (inside and _is_hidden(name, path))]
    known = {name: listed[name] for name in named}
    for name, info in listed.items():
        if info["type"] != "file":
            below = {file: told for file, told in fs.find(name, detail=True).items() if not _is_hidden(file, name)}
            named += below
            known |= below
    if not inside:
        for folder in {name.rpartition("/")[0] for name, info in listed.items() if info["type"] == "file"}:
            known |= {told["name"]: told for told in fs.ls(folder, detail=True) if told["type"] == "file" and told["name"] not in known}
    return named, known


def _is_hidden(file: str, folder: str) -> bool:
    return any(part.startswith(".") for part in file.removeprefix(folder).split("/"))


def _is_below(folder: str, whole: Collection[str]) -> bool:
    while "/" in folder:
        folder = folder.rpartition("/")[0]
        if folder in whole:
            return True
    return False


def _of_folder(names: Collection[str]) -> list[str]:
    """Of the names of a folder's files those that its one adapter is read from."""
    needed = sorted(name for name in names if name in _OWN or name in _BESIDE)
    return [name for name in needed if name != WEIGHTS[1] or WEIGHTS[0] not in names]


def _of_file(name: str, names: Collection[str]) -> list[str]:
    """The same of a file: with its start, where it is the only one that lies beside it."""
    alone = INITIAL in names and not any(each.endswith(ENDINGS) for each in names if each not in (name, INITIAL))
    return [name, INITIAL] if alone else [name]


def _state(info: dict[str, Any]) -> str:
    told = ("mtime", "ETag", "etag", "LastModified", "Last-Modified", "last_modified", "updated", "blob_id", "created")
    changed = next((info[key] for key in told if info.get(key)), "")
    return f"{info.get('size')} {changed}"


def on_this_machine(found: Found, folder: Path) -> Path:
    """The adapter where it is, or fetched into the folder."""
    import fsspec

    fs, path = fsspec.core.url_to_fs(found.url)
    if "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        return Path(path)
    if found.size > LARGEST_FETCHED:
        raise AdapterError(f"{printable(found.url)} has {found.size:,} bytes, and {LARGEST_FETCHED:,} are the most that is fetched.")
    target = folder / path.rpartition("/")[2]
    if found.files[0] == path:
        place = folder
    else:
        target.mkdir()
        place = target
    left = LARGEST_FETCHED  # a listing need not say how large a file is
    for file in found.files:
        with fs.open(file, "rb") as source, (place / file.rpartition("/")[2]).open("wb") as copy:
            while block := source.read(1 << 20):
                left -= len(block)
                if left < 0:
                    raise AdapterError(f"{printable(found.url)} has more than {LARGEST_FETCHED:,} bytes, the most that is fetched.")
                copy.write(block)
    return target
