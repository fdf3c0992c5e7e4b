"""Textual inversion (Gal et al. 2023): vectors that stand for new words in the text encoder of an image model."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from soft_prompt_explorer.analysis.adapters.opening import Opened
from soft_prompt_explorer.analysis.adapters.soft_prompt import SoftPrompt, prompt_rows
from soft_prompt_explorer.analysis.adapters.tensors import Tensors
from soft_prompt_explorer.analysis.core.words import listed, printable

# diffusers and cloneofsimo name the tensor by the word; the web interface keeps it in `string_to_param`, or as `emb_params`.
_WORD = re.compile(r"<[^<>]{1,100}>|string_to_param\..{1,100}|emb_params")
# For SDXL the tensors are named by its two text encoders, which are not equally wide.
_ENCODERS = (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))


def words(tensors: Tensors) -> list[str]:
    """The names of the tensors that are new words."""
    encoders = [name for pair in _ENCODERS if set(pair) <= set(tensors) for name in pair]
    floats = tensors.floats()
    named = [*(name for name in floats if _WORD.fullmatch(name)), *(name for name in encoders if name in floats)]
    return [name for name in named if len(floats[name].shape) in (1, 2)]


def reads(opened: Opened) -> bool:
    return bool(words(opened.tensors))


def read(opened: Opened, name: str) -> SoftPrompt:
    """The words of a file; where they are for several text encoders, those of the first, and `beside` them those of the others, each under the encoder's name."""
    found = {word: prompt_rows(opened.tensors, word, what="vectors of new words") for word in words(opened.tensors)}
    widths = list(dict.fromkeys(rows.shape[1] for rows in found.values()))
    of_each = [{word: rows for word, rows in found.items() if rows.shape[1] == width} for width in widths]
    if len(of_each) == 1:
        return _prompt(opened, name, found)
    labels = [next(iter(rows)) if len(rows) == 1 else f"{width} wide" for width, rows in zip(widths, of_each, strict=True)]
    first, *others = (
        replace(prompt, parts=((printable(label.removeprefix("string_to_param.")), len(prompt)),))
        for label, prompt in zip(labels, (_prompt(opened, name, rows) for rows in of_each), strict=True)
    )
    sizes = listed([f"{prompt.parts[0][0]} {len(prompt)} × {prompt.width}" for prompt in (first, *others)])
    note = f"holds {len(of_each)} prompts, for several text encoders: {sizes}; each is read against its own"
    return replace(first, beside=tuple(others), notes=(note, *first.notes))


def _prompt(opened: Opened, name: str, found: dict[str, np.ndarray]) -> SoftPrompt:
    labels = [printable(word.removeprefix("string_to_param.")) for word in found]
    each = [label for label, rows in zip(labels, found.values(), strict=True) for _ in range(len(rows))]
    source = opened.source(next(iter(found)), kind="textual inversion")
    metadata = opened.metadata | opened.tensors.metadata | {"words": each}
    notes = (f"stands for {', '.join(labels[:5])}{' and more' if len(labels) > 5 else ''}",)
    rows = np.concatenate(list(found.values()))
    return SoftPrompt(name, rows, None, None, "TEXTUAL_INVERSION", source, metadata, kind="textual_inversion", notes=notes)
