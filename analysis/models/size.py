"""How many parameters a model has, told without loading it."""

from __future__ import annotations

from pathlib import Path

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.computing import parameters_in
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.names import is_hub_id
from soft_prompt_explorer.analysis.models.packaged import PACKAGED
from soft_prompt_explorer.analysis.models.weights import is_prepared, prepare_model

_TOTALS = {EMBEDDED_MODEL: 134_515_008} | {name: packaged.parameters for name, packaged in PACKAGED.items()}  # tied ones counted once


def total_parameters(model: str) -> int | None:
    """How many parameters a model has, tied ones counted once, from the headers of its files; None where they are not on this machine."""
    if model in _TOTALS:
        return _TOTALS[model]
    try:
        folder = _weights_folder(model)
    except (InputError, OSError):
        return None
    return None if folder is None else parameters_in(folder)


def _weights_folder(model: str) -> Path | None:
    """Where the weights lie already; nothing is fetched or converted."""
    from soft_prompt_explorer.analysis.models import hub

    if is_hub_id(model):
        return hub.whole_snapshot(model)
    return prepare_model(model) if is_prepared(model) else None
