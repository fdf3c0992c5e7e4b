"""Twins are made here: the same prompt trained again on answers that were dealt out anew among the examples (see `analysis.prompts.twins`).

A twin lies in the folder of its run, `twin-1.safetensors` and so on: the rows in 16 bits, and how it was made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.behaviour.of_task import examples_of
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import write_whole
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.settling import settled
from soft_prompt_explorer.trained_prompts.training.trainer import train

LAST_STEPS = 10  # over which the loss that is told is averaged


def make(names: Sequence[str], *, shuffles: Sequence[int] = (1,), limit: int = 100, report: Report = no_report) -> None:
    """Train the twins of runs, as far as they do not lie there yet.

    Parameters
    ----------
    shuffles : their numbers; each deals out the answers in its own way.
    limit : each twin is scored on the first so many held-out examples.

    Raises
    ------
    InputError
        There is no such run, it is no run of prompt tuning, or its model or task is not at hand.
    """
    loaded: tuple[tuple[str, str], LanguageModel] | None = None
    wanted = [(name, shuffle) for name in names for shuffle in shuffles]
    for i, (name, shuffle) in enumerate(wanted):
        report_part = part(report, i, len(wanted), name)
        path = store.find(name) / f"twin-{shuffle}.safetensors"
        if path.is_file():
            continue
        config = twin_config(name, shuffle)
        wanted_model = (config.model, config.dtype)
        if loaded is None or loaded[0] != wanted_model:
            loaded = (wanted_model, load_model(config.model, dtype=config.dtype, report=report_part))
        _train_and_keep(config, path, loaded[1], limit, report_part)


def twin_config(name: str, shuffle: int) -> TrainingConfig:
    """The settings of a run's twin.

    Raises
    ------
    InputError
        There is no such run, or what it learned are no virtual tokens.
    """
    settings = dict(read_description(store.find(name))["config"])
    if settings.get("method") != "prompt-tuning":
        raise InputError(f"Twins are trained of prompt tuning, and {name} is a run of {settings.get('method')}.")
    settings.pop("targets", None)
    return settled(
        TrainingConfig(**settings | {"model": store.own_model(name), "shuffled": shuffle, "validate_every": None, "patience": None})
    )


def _train_and_keep(config: TrainingConfig, path: Path, language_model: LanguageModel, limit: int, report: Report) -> None:
    from safetensors.numpy import save

    losses = []
    for step in train(config, language_model=language_model, report=report):
        assert step.embeddings is not None  # of prompt tuning
        if step.step == 0:
            _check_start(step.embeddings, path.parent)
        else:
            losses.append(step.loss)
            report(0.9 * step.step / step.steps, f"twin {config.shuffled}, step {step.step} of {step.steps}, loss {step.loss:.3f}")
        kept = step.embeddings.astype(np.float16)
    examples = examples_of(config.asked_task(), language_model, limit=limit)
    answers = examples.ask(kept.astype(np.float32), part(report, 9, 10))
    made = {
        "config": config.described(),
        "loss": float(np.mean(losses[-LAST_STEPS:])),
        "measure": examples.measure,
        "score": float(examples.score(answers.counts.sum(axis=0))),
        "n": len(answers.losses),
    }
    try:
        write_whole(path, save({"embeddings": kept}, {"made": json.dumps(made)}))
    except OSError as error:
        raise InputError(f"The twin cannot be kept in {path.parent}: {error.strerror or error}.") from error


def _check_start(rows: np.ndarray, folder: Path) -> None:
    """A twin must start where its run started: else it is no control."""
    own = load_soft_prompt(folder).initial
    if own is None or own.shape != rows.shape or not np.allclose(own, rows, atol=1e-5):
        raise InputError(
            f"The run {folder.name} no longer starts from the same values as its settings say, so a twin would be no control for it."
        )
