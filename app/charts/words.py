"""Virtual tokens and the words that they are near to: table in, rows or a plotly Figure out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.analysis.core.words import shown
from soft_prompt_explorer.app.charts.rows import Row, Scale, columns_chart, row_chart, scale_of
from soft_prompt_explorer.app.charts.theme import BLUE, BLUE_LIGHT, GREEN, MARGIN, ORANGE, PALE_BLUES, ROW_HEIGHT, VERMILION, drawn


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
            x=scores.columns.to_numpy(),
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
        height=110 + ROW_HEIGHT * len(scores), margin=MARGIN, xaxis_title="rank (0 is nearest)", yaxis_title="virtual token"
    )
    figure.update_yaxes(autorange="reversed", dtick=1 if len(scores) <= 40 else 5, showgrid=False)
    figure.update_xaxes(dtick=1, showgrid=False)
    return figure


def null_histogram(null: np.ndarray, score: float, *, of: str, alt: str) -> str:
    """What random vectors score, as columns, with one virtual token's score as a line.

    Parameters
    ----------
    null : the best scores of the vocabulary's random vectors.
    of : what the score is of, in a few words.
    """
    counts, edges = np.histogram(null, 40)
    scale = Scale(min(0.0, float(null.min()), score) - 0.02, 1.02, "best centred cosine with a word")
    return columns_chart(
        counts.tolist(), (float(edges[0]), float(edges[-1])), score, scale, says=f"{of}: {score:.2f}", of=f"{len(null):,} random vectors", colour=VERMILION, alt=alt
    )  # fmt: skip


def score_bars(table: pd.DataFrame, *, alt: str, scale: Scale | None = None, colour: str = BLUE) -> str:
    """The nearest words of one virtual token as bars, the nearest on top.

    Parameters
    ----------
    table : rows of `analysis.prompts.search.neighbours` of one prompt and position.
    scale : of `score_scale`, so that charts side by side can be compared; by default of these words alone.
    """
    rows = [
        Row(
            f"{word.rank}: {shown(word.token)}",
            f"{word.score:.3f}",
            f"{shown(word.token)}: score {word.score:.4f}",
            (word.score, colour),
        )
        for word in table.itertuples()
    ]
    return row_chart(rows, scale or score_scale(table), alt=alt, lines=[0])


def score_scale(table: pd.DataFrame) -> Scale:
    """The scale on which all scores of such a table are seen."""
    return scale_of(table["score"], f"score ({table['metric'].iloc[0]})")


def direction_bars(table: pd.DataFrame, tested: set[int], *, alt: str) -> str:
    """The words that a task direction points at, the nearest on top; the task's own words are marked by colour and by a star.

    Parameters
    ----------
    table : of `analysis.prompts.directions.direction`.
    tested : token ids of the task's words.
    """
    rows = []
    for word in table.itertuples():
        own, named = word.token_id in tested, f"{word.rank:,}: {shown(word.token)}"
        says = f"{named}: cosine {word.score:.4f}"
        rows.append(Row(f"{'★ ' if own else ''}{named}", f"{word.score:.3f}", says, (word.score, GREEN if own else BLUE_LIGHT)))
    return row_chart(rows, scale_of(table["score"], "cosine with the shared direction"), alt=alt, lines=[0])
