"""Training as a generator: `for step in train(config)` is all that the page, the command line and the tests do.

Five methods, all by PEFT's own models (full fine-tuning by the model itself), on the same examples in the same order, learned by Adam with a learning
rate that falls linearly to zero:

    prompt-tuning   n rows in front of the input embeddings                        Lester et al. 2021
    p-tuning        the same rows, as the output of a small network while learned   Liu et al. 2021, "GPT Understands, Too"
    prefix-tuning   n keys and values in front of every layer's own                 Li and Liang 2021
    lora            two thin factors beside each of some weights                    Hu et al. 2021
    full            every weight of a copy of the model

What differs between them stands in `methods.py`; here is what they share.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.memory import check_fits
from soft_prompt_explorer.trained_prompts.training.settling import settled
from soft_prompt_explorer.trained_prompts.training.together import ALONE, Together

SHUFFLE_SEED = 20_217
_MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam, by torch's names


class DivergedError(InputError):
    """The loss was no number: the state before the last step was the last good one."""


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """What one step did. Step 0 comes before any update: what it holds are the initial values and its loss is NaN.

    Attributes
    ----------
    loss : mean cross-entropy of the answers' tokens in this step's batch, in nats, before the update.
    seconds : since training began, the model already loaded.
    embeddings : (n, d) float32, the virtual tokens after the update; None for methods that have none.
    weights : what PEFT saves of the other methods, by its names, float32: the factors of a LoRA, or the rows of a prefix; else None.
    model : of full fine-tuning, the copy that is trained; it moves on with the training.
    validation : the task's score on the training examples set aside, 0 to 1; None where it was not measured at this step.
    trainable : number of parameters that are learned.
    checkpoint : the state of parameters and optimiser after this step, for `train(resume=...)`; to be called before the next step is asked for.
        None where a run cannot be resumed.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float
    embeddings: np.ndarray | None
    weights: dict[str, np.ndarray] | None = None
    model: Any = None
    validation: float | None = None
    trainable: int = 0
    checkpoint: Callable[[], dict[str, np.ndarray]] | None = None


def train(
    config: TrainingConfig,
    *,
    language_model: LanguageModel | None = None,
    resume: dict[str, np.ndarray] | None = None,
    together: Together = ALONE,
    report: Report = no_report,
) -> Iterator[TrainingStep]:
    """Train by one of the five methods, a step at a time. Stop by ceasing to iterate; nothing is written anywhere.

    Parameters
    ----------
    language_model : from `load_model`, when the caller has it; left as it was found.
    resume : what a step's `checkpoint` answered in a run of the same config: the next step is the first one, and what follows is what would have
        followed there.
    together : of a process among several that share each step of this run; `language_model` then lies on its device.
    report : told what is being prepared before the first step.

    Raises
    ------
    InputError
        The model cannot be loaded, the training does not fit into the memory, an example is too long for it, or the checkpoint is not of such a run.
    DivergedError
        The loss is no number.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> config = spe.TrainingConfig(task="plural", tokens=2, steps=2, batch_size=2)
    >>> [step.step for step in spe.train(config)]
    [0, 1, 2]
    """
    check_fits(config)
    report(0.0, "loading the model")
    model, tokenizer = language_model or load_model(config.model, dtype=config.dtype, device=config.device, report=report)
    config = settled(config)
    from soft_prompt_explorer.analysis.asking.batches import check_lengths, encode
    from soft_prompt_explorer.analysis.asking.in_front import Subject
    from soft_prompt_explorer.trained_prompts.training.methods import learner, recomputing

    report(0.9, "reading the examples")
    task = config.asked_task()
    table, watched = task.for_training(watched=config.validate_every is not None)
    examples = encode(tokenizer, table["text"], targets(config, table))
    with learner(config, model, tokenizer) as learning, recomputing(learning.model) if config.checkpointing else nullcontext():
        check_lengths(
            examples, max(learning.virtual_tokens + learning.prefix, *(in_front for _, in_front in learning.frames), 0), model.config
        )
        watch = _Watch(config, task, watched, Subject(learning.model, tokenizer, learning.virtual_tokens, learning.prefix))
        run = _Run(config, learning, examples, watch, together)
        together.check_same(0 if resume is None else int(resume["progress"][0]))
        if resume is None:
            yield run.step_made(0, math.nan, config.first_rate, 0.0)
        else:
            run.restore(resume)
            if watch.out_of_patience:
                return
        for step, loss, rate, seconds in run.optimise():
            yield run.step_made(step, loss, rate, seconds)
            if watch.out_of_patience:
                return


def targets(config: TrainingConfig, table: pd.DataFrame) -> list[str]:
    """The answers that a run learns from, in the order of its examples: their own, or where they are shuffled those of other examples."""
    own = table["target"].tolist()
    if config.shuffled is None:
        return own
    order = np.random.default_rng([SHUFFLE_SEED, config.shuffled]).permutation(len(own))
    return [own[i] for i in order]


class _Watch:
    """The task's score on examples set aside, while a run learns."""

    def __init__(self, config: TrainingConfig, task, table, subject) -> None:
        self._config, self._task, self._table, self._subject = config, task, table, subject
        self.best, self.worse = -math.inf, 0  # the best score so far, and how many in a row were not better

    def at(self, step: int) -> float | None:
        every = self._config.validate_every
        if every is None or (step % every and step != self._config.steps):
            return None
        from soft_prompt_explorer.analysis.asking.answers import predictions
        from soft_prompt_explorer.analysis.tasks.scoring import SCORINGS

        measure = next(iter(SCORINGS[self._task.scored_by].values()))
        score = measure(predictions(self._subject, self._task, self._table))
        self.worse = 0 if score > self.best else self.worse + 1
        self.best = max(self.best, score)
        return score

    @property
    def out_of_patience(self) -> bool:
        return self._config.patience is not None and self.worse >= self._config.patience


class _Run:
    """The optimiser's loop over one learner."""

    def __init__(self, config: TrainingConfig, learning, examples: list, watch: _Watch, together: Together) -> None:
        import torch

        self._config, self._learning, self._examples, self._watch, self._together = config, learning, examples, watch, together
        self._optimiser = torch.optim.Adam(learning.parameters, lr=config.first_rate)
        self._done, self._before = 0, 0.0  # steps and seconds of a run that is gone on with

    def optimise(self) -> Iterator[tuple[int, float, float, float]]:
        """(step, loss before its update, learning rate, seconds) of every step, each after its update."""
        import torch

        from soft_prompt_explorer.analysis.asking.batches import answer_logits, like_length_batches

        config, learning, together = self._config, self._learning, self._together
        rng = np.random.default_rng(config.seed)
        batches: list[np.ndarray] = []
        lengths = [len(example.ids) for example in self._examples]
        began = time.perf_counter() - self._before
        for step in range(1, config.steps + 1):
            rate = config.first_rate * (config.steps - step + 1) / config.steps
            if not batches:
                batches = like_length_batches(lengths, config.batch_size, rng)
            batch = [self._examples[i] for i in batches.pop()]
            if step <= self._done:
                continue  # made before the run was broken off; its draws are made again
            self._optimiser.param_groups[0]["lr"] = rate
            forward, in_front = learning.turn(step)
            self._optimiser.zero_grad()
            tokens, loss = sum(len(example.answer) for example in batch), 0.0
            for part in together.share(_parts(batch, config.accumulate * together.size)):
                logits = answer_logits(forward, part, virtual_tokens=in_front, device=learning.model.device)
                answers = torch.tensor([token for example in part for token in example.answer], device=logits.device)
                of_part = torch.nn.functional.cross_entropy(logits.float(), answers) * (len(answers) / tokens)
                loss += of_part.item()
                of_part.backward()
            loss = together.add_up(loss, learning.parameters)
            if not math.isfinite(loss):
                raise DivergedError(
                    f"The loss became {loss} at step {step}; a smaller learning rate than {config.learning_rate:g} keeps it finite."
                )
            self._optimiser.step()
            yield step, loss, rate, time.perf_counter() - began
        rows = learning.embeddings()
        kept = [*learning.parameters, *([] if rows is None else [torch.from_numpy(rows)])]
        if not all(bool(torch.isfinite(values).all()) for values in kept):  # no further loss would show it
            raise DivergedError(
                f"The last step left values that are no numbers; a smaller learning rate than {config.learning_rate:g} keeps them finite."
            )

    def step_made(self, step: int, loss: float, rate: float, seconds: float) -> TrainingStep:
        learning, validation = self._learning, self._watch.at(step)
        return TrainingStep(
            step, self._config.steps, loss, rate, seconds, learning.embeddings(), learning.weights(), learning.copy, validation,
            sum(parameter.numel() for parameter in learning.parameters), (lambda: self._state(step, seconds)) if learning.copy is None else None,
        )  # fmt: skip

    def _state(self, step: int, seconds: float) -> dict[str, np.ndarray]:
        arrays = {"progress": np.array([step, seconds, self._watch.best, self._watch.worse])}
        for i, parameter in enumerate(self._learning.parameters):
            arrays[f"parameter.{i}"] = parameter.detach().cpu().numpy().copy()
            for name in _MOMENTS:
                moment = self._optimiser.state[parameter].get(name)
                arrays[f"{name}.{i}"] = np.zeros_like(arrays[f"parameter.{i}"]) if moment is None else moment.cpu().numpy().copy()
        return arrays

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Go back to what `_state` answered."""
        import torch

        parameters = self._learning.parameters
        wanted = {f"{name}.{i}": tuple(p.shape) for i, p in enumerate(parameters) for name in ("parameter", *_MOMENTS)} | {"progress": (4,)}
        if {name: array.shape for name, array in arrays.items()} != wanted:
            raise InputError(
                "The checkpoint is of a run with other settings, so this run cannot go on from it; train again under another name."
            )
        done, self._before, self._watch.best, worse = arrays["progress"].tolist()
        self._done, self._watch.worse = int(done), int(worse)
        for i, parameter in enumerate(parameters):
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(arrays[f"parameter.{i}"]))
            moments = {name: torch.from_numpy(arrays[f"{name}.{i}"].copy()).to(parameter.device) for name in _MOMENTS}
            self._optimiser.state[parameter] = {"step": torch.tensor(float(self._done))} | moments


def _parts(batch: list, count: int) -> list[list]:
    """The examples of a batch in so many parts of like size, in their order; fewer where it has fewer examples."""
    ends = [round(i * len(batch) / min(count, len(batch))) for i in range(min(count, len(batch)) + 1)]
    return [batch[begin:end] for begin, end in itertools.pairwise(ends)]
