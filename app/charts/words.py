"""Virtual tokens and the words that they are near to: table in, plotly Figure out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.app.charts.theme import BLUE, BLUE_LIGHT, GREEN, GREY, MARGIN, ORANGE, PALE_BLUES, ROW_HEIGHT, VERMILION, drawn


def token_norms(table: pd.DataFrame) -> go.Figure:
    """A bar a virtual token, as long as its Euclidean norm; the parts of a prompt differ in colour and in the legend's words.

    Parameters
    ----------
    table : of `analysis.report.inspection.token_norms`.
    """
    figure = go.Figure()
    for (part, rows), colour in zip(table.groupby("part", sort=False), (BLUE, ORANGE), strict=False):
        norms = rows["norm"].to_numpy(np.float32)
        figure.add_bar(x=rows["position"].to_numpy(), y=norms, name=part, marker_color=colour, showlegend=bool(part))
    figure.update_traces(hovertemplate="virtual token %{x}<br>norm %{y:.3f}<extra></extra>")
    figure.update_layout(height=280, margin=MARGIN, xaxis_title="virtual token", yaxis_title="norm", bargap=0.15)
    return figure


def neighbours_heat_map(table: pd.DataFrame) -> go.Figure:
    """One row a virtual token, one column a rank, the word in the cell and its score as the colour.

    Parameters
    ----------
    table : of `analysis.prompts.search.neighbours`, one prompt.
    """
    scores = table.pivot(index="position", columns="rank", values="score")
    tokens = table.pivot(index="position", columns="rank", values="token").map(drawn)
    figure = go.Figure(
        go.Heatmap(
            z=scores.to_numpy(np.float32),
            x=scores.columns.to_numpy() + 1,
            y=scores.index.to_numpy(),
            text=tokens.to_numpy(),
            texttemplate="%{text}",
            hovertemplate="virtual token %{y}, rank %{x}<br>%{text}<br>score %{z:.3f}<extra></extra>",
            colorscale=PALE_BLUES,
            textfont={"color": "#111111"},
            colorbar={"title": table["metric"].iloc[0]},
            xgap=1,
            ygap=1,
        )
    )
    figure.update_layout(
        height=110 + ROW_HEIGHT * len(scores), margin=MARGIN, xaxis_title="rank (1 is nearest)", yaxis_title="virtual token"
    )
    figure.update_yaxes(autorange="reversed", dtick=1 if len(scores) <= 40 else 5, showgrid=False)
    figure.update_xaxes(dtick=1, showgrid=False)
    return figure


def score_bars(table: pd.DataFrame, *, span: tuple[float, float], colour: str = BLUE) -> go.Figure:
    """The nearest words of one virtual token as bars, the nearest on top.

    Parameters
    ----------
    table : rows of `analysis.prompts.search.neighbours` of one prompt and position.
    span : the ends of the score axis, so that charts side by side can be compared.
    """
    figure = go.Figure(
        go.Bar(
            x=table["score"].to_numpy(np.float32),
            y=[f"{rank + 1}: {drawn(token)}" for rank, token in zip(table["rank"], table["token"], strict=True)],
            orientation="h",
            marker_color=colour,
            text=[f"{score:.3f}" for score in table["score"]],
            textposition="auto",
            insidetextfont={"color": "#FFFFFF" if colour == BLUE else "#111111"},
            hovertemplate="%{y}<br>score %{x:.4f}<extra></extra>",
        )
    )
    figure.update_layout(
        height=90 + ROW_HEIGHT * len(table), margin=MARGIN, xaxis_title=f"score ({table['metric'].iloc[0]})", showlegend=False
    )
    figure.update_xaxes(range=span)
    figure.update_yaxes(autorange="reversed")
    return figure


def null_histogram(null: np.ndarray, score: float, *, of: str) -> go.Figure:
    """What random vectors score, with one virtual token's score on it.

    Parameters
    ----------
    null : the best scores of the vocabulary's random vectors.
    of : what the score is of, in a few words.
    """
    figure = go.Figure(
        go.Histogram(
            x=null.astype(np.float32),
            nbinsx=40,
            marker_color=GREY,
            opacity=0.6,
            name=f"{len(null):,} random vectors",
            hovertemplate="%{x}: %{y}<extra></extra>",
        )
    )
    figure.add_vline(x=score, line={"color": VERMILION, "width": 3}, annotation_text=f"{of}: {score:.2f}", annotation_position="top")
    figure.update_layout(
        height=260, margin=MARGIN | {"t": 45}, xaxis_title="best centred cosine with a word", yaxis_title="random vectors", bargap=0.05
    )
    figure.update_xaxes(range=[min(0.0, float(null.min()), score) - 0.02, 1.02])
    return figure


def direction_bars(table: pd.DataFrame, tested: set[int]) -> go.Figure:
    """The words that a task direction points at, the nearest on top; the task's own words are marked by colour and by a star.

    Parameters
    ----------
    table : of `analysis.prompts.directions.direction`.
    tested : token ids of the task's words.
    """
    own = table["token_id"].isin(tested).to_numpy()
    figure = go.Figure(
        go.Bar(
            x=table["score"].to_numpy(np.float32),
            y=[f"{row.rank + 1:,}: {drawn(row.token)}{' ★' if mine else ''}" for row, mine in zip(table.itertuples(), own, strict=True)],
            orientation="h",
            marker_color=np.where(own, GREEN, BLUE_LIGHT),
            hovertemplate="%{y}<br>score %{x:.4f}<extra></extra>",
        )
    )
    figure.update_layout(
        height=90 + ROW_HEIGHT * len(table), margin=MARGIN, xaxis_title="cosine with the shared direction", showlegend=False
    )
    figure.update_yaxes(autorange="reversed", type="category")
    return figure
