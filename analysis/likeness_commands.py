"""The commands that look at several prompts together: `direction`, `clusters` and `similarity`."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from soft_prompt_explorer.analysis.command_input import FetchOption, InitialOption, NameOption, places, read_geometry, read_prompts, several
from soft_prompt_explorer.analysis.command_line import Format, FormatOption, ModelOption, OutOption, check_out, emit, new_app, progress_bar
from soft_prompt_explorer.analysis.core.errors import InputError

if TYPE_CHECKING:
    from soft_prompt_explorer.analysis.prompts.clusters import Method, Space

app = new_app("What prompts have in common.")


@app.command()
def direction(
    paths: Annotated[list[Path], typer.Argument(help="Soft prompts of one task.", metavar="PATH...")],
    task: Annotated[str | None, typer.Option(help="A task of trained_prompts, whose label or target words are tested.")] = None,
    words: Annotated[
        str | None,
        typer.Option(help="Words to test instead, with commas between them; each has to be one token, with a space before it or without."),
    ] = None,
    initial: InitialOption = None,
    top_k: Annotated[int, typer.Option(help="Words to print.", min=1)] = 20,
    fetch: FetchOption = False,
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
    where = places(paths, None, fetch)
    with progress_bar() as report:
        prompts, _, vocabulary = read_prompts(where, model, initial, report)
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
    names: NameOption = None,
    fetch: FetchOption = False,
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """Semantic clusters within and across prompts. Believe those of stability 0.6 or more and tightness_p under 0.05 that are no echo of the start."""
    check_out(out)
    check_out(members)
    if out is not None and members is not None and out.absolute() == members.absolute():
        raise InputError("--out and --members name one file, and each table wants its own; name two.")
    from soft_prompt_explorer.analysis.core.export import write_table
    from soft_prompt_explorer.analysis.core.provenance import made_by, typed_command
    from soft_prompt_explorer.analysis.prompts.clusters import POWER, STABLE, find_clusters, is_echo, is_real, may_be_echo

    where = places(paths, names, fetch)
    with progress_bar() as report:
        prompts, said, vocabulary = read_geometry(where, model, initial, report)
        found = find_clusters(prompts, vocabulary, method=cast("Method", method), space=cast("Space", space), seed=seed, report=report)
    if members is not None:
        paths_too = {"path": [path for path, prompt in zip(said, prompts, strict=True) for _ in prompt.embeddings]}
        write_table(found.members.assign(**paths_too) if several(where) else found.members, members, made_by(typed_command(), seed=seed))
    emit(found.clusters, form, out, seed=seed)
    among = f"among {len(found.members)} virtual tokens"
    if vocabulary is None:
        stable = int((found.clusters["stability"] >= STABLE).sum())
        print(
            f"{stable} of {len(found.clusters)} clusters are stable {among}; whether they are tighter than chance, only the vocabulary tells.",
            file=sys.stderr,
        )
        return
    real = is_real(found.clusters)
    told = (
        f"{int(real.sum())} of {len(found.clusters)} clusters are stable and tighter than chance"
        if len(found.clusters)
        else "There are no clusters"
    )
    echoes, suspect = (int((real & which(found.clusters)).sum()) for which in (is_echo, may_be_echo))
    start = f" {echoes} of them tell how the prompts began: the tokens lay together from the start." if echoes else ""
    start += f" {suspect} of them may do so: where the tokens started is unknown." if suspect else ""
    print(f"{told} {among}.{start} {POWER}", file=sys.stderr)


@app.command()
def similarity(
    paths: Annotated[list[Path], typer.Argument(help="Two or more soft prompts of one model, of any lengths.", metavar="PATH PATH...")],
    names: NameOption = None,
    fetch: FetchOption = False,
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """How alike prompts are, pair by pair, by six measures. Only z says what is beyond chance and beyond a common start; of many pairs some pass 1.96."""
    check_out(out)
    from soft_prompt_explorer.analysis.prompts.likeness import similarity as compare

    where = places(paths, names, fetch)
    with progress_bar() as report:
        prompts, said, vocabulary = read_geometry(where, model, None, report)
        table = compare(prompts, vocabulary, report=report)
    path_a, path_b = zip(*combinations(said, 2), strict=True)
    emit(table.assign(path_a=path_a, path_b=path_b), form, out)
