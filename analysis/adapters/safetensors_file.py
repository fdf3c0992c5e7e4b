"""A bare `.safetensors` file that holds a soft prompt's tensor and no word on how it was trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from analysis.adapters.soft_prompt import SoftPrompt, Source, check_size, checked_embeddings, file_sha256
from analysis.errors import AdapterError

MAX_HEADER = 2**20
PROMPT_NAMES = ("prompt_embeddings", "prompt_encoder.default.embedding.weight", "soft_prompt", "embedding", "weight")


def reads(path: Path) -> bool:
    """Eight bytes of the header's length, then a JSON object."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size


def read(path: Path, name: str) -> SoftPrompt:
    tensors, metadata = read_tensors(path)
    found = _prompt_tensor(tensors, path)
    source = Source(path, "safetensors", file_sha256(path), dtype_of(path, found), tensors=len(tensors))
    embeddings = checked_embeddings(tensors[found], path)
    return SoftPrompt(name, embeddings, initial=None, base_model=None, method=None, source=source, metadata=metadata)


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """All tensors of a file that is small enough to be an adapter, bfloat16 as float32, and the file's own metadata.

    Raises
    ------
    AdapterError
    """
    check_size(path)
    header = read_header(path)
    import torch
    from safetensors import SafetensorError, safe_open

    tensors = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a dictionary
                tensor = file.get_tensor(key)
                tensors[key] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    except (SafetensorError, TypeError, RuntimeError, OSError) as error:
        raise AdapterError(f"The file {path} is not whole safetensors ({error}); download or save it again.") from error
    return tensors, header.get("__metadata__", {})


def read_header(path: Path) -> dict:
    """The JSON header, refused above 1 MB."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise AdapterError(
                f"The header of {path} has {length:,} bytes and an adapter's at most {MAX_HEADER:,}; the file is damaged or not an adapter."
            )
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise AdapterError(f"The header of {path} is not JSON, so it is not safetensors; download or save it again.") from error
    if not isinstance(header, dict):
        raise AdapterError(f"The header of {path} is not a JSON object, so it is not safetensors; download or save it again.")
    return header


def dtype_of(path: Path, key: str) -> str:
    return str(read_header(path)[key]["dtype"])


def _prompt_tensor(tensors: dict[str, np.ndarray], path: Path) -> str:
    for name in PROMPT_NAMES:
        if name in tensors:
            return name
    flat = [key for key, tensor in tensors.items() if tensor.ndim == 2]
    if len(flat) == 1:
        return flat[0]
    names = ", ".join(list(tensors)[:4]) or "none"
    raise AdapterError(
        f"The file {path} holds {len(tensors)} tensors ({names}…) and it is not clear which is the soft prompt; save it alone, as prompt_embeddings."
    )
