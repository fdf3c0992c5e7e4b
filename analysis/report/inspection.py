"""What is in these files: one row a file, without running a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter, LoraFactors, SoftPrompt, load_adapter
from soft_prompt_explorer.analysis.adapters.own_model import trusted_model
from soft_prompt_explorer.analysis.adapters.tensors import MAX_TENSORS
from soft_prompt_explorer.analysis.core.errors import AdapterError, ModelError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.remedies import BESIDE, MODEL_TOO
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.loras.ranks import measures
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_ALIASES, EMBEDDED_MODEL, EMBEDDED_WIDTH
from soft_prompt_explorer.analysis.models.names import is_at_hand, is_hub_id
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary, load_vocabulary
from soft_prompt_explorer.analysis.prompts.never_trained import untrained
from soft_prompt_explorer.analysis.prompts.starts import mark_of, names_start, start_from_config

COLUMNS = [
    "path",
    "kind",
    "format",
    "tensors",
    "virtual_tokens",
    "width",
    "dtype",
    "base_model",
    "method",
    "norm_median",
    "sha256",
    "notes",
    "effective_rank",
]
MOST_RANKED = 2_000  # virtual tokens whose rank is told: of more it takes minutes
PARTS_TOLD = 8
SHORTEST, LONGEST = 0.01, 100.0  # norms within these multiples of the vocabulary's are nothing to remark on


def inspect(paths: Sequence[str | Path], *, model: str | None = None, report: Report = no_report) -> pd.DataFrame:
    """One row a file or folder, with the columns of `COLUMNS`; norm_median is that of the virtual tokens, effective_rank exp(H(σ/Σσ)) of their (n, d) rows as
    they stand (Roy & Vetterli 2007; missing beyond 2,000 tokens).

    A file that is refused has no kind, and its notes hold the sentence that says why, so that one bad file among many loses nothing.

    Parameters
    ----------
    model : whose vocabulary the norms are compared with; each prompt's own where it is on this machine when None.

    Raises
    ------
    ModelError
        `model` resolves to nothing.
    """
    vocabulary = None if model is None else load_vocabulary(model, report=report)
    rows = []
    for i, path in enumerate(paths):
        if len(paths) > 1:
            report(i / len(paths), f"reading {printable(Path(path).name)}")
        rows.append(_row(path, vocabulary))
    return pd.DataFrame(rows, columns=COLUMNS).astype(
        {"virtual_tokens": "Int64", "width": "Int64", "tensors": "Int64", "effective_rank": "float64"}
    )


def describe(adapter: SoftPrompt | LoraAdapter, vocabulary: Vocabulary | None = None) -> dict:
    """The row of `inspect` for an adapter that was read, from `kind` on."""
    source = adapter.read_from
    row = {
        "kind": adapter.kind,
        "format": source.format,
        "tensors": source.tensors,
        "dtype": source.dtype,
        "base_model": adapter.base_model and printable(adapter.base_model),
        "method": adapter.method,
        "sha256": source.sha256,
        "notes": "; ".join(notes_on(adapter, vocabulary)),
    }
    if isinstance(adapter, SoftPrompt):
        row |= {"virtual_tokens": len(adapter), "width": adapter.width, "norm_median": float(np.median(adapter.norms))}
        if len(adapter) <= MOST_RANKED:
            values = np.linalg.svd(adapter.embeddings.astype(np.float64), compute_uv=False)
            row["effective_rank"] = measures(values, len(adapter))["effective_rank"]
    return row


def notes_on(adapter: SoftPrompt | LoraAdapter, vocabulary: Vocabulary | None = None) -> list[str]:
    """What a person should know of an adapter. Of a LoRA every factor is read for it, one module at a time.

    Parameters
    ----------
    vocabulary : whose norms a prompt's are compared with; the prompt's own, where it is on this machine, when None.
    """
    found = _lora_notes(adapter) if isinstance(adapter, LoraAdapter) else _prompt_notes(adapter, vocabulary)
    return [printable(note) for note in found]


def token_norms(prompt: SoftPrompt) -> pd.DataFrame:
    """One row a virtual token: position, part (of an encoder-decoder; else empty), norm (Euclidean)."""
    parts = [part for part, rows in prompt.parts or (("", len(prompt)),) for _ in range(rows)]
    return pd.DataFrame({"position": np.arange(len(prompt)), "part": parts, "norm": prompt.norms})


def receipt(adapter: SoftPrompt | LoraAdapter) -> pd.DataFrame:
    """What was checked of a file before it was read: rows of check and found."""
    source = adapter.read_from
    shape = f"{len(adapter)} modules" if isinstance(adapter, LoraAdapter) else f"{len(adapter)} × {adapter.width}, every value finite"
    rows = [
        ("format", source.format),
        ("tensors", f"{source.tensors:,}, at most {MAX_TENSORS:,}"),
        ("what was read", f"{shape}, {source.dtype}"),
        *source.checks,
        ("sha256", source.sha256),
    ]
    return pd.DataFrame([tuple(map(printable, row)) for row in rows], columns=["check", "found"])


def modules(lora: LoraAdapter) -> pd.DataFrame:
    """One row a module of a LoRA: module, rank, out_features, in_features (missing where only the base model tells them), scaling, dtype."""
    rows = [
        (printable(path), *(_sizes(factors) if factors.is_known else (None,) * 3), factors.scaling, factors.dtype)
        for path, factors in lora.modules.items()
    ]
    table = pd.DataFrame(rows, columns=["module", "rank", "out_features", "in_features", "scaling", "dtype"])
    return table if all(factors.is_known for factors in lora.modules.values()) else table.astype(dict.fromkeys(table.columns[1:4], "Int64"))


def _sizes(factors: LoraFactors) -> tuple[int, int, int]:
    return factors.rank, factors.out_features, factors.in_features


def _row(path: str | Path, vocabulary: Vocabulary | None) -> dict:
    try:
        return {"path": printable(str(path)), **describe(load_adapter(path), vocabulary)}
    except AdapterError as error:
        return {"path": printable(str(path)), "notes": str(error)}


def vocabulary_at_hand(prompt: SoftPrompt) -> Vocabulary | None:
    """The vocabulary that a prompt is read against by default, if no network is needed for it and the widths agree."""
    known = trusted_model(prompt)
    named = known or prompt.base_model or EMBEDDED_MODEL
    if named in EMBEDDED_ALIASES:
        named = EMBEDDED_MODEL
    if named == EMBEDDED_MODEL and prompt.width != EMBEDDED_WIDTH:
        return None
    try:
        followed = known is not None or named == EMBEDDED_MODEL or is_hub_id(named)  # a path in an adapter is not
        if not (followed and is_at_hand(named)):
            return None
        found = load_vocabulary(named)
    except ModelError:
        return None
    return found if found.width == prompt.width else None


def _prompt_notes(prompt: SoftPrompt, vocabulary: Vocabulary | None) -> list[str]:
    norms = prompt.norms
    if prompt.kind == "soft_prompt":
        vocabulary = vocabulary or vocabulary_at_hand(prompt)
        if vocabulary is not None:
            prompt = start_from_config(prompt, vocabulary)
    notes = list(prompt.notes)
    why = untrained(prompt, vocabulary)
    if why is not None:
        notes.append(why)
    notes += _base_model_notes(prompt.base_model)
    if prompt.kind == "soft_prompt":
        notes += _start_notes(prompt, vocabulary)
    start = 0
    for part, rows in prompt.parts[:PARTS_TOLD]:
        notes.append(f"tokens {start} to {start + rows - 1} are the {part}'s")
        start += rows
    if len(prompt.parts) > PARTS_TOLD:
        notes.append(f"and so on, {len(prompt.parts)} parts in all")
    repeated = len(prompt) - len(np.unique(prompt.embeddings, axis=0))
    if repeated and norms.any():
        from_text = str(prompt.metadata.get("prompt_tuning_init", "")).upper().endswith("TEXT")
        why = ", as initialisation from a short text makes them" if from_text else ""
        notes.append(f"{repeated} of {len(prompt)} rows repeat another{why}")
    if vocabulary is not None and prompt.kind == "soft_prompt" and prompt.width == vocabulary.width:
        ratios = norms / vocabulary.median_norm
        for odd, word in ((ratios < SHORTEST, "under 0.01"), (ratios > LONGEST, "over 100")):
            if odd.any() and norms.any():
                notes.append(f"the norm of {int(odd.sum())} of {len(prompt)} tokens is {word} times that of {vocabulary.model}'s words")
    return notes


def _start_notes(prompt: SoftPrompt, vocabulary: Vocabulary | None) -> list[str]:
    if mark_of(prompt):
        return [f"the initial values are taken {mark_of(prompt)[2:-1]}"]
    if prompt.initial is not None:
        return []
    if names_start(prompt) and vocabulary is None:
        return [f"the initial values are named by the config, and the vocabulary that tells their rows is not on this machine; {MODEL_TOO}"]
    return ["the initial values are unknown"]


def _lora_notes(lora: LoraAdapter) -> list[str]:
    if lora.needs_weights:
        return [f"{len(lora)} modules; what they change is told {BESIDE}", *lora.notes, *_base_model_notes(lora.base_model)]
    ranks = Counter(factors.rank for factors in lora.modules.values())
    shown = ", ".join(f"{rank}" for rank, _ in ranks.most_common(4)) + (" and more" if len(ranks) > 4 else "")
    notes = [f"{len(lora)} modules of rank {shown}", *lora.notes, *_base_model_notes(lora.base_model)]
    untrained, damaged = 0, []
    for path, factors in lora.modules.items():
        A, B = factors.both()
        untrained += not (A.any() and B.any())  # PEFT starts from B = 0, in an embedding from A = 0
        if not (np.isfinite(A).all() and np.isfinite(B).all()):
            damaged.append(path)
    if untrained:
        notes.append(
            "never trained: every update is zero (B = 0)"
            if untrained == len(lora)
            else f"never trained in {untrained} of {len(lora)} modules: their update is zero (B = 0)"
        )
    if damaged:
        notes.append(f"NaN or infinity in {len(damaged)} modules, the first {damaged[0]}: the training diverged or the file is damaged")
    if lora.textual_inversion is not None:
        words = lora.textual_inversion
        if words.kind == "textual_inversion":
            notes.append(f"also holds textual-inversion vectors {len(words)} × {words.width} ({', '.join(words.metadata['words'][:4])})")
        else:
            notes.append(f"also holds {words.notes[0]}: neighbours and readings read them")
    return notes


def _base_model_notes(base_model: str | None) -> list[str]:
    if base_model is None:
        return ["the base model is unknown"]
    if base_model in EMBEDDED_ALIASES and base_model != EMBEDDED_MODEL:
        return [f"{EMBEDDED_MODEL} is the 4-bit copy of the base model"]
    return []
