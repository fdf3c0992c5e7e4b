"""What a training that was recorded left beside its adapter: how its examples were asked, where its virtual tokens went; and checkpoints read as such a record."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.adapters.opening import WEIGHTS
from soft_prompt_explorer.analysis.adapters.run_file import MAX_BYTES, MAX_TEMPLATE
from soft_prompt_explorer.analysis.core.errors import AdapterError

EXAMPLES_KEPT = 32
RECORD, TRAJECTORY = "explorer.json", "trajectory.safetensors"
MAX_TRAJECTORY_BYTES = 512_000_000  # more than the longest run leaves
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
        if not file.is_file() or file.stat().st_size > MAX_BYTES:
            return None
        record = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    template = record.get("template") if isinstance(record, dict) else None
    return template if isinstance(template, str) and len(template) <= MAX_TEMPLATE and template.count("{input}") == 1 else None


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
    from safetensors import SafetensorError, safe_open

    refused = AdapterError(f"How it was trained cannot be read from {path}: the file is damaged; train it again, or take the file away.")
    try:
        if path.stat().st_size > MAX_TRAJECTORY_BYTES:
            raise refused
        with safe_open(path, framework="np") as file:
            steps, embeddings = file.get_tensor("steps"), file.get_tensor("embeddings")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise refused from error
    fits = steps.dtype == np.int64 and embeddings.dtype in (np.float16, np.float32) and steps.ndim == 1 and embeddings.ndim == 3
    if not (fits and len(steps) == len(embeddings) > 0 and embeddings.size and np.isfinite(embeddings).all()):
        raise refused
    return steps, embeddings.astype(np.float32)
