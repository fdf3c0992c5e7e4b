"""Tables on pages: every column is named in words, and each table says what it is to who does not see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.loras.ranks import place_of
from soft_prompt_explorer.app.charts.columns import in_words


def show_table(table: pd.DataFrame, *, alt: str, column_config: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """A table, its columns called as `column_config` says, or else in words, a dash where there is nothing; the options and the answer are those of `st.dataframe`.

    Parameters
    ----------
    alt : what the table shows.
    """
    given = column_config or {}
    named = {}
    for name in map(str, table.columns):
        column = given.get(name, {})
        named[name] = column | {"label": column.get("label") or in_words(name)}
    return st.dataframe(table, column_config={**given, **named}, alt=alt, placeholder="–", **({"hide_index": True} | options))


def modules_in_words(modules: Iterable[str]) -> dict[str, str]:
    """What modules are called on a page: by their layer and projection, and by their path where that were the name of several.

    >>> modules_in_words(["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"])
    {'model.layers.0.self_attn.q_proj': 'layer 0, q', 'model.layers.1.mlp.down_proj': 'layer 1, down'}
    """
    places = {module: place_of(module) for module in modules}
    words = {module: in_words(kind) if layer is None else f"layer {layer}, {in_words(kind)}" for module, (layer, kind) in places.items()}
    count = Counter(words.values())
    return {module: name if count[name] == 1 else module for module, name in words.items()}
