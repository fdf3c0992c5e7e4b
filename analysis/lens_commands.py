"""The commands that ask for no task: `lens`, what an adapter pushes the model towards, and `effect`, whether it does anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soft_prompt_explorer.analysis.command_input import FetchOption, InitialOption, NameOption, lines_of, places, read_adapters
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
from soft_prompt_explorer.analysis.models.computing import compute_in

if TYPE_CHECKING:
    from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
    from soft_prompt_explorer.analysis.core.progress import Report

NO_EFFECT = 3  # the exit status of `effect --check`

PathsArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Soft prompts, prefixes or LoRAs of one model: files, folders, zips, folders of them, globs, or names on the hub.",
        metavar="PATH...",
    ),
]
SentencesOption = Annotated[
    Path | None,
    typer.Option(
        help="A file of texts to look at the model with, a line each; one that ends with a colon is read at its end, any other all along. [default: those that ship]",
        exists=True,
        dir_okay=False,
    ),
]

app = new_app("What an adapter does, without a task.")


@app.command()
def lens(
    paths: PathsArgument,
    sentences: SentencesOption = None,
    layer: Annotated[int | None, typer.Option(help="Read the state after this layer. [default: the last one]")] = None,
    top_k: Annotated[int, typer.Option(help="Words for each adapter.", min=1)] = 20,
    initial: InitialOption = None,
    names: NameOption = None,
    fetch: FetchOption = False,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """The words that an adapter pushes the model towards on texts that have nothing to do with its task, beside adapters that know nothing."""
    compute_in(dtype, device)
    check_out(out)
    from soft_prompt_explorer.analysis.behaviour.difference_lens import lens as words_pushed
    from soft_prompt_explorer.analysis.behaviour.others import changes_at_hand

    where = places(paths, names, fetch)
    with progress_bar() as report:
        adapters, said, vocabulary = read_adapters(where, model, initial, report)
        watch = _watch(vocabulary.model, sentences, report)
        others = changes_at_hand(watch, vocabulary, report=report)
        table = words_pushed(adapters, watch, vocabulary, paths=said, layer=layer, top_k=top_k, others=others, report=report)
    emit(table, form, out)
    for sentence in dict.fromkeys(others.beside(adapter).sentence for adapter in adapters):
        print(sentence, file=sys.stderr)


@app.command()
def effect(
    paths: PathsArgument,
    sentences: SentencesOption = None,
    check: Annotated[bool, typer.Option("--check", help=f"Status {NO_EFFECT} where one changes no more than chance.")] = False,
    junit: Annotated[
        Path | None, typer.Option(help="Write a JUnit report for continuous integration to this file too.", dir_okay=False)
    ] = None,
    initial: InitialOption = None,
    names: NameOption = None,
    fetch: FetchOption = False,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Does an adapter do anything? How far it moves what the model would say next on unrelated texts, beside adapters of its size that know nothing."""
    compute_in(dtype, device)
    check_out(out)
    from soft_prompt_explorer.analysis.behaviour.beyond_chance import effect as changes
    from soft_prompt_explorer.analysis.behaviour.beyond_chance import is_beyond_chance, junit_report, sentence
    from soft_prompt_explorer.analysis.core.export import write

    where = places(paths, names, fetch)
    with progress_bar() as report:
        adapters, said, vocabulary = read_adapters(where, model, initial, report)
        table = changes(adapters, _watch(vocabulary.model, sentences, report), vocabulary, paths=said, report=report)
    emit(table, form, out)
    for _, row in table.iterrows():
        print(sentence(row), file=sys.stderr)
    if junit is not None:
        write(junit_report(table), junit)
    if check and not is_beyond_chance(table).all():
        raise SystemExit(NO_EFFECT)


def _watch(model: str, sentences: Path | None, report: Report) -> Watch:
    from soft_prompt_explorer.analysis.behaviour.unrelated import TEXTS, Watch
    from soft_prompt_explorer.analysis.models.weights import load_model

    texts = TEXTS if sentences is None else lines_of(sentences, "texts")
    return Watch(load_model(model, report=report), texts)
