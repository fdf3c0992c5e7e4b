"""What PEFT saved: `adapter_config.json` says what was trained, `adapter_model.safetensors` (or `.bin`) holds it.

A folder that this project trained holds `initial.safetensors` beside them: the values that training started from.
"""

from __future__ import annotations

import numpy as np

from soft_prompt_explorer.analysis.adapters import lora_names
from soft_prompt_explorer.analysis.adapters.lora import LoraAdapter
from soft_prompt_explorer.analysis.adapters.opening import CONFIG, INITIAL, Opened
from soft_prompt_explorer.analysis.adapters.soft_prompt import DRAWN_TO_WORDS, MAX_VALUES, SoftPrompt, checked_floats, left_out, prompt_rows
from soft_prompt_explorer.analysis.core.errors import AdapterError

PROMPTS = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "CPT")
# Other types, for what they are.
KNOWN = {
    "ADAPTION_PROMPT": "a LLaMA-Adapter, whose prompts each layer's attention takes as further keys and values behind a gate",
    "TRAINABLE_TOKENS": "rows of the vocabulary trained anew, of tokens that the base model has",
    "ADALORA": "AdaLoRA, B·diag(E)·A with ranks that training gives out",
    "IA3": "IA³, which multiplies activations",
    "LN_TUNING": "the model's own layer norms",
    "CARTRIDGE": "keys and values of every layer",
    "POLY": "a mixture of LoRAs",
    "XLORA": "a mixture of LoRAs",
}


USED = ("prompt_embeddings", "prefix_task_cols", "prefix_task_rows")


def reads(opened: Opened) -> bool:
    return opened.config is not None


def read(opened: Opened, name: str) -> SoftPrompt | LoraAdapter:
    assert opened.config is not None  # or `reads` would have said no
    method = opened.config.get("peft_type")
    if method == "LORA":
        return lora_names.read(opened, name)
    if method not in PROMPTS:
        what = f", {KNOWN[method]}" if isinstance(method, str) and method in KNOWN else ""
        raise AdapterError(
            f"The adapter in {opened.path} is of the type {str(method)[:80]}{what}; {', '.join(PROMPTS)} and LORA are read, and no other."
        )
    return _prompt(opened, opened.config, name, method)


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
    if halves == 2 and promised is not None and len(rows) == 2 * promised and method != "PREFIX_TUNING":
        parts = (("encoder", promised), ("decoder", promised))
    base_model = config.get("base_model_name_or_path")
    return SoftPrompt(
        name,
        rows,
        initial=_initial(opened, rows.shape),
        base_model=base_model if isinstance(base_model, str) and base_model else None,
        method=method,
        source=opened.source("prompt_embeddings"),
        metadata={key: value for key, value in config.items() if key not in ("initial", DRAWN_TO_WORDS)}
        | ({DRAWN_TO_WORDS: tensors.metadata[DRAWN_TO_WORDS]} if DRAWN_TO_WORDS in tensors.metadata else {}),
        kind="prefix" if method == "PREFIX_TUNING" else "soft_prompt",
        parts=parts,
        task_factors=_task_factors(opened, rows.shape) if method == "MULTITASK_PROMPT_TUNING" else None,
        notes=(*_notes(config, method, rows), *_drawn_to_words(tensors.metadata), *left_out(tensors, USED)),
    )


def _initial(opened: Opened, shape: tuple[int, ...]) -> np.ndarray | None:
    if opened.initial is None:
        return None
    path = opened.initial.path
    if "initial" not in opened.initial or opened.initial.entries["initial"].shape != shape:
        raise AdapterError(
            f"The file {path} ({INITIAL}) does not hold initial values of the shape {shape}; take it away, or put the run's own in its place."
        )
    return prompt_rows(opened.initial, "initial", what="initial values")


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
    if method == "PREFIX_TUNING":
        layers, width = config.get("num_layers"), config.get("token_dim")
        what = "keys and values of every layer, not input embeddings"
        if isinstance(layers, int) and isinstance(width, int) and layers > 0 and rows.shape[1] % (2 * layers) == 0:
            return (f"{what}: {layers} layers of 2 × {rows.shape[1] // (2 * layers)}",)
        return (what,)
    if method == "MULTITASK_PROMPT_TUNING":
        return (f"rows shared by {config.get('num_tasks') or 'several'} tasks; the model receives them times each task's factors",)
    return ()
