"""The rows of a prompt by themselves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.app.charts.theme import BLUE, MARGIN, ORANGE

DIVERGING = [[0.0, ORANGE], [0.5, "#F4F4F4"], [1.0, BLUE]]


def cosine_map(pairs: pd.DataFrame) -> go.Figure:
    """The cosine of every pair of virtual tokens, from −1 to 1 about 0.

    Parameters
    ----------
    pairs : of `analysis.prompts.geometry.cosines_within`.
    """
    size = int(pairs["position_b"].max()) + 1
    cosines = np.eye(size, dtype=np.float32)
    cosines[pairs["position_a"], pairs["position_b"]] = cosines[pairs["position_b"], pairs["position_a"]] = pairs["cosine"]
    figure = go.Figure(
        go.Heatmap(
            z=cosines, zmin=-1, zmax=1, colorscale=DIVERGING, colorbar={"title": "cosine"},
            hovertemplate="tokens %{y} and %{x}<br>cosine %{z:.3f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(height=420, margin=MARGIN, xaxis_title="virtual token", yaxis_title="virtual token")
    figure.update_yaxes(autorange="reversed", showgrid=False, scaleanchor="x", constrain="domain")
    figure.update_xaxes(showgrid=False, constrain="domain")
    return figure


def energy_bars(used: pd.DataFrame) -> go.Figure:
    """The share of the energy in each direction, the largest first.

    Parameters
    ----------
    used : of `analysis.prompts.geometry.directions_used`.
    """
    figure = go.Figure(
        go.Bar(
            x=used["rank"], y=used["energy"].to_numpy(np.float32), marker_color=BLUE,
            hovertemplate="direction %{x}<br>%{y:.1%} of the energy<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(height=230, margin=MARGIN, xaxis_title="direction", yaxis_title="share of energy")
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure
