"""Texts in an adapter's place and the share of its behaviour that each recovers: table in, rows out."""

from __future__ import annotations

import pandas as pd

from soft_prompt_explorer.analysis.behaviour.translation import CHOSEN, CONTROLS, MIXED, OTHERS, told_in_a_figure
from soft_prompt_explorer.analysis.behaviour.translation_candidates import CONTROL
from soft_prompt_explorer.app.charts.rows import Mark, Row, Scale, row_chart
from soft_prompt_explorer.app.charts.theme import BLUE, GREEN, GREY, ORANGE

LEAST = -1.0  # shares below are drawn here: a text can be worse than nothing without end


KINDS = {CHOSEN: (ORANGE, "star"), OTHERS: (BLUE, "circle"), MIXED: (GREEN, "diamond"), CONTROLS: (GREY, "x")}


def shares(table: pd.DataFrame, *, alt: str) -> str:
    """The share that the best texts recover, with 95 % intervals; the best controls in grey below, a dotted line where their intervals end, and the chosen text as a star.

    Parameters
    ----------
    table : rows of `analysis.behaviour.translation.translate` of one adapter, all of them or those that are there so far.
    """
    shown, control = told_in_a_figure(table), table["candidate"].str.startswith(CONTROL)
    from_where = next((end for end in (0.0, -0.5) if shown["share_low"].min() >= end), LEAST)
    rows = []
    for text in shown.itertuples():
        name = text.candidate
        interval = f"{text.share:.2f} ({text.share_low:.2f} to {text.share_high:.2f})"
        says = f"{name}: share {interval}, {text.same_answer:.0%} of the answers the same, {text.tokens} tokens"
        rows.append(Row(name, f"{text.share:.2f}", says, marks=(Mark(text.share, *KINDS[text.kind], text.share_low, text.share_high),)))
    return row_chart(
        rows, Scale(from_where, 1.0, "share that the text recovers"), alt=alt, lines=[0],
        legend=[(name, *look) for name, look in KINDS.items() if name in set(shown["kind"])],
        dotted=[table.loc[control, "share_high"].max()] if control.any() else [],
    )  # fmt: skip
