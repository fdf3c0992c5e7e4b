"""Which language model is meant by a name: the embedded model, one from packages, a folder, a `.gguf` file or a hub id."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from soft_prompt_explorer.analysis.core.errors import ModelError, NoSuchModelError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.remedies import MODEL
from soft_prompt_explorer.analysis.core.words import listed
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_ALIASES, EMBEDDED_MODEL, EMBEDDED_WIDTH, embedded_gguf
from soft_prompt_explorer.analysis.models.packaged import PACKAGED, packaged_gguf

DEFAULT = "SPE_MODEL"  # the environment's variable for the model of adapters that name none
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's files are: `path` is a folder (safetensors, config, tokenizer) or a `.gguf` file."""

    name: str
    kind: Literal["embedded", "packaged", "folder", "gguf", "hub"]
    path: Path

    @property
    def is_gguf(self) -> bool:
        return self.kind in ("embedded", "packaged", "gguf")


def resolve_model(name: str, *, report: Report = no_report) -> ModelFiles:
    """Find the files of a model by its name; from the hub, only those that a vocabulary needs.

    Parameters
    ----------
    name : `smollm2-135m`, `gemma3-270m`, `qwen2.5-coder-1.5b`, a folder with a `config.json`, a `.gguf` file, or a hub id such as `openai-community/gpt2`.

    Raises
    ------
    NoSuchModelError
        Nothing of that name: the sentence lists what was tried.
    ModelError
        There is something of that name, but no model that can be read.
    """
    model = local_model(name)
    if model is not None:
        return model
    from soft_prompt_explorer.analysis.models import hub

    return ModelFiles(name, "hub", hub.vocabulary_folder(name, report, tried=places_tried(name)))


def is_at_hand(name: str) -> bool:
    """Whether the model's vocabulary can be read without the network; False as well where there is no such model."""
    try:
        model = local_model(name)
    except ModelError:
        return False
    from soft_prompt_explorer.analysis.models import hub

    return model is not None or hub.is_at_hand(name)


def packaged_here() -> list[str]:
    """The names of the models from packages that are installed."""
    return [name for name in PACKAGED if is_at_hand(name)]


def is_hub_id(name: str) -> bool:
    """Whether a name can be a hub id's and is no path of this machine."""
    return len(name) < 100 and _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def default_model(base_model: str | None, width: int, *, report: Report = no_report) -> str:
    """The model whose vocabulary an adapter is read against when nobody names one.

    The adapter's own base model where it can be resolved; where the adapter names no base, the one of the environment's `SPE_MODEL`, else the embedded one where
    its width fits. A path written in an adapter is never followed, since the file may come from a stranger; it may be the one that `SPE_MODEL` names.

    Raises
    ------
    ModelError
        The adapter names a model that cannot be had or read, or none and its width is not the embedded model's.
    """
    if base_model in EMBEDDED_ALIASES:
        return EMBEDDED_MODEL
    own = persons_model(base_model)
    if own is not None:
        return own
    if base_model is None:
        if width == EMBEDDED_WIDTH:
            return EMBEDDED_MODEL
        raise ModelError(
            f"This prompt is {width} wide and does not say which model it was trained on; {EMBEDDED_MODEL} is {EMBEDDED_WIDTH} wide: "
            "name the prompt's model",
            remedy=MODEL.then(" (a hub id, a folder or a .gguf file)"),
        )
    problem = "a path in an adapter is not followed"
    if is_hub_id(base_model):
        try:
            resolve_model(base_model, report=report)
            return base_model
        except NoSuchModelError:
            problem = "that model was found neither in the local cache nor on the hub"
    raise ModelError(
        f"This prompt was trained on {base_model!r} ({problem}), and neighbours in another model's vocabulary would mean nothing: "
        "name that model's folder, .gguf file or hub id",
        remedy=MODEL,
    )


def persons_model(base_model: str | None) -> str | None:
    """The model that the environment's `SPE_MODEL` names, where an adapter names none or that very one; else None."""
    own = os.environ.get(DEFAULT, "").strip()
    if not own:
        return None
    return own if base_model is None or os.path.normpath(base_model) in (own, os.path.realpath(Path(own).expanduser())) else None


def local_model(name: str) -> ModelFiles | None:
    """The files of a model that its name places on this machine; None where the name can only be a hub id."""
    if name == EMBEDDED_MODEL:
        return ModelFiles(name, "embedded", embedded_gguf())
    if name in PACKAGED:
        return ModelFiles(name, "packaged", packaged_gguf(name))
    try:
        path = Path(name).expanduser()
        path.stat()
    except FileNotFoundError:
        pass
    except (OSError, RuntimeError, ValueError) as error:
        raise NoSuchModelError(f"No model is called {name[:80]!r}; it is neither a path that can be looked up nor a hub id.") from error
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"The folder {name} holds no config.json, so it is not a model; give a folder saved by save_pretrained.")
        return ModelFiles(name, "folder", path)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"The file {name} is not a .gguf; give a .gguf file, or the folder that holds the model.")
        return ModelFiles(name, "gguf", path)
    if _HUB_ID.fullmatch(name) is None:
        raise NoSuchModelError(
            f"No model is called {name!r}; tried {listed(places_tried(name))}, and it is not the form of a hub id (owner/name)."
        )
    return None


def places_tried(name: str) -> list[str]:
    return [f"the embedded model (it is called {EMBEDDED_MODEL})", f"the path {name}"]
