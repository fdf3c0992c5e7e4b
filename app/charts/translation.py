"""Texts in an adapter's place and the share of its behaviour that each recovers: table in, plotly Figure out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.analysis.behaviour.translation import MIXTURE, NOTHING
from soft_prompt_explorer.analysis.behaviour.translation_candidates import CONTROL
from soft_prompt_explorer.app.charts.theme import ABOVE, BLUE, GREEN, GREY, MARGIN, ORANGE, ROW_HEIGHT, drawn

TEXTS_SHOWN, CONTROLS_SHOWN = 9, 4
LEAST = -1.0  # shares below are drawn here: a text can be worse than nothing without end


def shares(table: pd.DataFrame) -> go.Figure:
    """The share that the best texts recover, with 95 % intervals; the best controls in grey below, a dotted line where their intervals end, and the chosen text as a star.

    Parameters
    ----------
    table : rows of `analysis.behaviour.translation.translate` of one adapter, all of them or those that are there so far.
    """
    rows = table[table["candidate"] != NOTHING]
    rows = rows.sort_values("share", ascending=False)
    control = rows["candidate"].str.startswith(CONTROL)
    texts = rows[~control]
    texts = texts[(np.arange(len(texts)) < TEXTS_SHOWN) | texts["chosen"]]
    rows = pd.concat([texts, rows[control].head(CONTROLS_SHOWN)], ignore_index=True)
    control = rows["candidate"].str.startswith(CONTROL)
    mixture = rows["candidate"] == MIXTURE
    labels = [drawn(name.removeprefix(CONTROL)) for name in rows["candidate"]]
    figure = go.Figure()
    for name, which, colour, symbol in (
        ("the text that was chosen", rows["chosen"], ORANGE, "star"),
        ("other texts", ~control & ~mixture & ~rows["chosen"], BLUE, "circle"),
        ("a mixture of texts", mixture, GREEN, "diamond"),
        ("controls", control, GREY, "x"),
    ):
        some = rows[which]
        if not len(some):
            continue
        share, low, high = (some[column].clip(lower=LEAST) for column in ("share", "share_low", "share_high"))
        figure.add_scatter(
            x=share, y=some.index, mode="markers", name=name, marker={"color": colour, "symbol": symbol, "size": 12 if symbol == "star" else 9},
            error_x={"type": "data", "symmetric": False, "array": high - share, "arrayminus": share - low, "color": colour, "thickness": 1.5},
            customdata=some.assign(label=[labels[i] for i in some.index])[["label", "share", "same_answer", "tokens"]],
            hovertemplate="%{customdata[0]}<br>share %{customdata[1]:.2f}, %{customdata[2]:.0%} of the answers the same<br>%{customdata[3]} tokens<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    if control.any():
        figure.add_vline(
            x=max(LEAST, table.loc[table["candidate"].str.startswith(CONTROL), "share_high"].max()),
            line={"color": GREY, "width": 1, "dash": "dot"},
        )
    figure.update_layout(
        height=110 + ROW_HEIGHT * len(rows),
        margin=MARGIN | {"t": 60},
        legend=ABOVE,
        xaxis_title="share that the text recovers",
    )
    figure.update_xaxes(range=[LEAST - 0.05, 1.05], zeroline=False)
    figure.update_yaxes(tickvals=list(rows.index), ticktext=labels, range=[len(rows) - 0.4, -0.6], zeroline=False, showgrid=False)
    return figure
