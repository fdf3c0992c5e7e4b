"""The command line: `python -m analysis inspect | lens | effect | translate | neighbours | readings | trajectory | direction | clusters | similarity | spectra | behaviour | report | batch | figure | export | prepare`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from soft_prompt_explorer.analysis.batch_command import app as of_batches
from soft_prompt_explorer.analysis.command_input import InitialOption, TemplateOption, against_one_vocabulary, read_prompts, with_weights
from soft_prompt_explorer.analysis.command_line import (
    Format,
    FormatOption,
    ModelOption,
    OutOption,
    check_out,
    check_page,
    emit,
    new_app,
    progress_bar,
    run,
)
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.words import listed
from soft_prompt_explorer.analysis.export_command import app as of_exports
from soft_prompt_explorer.analysis.figure_command import app as of_figures
from soft_prompt_explorer.analysis.lens_commands import app as of_the_lens
from soft_prompt_explorer.analysis.prompts.metrics import METRICS
from soft_prompt_explorer.analysis.translate_command import app as of_translation

if TYPE_CHECKING:
    from soft_prompt_explorer.analysis.prompts.clusters import Method, Space
    from soft_prompt_explorer.analysis.prompts.metrics import MetricName
    from soft_prompt_explorer.analysis.report.page import PromptReport

app = new_app("Read soft prompts: what is each virtual token near to, in the vocabulary?")
for other in (of_the_lens, of_translation, of_batches, of_figures, of_exports):
    app.registered_commands += other.registered_commands


@app.callback()
def main() -> None:
    """Read soft prompts: what is each virtual token near to, in the vocabulary?"""


@app.command()
def inspect(
    paths: Annotated[list[Path], typer.Argument(help="Adapter files, folders or zips.", metavar="PATH...")],
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """What is in these files. A file that is refused keeps its row, the notes say why, and the status is 2."""
    check_out(out)
    from soft_prompt_explorer.analysis.report.inspection import inspect as inspect_files

    with progress_bar() as report:
        table = inspect_files(paths, model=model, report=report)
    refused = table[table["kind"].isna()]
    if len(table) == len(refused) == 1:
        raise InputError(refused["notes"].iloc[0])
    emit(table, form, out)
    if len(refused):
        raise InputError(f"{len(refused)} of {len(table)} were refused; their notes say why.")


@app.command()
def neighbours(
    path: Annotated[Path, typer.Argument(help="A soft prompt: a file, a folder or a zip.")],
    metric: Annotated[str, typer.Option(help=f"{listed(list(METRICS), 'or')}.")] = "centred",
    top_k: Annotated[int, typer.Option(help="Words for each virtual token.")] = 10,
    exclude_special: Annotated[bool, typer.Option("--exclude-special", help="Leave out control and unused tokens.")] = False,
    whole_words: Annotated[bool, typer.Option("--whole-words", help="Only tokens that are a whole word.")] = False,
    script: Annotated[str | None, typer.Option(help="Only words of this script: Latin, Cyrillic, Arabic, Han, CJK, …")] = None,
    contextual: Annotated[
        bool,
        typer.Option("--contextual", help="What the model makes of each token, beside what it makes of words in sentences: another table."),
    ] = False,
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """The nearest vocabulary words of each virtual token, exactly."""
    check_out(out)
    if contextual:
        given = {"--metric": metric != "centred", "--exclude-special": exclude_special, "--whole-words": whole_words, "--script": script}
        if unfit := [option for option, is_given in given.items() if is_given]:
            raise InputError(
                f"With --contextual all states of words in sentences are compared, by their centred cosine; leave {listed(unfit)} out."
            )
        _contextual(path, top_k, model, form, out)
        return
    import pandas as pd

    from soft_prompt_explorer.analysis.prompts.search import neighbours as nearest_words

    options: dict[str, Any] = {"exclude_special": exclude_special, "whole_words": whole_words, "script": script}
    with progress_bar() as report:
        prompts, vocabulary = read_prompts([path], model, None, report)
        tables = [
            nearest_words(prompt, vocabulary, metric=cast("MetricName", metric), top_k=top_k, **options, report=report)
            for prompt in prompts
        ]
    emit(pd.concat(tables, ignore_index=True), form, out)


def _contextual(path: Path, top_k: int, model: str | None, form: Format, out: Path | None) -> None:
    import pandas as pd

    from soft_prompt_explorer.analysis.behaviour import contextual
    from soft_prompt_explorer.analysis.models.weights import load_model

    if top_k < 1:  # before a model is loaded for it
        raise InputError(f"At least one neighbour has to be asked for, not {top_k}.")
    with progress_bar() as report:
        prompts, vocabulary = read_prompts([path], model, None, report)
        language_model = load_model(vocabulary.model, report=report)
        index = contextual.index_of(language_model, vocabulary, report=report)
        tables = [
            contextual.contextual_neighbours(prompt, language_model, vocabulary, top_k=top_k, index=index, report=report)
            for prompt in prompts
        ]
    emit(pd.concat(tables, ignore_index=True), form, out)
    for table in tables:
        print(contextual.sentence(table), file=sys.stderr)


@app.command()
def readings(
    path: Annotated[Path, typer.Argument(help="A soft prompt: a file, a folder or a zip.")],
    initial: InitialOption = None,
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """A verdict for each virtual token: is its nearest word real, chance, or an echo of the initialisation?"""
    check_out(out)
    import pandas as pd

    from soft_prompt_explorer.analysis.prompts.verdicts import readings as verdicts

    with progress_bar() as report:
        prompts, vocabulary = read_prompts([path], model, initial, report)
        tables = [verdicts(prompt, vocabulary, report=report) for prompt in prompts]
    emit(pd.concat(tables, ignore_index=True), form, out)


@app.command()
def trajectory(
    path: Annotated[
        Path,
        typer.Argument(
            help="A run, or the folder that a training script wrote to: with a recorded trajectory, or with folders checkpoint-STEP."
        ),
    ],
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Where each virtual token was while it was learned: its nearest word and its way from the start, snapshot by snapshot."""
    check_out(out)
    from soft_prompt_explorer.analysis.adapters.recorded import last_of, trajectory_of
    from soft_prompt_explorer.analysis.prompts.trajectories import trajectory as way

    with progress_bar() as report:
        steps, embeddings = trajectory_of(path)
        (prompt, *_), vocabulary = read_prompts([last_of(path)], model, None, report)
        table = way(prompt, steps, embeddings, vocabulary)
    emit(table, form, out)


@app.command()
def direction(
    paths: Annotated[list[Path], typer.Argument(help="Soft prompts of one task.", metavar="PATH...")],
    task: Annotated[str | None, typer.Option(help="A task of trained_prompts, whose label or target words are tested.")] = None,
    words: Annotated[
        str | None,
        typer.Option(help="Words to test instead, with commas between them; each has to be one token, with a space before it or without."),
    ] = None,
    initial: InitialOption = None,
    top_k: Annotated[int, typer.Option(help="Words to print.")] = 20,
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """What the displacements of one or several prompts share, and the words that it points at."""
    check_out(out)
    from soft_prompt_explorer.analysis.models.words import told, typed_words
    from soft_prompt_explorer.analysis.prompts.directions import direction as shared_direction
    from soft_prompt_explorer.analysis.prompts.twins import twins_of

    if task is not None and words is not None:
        raise InputError("Give either --task or --words, not both.")
    tested = typed_words(words or "")
    if words is not None and not tested:
        raise InputError("No word stands in --words; give some, with commas between them.")
    if task is not None:
        from soft_prompt_explorer.analysis.tasks.finding import get_task

        tested = get_task(task).answer_words()
    with progress_bar() as report:
        prompts, vocabulary = read_prompts(paths, model, initial, report)
        table = shared_direction(prompts, vocabulary, words=tested, twins=twins_of(prompts), top_k=top_k, report=report)
    emit(table, form, out)
    if tested:
        print(f"tested: {told(vocabulary, tested)}", file=sys.stderr)


@app.command()
def clusters(
    paths: Annotated[list[Path], typer.Argument(help="Soft prompts of one model.", metavar="PATH...")],
    method: Annotated[str, typer.Option(help="hdbscan, agglomerative or kmeans.")] = "hdbscan",
    space: Annotated[str, typer.Option(help="position, or displacement: what training added.")] = "position",
    members: Annotated[
        Path | None, typer.Option(help="Write the virtual tokens with their clusters to this file too.", dir_okay=False)
    ] = None,
    initial: InitialOption = None,
    seed: Annotated[int, typer.Option(help="Of the resamples and of k-means.")] = 0,
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Semantic clusters within and across prompts. Believe those of stability 0.6 or more and tightness_p under 0.05 that are no echo of the start."""
    check_out(out)
    check_out(members)
    from soft_prompt_explorer.analysis.core.export import write_table
    from soft_prompt_explorer.analysis.core.provenance import made_by, typed_command
    from soft_prompt_explorer.analysis.prompts.clusters import POWER, find_clusters, is_echo, is_real, may_be_echo

    with progress_bar() as report:
        prompts, vocabulary = read_prompts(paths, model, initial, report)
        found = find_clusters(prompts, vocabulary, method=cast("Method", method), space=cast("Space", space), seed=seed, report=report)
    if members is not None:
        write_table(found.members, members, made_by(typed_command(), seed=seed))
    emit(found.clusters, form, out, seed=seed)
    real = is_real(found.clusters)
    said = (
        f"{int(real.sum())} of {len(found.clusters)} clusters are stable and tighter than chance"
        if len(found.clusters)
        else "There are no clusters"
    )
    echoes, suspect = (int((real & which(found.clusters)).sum()) for which in (is_echo, may_be_echo))
    start = f" {echoes} of them tell how the prompts began: the tokens lay together from the start." if echoes else ""
    start += f" {suspect} of them may do so: where the tokens started is unknown." if suspect else ""
    print(f"{said} among {len(found.members)} virtual tokens.{start} {POWER}", file=sys.stderr)


@app.command()
def similarity(
    paths: Annotated[list[Path], typer.Argument(help="Two or more soft prompts of one model, of any lengths.", metavar="PATH PATH...")],
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """How alike prompts are, pair by pair, by six measures. Only z says what is beyond chance and beyond a common start; of many pairs some pass 1.96."""
    check_out(out)
    from soft_prompt_explorer.analysis.prompts.likeness import similarity as compare

    with progress_bar() as report:
        prompts, vocabulary = read_prompts(paths, model, None, report)
        table = compare(prompts, vocabulary, report=report)
    emit(table, form, out)


@app.command()
def spectra(
    path: Annotated[Path, typer.Argument(help="A LoRA: a file, a folder or a zip.")],
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
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """The rank spectrum of every module of a LoRA: how many of its ranks it really uses."""
    check_out(out)
    from soft_prompt_explorer.analysis.adapters import load_lora

    if sum(option is not None for option in (base, against, truncate)) > 1 or (effect is not None and (base or against)):
        raise InputError("Give one of --base, --against and --truncate at a time; --effect goes with --truncate alone.")
    if (truncate is None) != (save is None):
        raise InputError("--truncate and --save go together: the share of the energy, and the new folder for the smaller LoRA.")
    adapter = load_lora(path).named(named)
    with progress_bar() as report:
        if against is not None:
            from soft_prompt_explorer.analysis.loras.subspaces import against as compare

            pair = [with_weights(each, None, report) for each in (adapter, load_lora(against))]
            table = compare(*pair, report=report)
        elif effect is not None:
            from soft_prompt_explorer.analysis.lora_command import by_effect

            table = by_effect(adapter, path, effect, examples, model, truncate, save, report)
        elif truncate is not None and save is not None:
            from soft_prompt_explorer.analysis.loras.truncation import truncate as cut

            table = cut(adapter, truncate, save, report=report)
        else:
            from soft_prompt_explorer.analysis.loras.ranks import health
            from soft_prompt_explorer.analysis.loras.ranks import spectra as all_spectra

            if base is not None:
                adapter = with_weights(adapter, base, report)
            table = all_spectra(adapter, report=report)
            for row in health(adapter, table).itertuples():
                print(f"{row.problem}{f', {row.module}' if row.module else ''}: {row.says}", file=sys.stderr)
            if base is not None:
                from soft_prompt_explorer.analysis.loras.base_weights import against_base

                beside = against_base(adapter, base, report=report)
                lacking = int(beside["relative_norm"].isna().sum())
                if lacking:
                    print(
                        f"{lacking} of the {len(beside)} modules have no weight of their name and shape in {base}, so nothing stands beside them.",
                        file=sys.stderr,
                    )
                table = table.merge(beside, on="module")
    emit(table, form, out)
    if save is not None:
        print(f"For its accuracy: {shlex.join(['python', '-m', 'trained_prompts', 'evaluate', str(save)])} --task TASK", file=sys.stderr)


@app.command()
def behaviour(
    path: Annotated[Path, typer.Argument(help="A soft prompt: a file, a folder or a zip.")],
    task: Annotated[str, typer.Option(help="A task of trained_prompts, or the path of your own examples.")],
    limit: Annotated[int, typer.Option(help="Ask the first so many held-out examples.", min=1)] = 200,
    template: TemplateOption = None,
    initial: InitialOption = None,
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """What the model does with the prompt changed: does the reading explain the behaviour? The verdict goes to standard error."""
    check_out(out)
    import pandas as pd

    from soft_prompt_explorer.analysis.behaviour.changes import check_can_be_changed
    from soft_prompt_explorer.analysis.behaviour.of_task import behave, examples_of, judged
    from soft_prompt_explorer.analysis.behaviour.templates import how_asked
    from soft_prompt_explorer.analysis.models.weights import load_model

    asked = how_asked(path, task, template)
    with progress_bar() as report:
        prompts, vocabulary = read_prompts([path], model, initial, report)
        for prompt in prompts:  # before a model is loaded for it
            check_can_be_changed(prompt)
        examples = examples_of(asked.task, load_model(vocabulary.model, report=report), limit=limit)
        tables = [behave(prompt, vocabulary, examples, asked.task, report=report) for prompt in prompts]
        verdicts = [
            judged(prompt, vocabulary, asked.task, table, report=report).verdict for prompt, table in zip(prompts, tables, strict=True)
        ]
    emit(pd.concat(tables, ignore_index=True), form, out)
    print(asked.example(), file=sys.stderr)
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        if (note := asked.note(prompt.name)) is not None:
            print(note, file=sys.stderr)
        print(f"{prompt.name}: {asked.said(verdict).sentence}", file=sys.stderr)


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
    model: ModelOption = None,
) -> None:
    """Everything that is known of some adapters as one HTML page, the verdict on top."""
    check_page(out)
    from soft_prompt_explorer.analysis.adapters import SoftPrompt, distinct, distinct_paths, load_adapter
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
    adapters = [load_adapter(path, name=name) for path, name in zip(paths, distinct_paths(paths), strict=True)]
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
    """Make a model, its vocabulary and the null ready, once; the other commands do it when they need to."""
    from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
    from soft_prompt_explorer.analysis.models.weights import is_prepared, prepare_model
    from soft_prompt_explorer.analysis.prompts.null import null_of

    with progress_bar() as report:
        if not is_prepared(model):
            prepare_model(model, report=report)
        null_of(load_vocabulary(model, report=report), report=report)


if __name__ == "__main__":
    run(app)
