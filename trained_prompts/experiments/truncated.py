"""What a LoRA still knows of its task when it is cut down to fewer ranks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.asking.in_front import subject_of
from soft_prompt_explorer.analysis.asking.scores import compare_lora, score
from soft_prompt_explorer.analysis.asking.sensitivity import by_module, effects
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.loras.truncation import keep_directions, truncate
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.task import Task

SHARE_COLUMNS = [
    "adapter",
    "kept_by",
    "kept",
    "ranks",
    "energy_kept",
    "effect_kept",
    "task",
    "n",
    "measure",
    "score",
    "low",
    "high",
    "loss",
]
DRAWS = 3  # of directions at random
WAYS = ("effect", "energy", "energy in each module", *(f"random {seed}" for seed in range(DRAWS)))


def score_truncated(
    adapter: LoraAdapter,
    energy: float,
    task: Task | str,
    *,
    language_model: LanguageModel,
    limit: int | None = None,
    report: Report = no_report,
) -> pd.DataFrame:
    """The held-out score of the smaller copy that `analysis.loras.truncation.truncate` makes of a LoRA: one row, see `evaluation.score`.

    Parameters
    ----------
    energy : the share of each module's energy that is kept, above 0 and at most 1.
    language_model, limit : as those of `evaluation.compare_lora`, whose rows this one goes with.

    Raises
    ------
    InputError
        The LoRA cannot be cut or does not fit the model, or there is no such task.
    """
    name = f"{adapter.name} at {energy:.0%} of its energy"
    return _score(name, lambda folder: truncate(adapter, energy, folder), task, language_model, limit, report)


def score_directions(
    adapter: LoraAdapter,
    kept: Mapping[str, np.ndarray],
    name: str,
    task: Task | str,
    *,
    language_model: LanguageModel,
    limit: int | None = None,
    report: Report = no_report,
) -> pd.DataFrame:
    """The same of the copy that `analysis.loras.truncation.keep_directions` makes, under this name."""
    return _score(name, lambda folder: keep_directions(adapter, kept, folder), task, language_model, limit, report)


def _score(
    name: str, write: Callable[[Path], object], task: Task | str, language_model: LanguageModel, limit: int | None, report: Report
) -> pd.DataFrame:
    task = get_task(task) if isinstance(task, str) else task
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "cut")
        with subject_of(Path(folder) / "cut", language_model) as subject:
            return score(name, subject, task, task.examples("held-out").head(limit), report=report)


def at_a_share(
    adapter: LoraAdapter,
    folder: Path,
    task: Task | str,
    *,
    language_model: LanguageModel,
    share: float = 0.5,
    measured: pd.DataFrame | None = None,
    limit: int | None = None,
    report: Report = no_report,
) -> pd.DataFrame:
    """The score of a LoRA at a share of its ranks, kept by effect, by energy, by the energy in each module alone, and at random.

    Parameters
    ----------
    folder : of PEFT, which the LoRA was read from.
    share : of all singular directions of all modules that is kept, above 0 and below 1; the same number for each way.
    measured : of `analysis.asking.sensitivity.effects`, taken on training examples; measured now when None.
    limit : the first so many held-out examples; all when None.

    Returns
    -------
    A row each for the bare model, the whole LoRA, and the copies: adapter, kept_by (`effect`, `energy`: the largest of all modules together; `energy in each module`: its leading ones; `random 0` to
    `random 2`), kept, ranks (directions kept, and of how many), energy_kept and effect_kept (shares), task, n, measure, score, low, high (95 % interval), loss.

    Raises
    ------
    InputError
        As `effects` and `keep_directions`, or the share is out of range.
    """
    if not 0 < share < 1:
        raise InputError(f"The share of the ranks to keep is above 0 and below 1, for instance 0.5, not {share:g}.")
    task = get_task(task) if isinstance(task, str) else task
    steps = 3 + len(WAYS)
    if measured is None:
        measured = effects(adapter, task, language_model=language_model, report=part(report, 0, steps, "effects"))
    scores = compare_lora(folder, adapter.name, task, language_model=language_model, limit=limit, report=part(report, 1, steps))
    whole = pd.concat([scores.iloc[[0]], scores.iloc[[-1]]]).assign(kept_by=["nothing kept", "everything"], kept=[0, len(measured)])
    parts = [whole.assign(energy_kept=[0.0, 1.0], effect_kept=[0.0, 1.0])]
    for i, (way, rows) in enumerate(orders(measured, share).items()):
        of_way = score_directions(
            adapter,
            by_module(measured, rows),
            way,
            task,
            language_model=language_model,
            limit=limit,
            report=part(report, 3 + i, steps, way),
        )
        held = measured.iloc[rows]
        parts.append(
            of_way.assign(kept_by=way, kept=len(rows), energy_kept=held["energy_share"].sum(), effect_kept=held["effect_share"].sum())
        )
    return pd.concat(parts, ignore_index=True).assign(adapter=adapter.name, ranks=len(measured))[SHARE_COLUMNS]


def orders(measured: pd.DataFrame, share: float) -> dict[str, np.ndarray]:
    """The rows of the table of `effects` that each way keeps, as many each.

    The energy in each module takes every module's leading directions in turn.
    """
    count = max(1, round(share * len(measured)))
    effect, energy = (measured[name].to_numpy() for name in ("effect", "energy"))
    in_turn = np.lexsort((-energy, measured["direction"].to_numpy()))
    drawn = [np.random.default_rng(seed).permutation(len(measured)) for seed in range(DRAWS)]
    ordered = (np.argsort(-effect, kind="stable"), np.argsort(-energy, kind="stable"), in_turn, *drawn)
    return {way: rows[:count] for way, rows in zip(WAYS, ordered, strict=True)}
