"""What a training will take, told before it starts: time and memory, and the number of parameters that learn.

Nothing is loaded and nothing is fetched. What a step multiplies and keeps follows from the model's config and the task's examples (see `work.py`). How fast that goes is taken from
a person's own runs in the same numbers on the same device, the nearer the better; where there is none, from how fast the device multiplies now.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.asking.in_front import key_value_heads
from soft_prompt_explorer.analysis.core.errors import InputError, panics_caught
from soft_prompt_explorer.analysis.models import hub
from soft_prompt_explorer.analysis.models.computing import device_of, weight_files
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL, EMBEDDED_WIDTH
from soft_prompt_explorer.analysis.models.names import is_hub_id
from soft_prompt_explorer.analysis.models.packaged import PACKAGED
from soft_prompt_explorer.analysis.models.size import total_parameters
from soft_prompt_explorer.analysis.models.tokenizer_file import checked_spec
from soft_prompt_explorer.analysis.models.weights import is_prepared, prepare_model
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.task import Task
from soft_prompt_explorer.trained_prompts.runs.work import (
    EMBEDDED,
    Shape,
    Step,
    bytes_kept,
    forward_share,
    numbers,
    operations,
    seconds,
    settings_in,
    shape_in,
)
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.lora import ALL_LINEAR, targets_of
from soft_prompt_explorer.trained_prompts.training.memory import computed_in, weights_held

CHARACTERS_A_TOKEN = 4  # where the model's tokenizer is not at hand
COUNTED = 200  # examples whose tokens are counted
WRITING = 4  # times as much where answers are written token by token
LIBRARIES = 0.65e9  # what Python and the libraries hold; measured


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes
    ----------
    seconds : training, scores while it learns, and held-out scores.
    memory : bytes held at most, the model with it.
    basis : what the time is taken from, in words.
    computed_in : the numbers that a step is made in, and the device: (`bfloat16`, `cpu`).
    """

    seconds: float
    memory: float
    basis: str
    computed_in: tuple[str, str]


def estimate(config: TrainingConfig, *, limit: int, runs: pd.DataFrame) -> Estimate | None:
    """What a run will take on this machine; None where the model's config is not at hand before it is loaded.

    Parameters
    ----------
    runs : of `store.list_runs`.

    Raises
    ------
    InputError
        There is no such device.
    """
    parameters = total_parameters(config.model)
    shape = None if parameters is None else _shape(config.model, parameters)
    if parameters is None or shape is None:
        return None
    dtype, device = computed_in(config, parameters)
    computed = numbers(config.method, dtype), device
    task = config.asked_task()
    held_out = min(limit, len(task.examples("held-out")))
    steps = _steps_made(config.method, config.steps, config.batch_size, config.validate_every, task, held_out)
    tokens, factors = _tokens(task, config.model), _factors(config, shape)
    virtual, at_once = config.described().get("tokens", 0), math.ceil(config.batch_size / config.accumulate)
    mean, longest = (
        _step(config.method, examples, virtual, read, tokens.answer, factors, config.checkpointing)
        for examples, read in ((config.batch_size, tokens.mean), (at_once, tokens.longest))
    )
    memory = LIBRARIES + weights_held(config.method, parameters, dtype) + bytes_kept(shape, longest, dtype)
    past = _past_runs(runs)
    past = past[
        (past["device"] == _kind(device))
        & (past["dtype"] == computed[0])
        & (past["model"] == config.model)
        & ((past["method"] == "full") == (config.method == "full"))
    ]
    if not len(past):
        try:
            taken = seconds(shape, mean, dtype, device) * steps
        except RuntimeError:  # the device has no room even for that
            return None
        return Estimate(taken, memory, "how fast this machine multiplies", computed)
    nearness = [(row.method == config.method, row.task == config.task) for row in past.itertuples()]
    near = past[[nearness_of == max(nearness) for nearness_of in nearness]]
    same_method, _ = max(nearness)
    same = near[(near["batch_size"] == config.batch_size) & (near["accumulate"] == config.accumulate)]
    measured = same["peak_memory"].median() if same_method else math.nan
    which = f"{len(near)} of your runs" if len(near) > 1 else "a run of yours"
    taken = near["seconds_an_operation"].median() * operations(shape, mean) * steps
    return Estimate(taken, memory if math.isnan(measured) else measured, which, computed)


def _factors(config: TrainingConfig, shape: Shape) -> int:
    """About how many parameters a LoRA's factors have: as if two of each layer's attention were changed where nobody named modules, without asking PEFT for its own choice."""
    if config.method != "lora":
        return 0
    if config.targets == (ALL_LINEAR,):
        return config.rank * shape.layers * (8 * shape.width + 3 * (shape.width + shape.inner))
    return (trainable_parameters(config) if config.targets else None) or config.rank * shape.layers * 4 * shape.width


def _step(method: str, batch_size: int, virtual: int, read: float, answer: float, factors: int, again: bool) -> Step:
    """One step of so many examples; a prefix is not read, but stands in each layer."""
    in_front = 0 if method == "prefix-tuning" else virtual
    return Step(method, batch_size * (read + in_front), batch_size * answer, factors, again)


def trainable_parameters(config: TrainingConfig) -> int | None:
    """How many parameters learn; None where that depends on a model that is not unpacked yet, or not at hand."""
    if config.method == "prompt-tuning" and config.model == EMBEDDED_MODEL:
        return config.tokens * EMBEDDED_WIDTH
    folder = _folder(config.model)
    if folder is None:
        return None
    settings = settings_in(folder)
    if config.method == "lora":
        with suppress(InputError):  # PEFT knows no such family: the training says so
            config = replace(config, targets=targets_of(config))
        changed = [
            shape
            for name, shape in _shapes(folder).items()
            if name.removesuffix(".weight").rpartition(".")[2] in config.targets and len(shape) == 2
        ]
        return config.rank * sum(map(sum, changed)) or None
    if config.method == "full":
        return total_parameters(config.model)
    width, layers, heads = (settings.get(name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    if not (width and layers and heads):
        return None
    if config.method == "prefix-tuning":
        return config.tokens * 2 * layers * key_value_heads(SimpleNamespace(**settings)) * (settings.get("head_dim") or width // heads)
    network = 3 * (width * width + width) if config.method == "p-tuning" else 0
    return config.tokens * width + network


def _past_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a run of a person's own whose time and model are known: model, method, task, dtype, device (`cpu`, `cuda`), batch_size, accumulate,
    seconds_an_operation, peak_memory (bytes).
    """
    rows = []
    for run in runs[runs["origin"] == "yours"].itertuples():
        with suppress(InputError, OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            made = read_description(Path(run.path))
            config, parameters, task = made["config"], total_parameters(run.model), get_task(run.task)
            shape = None if parameters is None else _shape(run.model, parameters)
            if shape is None:
                continue
            tokens, batch = _tokens(task, run.model), config["batch_size"]
            factors = int(made.get("trainable_parameters") or 0) if run.method == "lora" else 0
            of_step = operations(
                shape,
                _step(run.method, batch, config.get("tokens", 0), tokens.mean, tokens.answer, factors, bool(config.get("checkpointing"))),
            )
            steps = _steps_made(run.method, run.steps, batch, config.get("validate_every"), task, 0)
            computed = made.get("computed_in") or {}  # before that was recorded, all were float32
            rows.append(
                (
                    run.model, run.method, run.task, numbers(run.method, computed.get("dtype") or "float32"), _kind(computed.get("device") or device_of()), batch,
                    config.get("accumulate", 1), made["seconds_training"] / (steps * of_step), made.get("peak_memory_bytes") or math.nan,
                )
            )  # fmt: skip
    columns = ["model", "method", "task", "dtype", "device", "batch_size", "accumulate", "seconds_an_operation", "peak_memory"]
    return pd.DataFrame(rows, columns=columns)


def _kind(device: str) -> str:
    """`cuda` of `cuda:1`."""
    return device.partition(":")[0]


def _steps_made(method: str, steps: int, batch_size: int, validate_every: int | None, task: Task, held_out: int) -> float:
    """How many steps' work a run is: its own, and those that scoring on examples set aside and on held-out ones is worth."""
    scored = held_out * (3 if method in ("prompt-tuning", "p-tuning") else 2)
    if validate_every:
        scored += len(task.for_training(watched=True)[1]) * (1 + steps // validate_every)
    return steps + scored / batch_size * forward_share(method) * (WRITING if task.scored_by == "rouge" else 1.0)


class _Tokens(NamedTuple):
    """Of an example: how many tokens are read in the mean and at most, and how many are predicted."""

    mean: float
    longest: float
    answer: float


def _tokens(task: Task, model: str) -> _Tokens:
    return _tokens_by(task, _folder(model))


@lru_cache(maxsize=64)
def _tokens_by(task: Task, folder: Path | None) -> _Tokens:
    table = task.examples("train").head(COUNTED)
    read, answers = (_counted(table[column].tolist(), folder, begins) for column, begins in (("text", True), ("target", False)))
    whole = read + answers
    return _Tokens(float(whole.mean()), float(whole.max()), float(answers.mean()))


def _counted(texts: list[str], folder: Path | None, begins: bool) -> np.ndarray:
    """How many tokens each text has, with that which begins one or without: by the model's own tokenizer, or about, where that is not at hand or does not work."""
    with suppress(Exception), panics_caught():  # of the library, which raises plain exceptions and panics
        if folder is not None:
            tokenizer = _tokenizer(folder)
            return np.array([len(each) for each in tokenizer.encode_batch(texts, add_special_tokens=begins)])
    return np.array([len(text) for text in texts]) / CHARACTERS_A_TOKEN


@lru_cache(maxsize=2)
def _tokenizer(folder: Path):
    from tokenizers import Tokenizer

    if folder not in map(_folder, (EMBEDDED_MODEL, *PACKAGED)):  # those are known by their hash
        checked_spec(folder / "tokenizer.json")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _shape(model: str, parameters: int) -> Shape | None:
    folder = _folder(model)
    if folder is None:
        return EMBEDDED if model == EMBEDDED_MODEL else None
    try:
        return shape_in(folder, parameters)
    except InputError:
        return None


def _folder(model: str) -> Path | None:
    """Where the model's weights are, unpacked; None where they are not. The hub is not asked."""
    try:
        if is_hub_id(model) and model not in (EMBEDDED_MODEL, *PACKAGED):
            return hub.whole_snapshot(model)
        return prepare_model(model) if is_prepared(model) else None
    except InputError:
        return None


@lru_cache(maxsize=8)
def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's weights by name, from the headers of its files. Errors as `weight_files`."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        with suppress(SafetensorError, OSError), safe_open(path, framework="np") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    return shapes
