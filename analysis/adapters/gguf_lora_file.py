"""A LoRA as GGUF, which llama.cpp loads: its header is read by counting, as that of a model is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.adapters.tensors import Entry, Tensors, check_count, check_file, starts_with
from soft_prompt_explorer.analysis.core.errors import AdapterError, ModelError
from soft_prompt_explorer.analysis.models.gguf_file import GgufFile

ALPHA = "adapter.lora.alpha"
_ROWS = 8192  # unpacked at a time


def reads(path: Path) -> bool:
    """A GGUF file that says it is an adapter, or holds factors."""
    if not starts_with(path, b"GGUF"):
        return False
    try:
        file = GgufFile(path)
    except ModelError:
        return False  # what is wrong with it, `opening` says
    return file.text("general.type") == "adapter" or any(name.endswith(".lora_a") for name in file.tensors)


def read(path: Path) -> Tensors:
    """Its factors as `MODULE.weight.lora_A` (r, in) and `MODULE.weight.lora_B` (out, r), and α in the metadata.

    Raises
    ------
    AdapterError
        It is damaged, or holds factors of experts, which have three axes.
    """
    size = check_file(path)
    try:
        file = GgufFile(path)
        check_count(len(file.tensors), path)
        entries = {_name(name): _entry(file, name) for name in file.tensors}
        kind, alpha = file.text("adapter.type"), file.real(ALPHA)
    except ModelError as error:
        raise AdapterError(str(error)) from error
    if kind not in (None, "lora"):
        raise AdapterError(f"The file {path} is an adapter for llama.cpp of the type {kind[:60]!r}; only a LoRA is read.")
    metadata = {"general.architecture": file.text("general.architecture"), ALPHA: alpha}
    checks = (
        ("size", f"{size:,} bytes"),
        ("header", "every tensor lies within the file"),
        ("pickle", "none: the format holds plain numbers only"),
    )
    return Tensors(path, "GGUF", entries, {key: value for key, value in metadata.items() if value is not None}, checks)


def _name(name: str) -> str:
    for ending in ("a", "b"):
        if name.endswith(f".lora_{ending}"):
            return name[:-1] + ending.upper()
    return name


def _entry(file: GgufFile, name: str) -> Entry:
    if len(file.tensors[name].shape) == 1:
        raise AdapterError(
            f"The file {file.path} holds a vector, {name[:80]}, and no LoRA alone; give the LoRA that it was converted from, in PEFT's layout."
        )
    rows, width = file.rows_shape(name)

    def values() -> np.ndarray:
        try:
            return np.concatenate(list(file.rows(name, _ROWS)))
        except ModelError as error:
            raise AdapterError(str(error)) from error

    if name.startswith("token_embd.") and name.endswith(".lora_a"):  # llama.cpp keeps that one factor the other way round
        return Entry((width, rows), "float32", lambda: values().T)
    return Entry((rows, width), "float32", values)
