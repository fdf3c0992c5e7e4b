"""What is kept never changes a figure: whatever happens to a cache, the answer is the one from a fresh one."""

import functools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis import kept
from analysis.base_weights import base_svd
from analysis.kept import Blocks, KeptArrays, KeptFiles
from analysis.neighbours import csls_crowding
from analysis.null import null_of
from analysis.projection import map_is_made, vocabulary_map
from analysis.token_index import token_index
from analysis.vocabulary import Vocabulary, load_vocabulary
from tests.analysis.test_folders import files_limited_to
from tests.analysis.test_readings import prompt_of
from tests.conftest import names_in

MUTATIONS = 300  # of every kind of kept file, half of them of files that are read whole and half of mapped ones


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


@pytest.fixture(params=["read whole", "mapped"])
def large_from(request, monkeypatch):
    """From how many bytes on a file is memory-mapped: both ways of reading answer the same."""
    if request.param == "mapped":
        monkeypatch.setattr(kept, "READ_WHOLE_UP_TO", 0)


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


def flip_a_bit(path: Path) -> None:
    """As a failing disk or a stray write would, with the file's size, inode and mtime as they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_ino, after.st_mtime_ns) == (before.st_size, before.st_ino, before.st_mtime_ns)


def test_a_mapped_file_is_checked_once_in_a_process_until_it_changes(large):
    place, taken = large
    for _ in range(5):
        assert same(place.read(), ARRAYS)
    assert len(taken) == 1
    flip_a_bit(place.path)
    assert place.read() is None
    assert same(place.get(lambda: ARRAYS), ARRAYS)


def test_a_file_that_was_just_written_is_checked_each_time_as_its_times_would_not_show_a_change(large):
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


# --- Every kind of cache, damaged in every way ---------------------------------------------------------------------------------------------


def made(vocabulary: Vocabulary, folder: Path) -> Vocabulary:
    return replace(vocabulary, cache=folder / "vocabularies" / "0123")


def figures(*arrays) -> list[bytes]:
    return [np.asarray(array).tobytes() for array in arrays]


def of_vocabulary(model, vocabulary, cache) -> list:
    loaded = load_vocabulary(str(model))
    return [loaded.tokens, *figures(loaded.embeddings, loaded.special, loaded.mean, loaded.norms, loaded.centred_norms)]


def of_null(model, vocabulary, cache) -> list:
    return figures(*vars(null_of(made(vocabulary, cache))).values())


def of_crowding(model, vocabulary, cache) -> list:
    return figures(csls_crowding(made(vocabulary, cache)))


def of_map(model, vocabulary, cache) -> list:
    maps = [vocabulary_map(made(vocabulary, cache), projection="pca", dimensions=dimensions) for dimensions in (2, 3)]
    return [figures(on.ids, on.places, on.trustworthiness, on.centre, on.axes) for on in maps]


def of_index(model, vocabulary, cache) -> list:
    rng = np.random.default_rng(0)
    prompts = [replace(prompt_of(rng.standard_normal((20, vocabulary.width))), name=f"prompt {i}") for i in range(10)]
    index = token_index(prompts, made(vocabulary, cache), exact_up_to=100)
    assert not index.exact
    return [index.search(prompt.embeddings[3], top_k=5).to_csv() for prompt in prompts[:3]] + [index.recall, *figures(index.null)]


def of_base_svd(model, vocabulary, cache) -> list:
    return figures(*base_svd(np.random.default_rng(0).standard_normal((20, 12)).astype(np.float32)))


KINDS = {
    "vocabulary": of_vocabulary,
    "null": of_null,
    "crowding": of_crowding,
    "map": of_map,
    "index": of_index,
    "base-svd": of_base_svd,
}


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def older_version(path: Path) -> bytes:
    """The file with another version in its label, and the right checksum for it."""
    folder, name = path.parent, path.stem
    content = path.read_bytes()
    label = json.loads(content.split(b"\n")[1].decode())[0]
    with tempfile.TemporaryDirectory() as other:
        place = KeptArrays(Path(other) / folder.name, name, label["version"] - 1)
        place.keep({"u": np.zeros((2, 2))})
        return place.path.read_bytes()


def mutate(path: Path, others: list[Path], rng: np.random.Generator) -> str:
    """Damage one file in one of the ways of which disks, people and other programs know; answers which."""
    content = bytearray(path.read_bytes())
    before, size = path.stat(), len(content)
    at, end = sorted(rng.integers(0, size, 2)) if size else (0, 0)
    kind = rng.choice(["bit", "bits", "truncated", "empty", "zeros", "noise", "longer", "swapped", "version", "gone", "folder", "moved"])
    if kind == "bit":
        content[at] ^= 1 << rng.integers(8)
    elif kind == "bits":
        for place in rng.integers(0, size, 64):
            content[place] ^= 1 << rng.integers(8)
    elif kind == "truncated":
        del content[at:]
    elif kind == "empty":
        content.clear()
    elif kind == "zeros":
        content[at : end + 1] = bytes(end + 1 - at)
    elif kind == "noise":
        content[at : end + 1] = rng.bytes(end + 1 - at)
    elif kind == "longer":
        content += rng.bytes(100)
    elif kind == "swapped":
        content = bytearray(others[rng.integers(len(others))].read_bytes())
    elif kind == "version" and path.suffix == ".kept":
        content = bytearray(older_version(path))
    elif kind == "moved":
        content = content[size // 2 :] + content[: size // 2]
    if kind == "gone":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        (path / "deep").mkdir(parents=True)
    else:
        path.write_bytes(content)
        if rng.random() < 0.5:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return kind


@contextmanager
def fresh_cache(monkeypatch, folder: Path):
    with monkeypatch.context() as patched:
        patched.setenv("SOFT_PROMPT_EXPLORER_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def small_vocabulary(llama_folder):
    rows = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32) + 1
    return Vocabulary.from_embeddings([f" w{i}" for i in range(300)], rows, model="small")


def damage_again_and_again(figure: Callable[[], object], cache: Path, others: list[Path], count: int) -> None:
    """Each time the figure is that of the fresh cache, also when it is asked for once more."""
    expected = figure()
    rng = np.random.default_rng(1)
    mutated = set()
    for i in range(count):
        there = files_in(cache)
        assert there, "nothing is kept"
        path = there[rng.integers(len(there))]
        kind = mutate(path, others, rng)
        mutated.add(kind)
        said = f"{i}: {path.name} {kind}"
        assert figure() == expected, said
        if i % 10 == 0:
            assert figure() == expected, f"{said}, once more"
    assert len(mutated) == 12


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_to_what_is_kept_ever_changes_a_figure(
    kind, large_from, llama_folder, small_vocabulary, own_cache, tmp_path, monkeypatch
):
    monkeypatch.setattr("analysis.null.DRAWS", 40)  # it is drawn hundreds of times here
    others = tmp_path / "others"
    KeptArrays(others / "0123", "null", 2).keep({"u": np.ones((3, 3))})
    KeptArrays(others / "4567", "embeddings", 4).keep({"embeddings": np.ones((3, 3))})
    (others / "page.html").write_text("<html>")
    figure = functools.partial(KINDS[kind], llama_folder, small_vocabulary, own_cache)
    figure()
    shutil.copytree(own_cache, others / "own")
    damage_again_and_again(figure, own_cache, files_in(others), MUTATIONS // 2)


# --- Where nothing can be kept -------------------------------------------------------------------------------------------------------------


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


TROUBLES = [a_file_in_its_place, a_full_disk, a_read_only_folder]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_can_be_kept_the_figure_is_the_same(
    kind, trouble, llama_folder, small_vocabulary, own_cache, tmp_path, monkeypatch, caplog
):
    with fresh_cache(monkeypatch, tmp_path / "fresh") as fresh:
        expected = KINDS[kind](llama_folder, small_vocabulary, fresh)
    kept._told.clear()
    with trouble(own_cache, llama_folder):
        assert KINDS[kind](llama_folder, small_vocabulary, own_cache) == expected
        assert KINDS[kind](llama_folder, small_vocabulary, own_cache) == expected
    told = [record.getMessage() for record in caplog.records if record.name == "analysis.kept"]
    assert told and len(told) == len(set(told)) and all("Nothing can be kept in" in sentence for sentence in told)
    assert not any(path.name.startswith(".spe-partial") for path in tmp_path.rglob("*"))


def test_a_map_that_is_damaged_is_not_said_to_be_made(small_vocabulary, own_cache):
    on = made(small_vocabulary, own_cache)
    assert not map_is_made(on, projection="pca")
    vocabulary_map(on, projection="pca")
    assert map_is_made(on, projection="pca")
    (own_cache / "vocabularies" / "0123" / "map-pca-2d.kept").write_bytes(b"")
    assert not map_is_made(on, projection="pca")
