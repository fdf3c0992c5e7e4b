"""Prompt against prompt: every pair of many, and two beside chance."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.app.charts.columns import in_words
from soft_prompt_explorer.app.charts.theme import BLUE, BLUE_WHITE_ORANGE, GREY, MARGIN, PALE_BLUES, ROW_HEIGHT


def similarity_matrix(square: pd.DataFrame, links: np.ndarray, measure: str, level: float | None = None) -> go.Figure:
    """Every prompt against every other, alike ones side by side, with the tree that joins them. A cell can be selected: its `customdata` names its two prompts.

    Parameters
    ----------
    square : of `analysis.prompts.likeness.matrix`.
    links : of `analysis.prompts.likeness.tree`, its leaves in the order of `square`.
    level : the value that tells, where there is one: white, with blue below it and orange above.
    """
    from scipy.cluster.hierarchy import dendrogram

    drawn_tree = dendrogram(links, no_plot=True)
    order = drawn_tree["leaves"]
    square = square.iloc[order, order]
    names = [html.escape(name, quote=False) for name in square.index]
    values = square.to_numpy(np.float32)
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=np.arange(len(names)),
            y=np.arange(len(names)),
            text=np.where(np.isnan(values), "", np.char.mod("%.2f" if measure != "z" else "%.1f", values)) if len(names) <= 20 else None,
            texttemplate="%{text}" if len(names) <= 20 else None,
            textfont={"color": "#111111"},
            **({"colorscale": PALE_BLUES} if level is None else {"colorscale": BLUE_WHITE_ORANGE, "zmid": level}),
            colorbar={"title": in_words(measure)},
            customdata=[[f"{a}<br>{b}" for b in names] for a in names],
            hovertemplate="%{customdata}<br>" + in_words(measure) + " %{z:.3f}<extra></extra>",
            hoverongaps=False,
            xgap=1,
            ygap=1,
        )
    )
    across, down = (axis.ravel() for axis in np.meshgrid(np.arange(len(names)), np.arange(len(names))))
    pair = across != down
    figure.add_scatter(  # a heat map's own cells cannot be selected
        x=across[pair],
        y=down[pair],
        mode="markers",
        marker={"symbol": "square", "size": ROW_HEIGHT, "opacity": 0},
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        customdata=np.stack([np.array(square.index, object)[down[pair]], np.array(square.index, object)[across[pair]]], axis=1),
        text=[f"{names[i]}<br>{names[k]}<br>{in_words(measure)} {values[i, k]:.3f}" for i, k in zip(down[pair], across[pair], strict=True)],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    for across, up in zip(drawn_tree["dcoord"], drawn_tree["icoord"], strict=True):  # scipy's leaves stand at 5, 15, 25, …
        figure.add_scatter(
            x=np.array(across, np.float32), y=(np.array(up, np.float32) - 5) / 10, mode="lines", line={"color": GREY, "width": 1.5},
            hoverinfo="skip", showlegend=False, xaxis="x2",
        )  # fmt: skip
    places = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names, "showgrid": False, "zeroline": False}
    figure.update_layout(
        height=200 + ROW_HEIGHT * len(names),
        margin=MARGIN | {"b": 90},
        xaxis={**places, "domain": [0, 0.78], "tickangle": -40},
        yaxis={**places, "autorange": "reversed"},
        xaxis2={"domain": [0.8, 1], "title": "1 − matched cosine", "showgrid": False, "zeroline": False},
    )
    return figure


def against_chance(values: pd.Series, chance: pd.DataFrame) -> go.Figure:
    """Each measure of two prompts as a dot, beside the band in which 95 % of unrelated prompts lie.

    Parameters
    ----------
    values : by measure.
    chance : of `analysis.prompts.likeness.chance`.
    """
    figure = go.Figure()
    known = chance[chance["mean"].notna()]
    figure.add_bar(
        x=(known["high"] - known["low"]).to_numpy(np.float32), y=known["measure"].map(in_words), base=known["low"].to_numpy(np.float32), orientation="h", width=0.5,
        marker={"color": GREY, "opacity": 0.35}, name="unrelated prompts, 95 %", hovertemplate="%{y}<br>%{base:.3f} to %{x:.3f}<extra>unrelated</extra>",
    )  # fmt: skip
    shown_values = values[chance["measure"]]
    figure.add_scatter(
        x=shown_values.to_numpy(np.float32), y=chance["measure"].map(in_words), mode="markers+text", text=[f"{value:.2f}" for value in shown_values], textposition="top center",
        marker={"size": 12, "color": BLUE, "symbol": "diamond"}, name="these two", hovertemplate="%{y}: %{x:.3f}<extra>these two</extra>",
    )  # fmt: skip
    figure.update_layout(height=320, margin=MARGIN, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    figure.update_yaxes(autorange="reversed")
    return figure
