"""What the commands of `analysis` take: options that several share, and the prompts of some paths with the vocabulary that they are read against."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soft_prompt_explorer.analysis.core import remedies
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.provenance import file_read

if TYPE_CHECKING:
    from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
    from soft_prompt_explorer.analysis.core.progress import Report
    from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary

MAX_LINES_BYTES = 1_000_000

InitialOption = Annotated[
    list[str] | None,
    typer.Option(
        "--initial",
        help="The values that training started from: a file for each prompt, in their order, or `recover` once to guess them all. "
        "[default: the prompt's own, else what its config names]",
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


def read_prompts(paths: list[Path], model: str | None, initial: list[str] | None, report: Report) -> tuple[list[SoftPrompt], Vocabulary]:
    """The prompts in these files, with initial values where they are to be had, and the one vocabulary that they are read against."""
    from soft_prompt_explorer.analysis.adapters import distinct_paths, load_soft_prompt

    whole = [load_soft_prompt(path, name=name) for path, name in zip(paths, distinct_paths(paths), strict=True)]
    return against_one_vocabulary(whole, model, initial, report)


def against_one_vocabulary(
    whole: list[SoftPrompt], model: str | None, initial: list[str] | None, report: Report
) -> tuple[list[SoftPrompt], Vocabulary]:
    """`read_prompts` of prompts that are loaded."""
    from soft_prompt_explorer.analysis.adapters import load_soft_prompt
    from soft_prompt_explorer.analysis.models.names import default_model
    from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
    from soft_prompt_explorer.analysis.prompts.starts import recover_initial, split_from, start_from_config

    initial = initial or []
    recover = initial == ["recover"]
    if initial and not recover and len(initial) != len(whole):
        raise InputError(
            f"There are {len(initial)} --initial for {len(whole)} prompts; give one for each, in their order, or `--initial recover` once for all."
        )
    for prompt in whole:
        prompt.check_is_embeddings()
    models = [model] if model else list(dict.fromkeys(default_model(prompt.base_model, prompt.width, report=report) for prompt in whole))
    if len(models) > 1:
        raise InputError(
            f"The prompts were trained on different models ({', '.join(models[:4])}); give those of one model, or name one with --model."
        )
    vocabulary = load_vocabulary(models[0], report=report)
    prompts = []
    for i, prompt in enumerate(whole):
        if recover or (initial and initial[i] == "recover"):
            prompts += [recover_initial(part, vocabulary, report=report) for part in prompt.split()]
        elif initial:
            prompts += split_from(prompt, load_soft_prompt(Path(initial[i])))
        else:
            prompts += start_from_config(prompt, vocabulary).split()
    return prompts, vocabulary


def read_adapters(
    paths: list[Path], model: str | None, initial: list[str] | None, report: Report
) -> tuple[list[SoftPrompt | LoraAdapter], list[str], Vocabulary]:
    """The adapters in these files, of any kind, the path of each, and the vocabulary of the one model that they are for; prompts as `read_prompts` reads them."""
    from soft_prompt_explorer.analysis.adapters import LoraAdapter, distinct_paths, load_adapter
    from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_WIDTH
    from soft_prompt_explorer.analysis.models.names import default_model
    from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary

    whole = [load_adapter(path, name=name) for path, name in zip(paths, distinct_paths(paths), strict=True)]
    prompts = [adapter for adapter in whole if not isinstance(adapter, LoraAdapter) and adapter.kind == "soft_prompt"]
    others = [adapter for adapter in whole if not any(adapter is prompt for prompt in prompts)]
    models = [model] if model else list(dict.fromkeys(default_model(each.base_model, EMBEDDED_WIDTH, report=report) for each in others))
    vocabulary = None
    read: dict[int, list[SoftPrompt | LoraAdapter]] = {id(adapter): [adapter] for adapter in others}
    if prompts:
        for i, prompt in enumerate(prompts):
            given = initial if initial is None or initial == ["recover"] or len(initial) != len(prompts) else [initial[i]]
            parts, vocabulary = against_one_vocabulary([prompt], model, given, report)
            read[id(prompt)] = list(parts)
            models.append(vocabulary.model)
    if len(set(models)) > 1:
        raise InputError(
            f"The adapters are for different models ({', '.join(sorted(set(models))[:4])}); give those of one model, or name one {remedies.MODEL}."
        )
    vocabulary = vocabulary or load_vocabulary(models[0], report=report)
    for key, held in read.items():
        read[key] = [with_weights(each, vocabulary.model, report) if isinstance(each, LoraAdapter) else each for each in held]
    adapters = [(part, str(path)) for path, adapter in zip(paths, whole, strict=True) for part in read[id(adapter)]]
    return [adapter for adapter, _ in adapters], [path for _, path in adapters], vocabulary


def with_weights(adapter: LoraAdapter, model: str | None, report: Report) -> LoraAdapter:
    """The adapter with the weights that its updates are made of, where they are made of any: the named model's, else those of its own base model."""
    if not adapter.needs_weights:
        return adapter
    from soft_prompt_explorer.analysis.loras.weights import with_base
    from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_WIDTH
    from soft_prompt_explorer.analysis.models.names import default_model

    return with_base(adapter, model or default_model(adapter.base_model, EMBEDDED_WIDTH, report=report), report=report)


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
