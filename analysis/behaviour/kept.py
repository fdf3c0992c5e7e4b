"""What asking the model about changed prompts came to, kept in the folder of a run, for a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt, load_soft_prompt
from soft_prompt_explorer.analysis.adapters.run_file import in_store, read_description
from soft_prompt_explorer.analysis.behaviour.asked import COLUMNS
from soft_prompt_explorer.analysis.behaviour.of_task import behave, examples_of, judged
from soft_prompt_explorer.analysis.behaviour.resampling import MEASURED
from soft_prompt_explorer.analysis.behaviour.templates import task_of_run
from soft_prompt_explorer.analysis.behaviour.verdict import Judged
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.strange_files import DAMAGED, read_table
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.prompts.starts import start_from_config
from soft_prompt_explorer.analysis.tasks.task import Task

FILE = "behaviour.csv"


def read_kept(folder: Path) -> pd.DataFrame | None:
    try:
        table = read_table(folder / FILE)
        older = COLUMNS[:-1], COLUMNS[:-3]  # when all was float32, and before effects were ranked
        if table.columns.tolist() not in (COLUMNS, *older) or not len(table):
            return None
        table = table.assign(**({} if "dtype" in table else {"dtype": "float32"})).reindex(columns=COLUMNS)
        types = {"position": "Int64", "amount": "float64", "n": "int64", "rank_draws": "Int64", "dtype": str}
        return table.astype(types | dict.fromkeys([*MEASURED, "rank_p"], "float64"))
    except DAMAGED:
        return None


def asked(
    prompt: SoftPrompt, vocabulary: Vocabulary, *, task: Task | None = None, limit: int = 200, report: Report = no_report
) -> Judged | None:
    """What the model was asked about a prompt, for a report: what is kept with the run that it was read from, or answers of now where a task is named.

    Parameters
    ----------
    task : with the template that it is asked with (see `templates.how_asked`). None takes what is kept; where nothing is, the answer is None.

    Raises
    ------
    InputError
        The task has no held-out examples, or they do not fit into the model.
    """
    kept_there = _kept_of(prompt, vocabulary)
    if task is None:
        if kept_there is None:
            return None
        of_task, table = kept_there
    else:
        of_task = task
        n = min(limit, len(of_task.examples("held-out")))
        if kept_there is not None and _same(kept_there[0], of_task) and kept_there[1]["n"].iloc[0] == n:
            table = kept_there[1]
        else:
            examples = examples_of(of_task, load_model(vocabulary.model, report=report), limit=limit)
            table = behave(prompt, vocabulary, examples, of_task, report=report)
    return judged(prompt, vocabulary, of_task, table, report=report)


def _kept_of(prompt: SoftPrompt, vocabulary: Vocabulary) -> tuple[Task, pd.DataFrame] | None:
    """The task and the table of the run whose folder a prompt was read from, where the prompt is still as it was read.

    A table in a folder from elsewhere says what somebody else put there; one of other initial values, of another direction.
    """
    folder = in_store(prompt.source.path) if prompt.source is not None else None
    if folder is None:
        return None
    table = read_kept(folder)
    if table is None:
        return None
    try:
        described, saved = read_description(folder), start_from_config(load_soft_prompt(folder), vocabulary)
        if described["model"]["name"] != vocabulary.model or not _equal(saved, prompt):
            return None
        return task_of_run(described), table
    except (InputError, OSError, KeyError, ValueError, TypeError):  # not a run of ours, or its task is gone
        return None


def _equal(a: SoftPrompt, b: SoftPrompt) -> bool:
    if a.initial is None or b.initial is None:
        return a.initial is b.initial and np.array_equal(a.embeddings, b.embeddings)
    return np.array_equal(a.embeddings, b.embeddings) and np.array_equal(a.initial, b.initial)


def _same(a: Task, b: Task) -> bool:
    """Whether two tasks ask the same: two files of a person's own may have one name, and their sources tell them apart."""
    return (a.name, a.source, a.template) == (b.name, b.source, b.template)
