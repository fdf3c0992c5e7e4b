"""Where adapters lie: what a person wrote for a path, a file, a folder, a glob or a name of the hub, as the places of single adapters, each with a name that tells it from the others."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from soft_prompt_explorer.analysis.adapters import foreign_config, hub_adapter
from soft_prompt_explorer.analysis.adapters.hub_adapter import WHOLE_MODEL
from soft_prompt_explorer.analysis.adapters.opening import CONFIG, ENDINGS, HALVES, INITIAL, KOBOLD, WEIGHTS, format_of
from soft_prompt_explorer.analysis.adapters.recorded import TRAJECTORY
from soft_prompt_explorer.analysis.core.errors import AdapterError

MOST_PLACES = 10_000
# What training leaves beside an adapter: ours, and transformers' Trainer.
_NEVER = (INITIAL, TRAJECTORY, "training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state.pth")
_LETTERS = "*?["  # that make a glob


@dataclass(frozen=True)
class Place:
    """Where one adapter lies.

    Attributes
    ----------
    path : what `load_adapter` reads.
    said : the same as it stands in tables: the path, or the name on the hub.
    name : what the adapter is called.
    found : whether it was found in a folder or by a glob; one that was named is refused where it cannot be read, one that was found is left out.
    """

    path: Path
    said: str
    name: str
    found: bool = False


def places_of(given: Sequence[Path], *, from_hub: Callable[[str, str | None], Path], names: Sequence[str] = ()) -> list[Place]:
    """The adapters that paths name, in their order, each under a name of its own.

    Parameters
    ----------
    given : files, folders that hold an adapter, folders of adapters, globs, and `owner/name` or `owner/name/file` of the hub; what is on this machine wins.
    from_hub : answers where an adapter of the hub lies on this machine, by its name and file.
    names : one for each adapter; the shortest that tell their paths apart where there are none.

    Raises
    ------
    AdapterError
        A glob or a folder names nothing, there are too many, or the names do not go with the adapters.
    """
    places: list[tuple[Path, str, bool]] = []
    for path in given:
        if os.path.exists(path):  # noqa: PTH110 - it never raises, however odd the name
            several = adapters_in(path)
        elif any(letter in str(path) for letter in _LETTERS):
            several = [each for match in matches(str(path)) for each in _at(match)]
            if not several:
                raise AdapterError(f"{path} names no file or folder that could be an adapter; check the spelling.")
        elif (parts := hub_adapter.parts_of(path)) is not None:
            places.append((from_hub(*parts), path.as_posix(), False))
            continue
        else:
            several = None
        places += [(path, str(path), False)] if several is None else [(each, str(each), True) for each in several]
        if len(places) > MOST_PLACES:
            raise AdapterError(f"These are more than {MOST_PLACES:,} adapters; give fewer, or read them with the command batch.")
    called = _checked(names, len(places)) if names else _told_apart([said for _, said, _ in places], [path for path, _, _ in places])
    return [Place(path, said, name, found) for (path, said, found), name in zip(places, called, strict=True)]


def folders_of(given: Sequence[Path], *, names: Sequence[str] = ()) -> list[Place]:
    """The folders that paths and globs name, each as it is: `places_of` of runs that are looked at whole, with all that their training left.

    Raises
    ------
    AdapterError
        A glob names nothing, or the names do not go with the folders.
    """
    places: list[tuple[Path, bool]] = []
    for path in given:
        is_glob = not os.path.exists(path) and any(letter in str(path) for letter in _LETTERS)  # noqa: PTH110 - as above
        found = [each for each in matches(str(path)) if each.is_dir()] if is_glob else []
        if is_glob and not found:
            raise AdapterError(f"{path} names no folder; check the spelling.")
        places += [(each, True) for each in found] or [(path, False)]
    called = _checked(names, len(places)) if names else _told_apart([str(path) for path, _ in places], [path for path, _ in places])
    return [Place(path, str(path), name, found) for (path, found), name in zip(places, called, strict=True)]


def matches(pattern: str) -> list[Path]:
    """The files and folders that a glob names, `**` for any number of folders; hidden ones only where the glob says so."""
    return [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 - Path.glob takes no absolute pattern


def adapters_in(path: Path) -> list[Path] | None:
    """The adapters in a folder of adapters, at any depth; None of a file, and of a folder that is one adapter, or holds nothing that could be one.

    What lies below an adapter, such as the checkpoints of its training, is left out.

    Raises
    ------
    AdapterError
        The folder cannot be looked into.
    """
    try:
        if not path.is_dir() or _is_adapter(path):
            return None
        inside = sorted(islice(_below(path), MOST_PLACES + 1))
    except OSError as error:
        raise AdapterError(f"{path} cannot be looked into: {error.strerror or error}.") from error
    alone = len(inside) == 1 and inside[0].parent == path and inside[0].is_file()
    return None if alone or not inside else inside


def _told_apart(said: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """A name for each path: its own, led by as many of its folders as tell it from the others: `run1/final`, `run2/final`.

    A file's ending stands in its name only where nothing else tells it from another. Of one path given twice both keep the same name; `distinct` numbers them.
    `said` are the paths as they stand in tables: of the hub others, and in `owner/name` nothing is an ending.
    """
    whole = [Path(each).parts for each in said]
    short = []
    for parts, path, each in zip(whole, paths, said, strict=True):
        ends = len(parts) > 2 if str(path) != each else bool(parts) and not path.is_dir()
        short.append((*parts[:-1], Path(parts[-1]).stem) if ends else parts)
    told = [short[i] if short.count(short[i]) == whole.count(whole[i]) else whole[i] for i in range(len(whole))]
    names = []
    for own in told:
        others = [other for other in told if other != own]
        most = len(own)
        length = next((n for n in range(1, most) if all(other[-n:] != own[-n:] for other in others)), most)
        names.append(str(Path(*own[-length:])) if own else "")
    return names


def _checked(names: Sequence[str], count: int) -> list[str]:
    if len(names) != count:
        raise AdapterError(f"There are {len(names)} names for {count} adapters; give one for each, in their order.")
    if len(set(names)) < len(names):
        again = next(name for name in names if names.count(name) > 1)
        raise AdapterError(f"The name {again!r} is given to several adapters; give each its own.")
    return list(names)


def _at(path: Path) -> list[Path]:
    """What a glob found, as adapters: none where it is nothing that could be one."""
    several = adapters_in(path)
    if several is not None:
        return several
    if path.is_dir():
        return [path] if _is_adapter(path) or any(map(_ends_as_one, path.iterdir())) else []
    return [path] if path.is_file() and path.name not in _NEVER and (_ends_as_one(path) or format_of(path) is not None) else []


def _below(folder: Path) -> Iterator[Path]:
    """The adapters below a folder, by their paths; links to folders are not followed, hidden ones not looked into."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        if here != folder and _is_adapter(here):
            folders.clear()
            yield here
            continue
        if "config.json" in files:  # a whole model: its weights are no adapter
            files = [each for each in files if not WHOLE_MODEL.fullmatch(each)]
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        yield from (here / name for name in sorted(files) if _ends_as_one(here / name))


def _is_adapter(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return are_adapter({each.name for each in entries})


def are_adapter(names: AbstractSet[str]) -> bool:
    """Whether a folder's files say by their names that together they are one adapter."""
    return bool(names & {CONFIG, *WEIGHTS, *HALVES, *foreign_config.WEIGHTS}) or set(KOBOLD) <= names


def may_hold_one(name: str) -> bool:
    """Whether a file may hold an adapter, by its name."""
    lower = name.lower()
    return (
        not lower.startswith(".") and lower not in _NEVER and (lower.endswith(ENDINGS) or ".pth.tar-" in lower)
    )  # CoOp's is model.pth.tar-50


def _ends_as_one(path: Path) -> bool:
    return may_hold_one(path.name) and path.is_file()
