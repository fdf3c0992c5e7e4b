"""The Behaviour page's charts: table in, rows or a plotly Figure out, by the rules of `theme.py`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.analysis.behaviour.changes import INTERVENTIONS, WHOLE, Group, row_label
from soft_prompt_explorer.app.charts.rows import Mark, Row, row_chart, scale_of
from soft_prompt_explorer.app.charts.theme import (
    BLUE,
    BLUE_LIGHT,
    GREEN,
    GREY,
    MARGIN,
    ORANGE,
    PALE_BLUES,
    PURPLE,
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


def changes(table: pd.DataFrame, what: str, *, alt: str) -> str:
    """The change that each intervention makes, with its 95 % interval, from the whole prompt at 0.

    Parameters
    ----------
    table : rows of `analysis.behaviour.asked.behaviour`.
    what : score or loss.
    """
    named = table["measure"].iloc[0] if what == "score" and len(table) else what
    table = table[table["intervention"] != WHOLE]
    groups, rows = [], []
    for each in table.itertuples():
        group = INTERVENTIONS[each.intervention].group
        assert group is not None  # only the whole prompt is in none
        groups.append(group)
        change, low, high = (getattr(each, f"{what}_change{end}") for end in ("", "_low", "_high"))
        says = f"{row_label(each)}: {named} {getattr(each, what):.3f}, change {change:+.3f} ({low:+.3f} to {high:+.3f})"
        rows.append(Row(row_label(each), f"{change:+.3f}", says, marks=(Mark(change, *STYLES[group], low, high),)))
    ends = table[[f"{what}_change", f"{what}_change_low", f"{what}_change_high"]].to_numpy()
    legend = [(group, *look) for group, look in STYLES.items() if group in groups]
    return row_chart(rows, scale_of(ends.ravel(), f"change of {named}"), alt=alt, legend=legend, dotted=[0])


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
