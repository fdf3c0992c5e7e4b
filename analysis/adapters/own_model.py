"""Which model an adapter is read against when nobody names one: that of a training that was done or recorded here, else the one that its file names."""

from __future__ import annotations

import os
from pathlib import Path

from soft_prompt_explorer.analysis.adapters import recorded_here
from soft_prompt_explorer.analysis.adapters.lora import LoraAdapter
from soft_prompt_explorer.analysis.adapters.run_file import in_store, read_description
from soft_prompt_explorer.analysis.adapters.soft_prompt import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import cache_folder
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL, EMBEDDED_SHA256, EMBEDDED_WIDTH
from soft_prompt_explorer.analysis.models.names import default_model, persons_model
from soft_prompt_explorer.analysis.models.packaged import PACKAGED


def model_of(adapter: SoftPrompt | LoraAdapter, *, report: Report = no_report) -> str:
    """The name of the model, which may be a folder of this machine where the adapter is one of the person's own runs, or of a training that was recorded here: what lies elsewhere says what
    somebody else put there.

    Raises
    ------
    ModelError
        As `models.names.default_model`.
    """
    own = trusted_model(adapter)
    if own is not None:
        return own
    width = adapter.width if isinstance(adapter, SoftPrompt) and adapter.is_embeddings else EMBEDDED_WIDTH
    return default_model(adapter.base_model, width, report=report)


def trusted_model(adapter: SoftPrompt | LoraAdapter) -> str | None:
    """The model that a person's own run was trained on, or that the person named for adapters that name none; None where only the file's word is left."""
    return _of_run(adapter) or _unpacked_here(adapter.base_model) or _recorded_here(adapter) or persons_model(adapter.base_model)


def _of_run(adapter: SoftPrompt | LoraAdapter) -> str | None:
    if adapter.source is None:
        return None
    path = adapter.source.path
    folder = in_store(path if path.is_dir() else path.parent)
    if folder is None or not (folder / "run.json").is_file():
        return None
    try:
        name = read_description(folder)["model"]["name"]
    except InputError:  # damaged, as the page and `list` say
        return None
    return name if name == adapter.base_model else None  # the adapter says it too, as every run's does


def _unpacked_here(base_model: str | None) -> str | None:
    """The model that our own cache holds unpacked under the path that an adapter names, as one does that a script trained on it. No other path is looked at."""
    models = cache_folder() / "models"
    folder = Path(os.path.normpath(base_model)) if base_model is not None else None
    if folder is None or folder.parent not in (models, models.resolve()) or not (folder / "config.json").is_file():
        return None
    known = {EMBEDDED_MODEL: EMBEDDED_SHA256} | {name: each.sha256 for name, each in PACKAGED.items()}
    return next((name for name, sha256 in known.items() if f"-{sha256[:12]}-" in folder.name), str(folder))


def _recorded_here(adapter: SoftPrompt | LoraAdapter) -> str | None:
    return None if adapter.source is None else recorded_here.noted_model(adapter.source.path, adapter.base_model)
