"""A disk without room, as a process sees it."""

import os
import resource
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.damage import files_in
from tests.support.places import names_in


@contextmanager
def files_limited_to(size: int):
    """As on a full disk, writing past `size` bytes of a file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def fresh_cache(monkeypatch, folder: Path):
    with monkeypatch.context() as patched:
        patched.setenv("SOFT_PROMPT_EXPLORER_CACHE", str(folder))
        yield folder


@contextmanager
def a_file_in_its_place(cache: Path, model: Path):
    cache.write_text("a file where the folder should be")
    yield
    assert cache.read_text() == "a file where the folder should be"


@contextmanager
def a_full_disk(cache: Path, model: Path):
    with files_limited_to(0):
        yield
    assert not cache.exists() or files_in(cache) == []


@contextmanager
def a_read_only_folder(cache: Path, model: Path):
    """Nobody's process, where root runs the tests: root may write anywhere."""
    cache.mkdir()
    cache.chmod(0o555)
    above = {folder for path in (cache, model / "x") for folder in path.parents if folder.is_relative_to(tempfile.gettempdir())}
    modes = {folder: folder.stat().st_mode for folder in above}
    root = os.geteuid() == 0
    try:
        if root:
            for file in model.iterdir():
                file.chmod(0o644)
            for folder in above:
                folder.chmod(modes[folder] | 0o055)
            os.seteuid(65534)
        with pytest.raises(PermissionError):
            (cache / "x").touch()
        yield
    finally:
        if root:
            os.seteuid(0)
            for folder, mode in modes.items():
                folder.chmod(mode)
        cache.chmod(0o755)
    assert names_in(cache) == []
