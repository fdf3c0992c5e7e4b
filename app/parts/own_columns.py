"""Columns of a person's own, to colour the map by: a table with a row a prompt, or a row a token."""

from __future__ import annotations

import io

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.atlas_choice import COLOURS, UNKNOWN

MOST_BYTES, MOST_COLUMNS = 10_000_000, 8
KEYS = ("prompt", "position")
_NOTHING = ["", "NA", "N/A", "NaN", "nan", "null", "None"]
_OURS = {*KEYS, *COLOURS, "words", "kept", "start", "method"}  # what the map's tokens have of the explorer


def pick_own() -> pd.DataFrame | None:
    """What is uploaded, checked; None where there is nothing, or where it is refused, in a sentence."""
    with st.popover("Your columns", icon=":material/upload_file:"):
        file = st.file_uploader(
            "CSV with a column prompt, and others to colour by", type="csv", key="own-columns", max_upload_size=MOST_BYTES // 10**6
        )
        st.caption(
            "A row a prompt, by its name; or a row a token, with its number from 0 in a column position. It stays on this machine, and for this session."
        )
        if file is None:
            return None
        try:
            return widgets.read_once("own-columns-read", file.file_id, lambda: read_own(file.getvalue()))
        except InputError as error:
            widgets.refusal(error)
            return None


def read_own(content: bytes) -> pd.DataFrame:
    """A table of one's own.

    Raises
    ------
    InputError
        It is no CSV, lacks a column `prompt` or any other, tells two things of one prompt or token, or calls a column as the explorer does.
    """
    try:
        names = pd.read_csv(io.BytesIO(content), encoding="utf-8", index_col=False, nrows=0).columns
        nothing = {name: _NOTHING for name in names if name != "prompt"}  # a prompt may be called so
        table = pd.read_csv(
            io.BytesIO(content), encoding="utf-8", index_col=False, dtype={"prompt": str}, keep_default_na=False, na_values=nothing, nrows=1_000_000
        )  # fmt: skip
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"The file cannot be read as a CSV table: {str(error).splitlines()[0]}.") from error
    columns = [name for name in table if name not in KEYS]
    if "prompt" not in table or not columns:
        raise InputError("The table needs a column prompt with the names of prompts, and another one to colour by.")
    if len(columns) > MOST_COLUMNS:
        raise InputError(f"The table has {len(columns)} columns to colour by; {MOST_COLUMNS} are the most.")
    if ours := [name for name in columns if name in _OURS]:
        raise InputError(f"The explorer has a column {ours[0]} itself; call yours something else.")
    if "position" in table and not pd.api.types.is_integer_dtype(table["position"]):
        raise InputError("The column position holds the number of each token, from 0.")
    keys = [name for name in KEYS if name in table]
    if (twice := table.duplicated(keys)).any():
        raise InputError(
            f"The table tells two things of {' and token '.join(str(table.loc[twice.idxmax(), key]) for key in keys)}; give each one row."
        )
    return table


def say_unheard(tokens: pd.DataFrame, own: pd.DataFrame) -> None:
    """How many of the table's prompts are not on the map."""
    names = set(own["prompt"])
    if unheard := names - set(tokens["prompt"]):
        st.caption(
            f"{len(names) - len(unheard)} of the {len(names)} prompts of your table are on this map; {widgets.plain(min(unheard))} is not."
        )


def with_own(tokens: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """The tokens with what the table says of each: numbers as numbers, NaN where it says nothing; anything else as text, or as unknown."""
    joined = tokens.merge(own, how="left", on=[name for name in KEYS if name in own])
    for name in own.columns.difference(KEYS):
        if pd.api.types.is_numeric_dtype(own[name]) and not pd.api.types.is_bool_dtype(own[name]):
            joined[name] = joined[name].astype(float)
        else:
            joined[name] = joined[name].astype(object).where(joined[name].notna(), UNKNOWN).astype(str)
    return joined.set_index(tokens.index)


def says_something(tokens: pd.DataFrame, by: str) -> pd.Series | None:
    """Which tokens have a number in this column, where some have none: they alone are drawn, for no colour means nothing is known."""
    if not pd.api.types.is_float_dtype(tokens[by]) or not tokens[by].isna().any():
        return None
    known = tokens[by].notna()
    st.caption(
        f"Of {len(tokens) - int(known.sum())} of {len(tokens)} tokens your table has no number in {widgets.plain(by)}; they are not drawn."
    )
    return known
