"""Shares as bars with their numbers written on them, drawn at once: plain HTML, no chart library."""

from __future__ import annotations

import html

import pandas as pd
import streamlit as st

STYLE = """<style>
.bars { display: grid; grid-template-columns: max-content 1fr; gap: 6px 12px; align-items: center; font-size: 15px; margin: 0; padding: 0; }
.bars dt { color: inherit; } .bars dd { margin: 0; display: flex; align-items: center; gap: 8px; }
.bars i { display: block; height: 16px; min-width: 2px; border-radius: 2px; background: #8A8A8A; }
.bars i.yes { background: #0072B2; }
@media (prefers-color-scheme: dark) { .bars i.yes { background: #4FA3D9; } }
@media (max-width: 500px) { .bars { grid-template-columns: 1fr; gap: 2px; } }
</style>"""


def show_bars(rows: pd.DataFrame) -> None:
    """A bar a row.

    Parameters
    ----------
    rows : label; share, 0 to 1; says, what is written beside the bar; yes, whether it is the one to look at.
    """
    items = "".join(
        f'<dt>{html.escape(row.label)}</dt><dd><i class="{"yes" if row.yes else ""}" style="width:{62 * min(max(row.share, 0.0), 1.0):.1f}%"></i>'
        f"<span>{html.escape(row.says)}</span></dd>"
        for row in rows.itertuples()
    )
    st.html(f'{STYLE}<dl class="bars">{items}</dl>')
