"""What asking the model about changed prompts came to, kept with each run: `behaviour.csv` in its folder, and one row a prompt for all of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.adapters import SoftPrompt, load_soft_prompt
from analysis.behaviour import COLUMNS, DIRECTION_ALONE, DIRECTION_OUT, INITIAL, NO_PROMPT, RANDOM_OUT, WHOLE, WORDS, Verdict, judge
from analysis.direction import task_direction
from analysis.errors import InputError
from analysis.export import WRITERS
from analysis.folders import write_whole
from analysis.models import Report, load_model, no_report
from analysis.readings import readings
from analysis.vocabulary import Vocabulary, load_vocabulary
from trained_prompts import store
from trained_prompts.asking import behave, examples_of
from trained_prompts.tasks import Task, get_task

FILE = "behaviour.csv"
SUMMARY_COLUMNS = [
    "prompt", "task", "n", "measure", "score", "no_prompt", "initial", "echo", "unreadable", "near", "learned", "words_p", "out", "out_low", "out_high",
    "random_out", "alone", "alone_beside", "alone_low", "alone_high", "words", "verdict",
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
        table = pd.read_csv(store.find(name) / FILE)
    except (InputError, OSError, ValueError):
        return None
    if table.columns.tolist() != COLUMNS or not len(table):
        return None
    return table.astype({"position": "Int64", "amount": "float64"})


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

        task = get_task(store.read_description(store.find(name))["config"]["task"])
        before = kept(name)
        if before is not None and before["n"].iloc[0] == min(limit, len(task.examples("held-out"))):
            continue
        model = store.own_model(name)
        if language_model[0] != model:
            language_model = (model, load_model(model, report=report_part))
        prompt, vocabulary = load_soft_prompt(store.adapter_path(name)), load_vocabulary(model)
        table, _ = behave(prompt, vocabulary, examples_of(task, language_model[1], limit=limit), task, report=report_part)
        keep(name, table)


def tested() -> list[str]:
    """The soft prompts in the store that have such a table, in the store's order."""
    runs = store.list_runs()
    return [run.name for run in runs.itertuples() if (Path(run.path) / FILE).is_file()]


def verdict_of(prompt: SoftPrompt, vocabulary: Vocabulary, task: Task, table: pd.DataFrame, *, report: Report = no_report) -> Verdict:
    """What a kept table comes to, together with the readings, which are computed anew."""
    return _judged(prompt, vocabulary, task, table, report)[2]


def summary(names: list[str], *, report: Report = no_report) -> pd.DataFrame:
    """One row a prompt of what was kept.

    Returns
    -------
    prompt, task, n, measure, score, no_prompt, initial (scores), echo, unreadable, near, learned (numbers of virtual tokens), words_p (of the task direction),
    out, out_low, out_high (change of the score without that direction, and its 95 % interval), random_out (without random ones), alone (score of the initial
    values with the direction alone), alone_beside, alone_low, alone_high (beside random directions), words (score of the nearest words in place of the tokens),
    verdict.

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
        prompt = load_soft_prompt(store.adapter_path(name))
        task = get_task(table["task"].iloc[0])
        read, direction, verdict = _judged(prompt, load_vocabulary(store.own_model(name)), task, table, report)
        of = table.drop_duplicates("intervention").set_index("intervention")
        counts = read["verdict"].value_counts()
        without = {column: float("nan") for column in of.columns}
        out, random, alone, initial = (
            of.loc[each] if each in of.index else without for each in (DIRECTION_OUT, RANDOM_OUT, DIRECTION_ALONE, INITIAL)
        )
        rows.append(
            [
                name, task.name, int(of.loc[WHOLE, "n"]), of.loc[WHOLE, "measure"], of.loc[WHOLE, "score"], of.loc[NO_PROMPT, "score"], initial["score"],
                *(int(counts.get(each, 0)) for each in ("echo", "unreadable", "near a word", "learned")),
                float("nan") if direction is None else direction.words_p, out["score_change"], out["score_low"], out["score_high"], random["score_change"],
                alone["score"], alone["score_beside_control"], alone["score_beside_low"], alone["score_beside_high"], of.loc[WORDS, "score"], verdict.label,
            ]
        )  # fmt: skip
    report(1.0, "ready")
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def summary_markdown(table: pd.DataFrame) -> str:
    """The rows of `summary` as the README shows them."""

    def change(value: float, low: float, high: float) -> str:
        return f"{value:+.2f} ({low:+.2f} to {high:+.2f})".replace("-", "−")

    shown = pd.DataFrame(
        {
            "prompt": table["prompt"],
            "n": table["n"],
            "score": table["score"].map("{:.2f}".format),
            "no prompt": table["no_prompt"].map("{:.2f}".format),
            "start": table["initial"].map("{:.2f}".format),
            "echo / unreadable / near / learned": [f"{r.echo} / {r.unreadable} / {r.near} / {r.learned}" for r in table.itertuples()],
            "words p": table["words_p"].map(lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}"),
            "direction out": [change(r.out, r.out_low, r.out_high) for r in table.itertuples()],
            "random out": table["random_out"].map(lambda value: f"{value:+.2f}".replace("-", "−")),
            "direction alone": [f"{r.alone:.2f}, {change(r.alone_beside, r.alone_low, r.alone_high)}" for r in table.itertuples()],
            "its words": table["words"].map("{:.2f}".format),
            "verdict": table["verdict"],
        }
    )
    return WRITERS["md"](shown).decode()


def _judged(prompt: SoftPrompt, vocabulary: Vocabulary, task: Task, table: pd.DataFrame, report: Report):
    direction = None
    if (table["intervention"] == DIRECTION_OUT).any():
        direction = task_direction([prompt], vocabulary, words=task.answer_words(), report=report)
    read = readings(prompt, vocabulary, report=report)
    return read, direction, judge(read, table, direction=direction, vocabulary=vocabulary)
