"""The command `figure`: one figure for a paper, as PDF or SVG."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from soft_prompt_explorer.analysis.command_input import (
    FetchOption,
    InitialOption,
    TemplateOption,
    one_place,
    read_adapters,
    read_prompts,
    with_weights,
)
from soft_prompt_explorer.analysis.command_line import DeviceOption, DtypeOption, ModelOption, check_folder, new_app, progress_bar
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.provenance import made_by, typed_command
from soft_prompt_explorer.analysis.models.computing import compute_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from soft_prompt_explorer.analysis.adapters import SoftPrompt
    from soft_prompt_explorer.analysis.adapters.places import Place
    from soft_prompt_explorer.analysis.core.progress import Report
    from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
    from soft_prompt_explorer.analysis.prompts.projection import Projection

app = new_app("Figures for a paper.")


class Drawn(StrEnum):
    verdicts = "verdicts"
    interventions = "interventions"
    spectrum = "spectrum"
    map = "map"
    lens = "lens"


@app.command()
def figure(
    what: Annotated[Drawn, typer.Argument(help="What is drawn.")],
    path: Annotated[
        Path, typer.Argument(help="A soft prompt, or a LoRA for spectrum or lens: a file, a folder, a zip, or a name on the hub.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .pdf or .svg.", dir_okay=False)],
    width: Annotated[str, typer.Option(help="Of the figure, in mm, cm or in.")] = "85mm",
    task: Annotated[
        str | None, typer.Option(help="Of interventions: ask the model about this task. [default: what is kept with a run]")
    ] = None,
    limit: Annotated[int, typer.Option(help="With --task: ask the first so many held-out examples.", min=1)] = 200,
    projection: Annotated[str, typer.Option(help="Of map: umap or pca.")] = "umap",
    template: TemplateOption = None,
    initial: InitialOption = None,
    fetch: FetchOption = False,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
) -> None:
    """One figure as PDF or SVG, its text as text, with where it comes from in the file's metadata: the same file as the page's buttons give."""
    compute_in(dtype, device)
    from soft_prompt_explorer.analysis.figures import charts, drawing

    form, millimetres = drawing.form_of(out), drawing.width_of(width)
    check_folder(out)
    at = one_place(path, fetch)
    with progress_bar() as report:
        if what is Drawn.spectrum:
            drawn = _spectrum(at, model, millimetres, report)
        elif what is Drawn.lens:
            drawn = _lens(at, initial, model, millimetres, report)
        else:
            prompts, _, vocabulary = read_prompts([at], model, initial, report)
            if what is Drawn.verdicts:
                import pandas as pd

                from soft_prompt_explorer.analysis.prompts.verdicts import readings

                tables = [readings(prompt, vocabulary, report=report) for prompt in prompts]
                drawn = charts.verdicts(pd.concat(tables, ignore_index=True), width=millimetres)
            elif len(prompts) > 1:
                raise InputError(f"{path} holds {len(prompts)} prompts, and this figure is of one; give a file of that one alone.")
            elif what is Drawn.map:
                drawn = _map(prompts[0], vocabulary, projection, millimetres, report)
            else:
                drawn = _interventions(prompts[0], at, vocabulary, task, limit, template, millimetres, report)
        content = drawing.written(drawn, form, made_by(typed_command()))
    from soft_prompt_explorer.analysis.core.export import write

    write(content, out)
    print(f"Written to {out}", file=sys.stderr)


def _spectrum(at: Place, model: str | None, width: float, report: Report) -> Figure:
    from soft_prompt_explorer.analysis.adapters import load_lora
    from soft_prompt_explorer.analysis.figures import charts
    from soft_prompt_explorer.analysis.loras.ranks import long_form, spectra

    lines = long_form(spectra(with_weights(load_lora(at.path), model, report), report=report)).query("value > 0")
    if not len(lines):
        raise InputError(f"No module of {at.said} was ever trained, so there is no spectrum to draw.")
    return charts.spectrum(lines, width=width)


def _lens(at: Place, initial: list[str] | None, model: str | None, width: float, report: Report) -> Figure:
    from soft_prompt_explorer.analysis.behaviour.kept_lens import kept_with, tell
    from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
    from soft_prompt_explorer.analysis.figures import charts
    from soft_prompt_explorer.analysis.models.weights import load_model

    adapters, _, vocabulary = read_adapters([at], model, initial, report)
    if len(adapters) > 1:
        raise InputError(f"{at.said} holds {len(adapters)} prompts, and this figure is of one; give a file of that one alone.")
    told = kept_with(adapters[0]) if initial is None and model is None else None
    if told is None:
        told = tell(adapters[0], Watch(load_model(vocabulary.model, report=report)), vocabulary, report=report)
    return charts.lens(told.words, width=width)


def _map(prompt: SoftPrompt, vocabulary: Vocabulary, projection: str, width: float, report: Report) -> Figure:
    import pandas as pd

    from soft_prompt_explorer.analysis.figures import charts
    from soft_prompt_explorer.analysis.prompts.clusters import points_of
    from soft_prompt_explorer.analysis.prompts.projection import PROJECTIONS, landmarks, place, vocabulary_map
    from soft_prompt_explorer.analysis.prompts.verdicts import readings

    if projection not in PROJECTIONS:
        raise InputError(f"A map is made by umap or pca, not by {projection[:40]!r}.")
    read = readings(prompt, vocabulary, report=report)
    on = vocabulary_map(vocabulary, projection=cast("Projection", projection), report=report)
    places = pd.DataFrame(place(points_of(prompt, vocabulary, "position"), on, vocabulary), columns=["x", "y"])
    return charts.token_map(on, landmarks(on, vocabulary), read[["prompt", "position", "verdict"]].join(places), width=width)


def _interventions(
    prompt: SoftPrompt, at: Place, vocabulary: Vocabulary, task: str | None, limit: int, template: str | None, width: float, report: Report
) -> Figure:
    from soft_prompt_explorer.analysis.behaviour.changes import check_can_be_changed
    from soft_prompt_explorer.analysis.behaviour.kept import asked
    from soft_prompt_explorer.analysis.behaviour.templates import how_asked
    from soft_prompt_explorer.analysis.figures import charts

    if template is not None and task is None:
        raise InputError("--template says how the examples of a task are asked; give --task too.")
    check_can_be_changed(prompt)
    how = None if task is None else how_asked(at.path, task, template)
    judged = asked(prompt, vocabulary, task=None if how is None else how.task, limit=limit, report=report)
    if judged is None:
        raise InputError(f"Nothing is kept of what the model does with {at.name} changed; name a task with --task, and it is asked.")
    if how is not None:
        print(how.example(), file=sys.stderr)
    return charts.interventions(judged.table, width=width)
