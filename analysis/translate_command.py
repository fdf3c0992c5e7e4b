"""The command `translate`: texts in a prompt's place, and the share of its behaviour that each recovers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soft_prompt_explorer.analysis.command_input import (
    FetchOption,
    InitialOption,
    NameOption,
    TemplateOption,
    lines_of,
    places,
    read_adapters,
)
from soft_prompt_explorer.analysis.command_line import (
    DeviceOption,
    DtypeOption,
    Format,
    FormatOption,
    ModelOption,
    OutOption,
    check_out,
    emit,
    new_app,
    progress_bar,
)
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.remedies import TEMPLATE
from soft_prompt_explorer.analysis.models.computing import compute_in

if TYPE_CHECKING:
    import pandas as pd

    from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
    from soft_prompt_explorer.analysis.behaviour.templates import Asked
    from soft_prompt_explorer.analysis.behaviour.translation_candidates import Inputs

app = new_app("What a prompt does, as text.")


@app.command()
def translate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Soft prompts, prefixes or LoRAs of one model: files, folders, zips, folders of them, globs, or names on the hub.",
            metavar="PATH...",
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(help="A task, or the path of your own examples. [default: what it was trained on, if it was trained here]"),
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="A file of inputs without answers instead, a line each; 12 or more.", exists=True, dir_okay=False)
    ] = None,
    limit: Annotated[int, typer.Option(help="Tell the shares on the first so many held-out inputs.", min=5, max=500)] = 60,
    search: Annotated[int, typer.Option(help="Steps of a search by gradient for a text of ten tokens; some seconds each.", min=0)] = 0,
    verbalise: Annotated[
        bool, typer.Option("--verbalise", help="Try what the model writes of the prompt too; half a minute more.")
    ] = False,
    also: Annotated[
        str | None, typer.Option(help="Score the best text on this model too, with the task's answers: gemma3-270m, a hub id, a folder, ….")
    ] = None,
    template: TemplateOption = None,
    initial: InitialOption = None,
    names: NameOption = None,
    fetch: FetchOption = False,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Texts in the prompt's place, and the share of its behaviour that each recovers, beside controls. Each row is told on standard error as it is made."""
    compute_in(dtype, device)
    check_out(out)
    import pandas as pd

    from soft_prompt_explorer.analysis.behaviour.translation import best_text, carry, copied, sentence
    from soft_prompt_explorer.analysis.behaviour.translation import translate as texts_in_place
    from soft_prompt_explorer.analysis.models.names import resolve_model
    from soft_prompt_explorer.analysis.models.weights import load_model

    if task is not None and inputs is not None:
        raise InputError("Give either --task or --inputs, not both.")
    if also is not None:
        if inputs is not None:
            raise InputError("--also scores a text by a task's answers, and --inputs has none; give --task.")
        resolve_model(also)  # one that is not installed is refused before the work
    where = places(paths, names, fetch)
    tables = []
    with progress_bar() as report:
        adapters, said, vocabulary = read_adapters(where, model, initial, report)
        asked = [_asked(adapter, task, inputs, template, limit) for adapter in adapters]
        language_model = load_model(vocabulary.model, report=report)
        for adapter, path, (how, given) in zip(adapters, said, asked, strict=True):
            tables.append(
                texts_in_place(
                    adapter, language_model, vocabulary, given, path=path, trained_on=how.task.name if how else None, search=search,
                    verbalised=verbalise, report=report, row_made=_tell,
                )
            )  # fmt: skip
    emit(pd.concat(tables, ignore_index=True), form, out)
    for example in dict.fromkeys(how.example() for how, given in asked if how is not None and given.task is not None):
        print(example, file=sys.stderr)
    for adapter, table, (how, given) in zip(adapters, tables, asked, strict=True):
        if how is not None and (note := how.note(adapter.name)) is not None:
            print(note, file=sys.stderr)
        print(sentence(table), file=sys.stderr)
        best = best_text(table)
        if also is not None and given.task is not None and best is not None:
            with progress_bar() as report:
                scores = carry(copied(best["text"]), given.task, also, limit=limit, report=report)
            without, carried = (
                f"{row['score']:.3f} ({row['low']:.3f} to {row['high']:.3f})" for row in scores[["score", "low", "high"]].to_dict("records")
            )
            measure, n = scores["measure"].iloc[0], scores["n"].iloc[0]
            print(f"On {also}, {best['candidate']} as text: {measure} {carried}, without it {without}, n = {n}.", file=sys.stderr)


def _asked(
    adapter: SoftPrompt | LoraAdapter, task: str | None, inputs: Path | None, template: str | None, limit: int
) -> tuple[Asked | None, Inputs]:
    """How the adapter is asked, where it is asked about a task or its own is known, and with which inputs."""
    from soft_prompt_explorer.analysis.behaviour.templates import Asked, as_trained, how_asked
    from soft_prompt_explorer.analysis.behaviour.translation_candidates import inputs_of_lines, inputs_of_task
    from soft_prompt_explorer.analysis.tasks.task import checked_template

    own = as_trained(adapter)
    known = own if own is None or template is None else Asked(own.task.asked_with(template), known=True)
    if inputs is None:
        asked = how_asked(adapter, task, template) if task is not None else known
        if asked is None:
            raise InputError(f"It is not known what {adapter.name} was trained on; give --task, or --inputs with --template.")
        return asked, inputs_of_task(asked.task, limit=limit)
    if template is None and known is None:
        raise InputError(f"It is not known with which template {adapter.name} was trained;", remedy=TEMPLATE)
    used = checked_template(template) if template is not None else known.task.template if known is not None else ""
    return known, inputs_of_lines(lines_of(inputs, "inputs"), used, name=inputs.name, limit=limit)


def _tell(table: pd.DataFrame) -> None:
    from tqdm import tqdm

    row = table.iloc[-1]
    told = f"{row['candidate']}: {row['share']:.2f} ({row['share_low']:.2f} to {row['share_high']:.2f}) recovered"
    tqdm.write(told, file=sys.stderr)
