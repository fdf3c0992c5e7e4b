"""Examples as padded batches of token ids, and the model's logits at the answers only.

Only the positions that predict an answer go through the output layer: on the embedded model that layer is two fifths of all
weights, and a sentence of 40 tokens has one answer. Batches hold examples of like length, so that little is spent on padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.late import Late

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")


class TooLongError(InputError):
    """Examples, with what stands in front of them, do not fit into the model's context."""


@dataclass(frozen=True)
class Example:
    """`ids` are the tokens that the model reads; its last `len(answer)` positions predict the tokens of `answer`."""

    ids: tuple[int, ...]
    answer: tuple[int, ...]


def encode(tokenizer, texts: Sequence[str], targets: Sequence[str], *, begun: bool = False) -> list[Example]:
    """The examples that predict each target after its text: the last token of a target is predicted, never read.

    Parameters
    ----------
    begun : whether the texts go on with one that has been read, so that the token with which some families begin a text is not put before them.
    """
    read = tokenizer(list(texts), add_special_tokens=not begun).input_ids
    answers = tokenizer(list(targets), add_special_tokens=False).input_ids
    return [Example(tuple(ids + answer[:-1]), tuple(answer)) for ids, answer in zip(read, answers, strict=True)]


def like_length_batches(lengths: list[int], batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Indices of all examples in batches of like length; which ones share a batch, and the batches' order, are random."""
    order = np.lexsort((rng.random(len(lengths)), np.array(lengths)))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def answer_logits(forward, examples: list[Example], *, virtual_tokens: int, device: str) -> torch.Tensor:
    """The logits of every answer position, (sum of the answers' lengths, V), the examples one after another.

    Parameters
    ----------
    forward : called with input_ids (b, t), attention_mask (b, t) or None, and logits_to_keep; puts `virtual_tokens` rows in front.
    """
    longest = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask = torch.zeros(len(examples), longest, dtype=torch.long)
    rows: list[int] = []
    columns: list[int] = []
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        mask[row, : len(example.ids)] = 1  # padding stands on the right: positions are those of the example alone
        rows += [row] * len(example.answer)
        columns += range(len(example.ids) - len(example.answer), len(example.ids))
    kept, where = torch.unique(torch.tensor(columns), return_inverse=True)
    output = forward(
        input_ids=ids.to(device),
        attention_mask=None if bool(mask.all()) else mask.to(device),
        logits_to_keep=(kept + virtual_tokens).to(device),
    )
    return output.logits[torch.tensor(rows, device=device), where.to(device)]


def check_lengths(examples: list[Example], virtual_tokens: int, model_config) -> None:
    """Refuse examples that do not fit into the model's context.

    Raises
    ------
    TooLongError
    """
    longest = max(len(example.ids) for example in examples) + virtual_tokens
    context = getattr(model_config, "max_position_embeddings", None)
    if context and longest > context:
        raise TooLongError(
            f"The longest example needs {longest} positions with its {virtual_tokens} virtual tokens, and the model has {context}."
        )
