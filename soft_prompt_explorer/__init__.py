"""Soft Prompt Explorer: what a soft prompt or a LoRA does, in tables.

    >>> import soft_prompt_explorer as spe
    >>> prompt = spe.load_adapter(spe.GALLERY / "plural-words-1")
    >>> vocabulary = spe.load_vocabulary("smollm2-135m")
    >>> spe.neighbours(prompt, vocabulary, top_k=1)["token"].head(3).tolist()
    [' organ', ' foot', ' picture']

The verbs below answer pandas tables whose columns docs/command_line.md tells. Each is imported when it is first used, so that reading a file does not
load torch.
"""

from __future__ import annotations

from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soft_prompt_explorer.analysis.adapters import load_adapter
    from soft_prompt_explorer.analysis.behaviour.of_task import behaviour_on as behaviour
    from soft_prompt_explorer.analysis.core.folders import GALLERY
    from soft_prompt_explorer.analysis.loras.ranks import spectra
    from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
    from soft_prompt_explorer.analysis.models.weights import load_model
    from soft_prompt_explorer.analysis.prompts.clusters import find_clusters
    from soft_prompt_explorer.analysis.prompts.directions import direction as task_direction
    from soft_prompt_explorer.analysis.prompts.likeness import similarity
    from soft_prompt_explorer.analysis.prompts.search import neighbours
    from soft_prompt_explorer.analysis.prompts.verdicts import readings
    from soft_prompt_explorer.analysis.report.page import report
    from soft_prompt_explorer.trained_prompts.training.callback import ExplorerCallback, Recorder
    from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
    from soft_prompt_explorer.trained_prompts.training.trainer import train

__all__ = [
    "GALLERY",
    "ExplorerCallback",
    "Recorder",
    "TrainingConfig",
    "behaviour",
    "find_clusters",
    "load_adapter",
    "load_model",
    "load_vocabulary",
    "neighbours",
    "readings",
    "report",
    "similarity",
    "spectra",
    "task_direction",
    "train",
]

_ROOT = Path(__file__).parents[1]
if (_ROOT / "analysis").is_dir() and not (Path(__file__).parent / "analysis").is_dir():
    __path__.append(str(_ROOT))  # in a clone the three rooms lie beside this folder, in an installed package within it

_PLACES = {
    "GALLERY": ("analysis.core.folders", "GALLERY"),
    "ExplorerCallback": ("trained_prompts.training.callback", "ExplorerCallback"),
    "Recorder": ("trained_prompts.training.callback", "Recorder"),
    "TrainingConfig": ("trained_prompts.training.config", "TrainingConfig"),
    "behaviour": ("analysis.behaviour.of_task", "behaviour_on"),
    "find_clusters": ("analysis.prompts.clusters", "find_clusters"),
    "load_adapter": ("analysis.adapters", "load_adapter"),
    "load_model": ("analysis.models.weights", "load_model"),
    "load_vocabulary": ("analysis.models.vocabulary", "load_vocabulary"),
    "neighbours": ("analysis.prompts.search", "neighbours"),
    "readings": ("analysis.prompts.verdicts", "readings"),
    "report": ("analysis.report.page", "report"),
    "similarity": ("analysis.prompts.likeness", "similarity"),
    "spectra": ("analysis.loras.ranks", "spectra"),
    "task_direction": ("analysis.prompts.directions", "direction"),
    "train": ("trained_prompts.training.trainer", "train"),
}


def __getattr__(name: str):
    if name == "__version__":
        try:
            return metadata.version("soft-prompt-explorer")
        except metadata.PackageNotFoundError:  # a clone that is not installed
            return "not installed"
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    if name in ("load_adapter", "load_vocabulary"):
        import_module(f"{__name__}.analysis.report.notebook")  # from then on what is loaded shows itself in a notebook
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
