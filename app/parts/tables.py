"""Tables on pages: every column is named in words, and each table says what it is to who does not see it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.core.words import p_value
from soft_prompt_explorer.analysis.loras.ranks import place_of
from soft_prompt_explorer.app.charts.columns import in_words

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

MOST_COLUMNS = 8
NOTHING = "–"
_CHANCE = re.compile(r"^[pq](_|$)|_[pq]$")


def show_table(
    table: pd.DataFrame,
    *,
    alt: str,
    column_config: Mapping[str, Any] | None = None,
    first: Sequence[str] = (),
    most: int | None = MOST_COLUMNS,
    button: tuple[str, str] | None = None,
    **options: Any,
) -> Any:
    """A table, its columns called as `column_config` says, or else in words, a dash where there is nothing; the options and the answer are those of `st.dataframe`.

    Parameters
    ----------
    alt : what the table shows.
    first : columns that stand before the others.
    most : so many are shown; the menu above the table brings the others, and a line below says so. All when None.
    button : a column whose cells can be pressed, and a key: while the page that follows a press is drawn, `st.session_state[key]["row"]` tells the row. A cell that is merely selected
        is no press: whoever walks through a page by the tabulator selects a table's first one.
    """
    given = column_config or {}
    named = {}
    order = [*first, *(name for name in map(str, table.columns) if name not in first and given.get(name, {}) is not None)]
    more = order[most:] if most is not None and len(order) > most + 1 else []  # one alone is no reason for a line of text
    for name in map(str, table.columns):
        column = given.get(name, {})
        if column is not None:
            named[name] = column | {"label": column.get("label") or in_words(name)} | ({"hidden": True} if name in more else {})
    if button is not None:
        name, key = button
        told = {what: named[name].get(what) for what in ("label", "width", "help", "pinned")}
        named[name] = st.column_config.ButtonColumn(**told, alignment="left", type="tertiary", key=key)
    answer = st.dataframe(
        _with_chances(table), column_config={**given, **named}, column_order=order if first else None, alt=alt, placeholder=NOTHING, **({"hide_index": True} | options)
    )  # fmt: skip
    if more:
        st.caption(f"{len(more)} more columns: :material/visibility: above the table shows them.")
    return answer


def _with_chances(table: pd.DataFrame) -> pd.DataFrame | Styler:
    """The table with its p and q as they are told everywhere; they stay numbers, and are sorted as such."""
    numbers = [name for name in table.select_dtypes("float").columns if isinstance(name, str)]
    if not any(map(_CHANCE.search, numbers)):
        return table
    styled = (table if table.index.is_unique else table.reset_index(drop=True)).style
    return styled.format({name: p_value if _CHANCE.search(name) else _decimal for name in numbers}, na_rep=NOTHING)


def _decimal(number: float) -> str:
    """A number as Streamlit writes it where nothing is said of its form."""
    return np.format_float_positional(number, 4, trim="-")


def modules_in_words(modules: Iterable[str]) -> dict[str, str]:
    """What modules are called on a page: by their layer and projection, and by their path where that were the name of several.

    >>> modules_in_words(["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"])
    {'model.layers.0.self_attn.q_proj': 'layer 0, q', 'model.layers.1.mlp.down_proj': 'layer 1, down'}
    """
    places = {module: place_of(module) for module in modules}
    words = {module: in_words(kind) if layer is None else f"layer {layer}, {in_words(kind)}" for module, (layer, kind) in places.items()}
    count = Counter(words.values())
    return {module: name if count[name] == 1 else module for module, name in words.items()}
