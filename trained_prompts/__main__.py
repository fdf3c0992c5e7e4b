"""The command line: `python -m trained_prompts tasks | list | train | evaluate`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.command_line import Format, FormatOption, OutOption, check_out, emit, new_app, progress_bar, run

if TYPE_CHECKING:
    import pandas as pd

    from trained_prompts.trainer import TrainingConfig

app = new_app("Train soft prompts, and see how well they do.")


@app.command()
def tasks(form: FormatOption = Format.table, out: OutOption = None) -> None:
    """What a prompt can be trained on."""
    check_out(out)
    from trained_prompts.tasks import tasks_table

    emit(tasks_table(), form, out)


@app.command("list")
def list_(form: FormatOption = Format.table, out: OutOption = None) -> None:
    """The prompts that ship and your own runs."""
    check_out(out)
    from trained_prompts.store import list_runs

    emit(list_runs(), form, out)


@app.command()
def train(
    task: Annotated[str, typer.Option(help="See `tasks`.")],
    name: Annotated[str, typer.Option(help="What the run is called; a name is used once.")],
    method: Annotated[str, typer.Option(help="prompt-tuning or lora.")] = "prompt-tuning",
    tokens: Annotated[int, typer.Option(help="Virtual tokens, of prompt tuning.")] = 10,
    rank: Annotated[int, typer.Option(help="Of LoRA.")] = 8,
    alpha: Annotated[float | None, typer.Option(help="Of LoRA. [default: twice the rank]")] = None,
    rslora: Annotated[bool, typer.Option("--rslora", help="Scale LoRA by alpha/√rank instead of alpha/rank.")] = False,
    targets: Annotated[str, typer.Option(help="Modules that LoRA changes in every layer, with commas between them.")] = "q_proj,v_proj",
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 150,
    batch_size: Annotated[int, typer.Option(help="Examples a step.")] = 8,
    learning_rate: Annotated[
        float | None, typer.Option(help="Adam's rate at the first step; it falls linearly to zero. [default: 0.05, of LoRA 0.001]")
    ] = None,
    init: Annotated[str, typer.Option(help="sample-vocab (rows of frequent words), text or random.")] = "sample-vocab",
    init_text: Annotated[str | None, typer.Option(help="The text whose words `--init text` starts from.")] = None,
    seed: Annotated[int, typer.Option(help="Determines the initial values and the order of the examples.")] = 0,
    model: Annotated[str, typer.Option(help="smollm2-135m, a hub id, a folder or a .gguf file.")] = "smollm2-135m",
    limit: Annotated[int | None, typer.Option(help="Evaluate on the first so many held-out examples. [default: all]", min=1)] = None,
    into: Annotated[Path | None, typer.Option(help="Keep the run in this folder instead of your own runs.", file_okay=False)] = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Train a soft prompt or a LoRA, evaluate it on held-out examples before and after, and keep the run."""
    check_out(out)
    from trained_prompts.trainer import TrainingConfig

    config = TrainingConfig(
        task=task, model=model, method=method, tokens=tokens, steps=steps, batch_size=batch_size,
        learning_rate=learning_rate, init=init, init_text=init_text, seed=seed,
        rank=rank, alpha=alpha, rslora=rslora, targets=tuple(filter(None, targets.split(","))),
    )  # fmt: skip
    emit(_train_and_keep(config, name, limit, into), form, out)


@app.command()
def gallery() -> None:
    """Train the prompts that ship, as far as they are not in trained_prompts/gallery (about ten minutes each on two cores)."""
    from trained_prompts.gallery import RECIPES
    from trained_prompts.store import GALLERY

    for name, config in RECIPES.items():
        if not (GALLERY / name).exists():
            print(name, file=sys.stderr)
            _train_and_keep(config, name, None, GALLERY)


@app.command()
def evaluate(
    prompt: Annotated[str, typer.Argument(help="The name of a run, or the path of a soft prompt or a LoRA.", metavar="NAME|PATH")],
    task: Annotated[str, typer.Option(help="See `tasks`.")],
    limit: Annotated[int | None, typer.Option(help="The first so many held-out examples. [default: all]", min=1)] = None,
    model: Annotated[str | None, typer.Option(help="smollm2-135m, a hub id, a folder or a .gguf file. [default: the prompt's own]")] = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Held-out accuracy of a prompt and of the bare model, with 95 % intervals."""
    check_out(out)
    from trained_prompts.tasks import get_task

    get_task(task)
    from analysis.adapters import LoraAdapter, load_adapter
    from analysis.models import EMBEDDED_WIDTH, default_model, load_model
    from trained_prompts import store
    from trained_prompts.evaluation import compare_lora, compare_with_bare_model

    path = Path(prompt)
    if path.name == prompt and not os.path.exists(path):  # noqa: PTH110 - it never raises, however odd the name
        path = store.adapter_path(prompt)
        model = model or store.own_model(prompt)
    adapter = load_adapter(path)
    with progress_bar() as report:
        if isinstance(adapter, LoraAdapter):
            model = model or default_model(adapter.base_model, EMBEDDED_WIDTH, report=report)
            language_model = load_model(model, report=report)
            table = compare_lora(path, adapter.name, task, language_model=language_model, limit=limit, report=report)
        else:
            adapter.check_is_one()
            adapter.check_is_embeddings()
            model = model or default_model(adapter.base_model, adapter.width, report=report)
            language_model = load_model(model, report=report)
            adapter.check_width(language_model[0].get_input_embeddings().weight.shape[1], model)
            table = compare_with_bare_model(adapter, task, language_model=language_model, limit=limit, report=report)
    emit(table, form, out)


def _train_and_keep(config: TrainingConfig, name: str, limit: int | None, folder: Path | None) -> pd.DataFrame:
    from tqdm import tqdm

    from analysis.models import load_model
    from trained_prompts import store
    from trained_prompts.evaluation import evaluate_run
    from trained_prompts.trainer import train as training_steps

    store.check_name(name, folder)
    with progress_bar() as report:
        language_model = load_model(config.model, report=report)
    recording = store.Recording(config)
    with tqdm(total=config.steps, desc="training", unit="step", file=sys.stderr) as bar:
        for step in training_steps(config, language_model=language_model):
            recording.add(step)
            if step.step:
                bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)
                bar.update()
    with progress_bar() as report:
        scores = evaluate_run(recording, language_model=language_model, limit=limit, report=report)
    path = store.save(recording, name, scores, folder=folder)
    print(f"kept in {path}", file=sys.stderr)
    return scores


if __name__ == "__main__":
    run(app)
