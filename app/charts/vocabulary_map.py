"""The map of the vocabulary while a prompt learns. What is at rest is drawn by app/map."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.app.charts.theme import GREY, MARGIN, VERDICT_MARKS, drawn


def learning_map(looks: pd.DataFrame, words: np.ndarray, landmarks: pd.DataFrame) -> go.Figure:
    """Virtual tokens on the map of the vocabulary while they learn: the way of each so far, and where it is now, with its verdict and its nearest word.

    Parameters
    ----------
    looks : step, position, x, y, nearest_token, verdict; the last step is now.
    words : (m, 2) float32, the vocabulary's places.
    landmarks : token, x, y: words written on the map.
    """
    figure = go.Figure()
    _add_words(figure, words, landmarks)
    for _, path in looks.groupby("position"):
        _add_points(figure, path, mode="lines", line={"color": GREY, "width": 1}, hoverinfo="skip", showlegend=False)
    now = looks[looks["step"] == looks["step"].iloc[-1]]
    for verdict, rows in now.groupby("verdict"):
        colour, shape = VERDICT_MARKS[verdict]
        labels = [f"{row.position}: {drawn(row.nearest_token)}" for row in rows.itertuples()]
        _add_points(
            figure, rows, mode="markers+text", name=verdict, text=labels, textposition="top center", textfont={"size": 12}, hoverinfo="text",
            marker={"size": 10, "color": colour, "symbol": shape, "line": {"width": 1, "color": "#FFFFFF"}},
        )  # fmt: skip
    _map_layout(figure)
    figure.update_layout(height=460, uirevision="learning")  # what was zoomed to stays while the tokens move
    return figure


def _add_words(figure: go.Figure, words: np.ndarray, landmarks: pd.DataFrame) -> None:
    figure.add_scattergl(
        x=words[:, 0], y=words[:, 1], mode="markers", marker={"size": 2.5, "color": GREY, "opacity": 0.25}, hoverinfo="skip",
        name=f"{len(words):,} words"
    )  # fmt: skip
    for row in landmarks.itertuples():  # not a text trace: those lie under the points
        figure.add_annotation(x=row.x, y=row.y, text=html.escape(row.token.strip(), quote=False), showarrow=False, font={"size": 11})


def _add_points(figure: go.Figure, table: pd.DataFrame, **style) -> None:
    places = {axis: table[axis].to_numpy(np.float32) for axis in ("x", "y")}
    figure.add_scattergl(**places, **style, xaxis="x2", yaxis="y2")


def _map_layout(figure: go.Figure) -> None:
    hidden = {"showticklabels": False, "showgrid": False, "zeroline": False, "title": None}
    figure.update_layout(
        margin=MARGIN,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"},
        dragmode="pan",
        xaxis={**hidden, "domain": [0, 1]},
        yaxis={**hidden, "domain": [0, 1], "scaleanchor": "x"},
        xaxis2={**hidden, "domain": [0, 1], "matches": "x", "anchor": "y2"},
        yaxis2={**hidden, "domain": [0, 1], "matches": "y", "anchor": "x2"},
    )
