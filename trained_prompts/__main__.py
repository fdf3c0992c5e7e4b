"""The command line: `python -m trained_prompts tasks | list | train | twins | benchmark | sizes | evaluate | compare | sweep`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from soft_prompt_explorer.analysis.command_input import FetchOption, TemplateOption, place
from soft_prompt_explorer.analysis.command_line import (
    DeviceOption,
    DtypeOption,
    Format,
    FormatOption,
    OutOption,
    check_out,
    emit,
    new_app,
    progress_bar,
    run,
)
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.computing import check_dtype, compute_in
from soft_prompt_explorer.analysis.models.names import DEFAULT
from soft_prompt_explorer.trained_prompts.experiment_commands import app as of_experiments

if TYPE_CHECKING:
    from soft_prompt_explorer.analysis.adapters.run_file import Init, Method
    from soft_prompt_explorer.analysis.behaviour.templates import Asked
    from soft_prompt_explorer.trained_prompts.experiments.sweeps import Engine

TrainedTemplateOption = Annotated[
    str | None,
    typer.Option(
        "--template",
        help="How the examples are asked: a text with {input} where the example goes, for instance 'Thing: {input}\\nColour:'. The run is asked so ever after. "
        "[default: the task's own]",
    ),
]

app = new_app("Train soft prompts, and see how well they do.")


@app.command()
def tasks(form: FormatOption = Format.table, out: OutOption = None) -> None:
    """What a prompt can be trained on."""
    check_out(out)
    from soft_prompt_explorer.analysis.tasks.finding import tasks_table

    emit(tasks_table(), form, out)


@app.command("list")
def list_(form: FormatOption = Format.table, out: OutOption = None) -> None:
    """The prompts that ship and your own runs; what is left out is named on standard error."""
    check_out(out)
    from soft_prompt_explorer.trained_prompts.runs.store import left_out, list_runs

    emit(list_runs(), form, out)
    for sentence in left_out().values():
        print(sentence, file=sys.stderr)


@app.command()
def train(
    task: Annotated[str, typer.Option(help="See `tasks`.")],
    name: Annotated[str, typer.Option(help="What the run is called; a name is used once.")],
    method: Annotated[str, typer.Option(help="prompt-tuning, p-tuning, prefix-tuning, lora or full.")] = "prompt-tuning",
    tokens: Annotated[int, typer.Option(help="Virtual tokens, of prompts and prefixes.")] = 10,
    rank: Annotated[int, typer.Option(help="Of LoRA.")] = 8,
    alpha: Annotated[float | None, typer.Option(help="Of LoRA. [default: twice the rank]")] = None,
    rslora: Annotated[bool, typer.Option("--rslora", help="Scale LoRA by alpha/√rank instead of alpha/rank.")] = False,
    targets: Annotated[
        str | None,
        typer.Option(
            help="Modules that LoRA changes in every layer, with commas between them, or all-linear. [default: PEFT's for the model's family, q_proj,v_proj of most]"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 150,
    batch_size: Annotated[int, typer.Option(help="Examples a step.")] = 8,
    accumulate: Annotated[
        int, typer.Option(help="Read a step's examples in so many parts, one after the other: the same gradient in less memory.")
    ] = 1,
    checkpointing: Annotated[
        bool,
        typer.Option("--checkpointing", help="Compute each layer once more on the way back instead of keeping it: less memory, more time."),
    ] = False,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Adam's rate at the first step; it falls linearly to zero. [default: the method's own, less where the model's words are short]"
        ),
    ] = None,
    init: Annotated[str, typer.Option(help="sample-vocab (rows of frequent words), text or random.")] = "sample-vocab",
    init_text: Annotated[str | None, typer.Option(help="The text whose words `--init text` starts from.")] = None,
    readable: Annotated[
        float, typer.Option(help="Draw each virtual token to a word while it learns: γ, 0 not at all, inf to nothing but words.")
    ] = 0.0,
    frame: Annotated[
        list[str] | None,
        typer.Option(
            help="A text that stands around the virtual tokens while they learn, with § where they go: 'Please §.'. Give it several times to take turns; the plain use always takes one."
        ),
    ] = None,
    validate_every: Annotated[
        int | None, typer.Option(help="Score every so many steps, on training examples set aside for it. [default: never]")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many such scores without a better one, and keep the best state. [default: do not stop]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Determines the initial values and the order of the examples.")] = 0,
    template: TrainedTemplateOption = None,
    model: Annotated[str, typer.Option(envvar=DEFAULT, help="smollm2-135m, a hub id, a folder or a .gguf file.")] = "smollm2-135m",
    limit: Annotated[int | None, typer.Option(help="Evaluate on the first so many held-out examples. [default: all]", min=1)] = None,
    into: Annotated[Path | None, typer.Option(help="Keep the run in this folder instead of your own runs.", file_okay=False)] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Train by one of five methods, score on held-out examples before and after, and keep the run. The same command goes on with a run that was broken off."""
    compute_in(dtype, device)
    check_out(out)
    from soft_prompt_explorer.trained_prompts.commands import train_and_keep
    from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

    config = TrainingConfig(
        task=task, model=model, method=cast("Method", method), tokens=tokens, steps=steps, batch_size=batch_size,
        learning_rate=learning_rate, init=cast("Init", init), init_text=init_text, seed=seed,
        rank=rank, alpha=alpha, rslora=rslora, targets=tuple(filter(None, (targets or "").split(","))),
        readable=readable, frames=tuple(frame or ()), validate_every=validate_every, patience=patience, template=template,
        dtype=check_dtype(dtype or "auto"), device=device, accumulate=accumulate, checkpointing=checkpointing,
    )  # fmt: skip
    emit(train_and_keep(config, name, limit, into), form, out, seed=seed)


@app.command()
def gallery() -> None:
    """Train the prompts that ship, as far as they are not in trained_prompts/gallery (about ten minutes each on two cores), and look at what each pushes the model towards and which texts do what it does."""
    from soft_prompt_explorer.analysis.core.folders import GALLERY
    from soft_prompt_explorer.trained_prompts.commands import train_and_keep
    from soft_prompt_explorer.trained_prompts.gallery import HELD_OUT, RECIPES

    for name, config in RECIPES.items():
        if not (GALLERY / name).exists():
            print(name, file=sys.stderr)
            train_and_keep(config, name, HELD_OUT, GALLERY)
    from soft_prompt_explorer.trained_prompts.experiments import kept_lens, kept_translations

    with progress_bar() as report:
        kept_lens.look_at(list(RECIPES), report=report)
        kept_translations.put_into_words(list(RECIPES), report=report)


@app.command()
def twins(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of runs of prompt tuning. [default: the gallery]", metavar="NAME...")
    ] = None,
    shuffles: Annotated[str, typer.Option(help="Numbers of the shuffles, with commas between them.")] = "1",
    dtype: DtypeOption = None,
    device: DeviceOption = None,
) -> None:
    """Train each run again on answers dealt out anew among the examples, and keep that beside it: the control for whatever is read in the run."""
    compute_in(dtype, device)
    from soft_prompt_explorer.trained_prompts.experiments import twins
    from soft_prompt_explorer.trained_prompts.runs import store

    runs = store.list_runs().query("method == 'prompt-tuning'")
    names = names or runs.loc[runs["origin"] == "gallery", "name"].tolist()
    with progress_bar() as report:
        twins.make(names, shuffles=_values(shuffles, int), report=report)


@app.command()
def evaluate(
    prompt: Annotated[str, typer.Argument(help="The name of a run, or the path of a soft prompt or a LoRA.", metavar="NAME|PATH")],
    task: Annotated[str, typer.Option(help="See `tasks`; or the path of your own examples.")],
    limit: Annotated[int | None, typer.Option(help="The first so many held-out examples. [default: all]", min=1)] = None,
    template: TemplateOption = None,
    model: Annotated[str | None, typer.Option(help="smollm2-135m, a hub id, a folder or a .gguf file. [default: the prompt's own]")] = None,
    card: Annotated[
        bool, typer.Option("--scorecard", help="Many measures of it alone: also ROUGE, calibration, lower case, typing errors.")
    ] = False,
    bins: Annotated[bool, typer.Option("--calibration", help="How sure it is against how often it is right, in ten bins.")] = False,
    fetch: FetchOption = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Held-out scores of a prompt and of the bare model, with 95 % intervals."""
    compute_in(dtype, device)
    check_out(out)
    if card and bins:
        raise InputError("Give --scorecard or --calibration, not both.")
    from soft_prompt_explorer.analysis.asking import scores as evaluation
    from soft_prompt_explorer.analysis.behaviour.templates import how_asked
    from soft_prompt_explorer.trained_prompts.commands import scores_of

    path = _path_of(prompt, fetch)
    asked = how_asked(path, task, template)
    alone = evaluation.scorecard if card else evaluation.calibration if bins else None
    with progress_bar() as report:
        table = scores_of(path, _name_of(prompt, path), asked.task, model, limit, alone, report)
    emit(table, form, out)
    _say(asked, Path(prompt).name)


@app.command()
def compare(
    task: Annotated[str, typer.Option(help="See `tasks`; or the path of your own examples.")],
    steps: Annotated[int, typer.Option(help="Optimiser steps of each method that learns.")] = 150,
    seed: Annotated[int, typer.Option(help="Determines the initial values and the order of the examples.")] = 0,
    limit: Annotated[int, typer.Option(help="Score on the first so many held-out examples.", min=1)] = 300,
    template: TrainedTemplateOption = None,
    model: Annotated[
        str, typer.Option(envvar=DEFAULT, help="smollm2-135m, gemma3-270m, a hub id, a folder or a .gguf file.")
    ] = "smollm2-135m",
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Zero-shot, prompt engineering, prompt tuning, p-tuning, prefix tuning, LoRA and full fine-tuning on the same examples. Goes on where it was broken off."""
    compute_in(dtype, device)
    check_out(out)
    from soft_prompt_explorer.trained_prompts.experiments.comparison import ComparisonConfig
    from soft_prompt_explorer.trained_prompts.experiments.comparison import compare as comparison

    config = ComparisonConfig(
        task=task, model=model, steps=steps, seed=seed, limit=limit, template=template, dtype=check_dtype(dtype or "auto"), device=device
    )
    asked = config.asked_task()
    from soft_prompt_explorer.analysis.models.weights import load_model

    with progress_bar() as report:
        language_model = load_model(model, dtype=dtype, device=device, report=report)
        table = comparison(config, language_model=language_model, report=report)
    emit(table, form, out, seed=seed)
    print(f"asked: {asked.first_example()}", file=sys.stderr)


@app.command()
def sweep(
    task: Annotated[str, typer.Option(help="See `tasks`; or the path of your own examples.")],
    into: Annotated[
        Path, typer.Option(help="The folder that keeps the cells; the same one goes on with a sweep that was broken off.", file_okay=False)
    ],
    method: Annotated[str, typer.Option(help="prompt-tuning, p-tuning, prefix-tuning or lora.")] = "prompt-tuning",
    tokens: Annotated[str, typer.Option(help="Values with commas between them, as of every option up to --seed.")] = "10",
    init: Annotated[str, typer.Option(help="sample-vocab, random.")] = "sample-vocab",
    readable: Annotated[str, typer.Option(help="γ: how strongly virtual tokens are drawn to words.")] = "0",
    rank: Annotated[str, typer.Option(help="Of LoRA.")] = "8",
    learning_rate: Annotated[str | None, typer.Option(help="[default: the method's own, less where the model's words are short]")] = None,
    seed: Annotated[str, typer.Option(help="Seeds.")] = "0",
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 150,
    batch_size: Annotated[int, typer.Option(help="Examples a step.")] = 8,
    model: Annotated[str, typer.Option(envvar=DEFAULT, help="smollm2-135m, a hub id, a folder or a .gguf file.")] = "smollm2-135m",
    limit: Annotated[int | None, typer.Option(help="Score on the first so many held-out examples. [default: all]", min=1)] = None,
    engine: Annotated[str, typer.Option(help="loky, dask or ray.")] = "loky",
    workers: Annotated[int, typer.Option(help="Cells at once.")] = 1,
    scheduler: Annotated[str | None, typer.Option(help="The address of a Dask or Ray cluster. [default: one on this machine]")] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Train every combination of the values given, each once."""
    compute_in(dtype, device)
    check_out(out)
    from soft_prompt_explorer.trained_prompts.experiments.sweeps import grid
    from soft_prompt_explorer.trained_prompts.experiments.sweeps import sweep as swept
    from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

    axes: dict[str, list[Any]] = {
        "tokens": _values(tokens, int), "init": init.split(","), "readable": _values(readable, float), "rank": _values(rank, int),
        "learning_rate": [None] if learning_rate is None else _values(learning_rate, float), "seed": _values(seed, int),
    }  # fmt: skip
    first = {axis: values[0] for axis, values in axes.items()}
    base = TrainingConfig(
        task=task, model=model, method=cast("Method", method), steps=steps, batch_size=batch_size, dtype=check_dtype(dtype or "auto"),
        device=device, **first,
    )  # fmt: skip
    with progress_bar() as report:
        table = swept(
            grid(base, axes), into, engine=cast("Engine", engine), workers=workers, scheduler=scheduler, limit=limit, report=report
        )
    emit(table, form, out)
    print(f"asked: {base.asked_task().first_example()}", file=sys.stderr)


@app.command()
def trade(
    prompts: Annotated[list[str], typer.Argument(help="Names of runs, or paths, of one task.", metavar="NAME|PATH...")],
    task: Annotated[str, typer.Option(help="See `tasks`; or the path of your own examples.")],
    limit: Annotated[int | None, typer.Option(help="The first so many held-out examples. [default: all]", min=1)] = None,
    model: Annotated[str, typer.Option(envvar=DEFAULT, help="smollm2-135m, a hub id, a folder or a .gguf file.")] = "smollm2-135m",
    fetch: FetchOption = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Score against readability: prompts trained with several --readable, and their words in their place."""
    compute_in(dtype, device)
    check_out(out)
    from soft_prompt_explorer.analysis.adapters import load_soft_prompt
    from soft_prompt_explorer.analysis.behaviour.templates import how_asked, together
    from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
    from soft_prompt_explorer.analysis.models.weights import load_model
    from soft_prompt_explorer.trained_prompts.experiments.trades import trade as traded

    paths = [_path_of(prompt, fetch) for prompt in prompts]
    read = [load_soft_prompt(path, name=_name_of(prompt, path)) for prompt, path in zip(prompts, paths, strict=True)]
    asked = together([how_asked(prompt, task) for prompt in read])
    with progress_bar() as report:
        vocabulary = load_vocabulary(model, report=report)
        for prompt in read:
            prompt.check_width(vocabulary.width, model)
        language_model = load_model(model, report=report)
        table = traded(read, asked.task, vocabulary, language_model=language_model, limit=limit, report=report)
    emit(table, form, out)
    _say(asked, "One of them" if len(read) > 1 else read[0].name)


@app.command()
def cut(
    names: Annotated[list[str] | None, typer.Argument(help="Names of runs of LoRA. [default: the gallery's]", metavar="NAME...")] = None,
    share: Annotated[float, typer.Option(help="Of the ranks that are kept, above 0 and below 1.")] = 0.5,
    limit: Annotated[int | None, typer.Option(help="Score on the first so many held-out examples. [default: all]", min=1)] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """How well LoRAs do at a share of their ranks, kept by their effect on the loss, by their energy and at random."""
    compute_in(dtype, device)
    check_out(out)
    import pandas as pd

    from soft_prompt_explorer.analysis.adapters import load_lora
    from soft_prompt_explorer.analysis.behaviour.templates import own_task
    from soft_prompt_explorer.analysis.core.progress import part
    from soft_prompt_explorer.analysis.models.weights import load_model
    from soft_prompt_explorer.trained_prompts.experiments.truncated import at_a_share
    from soft_prompt_explorer.trained_prompts.runs import store

    runs = store.list_runs().query("method == 'lora'")
    names = names or runs.loc[runs["origin"] == "gallery", "name"].tolist()
    paths = {name: store.adapter_path(name) for name in names}
    loras = {name: load_lora(path) for name, path in paths.items()}
    tables = []
    with progress_bar() as report:
        for i, (name, adapter) in enumerate(loras.items()):
            task, model = own_task(paths[name]), store.own_model(name)
            if task is None or model is None:
                raise InputError(f"It is not known what {name} was trained on; name a run of this machine.")
            language_model = load_model(model, report=report)
            tables.append(
                at_a_share(
                    adapter, paths[name], task, language_model=language_model, share=share, limit=limit,
                    report=part(report, i, len(loras), name),
                )
            )  # fmt: skip
    emit(pd.concat(tables, ignore_index=True), form, out)


@app.command()
def behaviour(
    names: Annotated[list[str] | None, typer.Argument(help="Names of runs. [default: the gallery]", metavar="NAME...")] = None,
    limit: Annotated[int, typer.Option(help="Ask the first so many held-out examples.", min=1)] = 200,
    twins: Annotated[
        bool,
        typer.Option(
            "--twins", help="Judge the twins of these runs instead, which learned nothing but the form of an answer; nothing is kept."
        ),
    ] = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Ask the model about every run's prompt changed in every way, keep that with the run, and print a row a prompt. What is kept is not asked again."""
    compute_in(dtype, device)
    check_out(out)
    from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour
    from soft_prompt_explorer.trained_prompts.runs import store

    runs = store.list_runs()
    of_prompts = runs[runs["method"].isin(["prompt-tuning", "p-tuning"])]
    names = names or of_prompts.loc[of_prompts["origin"] == "gallery", "name"].tolist()
    for name in names:
        store.find(name)
        if name not in of_prompts["name"].tolist():
            raise InputError(f"{name} has no virtual tokens that could be changed; name a run of prompt-tuning or p-tuning.")
    if twins:
        with progress_bar() as report:
            emit(kept_behaviour.of_twins(names, limit=limit, report=report), form, out)
        return
    with progress_bar() as report:
        kept_behaviour.test(names, limit=limit, report=report)
        table = kept_behaviour.summary(names, report=report)
    emit(table, form, out)
    for name in names:
        print(f"{name} was asked: {kept_behaviour.task_of(name).first_example()}", file=sys.stderr)


def _say(asked: Asked, name: str) -> None:
    """How it was asked, on standard error."""
    for sentence in (asked.example(), asked.note(name)):
        if sentence is not None:
            print(sentence, file=sys.stderr)


def _path_of(prompt: str, fetch: bool) -> Path:
    """The path of what is named: a run's, where nothing of that name lies here; of a name of the hub, where it was fetched to."""
    from soft_prompt_explorer.trained_prompts.runs import store

    path = Path(prompt)
    if path.name == prompt and not os.path.exists(path):  # noqa: PTH110 - it never raises, however odd the name
        return store.adapter_path(prompt)
    return path if os.path.exists(path) else place(path, fetch)  # noqa: PTH110


def _name_of(prompt: str, path: Path) -> str:
    """What a prompt is called: as it was named, where it lies in a folder of another name."""
    return (path.name if path.is_dir() else path.stem) if path == Path(prompt) else Path(prompt).name


def _values(text: str, kind: type) -> list:
    try:
        return [kind(value) for value in text.split(",")]
    except ValueError as error:
        raise InputError(f"The values {text!r} are not numbers with commas between them.") from error


app.registered_commands += of_experiments.registered_commands


if __name__ == "__main__":
    run(app)
