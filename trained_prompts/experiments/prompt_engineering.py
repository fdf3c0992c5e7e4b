"""The oldest way to adapt a model: say in words what is wanted, and show a few examples. Nothing is learned."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from soft_prompt_explorer.analysis.asking.batches import Example, check_lengths
from soft_prompt_explorer.analysis.asking.in_front import Subject, keys_and_values, with_prefix
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.analysis.tasks.task import Task

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

SHOTS = 4  # examples shown: those of Brown et al. 2020, section 2, with k = 4


def shown_examples(task: Task, template: str, *, shots: int = SHOTS) -> str:
    """Training examples with their answers in a template, one after the other: the first ones, with labels in turn the first of each label."""
    table = task.examples("train", template=template)
    if task.labels:
        table = table.assign(turn=table.groupby("target").cumcount()).sort_values("turn", kind="stable")
    return "".join(f"{row.text}{row.target}\n\n" for row in table.head(shots).itertuples())


def with_text(language_model: LanguageModel, text: str) -> Subject:
    """The model with a text in front of every input. The text is read once: its keys and values stand before each input as a prefix does.

    Raises
    ------
    TooLongError
        The text alone does not fit into the model's context.
    """
    model, tokenizer = language_model
    # What follows decides how some families cut the white space at a text's end, so a letter follows while it is cut.
    cut = tokenizer(text + "a", return_offsets_mapping=True)
    ids = [token for token, (_, end) in zip(cut.input_ids, cut.offset_mapping, strict=True) if end <= len(text)]
    check_lengths([Example(tuple(ids), ())], 0, model.config)
    embeddings = model.get_input_embeddings()
    with torch.inference_mode():
        rows = embeddings(torch.tensor(ids, device=model.device)).float().cpu().numpy()
    return replace(with_prefix(language_model, keys_and_values(model, rows)), begun=True)
