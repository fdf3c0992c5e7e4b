"""Whether two checkouts print the same tables, byte for byte: `python -m tests.benchmarks.same_tables OLD NEW [FILE...]`.

Both are run by this interpreter, each in its own folder, on the gallery of the first and on any further files (a corpus of other people's adapters).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

READINGS = ("neighbours", "readings")


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


def main(old: Path, new: Path, files: list[Path]) -> int:
    differ, asked = [], 0
    for module, command, *arguments in commands(old.resolve() / "trained_prompts" / "gallery", files):
        told = []
        for checkout in (old, new):
            moved = [argument.replace(str(old.resolve()), ".") for argument in arguments]
            run = subprocess.run(
                [sys.executable, "-m", module, command, *moved, "--format", "csv"], cwd=checkout, capture_output=True, check=False
            )
            told.append((run.returncode, run.stdout.replace(str(checkout.resolve()).encode(), b".")))
        asked += 1
        if told[0] != told[1]:
            differ.append(" ".join([command, *(Path(argument).name for argument in arguments[:3])]))
            print(f"differs: {differ[-1]} (status {told[0][0]} and {told[1][0]})", flush=True)
    print(f"{asked - len(differ)} of {asked} tables are the same")
    return bool(differ)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(argument).resolve() for argument in sys.argv[3:]]))
