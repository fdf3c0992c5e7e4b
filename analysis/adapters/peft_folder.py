"""A PEFT folder: `adapter_config.json` says what was trained, `adapter_model.safetensors` holds it.

A folder that this project trained holds `initial.safetensors` beside them: the values that training started from.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from analysis.adapters.safetensors_file import dtype_of, read_tensors
from analysis.adapters.soft_prompt import SoftPrompt, Source, checked_embeddings, file_sha256
from analysis.errors import AdapterError

CONFIG, WEIGHTS, INITIAL = "adapter_config.json", "adapter_model.safetensors", "initial.safetensors"
MAX_CONFIG = 2**20


def reads(path: Path) -> bool:
    return path.is_dir() and (path / CONFIG).is_file()


def read(path: Path, name: str) -> SoftPrompt:
    config = read_config(path / CONFIG)
    method = config.get("peft_type")
    if method != "PROMPT_TUNING":
        raise AdapterError(f"The adapter in {path} is of the type {method}; only PROMPT_TUNING adapters can be read so far.")
    weights = path / WEIGHTS
    if not weights.is_file():
        raise AdapterError(
            f"The folder {path} holds {CONFIG} but no {WEIGHTS}; put the file beside it, or save the adapter again with save_pretrained."
        )
    tensors, _ = read_tensors(weights)
    if "prompt_embeddings" not in tensors:
        raise AdapterError(
            f"The file {weights} holds {', '.join(list(tensors)[:4]) or 'no tensor'} and no prompt_embeddings, which {CONFIG} (PROMPT_TUNING) promises."
        )
    embeddings = checked_embeddings(tensors["prompt_embeddings"], weights)
    promised = config.get("num_virtual_tokens")
    halves = 2 if config.get("num_transformer_submodules") == 2 else 1  # an encoder-decoder has tokens for each of its two halves
    if promised is not None and not (isinstance(promised, int) and len(embeddings) in (promised, promised * halves)):
        raise AdapterError(
            f"The file {weights} holds {len(embeddings)} virtual tokens where {CONFIG} promises {promised}; one of the two belongs to another adapter."
        )
    base_model = config.get("base_model_name_or_path")
    source = Source(path, "PEFT folder", file_sha256(weights), dtype_of(weights, "prompt_embeddings"), tensors=len(tensors))
    return SoftPrompt(
        name,
        embeddings,
        initial=_initial(path / INITIAL, embeddings.shape),
        base_model=base_model if isinstance(base_model, str) and base_model else None,
        method=method,
        source=source,
        metadata=config,
    )


def read_config(path: Path) -> dict:
    """An adapter_config.json as a dictionary.

    Raises
    ------
    AdapterError
    """
    if path.stat().st_size > MAX_CONFIG:
        raise AdapterError(f"The file {path} has {path.stat().st_size:,} bytes; an adapter's config has a few hundred.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"The file {path} is not JSON; copy or download it again.") from error
    if not isinstance(config, dict):
        raise AdapterError(f"The file {path} is not a JSON object; copy or download it again.")
    return config


def _initial(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    if not path.is_file():
        return None
    tensors, _ = read_tensors(path)
    if "initial" not in tensors or tensors["initial"].shape != shape:
        raise AdapterError(
            f"The file {path} does not hold initial values of the shape {shape}; take it away, or put the run's own in its place."
        )
    return checked_embeddings(tensors["initial"], path, what="initial values")
