"""What asking the model about changed prompts came to, kept with each run: `behaviour.csv` in its folder, and one row a prompt for all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.adapters import SoftPrompt, load_soft_prompt
from analysis.behaviour import (
    COLUMNS,
    DIRECTION_ALONE,
    DIRECTION_OUT,
    INITIAL,
    MEASURED,
    NO_PROMPT,
    RANDOM_ALONE,
    RANDOM_OUT,
    WHOLE,
    WORDS,
    Judged,
    p_value,
    signed,
)
from analysis.errors import InputError
from analysis.export import WRITERS
from analysis.folders import write_whole
from analysis.models import Report, load_model, no_report
from analysis.starts import start_from_config
from analysis.vocabulary import Vocabulary, load_vocabulary
from trained_prompts import store
from trained_prompts.asking import behave, examples_of, judged
from trained_prompts.tasks import Task
from trained_prompts.templates import task_of_run

FILE = "behaviour.csv"
SUMMARY_COLUMNS = [
    "prompt", "task", "n", "measure", "score", "no_prompt", "initial", "echo", "unreadable", "near", "learned", "concentration_p", "words_p", "out", "out_low",
    "out_high", "out_loss", "out_loss_low", "out_loss_high", "random_out", "random_out_loss", "alone", "alone_low", "alone_high", "random_alone", "words",
    "words_low", "words_high", "necessary", "sufficient", "words_work", "verdict",
]  # fmt: skip


def keep(name: str, table: pd.DataFrame) -> None:
    """Keep the table of `analysis.behaviour.behaviour` with a run, in place of an older one.

    Raises
    ------
    InputError
        There is no such run, or nothing can be written there.
    """
    path = store.find(name) / FILE
    try:
        write_whole(path, WRITERS["csv"](table))
    except OSError as error:
        raise InputError(f"What was measured cannot be kept in {path.parent}: {error.strerror or error}.") from error


def kept(name: str) -> pd.DataFrame | None:
    """The table kept with a run; None where there is none that can be read."""
    try:
        return _read(store.find(name))
    except InputError:
        return None


def _read(folder: Path) -> pd.DataFrame | None:
    try:
        table = pd.read_csv(folder / FILE)
        if table.columns.tolist() != COLUMNS or not len(table):
            return None
        return table.astype({"position": "Int64", "amount": "float64", "n": "int64", **dict.fromkeys(MEASURED, "float64")})
    except (OSError, ValueError, TypeError):
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
    folder = prompt.source.path.resolve() if prompt.source is not None else None
    if folder is None or folder.parent not in (store.GALLERY.resolve(), store.runs_folder().resolve()):
        return None
    table = _read(folder)
    if table is None:
        return None
    try:
        described, saved = store.read_description(folder), start_from_config(load_soft_prompt(folder), vocabulary)
        if described["model"]["name"] != vocabulary.model or not _equal(saved, prompt):
            return None
        return task_of_run(described), table
    except (InputError, OSError, KeyError, ValueError, TypeError):  # not a run of ours, or its task is gone
        return None


def _equal(a: SoftPrompt, b: SoftPrompt) -> bool:
    if (a.initial is None) != (b.initial is None):
        return False
    return np.array_equal(a.embeddings, b.embeddings) and (a.initial is None or np.array_equal(a.initial, b.initial))


def _same(a: Task, b: Task) -> bool:
    """Whether two tasks ask the same: two files of a person's own may have one name, and their sources tell them apart."""
    return (a.name, a.source, a.template) == (b.name, b.source, b.template)


def test(names: list[str], *, limit: int, report: Report = no_report) -> None:
    """Ask the model about the prompts of these runs on their own tasks, and keep what came of it; where as many examples were asked before, nothing is done.

    Raises
    ------
    InputError
        There is no such run, or its model or task is not at hand.
    """
    language_model: tuple = (None, None)
    for i, name in enumerate(names):

        def report_part(share: float, doing: str, i: int = i, name: str = name) -> None:
            report((i + share) / len(names), f"{name}: {doing}")

        task = task_of(name)
        before = kept(name)
        if before is not None and before["n"].iloc[0] == min(limit, len(task.examples("held-out"))):
            continue
        model = store.own_model(name)
        if language_model[0] != model:
            language_model = (model, load_model(model, report=report_part))
        vocabulary = load_vocabulary(model)
        prompt = start_from_config(load_soft_prompt(store.adapter_path(name)), vocabulary)
        keep(name, behave(prompt, vocabulary, examples_of(task, language_model[1], limit=limit), task, report=report_part))


def tested() -> list[str]:
    """The soft prompts in the store that have such a table, in the store's order."""
    runs = store.list_runs()
    return [run.name for run in runs.itertuples() if (Path(run.path) / FILE).is_file()]


def summary(names: list[str], *, report: Report = no_report) -> pd.DataFrame:
    """One row a prompt of what was kept.

    Returns
    -------
    prompt, task, n, measure, score, no_prompt, initial (scores), echo, unreadable, near, learned (numbers of virtual tokens), concentration_p, words_p (of the task
    direction), out (change of the score without that direction), out_loss (of the loss), random_out, random_out_loss (without random ones), alone (score of the
    initial values with the direction alone), random_alone (with random ones), words (score of the nearest words in place of the tokens), with _low and _high for
    the bounds of 95 % intervals, and of the `Verdict` necessary, sufficient, words_work and its label.

    Raises
    ------
    InputError
        Nothing was kept of one of them.
    """
    rows = []
    for i, name in enumerate(names):
        report(i / len(names), f"reading {name}")
        table = kept(name)
        if table is None:
            raise InputError(f"{name} has not been tested yet; `python -m trained_prompts behaviour {name}` does it.")
        vocabulary = load_vocabulary(store.own_model(name))
        prompt = start_from_config(load_soft_prompt(store.adapter_path(name)), vocabulary)
        task = task_of(name)
        of_prompt = judged(prompt, vocabulary, task, table, report=report)
        direction, verdict = of_prompt.direction, of_prompt.verdict
        of = table.drop_duplicates("intervention").set_index("intervention")
        counts = of_prompt.read["verdict"].value_counts()
        without = pd.Series(float("nan"), index=of.columns)
        out, random_out, alone, random_alone, initial = (
            of.loc[each] if each in of.index else without for each in (DIRECTION_OUT, RANDOM_OUT, DIRECTION_ALONE, RANDOM_ALONE, INITIAL)
        )
        nan = float("nan")
        rows.append(
            [
                name, task.name, int(of.loc[WHOLE, "n"]), of.loc[WHOLE, "measure"], of.loc[WHOLE, "score"], of.loc[NO_PROMPT, "score"], initial["score"],
                *(int(counts.get(each, 0)) for each in ("echo", "unreadable", "near a word", "learned")),
                *((nan, nan) if direction is None else (direction.concentration_p, direction.words_p)),
                *out[["score_change", "score_change_low", "score_change_high", "loss_change", "loss_change_low", "loss_change_high"]],
                random_out["score_change"], random_out["loss_change"], *alone[["score", "score_low", "score_high"]], random_alone["score"],
                *of.loc[WORDS, ["score", "score_low", "score_high"]], verdict.necessary, verdict.sufficient, verdict.words_work, verdict.label,
            ]
        )  # fmt: skip
    report(1.0, "ready")
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def summary_markdown(table: pd.DataFrame) -> str:
    """The rows of `summary` as the README shows them."""

    def tested(row) -> str:
        return f"{row.alone:.2f} ({row.alone_low:.2f} to {row.alone_high:.2f}); {row.random_alone:.2f}{' ●' if row.sufficient else ''}"

    shown = pd.DataFrame(
        {
            "prompt": table["prompt"],
            "n": table["n"],
            "prompt / none / start": [f"{r.score:.2f} / {r.no_prompt:.2f} / {r.initial:.2f}" for r in table.itertuples()],
            "echo / unreadable / near a word / learned": [
                f"{r.echo} / {r.unreadable} / {r.near} / {r.learned}" for r in table.itertuples()
            ],
            "p shared; p words": [f"{p_value(r.concentration_p)}; {p_value(r.words_p)}" for r in table.itertuples()],
            "direction out; random out": [
                f"{signed(r.out)} ({signed(r.out_low)} to {signed(r.out_high)}); {signed(r.random_out)}{' ●' if r.necessary else ''}"
                for r in table.itertuples()
            ],
            "direction alone; random alone": [tested(r) for r in table.itertuples()],
            "its words": [f"{r.words:.2f}{' ●' if r.words_work else ''}" for r in table.itertuples()],
            "verdict": table["verdict"],
        }
    )
    return WRITERS["md"](shown).decode()


def task_of(name: str) -> Task:
    """The task that a run was trained on, with the template that it was trained with: of the person's own, it may be a path.

    Raises
    ------
    InputError
        There is no such run, or its task is not at hand any more.
    """
    return task_of_run(store.read_description(store.find(name)))
