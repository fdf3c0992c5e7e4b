"""Which model a name stood for: the sha256 of its weights, or the commit of the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.core import provenance
from soft_prompt_explorer.analysis.core.folders import cache_folder, file_state
from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_SHA256, file_sha256
from soft_prompt_explorer.analysis.models.names import ModelFiles
from soft_prompt_explorer.analysis.models.packaged import PACKAGED

_VERSION = 1  # of what is kept
_COMMIT = re.compile(r"[0-9a-f]{40}")


def note(model: ModelFiles) -> None:
    """Say that this model was read, for the provenance of what is made of it; its weights are hashed once that is written down."""
    provenance.model_read(model.name, partial(digest_of, model))


def digest_of(model: ModelFiles) -> Mapping[str, str | None]:
    """The `commit` of a model of the hub, which its folder is called by, or the `sha256` of the weights of any other; None where there is none."""
    if model.kind == "hub":
        return {"commit": model.path.name if _COMMIT.fullmatch(model.path.name) else None}
    return {"sha256": weights_sha256(model)}


def weights_sha256(model: ModelFiles) -> str | None:
    """The sha256 of a `.gguf` file, or over a folder's safetensors files in the order of their names; None where it has none.

    It is computed once for each state of the files, and kept.
    """
    if (known := known_sha256(model)) is not None:
        return known
    files = [model.path] if model.is_gguf else sorted(model.path.glob("*.safetensors"))
    if not files:
        return None
    state = hashlib.sha256(repr([(str(path.resolve()), file_state(path)) for path in files]).encode()).hexdigest()

    def hashed() -> dict[str, np.ndarray]:
        digest = file_sha256(files[0]) if model.is_gguf else sha256_over(files)
        return {"sha256": np.frombuffer(bytes.fromhex(digest), dtype=np.uint8)}

    kept = KeptArrays(cache_folder() / "digests", state[:24], _VERSION, shapes={"sha256": (32,)}).get(hashed)
    return kept["sha256"].tobytes().hex()


def known_sha256(model: ModelFiles) -> str | None:
    """The sha256 that this version expects of a model's `.gguf` file, checked where it is unpacked or joined; None of any other model."""
    if model.kind == "embedded":
        return EMBEDDED_SHA256
    return PACKAGED[model.name].sha256 if model.kind == "packaged" else None


def sha256_over(files: list[Path]) -> str:
    """The sha256 of several files' digests, in their order."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()
