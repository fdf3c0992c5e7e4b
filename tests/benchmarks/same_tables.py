"""Whether two checkouts print the same, byte for byte: `python -m tests.benchmarks.same_tables OLD NEW [FILE...]`.

Both are run by this interpreter, each in its own folder, on the gallery of the first and on any further files (a corpus of other people's adapters).
The same are exit status, standard output and standard error. What both refuse is told: there no table was compared. The exit status is 1 where anything
differs, and where no table was compared at all.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

READINGS = ("neighbours", "readings")


class Told(NamedTuple):
    """What a command answered; the folder of its checkout is told as a dot."""

    status: int
    table: bytes
    errors: bytes


def commands(gallery: Path, files: list[Path]) -> Iterator[list[str]]:
    prompts = sorted(path for path in gallery.iterdir() if (path / "initial.safetensors").is_file())
    loras = sorted(path for path in gallery.iterdir() if "-lora-" in path.name)
    yield ["analysis", "inspect", *map(str, [*prompts, *loras, *files])]
    for prompt in prompts:
        yield from (["analysis", command, str(prompt)] for command in READINGS)
    for task in ("number-words", "sentiment"):
        yield ["analysis", "direction", str(gallery / f"{task}-words-1"), "--task", task]
    some = [str(gallery / f"{task}-words-1") for task in ("antonyms", "plural", "sentiment")]
    yield from (["analysis", command, *some] for command in ("clusters", "similarity"))
    yield ["analysis", "clusters", *some, "--method", "agglomerative", "--space", "displacement"]
    yield from (["analysis", "spectra", str(path)] for path in [*loras, *files])
    yield from (["trained_prompts", command] for command in ("tasks", "list"))


def ask(checkout: Path, command: list[str]) -> Told:
    run = subprocess.run([sys.executable, "-m", *command, "--format", "csv"], cwd=checkout, capture_output=True, check=False)
    here = str(checkout).encode()
    return Told(run.returncode, run.stdout.replace(here, b"."), run.stderr.replace(here, b"."))


def main(old: Path, new: Path, files: list[Path]) -> int:
    same = refused = different = 0
    for command in commands(old / "trained_prompts" / "gallery", files):
        moved = [argument.replace(str(old), ".") for argument in command]
        name = " ".join([command[1], *(Path(argument).name for argument in command[2:5])])
        before, after = ask(old, moved), ask(new, moved)
        if before != after:
            different += 1
            parts = [part for part in Told._fields if getattr(before, part) != getattr(after, part)]
            print(f"differs: {name}, in {' and '.join(parts)} (status {before.status} and {after.status})", flush=True)
        elif before.status or not before.table:
            refused += 1
            print(f"both refuse: {name} (status {before.status}): {last_line(before.errors)}", flush=True)
        else:
            same += 1
    print(f"tables that are the same: {same}; refused by both in the same words: {refused}; different: {different}")
    return int(different > 0 or not same)


def last_line(errors: bytes) -> str:
    return (errors.decode(errors="replace").strip().splitlines() or ["not a word"])[-1]


if __name__ == "__main__":
    raise SystemExit(main(*(Path(each).resolve() for each in sys.argv[1:3]), [Path(each).resolve() for each in sys.argv[3:]]))
