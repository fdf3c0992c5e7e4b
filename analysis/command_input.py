"""What the commands of `analysis` take: options that several share, and the adapters of some paths with the vocabulary that they are read against."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from soft_prompt_explorer.analysis.command_line import leave_out, progress_bar
from soft_prompt_explorer.analysis.core import remedies
from soft_prompt_explorer.analysis.core.errors import AdapterError, InputError, ModelError
from soft_prompt_explorer.analysis.core.provenance import file_read

if TYPE_CHECKING:
    import pandas as pd

    from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
    from soft_prompt_explorer.analysis.adapters.hub_adapter import RemoteAdapter
    from soft_prompt_explorer.analysis.adapters.places import Place
    from soft_prompt_explorer.analysis.core.progress import Report
    from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary

Adapter = TypeVar("Adapter", bound="SoftPrompt | LoraAdapter")

MAX_LINES_BYTES = 1_000_000

InitialOption = Annotated[
    list[str] | None,
    typer.Option(
        "--initial",
        help="The values that training started from: a file for each prompt, in their order, or `recover` once to guess those that neither a file nor a config tells. "
        "[default: the prompt's own, or those beside it, else what its config names]",
    ),
]

TemplateOption = Annotated[
    str | None,
    typer.Option(
        "--template",
        help="How the examples are asked: a text with {input} where the example goes, for instance 'Thing: {input}\\nColour:'. "
        "[default: what the prompt was trained with, if it was trained here, else the task's own]",
    ),
]

NameOption = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        help="What an adapter is called in the table: once for each, in their order. [default: the shortest end of its path that tells it from the others]",
    ),
]

FetchOption = Annotated[
    bool,
    typer.Option("--fetch", help="Fetch an adapter that is named owner/name from the hub without asking. [default: asks in a terminal]"),
]


# --- Where the adapters lie ------------------------------------------------------------------------------------------


def places(paths: Sequence[Path], names: Sequence[str] | None, fetch: bool) -> list[Place]:
    """The adapters that paths name: files, folders, folders of adapters, globs, and names of the hub."""
    from soft_prompt_explorer.analysis.adapters.places import places_of

    return places_of(paths, from_hub=lambda name, chosen: _from_hub(name, chosen, fetch), names=names or ())


def place(path: Path, fetch: bool) -> Path:
    """Where the one adapter lies that a path or a name of the hub names."""
    return one_place(path, fetch).path


def one_place(path: Path, fetch: bool) -> Place:
    """The same, with what it is called."""
    (only, *others) = places([path], None, fetch)
    if others:
        raise InputError(f"{path} holds {len(others) + 1} adapters; give one of them.")
    return only


def _from_hub(name: str, chosen: str | None, fetch: bool) -> Path:
    from soft_prompt_explorer.analysis.adapters import hub_adapter

    kept = hub_adapter.at_hand(name, chosen)
    if kept is not None:
        return kept
    may_ask = sys.stdin.isatty() and sys.stderr.isatty() and not Path(name).parent.exists()
    if not (fetch or may_ask):
        said = name if chosen is None else f"{name}/{chosen}"
        raise AdapterError(f"There is no file or folder {said}; check the spelling, or give --fetch if it is an adapter of the hub.")
    remote = hub_adapter.ask_hub(name, chosen)
    print(_told(remote), file=sys.stderr)
    if not (fetch or typer.confirm("Fetch this?", err=True)):
        raise InputError(f"Nothing of {name} was fetched.")
    with progress_bar() as report:
        return hub_adapter.fetch(remote, report=report)


def _told(remote: RemoteAdapter) -> str:
    lines = [f"  {entry.size:>15,} bytes  {entry.name}" for entry in remote.entries]
    return "\n".join([f"The hub's {remote.name}, {remote.size:,} bytes:", *lines])


# --- Reading them ----------------------------------------------------------------------------------------------------


def read(where: Sequence[Place], fit: Callable[[SoftPrompt | LoraAdapter], Adapter]) -> list[tuple[Place, Adapter]]:
    """The adapters that lie at some places.

    Of those that were found in a folder or by a glob, those that are refused and those of another kind are left out, and it is said which.

    Parameters
    ----------
    fit : answers the adapter as the command can use it, or refuses it.

    Raises
    ------
    AdapterError
        One that was named is refused, or none is left.
    """
    from soft_prompt_explorer.analysis.adapters import load_adapter

    result: list[tuple[Place, Adapter]] = []
    unfit: list[str] = []
    for each in where:
        try:
            adapter = load_adapter(each.path, name=each.name)
        except AdapterError as error:
            if not each.found:
                raise
            leave_out(error)
            continue
        try:
            result.append((each, fit(adapter)))
        except AdapterError as error:
            if not each.found:
                raise
            unfit.append(str(error))
    if not result:
        raise AdapterError(
            unfit[0] if len(unfit) == 1 else f"None of the {len(where)} adapters can be used here; inspect says what they are."
        )
    for sentence in unfit[:4]:
        print(f"Left out: {sentence}", file=sys.stderr)
    if len(unfit) > 4:
        print(f"Left out: {len(unfit) - 4} more of another kind.", file=sys.stderr)
    return result


def read_prompts(
    where: Sequence[Place], model: str | None, initial: list[str] | None, report: Report
) -> tuple[list[SoftPrompt], list[str], Vocabulary]:
    """The prompts at these places, with initial values where they are to be had, the path of each, and the one vocabulary that they are read against."""
    whole = read(where, _words)
    vocabulary = _one_vocabulary([prompt for _, prompt in whole], model, report)
    prompts, paths = _started(whole, vocabulary, initial, report)
    return prompts, paths, vocabulary


def read_geometry(
    where: Sequence[Place], model: str | None, initial: list[str] | None, report: Report
) -> tuple[list[SoftPrompt], list[str], Vocabulary | None]:
    """`read_prompts` for what can be told without a vocabulary too: None, and a sentence on standard error, where that of the prompts' one model cannot be had."""
    whole = read(where, _words)
    vocabulary: Vocabulary | None = None
    try:
        vocabulary = _one_vocabulary([prompt for _, prompt in whole], model, report)
        if model is None:
            whole[0][1].check_width(vocabulary.width, vocabulary.model)
    except (ModelError, AdapterError) as error:
        if model is not None or len({(prompt.base_model, prompt.width) for _, prompt in whole}) > 1:
            raise
        vocabulary = None
        print(f"Told is what needs no vocabulary: {error}", file=sys.stderr)
    prompts, paths = _started(whole, vocabulary, initial, report)
    return prompts, paths, vocabulary


def against_one_vocabulary(
    whole: list[SoftPrompt], model: str | None, initial: list[str] | None, report: Report
) -> tuple[list[SoftPrompt], Vocabulary]:
    """`read_prompts` of prompts that are loaded."""
    for prompt in whole:
        prompt.check_is_embeddings()
    vocabulary = _one_vocabulary(whole, model, report)
    return [part for parts in _each_started(whole, vocabulary, initial, report) for part in parts], vocabulary


def _words(adapter: SoftPrompt | LoraAdapter) -> SoftPrompt:
    from soft_prompt_explorer.analysis.adapters import soft_prompt_of

    prompt = soft_prompt_of(adapter)
    prompt.check_is_embeddings()
    return prompt


def _one_vocabulary(whole: Sequence[SoftPrompt], model: str | None, report: Report) -> Vocabulary:
    from soft_prompt_explorer.analysis.adapters.own_model import model_of
    from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary

    models = [model] if model else list(dict.fromkeys(model_of(prompt, report=report) for prompt in whole))
    if len(models) > 1:
        raise InputError(
            f"The prompts were trained on different models ({', '.join(models[:4])}); give those of one model, or name one with --model."
        )
    return load_vocabulary(models[0], report=report)


def _started(
    whole: Sequence[tuple[Place, SoftPrompt]], vocabulary: Vocabulary | None, initial: list[str] | None, report: Report
) -> tuple[list[SoftPrompt], list[str]]:
    prompts, paths = [], []
    started = _each_started([prompt for _, prompt in whole], vocabulary, initial, report)
    for (at, _), parts in zip(whole, started, strict=True):
        prompts += parts
        paths += [at.said] * len(parts)
    return prompts, paths


def _each_started(
    whole: Sequence[SoftPrompt], vocabulary: Vocabulary | None, initial: list[str] | None, report: Report
) -> list[list[SoftPrompt]]:
    """The parts of each prompt with the values that they started from, as far as these are to be had."""
    from soft_prompt_explorer.analysis.adapters import load_soft_prompt
    from soft_prompt_explorer.analysis.prompts.starts import recover_initial, split_from, start_from_config

    initial = initial or []
    if len(initial) == 1 and initial[0] == "recover":
        initial = initial * len(whole)
    if initial and len(initial) != len(whole):
        raise InputError(
            f"There are {len(initial)} --initial for {len(whole)} prompts; give one for each, in their order, or `--initial recover` once for all."
        )
    if vocabulary is None and "recover" in initial:
        raise InputError("Initial values are recovered from the words nearest to them, so the model has to be known; give --model too.")
    result = []
    for i, prompt in enumerate(whole):
        if initial and initial[i] != "recover":
            result.append(split_from(prompt, load_soft_prompt(place(Path(initial[i]), False))))
        elif vocabulary is None:
            result.append(prompt.split())
        else:  # what the file or its config tells is no guess, and comes before one
            parts = start_from_config(prompt, vocabulary).split()
            result.append(
                [recover_initial(part, vocabulary, report=report) if initial and part.initial is None else part for part in parts]
            )
    return result if vocabulary is None else [_fitting(parts, vocabulary) for parts in result]


def _fitting(parts: list[SoftPrompt], vocabulary: Vocabulary) -> list[SoftPrompt]:
    """Of a file's prompts for several models those that are as wide as this one; all of them where none is, so that it is said."""
    fit = [part for part in parts if part.width == vocabulary.width]
    for part in parts if 0 < len(fit) < len(parts) else ():
        if part.width != vocabulary.width:
            print(f"Left out: {part.name} is {part.width} wide, for another model than {vocabulary.model}.", file=sys.stderr)
    return fit or parts


def read_adapters(
    where: Sequence[Place], model: str | None, initial: list[str] | None, report: Report
) -> tuple[list[SoftPrompt | LoraAdapter], list[str], Vocabulary]:
    """The adapters at these places, of any kind, the path of each, and the vocabulary of the one model that they are for; prompts as `read_prompts` reads them."""
    from soft_prompt_explorer.analysis.adapters import LoraAdapter
    from soft_prompt_explorer.analysis.adapters.own_model import model_of
    from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary

    whole = read(where, lambda adapter: adapter)
    prompts = {i: each for i, (_, each) in enumerate(whole) if not isinstance(each, LoraAdapter) and each.kind == "soft_prompt"}
    models = [model] if model else list(dict.fromkeys(model_of(adapter, report=report) for _, adapter in whole))
    if len(models) > 1:
        raise InputError(
            f"The adapters are for different models ({', '.join(sorted(models)[:4])}); give those of one model, or name one {remedies.MODEL}."
        )
    vocabulary = load_vocabulary(models[0], report=report)
    started = dict(zip(prompts, _each_started(list(prompts.values()), vocabulary, initial, report), strict=True))
    adapters: list[SoftPrompt | LoraAdapter] = []
    paths = []
    for i, (at, adapter) in enumerate(whole):
        held = (
            started[i]
            if i in started
            else [with_weights(adapter, vocabulary.model, report) if isinstance(adapter, LoraAdapter) else adapter]
        )
        adapters += held
        paths += [at.said] * len(held)
    return adapters, paths, vocabulary


def with_weights(adapter: LoraAdapter, model: str | None, report: Report) -> LoraAdapter:
    """The adapter with the weights that its updates are made of, where they are made of any: the named model's, else those of its own base model."""
    if not adapter.needs_weights:
        return adapter
    from soft_prompt_explorer.analysis.adapters.own_model import model_of
    from soft_prompt_explorer.analysis.loras.weights import with_base

    return with_base(adapter, model or model_of(adapter, report=report), report=report)


# --- Which is whose --------------------------------------------------------------------------------------------------


def together(tables: Sequence[pd.DataFrame], paths: Sequence[str], where: Sequence[Place]) -> pd.DataFrame:
    """The tables of adapters one below the other; where several were given, with a last column path."""
    import pandas as pd

    if several(where):
        tables = [table.assign(path=path) for table, path in zip(tables, paths, strict=True)]
    return pd.concat(tables, ignore_index=True)


def several(where: Sequence[Place]) -> bool:
    """Whether several adapters were asked for; a folder or a glob asks for several, even where it holds one."""
    return len(where) > 1 or where[0].found


def lines_of(path: Path, what: str) -> list[str]:
    """The lines of a file that are not empty; the two characters `\\n` in one are a new line.

    Parameters
    ----------
    what : they are, in a refusal.

    Raises
    ------
    InputError
        The file is too large, no UTF-8, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LINES_BYTES + 1)
        if len(content) > MAX_LINES_BYTES:
            raise InputError(f"The {what} in {path} have more than {MAX_LINES_BYTES // 1_000_000} MB; give fewer.")
        file_read(path.name, sha256(content).hexdigest())
        return [line.replace("\\n", "\n") for line in content.decode("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"The {what} in {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The {what} in {path} are not UTF-8; save the file as UTF-8.") from error
