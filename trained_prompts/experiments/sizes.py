"""Score against the size of the model, for what is said in words and for what is learned: the picture of Lester et al. 2021 (figure 1), measured here.

Each model is asked the same held-out examples. Words are chosen on training examples, told on held-out ones. The table is kept row by row, so that what was
broken off goes on; prompts are kept with it, and LoRAs of the largest model, in 16 bits.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from soft_prompt_explorer.analysis.adapters.run_file import Method
from soft_prompt_explorer.analysis.asking.in_front import bare
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.export import to_markdown
from soft_prompt_explorer.analysis.core.folders import write_whole
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.core.words import listed
from soft_prompt_explorer.analysis.models.computing import NoMemoryError
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.packaged import GEMMA_MODEL, QWEN_MODEL
from soft_prompt_explorer.analysis.models.size import total_parameters
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.analysis.tasks.task import Task
from soft_prompt_explorer.trained_prompts.experiments.comparison import TOO_LARGE, scored_on, settings_in_words
from soft_prompt_explorer.trained_prompts.experiments.known_truth import keep_in_16_bits
from soft_prompt_explorer.trained_prompts.experiments.prompt_engineering import SHOTS, shown_examples, with_text
from soft_prompt_explorer.trained_prompts.runs import recorded
from soft_prompt_explorer.trained_prompts.runs.scores import recorded as scores_recorded
from soft_prompt_explorer.trained_prompts.training.config import LEARNING_RATES, TrainingConfig
from soft_prompt_explorer.trained_prompts.training.memory import check_fits

FOLDER = Path(__file__).parent / "sizes"
LARGEST = QWEN_MODEL  # of which LoRAs are kept
MODELS = (EMBEDDED_MODEL, GEMMA_MODEL, LARGEST)
ASKED = ("antonyms", "capitals", "first-letter", "past-tense")  # of different kinds, all with short inputs
STEPS, RANK = 100, 4
CHOSEN_ON = 60  # training examples, which none of those shown is among
ZERO_SHOT, WRITTEN, EXAMPLES = "zero-shot", "hand-written prompt", f"{SHOTS} examples"
PROMPT_TUNING, LORA, FULL = "prompt tuning", "LoRA", "full fine-tuning"
WAYS = (ZERO_SHOT, WRITTEN, EXAMPLES, PROMPT_TUNING, LORA, FULL)
_METHODS: dict[str, Method] = {PROMPT_TUNING: "prompt-tuning", LORA: "lora", FULL: "full"}
COLUMNS = [
    "model", "parameters", "task", "way", "what", "measure", "score", "low", "high", "n", "loss", "seed", "seconds_training", "peak_memory", "dtype",
]  # fmt: skip
_TEXTS = ["model", "task", "way", "what", "measure", "dtype"]
MEAN = "mean of the tasks"
SUMMARY = ["task", "model", "parameters", "way", "measure", "score", "low", "high", "n", "seeds", "least", "most", "loss"]


def seeds_of(way: str) -> tuple[int, ...]:
    """Of how many starts and orders of the examples it is told: three of prompt tuning."""
    return (0, 1, 2) if way == PROMPT_TUNING else (0,)


def config_of(model: str, task: str, way: str, seed: int) -> TrainingConfig:
    """How it is trained: all models with one learning rate."""
    method = _METHODS[way]
    return TrainingConfig(task=task, model=model, method=method, steps=STEPS, rank=RANK, seed=seed, learning_rate=LEARNING_RATES[method])


def kept(folder: Path = FOLDER) -> pd.DataFrame:
    """The rows that were made, in the order of `COLUMNS`."""
    path = folder / "sizes.csv"
    return pd.read_csv(path, dtype=dict.fromkeys(_TEXTS, str)) if path.is_file() else pd.DataFrame(columns=COLUMNS)


def make(
    models: Sequence[str] = MODELS, tasks: Sequence[str] = ASKED, *, folder: Path = FOLDER, report: Report = no_report
) -> pd.DataFrame:
    """Make the rows that are missing, one after the other.

    Raises
    ------
    InputError
        A model is not at hand, there is no such task, or nothing can be written.
    """
    table = kept(folder)
    for i, model in enumerate(models):
        lacking = [each for each in _wanted(model, tasks) if not _has(table, model, *each)]
        language_model: LanguageModel | None = None
        for j, (task, way, seed) in enumerate(lacking):
            language_model = language_model or load_model(model, report=report)
            told = part(part(report, i, len(models), model), j, len(lacking), f"{task}, {way}")
            row = {
                "model": model,
                "parameters": total_parameters(model),
                "task": task,
                "way": way,
                "seed": seed,
                "dtype": language_model.dtype,
            }
            row |= (
                _words(language_model, TASKS[task], way, told)
                if seed is None
                else _learned(language_model, config_of(model, task, way, seed), way, folder, told)
            )
            made = pd.DataFrame([row], columns=COLUMNS).astype({"seed": "float64"})
            table = made if not len(table) else pd.concat([table, made], ignore_index=True)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(folder / "sizes.csv", table.to_csv(index=False, lineterminator="\n").encode())
            except OSError as error:
                raise InputError(f"The table cannot be kept in {folder}: {error.strerror or error}.") from error
    return table


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row a task, model and way: of several seeds the mean score, with the least and the most of them.

    Returns
    -------
    task, model, parameters, way, measure, score, low, high (of the examples: the mean of the seeds' 95 % intervals), n, seeds, least, most, loss (nats a token). score is NaN where a method did not fit into
    the memory.
    """
    rows = []
    for (model, task, way), some in table.groupby(["model", "task", "way"], sort=False):
        means = some[["score", "low", "high"]].mean()
        spread = (len(some), some["score"].min(), some["score"].max(), some["loss"].mean())
        rows.append((task, model, some["parameters"].iloc[0], way, some["measure"].iloc[0], *means, some["n"].iloc[0], *spread))
    found = pd.DataFrame(rows, columns=SUMMARY)
    places = {name: place for place, name in enumerate((*TASKS, *WAYS))}
    by = ["task", "parameters", "way"]
    return found.sort_values(by, key=lambda column: column if column.name == "parameters" else column.map(places), ignore_index=True)


def over_tasks(table: pd.DataFrame) -> pd.DataFrame:
    """The mean of the tasks, of each model and way that was scored on all of them, in the columns of `summary`; n is of all tasks, and least and most are of the seeds' own means.

    The bounds of the mean come from those of the tasks, as of independent samples: its distance from a bound is √Σd² / k (Zou and Donner 2008, equation 4).

    Parameters
    ----------
    table : the rows that `summary` takes.
    """
    told = summary(table)
    rows, tasks = [], told["task"].nunique()
    seeds = table.groupby(["model", "way", "seed"], dropna=False)["score"].mean()
    for (model, parameters, way), some in told.groupby(["model", "parameters", "way"], sort=False):
        if len(some) == tasks and some["score"].notna().all():
            mean = some["score"].mean()
            below, above = ((some["score"] - some[bound]).pow(2).sum() ** 0.5 / tasks for bound in ("low", "high"))
            measures, of_seeds = listed(list(some["measure"].unique())), seeds[model, way]
            spread = (len(of_seeds), of_seeds.min(), of_seeds.max(), some["loss"].mean())
            rows.append((MEAN, model, parameters, way, measures, mean, mean - below, mean + above, some["n"].sum(), *spread))
    return pd.DataFrame(rows, columns=SUMMARY)


def markdown(table: pd.DataFrame) -> str:
    """The rows of `summary` as docs/findings.md shows them: a row a task and model, a column a way; below them the mean of the tasks."""

    def cell(row) -> str:
        if pd.isna(row.score):
            return "too large for the memory"
        spread = f"; {row.least:.2f} to {row.most:.2f} over {row.seeds:.0f} seeds" if row.seeds > 1 else ""
        return f"{row.score:.2f} ({row.low:.2f} to {row.high:.2f}{spread})"

    every = pd.concat([summary(table), over_tasks(table)], ignore_index=True)
    cells = pd.DataFrame({key: every[key] for key in ("task", "model", "way")} | {"cell": [cell(row) for row in every.itertuples()]})
    wide = cells.pivot_table(index=["task", "model"], columns="way", values="cell", aggfunc="first", sort=False)
    return to_markdown(wide.reindex(columns=[way for way in WAYS if way in wide]).fillna("–").reset_index()).decode()


def _wanted(model: str, tasks: Sequence[str]) -> Iterator[tuple[str, str, int | None]]:
    for task in tasks:
        if task not in TASKS:
            raise InputError(f"There is no task called {task[:40]!r}; the tasks are {', '.join(TASKS)}.")
        yield from ((task, way, None) for way in (ZERO_SHOT, WRITTEN, EXAMPLES))
        yield from ((task, way, seed) for way in _METHODS for seed in seeds_of(way))


def _has(table: pd.DataFrame, model: str, task: str, way: str, seed: int | None) -> bool:
    same = table[(table["model"] == model) & (table["task"] == task) & (table["way"] == way)]
    return bool(len(same)) if seed is None else bool((same["seed"] == seed).any())


# --- In words --------------------------------------------------------------------------------------------------------
def _words(language_model: LanguageModel, task: Task, way: str, report: Report) -> dict:
    """The score of a prompt in words: as the task asks; of the hand-written ones, or of all with examples in front, the best on training examples."""
    templates = [task.template] if way == ZERO_SHOT else [*task.prompts] if way == WRITTEN else [task.template, *task.prompts]
    chosen = templates[0]
    if len(templates) > 1:
        tried = [
            _scored(language_model, task, template, way, task.examples("train", template=template).tail(CHOSEN_ON), part(report, i, len(templates) + 1))
            for i, template in enumerate(templates)
        ]  # fmt: skip
        chosen = templates[max(range(len(templates)), key=lambda i: (tried[i]["score"], -tried[i]["loss"]))]
    table = task.examples("held-out", template=chosen)
    scored = _scored(language_model, task, chosen, way, table, part(report, len(templates), len(templates) + 1))
    return scored | {"what": chosen, "seconds_training": 0.0}


def _scored(language_model: LanguageModel, task: Task, template: str, way: str, table: pd.DataFrame, report: Report) -> dict:
    subject = with_text(language_model, shown_examples(task, template)) if way == EXAMPLES else bare(language_model)
    return scored_on(subject, task, table, report)


# --- Learned ---------------------------------------------------------------------------------------------------------
def _learned(language_model: LanguageModel, config: TrainingConfig, way: str, folder: Path, report: Report) -> dict:
    """The score of what is trained here; where every weight would learn and there is no room for that, a row without one."""
    task = TASKS[config.task]
    what = settings_in_words(config)
    try:
        check_fits(config)
    except NoMemoryError:
        return {"what": what + TOO_LARGE, "n": 0}
    name = f"{config.task}-{Path(config.model).name}-{config.method}-{config.seed}"

    def watch(step) -> None:
        report(0.9 * step.step / step.steps, f"step {step.step} of {step.steps}")

    with tempfile.TemporaryDirectory() as runs:
        if way == FULL:
            for recording, step in recorded.record(config, name, language_model=language_model, folder=Path(runs)):  # noqa: B007
                watch(step)
            with scores_recorded(recording, language_model) as subject:
                scored = scored_on(subject, task, task.examples("held-out"), report)
            last = recording.last_step
            return scored | {"what": what, "seconds_training": last.seconds, "peak_memory": recording.peak_memory}
        recorded.run(config, name, language_model=language_model, folder=Path(runs), watch=watch)
        if way == PROMPT_TUNING or config.model == LARGEST:
            keep_in_16_bits(Path(runs) / name, folder / name)
        made = json.loads((Path(runs) / name / "run.json").read_text(encoding="utf-8"))
    trained = {column: made["scores"]["trained"][column] for column in ("measure", "score", "low", "high", "n", "loss")}
    return trained | {"what": what, "seconds_training": made["seconds_training"], "peak_memory": made["peak_memory_bytes"]}
