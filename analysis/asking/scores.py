"""How well a method does on examples that it was not trained on: scores always with n and a 95 % interval.

`predictions` is what every score rests on: a table with a row an example, of what was asked, what was answered and how sure the model was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.asking.answers import predictions
from soft_prompt_explorer.analysis.asking.in_front import Subject, bare, check_fits, subject_of
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.task import Task

if TYPE_CHECKING:
    from soft_prompt_explorer.analysis.adapters import SoftPrompt

COLUMNS = ["prompt", "task", "split", "n", "measure", "score", "low", "high", "loss", "seconds"]
SCORECARD_COLUMNS = ["prompt", "task", "measure", "value", "low", "high", "n"]
CALIBRATION_COLUMNS = ["prompt", "task", "bin", "low", "high", "n", "confidence", "accuracy"]


def score(name: str, subject: Subject, task: Task, table: pd.DataFrame, *, report: Report = no_report) -> pd.DataFrame:
    """The task's own measure of one method on some of its held-out examples.

    Returns
    -------
    One row: prompt, task, split, n, measure, score, low, high (95 % interval), loss, seconds.
    """
    from soft_prompt_explorer.analysis.tasks.scoring import scores

    began = time.perf_counter()
    answered = predictions(subject, task, table, report=report)
    first = scores(answered, task.scored_by).iloc[0]
    row = [name, task.name, "held-out", first["n"], first["measure"], first["value"], first["low"], first["high"], answered["loss"].mean(), time.perf_counter() - began]  # fmt: skip
    return pd.DataFrame([row], columns=COLUMNS)


def evaluate(
    name: str,
    embeddings: np.ndarray | None,
    task: Task | str,
    *,
    language_model: LanguageModel,
    limit: int | None = None,
    report: Report = no_report,
) -> pd.DataFrame:
    """The score and the loss of one prompt on a task's held-out examples: one row, see `score`.

    Parameters
    ----------
    embeddings : (n, d) float32 virtual tokens, or None for the bare model (zero-shot).
    language_model : of `load_model`.
    task : or its name; see `tasks.get_task`.
    limit : the first so many held-out examples; all when None.
    """
    task = get_task(task) if isinstance(task, str) else task
    with subject_of(embeddings, language_model) as subject:
        return score(name, subject, task, task.examples("held-out").head(limit), report=report)


def compare_with_bare_model(
    prompt: SoftPrompt, task: Task | str, *, language_model: LanguageModel, limit: int | None = None, report: Report = no_report
) -> pd.DataFrame:
    """Held-out scores of the bare model, of the prompt's initial values where they are known, and of the prompt."""
    check_fits(prompt, language_model.model)
    subjects = [(prompt.name, subject_of(prompt, language_model))]
    if prompt.initial is not None:
        subjects.insert(0, ("initial values", subject_of(prompt.initial, language_model)))
    return evaluate_all(subjects, task, language_model, limit, report)


def compare_lora(
    folder: Path, name: str, task: Task | str, *, language_model: LanguageModel, limit: int | None = None, report: Report = no_report
) -> pd.DataFrame:
    """Held-out scores of the bare model and of the model with the LoRA in a PEFT folder."""
    return evaluate_all([(name, subject_of(folder, language_model))], task, language_model, limit, report)


def scorecard(name: str, subject: Subject, task: Task, *, limit: int | None = None, report: Report = no_report) -> pd.DataFrame:
    """Many measures of one method on a task's held-out examples, none of them left out.

    Returns
    -------
    A row a measure: prompt, task, measure, value, low, high (95 % interval, where the measure has one), n. The measures are the task's own, ROUGE of
    free text, loss, expected calibration error, the task's first measure on the same inputs in lower case and with typing errors (the invariance set
    of HELM, Liang et al. 2023, section 4.4), and seconds an example.
    """
    return scorecard_and_calibration(name, subject, task, limit=limit, report=report)[0]


def risen_loss(bare: Mapping, trained: Mapping) -> str | None:
    """A sentence where the held-out loss is higher after training than without it, as it is of a run that fell apart; None elsewhere. It tells what was measured, and no more.

    Parameters
    ----------
    bare, trained : rows of `score`, of the model alone and as trained.

    Examples
    --------
    >>> risen_loss({"loss": 3.61}, {"loss": 6.80})
    'The held-out loss is higher with it: 6.80 nats a token, and 3.61 without. A smaller learning rate may help.'
    """
    if not trained["loss"] > bare["loss"]:
        return None
    return (
        f"The held-out loss is higher with it: {trained['loss']:.2f} nats a token, and {bare['loss']:.2f} without. "
        "A smaller learning rate may help."
    )


def calibration(name: str, subject: Subject, task: Task, *, limit: int | None = None, report: Report = no_report) -> pd.DataFrame:
    """How sure the model is against how often it is right, on a task's held-out examples, in ten bins of confidence.

    Returns
    -------
    Ten rows: prompt, task, bin, low, high (its edges), n, confidence, accuracy (both missing in an empty bin); see `scoring.calibration_bins`.
    """
    return _calibration(name, task, predictions(subject, task, task.examples("held-out").head(limit), report=report))


def scorecard_and_calibration(
    name: str, subject: Subject, task: Task, *, limit: int | None = None, report: Report = no_report
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `scorecard` and `calibration` answer, the model asked once for both."""
    from soft_prompt_explorer.analysis.tasks import scoring

    table = task.examples("held-out").head(limit)
    seeded = np.random.default_rng(0)
    changes: dict[str, Callable[[str], str]] = {
        "lower case": scoring.lower_cased,
        "typing errors": lambda text: scoring.with_typos(text, seeded),
    }
    parts = 1 + len(changes)
    began = time.perf_counter()
    answered = predictions(subject, task, table, report=part(report, 0, parts))
    seconds = (time.perf_counter() - began) / len(table)
    measured = [scoring.scores(answered, task.scored_by)]
    if not task.labels and task.scored_by != "rouge":
        rouge = scoring.scores(answered, "rouge")
        measured.append(rouge[~rouge["measure"].isin(measured[0]["measure"])])
    error = scoring.calibration_error(answered["probability"].to_numpy(), answered["correct"].to_numpy())
    plain = [("loss", answered["loss"].mean()), ("calibration error", error)]
    for i, (change, apply) in enumerate(changes.items(), start=1):
        changed = _changed(task, table, apply)
        again = predictions(subject, task, changed, report=part(report, i, parts))
        measured.append(
            scoring.scores(again, task.scored_by).head(1).assign(measure=lambda rows, change=change: rows["measure"] + f", {change}")
        )
    plain.append(("seconds an example", seconds))
    measured.append(pd.DataFrame(plain, columns=["measure", "value"]).assign(n=len(table)))
    card = pd.concat(measured, ignore_index=True).assign(prompt=name, task=task.name)[SCORECARD_COLUMNS]
    return card, _calibration(name, task, answered)


def _calibration(name: str, task: Task, answered: pd.DataFrame) -> pd.DataFrame:
    from soft_prompt_explorer.analysis.tasks.scoring import calibration_bins

    bins = calibration_bins(answered["probability"].to_numpy(), answered["correct"].to_numpy())
    return bins.assign(prompt=name, task=task.name)[CALIBRATION_COLUMNS]


def _changed(task: Task, table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The same examples with their inputs changed and the words of the template as they are."""
    before, _, after = task.template.partition("{input}")
    inner = [text[len(before) : len(text) - len(after)] for text in table["text"]]
    return table.assign(text=[before + change(text) + after for text in inner])


def evaluate_all(
    subjects: Sequence[tuple[str, AbstractContextManager[Subject]]],
    task: Task | str,
    language_model: LanguageModel,
    limit: int | None,
    report: Report,
) -> pd.DataFrame:
    """The score of the bare model, and below it those of these subjects, each put together when its turn comes."""
    task = get_task(task) if isinstance(task, str) else task
    table = task.examples("held-out").head(limit)
    parts = 1 + len(subjects)
    rows = [score_bare(task, table, language_model, report=part(report, 0, parts, "no prompt"))]
    for i, (name, entered) in enumerate(subjects, start=1):
        with entered as subject:
            rows.append(score(name, subject, task, table, report=part(report, i, parts, name)))
    return pd.concat(rows, ignore_index=True)


# The bare model does not change: one score a process, by model, task and number of examples. A model that is let go takes its scores along.
_BARE: WeakKeyDictionary[object, dict[tuple, pd.DataFrame]] = WeakKeyDictionary()


def score_bare(task: Task, table: pd.DataFrame, language_model: LanguageModel, *, report: Report = no_report) -> pd.DataFrame:
    """`score` of the model as it is, on the first so many held-out examples; each is asked once a process."""
    kept = _BARE.setdefault(language_model.model, {})
    if (task, len(table)) not in kept:
        kept[task, len(table)] = score("no prompt", bare(language_model), task, table, report=report)
    return kept[task, len(table)]
