"""Texts in an adapter's place and the share of its behaviour that each recovers: table in, rows out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.behaviour.translation import MIXTURE, NOTHING
from soft_prompt_explorer.analysis.behaviour.translation_candidates import CONTROL
from soft_prompt_explorer.app.charts.rows import Mark, Row, Scale, row_chart
from soft_prompt_explorer.app.charts.theme import BLUE, GREEN, GREY, ORANGE

TEXTS_SHOWN, CONTROLS_SHOWN = 9, 4
LEAST = -1.0  # shares below are drawn here: a text can be worse than nothing without end


KINDS = {
    "the text that was chosen": (ORANGE, "star"),
    "other texts": (BLUE, "circle"),
    "a mixture of texts": (GREEN, "diamond"),
    "controls": (GREY, "x"),
}


def shares(table: pd.DataFrame, *, alt: str) -> str:
    """The share that the best texts recover, with 95 % intervals; the best controls in grey below, a dotted line where their intervals end, and the chosen text as a star.

    Parameters
    ----------
    table : rows of `analysis.behaviour.translation.translate` of one adapter, all of them or those that are there so far.
    """
    table = table[table["candidate"] != NOTHING].sort_values("share", ascending=False)
    control = table["candidate"].str.startswith(CONTROL)
    texts = table[~control]
    texts = texts[(np.arange(len(texts)) < TEXTS_SHOWN) | texts["chosen"]]
    shown = pd.concat([texts, table[control].head(CONTROLS_SHOWN)])
    from_where = next((end for end in (0.0, -0.5) if shown["share_low"].min() >= end), LEAST)
    rows, kinds = [], []
    for text in shown.itertuples():
        kind = _kind(text)
        kinds.append(kind)
        name = text.candidate.removeprefix(CONTROL)
        interval = f"{text.share:.2f} ({text.share_low:.2f} to {text.share_high:.2f})"
        says = f"{name}: share {interval}, {text.same_answer:.0%} of the answers the same, {text.tokens} tokens"
        rows.append(Row(name, f"{text.share:.2f}", says, marks=(Mark(text.share, *KINDS[kind], text.share_low, text.share_high),)))
    return row_chart(
        rows, Scale(from_where, 1.0, "share that the text recovers"), alt=alt, lines=[0],
        legend=[(name, *look) for name, look in KINDS.items() if name in kinds],
        dotted=[table.loc[control, "share_high"].max()] if control.any() else [],
    )  # fmt: skip


def _kind(text) -> str:
    if text.chosen:
        return "the text that was chosen"
    if text.candidate == MIXTURE:
        return "a mixture of texts"
    return "controls" if text.candidate.startswith(CONTROL) else "other texts"
