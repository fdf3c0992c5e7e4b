"""Which model an adapter is read against when nobody names one: that of a run trained here, else the one that its file names."""

from __future__ import annotations

from soft_prompt_explorer.analysis.adapters.lora import LoraAdapter
from soft_prompt_explorer.analysis.adapters.run_file import in_store, read_description
from soft_prompt_explorer.analysis.adapters.soft_prompt import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_WIDTH
from soft_prompt_explorer.analysis.models.names import default_model, persons_model


def model_of(adapter: SoftPrompt | LoraAdapter, *, report: Report = no_report) -> str:
    """The name of the model, which may be a folder of this machine where the adapter is one of the person's own runs: what lies elsewhere says what somebody else put there.

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
    return _of_run(adapter) or persons_model(adapter.base_model)


def _of_run(adapter: SoftPrompt | LoraAdapter) -> str | None:
    if adapter.source is None:
        return None
    path = adapter.source.path
    folder = in_store(path if path.is_dir() else path.parent)
    if folder is None or not (folder / "run.json").is_file():
        return None
    try:
        return read_description(folder)["model"]["name"]
    except InputError:  # damaged, as the page and `list` say
        return None
