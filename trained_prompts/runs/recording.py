"""What a run leaves while it goes on: its steps, its losses, and checkpoints to go on from."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import run_file
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import runs_folder, write_whole
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.settling import settled
from soft_prompt_explorer.trained_prompts.training.trainer import TrainingStep

SNAPSHOTS = 20  # about as many as a run keeps, whatever its length
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOSS_COLUMNS = ["step", "loss", "learning_rate", "seconds", "validation"]


class Recording:
    """What a run leaves behind, gathered step by step and written by `save`. Memory does not grow with the embeddings of every step."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = settled(config)
        self.last: TrainingStep | None = None
        self.initial: np.ndarray | None = None
        self.peak_memory: int | None = None
        self.computed_in: dict[str, str] | None = None
        self._first: TrainingStep | None = None
        self._before: TrainingStep | None = None
        self._best: TrainingStep | None = None
        self._losses: list[tuple[int, float, float, float, float]] = []
        self._every = max(1, config.steps // SNAPSHOTS)
        self._snapshots: dict[int, np.ndarray] = {}

    def add(self, step: TrainingStep) -> None:
        if self.last is None:
            self._first, self.initial = _without_optimiser(step), step.embeddings
        else:
            validation = math.nan if step.validation is None else step.validation
            self._losses.append((step.step, step.loss, step.learning_rate, step.seconds, validation))
        if step.embeddings is not None and step.step % self._every == 0:
            self._snapshots[step.step] = step.embeddings.astype(np.float16)
        best = -math.inf if self._best is None or self._best.validation is None else self._best.validation
        if step.validation is not None and step.validation > best:
            self._best = _without_optimiser(step)
        self._before, self.last = None if self.last is None else _without_optimiser(self.last), step

    def step_back(self) -> None:
        """Go back to the state before the last step: what to keep where the loss after it was no number. A model that was trained whole cannot go back.

        Raises
        ------
        InputError
            There is no such state.
        """
        if self._before is None or self.config.method == "full":
            raise InputError(
                f"The loss became no number after step {self.steps_done}, and no state before that is at hand; train again with a smaller "
                f"learning rate than {self.config.learning_rate:g}."
            )
        if self._best is not None and self._best.step == self.steps_done:
            self._best = None
        self.last, self._before = self._before, None
        self._losses = self._losses[: self.last.step]
        self._snapshots = {step: rows for step, rows in self._snapshots.items() if step <= self.steps_done}

    @property
    def kept(self) -> TrainingStep:
        """The step whose state is the run's: the last one, or where it may stop early the best one on the examples set aside."""
        return self._best if self.config.patience is not None and self._best is not None else self.last_step

    @property
    def last_step(self) -> TrainingStep:
        """The last step; one must have been added."""
        assert self.last is not None
        return self.last

    @property
    def embeddings(self) -> np.ndarray | None:
        """(n, d) float32, the virtual tokens as they are kept; None for methods that have none."""
        return self.kept.embeddings

    @property
    def weights(self) -> dict[str, np.ndarray] | None:
        """What else is kept, by PEFT's names: the factors of a LoRA in float16, as they are kept and scored; the rows of a prefix in float32."""
        if self.kept.weights is None:
            return None
        dtype = np.float16 if self.config.method == "lora" else np.float32
        return {name: array.astype(dtype) for name, array in self.kept.weights.items()}

    @property
    def model(self):
        """The model that was trained whole; None for every other method."""
        return self.last_step.model

    @property
    def steps_done(self) -> int:
        return 0 if self.last is None else self.last.step

    def losses(self) -> pd.DataFrame:
        """One row a step from step 1: step, loss, learning_rate, seconds, validation (nan where it was not measured)."""
        return pd.DataFrame(self._losses, columns=LOSS_COLUMNS)

    def write_checkpoint(self, path: Path) -> None:
        """Write all that `from_checkpoint` needs to go on after the last step; the file appears whole or stays as it was.

        Raises
        ------
        InputError
            It cannot be written, for instance because the disk is full.
        """
        from safetensors.numpy import save

        assert self.last_step.checkpoint is not None  # whoever calls has looked
        arrays = {f"state.{name}": array for name, array in self.last_step.checkpoint().items()}
        arrays["losses"] = np.array(self._losses, dtype=np.float64).reshape(-1, len(LOSS_COLUMNS))
        for at, rows in self._snapshots.items():
            arrays[f"snapshot.{at}"] = rows
        for which, step in (("first", self._first), ("before", self._before), ("last", self.last), ("best", self._best)):
            arrays |= {} if step is None else _step_arrays(which, step)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, save(arrays, {"config": json.dumps(self.config.described())}))
        except OSError as error:
            raise InputError(
                f"What the run has learned cannot be kept in {path.parent}: {error.strerror or error}; its checkpoint of an earlier step is unchanged."
            ) from error

    @classmethod
    def from_checkpoint(cls, config: TrainingConfig, path: Path) -> tuple[Recording, dict[str, np.ndarray]]:
        """A run as it was when its checkpoint was written, and the state for `trainer.train(resume=...)`.

        Raises
        ------
        InputError
            The file is damaged, or of a run with other settings.
        """
        from safetensors import SafetensorError, safe_open

        damaged = InputError(f"The checkpoint {path} is damaged; remove it to train from the beginning.")
        try:
            with safe_open(path, framework="np") as file:
                described = json.loads((file.metadata() or {}).get("config", "null"))
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        except (SafetensorError, OSError, ValueError) as error:
            raise damaged from error
        if described != json.loads(json.dumps(settled(config).described())):
            raise InputError(
                f"The unfinished run in {path.parent} has other settings than this one; give them again to go on with it, or choose another name."
            )
        recording = cls(config)
        try:
            recording._losses = [(int(step), *rest) for step, *rest in arrays["losses"].tolist()]
            snapshots = {int(name.split(".")[1]): array for name, array in arrays.items() if name.startswith("snapshot.")}
            recording._snapshots = dict(sorted(snapshots.items()))  # the file holds them in the order of their names
            steps = {which: _step_of(which, arrays, config) for which in ("first", "before", "last", "best")}
            recording._first, recording._before, recording.last, recording._best = steps.values()
        except (ValueError, KeyError, AttributeError) as error:
            raise damaged from error
        if recording._first is None:
            raise damaged
        recording.initial = recording._first.embeddings
        return recording, {name.removeprefix("state."): array for name, array in arrays.items() if name.startswith("state.")}

    def trajectory(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps (s,) int64 and embeddings (s, n, d) float16; the last step is always among them."""
        snapshots = dict(self._snapshots)
        if self.last_step.embeddings is not None:
            snapshots[self.steps_done] = self.last_step.embeddings.astype(np.float16)
        return np.array(list(snapshots), dtype=np.int64), np.stack(list(snapshots.values()))


def _without_optimiser(step: TrainingStep) -> TrainingStep:
    """The step without its `checkpoint`, which would hold the optimiser and the model."""
    return replace(step, checkpoint=None)


def _step_arrays(which: str, step: TrainingStep) -> dict[str, np.ndarray]:
    numbers = [
        step.step,
        step.loss,
        step.learning_rate,
        step.seconds,
        math.nan if step.validation is None else step.validation,
        step.trainable,
    ]
    arrays = {f"{which}.numbers": np.array(numbers, dtype=np.float64)}
    if step.embeddings is not None:
        arrays[f"{which}.embeddings"] = step.embeddings
    return arrays | {f"{which}.weights.{name}": array for name, array in (step.weights or {}).items()}


def _step_of(which: str, arrays: dict[str, np.ndarray], config: TrainingConfig) -> TrainingStep | None:
    if f"{which}.numbers" not in arrays:
        return None
    number, loss, rate, seconds, validation, trainable = arrays[f"{which}.numbers"].tolist()
    prefix = f"{which}.weights."
    weights = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return TrainingStep(
        int(number), config.steps, loss, rate, seconds, arrays.get(f"{which}.embeddings"), weights or None,
        validation=None if math.isnan(validation) else validation, trainable=int(trainable),
    )  # fmt: skip


def checkpoint_path(name: str, folder: Path | None = None) -> Path:
    """Where an unfinished run of that name keeps what it needs to go on."""
    return (folder or runs_folder()) / ".unfinished" / f"{name}.safetensors"


def unfinished() -> pd.DataFrame:
    """One row for each run that was broken off and can go on: name, task, method, steps, of_steps, and config (its settings, by name)."""
    rows = []
    for path in sorted((runs_folder() / ".unfinished").glob("*.safetensors")):
        if (config := _checkpoint_config(path)) is not None:
            step, settings = config
            rows.append((path.stem, settings["task"], settings["method"], step, settings["steps"], settings))
    return pd.DataFrame(rows, columns=["name", "task", "method", "steps", "of_steps", "config"])


def _checkpoint_config(path: Path) -> tuple[int, dict] | None:
    from safetensors import SafetensorError, safe_open

    try:
        if NAME.fullmatch(path.stem) is None or not path.is_file():
            return None
        with safe_open(path, framework="np") as file:
            step, settings = int(file.get_tensor("last.numbers")[0]), json.loads(file.metadata()["config"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
        return None  # being written, or damaged
    told = isinstance(settings, dict) and all(run_file.is_text(settings.get(name)) for name in ("task", "method", "model"))
    return (step, settings) if told and type(settings.get("steps")) is int else None
