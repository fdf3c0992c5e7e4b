"""The command `export`: a soft prompt for another program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soft_prompt_explorer.analysis.command_input import FetchOption, InitialOption, one_place, read_prompts
from soft_prompt_explorer.analysis.command_line import DeviceOption, DtypeOption, ModelOption, check_folder, new_app, progress_bar
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.provenance import made_by, typed_command
from soft_prompt_explorer.analysis.models.computing import compute_in

if TYPE_CHECKING:
    import numpy as np

    from soft_prompt_explorer.analysis.core.progress import Report

app = new_app("A soft prompt for other programs.")


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="A soft prompt: a file, a folder, a zip, or a name on the hub.")],
    to: Annotated[str, typer.Option(help="peft, npy, safetensors, vllm or llama.cpp.")],
    out: Annotated[
        Path,
        typer.Option("--out", help="The file to write: .npy, .safetensors, .pt for vllm, .bin for llama.cpp; the new folder for peft."),
    ],
    text: Annotated[
        str | None,
        typer.Option(
            help="With vllm or llama.cpp: put this text's own embeddings behind the prompt's, so that the file is a whole input; \\n is a new line."
        ),
    ] = None,
    initial: InitialOption = None,
    fetch: FetchOption = False,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
) -> None:
    """A soft prompt as another program takes it, with where it comes from in the file or beside it."""
    compute_in(dtype, device)
    from soft_prompt_explorer.analysis.adapters import load_soft_prompt
    from soft_prompt_explorer.analysis.prompts.elsewhere import WITH_TEXT, check_target, export_prompt

    check_target(to, out, text=text)
    check_folder(out)
    at = one_place(path, fetch)
    with progress_bar() as report:
        prompt = load_soft_prompt(at.path, name=at.name)
        prompt.check_is_one()
        behind = None
        if text is not None or initial is not None:
            (prompt, *_), _, vocabulary = read_prompts([at], model, initial, report)
            behind = None if text is None else _rows_of(text.replace("\\n", "\n"), vocabulary.model, report)
        export_prompt(prompt, to, out, made_by(typed_command()), behind=behind)
    alone = (
        f"; a request to {to} is a whole input: the embeddings of its text go behind these rows (--text)"
        if to in WITH_TEXT and text is None
        else ""
    )
    count = len(prompt) + (0 if behind is None else len(behind))
    print(f"{count} rows of {prompt.width} written to {out}{alone}", file=sys.stderr)


def _rows_of(text: str, model: str, report: Report) -> np.ndarray:
    """(t, d) float32, what the model's embedding layer makes of a text."""
    import torch

    from soft_prompt_explorer.analysis.models.weights import load_model

    language_model, tokenizer = load_model(model, report=report)
    if not (tokens := tokenizer(text).input_ids):
        raise InputError("The text of --text has no token to put behind the prompt; give one that has, or leave the option out.")
    ids = torch.tensor(tokens, device=language_model.device)
    with torch.inference_mode():
        return language_model.get_input_embeddings()(ids).float().cpu().numpy()
