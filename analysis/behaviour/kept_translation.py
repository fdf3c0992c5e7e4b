"""The texts in an adapter's place, kept in the folder of its run: `translation.json`."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.adapters.run_file import in_store
from soft_prompt_explorer.analysis.behaviour.translation import COLUMNS
from soft_prompt_explorer.analysis.core.strange_files import DAMAGED, MOST_BYTES, read_file

FILE = "translation.json"  # no CSV, which a spreadsheet would change texts in
NUMBERS = ["perplexity", "kl", "share", "share_low", "share_high", "same_answer", "control_share"]
MOST_ROWS = 200


def write(table: pd.DataFrame, folder: Path) -> None:
    """Keep a table of `translation.translate` of one adapter in a run's folder, without the path, which is another one elsewhere."""
    from soft_prompt_explorer.analysis.core.export import WRITERS
    from soft_prompt_explorer.analysis.core.folders import write_whole

    write_whole(folder / FILE, WRITERS["json"](table.assign(path="").round(6)))


def kept_with(adapter: SoftPrompt | LoraAdapter) -> pd.DataFrame | None:
    """What is kept with the run that an adapter was read from, as it was read; None of anything else: what lies in another folder says what somebody put there."""
    folder = in_store(adapter.source.path) if adapter.source is not None else None
    return None if folder is None else read(folder)


def read(folder: Path) -> pd.DataFrame | None:
    """What is kept in a folder; None where there is nothing that can be read."""
    try:
        table = pd.DataFrame(json.loads(read_file(folder / FILE, MOST_BYTES)))
        texts = table.get(["prompt", "path", "task", "candidate", "text"])
        if (
            table.columns.tolist() != COLUMNS
            or not 0 < len(table) <= MOST_ROWS
            or not texts.map(lambda value: isinstance(value, str)).all(axis=None)
        ):
            return None
        return table.astype(dict.fromkeys(NUMBERS, "float64") | {"tokens": "int64", "n": "int64", "chosen": "bool"})
    except DAMAGED:
        return None
