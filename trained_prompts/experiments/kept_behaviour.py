"""What asking the model about changed prompts came to, kept with each run: `behaviour.csv` in its folder, and one row a prompt for all of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.behaviour.asked import lacks
from soft_prompt_explorer.analysis.behaviour.changes import (
    DIRECTION_ALONE,
    DIRECTION_OUT,
    INITIAL,
    JUDGED_BY,
    NO_PROMPT,
    PART_ALONE,
    PART_OUT,
    RANDOM_ALONE,
    RANDOM_OUT,
    REST_ALONE,
    TWIN,
    WHOLE,
    WORDS,
)
from soft_prompt_explorer.analysis.behaviour.kept import FILE, read_kept
from soft_prompt_explorer.analysis.behaviour.of_task import behave, direction_of, examples_of, judged
from soft_prompt_explorer.analysis.behaviour.templates import task_of_run
from soft_prompt_explorer.analysis.core.discoveries import q_values
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.export import WRITERS
from soft_prompt_explorer.analysis.core.folders import write_whole
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.core.remedies import ask_about
from soft_prompt_explorer.analysis.core.words import p_value, signed
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary, load_vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.analysis.prompts.starts import start_from_config
from soft_prompt_explorer.analysis.prompts.twins import twins_of
from soft_prompt_explorer.analysis.prompts.verdicts import LEVEL, moved_along_a_word
from soft_prompt_explorer.analysis.tasks.task import Task
from soft_prompt_explorer.trained_prompts.runs import store

SUMMARY_COLUMNS = [
    "prompt", "task", "n", "measure", "score", "no_prompt", "initial", "echo", "unreadable", "near", "moved", "concentration_p", "words_p", "out", "out_low",
    "out_high", "out_loss", "out_loss_low", "out_loss_high", "random_out", "random_out_loss", "alone", "alone_low", "alone_high", "random_alone", "words",
    "words_low", "words_high", "necessary", "sufficient", "words_work", "verdict", "twins", "twin", "twin_words_p", "beyond_twin_p", "rank_out", "rank_alone",
    "part_out", "part_alone", "rest_alone", "words_act", "p_readable", "p_causal", "q_readable", "q_causal",
]  # fmt: skip
TWIN_COLUMNS = ["prompt", "task", "n", "score", "no_prompt", "moved", "words_p", "readable", "causal", "label", "sentence"]


def keep(name: str, table: pd.DataFrame) -> None:
    """Keep the table of `analysis.behaviour.asked.behaviour` with a run, in place of an older one.

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
        return read_kept(store.find(name))
    except InputError:
        return None


def test(names: list[str], *, limit: int, report: Report = no_report) -> None:
    """Ask the model about the prompts of these runs on their own tasks, and keep what came of it; of what was asked before of as many examples, nothing is asked again.

    Raises
    ------
    InputError
        There is no such run, or its model or task is not at hand.
    """
    loaded: tuple[str, LanguageModel] | None = None
    vocabulary: Vocabulary | None = None
    for i, name in enumerate(names):
        report_part = part(report, i, len(names), name)
        task, model = task_of(name), _model_of(name)
        if vocabulary is None or vocabulary.model != model:
            vocabulary = load_vocabulary(model)
        prompt = start_from_config(load_soft_prompt(store.adapter_path(name)), vocabulary)
        before = kept(name)
        if before is not None and before["n"].iloc[0] != min(limit, len(task.examples("held-out"))):
            before = None
        if before is not None:
            direction = direction_of(prompt, vocabulary, task)
            if not lacks(before, prompt, vocabulary, direction=direction, twins=twins_of([prompt])):
                continue
        if loaded is None or loaded[0] != model:
            loaded = (model, load_model(model, report=report_part))
        examples = examples_of(task, loaded[1], limit=limit)
        keep(name, behave(prompt, vocabulary, examples, task, before=before, report=report_part))


def _model_of(name: str) -> str:
    """The model of a run; of a kept file, which has no task either, `task_of` says so."""
    model = store.own_model(name)
    assert model is not None
    return model


def tested() -> list[str]:
    """The soft prompts in the store that have such a table, in the store's order."""
    runs = store.list_runs()
    return [run.name for run in runs.itertuples() if (Path(run.path) / FILE).is_file()]


def summary(names: list[str], *, report: Report = no_report) -> pd.DataFrame:
    """One row a prompt of what was kept.

    Returns
    -------
    prompt, task, n, measure, score, no_prompt, initial (scores), echo, unreadable, near, moved (numbers of virtual tokens), concentration_p, words_p (of the task
    direction), out (change of the score without that direction), out_loss (of the loss), random_out, random_out_loss (without random ones), alone (score of the
    initial values with the direction alone), random_alone (with random ones), words (score of the nearest words in place of the tokens), with _low and _high for
    the bounds of 95 % intervals, of the `Verdict` necessary, sufficient, words_work and its label; twins (how many), twin (their score), twin_words_p, beyond_twin_p
    (see `TaskDirection`), rank_out, rank_alone (the ranks of the direction's effects), part_out, part_alone, rest_alone (what the words' part of the direction does, and the
    rest), and of the `Verdict` words_act, p_readable, p_causal, with q_readable and q_causal over these prompts (Benjamini and Hochberg 1995).

    Raises
    ------
    InputError
        Nothing was kept of one of them.
    """
    rows = []
    vocabulary: Vocabulary | None = None
    for i, name in enumerate(names):
        report(i / len(names), f"reading {name}")
        table = kept(name)
        if table is None:
            raise InputError(f"{name} has not been tested yet;", remedy=ask_about(name))
        if vocabulary is None or vocabulary.model != _model_of(name):
            vocabulary = load_vocabulary(_model_of(name))
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
        twin, part_out, part_alone, rest_alone = (
            of.loc[each] if each in of.index else without for each in (TWIN, PART_OUT, PART_ALONE, REST_ALONE)
        )
        nan = float("nan")
        rows.append(
            [
                name, task.name, int(of.loc[WHOLE, "n"]), of.loc[WHOLE, "measure"], of.loc[WHOLE, "score"], of.loc[NO_PROMPT, "score"], initial["score"],
                *(int(counts.get(each, 0)) for each in ("echo", "unreadable", "near a word", "moved along a word")),
                *((nan, nan) if direction is None else (direction.concentration_p, direction.words_p)),
                *out[["score_change", "score_change_low", "score_change_high", "loss_change", "loss_change_low", "loss_change_high"]],
                random_out["score_change"], random_out["loss_change"], *alone[["score", "score_low", "score_high"]], random_alone["score"],
                *of.loc[WORDS, ["score", "score_low", "score_high"]], verdict.necessary, verdict.sufficient, verdict.words_work, verdict.label,
                *((0, twin["score"], nan, nan) if direction is None else (direction.twins, twin["score"], direction.twin_words_p, direction.beyond_twin_p)),
                out["rank_p"], alone["rank_p"], part_out["score_change"], part_alone["score"], rest_alone["score"],
                verdict.words_act, verdict.p_readable, verdict.p_causal, nan, nan,
            ]
        )  # fmt: skip
    report(1.0, "ready")
    table = pd.DataFrame(rows, columns=SUMMARY_COLUMNS)
    for claim in ("readable", "causal"):
        table[f"q_{claim}"] = q_values(table[f"p_{claim}"]) if len(table) else []
    return table


def of_twins(names: list[str], *, limit: int = 60, report: Report = no_report) -> pd.DataFrame:
    """The verdict on each twin of these runs, judged as a prompt would be, beside its run's other twins: what is said of prompts that learned nothing but the form of an answer.

    Returns
    -------
    One row a twin: prompt, task, n, score, no_prompt, moved (virtual tokens that moved along a word), words_p, readable, causal, label, sentence.

    Raises
    ------
    InputError
        There is no such run, or its model or task is not at hand.
    """
    rows = []
    loaded: tuple[str, LanguageModel] | None = None
    for i, name in enumerate(names):
        task, model = task_of(name), _model_of(name)
        if loaded is None or loaded[0] != model:
            loaded = (model, load_model(model, report=report))
            vocabulary = load_vocabulary(model)
        twins = twins_of([load_soft_prompt(store.adapter_path(name))])
        examples = examples_of(task, loaded[1], limit=limit)
        for twin in twins:
            report(i / len(names), f"asking {twin.name}")
            others = [other for other in twins if other.name != twin.name]
            table = behave(twin, vocabulary, examples, task, twins=others, only=JUDGED_BY)
            found = judged(twin, vocabulary, task, table, twins=others)
            of, moved = table.set_index("intervention")["score"], int(moved_along_a_word(found.read).sum())
            words_p = float("nan") if found.direction is None else found.direction.words_p
            verdict = found.verdict
            rows.append(
                (
                    twin.name,
                    task.name,
                    int(table["n"].iloc[0]),
                    of[WHOLE],
                    of[NO_PROMPT],
                    moved,
                    words_p,
                    verdict.readable,
                    verdict.causal,
                    verdict.label,
                    verdict.sentence,
                )
            )
    report(1.0, "ready")
    return pd.DataFrame(rows, columns=TWIN_COLUMNS)


def summary_markdown(table: pd.DataFrame) -> str:
    """The rows of `summary` as docs/findings.md shows them: a dot where a claim holds for the prompt, and the verdict as it holds over all of them."""

    def dot(holds: bool) -> str:
        return " ●" if holds else ""

    def p_or_none(p: float) -> str:
        return "–" if pd.isna(p) else p_value(p)

    shown = pd.DataFrame(
        {
            "prompt": table["prompt"],
            "n": table["n"],
            "prompt / none / start / twin": [
                f"{r.score:.2f} / {r.no_prompt:.2f} / {r.initial:.2f} / {'–' if pd.isna(r.twin) else f'{r.twin:.2f}'}"
                for r in table.itertuples()
            ],
            "echo / unreadable / near a word / moved along a word": [
                f"{r.echo} / {r.unreadable} / {r.near} / {r.moved}" for r in table.itertuples()
            ],
            "p words; its twin's; beyond it": [
                f"{p_or_none(r.words_p)}; {p_or_none(r.twin_words_p)}; {p_or_none(r.beyond_twin_p)}" for r in table.itertuples()
            ],
            "direction out; rank p": [
                f"{signed(r.out)} ({signed(r.out_low)} to {signed(r.out_high)}); {p_or_none(r.rank_out)}{dot(r.necessary)}"
                for r in table.itertuples()
            ],
            "direction alone; rank p": [
                f"{r.alone:.2f} ({r.alone_low:.2f} to {r.alone_high:.2f}); {p_or_none(r.rank_alone)}{dot(r.sufficient)}"
                for r in table.itertuples()
            ],
            "its words' part alone; the rest": [
                "–" if pd.isna(r.part_alone) else f"{r.part_alone:.2f}; {r.rest_alone:.2f}{dot(r.words_act)}" for r in table.itertuples()
            ],
            "its words": [f"{r.words:.2f}{dot(r.words_work)}" for r in table.itertuples()],
            "q causal": [p_value(r.q_causal) for r in table.itertuples()],
            "verdict": [over_all(r) for r in table.itertuples()],
        }
    )
    return WRITERS["md"](shown).decode()


def over_all(row) -> str:
    """The verdict of a row of `summary` after the correction over all prompts there: what holds for one prompt alone is marked so."""
    claims = [claim for claim, holds in (("readable", row.p_readable < 1), ("causal", row.p_causal <= LEVEL)) if holds]
    lost = [claim for claim in claims if getattr(row, f"q_{claim}") > LEVEL]
    return f"{row.verdict} ({' and '.join(lost)} by itself, not after the correction over all)" if lost else row.verdict


def task_of(name: str) -> Task:
    """The task that a run was trained on, with the template that it was trained with: of the person's own, it may be a path.

    Raises
    ------
    InputError
        There is no such run, or its task is not at hand any more.
    """
    return task_of_run(read_description(store.find(name)))
