"""A soft prompt without a word on how it was trained: one array, a dictionary with one, or a checkpoint that holds it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import numpy as np

from soft_prompt_explorer.analysis.adapters.opening import Opened
from soft_prompt_explorer.analysis.adapters.soft_prompt import SoftPrompt, left_out, prompt_rows
from soft_prompt_explorer.analysis.adapters.tensors import Entry
from soft_prompt_explorer.analysis.core.errors import AdapterError

# What others call the tensor, by the end of its name, surest first.
_ATTRIBUTE = r"(?:\.weight|\.default)?"
_OTHERS = ("soft_prompt", "soft_prompts", "learned_embedding", "soft_embeds", "prompt_embedding", "soft_embedding")
PROMPT_NAMES = (
    rf"prompt_embeddings{_ATTRIBUTE}|prompt_encoder\.[^.]+\.embedding\.weight",  # PEFT's, saved by it or by hand
    *(name + _ATTRIBUTE for name in _OTHERS),
)
_RAW_PEFT = re.compile(r"(?:.*\.)?prompt_encoder\.[^.]+\.embedding\.weight")
_REENCODED = re.compile(r"prompt_encoder\.[^.]+\.(?:mlp_head|lstm_head|transform)\.")
_OPTIMIZER = re.compile(r"(?:^|\.)(?:optimizer\w*|optim\w*|exp_avg(?:_sq)?|momentum_buffer|ema\w*)(?:\.|$)", re.IGNORECASE)


def reads(opened: Opened) -> bool:
    return True  # the last to be asked: it says what is missing


def read(opened: Opened, name: str) -> SoftPrompt:
    if opened.halves:
        return _halves(opened, name)
    found = _prompt_tensor(opened)
    notes = left_out(opened.tensors, {found})
    if found.endswith("prompt_embeddings"):
        notes = ("PEFT weights without adapter_config.json, so the method is unknown", *notes)
    return SoftPrompt(
        name,
        prompt_rows(opened.tensors, found),
        initial=None,
        base_model=None,
        method=None,
        source=opened.source(found),
        metadata=opened.metadata | opened.tensors.metadata,
        notes=notes,
    )


def _halves(opened: Opened, name: str) -> SoftPrompt:
    """One file for the encoder and one for the decoder, or only one of them."""
    rows = {}
    for half, tensors in opened.halves.items():
        names = list(tensors.floats())
        if len(names) != 1:
            raise AdapterError(
                f"The file {tensors.path} holds {tensors.listing()}; a soft prompt's {half} file holds one array of (tokens, width)."
            )
        rows[half] = prompt_rows(tensors, names[0])
    if len({array.shape[1] for array in rows.values()}) > 1:
        shapes = " and ".join(f"{array.shape} ({half})" for half, array in rows.items())
        raise AdapterError(f"The halves in {opened.path} have the shapes {shapes}; those of one model are equally wide.")
    files = list(opened.halves.values())
    digests = [part.sha256 for part in files]
    sha256 = digests[0] if len(digests) == 1 else hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest()
    source = opened.source(next(iter(files[0].floats())), kind=" and ".join(rows))
    source = replace(source, sha256=sha256, tensors=len(files))
    parts = tuple((half, len(array)) for half, array in rows.items())
    embeddings = np.concatenate(list(rows.values()))
    return SoftPrompt(name, embeddings, None, None, None, source, parts=parts if len(parts) > 1 else ())


def _prompt_tensor(opened: Opened) -> str:
    """The name of the tensor that is the prompt: the one of a known name, else the only matrix, else the only vector.

    Raises
    ------
    AdapterError
        It is not clear which.
    """
    tensors = opened.tensors
    if any(name.startswith("base_model.model.") for name in tensors) and not any(map(_RAW_PEFT.fullmatch, tensors)):
        raise AdapterError(
            f"The file {tensors.path} holds {tensors.listing()}: PEFT weights that are neither a prompt nor a LoRA, or no adapter_config.json to say so; "
            "give the folder that holds both."
        )
    if len(tensors) == 1:
        return next(iter(tensors))  # its shape is judged where it is read
    if any(_REENCODED.search(name) for name in tensors):
        raise AdapterError(
            f"The checkpoint {tensors.path} holds the encoder that makes the prompt of its embedding (p-tuning or prefix tuning), not the prompt itself; "
            "save it with PEFT's save_pretrained."
        )
    trained = {name: entry for name, entry in tensors.floats().items() if not _OPTIMIZER.search(name)}
    for ending in PROMPT_NAMES:
        named = [name for name in trained if re.search(rf"(?:^|\.)(?:{ending})$", name)]
        if len(named) == 1:
            return named[0]
    for is_one in (_is_matrix, _is_vector):
        fitting = [name for name, entry in trained.items() if is_one(entry)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            break
    raise AdapterError(
        f"The file {tensors.path} holds {len(tensors)} tensors ({tensors.listing()}) and it is not clear which is the soft prompt; save it alone, as prompt_embeddings."
    )


def _is_matrix(entry: Entry) -> bool:
    return len(entry.shape) == 2 or (len(entry.shape) == 3 and entry.shape[0] == 1)


def _is_vector(entry: Entry) -> bool:
    return len(entry.shape) == 1
