"""The command line: `python -m analysis inspect | neighbours | prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.command_line import Format, FormatOption, ModelOption, OutOption, check_out, emit, new_app, progress_bar, run

app = new_app("Read soft prompts: what is each virtual token near to, in the vocabulary?")


@app.callback()
def main() -> None:
    """Read soft prompts: what is each virtual token near to, in the vocabulary?"""


@app.command()
def inspect(
    paths: Annotated[list[Path], typer.Argument(help="Adapter files or folders.", metavar="PATH...")],
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """What is in these files."""
    check_out(out)
    from analysis.inspection import inspect as inspect_files

    emit(inspect_files(paths), form, out)


@app.command()
def neighbours(
    path: Annotated[Path, typer.Argument(help="A soft prompt: a PEFT folder, .npy or .safetensors.")],
    metric: Annotated[str, typer.Option(help="centred, cosine, csls, dot or euclidean.")] = "centred",
    top_k: Annotated[int, typer.Option(help="Words for each virtual token.")] = 10,
    exclude_special: Annotated[bool, typer.Option("--exclude-special", help="Leave out control and unused tokens.")] = False,
    whole_words: Annotated[bool, typer.Option("--whole-words", help="Only tokens that are a whole word.")] = False,
    script: Annotated[str | None, typer.Option(help="Only words of this script: Latin, Cyrillic, Arabic, Han, CJK, …")] = None,
    model: ModelOption = None,
    form: FormatOption = Format.table,
    out: OutOption = None,
) -> None:
    """The nearest vocabulary words of each virtual token, exactly."""
    check_out(out)
    from analysis.adapters import load_soft_prompt
    from analysis.models import default_model
    from analysis.neighbours import neighbours as nearest_words
    from analysis.vocabulary import load_vocabulary

    prompt = load_soft_prompt(path)
    with progress_bar() as report:
        vocabulary = load_vocabulary(model or default_model(prompt.base_model, prompt.width, report=report), report=report)
        table = nearest_words(
            prompt,
            vocabulary,
            metric=metric,
            top_k=top_k,
            exclude_special=exclude_special,
            whole_words=whole_words,
            script=script,
            report=report,
        )
    emit(table, form, out)


@app.command()
def prepare(model: Annotated[str, typer.Argument(help="smollm2-135m, a hub id, a folder or a .gguf file.")] = "smollm2-135m") -> None:
    """Make a model and its vocabulary ready, once; the other commands do it when they need to."""
    from analysis.models import is_prepared, prepare_model
    from analysis.vocabulary import load_vocabulary

    with progress_bar() as report:
        if not is_prepared(model):
            prepare_model(model, report=report)
        load_vocabulary(model, report=report)


if __name__ == "__main__":
    run(app)
