"""A soft prompt without a word on how it was trained: one array, a dictionary with one, or a checkpoint that holds it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import numpy as np

from soft_prompt_explorer.analysis.adapters.opening import Opened
from soft_prompt_explorer.analysis.adapters.soft_prompt import MAX_PROMPTS, MAX_VALUES, SoftPrompt, left_out, prompt_rows, stack_of_prompts
from soft_prompt_explorer.analysis.adapters.tensors import Entry, Tensors
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.core.words import printable

# What others call the tensor, by the end of its name, surest first.
_ATTRIBUTE = r"(?:\.weight|\.default)?"
_OTHERS = ("soft_prompt", "soft_prompts", "learned_embedding", "soft_embeds", "prompt_embedding", "soft_embedding")
PROMPT_NAMES = (
    rf"prompt_embeddings{_ATTRIBUTE}|prompt_encoder\.[^.]+\.embedding\.weight",  # PEFT's, saved by it or by hand
    *(name + _ATTRIBUTE for name in _OTHERS),
    rf"ctx{_ATTRIBUTE}",  # CoOp, CoCoOp and MaPLe
)
_RAW_PEFT = re.compile(r"(?:.*\.)?prompt_encoder\.[^.]+\.embedding\.weight")
# The last part of a name says that it is a start: `initial_embeddings`, `prompt_init`, `start`.
_START = re.compile(r"(?:^|[._])(?:initial|init|start)(?:_[a-z_]*)?(?:\.weight)?$", re.IGNORECASE)
_OF_A_LAYER = re.compile(r"(?:^|[._])(?:weight|bias|kernel|[WUVAB]|lora\w*|proj\w*|linear\w*|fc\d*|gate\w*|head\w*|vocab\w*)$")
_REENCODED = re.compile(r"prompt_encoder\.[^.]+\.(?:mlp_head|lstm_head|transform)\.")
_OPTIMIZER = re.compile(r"(?:^|\.)(?:optimizer\w*|optim\w*|exp_avg(?:_sq)?|momentum_buffer|ema\w*)(?:\.|$)", re.IGNORECASE)


def reads(opened: Opened) -> bool:
    return True  # the last to be asked: it says what is missing


def read(opened: Opened, name: str) -> SoftPrompt:
    if opened.halves:
        return _halves(opened, name)
    start = _start_in(opened)
    if start is not None:
        opened = opened.with_entries(
            {each: entry for each, entry in opened.tensors.entries.items() if each != start[1]}
        )  # it has had its use
    several = _several(opened) if start is None else []
    if several:
        return _prompts(opened, name, several)
    found = start[0] if start is not None else _prompt_tensor(opened)
    if len(opened.tensors.entries[found].shape) == 3 and opened.tensors.entries[found].shape[0] > 1:
        return _stack(opened, name, found)
    notes = left_out(opened.tensors, {found})
    if found.endswith("prompt_embeddings"):
        notes = ("PEFT weights without adapter_config.json, so the method is unknown", *notes)
    rows = prompt_rows(opened.tensors, found)
    return SoftPrompt(
        name,
        rows,
        initial=opened.initial_rows(rows.shape) if start is None else prompt_rows(start[2], start[1], what="initial values"),
        base_model=None,
        method=None,
        source=opened.source(found),
        metadata=opened.metadata | opened.tensors.metadata,
        notes=notes,
    )


def _start_in(opened: Opened) -> tuple[str, str, Tensors] | None:
    """Of a file of a prompt and the values that it started from: the names of the two, and the tensors that hold the second; None of any other."""
    matrices = {name: entry.shape for name, entry in _trained(opened.tensors).items() if _is_matrix(entry)}
    starts = [name for name in matrices if _START.search(name)]
    if len(starts) != 1:
        return None
    alike = [name for name, shape in matrices.items() if name != starts[0] and shape == matrices[starts[0]]]
    return (alike[0], starts[0], opened.tensors) if len(alike) == 1 else None


def _several(opened: Opened) -> list[str]:
    """The names of the prompts of a file that holds many: as many as have one known name, else all its matrices where nothing else is in it.

    Those without a known name are taken for prompts only where each is wider than long, all are equally wide and none is called a weight: two layers of a
    network look otherwise.
    """
    trained = _trained(opened.tensors)
    for ending in PROMPT_NAMES:
        named = [name for name in trained if re.search(rf"(?:^|\.)(?:{ending})$", name) and _is_matrix(trained[name])]
        if named:
            return named if len(named) > 1 and len({trained[name].shape[-1] for name in named}) == 1 else []
    if len(trained) < 2 or len(trained) != len(opened.tensors) or any(name.startswith("base_model.model.") for name in trained):
        return []
    shapes = [entry.shape for entry in trained.values()]
    fit = (
        all(map(_is_matrix, trained.values()))
        and len({shape[-1] for shape in shapes}) == 1
        and all(shape[-2] < shape[-1] for shape in shapes)
    )
    return list(trained) if fit and not any(_OF_A_LAYER.search(name) for name in trained) else []


def _prompts(opened: Opened, name: str, found: list[str]) -> SoftPrompt:
    """All the prompts of a file, a part each, called by what tells their names apart."""
    tensors = opened.tensors
    if len(found) > MAX_PROMPTS or sum(tensors.entries[each].values for each in found) > MAX_VALUES:
        raise AdapterError(
            f"The file {tensors.path} holds {len(found):,} prompts, at most {MAX_PROMPTS:,} of {MAX_VALUES:,} values together are read; save fewer of them."
        )
    rows = [prompt_rows(tensors, each) for each in found]
    parts = tuple((label, len(each)) for label, each in zip(_labels(found), rows, strict=True))
    notes = (f"holds {len(found)} prompts, a part each", *left_out(tensors, set(found)))
    metadata = opened.metadata | tensors.metadata
    return SoftPrompt(name, np.concatenate(rows), None, None, None, opened.source(found[0]), metadata, parts=parts, notes=notes)


def _labels(names: list[str]) -> list[str]:
    """What is different in names, without the pieces that all of them begin or end with."""
    pieces = [name.split(".") for name in names]
    shortest = min(map(len, pieces))
    first = next((i for i in range(shortest) if len({each[i] for each in pieces}) > 1), shortest - 1)
    last = next((i for i in range(shortest - first) if len({each[-1 - i] for each in pieces}) > 1), 0)
    return [printable(".".join(each[first : len(each) - last]))[:80] or str(i) for i, each in enumerate(pieces)]


def _stack(opened: Opened, name: str, found: str) -> SoftPrompt:
    """Prompts (k, n, d) in one tensor: CoOp's contexts, one a class, or anybody's."""
    rows, length = stack_of_prompts(opened.tensors, found)
    count = len(rows) // length
    each = "class" if found.rpartition(".")[2] == "ctx" else "prompt"
    known = "" if found else ", by its three axes alone"  # an array without a name
    notes = (f"taken for a stack of {count} prompts of {length} tokens, one after the other{known}", *left_out(opened.tensors, {found}))
    parts = tuple((f"{each} {i}", length) for i in range(count))
    metadata = opened.metadata | opened.tensors.metadata
    return SoftPrompt(name, rows, None, None, None, opened.source(found), metadata, parts=parts, notes=notes)


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
    trained = _trained(tensors)
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


def _trained(tensors: Tensors) -> dict[str, Entry]:
    """The tensors of numbers but what an optimiser keeps."""
    return {name: entry for name, entry in tensors.floats().items() if not _OPTIMIZER.search(name)}


def _is_matrix(entry: Entry) -> bool:
    return len(entry.shape) == 2 or (len(entry.shape) == 3 and entry.shape[0] == 1)


def _is_vector(entry: Entry) -> bool:
    return len(entry.shape) == 1
