"""What PEFT saved: `adapter_config.json` says what was trained, `adapter_model.safetensors` (or `.bin`) holds it.

A folder that this project trained holds `initial.safetensors` beside them: the values that training started from.
"""

from __future__ import annotations

import re

import numpy as np

from soft_prompt_explorer.analysis.adapters import delta_names, lora_names, trained_tokens
from soft_prompt_explorer.analysis.adapters.lora import LoraAdapter
from soft_prompt_explorer.analysis.adapters.opening import CONFIG, Opened
from soft_prompt_explorer.analysis.adapters.soft_prompt import DRAWN_TO_WORDS, MAX_VALUES, SoftPrompt, checked_floats, left_out, prompt_rows
from soft_prompt_explorer.analysis.core.errors import AdapterError

PROMPTS = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE")
PREFIXES = ("PREFIX_TUNING", "CARTRIDGE")
# What is not read, for what it is, and what to do.
KNOWN = {
    "XLORA": "a router that mixes LoRAs which lie in files of their own; give those",
    "SHADOW": "a small network that runs beside the model and is no change of a weight; use it with PEFT",
}
_LAYER = re.compile(r"base_model\.model\.(?P<module>.+)\.adaption_prompt")


USED = ("prompt_embeddings", "prefix_task_cols", "prefix_task_rows")


def reads(opened: Opened) -> bool:
    return opened.config is not None


def read(opened: Opened, name: str) -> SoftPrompt | LoraAdapter:
    assert opened.config is not None  # or `reads` would have said no
    method = opened.config.get("peft_type")
    if method == "LORA":
        variant = _variant(opened, opened.config)
        return lora_names.read(opened, name) if variant is None else delta_names.read(opened, name, variant)
    if method in PROMPTS:
        return _prompt(opened, opened.config, name, method)
    if method == "ADAPTION_PROMPT":
        return _adaption_prompt(opened, opened.config, name)
    if method == "TRAINABLE_TOKENS":
        return trained_tokens.read(opened, name)
    if isinstance(method, str) and method in delta_names.TYPES:
        return delta_names.read(opened, name, method)
    if isinstance(method, str) and method in KNOWN:
        raise AdapterError(f"The adapter in {opened.path} is of the type {method}, {KNOWN[method]}.")
    raise AdapterError(
        f"The adapter in {opened.path} is of the type {str(method)[:80]}, which is not known here; {', '.join(PROMPTS)}, LORA and its relatives in PEFT are read."
    )


def _variant(opened: Opened, config: dict) -> str | None:
    """The kind of a LoRA whose update is no plain B A; None of any other.

    Raises
    ------
    AdapterError
        It is of a kind whose update is no product at all.
    """
    if config.get("use_qalora"):
        raise AdapterError(
            f"The adapter in {opened.path} is a QA-LoRA, whose A takes means of groups of inputs that only its quantised model tells; use it with PEFT."
        )
    if any(name.endswith(".lora_diag") for name in opened.tensors):
        return "KASA"
    return "BDLORA" if config.get("use_bdlora") else None


def _adaption_prompt(opened: Opened, config: dict, name: str) -> SoftPrompt:
    """A LLaMA-Adapter (Zhang et al. 2023): of each of the last layers the rows that its attention takes as further keys and values, behind a gate."""
    tensors = opened.tensors
    layers = {match["module"]: key for key in tensors if len(key) < 1000 and (match := _LAYER.fullmatch(key)) is not None}
    if not layers:
        raise AdapterError(f"The file {tensors.path} holds {tensors.listing()} and no adaption_prompt, which {CONFIG} promises.")
    ordered = sorted(layers, key=lora_names.natural)
    if sum(tensors.entries[layers[module]].values for module in ordered) > MAX_VALUES:
        raise AdapterError(f"The prompts in {tensors.path} hold more than {MAX_VALUES:,} values together; the file is damaged.")
    rows = [prompt_rows(tensors, layers[module], what="a layer's prompts") for module in ordered]
    if len({each.shape[1] for each in rows}) > 1:
        raise AdapterError(f"The prompts in {tensors.path} are not equally wide in all layers; the file is damaged.")
    gates = {module: f"base_model.model.{module}.adaption_gate" for module in ordered}
    at_hand = {module: gate for module, gate in gates.items() if gate in tensors.entries and tensors.entries[gate].values == 1}
    strengths = [float(checked_floats(tensors[gate], tensors.path).reshape(-1)[0]) for gate in at_hand.values()]
    notes = ["prompts of a LLaMA-Adapter, which each of the last layers' attention takes behind a gate, not input embeddings"]
    if strengths:
        notes.append(
            f"the gates are between {min(strengths):.3g} and {max(strengths):.3g}"
            + (": never opened, so it does nothing" if not any(strengths) else "")
        )
    return SoftPrompt(
        name,
        np.concatenate(rows),
        initial=None,
        base_model=lora_names.base_model(opened),
        method="ADAPTION_PROMPT",
        source=opened.source(layers[ordered[0]]),
        metadata=config | {"gates": dict(zip(at_hand, strengths, strict=True))},
        kind="adaption_prompt",
        parts=tuple((module, len(each)) for module, each in zip(ordered, rows, strict=True)),
        notes=(*notes, *left_out(tensors, {*layers.values(), *at_hand.values()})),
    )


def _prompt(opened: Opened, config: dict, name: str, method: str) -> SoftPrompt:
    tensors = opened.tensors
    if "prompt_embeddings" not in tensors:
        raise AdapterError(
            f"The file {tensors.path} holds {tensors.listing()} and no prompt_embeddings, which {CONFIG} ({method}) promises."
        )
    rows = prompt_rows(tensors, "prompt_embeddings")
    promised = config.get("num_virtual_tokens")
    halves = 2 if config.get("num_transformer_submodules") == 2 else 1  # an encoder-decoder has tokens for each of its two halves
    if promised is not None and not (isinstance(promised, int) and len(rows) in (promised, promised * halves)):
        raise AdapterError(
            f"The file {tensors.path} holds {len(rows)} virtual tokens where {CONFIG} promises {str(promised)[:20]}; one of the two belongs to another adapter."
        )
    parts: tuple[tuple[str, int], ...] = ()
    if halves == 2 and promised is not None and len(rows) == 2 * promised and method not in PREFIXES:
        parts = (("encoder", promised), ("decoder", promised))
    return SoftPrompt(
        name,
        rows,
        initial=opened.initial_rows(rows.shape),
        base_model=lora_names.base_model(opened),
        method=method,
        source=opened.source("prompt_embeddings"),
        metadata={key: value for key, value in config.items() if key not in ("initial", DRAWN_TO_WORDS)}
        | ({DRAWN_TO_WORDS: tensors.metadata[DRAWN_TO_WORDS]} if DRAWN_TO_WORDS in tensors.metadata else {}),
        kind="prefix" if method in PREFIXES else "soft_prompt",
        parts=parts,
        task_factors=_task_factors(opened, rows.shape) if method == "MULTITASK_PROMPT_TUNING" else None,
        notes=(*_notes(config, method, rows), *_drawn_to_words(tensors.metadata), *left_out(tensors, USED)),
    )


def _task_factors(opened: Opened, shape: tuple[int, ...]) -> np.ndarray:
    """What the shared rows are multiplied by for each task: the product of its column and row factors, (t, n, d)."""
    tensors = opened.tensors
    names = ("prefix_task_cols", "prefix_task_rows")
    if any(name not in tensors.entries for name in names):
        raise AdapterError(
            f"The file {tensors.path} holds {tensors.listing()} and not both prefix_task_cols and prefix_task_rows, which multitask prompt tuning trains."
        )
    columns, rows = (tensors.entries[name].shape for name in names)
    fits = len(columns) == len(rows) == 3 and columns[0] == rows[0] and columns[2] == rows[1] and (columns[1], rows[2]) == shape
    if not fits or columns[0] * shape[0] * shape[1] > MAX_VALUES:
        raise AdapterError(
            f"The task factors in {tensors.path} have the shapes {columns} and {rows}, which do not go with a prompt of {shape}."
        )
    parts = [checked_floats(tensors[name], tensors.path) for name in names]
    return np.matmul(*parts)


def _drawn_to_words(metadata: dict) -> tuple[str, ...]:
    if DRAWN_TO_WORDS not in metadata:
        return ()
    return (f"drawn to words while it was trained (γ = {str(metadata[DRAWN_TO_WORDS])[:20]}): that it is near words is how it was made",)


def _notes(config: dict, method: str, rows: np.ndarray) -> tuple[str, ...]:
    if method in PREFIXES:
        layers, width = config.get("num_layers"), config.get("token_dim")
        what = "keys and values of every layer, not input embeddings"
        if isinstance(layers, int) and isinstance(width, int) and layers > 0 and rows.shape[1] % (2 * layers) == 0:
            return (f"{what}: {layers} layers of 2 × {rows.shape[1] // (2 * layers)}",)
        return (what,)
    if method == "MULTITASK_PROMPT_TUNING":
        return (f"rows shared by {config.get('num_tasks') or 'several'} tasks; the model receives them times each task's factors",)
    return ()
