"""What a training will take, told before it starts: time and memory from runs that were made before, and the number of parameters that learn.

Nothing is loaded and nothing is fetched. A step's work is taken to grow with the tokens that are read and with the model's parameters, so that a run of one
method on one task says something of every other; the nearer the runs that it is taken from, the better the estimate. How much faster a device or other
numbers are is not guessed: where no run was computed so, the estimate says which it is taken from, and of another device it says no time.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.asking.in_front import key_value_heads
from soft_prompt_explorer.analysis.core.errors import InputError, ModelError
from soft_prompt_explorer.analysis.core.folders import read_json_object
from soft_prompt_explorer.analysis.models import hub
from soft_prompt_explorer.analysis.models.computing import BYTES, device_of
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL, EMBEDDED_WIDTH
from soft_prompt_explorer.analysis.models.names import is_hub_id
from soft_prompt_explorer.analysis.models.packaged import PACKAGED
from soft_prompt_explorer.analysis.models.size import total_parameters
from soft_prompt_explorer.analysis.models.weights import is_prepared, prepare_model
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.task import Task
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.lora import with_targets
from soft_prompt_explorer.trained_prompts.training.memory import computed_in, weights_held

CHARACTERS_A_TOKEN = 4
FORWARD = 0.4  # of a step's work: its other part is the way back
WRITING = 4  # times as much where answers are written token by token
FULL = 2.5  # times a step's work where every weight learns
# Measured on the embedded model: what Python and the libraries hold, and what a step keeps for the way back, by tokens and parameters.
LIBRARIES, KEPT_A_TOKEN = 0.7e9, 0.009


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes
    ----------
    seconds : training, scores while it learns, and held-out scores; None where no run on such a device is at hand.
    memory : bytes held at most, the model with it.
    basis : the runs that both are taken from, in words.
    computed_in : the numbers and the device: (`bfloat16`, `cpu`).
    """

    seconds: float | None
    memory: float
    basis: str
    computed_in: tuple[str, str]


def estimate(config: TrainingConfig, *, limit: int, runs: pd.DataFrame) -> Estimate | None:
    """What a run will take on this machine; None where the model's size is not known before it is loaded.

    Parameters
    ----------
    runs : of `store.list_runs`.

    Raises
    ------
    InputError
        There is no such device.
    """
    parameters = total_parameters(config.model)
    past = _past_runs(runs)
    if parameters is None or not len(past):
        return None
    dtype, device = computed_in(config, parameters)
    nearness = [
        (
            row.device == _kind(device),
            row.origin == "yours",
            row.dtype == dtype,
            row.model == config.model,
            row.method == config.method,
            row.task == config.task,
        )
        for row in past.itertuples()
    ]
    near = past[[nearness_of == max(nearness) for nearness_of in nearness]]
    task = config.asked_task()
    a_step = _work(config.method, config.batch_size, config.described().get("tokens", 0), task, parameters)
    held_out = min(limit, len(task.examples("held-out")))
    steps = _steps_made(config.method, config.steps, config.batch_size, config.validate_every, task, held_out)
    (same_device, yours, same_dtype, same_model, same_method, _) = max(nearness)
    same = near[(near["batch_size"] == config.batch_size) & (near["accumulate"] == config.accumulate)]
    measured = same["peak_memory"].median() if yours and same_device and same_dtype and same_model and same_method else math.nan
    memory = _memory(config, task, parameters, dtype) if math.isnan(measured) else measured
    which = f"{len(near)} of your runs" if len(near) > 1 else "a run of yours"
    basis = which if yours else "runs that ship, made on two cores"
    if not same_dtype:
        basis += f" in {near['dtype'].iloc[0]}; in {dtype} it was not measured here"
    return Estimate(near["seconds_a_unit"].median() * a_step * steps if same_device else None, memory, basis, (dtype, device))


def trainable_parameters(config: TrainingConfig) -> int | None:
    """How many parameters learn; None where that depends on a model that is not unpacked yet, or not at hand."""
    if config.method == "prompt-tuning" and config.model == EMBEDDED_MODEL:
        return config.tokens * EMBEDDED_WIDTH
    folder = _folder(config.model)
    if folder is None:
        return None
    settings = _settings(folder)
    if config.method == "lora":
        with suppress(InputError):  # PEFT knows no such family: the training says so
            config = with_targets(config)
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
    """A row a run whose time and model's size are known: origin, model, method, task, dtype, device (`cpu`, `cuda`), batch_size, accumulate, seconds_a_unit
    (of work), peak_memory (bytes).
    """
    rows = []
    for run in runs.itertuples():
        with suppress(InputError, OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            made = read_description(Path(run.path))
            config, parameters, task = made["config"], total_parameters(run.model), get_task(run.task)
            steps = _steps_made(run.method, run.steps, config["batch_size"], config.get("validate_every"), task, 0)
            if parameters is None:
                continue
            work = steps * _work(run.method, config["batch_size"], config.get("tokens", 0), task, parameters)
            computed = made.get("computed_in") or {}  # before that was recorded, all were float32
            device = computed.get("device") or ("cpu" if run.origin == "gallery" else device_of())
            rows.append(
                (
                    run.origin, run.model, run.method, run.task, computed.get("dtype") or "float32", _kind(device), config["batch_size"],
                    config.get("accumulate", 1), made["seconds_training"] / work, made.get("peak_memory_bytes") or math.nan,
                )
            )  # fmt: skip
    columns = [
        "origin",
        "model",
        "method",
        "task",
        "dtype",
        "device",
        "batch_size",
        "accumulate",
        "seconds_a_unit",
        "peak_memory",
    ]
    return pd.DataFrame(rows, columns=columns)


def _kind(device: str) -> str:
    """`cuda` of `cuda:1`."""
    return device.partition(":")[0]


def _work(method: str, batch_size: int, virtual_tokens: int, task: Task, parameters: int) -> float:
    """Of one step, in a unit of no name."""
    tokens = batch_size * (_tokens(task)[0] + virtual_tokens)
    return tokens * parameters * (FULL if method == "full" else 1.0)


def _steps_made(method: str, steps: int, batch_size: int, validate_every: int | None, task: Task, held_out: int) -> float:
    """How many steps' work a run is: its own, and those that scoring on examples set aside and on held-out ones is worth."""
    scored = held_out * (3 if method in ("prompt-tuning", "p-tuning") else 2)
    if validate_every:
        scored += len(task.for_training(watched=True)[1]) * (1 + steps // validate_every)
    forward = FORWARD * (WRITING if task.scored_by == "rouge" else 1.0) / (FULL if method == "full" else 1.0)
    return steps + scored / batch_size * forward


def _memory(config: TrainingConfig, task: Task, parameters: int, dtype: str) -> float:
    """A rule of thumb, measured in float32: what a step keeps for the way back is half as large in 16 bits, and that of one part alone."""
    longest = math.ceil(config.batch_size / config.accumulate) * (_tokens(task)[1] + config.described().get("tokens", 0))
    kept = KEPT_A_TOKEN * (1.0 if config.method == "full" else BYTES[dtype] / 4)
    return LIBRARIES + weights_held(config.method, parameters, dtype) + kept * parameters * longest


@lru_cache(maxsize=64)
def _tokens(task: Task) -> tuple[float, float]:
    """About how many tokens an example has in the mean, and at most."""
    table = task.examples("train")
    lengths = (table["text"].str.len() + table["target"].str.len()) / CHARACTERS_A_TOKEN
    return float(lengths.mean()), float(lengths.max())


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
    """The shapes of a model's weights by name, from the headers of its files."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with suppress(SafetensorError, OSError), safe_open(path, framework="np") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    return shapes


def _settings(folder: Path) -> dict:
    settings = read_json_object(folder / "config.json", ModelError)
    return settings.get("text_config") or settings
