"""The same model and the same examples, adapted in every way: what each costs and what each gives."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.errors import InputError
from analysis.folders import write_whole
from analysis.models import EMBEDDED_MODEL, Report, no_report
from trained_prompts import runs, store
from trained_prompts.evaluation import Adapted, bare, recorded, score
from trained_prompts.memory import PeakMemory
from trained_prompts.prompt_engineering import SHOTS, shown_examples, with_text
from trained_prompts.tasks import Task, get_task
from trained_prompts.trainer import TrainingConfig

SHIPPED = Path(__file__).parent / "comparisons"  # a CSV a comparison
PUBLISHED = SHIPPED / "published.json"  # every figure names its table
COLUMNS = [
    "method", "what", "task", "model", "measure", "score", "low", "high", "n", "loss", "trainable", "seconds_training", "seconds_scoring",
    "peak_memory", "seed",
]  # fmt: skip
PUBLISHED_COLUMNS = ["paper", "table", "metric", "model", "total", "method", "printed", "trainable", "score", "plus_minus", "note"]
METHODS: dict[str, dict] = {
    "prompt tuning": {"method": "prompt-tuning"},
    "p-tuning": {"method": "p-tuning"},
    "prefix tuning": {"method": "prefix-tuning"},
    "LoRA": {"method": "lora"},
    "full fine-tuning": {"method": "full"},
}


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig:
    """What determines a comparison.

    Attributes
    ----------
    steps : of every method that learns, of eight examples each.
    limit : the first so many held-out examples.
    """

    task: str
    model: str = EMBEDDED_MODEL
    steps: int = 150
    seed: int = 0
    limit: int = 300

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(vars(self)).encode()).hexdigest()[:12]


def compare(
    config: ComparisonConfig, *, language_model, report: Report = no_report, row_made: Callable[[pd.DataFrame], None] = lambda table: None
) -> pd.DataFrame:
    """Score every method on the task's held-out examples. Rows are kept as they are made: a comparison that was broken off goes on where it was.

    Parameters
    ----------
    row_made : called with the table so far after every row.

    Returns
    -------
    A row for zero-shot, for each hand-written prompt with no and with four examples, and for each method that learns: method, what (the prompt, or the
    settings), task, model, measure, score, low, high (95 % interval), n, loss, trainable (parameters), seconds_training, seconds_scoring, peak_memory
    (bytes held at most while the row was made, the frozen model with it), seed (of methods that learn).
    """
    task = get_task(config.task)
    table = kept(config)
    wanted = _rows(config, task)
    for i, (method, what, make) in enumerate(wanted):
        if ((table["method"] == method) & (table["what"] == what)).any():
            continue

        def report_part(share: float, doing: str, i: int = i, method: str = method) -> None:
            report((i + share) / len(wanted), f"{method}: {doing}")

        row = pd.DataFrame([make(language_model, report_part)])
        row = row.assign(method=method, what=what, task=task.name, model=config.model)[COLUMNS]
        table = row if not len(table) else pd.concat([table, row], ignore_index=True)
        _keep(config, table)
        row_made(table)
    return table


def kept(config: ComparisonConfig) -> pd.DataFrame:
    """The rows of a comparison that were made on this machine so far."""
    path = _path(config)
    return pd.read_csv(path, keep_default_na=True) if path.is_file() else pd.DataFrame(columns=COLUMNS)


def all_kept() -> pd.DataFrame:
    """Every comparison that ships or was made on this machine, one under the other, with the column origin: shipped or yours."""
    folders = (("shipped", SHIPPED), ("yours", _folder()))
    tables = [pd.read_csv(path).assign(origin=origin) for origin, folder in folders for path in sorted(folder.glob("*.csv"))]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*COLUMNS, "origin"])


def published() -> pd.DataFrame:
    """What papers published, a row a figure.

    Columns: paper, table (its number there), metric, model, total (its parameters), method, printed (what the paper calls it), trainable (parameters),
    score (as printed), plus_minus (NaN where the paper gives none), note.
    """
    tables = json.loads(PUBLISHED.read_text(encoding="utf-8"))["tables"]
    rows = [{key: table[key] for key in ("paper", "table", "metric")} | row for table in tables for row in table["rows"]]
    return pd.DataFrame(rows, columns=PUBLISHED_COLUMNS)


def told_apart(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `all_kept` with the column comparison: its number, from 1. Each begins with its row of zero-shot."""
    return table.assign(comparison=(table["method"] == "zero-shot").cumsum())


def beside_zero_shot(table: pd.DataFrame) -> pd.Series:
    """Of each row of one comparison: above, within or below; above and below where its 95 % interval and that of zero-shot have nothing in common."""
    bare = table[table["method"] == "zero-shot"].iloc[0]
    place = pd.Series("within", index=table.index)
    place[table["low"] > bare["high"]] = "above"
    place[table["high"] < bare["low"]] = "below"
    return place


def best_of_each_method(table: pd.DataFrame) -> pd.DataFrame:
    """One row a method in the order of the table: of prompt engineering, the hand-written prompt that scored best."""
    best = table.groupby("method", sort=False)["score"].idxmax()
    return table.loc[best]


def _folder() -> Path:
    return store.runs_folder() / ".comparisons"


def _path(config: ComparisonConfig) -> Path:
    return _folder() / f"{config.key}.csv"


def _keep(config: ComparisonConfig, table: pd.DataFrame) -> None:
    path = _path(config)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, table.to_csv(index=False, lineterminator="\n").encode())
    except OSError as error:
        raise InputError(f"The comparison cannot be kept in {path.parent}: {error.strerror or error}.") from error


def _rows(config: ComparisonConfig, task: Task) -> list[tuple[str, str, Callable]]:
    """(method, what, function of the language model that answers the rest of the row) of every row."""
    rows: list[tuple[str, str, Callable]] = [("zero-shot", task.template, _by_words(config, task, task.template, 0))]
    for shots in (0, SHOTS):
        for template in task.prompts:
            what = template if not shots else f"{shots} examples, then {template}"
            rows.append(("prompt engineering", what, _by_words(config, task, template, shots)))
    for method, settings in METHODS.items():
        training = TrainingConfig(task=config.task, model=config.model, steps=config.steps, seed=config.seed, **settings)
        rows.append((method, _settings_in_words(training), _by_learning(config, task, training)))
    return rows


def _settings_in_words(training: TrainingConfig) -> str:
    size = {"lora": f"rank {training.rank}", "full": "all weights"}.get(training.method, f"{training.tokens} virtual tokens")
    return f"{size}, {training.steps} steps at {training.learning_rate:g}"


def _by_words(config: ComparisonConfig, task: Task, template: str, shots: int) -> Callable:
    def make(language_model, report: Report) -> dict:
        table = task.examples("held-out", template=template).head(config.limit)
        with PeakMemory() as memory:
            subject = with_text(language_model, shown_examples(task, template)) if shots else bare(language_model)
            scored = _scored(subject, task, table, report)
        return scored | {"trainable": 0, "seconds_training": 0.0, "peak_memory": memory.bytes, "seed": None}

    return make


def _by_learning(config: ComparisonConfig, task: Task, training: TrainingConfig) -> Callable:
    def make(language_model, report: Report) -> dict:
        name = f"{config.key}-{training.method}"
        with PeakMemory() as memory:
            for recording, step in runs.record(training, name, language_model=language_model, folder=_folder()):  # noqa: B007
                report(0.8 * step.step / step.steps, f"step {step.step} of {step.steps}")
            table = task.examples("held-out").head(config.limit)
            with recorded(recording, language_model) as subject:
                scored = _scored(subject, task, table, lambda share, doing: report(0.8 + 0.2 * share, doing))
        runs.forget(name, _folder())
        last = recording.last
        return scored | {"trainable": last.trainable, "seconds_training": last.seconds, "peak_memory": memory.bytes, "seed": training.seed}

    return make


def _scored(subject: Adapted, task: Task, table: pd.DataFrame, report: Report) -> dict:
    began = time.perf_counter()
    row = score("", subject, task, table, report=report).iloc[0]
    return row[["measure", "score", "low", "high", "n", "loss"]].to_dict() | {"seconds_scoring": time.perf_counter() - began}
