"""A training script of one's own, recorded while it runs: `ExplorerCallback` for the Trainer of transformers, `Recorder` for any other loop.

It writes beside the checkpoints, so that `load_adapter` finds the start of what was learned, and the pages find the rest:

    initial.safetensors      the virtual tokens before the first step; a copy in every checkpoint
    trajectory.safetensors   steps (s,) and embeddings (s, n, d) float16, a snapshot every few steps
    losses.csv               step, loss, learning_rate, seconds
    followed.csv             every few steps: what is read in the virtual tokens, see `analysis.adapters.recorded.FOLLOWED`
    ranks.csv                of a LoRA, every few steps: the size and the ranks of each module's update, see `RANKS`
    explorer.json            the model, the method, how the examples were asked, some of them as they were fed, and whether it has ended

A training that goes on from a checkpoint goes on with what it recorded up to there.

Nothing is drawn from the random numbers of the training, and nothing is sent anywhere. What goes wrong here never ends a training: it is said once, and recording stops.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import TrainerCallback

from soft_prompt_explorer.analysis.adapters import recorded_here, safetensors_file
from soft_prompt_explorer.analysis.adapters.opening import INITIAL
from soft_prompt_explorer.analysis.adapters.recorded import (
    EXAMPLES_KEPT,
    FOLLOWED,
    LOOKS,
    LOSSES,
    MAX_TABLE_BYTES,
    MAX_TABLE_ROWS,
    RECORD,
    TRAJECTORY,
    read_trajectory,
    template_of,
)
from soft_prompt_explorer.analysis.adapters.run_file import read_object
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import write_whole
from soft_prompt_explorer.analysis.core.strange_files import DAMAGED, read_table
from soft_prompt_explorer.analysis.loras.ranks import measures, values_of_product

RANKS = ["step", "module", "frobenius_norm", "spectral_norm", "stable_rank", "effective_rank"]  # as in the table of `spectra`
_RANKS_FILE = "ranks.csv"
_LOSS_COLUMNS = ["step", "loss", "learning_rate", "seconds"]
SNAPSHOTS = 100  # at most; when there are more, every second one goes
WORTH = 0.02  # of the training's time that following it may take
LIVE = 2.0  # seconds between two writings of the losses, for who looks on
_BLOCK = 8_192  # rows of the vocabulary at once
_log = logging.getLogger(__name__)


class Recorder:
    """What a training leaves behind, recorded by three calls: made before the first step, `after_step` after each, and `end`.

    Parameters
    ----------
    folder : where it is written; made when it is not there.
    model : of PEFT, or with such a one in it; of a soft prompt the virtual tokens are followed, of a LoRA the ranks of its updates, of any other adapter the losses alone.
    tokenizer : the words of the vocabulary are told with it, and examples written out.
    every : steps between two snapshots of the virtual tokens. They are read and written as well, unless that has taken more than a fiftieth of the training's time.
    template : how the examples are asked, with `{input}` in it; found from the first examples when None.
    step : that a training goes on from, where it does: what the folder holds of the steps up to it is kept.

    Examples
    --------
    >>> import os, tempfile, torch
    >>> import soft_prompt_explorer as spe
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     recorder = spe.Recorder(folder, torch.nn.Linear(2, 2))  # before the first step
    ...     told = recorder.after_step(0.5)  # after each step
    ...     recorder.end()
    ...     print(sorted(os.listdir(folder)))
    ['explorer.json', 'followed.csv', 'losses.csv']
    """

    def __init__(
        self, folder: str | Path, model: Any, tokenizer: Any = None, *, every: int = 50, template: str | None = None, step: int = 0
    ) -> None:
        self.folder, self._every, self._template, self._tokenizer = Path(folder), max(1, every), template, tokenizer
        self._model = getattr(model, "module", model)  # as data parallelism wraps it
        self._began, self._looking, self._stopped, self._ended = time.perf_counter(), 0.0, False, False
        self._written, self._seconds_before = self._began, 0.0
        self.step = step
        self._losses: list[tuple[int, float, float, float]] = []
        self._snapshots: dict[int, np.ndarray] = {}
        self._followed: list[tuple] = []
        self._ranks: dict[int, list[tuple]] = {}
        self._examples: list[dict[str, str]] = []
        self._words: _Words | None = None
        self._initial: np.ndarray | None = None
        self._hook: Any = None
        self._safely(self._begin)

    def after_step(self, loss: Any = None, *, learning_rate: float = float("nan")) -> dict[str, float]:
        """Count a step.

        Parameters
        ----------
        loss : of the step, a number or a tensor of one; None where it is not known.

        Returns
        -------
        What was read in the virtual tokens after this step, by the names that a logger shows; empty where nothing was.
        """
        self.step += 1
        if loss is not None:
            self.lost(float(loss.detach() if isinstance(loss, torch.Tensor) else loss), learning_rate)
        if self.step % self._every:
            return {}
        self._safely(self._snapshot)
        return self._safely(self._look) if self._has_time() else {}

    def lost(self, loss: float, learning_rate: float = float("nan")) -> None:
        """The loss after this step."""
        now = time.perf_counter()
        self._losses.append((self.step, loss, learning_rate, self._seconds_before + now - self._began))
        if now - self._written >= LIVE and self._has_time():
            self._safely(self._write_losses)
            self._looking += time.perf_counter() - now

    def saved(self, checkpoint: str | Path) -> None:
        """A checkpoint was written there: what `load_adapter` should find beside it is put there too."""
        began = time.perf_counter()
        self._safely(lambda: self._write_into(Path(checkpoint)))
        self._safely(self._write)  # what a training that goes on from there takes up
        self._looking += time.perf_counter() - began

    def end(self) -> None:
        """The last look, and all of it written."""
        if self._hook is not None:
            self._hook.remove()
        self._ended = True
        self._safely(self._snapshot)
        self._safely(self._look)

    def _has_time(self) -> bool:
        return self._looking <= WORTH * (time.perf_counter() - self._began)

    def _safely(self, work: Callable[[], Any]) -> Any:
        if self._stopped:
            return {}
        try:
            return work() or {}
        except Exception as error:
            self._stopped = True
            _log.warning("The training is no longer recorded in %s (%s: %s); it goes on.", self.folder, type(error).__name__, error)
            return {}

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = self._rows()
        if self.step:
            self._take_up(rows)
        else:
            self._initial = rows
        if rows is not None:
            self._words = _Words(self._model, self._tokenizer, self._initial)
            self._snapshots[self.step] = rows.astype(np.float16)
        if self._tokenizer is not None and len(self._examples) < EXAMPLES_KEPT:
            self._hook = self._model.register_forward_pre_hook(self._fed, with_kwargs=True)
        recorded_here.note(self.folder, getattr(getattr(self._model, "active_peft_config", None), "base_model_name_or_path", None))
        self._write()

    def _take_up(self, rows: np.ndarray | None) -> None:
        """What the folder holds of the steps so far, as far as it can be read."""
        self._losses = _rows_until(self.step, self.folder / LOSSES, _LOSS_COLUMNS)
        self._seconds_before = self._losses[-1][_LOSS_COLUMNS.index("seconds")] if self._losses else 0.0
        self._followed = _rows_until(self.step, self.folder / LOOKS, FOLLOWED)
        for row in _rows_until(self.step, self.folder / _RANKS_FILE, RANKS):
            self._ranks.setdefault(row[0], []).append(row)
        with suppress(InputError, KeyError, TypeError):
            record = read_object(self.folder / RECORD)
            self._examples = [{"text": str(each["text"]), "target": str(each["target"])} for each in record["examples"]][:EXAMPLES_KEPT]
            # A record of before says nothing of who gave it.
            if self._template is None and record.get("template_given", True) is True and isinstance(record.get("template"), str):
                self._template = record["template"]
        if rows is None:
            return
        start = self.folder / f"checkpoint-{self.step}" / INITIAL
        with suppress(InputError):
            steps, embeddings = read_trajectory(self.folder / TRAJECTORY)
            if embeddings.shape[1:] == rows.shape:
                self._snapshots = {
                    step: each.astype(np.float16) for step, each in zip(steps.tolist(), embeddings, strict=True) if step <= self.step
                }
        there = self._snapshots.get(self.step)
        if there is not None and not np.allclose(there, rows, rtol=0.02, atol=0.01):  # another training was recorded into this folder
            self._losses, self._followed, self._ranks, self._snapshots, self._examples, self._seconds_before = [], [], {}, {}, [], 0.0
        else:
            self._initial = _start_in(start if start.is_file() else self.folder / INITIAL, rows.shape)
        if self._initial is None:
            _log.warning(
                "The training goes on from step %d, and its start is not in %s: how far it moves from there is not told.",
                self.step,
                self.folder,
            )

    def _rows(self) -> np.ndarray | None:
        """The virtual tokens as they are now, (n, d) float32; None where the adapter has none."""
        encoder = getattr(self._model, "prompt_encoder", None)
        if not encoder or getattr(self._model.active_peft_config, "peft_type", None) == "PREFIX_TUNING":
            return None
        with torch.no_grad():
            return self._model.get_prompt_embedding_to_save(self._model.active_adapter).detach().float().cpu().numpy().copy()

    def _snapshot(self) -> None:
        rows = self._rows()
        if rows is None:
            return
        self._snapshots = _thinned(self._snapshots | {self.step: rows.astype(np.float16)})

    def _look(self) -> dict[str, float]:
        """Read the virtual tokens and write everything; the time that it takes is counted."""
        began = time.perf_counter()
        rows = self._rows()
        told: dict[str, float] = {}
        if rows is not None and self._words is not None and (not self._followed or self._followed[-1][0] < self.step):
            echo, drift, ratio, words, direction = self._words.read(rows)
            self._followed.append((self.step, echo, drift, ratio, words, direction))
            told = {"explorer/echo_share": echo, "explorer/drift": drift, "explorer/norm_ratio": ratio}
            told = {name: value for name, value in told.items() if not np.isnan(value)}
        elif rows is None and self.step not in self._ranks and (ranks := self._ranks_now()):
            self._ranks = _thinned(self._ranks | {self.step: ranks})
            norms, stable = (np.array([row[i] for row in ranks]) for i in (RANKS.index("frobenius_norm"), RANKS.index("stable_rank")))
            told = {"explorer/update_norm": float(np.linalg.norm(norms)), "explorer/stable_rank": float(np.median(stable))}
        self._write()
        self._looking += time.perf_counter() - began
        return told

    def _ranks_now(self) -> list[tuple]:
        """The rows of `RANKS` after this step, one a module of the active LoRA."""
        adapter, rows = getattr(self._model, "active_adapter", None), []
        for module, layer in self._model.named_modules():
            if adapter not in (getattr(layer, "lora_A", None) or ()):
                continue
            with torch.no_grad():
                a, b = (factor[adapter].weight.detach().flatten(1).double().cpu().numpy() for factor in (layer.lora_A, layer.lora_B))
            values = values_of_product(a, b, layer.scaling[adapter])
            if values is not None:
                found = measures(values, len(a))
                rows.append((self.step, module.removeprefix("base_model.model."), *(found[name] for name in RANKS[2:])))
        return rows

    def _fed(self, module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        """The first examples, as the model is given them."""
        ids, labels, mask = (kwargs.get(name) for name in ("input_ids", "labels", "attention_mask"))
        if ids is None or labels is None or self._stopped:
            return
        with suppress(Exception):
            for i in range(len(ids)):
                read = ids[i] if mask is None else ids[i][mask[i].bool()]
                wanted = labels[i] if mask is None else labels[i][mask[i].bool()]
                answer = wanted != -100
                start = int(answer.int().argmax()) if bool(answer.any()) else len(read)
                text, target = (
                    self._tokenizer.decode(part.tolist(), skip_special_tokens=True) for part in (read[:start], read[start:][answer[start:]])
                )
                self._examples.append({"text": text, "target": target})
        if len(self._examples) >= EXAMPLES_KEPT:
            self._hook.remove()
            del self._examples[EXAMPLES_KEPT:]

    def _write(self) -> None:
        self._write_into(self.folder)
        self._write_losses()
        write_whole(self.folder / LOOKS, _csv(self._followed, FOLLOWED))
        if self._ranks:
            write_whole(self.folder / _RANKS_FILE, _csv([row for step in sorted(self._ranks) for row in self._ranks[step]], RANKS))
        if self._snapshots:
            steps = sorted(self._snapshots)
            write_whole(
                self.folder / TRAJECTORY,
                _safetensors({"steps": np.array(steps, dtype=np.int64), "embeddings": np.stack([self._snapshots[step] for step in steps])}),
            )

    def _write_losses(self) -> None:
        write_whole(self.folder / LOSSES, _csv(self._losses, _LOSS_COLUMNS))
        self._written = time.perf_counter()

    def _write_into(self, folder: Path) -> None:
        if self._initial is not None:
            write_whole(folder / INITIAL, _safetensors({"initial": self._initial}))
        config = getattr(self._model, "active_peft_config", None)
        record = {
            "model": getattr(config, "base_model_name_or_path", None),
            "method": str(getattr(getattr(config, "peft_type", None), "value", "")) or None,
            "template": self._template or template_of([example["text"] for example in self._examples]),
            "template_given": self._template is not None,
            "steps": self.step,
            "ended": self._ended,
            "examples": self._examples,
        }
        write_whole(folder / RECORD, (json.dumps(record, ensure_ascii=False, indent=1) + "\n").encode("utf-8"))


def _thinned(by_step: dict[int, Any]) -> dict[int, Any]:
    """What was kept of these steps; where it is too much, of every second one, and of the last."""
    steps = sorted(by_step)
    return by_step if len(steps) <= SNAPSHOTS else {step: by_step[step] for step in sorted({*steps[::2], steps[-1]})}


def _csv(rows: list[tuple], columns: list[str]) -> bytes:
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n").encode("utf-8")


def _rows_until(step: int, path: Path, columns: list[str]) -> list[tuple]:
    """What `_csv` wrote of the steps up to this one; nothing where it cannot be read."""
    texts = {"module", "words", "direction"} & set(columns)
    try:
        blank = {name: [""] for name in columns if name not in texts}  # a word may be written nan
        reading = {"dtype": dict.fromkeys(texts, "str"), "keep_default_na": False, "na_values": blank}
        table = read_table(path, most=MAX_TABLE_BYTES, rows=MAX_TABLE_ROWS, **reading)[columns].astype({"step": "int64"})
    except DAMAGED:  # or not there, or another table
        return []
    return list(table[table["step"] <= step].itertuples(index=False, name=None))


def _start_in(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        initial = safetensors_file.read(path)["initial"]
    except DAMAGED:
        return None
    return initial if initial.shape == shape else None


def _safetensors(arrays: dict[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    return save(arrays)


class _Words:
    """The vocabulary that virtual tokens are read against while they are learned, where the model has it."""

    def __init__(self, model: Any, tokenizer: Any, initial: np.ndarray | None) -> None:
        self._embedding, self._tokenizer = model.get_input_embeddings(), tokenizer
        self._count = self._embedding.weight.shape[0]
        total, norms = 0.0, []
        for rows in self._blocks():
            total = total + rows.sum(0, dtype=torch.float64)
            norms.append(rows.norm(dim=1))
        self._mean = (total / self._count).float()
        self._median_norm = float(torch.cat(norms).median())
        self._initial = None if initial is None else self._on_device(initial)
        self._first = None if self._initial is None else self._nearest(self._initial)

    def read(self, rows: np.ndarray) -> tuple[float, float, float, str, str]:
        """The share of tokens still nearest to the word that they started nearest to, the median drift and the median norm beside the vocabulary's, each token's
        nearest word, and the three words that all moved towards. Where the start is unknown, so is what is told of it."""
        now = self._on_device(rows)
        nearest, ratio = self._nearest(now), float(now.norm(dim=1).median()) / self._median_norm
        if self._initial is None or self._first is None:
            return float("nan"), float("nan"), ratio, self._written(nearest), ""
        moved = now - self._initial
        towards = self._scores(torch.nn.functional.normalize(moved, dim=1).mean(0, keepdim=True))[:, 0].topk(min(3, self._count)).indices
        return (
            float((nearest == self._first).float().mean()), float(moved.norm(dim=1).median()), ratio,
            self._written(nearest), self._written(towards),
        )  # fmt: skip

    def _blocks(self):
        with torch.no_grad():
            for start in range(0, self._count, _BLOCK):
                ids = torch.arange(start, min(start + _BLOCK, self._count), device=self._embedding.weight.device)
                yield self._embedding(ids).float()  # as the first layer receives them: some families scale the stored rows

    def _on_device(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(rows).to(self._embedding.weight.device)

    def _scores(self, directions: torch.Tensor) -> torch.Tensor:
        """The cosine of every centred word with each direction, (V, k)."""
        units = torch.nn.functional.normalize(directions, dim=1)
        return torch.cat([torch.nn.functional.normalize(rows - self._mean, dim=1) @ units.T for rows in self._blocks()])

    def _nearest(self, rows: torch.Tensor) -> torch.Tensor:
        return self._scores(rows - self._mean).argmax(0)

    def _written(self, ids: torch.Tensor) -> str:
        if self._tokenizer is None:
            return ""
        return "·".join(self._tokenizer.decode([i]).strip() for i in ids.tolist())


class ExplorerCallback(TrainerCallback):
    """Record a training by the Trainer of transformers: `Trainer(..., callbacks=[ExplorerCallback()])`.

    Parameters
    ----------
    folder : where it is written; the Trainer's own `output_dir` when None, where the checkpoints are.
    every, template : see `Recorder`.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> callback = spe.ExplorerCallback("runs/mine", every=10)  # what `Trainer(..., callbacks=[callback])` takes
    >>> callback.recorder is None  # until the training begins
    True
    """

    def __init__(self, folder: str | Path | None = None, *, every: int = 50, template: str | None = None) -> None:
        self._folder, self._every, self._template = folder, every, template
        self.recorder: Recorder | None = None
        self._loggers: list[Callable[[dict[str, float], int], None]] = []

    def on_train_begin(self, args, state, control, model=None, processing_class=None, **kwargs) -> None:
        if state.is_world_process_zero and model is not None:
            self.recorder = Recorder(
                self._folder or args.output_dir, model, processing_class, every=self._every, template=self._template, step=state.global_step
            )
            self._loggers = list(_loggers(args))

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if self.recorder is not None:
            self.recorder.step = state.global_step - 1
            if told := self.recorder.after_step():
                state.log_history.append({**told, "epoch": state.epoch, "step": state.global_step})
                for log in self._loggers:
                    with suppress(Exception):  # a logger that is gone ends no training
                        log(told, state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if self.recorder is not None and logs and "loss" in logs:
            self.recorder.lost(float(logs["loss"]), float(logs.get("learning_rate", "nan")))

    def on_save(self, args, state, control, **kwargs) -> None:
        if self.recorder is not None and (checkpoint := Path(args.output_dir) / f"checkpoint-{state.global_step}").is_dir():
            self.recorder.saved(checkpoint)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        if self.recorder is not None:
            self.recorder.end()


def _loggers(args):
    """Where the Trainer logs, as functions of names with values and of a step: what is already set up there is used, and nothing new is begun."""
    wanted = args.report_to if isinstance(args.report_to, list) else [args.report_to]
    if "tensorboard" in wanted:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(log_dir=Path(os.environ.get("TENSORBOARD_LOGGING_DIR", Path(args.output_dir) / "runs")) / "explorer")

        def write(told: dict[str, float], step: int) -> None:
            for name, value in told.items():
                writer.add_scalar(name, value, step)
            writer.flush()

        yield write
    if "wandb" in wanted:
        import wandb

        yield lambda told, step: wandb.run.log({**told, "train/global_step": step})
    if "trackio" in wanted:
        import trackio

        yield lambda told, step: trackio.log({**told, "train/global_step": step})
