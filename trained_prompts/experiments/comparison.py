"""The same model and the same examples, adapted in every way: what each costs and what each gives."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from soft_prompt_explorer.analysis.asking.answers import check_held_out
from soft_prompt_explorer.analysis.asking.batches import TooLongError
from soft_prompt_explorer.analysis.asking.in_front import Subject, bare
from soft_prompt_explorer.analysis.asking.scores import score
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.export import WRITERS
from soft_prompt_explorer.analysis.core.folders import runs_folder, write_whole
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.models.computing import Dtype, NoMemoryError, chosen
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.size import total_parameters
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.scoring import SCORINGS
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.analysis.tasks.task import OWN_TEMPLATE, Task
from soft_prompt_explorer.trained_prompts.experiments.prompt_engineering import SHOTS, shown_examples, with_text
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs.memory import PeakMemory
from soft_prompt_explorer.trained_prompts.runs.scores import recorded
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.memory import check_fits
from soft_prompt_explorer.trained_prompts.training.settling import rate_of
from soft_prompt_explorer.trained_prompts.training.trainer import DivergedError

SHIPPED = Path(__file__).parent / "comparisons"  # a CSV a comparison
PUBLISHED = SHIPPED / "published.json"  # every figure names its table
COLUMNS = [
    "method", "what", "task", "model", "measure", "score", "low", "high", "n", "loss", "trainable", "seconds_training", "seconds_scoring",
    "peak_memory", "seed",
]  # fmt: skip
TEXTS = ["method", "what", "task", "model", "measure"]
DIVERGED = ", diverged"  # ends `what` of a method whose loss became no number
TOO_LONG = ", too long for the model"  # ends `what` of a prompt that leaves no room for the input
TOO_LARGE = ", too large for the memory"  # ends `what` of a method whose weights do not fit into it
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
    limit : the first so many held-out examples; all when None.
    template : how the examples are asked, with `{input}` in it, but where a hand-written prompt asks in its own way; None is the task's own.
    dtype, device : what the model is loaded in and where (see `load_model`).
    """

    task: str
    model: str = EMBEDDED_MODEL
    steps: int = 150
    seed: int = 0
    limit: int | None = 300
    template: str | None = None
    dtype: Dtype = "auto"
    device: str | None = None

    @property
    def key(self) -> str:
        settings = {name: value for name, value in vars(self).items() if name not in ("template", "dtype", "device")}
        asked = self.asked_task().template
        usual = TASKS[self.task].template if self.task in TASKS else OWN_TEMPLATE
        settings |= {"template": asked} if asked != usual else {}
        settings |= {"dtype": dtype} if (dtype := chosen(self.dtype)) != "auto" else {}
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]

    def asked_task(self) -> Task:
        return get_task(self.task, self.template)


def compare(
    config: ComparisonConfig,
    *,
    language_model: LanguageModel,
    report: Report = no_report,
    row_made: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """Score every method on the task's held-out examples. Rows are kept as they are made: a comparison that was broken off goes on where it was.

    Parameters
    ----------
    row_made : called with the table so far after every row.

    Returns
    -------
    A row for zero-shot, for each hand-written prompt with no and with four examples, and for each method that learns: method, what (the prompt, or the
    settings), task, model, measure, score, low, high (95 % interval), n, loss, trainable (parameters), seconds_training, seconds_scoring, peak_memory
    (bytes held at most while the row was made, the frozen model with it), seed (of methods that learn). A method whose loss became no number keeps its
    row, without score, low, high and loss and with n = 0; `what` then ends in ", diverged". So does a hand-written prompt that is too long, and a method that
    needs more memory than there is; `what` then ends in ", too long for the model" and ", too large for the memory".

    Raises
    ------
    InputError
        A held-out example is too long for the model, or the rows of before cannot be read or those made cannot be kept.
    """
    task = config.asked_task()
    table = kept(config)
    wanted = _rows(config, task)
    check_held_out(task, language_model, virtual_tokens=TrainingConfig.tokens, limit=config.limit)
    for i, (method, what, make) in enumerate(wanted):
        if ((table["method"] == method) & table["what"].isin([what, what + DIVERGED, what + TOO_LONG, what + TOO_LARGE])).any():
            continue
        made = {"method": method, "what": what, "task": task.name, "model": config.model} | make(
            language_model, part(report, i, len(wanted), method)
        )
        row = pd.DataFrame([made], columns=COLUMNS)
        table = row if not len(table) else pd.concat([table, row], ignore_index=True)
        _keep(config, table)
        row_made(table)
    return table


def kept(config: ComparisonConfig) -> pd.DataFrame:
    """The rows of a comparison that were made on this machine so far.

    Raises
    ------
    InputError
        The file is there and does not hold a comparison.
    """
    path = _path(config)
    return _read(path) if path.is_file() else pd.DataFrame(columns=COLUMNS)


def all_kept() -> pd.DataFrame:
    """Every comparison that ships or was made on this machine, one under the other, with the column origin: shipped or yours; without the files of `damaged`."""
    tables = []
    for origin, folder in (("shipped", SHIPPED), ("yours", _folder())):
        for path in sorted(folder.glob("*.csv")):
            with suppress(InputError):
                tables.append(_read(path).assign(origin=origin))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*COLUMNS, "origin"])


def damaged() -> list[str]:
    """A sentence for each file among the person's comparisons that holds none."""
    sentences = []
    for path in sorted(_folder().glob("*.csv")):
        try:
            _read(path)
        except InputError as error:
            sentences.append(str(error))
    return sentences


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
    """Of each row of one comparison: above, within or below; above and below where its 95 % interval and that of zero-shot have nothing in common; no score
    where it has none.
    """
    bare = table[table["method"] == "zero-shot"].iloc[0]
    place = pd.Series("within", index=table.index)
    place[table["score"].isna()] = "no score"
    place[table["low"] > bare["high"]] = "above"
    place[table["high"] < bare["low"]] = "below"
    return place


def best_of_each_method(table: pd.DataFrame) -> pd.DataFrame:
    """One row a method in the order of the table: of prompt engineering, the hand-written prompt that scored best."""
    best = table["score"].fillna(-math.inf).groupby(table["method"], sort=False).idxmax()
    return table.loc[best]


def _folder() -> Path:
    return runs_folder() / ".comparisons"


def _path(config: ComparisonConfig) -> Path:
    return _folder() / f"{config.key}.csv"


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str))
        numbers = table[[name for name in COLUMNS if name not in TEXTS]].astype("float64")
        methods = table["method"].tolist()
        in_order = methods[:1] == ["zero-shot"] and {*methods[1:]} <= {"prompt engineering", *METHODS}
        if not in_order or table[TEXTS].isna().any(axis=None) or numbers.loc[0, ["score", "low", "high"]].isna().any():
            raise ValueError
    except (ValueError, KeyError, OSError) as error:
        raise InputError(
            f"The file {printable(path.name)} in {path.parent} holds no comparison that can be read; remove it, and run that comparison again."
        ) from error
    return table[COLUMNS]


def _keep(config: ComparisonConfig, table: pd.DataFrame) -> None:
    path = _path(config)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, table.to_csv(index=False, lineterminator="\n").encode())
    except OSError as error:
        raise InputError(f"The comparison cannot be kept in {path.parent}: {error.strerror or error}.") from error


def _rows(config: ComparisonConfig, task: Task) -> list[tuple[str, str, Callable]]:
    """(method, what, function of the language model that answers the rest of the row) of every row."""
    rows: list[tuple[str, str, Callable]] = [("zero-shot", task.template, _by_words(config, task, task.template, 0, task.template))]
    for shots in (0, SHOTS):
        for template in task.prompts:
            what = template if not shots else f"{shots} examples, then {template}"
            rows.append(("prompt engineering", what, _by_words(config, task, template, shots, what)))
    for method, settings in METHODS.items():
        training = TrainingConfig(
            task=config.task,
            template=config.template,
            model=config.model,
            steps=config.steps,
            seed=config.seed,
            dtype=config.dtype,
            device=config.device,
            **settings,
        )
        rows.append((method, settings_in_words(training), _by_learning(config, task, training)))
    return rows


def settings_in_words(training: TrainingConfig) -> str:
    """What tells a method that learns from the same method with other settings: `10 virtual tokens, 150 steps at 0.05`."""
    size = {"lora": f"rank {training.rank}", "full": "all weights"}.get(training.method, f"{training.tokens} virtual tokens")
    return f"{size}, {training.steps} steps at {rate_of(training):g}"


def _by_words(config: ComparisonConfig, task: Task, template: str, shots: int, what: str) -> Callable:
    def make(language_model: LanguageModel, report: Report) -> dict:
        table = task.examples("held-out", template=template).head(config.limit)
        with PeakMemory() as memory:
            try:
                subject = with_text(language_model, shown_examples(task, template)) if shots else bare(language_model)
                scored = scored_on(subject, task, table, report)
            except TooLongError:
                scored = _unscored(what + TOO_LONG, task)
        return scored | {"trainable": 0, "seconds_training": 0.0, "peak_memory": memory.bytes, "seed": None}

    return make


def _by_learning(config: ComparisonConfig, task: Task, training: TrainingConfig) -> Callable:
    def make(language_model: LanguageModel, report: Report) -> dict:
        name = f"{config.key}-{training.method}"
        try:
            check_fits(training)
        except NoMemoryError:
            scored = _unscored(settings_in_words(training) + TOO_LARGE, task)
            return scored | {"trainable": total_parameters(config.model), "seconds_training": 0.0, "peak_memory": 0, "seed": training.seed}
        with PeakMemory() as memory:
            try:
                for recording, step in runs.record(  # noqa: B007
                    training, name, language_model=language_model, limit=config.limit, folder=_folder()
                ):
                    report(0.8 * step.step / step.steps, f"step {step.step} of {step.steps}")
            except InputError as error:
                if not _is_divergence(error):
                    raise
                scored = _unscored(settings_in_words(training) + DIVERGED, task)
            else:
                table = task.examples("held-out").head(config.limit)
                with recorded(recording, language_model) as subject:
                    scored = scored_on(subject, task, table, part(report, 4, 5))
        runs.forget(name, _folder())
        last = recording.last_step
        return scored | {"trainable": last.trainable, "seconds_training": last.seconds, "peak_memory": memory.bytes, "seed": training.seed}

    return make


def _is_divergence(error: InputError) -> bool:
    """Also of a model that was trained whole, which has no state to step back to and says so instead."""
    return isinstance(error, DivergedError) or isinstance(error.__context__, DivergedError)


def _unscored(what: str, task: Task) -> dict:
    nothing = dict.fromkeys(("score", "low", "high", "loss"), math.nan)
    measure = next(iter(SCORINGS[task.scored_by]))
    return nothing | {"what": what, "measure": measure, "n": 0, "seconds_scoring": 0.0}


def scored_on(subject: Subject, task: Task, table: pd.DataFrame, report: Report) -> dict:
    """Of some examples: measure, score, low, high, n, loss, seconds_scoring."""
    began = time.perf_counter()
    row = score("", subject, task, table, report=report).iloc[0]
    return row[["measure", "score", "low", "high", "n", "loss"]].to_dict() | {"seconds_scoring": time.perf_counter() - began}


def markdown(table: pd.DataFrame) -> str:
    """The rows of one comparison as docs/findings.md shows them."""

    def settings(what: str) -> str:
        one_line = what.replace("\n", " ⏎ ")
        return f"“{one_line}”" if "{input}" in one_line else one_line

    shown = pd.DataFrame(
        {
            "method": table["method"],
            "prompt, or settings": table["what"].map(settings),
            table["measure"].dropna().iloc[0]: [
                f"{row.score:.3f} ({row.low:.3f} to {row.high:.3f})" if row.n else "no score" for row in table.itertuples()
            ],
            "trainable": table["trainable"].map("{:,.0f}".format),
            "training": table["seconds_training"].map("{:.0f} s".format),
            "peak memory": [f"{held / 1e9:.1f} GB" for held in table["peak_memory"]],
        }
    )
    return WRITERS["md"](shown).decode()
