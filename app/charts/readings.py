"""Readings against each other on adapters of known truth: table in, plotly Figure out."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from soft_prompt_explorer.app.charts.theme import ABOVE, BLUE, GREEN, GREY, MARGIN, ORANGE, ROW_HEIGHT, drawn

_MARKS = ((BLUE, "circle"), (ORANGE, "square"), (GREEN, "diamond"))
_QUESTIONS = (
    ("answers<br>named", "identified", "low", "high", 0.1),
    ("true told<br>from shuffled", "function", "function_low", "function_high", 0.5),
)


def readings_compared(table: pd.DataFrame) -> go.Figure:
    """How often each reading names the answers, and tells an adapter from its twin, with 95 % intervals; what chance would do is dotted.

    Parameters
    ----------
    table : of `trained_prompts.experiments.benchmark.summary`.
    """
    names = list(dict.fromkeys(table["reading"]))
    kinds = list(dict.fromkeys(table["adapters"]))
    figure = make_subplots(cols=2, shared_yaxes=True, subplot_titles=[title for title, *_ in _QUESTIONS], horizontal_spacing=0.05)
    for column, (_, share, low, high, chance) in enumerate(_QUESTIONS, start=1):
        for i, (kind, (colour, symbol)) in enumerate(zip(kinds, _MARKS, strict=False)):
            rows = table[(table["adapters"] == kind) & table[share].notna()]
            figure.add_scatter(
                x=rows[share], y=rows["reading"].map(names.index).astype(float) + 0.22 * (i - (len(kinds) - 1) / 2), mode="markers", name=kind,
                legendgroup=kind, showlegend=column == 1, marker={"color": colour, "symbol": symbol, "size": 9}, customdata=rows[["reading", "n"]],
                error_x={"type": "data", "symmetric": False, "array": rows[high] - rows[share], "arrayminus": rows[share] - rows[low], "color": colour, "thickness": 1.5},
                hovertemplate="%{customdata[0]}, " + kind + "<br>%{x:.0%} of %{customdata[1]}<extra></extra>", row=1, col=column,
            )  # fmt: skip
            if column == 1:  # the control: what the form of the answers comes to
                figure.add_scatter(
                    x=rows["twins_named"], y=rows["reading"].map(names.index).astype(float) + 0.22 * (i - (len(kinds) - 1) / 2), mode="markers",
                    name=f"their twins ({kind})", legendgroup=kind, showlegend=False, marker={"color": colour, "symbol": f"{symbol}-open", "size": 9},
                    customdata=rows[["reading"]], hovertemplate="%{customdata[0]}, twins of " + kind + "<br>%{x:.0%}<extra></extra>", row=1, col=1,
                )  # fmt: skip
        figure.add_vline(x=chance, line={"color": GREY, "width": 1, "dash": "dot"}, row=1, col=column)
    figure.update_layout(height=150 + 2 * ROW_HEIGHT * len(names), margin=MARGIN | {"t": 80}, legend=ABOVE | {"y": 1.12})
    figure.update_annotations(font_size=13)
    figure.update_xaxes(tickformat=".0%", range=[-0.03, 1.03], zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=list(map(drawn, names)), range=[len(names) - 0.4, -0.6], zeroline=False, showgrid=False
    )
    return figure
