"""The comparisons that ship, a CSV file each, beside what papers published about score and size: `published.json`, whose every figure names its table."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd

from analysis.errors import InputError
from analysis.gemma import GEMMA_MODEL
from analysis.models import EMBEDDED_MODEL, is_hub_id, is_prepared, prepare_model

PUBLISHED_COLUMNS = ["paper", "table", "metric", "model", "total", "method", "printed", "trainable", "score", "plus_minus", "note"]
_TOTALS = {EMBEDDED_MODEL: 134_515_008, GEMMA_MODEL: 268_098_176}  # parameters, tied ones counted once


def published() -> pd.DataFrame:
    """What papers published, a row a figure.

    Columns: paper, table (its number there), metric, model, total (its parameters), method, printed (what the paper calls it), trainable (parameters),
    score (as printed), plus_minus (NaN where the paper gives none), note.
    """
    tables = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))["tables"]
    rows = [{key: table[key] for key in ("paper", "table", "metric")} | row for table in tables for row in table["rows"]]
    return pd.DataFrame(rows, columns=PUBLISHED_COLUMNS)


def told_apart(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `comparison.all_kept` with the column comparison: its number, from 1. Each begins with its row of zero-shot."""
    return table.assign(comparison=(table["method"] == "zero-shot").cumsum())


def beside_zero_shot(table: pd.DataFrame) -> pd.Series:
    """Of each row of one comparison: above, within or below; above and below where its 95 % interval and that of zero-shot have nothing in common."""
    bare = table[table["method"] == "zero-shot"].iloc[0]
    place = pd.Series("within", index=table.index)
    place[table["low"] > bare["high"]] = "above"
    place[table["high"] < bare["low"]] = "below"
    return place


def best_of_each_method(table: pd.DataFrame) -> pd.DataFrame:
    """One row a method in the order of the table: of prompt engineering, the hand-written prompt that scored best."""
    best = table.groupby("method", sort=False)["score"].idxmax()
    return table.loc[best]


def total_parameters(model: str) -> int | None:
    """How many parameters a model has, tied ones counted once, from the headers of its files; None where they are not on this machine."""
    if model in _TOTALS:
        return _TOTALS[model]
    from safetensors import SafetensorError, safe_open

    try:
        folder, total = _weights_folder(model), 0
        for path in folder.glob("*.safetensors") if folder else ():
            with safe_open(path, framework="np") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - not a dictionary
    except (InputError, OSError, SafetensorError):
        return None
    return total or None


def _weights_folder(model: str) -> Path | None:
    """Where the weights lie already; nothing is fetched or converted."""
    from analysis import hub

    if is_hub_id(model):
        return hub.whole_snapshot(model)
    return prepare_model(model) if is_prepared(model) else None
