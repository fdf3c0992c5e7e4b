"""Where caches live on this machine, how a folder or file appears whole or not at all, and how a small one is read."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from analysis.errors import InputError

APP_NAME = "soft-prompt-explorer"


def cache_folder() -> Path:
    """The folder for what can be made again; `SOFT_PROMPT_EXPLORER_CACHE` names another one."""
    override = os.environ.get("SOFT_PROMPT_EXPLORER_CACHE")
    return Path(override) if override else platformdirs.user_cache_path(APP_NAME)


@contextmanager
def appears_whole(folder: Path) -> Iterator[Path]:
    """Hand out an empty folder beside `folder`, and rename it to `folder` only if the block ends well.

    A reader therefore never sees a half-written folder. A block that raises, or a process that is killed, leaves at most
    a hidden `.partial-*` folder, which the next call removes once it is a day old.

    Raises
    ------
    FileExistsError
        `folder` exists (checked again at the rename: nothing is overwritten).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_old_partials(folder.parent)
    if folder.exists():
        raise FileExistsError(folder)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                path.chmod(0o644)  # some writers make private files; the folder is as shared as its parent
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        partial.chmod(0o755)
        try:
            partial.rename(folder)
        except OSError as error:  # not empty: somebody else's appeared meanwhile
            raise (FileExistsError(folder) if folder.exists() else error) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all; an older one of that name is replaced."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_json_object(path: Path, refusal: type[InputError]) -> dict:
    """The JSON object in a file.

    Raises
    ------
    InputError
        Of the kind `refusal`: the file is not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise refusal(f"The file {path} is not JSON; copy or download it again.") from error
    if not isinstance(content, dict):
        raise refusal(f"The file {path} is not a JSON object; copy or download it again.")
    return content


def _remove_old_partials(parent: Path) -> None:
    for partial in parent.glob(".partial-*"):
        try:
            if time.time() - partial.stat().st_mtime > 24 * 3600:
                if partial.is_dir():
                    shutil.rmtree(partial, ignore_errors=True)
                else:
                    partial.unlink()
        except FileNotFoundError:
            continue
