"""What an adapter pushes the model towards: table in, plotly Figure out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.analysis.behaviour.lens import LEVEL
from soft_prompt_explorer.app.charts.theme import ABOVE, BLUE, GREY, MARGIN, ORANGE, PALE_BLUES, ROW_HEIGHT, drawn

WORDS_SHOWN = 12


def pushed_words(table: pd.DataFrame) -> go.Figure:
    """The strongest words of one layer as bars, as long as their z; those beyond chance in blue, with a star, the others in grey;
    beside them, where a twin is known, how far it is pushed there.

    Parameters
    ----------
    table : rows of `analysis.behaviour.lens.lens` of one adapter and layer.
    """
    shown = table.head(WORDS_SHOWN)
    beyond = (shown["q"] < LEVEL).to_numpy()
    figure = go.Figure(
        go.Bar(
            x=shown["z"].to_numpy(np.float32),
            y=[f"{'★ ' if told else ''}{drawn(token)} " for token, told in zip(shown["token"], beyond, strict=True)],
            customdata=np.array([shown["score"], shown["q"]]).T,
            orientation="h",
            marker_color=np.where(beyond, BLUE, GREY).tolist(),
            hovertemplate="%{y}<br>z %{x:.1f}<br>score %{customdata[0]:.2f}<br>q %{customdata[1]:.3f}<extra></extra>",
        )
    )
    if shown["twin_z"].notna().all():
        figure.data[0].name = "the prompt"
        figure.add_scatter(
            x=shown["twin_z"].to_numpy(np.float32), y=figure.data[0].y, mode="markers", name="its twin, trained on shuffled answers",
            marker={"symbol": "diamond-open", "size": 10, "color": ORANGE, "line": {"width": 2}},
            customdata=shown["twin_p"], hovertemplate="%{y}<br>its twin: z %{x:.1f}<br>p %{customdata:.3f}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=90 + ROW_HEIGHT * len(shown), margin=MARGIN, xaxis_title="z, beside adapters that know nothing", bargap=0.25, legend=ABOVE,
        showlegend=len(figure.data) > 1,
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def words_by_layer(table: pd.DataFrame, *, ranks: int = 5) -> go.Figure:
    """A column a layer, its strongest words from the top down, and z as the colour.

    Parameters
    ----------
    table : rows of `analysis.behaviour.lens.lens` of one adapter, of several layers.
    """
    shown = table[table["rank"] < ranks]
    z = shown.pivot(index="rank", columns="layer", values="z")
    words = shown.pivot(index="rank", columns="layer", values="token").map(drawn)
    figure = go.Figure(
        go.Heatmap(
            z=z.to_numpy(np.float32),
            x=[f"layer {layer}" for layer in z.columns],
            y=[f"{rank + 1}." for rank in z.index],
            text=words.to_numpy(),
            texttemplate="%{text}",
            hovertemplate="%{x}, %{y}<br>%{text}<br>z %{z:.1f}<extra></extra>",
            colorscale=PALE_BLUES,
            textfont={"color": "#111111"},
            colorbar={"title": "z"},
            xgap=1,
            ygap=1,
        )
    )
    figure.update_layout(height=110 + ROW_HEIGHT * ranks, margin=MARGIN)
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    figure.update_xaxes(showgrid=False, side="top")
    return figure
