"""A task by its name or path."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.analysis.tasks.task import Task


def get_task(name: str, template: str | None = None) -> Task:
    """The task of that name, or in the file or folder of that path; an unknown name lists the known ones.

    Parameters
    ----------
    name : of a task in `TASKS`; of one of the person's own; `superglue-NAME`, from the hub; or the path of a CSV or JSON-lines file, or of
        a folder of SuperGLUE with the task's name, for instance `superglue/BoolQ`.
    template : how it is asked, in place of its own; see `checked_template`.

    Raises
    ------
    InputError
    """
    return _task(name) if template is None else _task(name).asked_with(template)


def _task(name: str) -> Task:
    if name in TASKS:
        return TASKS[name]
    from soft_prompt_explorer.analysis.tasks import own_data, superglue

    own = {task.name: task for task in own_data.kept_tasks()}
    if name in own:
        return own[name]
    try:
        path = Path(name).expanduser()
        kind = "folder" if path.is_dir() else "file" if path.is_file() else None
    except (OSError, RuntimeError, ValueError):
        kind = None
    if kind == "folder":
        return superglue.superglue_task(path.parent, path.name)
    if kind == "file":
        return own_data.task_from_file(path)
    if name.startswith("superglue-"):
        return superglue.from_hub(name)
    raise InputError(
        f"No task is called {name[:80]!r}; the tasks are {', '.join([*TASKS, *own])}, and the path of a CSV or JSON-lines file is one too."
    )


def tasks_table() -> pd.DataFrame:
    """One row a task: task, description, labels, scoring, train, held_out (numbers of examples), prompts (hand-written), template, source."""
    from soft_prompt_explorer.analysis.tasks.own_data import kept_tasks

    rows = []
    for task in [*TASKS.values(), *kept_tasks()]:
        rows.append(
            {
                "task": task.name,
                "description": task.description,
                "labels": " / ".join(label.strip() for label in task.labels) if task.labels else "free text",
                "scoring": task.scored_by,
                "train": len(task.examples("train")),
                "held_out": len(task.examples("held-out")),
                "prompts": len(task.prompts),
                "template": task.template.replace("\n", " ⏎ "),
                "source": task.source,
            }
        )
    return pd.DataFrame(rows)
