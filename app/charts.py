"""Table in, plotly Figure out. Pure functions: no Streamlit, no files.

Colours are Okabe & Ito's, which people with colour-blindness can tell apart; what a colour says, a word or a shape says too.
"""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go

BLUE, BLUE_LIGHT, ORANGE, GREY = "#0072B2", "#56B4E9", "#E69F00", "#8A8A8A"
ROW_HEIGHT = 26
_PALE_BLUES = [[0.0, "#F4F8FC"], [1.0, BLUE_LIGHT]]  # dark text stays readable on all of it
_MARGIN = {"l": 10, "r": 10, "t": 30, "b": 40}


def shown(token: str) -> str:
    """A token for a narrow cell: the space that starts a word is made visible."""
    return "␣" + token[1:] if token.startswith(" ") else token


def drawn(token: str) -> str:
    """A token for a chart: plotly would take `<b>` for markup."""
    return html.escape(shown(token), quote=False)


def token_norms(table: pd.DataFrame) -> go.Figure:
    """A bar a virtual token, as long as its Euclidean norm; the parts of a prompt differ in colour and in the legend's words.

    Parameters
    ----------
    table : of `analysis.inspection.token_norms`.
    """
    figure = go.Figure()
    for (part, rows), colour in zip(table.groupby("part", sort=False), (BLUE, ORANGE), strict=False):
        norms = rows["norm"].to_numpy(np.float32)
        figure.add_bar(x=rows["position"].to_numpy(), y=norms, name=part, marker_color=colour, showlegend=bool(part))
    figure.update_traces(hovertemplate="virtual token %{x}<br>norm %{y:.3f}<extra></extra>")
    figure.update_layout(height=280, margin=_MARGIN, xaxis_title="virtual token", yaxis_title="norm", bargap=0.15)
    return figure


def neighbours_heat_map(table: pd.DataFrame) -> go.Figure:
    """One row a virtual token, one column a rank, the word in the cell and its score as the colour.

    Parameters
    ----------
    table : of `analysis.neighbours.neighbours`, one prompt.
    """
    scores = table.pivot(index="position", columns="rank", values="score")
    tokens = table.pivot(index="position", columns="rank", values="token").map(drawn)
    figure = go.Figure(
        go.Heatmap(
            z=scores.to_numpy(np.float32),
            x=scores.columns.to_numpy(),
            y=scores.index.to_numpy(),
            text=tokens.to_numpy(),
            texttemplate="%{text}",
            hovertemplate="virtual token %{y}, rank %{x}<br>%{text}<br>score %{z:.3f}<extra></extra>",
            colorscale=_PALE_BLUES,
            textfont={"color": "#111111"},
            colorbar={"title": table["metric"].iloc[0]},
            xgap=1,
            ygap=1,
        )
    )
    figure.update_layout(
        height=110 + ROW_HEIGHT * len(scores), margin=_MARGIN, xaxis_title="rank (0 is nearest)", yaxis_title="virtual token"
    )
    figure.update_yaxes(autorange="reversed", dtick=1 if len(scores) <= 40 else 5, showgrid=False)
    figure.update_xaxes(dtick=1, showgrid=False)
    return figure


def score_bars(table: pd.DataFrame, *, span: tuple[float, float], colour: str = BLUE) -> go.Figure:
    """The nearest words of one virtual token as bars, the nearest on top.

    Parameters
    ----------
    table : rows of `analysis.neighbours.neighbours` of one prompt and position.
    span : the ends of the score axis, so that charts side by side can be compared.
    """
    figure = go.Figure(
        go.Bar(
            x=table["score"].to_numpy(np.float32),
            y=[f"{rank}: {drawn(token)}" for rank, token in zip(table["rank"], table["token"], strict=True)],
            orientation="h",
            marker_color=colour,
            text=[f"{score:.3f}" for score in table["score"]],
            textposition="auto",
            insidetextfont={"color": "#FFFFFF" if colour == BLUE else "#111111"},
            hovertemplate="%{y}<br>score %{x:.4f}<extra></extra>",
        )
    )
    figure.update_layout(
        height=90 + ROW_HEIGHT * len(table), margin=_MARGIN, xaxis_title=f"score ({table['metric'].iloc[0]})", showlegend=False
    )
    figure.update_xaxes(range=span)
    figure.update_yaxes(autorange="reversed")
    return figure


def loss_curve(losses: pd.DataFrame, *, steps: int) -> go.Figure:
    """Each step's loss as a dot, and the mean of the last ten as a line.

    Parameters
    ----------
    losses : step, loss; one row a step.
    steps : where the axis ends.
    """
    smooth = losses["loss"].rolling(10, min_periods=1).mean()
    figure = go.Figure()
    figure.add_scatter(x=losses["step"], y=losses["loss"], mode="markers", name="this step", marker={"color": GREY, "size": 5})
    figure.add_scatter(x=losses["step"], y=smooth, mode="lines", name="mean of the last ten", line={"color": BLUE, "width": 2.5})
    figure.update_layout(
        height=320, margin=_MARGIN, xaxis_title="step", yaxis_title="loss (nats a token)", legend={"orientation": "h", "y": 1.12}
    )
    figure.update_xaxes(range=[0, steps + 1])
    figure.update_yaxes(rangemode="tozero")
    return figure


def accuracy_gains(runs: pd.DataFrame) -> go.Figure:
    """Held-out accuracy of every run: without a prompt (open square), with the untrained initial values (open diamond) and with
    the trained prompt (dot, with its 95 % interval).

    Parameters
    ----------
    runs : of `trained_prompts.store.list_runs`.
    """
    runs = runs[runs["accuracy"].notna()]
    figure = go.Figure()
    for row in runs.itertuples():
        figure.add_shape(
            type="line", x0=row.no_prompt, x1=row.accuracy, y0=row.name, y1=row.name, line={"color": GREY, "width": 1, "dash": "dot"}
        )
    figure.add_scatter(
        x=runs["no_prompt"], y=runs["name"], mode="markers", name="no prompt",
        marker={"symbol": "square-open", "size": 11, "color": ORANGE, "line": {"width": 2}},
        hovertemplate="%{y}<br>no prompt: %{x:.3f}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=runs["start"], y=runs["name"], mode="markers", name="initial values, untrained",
        marker={"symbol": "diamond-open", "size": 11, "color": GREY, "line": {"width": 2}},
        hovertemplate="%{y}<br>initial values: %{x:.3f}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=runs["accuracy"], y=runs["name"], mode="markers", name="trained, 95 % interval",
        marker={"symbol": "circle", "size": 11, "color": BLUE},
        error_x={"type": "data", "symmetric": False, "array": runs["high"] - runs["accuracy"], "arrayminus": runs["accuracy"] - runs["low"], "color": BLUE},
        hovertemplate="%{y}<br>with the prompt: %{x:.3f}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        height=110 + 34 * len(runs),
        margin=_MARGIN,
        xaxis_title="held-out accuracy",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    figure.update_yaxes(autorange="reversed", title=None, type="category")
    return figure
