"""Damage to kept files, as disks, people and other programs do it."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.core.kept import KeptArrays

MUTATIONS = 300  # of every kind of kept file, half of them of files that are read whole and half of mapped ones


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


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))


def older_version(path: Path) -> bytes:
    """The file with another version in its label, and the right checksum for it; as it is where its label was damaged before."""
    folder, name = path.parent, path.stem
    content = path.read_bytes()
    try:
        version = json.loads(content.split(b"\n")[1].decode())[0]["version"]
    except (ValueError, LookupError, TypeError):
        return content
    with tempfile.TemporaryDirectory() as other:
        place = KeptArrays(Path(other) / folder.name, name, version - 1 if isinstance(version, int) else f"before {version}")
        place.keep({"u": np.zeros((2, 2))})
        return place.path.read_bytes()


def mutate(path: Path, others: list[Path], rng: np.random.Generator) -> str:
    """Damage one file in one of the ways of which disks, people and other programs know; answers which."""
    content = bytearray(path.read_bytes())
    before, size = path.stat(), len(content)
    at, end = sorted(rng.integers(0, size, 2)) if size else (0, 0)
    if not size:  # what was emptied before, and was not needed since
        content, size = bytearray(1), 1
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
