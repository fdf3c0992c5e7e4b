"""What a link may open: what is in the folders that whoever started the dashboard opened to it, and models that are on this machine by their names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import runs_folder
from soft_prompt_explorer.analysis.models import hub
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_ALIASES
from soft_prompt_explorer.analysis.models.names import is_hub_id
from soft_prompt_explorer.analysis.models.packaged import PACKAGED
from soft_prompt_explorer.analysis.models.weights import is_prepared

VARIABLE = "SOFT_PROMPT_EXPLORER_FOLDERS"


def allowed_folders() -> list[Path]:
    """The folders named by the environment, links followed; none by default."""
    named = os.environ.get(VARIABLE, "").split(os.pathsep)
    return [path.resolve() for path in (Path(name).expanduser() for name in named if name) if path.is_dir()]


def folders_and_runs() -> list[Path]:
    """The allowed folders, and that of the person's own runs, from which the pages read anyway."""
    return [*allowed_folders(), runs_folder().resolve()]


def allowed_path(text: str, folders: Sequence[Path] | None = None) -> Path:
    """A path that a person typed, absolute or from an allowed folder on, links followed.

    Parameters
    ----------
    folders : that are allowed, links followed; `allowed_folders` when None.

    Raises
    ------
    InputError
        It is not in an allowed folder, something in it is a link that leads out of them, or there is no such thing.
    """
    folders = allowed_folders() if folders is None else folders
    for folder in folders:
        try:
            path = (folder / text.strip()).resolve(strict=True)  # an absolute path replaces the folder
            if _stays_within(path, folders):
                return path
        except (OSError, RuntimeError, ValueError):
            continue
        break
    shown = ", ".join(map(str, folders))
    raise InputError(f"There is no {text.strip()[:200]!r} that may be opened; a path has to be in, and stay in, {shown}.")


def may_be_linked(model: str) -> bool:
    """Whether a link alone may name this model: nothing is fetched for it, and no path outside the allowed folders is looked at."""
    if model in EMBEDDED_ALIASES:
        return True
    try:
        if model in PACKAGED:
            return is_prepared(model)
        if Path(model).is_absolute():  # a relative one would be looked for elsewhere
            return allowed_path(model).exists()
    except InputError:
        return False
    return is_hub_id(model) and hub.is_at_hand(model)


def _stays_within(path: Path, folders: Sequence[Path]) -> bool:
    """Whether it, and what a folder holds, is in these folders; one that is not is not looked into."""
    return _is_within(path, folders) and (not path.is_dir() or all(_is_within(entry.resolve(), folders) for entry in path.iterdir()))


def _is_within(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
