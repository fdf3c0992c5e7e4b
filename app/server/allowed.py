"""What a link may open: what is in the folders that whoever started the dashboard opened to it, and models that are on this machine by their names."""

from __future__ import annotations

import os
from pathlib import Path

from soft_prompt_explorer.analysis.core.errors import InputError
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


def allowed_path(text: str) -> Path:
    """A path that a person typed, absolute or from an allowed folder on, links followed.

    Raises
    ------
    InputError
        It is not in an allowed folder, something in it is a link that leads out of them, or there is no such thing.
    """
    folders = allowed_folders()
    for folder in folders:
        try:
            path = (folder / text.strip()).resolve(strict=True)  # an absolute path replaces the folder
        except (OSError, RuntimeError, ValueError):
            continue
        inside = [path, *(path.iterdir() if path.is_dir() else [])]
        if all(_is_within(entry.resolve(), folders) for entry in inside):
            return path
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


def _is_within(path: Path, folders: list[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
