"""The map of the vocabulary: virtual tokens on it, as they are and while they learn."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.app.charts.theme import BLUE_LIGHT, GREY, MARGIN, ORANGE, VERDICT_MARKS, VERMILION, drawn, group_order, marks_of


def token_map(
    tokens: pd.DataFrame,
    words: np.ndarray,
    landmarks: pd.DataFrame,
    near: pd.DataFrame,
    *,
    by: str,
    selected: set[int] | None = None,
) -> go.Figure:
    """Virtual tokens on the map of the vocabulary.

    The tokens have axes of their own that follow the words' (`matches`) and lie on top, so that a lasso catches tokens and none of fifty thousand words.

    Parameters
    ----------
    tokens : x, y(, z), prompt, position, words (the nearest ones, for the hover) and the column `by`: numbers give a colour scale, text gives
        groups told by colour and shape. The index counts the tokens; it comes back as `customdata` when they are selected.
    words : (m, k) float32, the vocabulary's places.
    landmarks : token, x, y(, z): words written on the map.
    near : token, x, y(, z): the words near the tokens, drawn as small marks with their names at hover.
    selected : the tokens to draw as selected, by index.
    """
    flat = "z" not in tokens.columns
    figure = go.Figure()
    _add_words(figure, words, landmarks)
    _add_points(
        figure, near, mode="markers", name="their nearest words", text=near["token"].map(drawn), hovertemplate="%{text}<extra>word</extra>",
        marker={"size": 5 if flat else 2.5, "color": BLUE_LIGHT, "symbol": "circle-open"},
    )  # fmt: skip
    for name, part, marker in _parts(tokens, by, 2 if flat else 3):
        chosen = {} if selected is None or not flat else {"selectedpoints": [i for i, index in enumerate(part.index) if index in selected]}
        values = [f"{value:.2f}" if isinstance(value, float) else value for value in part[by]]
        _add_points(
            figure,
            part,
            mode="markers",
            name=name,
            marker=marker,
            showlegend=name is not None,
            customdata=part.index.to_numpy(),
            text=[
                f"<b>{html.escape(row.prompt, quote=False)}, virtual token {row.position}</b><br>{html.escape(row.words, quote=False)}<br>"
                + html.escape(f"{by}: {value}", quote=False)
                for row, value in zip(part.itertuples(), values, strict=True)
            ],
            hovertemplate="%{text}<extra></extra>",
            **chosen,
        )
    _map_layout(figure, flat)
    return figure


def learning_map(looks: pd.DataFrame, words: np.ndarray, landmarks: pd.DataFrame) -> go.Figure:
    """Virtual tokens on the map of the vocabulary while they learn: the way of each so far, and where it is now, with its verdict and its nearest word.

    Parameters
    ----------
    looks : step, position, x, y, nearest_token, verdict; the last step is now.
    words, landmarks : see `token_map`.
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
            figure, rows, mode="markers+text", name=verdict, text=labels, textposition="top center", textfont={"size": 12, "color": VERMILION}, hoverinfo="text",
            marker={"size": 10, "color": colour, "symbol": shape, "line": {"width": 1, "color": "#FFFFFF"}},
        )  # fmt: skip
    _map_layout(figure, flat=True)
    figure.update_layout(height=460, uirevision="learning")  # what was zoomed to stays while the tokens move
    return figure


def trajectory_map(frames: pd.DataFrame, words: np.ndarray, landmarks: pd.DataFrame) -> go.Figure:
    """A prompt while it was trained, played on the map of the vocabulary.

    Parameters
    ----------
    frames : step, position, x, y(, z) and word (the nearest one at that step); each step has the same positions.
    words, landmarks : see `token_map`.
    """
    flat = "z" not in frames.columns
    figure = go.Figure()
    _add_words(figure, words, landmarks)
    steps = [rows for _, rows in frames.groupby("step", sort=True)]

    def labels(rows: pd.DataFrame) -> list[str]:
        return [f"{row.position}: {drawn(row.word)}" for row in rows.itertuples()]

    paths = frames.sort_values(["position", "step"])
    for _, path in paths.groupby("position"):
        _add_points(figure, path, mode="lines", line={"color": GREY, "width": 1}, hoverinfo="skip", showlegend=False)
    style = {
        "mode": "markers+text",
        "textposition": "top center",
        "textfont": {"size": 12, "color": VERMILION},
        "marker": {"size": 10 if flat else 5, "color": ORANGE, "symbol": "circle"},
    }
    _add_points(figure, steps[0], name="now", text=labels(steps[0]), hoverinfo="text", **style)
    moving = len(figure.data) - 1
    axes = [axis for axis in ("x", "y", "z") if axis in frames.columns]
    kind = go.Scattergl if flat else go.Scatter3d
    figure.frames = [
        go.Frame(
            name=str(rows["step"].iloc[0]),
            data=[kind(**{axis: rows[axis].to_numpy(np.float32) for axis in axes}, text=labels(rows))],
            traces=[moving],
        )
        for rows in steps
    ]
    still = {"frame": {"duration": 0, "redraw": not flat}, "mode": "immediate"}
    figure.update_layout(
        updatemenus=[
            {
                "type": "buttons",
                "showactive": False,
                "bgcolor": "#E8E8E8",
                "font": {"color": "#111111"},
                "direction": "left",
                "x": 0,
                "y": -0.08,
                "xanchor": "left",
                "yanchor": "top",
                "buttons": [
                    {
                        "label": "▶ Play",
                        "method": "animate",
                        "args": [
                            None,
                            {"frame": {"duration": 150, "redraw": not flat}, "fromcurrent": True, "transition": {"duration": 0}},
                        ],
                    },
                    {"label": "⏸ Pause", "method": "animate", "args": [[None], still]},
                ],
            }
        ],
        sliders=[
            {
                "currentvalue": {"prefix": "step "},
                "x": 0.2,
                "len": 0.8,
                "y": -0.04,
                "steps": [{"label": frame.name, "method": "animate", "args": [[frame.name], still]} for frame in figure.frames],
            }
        ],
    )
    _map_layout(figure, flat)
    figure.update_layout(height=680, dragmode="pan" if flat else "orbit")
    return figure


def _parts(tokens: pd.DataFrame, by: str, dimensions: int):
    size = 11 if dimensions == 2 else 5
    outline = {"width": 1, "color": "#FFFFFF"}
    if pd.api.types.is_float_dtype(tokens[by]):
        marker = {
            "size": size,
            "color": tokens[by].to_numpy(np.float32),
            "colorscale": "Cividis",
            "colorbar": {"title": by},
            "line": outline,
        }
        yield None, tokens, marker
        return
    groups = sorted(set(tokens[by]), key=group_order)
    marks = marks_of(groups, dimensions)
    for group in groups:
        colour, shape = marks[group]
        yield (
            html.escape(group, quote=False),
            tokens[tokens[by] == group],
            {"size": size, "color": colour, "symbol": shape, "line": outline},
        )


def _add_words(figure: go.Figure, words: np.ndarray, landmarks: pd.DataFrame) -> None:
    if words.shape[1] == 2:
        figure.add_scattergl(
            x=words[:, 0], y=words[:, 1], mode="markers", marker={"size": 2.5, "color": GREY, "opacity": 0.25}, hoverinfo="skip",
            name=f"{len(words):,} words"
        )  # fmt: skip
        for row in landmarks.itertuples():  # not a text trace: those lie under the points
            figure.add_annotation(
                x=row.x,
                y=row.y,
                text=html.escape(row.token.strip(), quote=False),
                showarrow=False,
                font={"size": 11},
            )
        return
    figure.add_scatter3d(
        x=words[:, 0], y=words[:, 1], z=words[:, 2], mode="markers", marker={"size": 1, "color": GREY, "opacity": 0.15}, hoverinfo="skip", name=f"{len(words):,} words"
    )  # fmt: skip
    figure.add_scatter3d(
        x=landmarks["x"].to_numpy(np.float32), y=landmarks["y"].to_numpy(np.float32), z=landmarks["z"].to_numpy(np.float32), mode="text",
        text=[token.strip() for token in landmarks["token"]], textfont={"size": 10}, hoverinfo="skip", showlegend=False,
    )  # fmt: skip


def _add_points(figure: go.Figure, table: pd.DataFrame, **style) -> None:
    places = {axis: table[axis].to_numpy(np.float32) for axis in ("x", "y", "z") if axis in table.columns}
    if "z" in places:
        figure.add_trace(go.Scatter3d(**places, **style))
    else:
        figure.add_trace(go.Scattergl(**places, **style, xaxis="x2", yaxis="y2"))


def _map_layout(figure: go.Figure, flat: bool) -> None:
    hidden = {"showticklabels": False, "showgrid": False, "zeroline": False, "title": None}
    figure.update_layout(height=620, margin=MARGIN, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"})
    if flat:
        figure.update_layout(
            dragmode="pan",
            xaxis={**hidden, "domain": [0, 1]},
            yaxis={**hidden, "domain": [0, 1], "scaleanchor": "x"},
            xaxis2={**hidden, "domain": [0, 1], "matches": "x", "anchor": "y2"},
            yaxis2={**hidden, "domain": [0, 1], "matches": "y", "anchor": "x2"},
        )
    else:
        axis = {"showticklabels": False, "title": "", "showbackground": False, "showspikes": False}
        figure.update_layout(scene={"xaxis": axis, "yaxis": axis, "zaxis": axis})
