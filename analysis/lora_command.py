"""What the command `spectra` does with a LoRA's effect on a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from soft_prompt_explorer.analysis.adapters import LoraAdapter
    from soft_prompt_explorer.analysis.core.progress import Report


def by_effect(
    adapter: LoraAdapter, path: Path, task: str, examples: int, model: str | None, share: float | None, save: Path | None, report: Report
) -> pd.DataFrame:
    """The table of `effects`; or, once a copy is written, that of `keep_directions`."""
    from soft_prompt_explorer.analysis.adapters.own_model import model_of
    from soft_prompt_explorer.analysis.asking.sensitivity import effects, fewest_by_effect
    from soft_prompt_explorer.analysis.behaviour.templates import how_asked
    from soft_prompt_explorer.analysis.core.progress import part
    from soft_prompt_explorer.analysis.loras.truncation import check_can_be_copied, keep_directions
    from soft_prompt_explorer.analysis.models.weights import load_model

    check_can_be_copied(adapter)
    asked = how_asked(path, task).task
    language_model = load_model(model or model_of(adapter, report=report), report=report)
    table = effects(adapter, asked, language_model=language_model, examples=examples, report=part(report, 0, 2))
    if share is None or save is None:
        return table
    return keep_directions(adapter, fewest_by_effect(table, share), save, report=part(report, 1, 2))
