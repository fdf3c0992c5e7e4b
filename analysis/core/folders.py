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
from typing import BinaryIO

import platformdirs

from soft_prompt_explorer.analysis.core.errors import InputError

APP_NAME = "soft-prompt-explorer"
_PARTIAL = ".spe-partial-"  # what is being written; no other program's files are called so


def cache_folder() -> Path:
    """The folder for what can be made again; `SOFT_PROMPT_EXPLORER_CACHE` names another one."""
    override = os.environ.get("SOFT_PROMPT_EXPLORER_CACHE")
    return Path(override) if override else platformdirs.user_cache_path(APP_NAME)


def file_state(path: Path) -> tuple[int, int, int, int] | None:
    """Size, times and inode of a file: any change of it changes one of them. None where there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


_temporary: list[tempfile.TemporaryDirectory] = []  # at most one


def temporary_folder() -> Path:
    """A folder that goes when this process ends, for what the cache folder has no room for."""
    if not _temporary:
        _temporary.append(tempfile.TemporaryDirectory(prefix=f"{APP_NAME}-"))
    return Path(_temporary[0].name)


def cache_folders() -> list[Path]:
    """The cache folder, and the temporary one if this process has needed it."""
    return [cache_folder(), *(Path(folder.name) for folder in _temporary)]


@contextmanager
def appears_whole(folder: Path) -> Iterator[Path]:
    """Hand out an empty folder beside `folder`, and rename it to `folder` only if the block ends well.

    A reader therefore never sees a half-written folder, nor does anybody after the power has failed: what is in it reaches the disk before its name
    does. A block that raises, or a process that is killed, leaves at most a hidden `.spe-partial-*` folder, which the next call removes once it
    is a day old.

    Raises
    ------
    FileExistsError
        `folder` exists (checked again at the rename: nothing is overwritten).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_old_partials(folder.parent)
    if folder.exists():
        raise FileExistsError(folder)
    partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder.parent))
    try:
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                path.chmod(0o644)  # some writers make private files; the folder is as shared as its parent
                sync(path)
        for path in partial.rglob("*"):
            if path.is_dir():
                sync(path)
        partial.chmod(0o755)
        sync(partial)
        try:
            partial.rename(folder)
        except OSError as error:  # not empty: somebody else's appeared meanwhile
            raise (FileExistsError(folder) if folder.exists() else error) from error
        sync(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, also after a power failure; an older one of that name is replaced."""
    with file_appears_whole(path) as file:
        file.write(content)


@contextmanager
def file_appears_whole(path: Path) -> Iterator[BinaryIO]:
    """Hand out a file beside `path` to write to, and rename it to `path` only if the block ends well; see `appears_whole`."""
    _remove_old_partials(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_PARTIAL)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
        sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process is in a block of this lock. Where the lock cannot be written, neither can what it guards: then nobody waits."""
    from filelock import FileLock

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:
        pass
    try:
        yield
    finally:
        lock.release()


def remove_at_once(path: Path) -> None:
    """Take a folder or file away: at once for everybody who looks for it by its name, then what is in it."""
    gone = path.rename(path.with_name(f"{_PARTIAL}{os.getpid()}-{time.monotonic_ns()}"))
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink()


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # there a folder cannot be opened, and its names are written with it
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    for partial in parent.glob(f"{_PARTIAL}*"):
        try:
            if time.time() - partial.stat().st_mtime > 24 * 3600:
                if partial.is_dir():
                    shutil.rmtree(partial, ignore_errors=True)
                else:
                    partial.unlink()
        except OSError:  # gone meanwhile, or somebody else's: what is written now does not depend on it
            continue


GALLERY = Path(__file__).parents[2] / "trained_prompts" / "gallery"


def runs_folder() -> Path:
    """The folder of the person's own runs; `SOFT_PROMPT_EXPLORER_RUNS` names another one."""
    override = os.environ.get("SOFT_PROMPT_EXPLORER_RUNS")
    return Path(override) if override else platformdirs.user_data_path(APP_NAME) / "runs"
