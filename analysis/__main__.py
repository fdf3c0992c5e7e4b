"""The command line: `python -m analysis inspect | lens | effect | translate | neighbours | readings | trajectory | direction | clusters | similarity | spectra | behaviour | report | batch | figure | export | prepare`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from soft_prompt_explorer.analysis.batch_command import app as of_batches
from soft_prompt_explorer.analysis.command_input import (
    FetchOption,
    InitialOption,
    NameOption,
    TemplateOption,
    against_one_vocabulary,
    place,
    places,
    read,
    read_prompts,
    several,
    together,
    with_weights,
)
from soft_prompt_explorer.analysis.command_line import (
    DeviceOption,
    DtypeOption,
    Format,
    FormatOption,
    ModelOption,
    OutOption,
    check_out,
    check_page,
    emit,
    leave_out,
    new_app,
    progress_bar,
    run,
    show_rows,
)
from soft_prompt_explorer.analysis.core.errors import AdapterError, InputError
from soft_prompt_explorer.analysis.core.words import listed, printable
from soft_prompt_explorer.analysis.export_command import app as of_exports
from soft_prompt_explorer.analysis.figure_command import app as of_figures
from soft_prompt_explorer.analysis.lens_commands import app as of_the_lens
from soft_prompt_explorer.analysis.likeness_commands import app as of_likeness
from soft_prompt_explorer.analysis.models.computing import compute_in
from soft_prompt_explorer.analysis.prompts.metrics import METRICS
from soft_prompt_explorer.analysis.translate_command import app as of_translation

if TYPE_CHECKING:
    import pandas as pd

    from soft_prompt_explorer.analysis.adapters import LoraAdapter
    from soft_prompt_explorer.analysis.adapters.places import Place
    from soft_prompt_explorer.analysis.core.progress import Report
    from soft_prompt_explorer.analysis.prompts.metrics import MetricName
    from soft_prompt_explorer.analysis.report.page import PromptReport

app = new_app("Read soft prompts: what is each virtual token near to, in the vocabulary?")
for part in (of_the_lens, of_translation, of_likeness, of_batches, of_figures, of_exports):
    app.registered_commands += part.registered_commands


@app.callback()
def main() -> None:
    """Read soft prompts: what is each virtual token near to, in the vocabulary?"""


@app.command()
def inspect(
    paths: Annotated[
        list[Path], typer.Argument(help="Adapters: files, folders, zips, folders of them, globs, or names on the hub.", metavar="PATH...")
    ],
    fetch: FetchOption = False,
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """What is in these files. A file that is refused keeps its row, the notes say why, and the status is 2."""
    check_out(out)
    from soft_prompt_explorer.analysis.report.inspection import COLUMNS, rows_of, table_of

    where = places(paths, None, fetch)
    with progress_bar() as report:
        rows = rows_of([each.path for each in where], model=model, report=report)
    rows = [row | {"path": printable(each.said)} for row, each in zip(rows, where, strict=True)]
    refused = [row for row in rows if "kind" not in row]
    if len(rows) == len(refused) == 1:
        raise InputError(refused[0]["notes"])
    if form is Format.table and out is None:
        show_rows(rows, COLUMNS)
    else:
        emit(table_of(rows), form, out)
    if refused:
        raise InputError(f"{len(refused)} of {len(rows)} were refused; their notes say why.")


@app.command()
def neighbours(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Soft prompts: files, folders, zips, folders of them, globs, or names on the hub.", metavar="PATH..."),
    ],
    metric: Annotated[str, typer.Option(help=" ".join(f"{name}: {each.says}" for name, each in METRICS.items()))] = "centred",
    top_k: Annotated[int, typer.Option(help="Words for each virtual token.")] = 10,
    exclude_special: Annotated[bool, typer.Option("--exclude-special", help="Leave out control and unused tokens.")] = False,
    whole_words: Annotated[bool, typer.Option("--whole-words", help="Only tokens that are a whole word.")] = False,
    script: Annotated[str | None, typer.Option(help="Only words of this script: Latin, Cyrillic, Arabic, Han, CJK, …")] = None,
    contextual: Annotated[
        bool,
        typer.Option("--contextual", help="What the model makes of each token, beside what it makes of words in sentences: another table."),
    ] = False,
    names: NameOption = None,
    fetch: FetchOption = False,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """The nearest vocabulary words of each virtual token, exactly."""
    compute_in(dtype, device)
    check_out(out)
    if contextual:
        given = {"--metric": metric != "centred", "--exclude-special": exclude_special, "--whole-words": whole_words, "--script": script}
        if unfit := [option for option, is_given in given.items() if is_given]:
            raise InputError(
                f"With --contextual all states of words in sentences are compared, by their centred cosine; leave {listed(unfit)} out."
            )
        _contextual(places(paths, names, fetch), top_k, model, form, out)
        return
    from soft_prompt_explorer.analysis.prompts.search import neighbours as nearest_words

    options: dict[str, Any] = {"exclude_special": exclude_special, "whole_words": whole_words, "script": script}
    where = places(paths, names, fetch)
    with progress_bar() as report:
        prompts, said, vocabulary = read_prompts(where, model, None, report)
        tables = [
            nearest_words(prompt, vocabulary, metric=cast("MetricName", metric), top_k=top_k, **options, report=report)
            for prompt in prompts
        ]
    emit(together(tables, said, where), form, out)


def _contextual(where: list[Place], top_k: int, model: str | None, form: Format, out: Path | None) -> None:
    from soft_prompt_explorer.analysis.behaviour import contextual
    from soft_prompt_explorer.analysis.models.weights import load_model

    if top_k < 1:  # before a model is loaded for it
        raise InputError(f"At least one neighbour has to be asked for, not {top_k}.")
    with progress_bar() as report:
        prompts, said, vocabulary = read_prompts(where, model, None, report)
        language_model = load_model(vocabulary.model, report=report)
        index = contextual.index_of(language_model, vocabulary, report=report)
        tables = [
            contextual.contextual_neighbours(prompt, language_model, vocabulary, top_k=top_k, index=index, report=report)
            for prompt in prompts
        ]
    emit(together(tables, said, where), form, out)
    for table in tables:
        print(contextual.sentence(table), file=sys.stderr)


@app.command()
def readings(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Soft prompts: files, folders, zips, folders of them, globs, or names on the hub.", metavar="PATH..."),
    ],
    initial: InitialOption = None,
    names: NameOption = None,
    fetch: FetchOption = False,
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """A verdict for each virtual token: is its nearest word real, chance, or an echo of the initialisation?"""
    check_out(out)
    from soft_prompt_explorer.analysis.prompts.verdicts import readings as verdicts

    where = places(paths, names, fetch)
    with progress_bar() as report:
        prompts, said, vocabulary = read_prompts(where, model, initial, report)
        tables = [verdicts(prompt, vocabulary, report=report) for prompt in prompts]
    emit(together(tables, said, where), form, out)


@app.command()
def trajectory(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Runs, or folders that a training script wrote to: with a recorded trajectory, or with folders checkpoint-STEP.",
            metavar="PATH...",
        ),
    ],
    names: NameOption = None,
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Where each virtual token was while it was learned: its nearest word and its way from the start, snapshot by snapshot."""
    check_out(out)
    from soft_prompt_explorer.analysis.adapters.places import folders_of
    from soft_prompt_explorer.analysis.adapters.recorded import last_of, trajectory_of
    from soft_prompt_explorer.analysis.prompts.trajectories import trajectory as way

    where = folders_of(paths, names=names or ())
    tables = []
    with progress_bar() as report:
        for each in where:
            steps, embeddings = trajectory_of(each.path)
            (prompt, *_), _, vocabulary = read_prompts([replace(each, path=last_of(each.path), found=False)], model, None, report)
            tables.append(way(prompt, steps, embeddings, vocabulary))
    emit(together(tables, [each.said for each in where], where), form, out)


@app.command()
def spectra(
    paths: Annotated[
        list[Path], typer.Argument(help="LoRAs: files, folders, zips, folders of them, globs, or names on the hub.", metavar="PATH...")
    ],
    base: Annotated[
        str | None, typer.Option(help="Compare with this model's weights too: smollm2-135m, a hub id, a folder or a .gguf file.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="Compare with another LoRA instead: which directions the two share.")] = None,
    truncate: Annotated[
        float | None, typer.Option(help="Keep the fewest ranks that hold this share of each module's energy, for instance 0.95.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="The new folder that --truncate writes PEFT's files to.")] = None,
    effect: Annotated[
        str | None,
        typer.Option(
            help="Measure each singular direction's effect on the loss of this task's training examples, by one backward pass: another table. With --truncate, keep by it: of all modules together "
            "the fewest directions that hold this share of the effect.",
            metavar="TASK",
        ),
    ] = None,
    examples: Annotated[int, typer.Option(help="With --effect: of so many training examples.", min=1)] = 64,
    named: Annotated[
        str | None, typer.Option("--adapter", help="Of a file that holds several adapters, the one of this name. [default: its first]")
    ] = None,
    model: Annotated[str | None, typer.Option(help="With --effect: the model that is asked. [default: the adapter's own]")] = None,
    names: NameOption = None,
    fetch: FetchOption = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """The rank spectrum of every module of a LoRA: how many of its ranks it really uses. Of several LoRAs the columns adapter and path say whose a row is."""
    compute_in(dtype, device)
    check_out(out)
    from soft_prompt_explorer.analysis.adapters import load_lora, lora_of

    if sum(option is not None for option in (base, against, truncate)) > 1 or (effect is not None and (base or against)):
        raise InputError("Give one of --base, --against and --truncate at a time; --effect goes with --truncate alone.")
    if (truncate is None) != (save is None):
        raise InputError("--truncate and --save go together: the share of the energy, and the new folder for the smaller LoRA.")
    where = places(paths, names, fetch)
    if save is not None and several(where):
        raise InputError("One LoRA is truncated at a time; give one PATH.")
    adapters = [(each, adapter.named(named)) for each, adapter in read(where, lora_of)]
    tables: list[pd.DataFrame] = []
    said: list[str] = []
    with progress_bar() as report:
        other = None if against is None else with_weights(load_lora(place(against, fetch)), None, report)
        for each, adapter in adapters:
            if other is not None:
                from soft_prompt_explorer.analysis.loras.subspaces import against as compare

                table = compare(with_weights(adapter, None, report), other, report=report)
            elif effect is not None:
                from soft_prompt_explorer.analysis.lora_command import by_effect

                table = by_effect(adapter, each.path, effect, examples, model, truncate, save, report)
            elif truncate is not None and save is not None:
                from soft_prompt_explorer.analysis.loras.truncation import truncate as cut

                table = cut(adapter, truncate, save, report=report)
            else:
                try:
                    table = _spectra(adapter, base, report)
                except AdapterError as error:  # a factor of no numbers is found where it is read
                    if not each.found or (not tables and each is adapters[-1][0]):
                        raise
                    leave_out(error)
                    continue
            tables.append(table.assign(adapter=each.name) if several(where) else table)
            said.append(each.said)
    emit(together(tables, said, where), form, out)
    if save is not None:
        from soft_prompt_explorer.analysis.loras.truncation import keeps_names

        if not keeps_names(adapters[0][1]):
            print(
                f"For its accuracy: {shlex.join(['python', '-m', 'trained_prompts', 'evaluate', str(save)])} --task TASK", file=sys.stderr
            )


def _spectra(adapter: LoraAdapter, base: str | None, report: Report) -> pd.DataFrame:
    """The spectra of one LoRA, beside a base model where one is named; what is unhealthy goes to standard error."""
    from soft_prompt_explorer.analysis.loras.ranks import health
    from soft_prompt_explorer.analysis.loras.ranks import spectra as all_spectra

    if base is not None:
        adapter = with_weights(adapter, base, report)
    table = all_spectra(adapter, report=report)
    for row in health(adapter, table).itertuples():
        print(f"{row.problem}{f', {row.module}' if row.module else ''}: {row.says}", file=sys.stderr)
    if base is None:
        return table
    from soft_prompt_explorer.analysis.loras.base_weights import NO_WEIGHT, against_base

    beside = against_base(adapter, base, report=report)
    lacking = int((beside["problem"] == NO_WEIGHT).sum())
    if lacking:
        print(
            f"{lacking} of the {len(beside)} modules have no weight of their name and shape in {base}, so nothing stands beside them.",
            file=sys.stderr,
        )
    for row in beside[beside["problem"].notna() & (beside["problem"] != NO_WEIGHT)].itertuples():
        print(f"Nothing stands beside {row.module}: {row.problem}", file=sys.stderr)
    return table.merge(beside, on="module")


@app.command()
def behaviour(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Soft prompts: files, folders, zips, folders of them, globs, or names on the hub.", metavar="PATH..."),
    ],
    task: Annotated[str, typer.Option(help="A task of trained_prompts, or the path of your own examples.")],
    limit: Annotated[int, typer.Option(help="Ask the first so many held-out examples.", min=1)] = 200,
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
    """What the model does with the prompt changed: does the reading explain the behaviour? The verdict goes to standard error."""
    compute_in(dtype, device)
    check_out(out)
    from soft_prompt_explorer.analysis.behaviour.changes import check_can_be_changed
    from soft_prompt_explorer.analysis.behaviour.of_task import behave, examples_of, judged
    from soft_prompt_explorer.analysis.behaviour.templates import how_asked
    from soft_prompt_explorer.analysis.models.weights import load_model
    from soft_prompt_explorer.analysis.tasks.finding import get_task

    get_task(task, template)
    where = places(paths, names, fetch)
    with progress_bar() as report:
        prompts, said, vocabulary = read_prompts(where, model, initial, report)
        for prompt in prompts:  # before a model is loaded for it
            check_can_be_changed(prompt)
        asked = [how_asked(prompt, task, template) for prompt in prompts]
        language_model = load_model(vocabulary.model, report=report)
        tables, verdicts = [], []
        for prompt, how in zip(prompts, asked, strict=True):
            examples = examples_of(how.task, language_model, limit=limit)
            tables.append(behave(prompt, vocabulary, examples, how.task, report=report))
            verdicts.append(judged(prompt, vocabulary, how.task, tables[-1], report=report).verdict)
    emit(together(tables, said, where), form, out)
    for example in dict.fromkeys(how.example() for how in asked):
        print(example, file=sys.stderr)
    for prompt, how, verdict in zip(prompts, asked, verdicts, strict=True):
        if (note := how.note(prompt.name)) is not None:
            print(note, file=sys.stderr)
        print(f"{prompt.name}: {how.said(verdict).sentence}", file=sys.stderr)


@app.command()
def report(
    paths: Annotated[list[Path], typer.Argument(help="Soft prompts of one model, and LoRAs.", metavar="PATH...")],
    out: Annotated[Path, typer.Option("--out", help="The page to write: a file that ends in .html.", dir_okay=False)],
    task: Annotated[
        str | None, typer.Option(help="Ask the model about the prompts on this task. [default: what is kept with a run, if anything]")
    ] = None,
    limit: Annotated[int, typer.Option(help="With --task: ask the first so many held-out examples.", min=1)] = 200,
    template: TemplateOption = None,
    initial: InitialOption = None,
    names: NameOption = None,
    fetch: FetchOption = False,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
) -> None:
    """Everything that is known of some adapters as one HTML page, the verdict on top."""
    compute_in(dtype, device)
    check_page(out)
    from soft_prompt_explorer.analysis.adapters import SoftPrompt, distinct
    from soft_prompt_explorer.analysis.behaviour.changes import check_can_be_changed
    from soft_prompt_explorer.analysis.behaviour.kept import asked
    from soft_prompt_explorer.analysis.behaviour.templates import as_trained, how_asked
    from soft_prompt_explorer.analysis.core.export import write
    from soft_prompt_explorer.analysis.core.provenance import made_by, typed_command
    from soft_prompt_explorer.analysis.report.page import html, of_lora, of_prompt
    from soft_prompt_explorer.analysis.tasks.finding import get_task

    if template is not None and task is None:
        raise InputError("--template says how the examples of a task are asked; give --task too.")
    if task is not None:
        get_task(task, template)
    adapters = [adapter for _, adapter in read(places(paths, names, fetch), lambda adapter: adapter)]
    prompts = distinct([adapter for adapter in adapters if isinstance(adapter, SoftPrompt)])
    loras = [adapter for adapter in adapters if not isinstance(adapter, SoftPrompt)]
    of_prompts: list[PromptReport] = []
    with progress_bar() as progress:
        vocabulary = None
        if prompts:
            prompts, vocabulary = against_one_vocabulary(prompts, model, initial, progress)
            if task is not None:  # one that cannot be asked is refused before the others are
                for prompt in prompts:
                    check_can_be_changed(prompt)
            for prompt in prompts:
                how = as_trained(prompt) if task is None else how_asked(prompt, task, template)
                behaved = asked(prompt, vocabulary, task=None if task is None or how is None else how.task, limit=limit, report=progress)
                told = how.of_report(behaved, prompt.name) if how is not None and behaved is not None else {}
                of_prompts.append(of_prompt(prompt, vocabulary, **told, report=progress))
        page = html(
            [*of_prompts, *(of_lora(with_weights(adapter, model, progress), report=progress) for adapter in loras)],
            vocabulary,
            made=made_by(typed_command()),
            report=progress,
        )
    write(page.encode(), out)
    for part in of_prompts:
        if part.example is not None:
            print(f"{part.prompt.name} was {part.example}", file=sys.stderr)
        if part.note is not None:
            print(part.note, file=sys.stderr)
        print(
            f"{part.prompt.name}: {part.asked.verdict.sentence if part.asked else 'the model was not asked; --task asks it.'}",
            file=sys.stderr,
        )
    print(f"Written to {out}", file=sys.stderr)


@app.command()
def prepare(model: Annotated[str, typer.Argument(help="smollm2-135m, a hub id, a folder or a .gguf file.")] = "smollm2-135m") -> None:
    """Make a model, its vocabulary, the null and the readings of what ships ready, once; the other commands do it when they need to."""
    from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
    from soft_prompt_explorer.analysis.models.weights import is_prepared, prepare_model
    from soft_prompt_explorer.analysis.prompts.null import null_of
    from soft_prompt_explorer.analysis.prompts.shipped import read_all

    with progress_bar() as report:
        if not is_prepared(model):
            prepare_model(model, report=report)
        vocabulary = load_vocabulary(model, report=report)
        null_of(vocabulary, report=report)
        read_all(vocabulary, report=report)


if __name__ == "__main__":
    run(app)
