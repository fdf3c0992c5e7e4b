"""What the commands `train` and `evaluate` do: a run from its settings to its folder, and the scores of what a file holds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from soft_prompt_explorer.analysis.command_line import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

    from soft_prompt_explorer.analysis.core.progress import Report
    from soft_prompt_explorer.analysis.tasks.task import Task
    from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
    from soft_prompt_explorer.trained_prompts.training.trainer import TrainingStep


def train_and_keep(config: TrainingConfig, name: str, limit: int | None, folder: Path | None) -> pd.DataFrame:
    """Train, score and keep a run, with a bar on standard error; answers its scores."""
    from tqdm import tqdm

    from soft_prompt_explorer.analysis.asking.scores import risen_loss
    from soft_prompt_explorer.analysis.core.folders import runs_folder
    from soft_prompt_explorer.analysis.models.weights import load_model
    from soft_prompt_explorer.trained_prompts.runs import recorded as runs
    from soft_prompt_explorer.trained_prompts.runs import store
    from soft_prompt_explorer.trained_prompts.runs.recording import checkpoint_path
    from soft_prompt_explorer.trained_prompts.training.together import of_this_process

    together = of_this_process(config.device)
    if together.rank:
        model = load_model(config.model, dtype=config.dtype, device=together.device)
        runs.help_to_train(config, name, language_model=model, together=together, folder=folder)
        raise SystemExit(0)
    store.check_name(name, folder)
    with progress_bar() as report:
        language_model = load_model(config.model, dtype=config.dtype, device=together.device, report=report)
    asked = f"asked: {config.asked_task().first_example()}"
    with tqdm(total=config.steps, desc="training", unit="step", file=sys.stderr) as bar, progress_bar() as report:

        def watch(step: TrainingStep) -> None:
            nonlocal asked
            if asked:
                bar.write(asked, file=sys.stderr)
                asked = ""
            if step.step:
                score = "" if step.validation is None else f", score {step.validation:.3f}"
                bar.set_postfix_str(f"loss {step.loss:.3f}{score}", refresh=False)
                bar.update(step.step - bar.n)

        try:
            scores = runs.run(
                config, name, language_model=language_model, limit=limit, folder=folder, together=together, watch=watch, report=report
            )
        except KeyboardInterrupt:
            if checkpoint_path(name, folder).is_file():
                print(f"\nStopped; the same command goes on with {name} where it was.", file=sys.stderr)
                raise SystemExit(130) from None
            raise
    print(f"kept in {(folder or runs_folder()) / name}", file=sys.stderr)
    if (worse := risen_loss(scores.iloc[0], scores.iloc[-1])) is not None:
        print(worse, file=sys.stderr)
    return scores


def scores_of(
    path: Path, name: str, task: Task, model: str | None, limit: int | None, alone: Callable | None, report: Report
) -> pd.DataFrame:
    """The scores beside those of the bare model; or what `alone` measures of the prompt itself."""
    from soft_prompt_explorer.analysis.adapters import LoraAdapter, load_adapter
    from soft_prompt_explorer.analysis.adapters.own_model import model_of
    from soft_prompt_explorer.analysis.asking import scores as evaluation
    from soft_prompt_explorer.analysis.asking.in_front import bare, subject_of
    from soft_prompt_explorer.analysis.models.weights import load_model

    if (path / "config.json").is_file():  # a whole model
        trained = load_model(str(path), report=report)
        if alone:
            return alone(name, bare(trained), task, limit=limit, report=report)
        return evaluation.evaluate(name, None, task, language_model=trained, limit=limit, report=report)
    adapter = load_adapter(path, name=name)
    adapter.check_is_causal()
    if isinstance(adapter, LoraAdapter):
        language_model = load_model(model or model_of(adapter, report=report), report=report)
        if alone:
            with subject_of(path, language_model) as ready:
                return alone(adapter.name, ready, task, limit=limit, report=report)
        return evaluation.compare_lora(path, adapter.name, task, language_model=language_model, limit=limit, report=report)
    adapter.check_is_one()
    language_model = load_model(model or model_of(adapter, report=report), report=report)
    if adapter.is_embeddings:
        adapter.check_width(language_model.width, model or "the model")
    if alone:
        with subject_of(adapter, language_model) as ready:
            return alone(adapter.name, ready, task, limit=limit, report=report)
    return evaluation.compare_with_bare_model(adapter, task, language_model=language_model, limit=limit, report=report)
