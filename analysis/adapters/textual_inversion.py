"""Textual inversion (Gal et al. 2023): vectors that stand for new words in the text encoder of an image model."""

from __future__ import annotations

import re

import numpy as np

from soft_prompt_explorer.analysis.adapters.opening import Opened
from soft_prompt_explorer.analysis.adapters.soft_prompt import SoftPrompt, prompt_rows
from soft_prompt_explorer.analysis.adapters.tensors import Tensors
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.core.words import printable

# diffusers and cloneofsimo name the tensor by the word; the web interface keeps it in `string_to_param`, or as `emb_params`.
_WORD = re.compile(r"<[^<>]{1,100}>|string_to_param\..{1,100}|emb_params")


def words(tensors: Tensors) -> list[str]:
    """The names of the tensors that are new words."""
    return [name for name, entry in tensors.floats().items() if _WORD.fullmatch(name) and len(entry.shape) in (1, 2)]


def reads(opened: Opened) -> bool:
    return bool(words(opened.tensors))


def read(opened: Opened, name: str) -> SoftPrompt:
    found = words(opened.tensors)
    rows = [prompt_rows(opened.tensors, word, what="vectors of new words") for word in found]
    if len({array.shape[1] for array in rows}) > 1:
        shapes = ", ".join(f"{word} {array.shape}" for word, array in zip(found, rows, strict=True))
        raise AdapterError(
            f"The words in {opened.path} have the shapes {shapes}, for several text encoders; give the words of one encoder at a time."
        )
    labels = [printable(word.removeprefix("string_to_param.")) for word in found]
    each = [label for label, array in zip(labels, rows, strict=True) for _ in range(len(array))]
    source = opened.source(found[0], kind="textual inversion")
    metadata = opened.metadata | opened.tensors.metadata | {"words": each}
    notes = (f"stands for {', '.join(labels[:5])}{' and more' if len(labels) > 5 else ''}",)
    return SoftPrompt(name, np.concatenate(rows), None, None, "TEXTUAL_INVERSION", source, metadata, kind="textual_inversion", notes=notes)
