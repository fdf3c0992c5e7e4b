"""Shares as bars with what they are written behind them."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from soft_prompt_explorer.app.charts.rows import Row, Scale, row_chart
from soft_prompt_explorer.app.charts.theme import BLUE, GREY


def show_bars(rows: pd.DataFrame) -> None:
    """A bar a row.

    Parameters
    ----------
    rows : label; share, 0 to 1; says, what is written behind the bar; yes, whether it is the one to look at.
    """
    drawn = [Row(row.label, row.says, "", (row.share, BLUE if row.yes else GREY)) for row in rows.itertuples()]
    st.html(row_chart(drawn, Scale(0.0, 1.0), alt="; ".join(f"{row.label}: {row.says}" for row in rows.itertuples())))
