"""Run folders as nobody should write them: the gallery's own, each with one thing wrong."""

import json
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from soft_prompt_explorer.analysis.core.folders import GALLERY

PROMPT, LORA = "sentiment-words-1", "sentiment-lora-2"
OF_WHAT_IT_DOES = ("behaviour.csv", "lens.csv", "effect.csv", "translation.json", "twin-1.safetensors")
DEEP = "[" * 100_000 + "]" * 100_000
VALUES = [
    None, 5, -1, 0, True, "many", "", " ", "inf", "nan", [], {}, [None], {"a": {"b": [1]}}, 1.5, -2.5, 1e308, -1e308, 10**400, 2**63, 2**64,
    float("nan"), float("inf"), float("-inf"), "x" * 200_000, "new\nline", "\x1b[31m", "\u202eabc", "\ud800", "[a](http://foreign.example)",
    "<img src=http://foreign.example>", "../../etc", "/dev/zero", ["q_proj", 3], {"median": "x"}, [[[[]]]], "2026-13-45T99:99:99", "2026-01-01",
]  # fmt: skip


def places(tree: object, at: tuple = ()) -> Iterator[tuple]:
    """Where something stands in JSON, by keys from the top."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield (*at, name)
            yield from places(value, (*at, name))


def changed(tree: dict, at: tuple, change) -> dict:
    tree = json.loads(json.dumps(tree))
    inner = tree
    for name in at[:-1]:
        inner = inner[name]
    change(inner, at[-1])
    return tree


def damage_json(path: Path, rng: random.Random) -> str:
    """Another value at one place, or one place less, or one more."""
    tree = json.loads(path.read_text())
    rows = [(i, *at) for i, row in enumerate(tree) for at in places(row)] if isinstance(tree, list) else list(places(tree))
    at = rng.choice(rows)
    how = rng.choice(["value"] * 6 + ["gone", "renamed", "more"])
    value = rng.choice(VALUES)
    if how == "value":
        tree = changed(tree, at, lambda inner, name: inner.__setitem__(name, value))
    elif how == "gone":
        tree = changed(tree, at, lambda inner, name: inner.pop(name))
    elif how == "renamed":
        tree = changed(tree, at, lambda inner, name: inner.__setitem__(name + "2", inner.pop(name)))
    else:
        tree = changed(tree, at, lambda inner, name: inner.__setitem__("new", value))
    replace(path, json.dumps(tree).encode())
    return f"{'.'.join(map(str, at))}: {how} {ascii(value)[:40]}"


def damage_file(path: Path, rng: random.Random) -> str:
    """The file's bytes, or the file itself, are something else."""
    whole = path.read_bytes()
    how = rng.choice(
        ["cut", "bits", "empty", "text", "deep", "number", "huge", "directory", "gone", "dangling", "loop", "device", "pipe", "itself"]
    )
    content = {
        "cut": whole[: rng.randrange(len(whole))],
        "bits": bytes(byte ^ (1 << rng.randrange(8)) if rng.random() < 0.01 else byte for byte in whole),
        "empty": b"",
        "text": "\ufeffnot what it should be\n".encode("utf-16"),
        "deep": DEEP.encode(),
        "number": b"9" * 5_000,
    }
    path.unlink()
    if how in content:
        path.write_bytes(content[how])
    elif how == "huge":  # no more than its length on the disk
        with path.open("wb") as file:
            file.truncate(2**40)
    elif how == "directory":
        path.mkdir()
    elif how == "dangling":
        path.symlink_to("/no/such/file")
    elif how == "loop":
        path.symlink_to(path)
    elif how == "device":
        path.symlink_to("/dev/zero")
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "itself":
        path.symlink_to(path.parent)
    return how


def damage_arrays(path: Path, rng: random.Random) -> str:
    """The same names with other arrays, or other names, or other words beside them."""
    arrays = load_file(path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    how = rng.choice(["nan", "inf", "large", "ints", "half", "bool", "flat", "narrow", "none", "one", "name", "zeros", "said"])
    arrays[name] = {
        "nan": np.full_like(array.astype(np.float32), np.nan), "inf": np.full_like(array.astype(np.float32), np.inf),
        "large": np.full_like(array.astype(np.float32), 3e38), "ints": np.arange(array.size, dtype=np.int64).reshape(array.shape),
        "half": array.astype(np.float16), "bool": array.astype(bool), "flat": array.ravel(), "narrow": np.ascontiguousarray(array[..., :3]),
        "none": array[:0], "one": array[:1], "name": array, "said": array, "zeros": np.zeros_like(array),
    }[how]  # fmt: skip
    if how == "name":
        arrays["another"] = arrays.pop(name)
    if how == "said":
        metadata = {"made": rng.choice(["", "[]", "{}", DEEP, '{"config": {"shuffled": 1e999}}', '{"config": {"shuffled": "two"}}'])}
    path.unlink()
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path, metadata)
    return f"{name}: {how}"


def damage_table(path: Path, rng: random.Random) -> str:
    """A CSV with other columns, or other things in them."""
    lines = path.read_text().splitlines()
    row = rng.randrange(len(lines))
    cells = lines[row].split(",")
    column = rng.randrange(len(cells))
    cells[column] = rng.choice(["many", "", "nan", "inf", "-1", "1e999", "9" * 400, "=1+1", '"', "True", "2026-01-01", "[1]"])
    lines[row] = ",".join(cells)
    replace(path, "\n".join(lines).encode())
    return f"row {row}, column {column}: {cells[column][:20]}"


def replace(path: Path, content: bytes) -> None:
    """Not into the gallery's own file, which the name may lead to."""
    path.unlink()
    path.write_bytes(content)


def damaged_runs(folder: Path, count: int, *, seed: int = 0, only: Sequence[str] = ()) -> dict[str, str]:
    """Write so many run folders, each with one thing wrong, in one of `only` these files; what it is, by the folder's name."""
    rng = random.Random(seed)
    wrong = {}
    for i in range(count):
        origin = GALLERY / rng.choice([PROMPT, PROMPT, LORA])
        path = folder / f"damaged-{seed}-{i}"
        path.mkdir(parents=True)
        for file in origin.iterdir():
            (path / file.name).symlink_to(file)
        damages = {
            "run.json": [damage_json] * 6 + [damage_file], "adapter_config.json": [damage_json, damage_file],
            "adapter_model.safetensors": [damage_arrays, damage_file], "losses.csv": [damage_table, damage_file],
            "initial.safetensors": [damage_arrays, damage_file], "trajectory.safetensors": [damage_arrays, damage_file],
            "twin-1.safetensors": [damage_arrays, damage_file], "translation.json": [damage_json, damage_file],
            "behaviour.csv": [damage_table, damage_file], "lens.csv": [damage_table, damage_file], "effect.csv": [damage_table, damage_file],
        }  # fmt: skip
        name = rng.choice([name for name in only or (*["run.json"] * 10, *damages) if (path / name).exists()])
        wrong[path.name] = f"{name}: {rng.choice(damages[name])(path / name, rng)}"
    return wrong
