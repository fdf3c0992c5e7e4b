"""Grids of runs: many settings of one task, on one machine or on a cluster, by the same call.

A cell is one run under a name that says what is particular to it. A finished cell is a folder as `store.save` writes it, and is not trained again; one
that was broken off goes on from its checkpoint. So a sweep that was killed goes on where it was. Cells that share a process share one frozen model.
"""

from __future__ import annotations

import itertools
import re
import threading
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from soft_prompt_explorer.analysis.core.engines import Engine, outcomes
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

AXES = ("tokens", "init", "rank", "learning_rate", "seed", "readable")  # what a grid may vary
LONGEST = 64  # characters of a run's name
_one_at_a_time = threading.Lock()  # in a process: its one model is changed while it trains, and a Dask worker may have several threads


def grid(base: TrainingConfig, axes: dict[str, list]) -> dict[str, TrainingConfig]:
    """Every combination of the axes' values, by names such as `tokens-5-seed-1`.

    Parameters
    ----------
    base : the settings that all cells share.
    axes : values by a name of `AXES`; an axis of one value is not in the names.

    Raises
    ------
    InputError
        A value is not possible, or an axis is not known.
    """
    for axis in axes:
        if axis not in AXES:
            raise InputError(f"A sweep cannot vary {axis!r}; it can vary {', '.join(AXES)}.")
    varied = [axis for axis, values in axes.items() if len(values) > 1]
    cells = {}
    for values in itertools.product(*axes.values()):
        changes: dict[str, Any] = dict(zip(axes, values, strict=True))
        label = "-".join(f"{axis.replace('_', '-')}-{changes[axis]}" for axis in varied)
        # α and the learning rate are derived where nobody named them, so they are derived anew for each cell.
        if "rank" in changes and base.alpha == 2.0 * base.rank:
            changes["alpha"] = None
        cells[_name_of(label)] = replace(base, **changes)
    return cells


def _name_of(label: str) -> str:
    """A name that a run may have: one that is too long ends in a digest of the rest."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", label) or "only"
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{sha256(name.encode()).hexdigest()[:8]}"


def sweep(
    cells: dict[str, TrainingConfig], folder: Path, *, engine: Engine = "loky", workers: int = 1, scheduler: str | None = None,
    limit: int | None = None, report: Report = no_report,
) -> pd.DataFrame:  # fmt: skip
    """Train and score every cell that `folder` does not hold yet.

    Parameters
    ----------
    cells : of `grid`.
    folder : where the cells' runs are kept; on a cluster, one that all machines see.
    engine : `loky`, processes of this machine; `dask`, the workers of a scheduler, or of one made here; `ray`.
    workers : how many cells at once, at least 1; on a cluster that is there, as many as its workers have processes.
    scheduler : the address of a Dask or Ray cluster; None makes one on this machine.
    limit : the first so many held-out examples; all when None.

    Returns
    -------
    The rows of `store.list_runs` of all cells, with the column origin holding the folder's name. A cell that failed has a row with its name, and
    what went wrong in the column error.

    Raises
    ------
    InputError
        The engine is not installed, or not known; see `core.engines.outcomes`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = {name: config for name, config in cells.items() if not (folder / name / "run.json").is_file()}
    failed: dict[str, str] = {}
    report((len(cells) - len(waiting)) / len(cells), f"{len(cells) - len(waiting)} of {len(cells)} cells were finished before")
    calls = [(name, config, folder, limit) for name, config in waiting.items()]
    for done, (name, error) in enumerate(
        outcomes(_cell, calls, engine=engine, workers=workers, scheduler=scheduler), start=len(cells) - len(waiting) + 1
    ):
        if error is not None:
            failed[name] = str(error)
        report(done / len(cells), f"{done} of {len(cells)} cells")
    failed |= {name: why for name, why in store.left_out(folder).items() if name in cells}  # a folder that was there before, and is no run
    table = store.list_folder(folder, folder.name)
    table = table[table["name"].isin(cells)]
    table = table.assign(error=table["name"].map(failed))  # of a run whose loss became no number, what it had learned before is there
    missing = pd.DataFrame(
        [{"name": name, "origin": folder.name, "error": error} for name, error in failed.items() if name not in set(table["name"])]
    )
    return pd.concat([table, missing], ignore_index=True) if len(missing) else table


def _cell(name: str, config: TrainingConfig, folder: Path, limit: int | None) -> tuple[str, InputError | None]:
    """One cell's name, and what went wrong with it, if anything."""
    try:
        with _one_at_a_time:
            runs.run(config, name, language_model=_model(config.model, config.dtype, config.device), limit=limit, folder=folder)
    except InputError as error:
        return name, error  # worded where it is told, which is another process
    return name, None


@lru_cache(maxsize=1)
def _model(name: str, dtype: str, device: str | None) -> LanguageModel:
    """The frozen model of this process."""
    return load_model(name, dtype=dtype, device=device)
