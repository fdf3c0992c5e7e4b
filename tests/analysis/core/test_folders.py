"""A folder or file appears whole or not at all."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from soft_prompt_explorer.analysis.core.folders import appears_whole, cache_folder, locked, remove_at_once, write_whole
from tests.support.full_disk import files_limited_to
from tests.support.places import REPOSITORY, names_in


def visible(folder):
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def test_a_block_that_ends_well_leaves_its_files_in_the_folder(tmp_path):
    with appears_whole(tmp_path / "deep" / "run") as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "loss.csv").write_text("1,2")
    assert (tmp_path / "deep" / "run" / "inner" / "loss.csv").read_text() == "1,2"
    assert names_in(tmp_path / "deep") == ["run"]


def test_the_folder_is_not_there_before_the_block_has_ended(tmp_path):
    with appears_whole(tmp_path / "run") as partial:
        (partial / "half").write_text("half")
        assert visible(tmp_path) == []


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), appears_whole(tmp_path / "run") as partial:
        (partial / "half").write_text("half")
        raise KeyboardInterrupt
    assert names_in(tmp_path) == []


def test_an_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "kept").write_text("kept")
    with pytest.raises(FileExistsError), appears_whole(tmp_path / "run"):
        pytest.fail("the block must not start")
    assert names_in(tmp_path / "run") == ["kept"]


def test_a_folder_that_another_process_finished_meanwhile_is_not_overwritten(tmp_path):
    with pytest.raises(FileExistsError), appears_whole(tmp_path / "run") as partial:
        (partial / "mine").write_text("mine")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "theirs").write_text("theirs")
    assert names_in(tmp_path) == ["run"]
    assert names_in(tmp_path / "run") == ["theirs"]


def test_a_killed_process_leaves_no_visible_folder_and_its_remains_go_after_a_day(tmp_path):
    script = (
        "import os, sys, pathlib\n"
        "from soft_prompt_explorer.analysis.core.folders import appears_whole\n"
        "with appears_whole(pathlib.Path(sys.argv[1])) as partial:\n"
        "    (partial / 'half').write_text('half')\n"
        "    os._exit(9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, tmp_path / "run"], cwd=REPOSITORY, check=False)
    assert ended.returncode == 9
    assert visible(tmp_path) == []

    (remains,) = tmp_path.iterdir()
    with appears_whole(tmp_path / "second"):
        assert remains.exists()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(remains, (two_days_ago, two_days_ago))
    with appears_whole(tmp_path / "third"):
        pass
    assert not remains.exists()


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old and longer")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == ["table.csv"]


@pytest.fixture
def events(monkeypatch):
    """What is synced (by inode) and what gets its name, in the order in which it happens."""
    seen = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def watched_fsync(descriptor):
        seen.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def watched(move):
        def moved(path, target):
            seen.append(f"{target.name} appears")
            return move(path, target)

        return moved

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched(replace))
    monkeypatch.setattr(Path, "rename", watched(rename))
    return seen


def test_a_file_is_on_the_disk_before_its_name_and_then_its_name_is(tmp_path, events):
    write_whole(tmp_path / "table.csv", b"new")
    assert events == [(tmp_path / "table.csv").stat().st_ino, "table.csv appears", tmp_path.stat().st_ino]


def test_a_folder_with_all_in_it_is_on_the_disk_before_its_name_and_then_its_name_is(tmp_path, events):
    with appears_whole(tmp_path / "run") as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "loss.csv").write_text("1,2")
        (partial / "run.json").write_text("{}")
    run = tmp_path / "run"
    first = {path.stat().st_ino for path in (run, run / "inner", run / "inner" / "loss.csv", run / "run.json")}
    assert set(events[:4]) == first and events[4:] == ["run appears", tmp_path.stat().st_ino]


def test_writing_a_file_removes_what_a_killed_process_left_a_day_ago_and_nobody_elses_files(tmp_path):
    remains = [tmp_path / ".spe-partial-old", tmp_path / ".spe-partial-new", tmp_path / ".partial-of-another-program"]
    for path in remains:
        path.touch()
    two_days_ago = time.time() - 2 * 24 * 3600
    for path in (remains[0], remains[2]):
        os.utime(path, (two_days_ago, two_days_ago))
    write_whole(tmp_path / "table.csv", b"new")
    assert [path.exists() for path in remains] == [False, True, True]


def test_a_folder_or_file_is_gone_at_once(tmp_path):
    (tmp_path / "run" / "inner").mkdir(parents=True)
    (tmp_path / "run" / "inner" / "loss.csv").touch()
    (tmp_path / "file").touch()
    remove_at_once(tmp_path / "run")
    remove_at_once(tmp_path / "file")
    assert names_in(tmp_path) == []


def test_a_lock_that_cannot_be_written_holds_nobody_up(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.lock").mkdir()
    for path in (tmp_path / "file" / "x.lock", tmp_path / "folder.lock", tmp_path / "new" / "x.lock"):
        with locked(path):
            pass
    assert (tmp_path / "new" / "x.lock").is_file()


@pytest.mark.parametrize("size", [2_000, 200_000])
def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path, size):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with files_limited_to(100), pytest.raises(OSError):
        write_whole(path, b"x" * size)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["table.csv"]


def test_a_name_that_a_folder_has_is_not_written_and_nothing_is_left_beside_it(tmp_path):
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(OSError):
        write_whole(tmp_path / "table.csv", b"new")
    assert names_in(tmp_path) == ["table.csv"]


def test_the_environment_can_name_another_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFT_PROMPT_EXPLORER_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("SOFT_PROMPT_EXPLORER_CACHE")
    assert cache_folder().name == "soft-prompt-explorer"
