"""The commands `benchmark` and `sizes`: experiments that ship with what came of them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

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
)
from soft_prompt_explorer.analysis.models.computing import compute_in

app = new_app("Experiments that ship.")


@app.command()
def benchmark(
    reading: Annotated[
        str | None,
        typer.Option(
            help="A reading of your own alone, module:function; it takes an adapter, the vocabulary and the model, and answers a score a word or a task."
        ),
    ] = None,
    make: Annotated[bool, typer.Option("--make", help="First train the adapters of known truth that are missing: minutes each.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Read all adapters again with the readings that ship, and keep what came of it.")
    ] = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """How well each reading names what was learned, asked of adapters of which that is known."""
    compute_in(dtype, device)
    check_out(out)
    from soft_prompt_explorer.trained_prompts.experiments import benchmark as of_readings
    from soft_prompt_explorer.trained_prompts.experiments import known_truth
    from soft_prompt_explorer.trained_prompts.experiments.compared_readings import READINGS

    with progress_bar() as report:
        if make:
            known_truth.make(report=report)
        if reading is not None:
            sys.path.append("")  # a module in the folder that a person is in; last, so that it stands for none that is installed
            scores = of_readings.task_scores({reading: of_readings.reading_of(reading)}, report=report)
        elif again:
            scores = of_readings.task_scores(READINGS, report=report)
            of_readings.keep(scores)
        else:
            scores = of_readings.kept_scores()
    emit(of_readings.summary(scores), form, out)


@app.command()
def sizes(
    make: Annotated[
        bool,
        typer.Option(
            "--make", help="First ask and train what is missing: on two cores minutes a row, of the largest model a quarter of an hour."
        ),
    ] = False,
    model: Annotated[list[str] | None, typer.Option(help="Make rows of this model alone; can be given several times.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Make rows of this task alone; can be given several times.")] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Score against the model's size, of prompts in words and of what is trained: the picture of Lester et al. 2021, measured here."""
    compute_in(dtype, device)
    check_out(out)
    from soft_prompt_explorer.analysis.core.errors import InputError
    from soft_prompt_explorer.trained_prompts.experiments import sizes as of_sizes

    table = of_sizes.kept()
    if (model or task) and not make:
        raise InputError("--model and --task choose what --make makes; give it too, or leave them out.")
    if make:
        with progress_bar() as report:
            table = of_sizes.make(model or of_sizes.MODELS, task or of_sizes.ASKED, report=report)
    emit(of_sizes.summary(table), form, out)
