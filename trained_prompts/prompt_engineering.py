"""The oldest way to adapt a model: say in words what is wanted, and show a few examples. Nothing is learned."""

from __future__ import annotations

import pandas as pd

from trained_prompts.tasks import Task

SHOTS = 4  # examples shown: those of Brown et al. 2020, section 2, with k = 4


def prompted(task: Task, template: str, *, shots: int = 0, limit: int | None = None) -> pd.DataFrame:
    """The held-out examples with a hand-written template, after `shots` training examples with their answers.

    The shots are the first training examples, with labels in turn the first of each label, so that the same ones stand before every example.

    Returns
    -------
    As `Task.examples`.
    """
    shown = task.examples("train", template=template)
    if task.labels:
        shown = shown.assign(turn=shown.groupby("target").cumcount()).sort_values("turn", kind="stable")
    before = "".join(f"{row.text}{row.target}\n\n" for row in shown.head(shots).itertuples())
    table = task.examples("held-out", template=template).head(limit)
    return table.assign(text=before + table["text"])
