"""What a LoRA still knows of its task when it is cut down to fewer ranks."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.asking.in_front import subject_of
from soft_prompt_explorer.analysis.asking.scores import score
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.loras.truncation import truncate
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.task import Task


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
    task = get_task(task) if isinstance(task, str) else task
    with tempfile.TemporaryDirectory() as folder:
        truncate(adapter, energy, Path(folder) / "cut")
        with subject_of(Path(folder) / "cut", language_model) as subject:
            return score(
                f"{adapter.name} at {energy:.0%} of its energy", subject, task, task.examples("held-out").head(limit), report=report
            )
