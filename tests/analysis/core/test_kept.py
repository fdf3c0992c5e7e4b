"""Arrays and folders that are kept are read as they were written, or count as gone."""

import json
import shutil
import time

import numpy as np
import pytest

from soft_prompt_explorer.analysis.core import kept
from soft_prompt_explorer.analysis.core.kept import Blocks, KeptArrays, KeptFiles
from tests.support.damage import flip_a_bit
from tests.support.places import names_in

# --- Kept arrays ---------------------------------------------------------------------------------------------------------------------------


ARRAYS = {
    "numbers": np.arange(12, dtype=np.float64).reshape(3, 4),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "flags": np.array([True, False, True]),
    "one": np.array(2.5),
    "none": np.zeros((0, 7), dtype=np.int64),
    "bytes": np.frombuffer(b"abc\n", dtype=np.uint8),
}


def same(found, expected) -> bool:
    return found is not None and all(
        found[name].dtype == array.dtype and found[name].shape == array.shape and np.array_equal(found[name], array)
        for name, array in expected.items()
    )


def untouchable():
    pytest.fail("it was computed again")


def test_what_was_kept_is_read_and_not_computed_again(tmp_path, large_from):
    place = KeptArrays(tmp_path / "deep" / "folder", "it", 1)
    assert place.read() is None
    assert same(place.get(lambda: ARRAYS), ARRAYS)
    again = KeptArrays(tmp_path / "deep" / "folder", "it", 1).get(untouchable)
    assert same(again, ARRAYS) and all(array.flags.aligned and array.flags.c_contiguous for array in again.values())
    assert names_in(tmp_path / "deep" / "folder") == ["it.kept"]


def test_without_a_folder_nothing_is_kept():
    assert same(KeptArrays(None, "it", 1).get(lambda: ARRAYS), ARRAYS)
    assert KeptArrays(None, "it", 1).read() is None


def test_blocks_are_written_one_by_one_and_mapped(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).standard_normal((1_000, 8)).astype(np.float32)
    blocks = Blocks(rows.dtype, rows.shape, lambda: (rows[i : i + 300] for i in range(0, len(rows), 300)))
    monkeypatch.setattr(kept, "READ_WHOLE_UP_TO", 1_000)
    found = KeptArrays(tmp_path, "rows", 1).get(lambda: {"rows": blocks})["rows"]
    assert isinstance(found, np.memmap) and np.array_equal(found, rows)
    (tmp_path / "a file").touch()
    unkept = KeptArrays(tmp_path / "a file", "rows", 1).get(lambda: {"rows": blocks})["rows"]
    assert not isinstance(unkept, np.memmap) and np.array_equal(unkept, rows)


def test_another_version_name_or_folder_is_not_taken_for_it(tmp_path, large_from):
    KeptArrays(tmp_path / "a", "it", 1).keep(ARRAYS)
    assert KeptArrays(tmp_path / "a", "it", 2).read() is None
    shutil.copy(tmp_path / "a" / "it.kept", tmp_path / "a" / "other.kept")
    assert KeptArrays(tmp_path / "a", "other", 1).read() is None
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert KeptArrays(tmp_path / "b", "it", 1).read() is None
    assert same(KeptArrays(tmp_path / "a", "it", 1).read(), ARRAYS)


def test_arrays_of_other_shapes_are_not_taken_for_it(tmp_path, large_from):
    KeptArrays(tmp_path, "it", 1).keep(ARRAYS)
    for shapes, fits in (
        ({"numbers": (3, 4)}, True),
        ({"numbers": (None, 4), "one": ()}, True),
        ({"numbers": (4, 3)}, False),
        ({"numbers": (None,)}, False),
        ({"more": (None,)}, False),
    ):
        assert (KeptArrays(tmp_path, "it", 1, shapes=shapes).read() is not None) == fits, shapes


def test_every_flipped_bit_is_found(tmp_path, large_from):
    place = KeptArrays(tmp_path, "it", 1)
    place.keep({"a": np.arange(4.0)})
    whole = place.path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        place.path.write_bytes(damaged)
        assert place.read() is None, f"bit {bit}"


def test_what_compute_raises_is_raised_and_leaves_nothing(tmp_path):
    def broken():
        yield np.ones((1, 2))
        raise OSError("the model's file went away")

    with pytest.raises(ZeroDivisionError):
        KeptArrays(tmp_path, "it", 1).get(lambda: {"a": 1 / 0})
    with pytest.raises(OSError, match="went away"):
        KeptArrays(tmp_path, "it", 1).get(lambda: {"a": Blocks(np.dtype(float), (2, 2), broken)})
    assert names_in(tmp_path) == []


# --- Large files are not read at each call, and a change is found all the same ------------------------------------------------------------


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A kept file that counts as large, a moment old; and how often its checksum was taken."""
    monkeypatch.setattr(kept, "READ_WHOLE_UP_TO", 0)
    monkeypatch.setattr(kept, "_A_MOMENT", 0.1)
    taken = []
    checksum = kept.checksum
    monkeypatch.setattr(kept, "checksum", lambda file, size=None: taken.append(file.name) or checksum(file, size))
    place = KeptArrays(tmp_path, "it", 1)
    place.keep(ARRAYS)
    time.sleep(0.2)
    return place, taken


def test_a_mapped_file_is_checked_once_in_a_process_until_it_changes(large):
    place, taken = large
    for _ in range(5):
        assert same(place.read(), ARRAYS)
    assert len(taken) == 1
    flip_a_bit(place.path)
    assert place.read() is None
    assert same(place.get(lambda: ARRAYS), ARRAYS)


def test_a_file_that_was_just_written_is_checked_each_time_as_its_times_would_not_show_a_change(large, monkeypatch):
    monkeypatch.setattr(kept, "_A_MOMENT", 3600)
    place, taken = large
    place.keep(ARRAYS)
    assert same(place.read(), ARRAYS) and same(place.read(), ARRAYS)
    assert len(taken) == 2


def test_a_file_of_gigabytes_is_checked_once_a_day_until_it_changes(large, monkeypatch):
    place, taken = large
    monkeypatch.setattr(kept, "CHECKED_DAILY_ABOVE", 0)

    def another_process_reads() -> bool:
        kept._checked.clear()
        return same(place.read(), ARRAYS)

    assert another_process_reads() and another_process_reads() and another_process_reads()
    assert len(taken) == 1
    note = place.path.with_name("it.kept.checked")
    when, looks = json.loads(note.read_text())
    for content in (json.dumps([when - 25 * 3600, looks]), json.dumps([when + 3600, looks]), "", "[]", "7", "[1, 2]", '[1, "x"]'):
        note.write_text(content)
        taken.clear()
        assert another_process_reads() and len(taken) == 1, content
    taken.clear()
    assert another_process_reads() and taken == []
    flip_a_bit(place.path)
    assert not another_process_reads()


# --- Folders of files ----------------------------------------------------------------------------------------------------------------------


def test_a_folder_is_whole_while_its_files_are_those_that_were_written(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    files = KeptFiles(folder, "model")
    assert not files.are_whole()
    (folder / "a.bin").write_bytes(b"a" * 1_000)
    (folder / "b.json").write_text("{}")
    files.all_written()
    assert files.are_whole() and files.is_whole("a.bin")
    assert not KeptFiles(folder, "another").are_whole()
    (folder / "stray.json").write_text("{}")
    assert not files.are_whole()
    files.remove_others()
    assert files.are_whole()
    (folder / "a.bin").write_bytes(b"a" * 999 + b"b")
    assert not files.are_whole() and not files.is_whole("a.bin") and files.is_whole("b.json")
