"""The Behaviour page's charts: table in, plotly Figure out, by the rules of `theme.py`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.analysis.behaviour.changes import INTERVENTIONS, WHOLE, Group, row_label
from soft_prompt_explorer.app.charts.theme import (
    BLUE,
    BLUE_LIGHT,
    GREEN,
    GREY,
    MARGIN,
    ORANGE,
    PALE_BLUES,
    PURPLE,
    ROW_HEIGHT,
    VERMILION,
    drawn,
)

# What belongs together has one colour and one shape; the legend names it.
STYLES: dict[Group, tuple[str, str]] = {
    "the whole prompt changed": (BLUE, "circle"),
    "the task direction": (GREEN, "diamond"),
    "its words' part, and the rest": (BLUE_LIGHT, "triangle-down"),
    "principal directions": (PURPLE, "square"),
    "random directions of the same size": (GREY, "x"),
    "the path from start to end": (ORANGE, "triangle-up"),
    "one token": (VERMILION, "circle-open"),
}


def changes(table: pd.DataFrame, what: str) -> go.Figure:
    """The change that each intervention makes, with its 95 % interval, from the whole prompt at 0.

    Parameters
    ----------
    table : rows of `analysis.behaviour.asked.behaviour`.
    what : score or loss.
    """
    table = table[table["intervention"] != WHOLE].reset_index(drop=True)
    labels = [drawn(row_label(row)) for row in table.itertuples()]
    figure = go.Figure()
    for group, (colour, symbol) in STYLES.items():
        rows = table[table["intervention"].isin([each.name for each in INTERVENTIONS.values() if each.group == group])]
        if not len(rows):
            continue
        change = rows[f"{what}_change"]
        figure.add_scatter(
            x=change, y=rows.index, mode="markers", name=group, marker={"color": colour, "symbol": symbol, "size": 9},
            error_x={"type": "data", "symmetric": False, "array": rows[f"{what}_change_high"] - change, "arrayminus": change - rows[f"{what}_change_low"], "color": colour, "thickness": 1.5},
            customdata=np.column_stack([[labels[i] for i in rows.index], rows[what]]),
            hovertemplate="%{customdata[0]}<br>" + what + " %{customdata[1]:.3f}, change %{x:+.3f}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": GREY, "width": 1, "dash": "dot"})
    named = table["measure"].iloc[0] if what == "score" and len(table) else what
    figure.update_layout(
        height=100 + ROW_HEIGHT * len(table),
        margin=MARGIN | {"t": 60},
        xaxis_title=f"change of {named}",
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
    )
    figure.update_yaxes(tickvals=list(table.index), ticktext=labels, range=[len(table) - 0.4, -0.6], zeroline=False, showgrid=False)
    figure.update_xaxes(zeroline=False)
    return figure


def lens(table: pd.DataFrame) -> go.Figure:
    """The word that the model would say next at each virtual position after each layer; darker where it is surer.

    Parameters
    ----------
    table : of `analysis.behaviour.inside.logit_lens`.
    """
    first = table[table["rank"] == 0]
    chances = first.pivot(index="layer", columns="position", values="probability")
    words = first.pivot(index="layer", columns="position", values="token").map(
        lambda token: drawn(token if len(token) < 14 else token[:13] + "…")
    )
    figure = go.Figure(
        go.Heatmap(
            z=chances.to_numpy(np.float32), x=chances.columns.to_numpy(), y=chances.index.to_numpy(), text=words.to_numpy(), texttemplate="%{text}", zmin=0, zmax=1,
            colorscale=PALE_BLUES, textfont={"color": "#111111", "size": 11}, colorbar={"title": "probability"}, xgap=1, ygap=1,
            hovertemplate="virtual token %{x}, after layer %{y}<br>%{text}<br>probability %{z:.2f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(height=120 + 20 * len(chances), margin=MARGIN, xaxis_title="virtual token", yaxis_title="layer")
    figure.update_xaxes(dtick=1 if len(chances.columns) <= 30 else None)
    return figure


def stream_norms(table: pd.DataFrame) -> go.Figure:
    """How long the residual stream is at each virtual position, by layer, on a logarithmic scale.

    Parameters
    ----------
    table : of `analysis.behaviour.inside.logit_lens`.
    """
    norms = table[table["rank"] == 0].pivot(index="position", columns="layer", values="norm")
    figure = go.Figure(
        go.Heatmap(
            z=np.log10(norms.to_numpy(np.float64)).astype(np.float32), x=norms.columns.to_numpy(), y=norms.index.to_numpy(), customdata=norms.to_numpy(np.float32),
            colorscale="Cividis", colorbar={"title": "norm", "tickvals": list(range(-1, 6)), "ticktext": [f"{10.0**power:g}" for power in range(-1, 6)]}, xgap=1, ygap=1,
            hovertemplate="virtual token %{y}, after layer %{x}<br>norm %{customdata:.4g}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(height=130 + 26 * len(norms), margin=MARGIN, xaxis_title="layer", yaxis_title="virtual token")
    figure.update_yaxes(autorange="reversed", dtick=1 if len(norms) <= 30 else None)
    return figure


def attention_by_layer(table: pd.DataFrame) -> go.Figure:
    """How much of the answer position's attention goes to each virtual token, by layer, on average over the heads; the input's share in the last row.

    Parameters
    ----------
    table : of `analysis.behaviour.inside.attention`.
    """
    named = table.assign(place=table["position"].map(lambda position: "the input" if pd.isna(position) else f"{position}"))
    square = named.pivot_table(index="place", columns="layer", values="attention", aggfunc="mean", sort=False)
    return _shares(square, "virtual token", "layer")


def attention_by_head(table: pd.DataFrame, position: int) -> go.Figure:
    """How much of the answer position's attention goes to one virtual token, by layer and head."""
    square = table[table["position"] == position].pivot(index="head", columns="layer", values="attention")
    return _shares(square, "head", "layer")


def _shares(square: pd.DataFrame, rows: str, columns: str) -> go.Figure:
    values = square.to_numpy(np.float32)
    figure = go.Figure(
        go.Heatmap(
            z=values, x=[f"{name}" for name in square.columns], y=[f"{name}" for name in square.index], colorscale="Cividis", zmin=0, zmax=float(max(values.max(), 0.01)),
            colorbar={"title": "attention", "tickformat": ".0%"}, xgap=1, ygap=1, hovertemplate=f"{rows} %{{y}}, {columns} %{{x}}<br>%{{z:.1%}}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(height=130 + 26 * len(square), margin=MARGIN, xaxis_title=columns, yaxis_title=rows)
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category", autorange="reversed")
    return figure


def verbalisation(table: pd.DataFrame) -> go.Figure:
    """ROUGE-1 of what was written with the task's own description, less its mean with those of all others, by the two layers.

    Parameters
    ----------
    table : of `analysis.behaviour.verbalisation.verbalise`.
    """
    beyond = table.assign(beyond=table["rouge_1"] - table["rouge_1_others"])
    square = beyond.pivot(index="source_layer", columns="target_layer", values="beyond")
    texts = table.pivot(index="source_layer", columns="target_layer", values="text").map(lambda text: drawn(text) if text else "(nothing)")
    limit = float(max(np.abs(square.to_numpy()).max(), 0.05))
    figure = go.Figure(
        go.Heatmap(
            z=square.to_numpy(np.float32), x=[f"{layer}" for layer in square.columns], y=[f"{layer}" for layer in square.index], customdata=texts.to_numpy(),
            colorscale="PuOr", reversescale=True, zmin=-limit, zmax=limit, colorbar={"title": "beyond<br>other tasks"}, xgap=1, ygap=1,
            hovertemplate="states of layer %{y} put into layer %{x}<br>%{customdata}<br>%{z:+.3f} beyond other tasks<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(height=140 + 30 * len(square), margin=MARGIN, xaxis_title="put into layer", yaxis_title="states of layer")
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category")
    return figure
