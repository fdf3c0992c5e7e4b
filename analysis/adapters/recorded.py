"""What a training that is recorded leaves beside its adapter: how its examples are asked, how far it is and where its virtual tokens go; checkpoints are such a record too."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from soft_prompt_explorer.analysis.adapters import safetensors_file
from soft_prompt_explorer.analysis.adapters.opening import WEIGHTS
from soft_prompt_explorer.analysis.adapters.run_file import MAX_BYTES, MAX_TEMPLATE
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.core.strange_files import read_file, read_table
from soft_prompt_explorer.analysis.core.words import printable

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES_KEPT = 32
RECORD, TRAJECTORY, LOSSES, LOOKS = "explorer.json", "trajectory.safetensors", "losses.csv", "followed.csv"
# A row of LOOKS: the step, the share of tokens still nearest to the word that they started nearest to, the median distance moved, the median norm beside the
# vocabulary's, each token's nearest word and the words that all moved towards, with a · between two.
FOLLOWED = ["step", "echo_share", "drift", "norm_ratio", "words", "direction"]
MAX_TRAJECTORY_BYTES = 512_000_000  # more than the longest run leaves
MAX_TABLE_BYTES, MAX_TABLE_ROWS = 20_000_000, 1_000_000
MAX_WORDS = 20_000  # letters of one look
MOST_CHECKPOINTS = 1_000
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,9})")
_LETTERS = re.compile(r"\w")


def template_of(texts: Sequence[str]) -> str | None:
    """The text that all examples share around what differs, with `{input}` for that; None where too few differ, or they share nothing.

    What the examples share by chance, such as the first letters of two inputs, is taken back to the last end of a word.

    >>> template_of(["Word: cat\\nPlural:", "Word: car\\nPlural:", "Word: tree\\nPlural:"])
    'Word: {input}\\nPlural:'
    """
    different = list(dict.fromkeys(texts))
    if len(different) < 3:
        return None
    before = _common_start(different)
    rest = [text[len(before) :] for text in different]
    after = _common_start([text[::-1] for text in rest])[::-1]
    if _LETTERS.search(before[-1:]):
        before = re.sub(r"\w+$", "", before)
    if _LETTERS.match(after[:1]):
        after = re.sub(r"^\w+", "", after)
    if not (before + after).strip() or "{input}" in before + after:
        return None
    return f"{before}{{input}}{after}"


def _common_start(texts: Sequence[str]) -> str:
    """The longest text that all of them begin with."""
    letters = zip(*texts, strict=False)
    same = next((i for i, each in enumerate(letters) if len(set(each)) > 1), min(map(len, texts)))
    return texts[0][:same]


def recorded_template(path: Path | None) -> str | None:
    """How the examples were asked that an adapter was trained on, from the record in its folder; None where there is none, or it tells nothing that can be used."""
    if path is None:
        return None
    file = (path if path.is_dir() else path.parent) / RECORD
    try:
        record = json.loads(read_file(file, MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    template = record.get("template") if isinstance(record, dict) else None
    return template if isinstance(template, str) and len(template) <= MAX_TEMPLATE and template.count("{input}") == 1 else None


@dataclass(frozen=True, eq=False)
class Recorded:
    """How far a training is that a script of one's own records.

    Attributes
    ----------
    model, method : as its adapter's config names them; None where it does not.
    ended : whether the script said that it is over; one that was killed never does.
    changed : when it was last written to, in seconds since 1970.
    losses : step, loss; one row a step that was told of, rising.
    looks : `FOLLOWED`, one row a look, rising; no rows for an adapter without virtual tokens.
    """

    folder: Path
    model: str | None
    method: str | None
    ended: bool
    changed: float
    losses: pd.DataFrame
    looks: pd.DataFrame

    @property
    def steps(self) -> int:
        """So far."""
        return int(max([0, *self.losses["step"].tail(1), *self.looks["step"].tail(1)]))


def read_recorded(folder: Path) -> Recorded:
    """What `trained_prompts.training.callback` has written into a folder so far; also while it writes, for each file appears whole.

    Raises
    ------
    AdapterError
        The folder holds no such record, or one that is damaged, too large, or a link to somewhere else.
    """
    refused = AdapterError(
        f"The record of a training in {folder} cannot be read: a file of it is missing or damaged; start the script again."
    )
    try:
        content = read_file(_own(folder / RECORD), MAX_BYTES)
        record = json.loads(content)
        losses = _numbers(folder / LOSSES, ["step", "loss"], texts=[])
        looks = _numbers(folder / LOOKS, FOLLOWED[:4], texts=FOLLOWED[4:])
        changed = max((folder / name).stat().st_mtime for name in (RECORD, LOSSES, LOOKS))
    except (OSError, ValueError, RecursionError) as error:
        raise refused from error
    if not isinstance(record, dict):
        raise refused
    model, method = (printable(text)[:200] if isinstance(text := record.get(name), str) else None for name in ("model", "method"))
    return Recorded(folder, model, method, record.get("ended") is True, changed, losses, looks)


def find_recorded(folders: Sequence[Path], *, depth: int = 3, most: int = 2_000) -> list[Path]:
    """The folders in these, and some levels down, that hold the record of a training: the one last written to first. No link is followed.

    Parameters
    ----------
    most : folders that are looked into, so that a whole disk is never walked through.
    """
    found: dict[Path, float] = {}
    left = most
    for folder in folders:
        for path, entries in _walked(folder, depth):
            names = {entry.name: entry for entry in entries}
            if RECORD in names and LOSSES in names:  # a checkpoint has no losses
                found[path] = names[LOSSES].stat(follow_symlinks=False).st_mtime
            left -= 1
            if left <= 0:
                break
    return sorted(found, key=lambda path: -found[path])


def _walked(folder: Path, depth: int) -> Iterator[tuple[Path, list[os.DirEntry]]]:
    try:
        with os.scandir(folder) as inside:
            entries = list(inside)
    except OSError:
        return
    yield folder, entries
    if depth:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walked(Path(entry.path), depth - 1)


def _own(path: Path) -> Path:
    """The path of a file that lies in the folder itself.

    Raises
    ------
    ValueError
        It is a link.
    """
    if path.is_symlink():
        raise ValueError("it is a link")
    return path


def _numbers(path: Path, columns: list[str], texts: list[str]) -> pd.DataFrame:
    """These columns of a table, of the rows whose step is a number, in the order of the steps."""
    import pandas as pd

    table = read_table(_own(path), most=MAX_TABLE_BYTES, rows=MAX_TABLE_ROWS, usecols=[*columns, *texts], dtype=dict.fromkeys(texts, "str"))
    numbers = table[columns].apply(pd.to_numeric, errors="coerce").astype("float64")
    written = table[texts].fillna("").map(lambda text: printable(text[:MAX_WORDS]))
    whole = numbers["step"].between(0, 1e9)
    return pd.concat([numbers, written], axis=1)[whole].astype({"step": "int64"}).sort_values("step", kind="stable", ignore_index=True)


def trajectory_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Where virtual tokens were while they were learned: from `trajectory.safetensors`, or from the folders `checkpoint-STEP` that a Trainer wrote.

    Returns
    -------
    steps (s,) int64, rising, and embeddings (s, n, d) float32.

    Raises
    ------
    AdapterError
        There is neither, or it cannot be used.
    """
    if not folder.is_dir():
        raise AdapterError(f"{folder} is {'no folder' if folder.exists() else 'not there'}; give the folder that a training wrote to.")
    if (folder / TRAJECTORY).is_file():
        return read_trajectory(folder / TRAJECTORY)
    found: dict[int, np.ndarray] = {}
    from soft_prompt_explorer.analysis.adapters import load_soft_prompt

    for path in sorted(folder.glob("checkpoint-*"))[:MOST_CHECKPOINTS]:
        if path.is_dir() and (step := _CHECKPOINT.fullmatch(path.name)):
            prompt = load_soft_prompt(path)
            if not found and prompt.initial is not None:
                found[0] = prompt.initial
            found[int(step[1])] = prompt.embeddings
    if len({rows.shape for rows in found.values()}) != 1:
        problem = "no trajectory and no checkpoint of a soft prompt" if not found else "checkpoints of different shapes"
        raise AdapterError(f"The folder {folder} holds {problem}; give the folder that a training wrote to.")
    steps = sorted(found)
    return np.array(steps, dtype=np.int64), np.stack([found[step] for step in steps])


def last_of(folder: Path) -> Path:
    """What a training left in the end: the adapter in its folder, or where it wrote none there, its last checkpoint."""
    if any((folder / name).is_file() for name in WEIGHTS):
        return folder
    checkpoints = [(int(step[1]), path) for path in folder.glob("checkpoint-*") if (step := _CHECKPOINT.fullmatch(path.name))]
    return max(checkpoints)[1] if checkpoints else folder


def read_trajectory(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The steps (s,) int64 and embeddings (s, n, d) float32 in a `trajectory.safetensors`.

    Raises
    ------
    AdapterError
        The file is damaged, too large or something else.
    """
    refused = AdapterError(f"How it was trained cannot be read from {path}: the file is damaged; train it again, or take the file away.")
    try:
        if path.stat().st_size > MAX_TRAJECTORY_BYTES:
            raise refused
        file = safetensors_file.read(path)
        steps, embeddings = file["steps"], file["embeddings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise refused from error
    fits = steps.dtype == np.int64 and embeddings.dtype in (np.float16, np.float32) and steps.ndim == 1 and embeddings.ndim == 3
    if not (fits and len(steps) == len(embeddings) > 0 and embeddings.size and np.isfinite(embeddings).all()):
        raise refused
    return steps, embeddings.astype(np.float32)
