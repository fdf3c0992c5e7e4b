"""Held-out scores of runs: what each gains, what readability costs, and how sure against how often right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.app.charts.theme import ABOVE, BLUE, GREY, MARGIN, ORANGE, drawn, marks_of, shortened

TRADE_MARKS = {"score": ("the vectors", BLUE, "circle", "solid"), "words_score": ("their words in their place", ORANGE, "square", "dash")}
_READABILITY = {"cosine": "mean centred cosine with the nearest word", "near": "share of tokens nearer to a word than chance"}


def score_gains(runs: pd.DataFrame) -> go.Figure:
    """Held-out score of every run: without a prompt (open square), with the untrained initial values (open diamond) and with
    the trained prompt (dot, with its 95 % interval).

    Parameters
    ----------
    runs : of `trained_prompts.runs.store.list_runs`.
    """
    runs = runs[runs["score"].notna()]
    figure = go.Figure()
    for row in runs.itertuples():
        figure.add_shape(
            type="line", x0=row.no_prompt, x1=row.score, y0=row.name, y1=row.name, line={"color": GREY, "width": 1, "dash": "dot"}
        )
    figure.add_scatter(
        x=runs["no_prompt"], y=runs["name"], mode="markers", name="no prompt",
        marker={"symbol": "square-open", "size": 11, "color": ORANGE, "line": {"width": 2}},
        customdata=runs["n"], hovertemplate="%{y}<br>no prompt: %{x:.3f}, n %{customdata:,.0f}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=runs["start"], y=runs["name"], mode="markers", name="initial values, untrained",
        marker={"symbol": "diamond-open", "size": 11, "color": GREY, "line": {"width": 2}},
        customdata=runs["n"], hovertemplate="%{y}<br>initial values: %{x:.3f}, n %{customdata:,.0f}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=runs["score"], y=runs["name"], mode="markers", name="trained, 95 % interval",
        marker={"symbol": "circle", "size": 11, "color": BLUE},
        error_x={"type": "data", "symmetric": False, "array": runs["high"] - runs["score"], "arrayminus": runs["score"] - runs["low"], "color": BLUE},
        customdata=runs["n"], hovertemplate="%{y}<br>with the prompt: %{x:.3f}, n %{customdata:,.0f}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        height=110 + 34 * len(runs),
        margin=MARGIN,
        xaxis_title="held-out score",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    figure.update_xaxes(range=[-0.05, 1.05], tickvals=[0, 0.5, 1], tickformat=".0%", zeroline=False)  # a mark at the end is whole
    figure.update_yaxes(
        autorange="reversed", title=None, type="category", tickmode="array", tickvals=runs["name"].tolist(),
        ticktext=[f"{drawn(row.name)}, n {row.n:,.0f}" for row in runs.itertuples(index=False)],
    )  # fmt: skip
    return figure


def readability_trade(table: pd.DataFrame, x: str) -> go.Figure:
    """Scores of prompts and of the words in their place against how near to words they are, each mark with its γ, over the band of the bare model.

    Parameters
    ----------
    table : of `trained_prompts.experiments.trades.trade`, with family: the prompts of one number are joined by a line in the order of γ.
    x : cosine, or near.
    """
    figure = go.Figure()
    first = table.iloc[0]
    figure.add_hrect(
        y0=first["no_prompt_low"], y1=first["no_prompt_high"], fillcolor=GREY, opacity=0.2, line_width=0, layer="below",
        annotation={"text": "no prompt", "font": {"size": 11}}, annotation_position="inside right",
    )  # fmt: skip
    for column, (name, colour, shape, dash) in TRADE_MARKS.items():
        low, high = (f"{column.removesuffix('score')}{end}" for end in ("low", "high"))
        for family, rows in table.sort_values("readable", kind="stable").groupby("family", sort=True):
            labels = [f"γ = {'∞' if np.isinf(row.readable) else f'{row.readable:g}'}" for row in rows.itertuples()]
            figure.add_scatter(
                x=rows[x].to_numpy(np.float32), y=rows[column].to_numpy(np.float32), mode="markers+lines+text", name=name, legendgroup=column, showlegend=family == 0,
                line={"color": colour, "width": 1.5, "dash": dash}, marker={"symbol": shape, "size": 11, "color": colour},
                error_y={"type": "data", "symmetric": False, "array": rows[high] - rows[column], "arrayminus": rows[column] - rows[low], "color": colour, "thickness": 1.5},
                text=labels, textposition="top right", cliponaxis=False,
                customdata=[f"{drawn(row.prompt)}, {label}, n {row.n:,.0f}<br>{drawn(shortened(row.words, 60))}" for row, label in zip(rows.itertuples(), labels, strict=True)],
                hovertemplate="%{customdata}<br>%{y:.1%}<extra>" + name + "</extra>",
            )  # fmt: skip
    room = 0.12 * (float(np.ptp(table[x])) or 1.0)
    figure.update_layout(height=420, margin=MARGIN | {"t": 70}, xaxis_title=_READABILITY[x], legend=ABOVE)
    figure.update_xaxes(range=[table[x].min() - room, table[x].max() + 1.5 * room], zeroline=False)
    if x == "near":
        figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(title=f"held-out {first['measure']}", tickformat=".0%", range=[-0.02, 1.1], zeroline=False)
    return figure


def reliability(table: pd.DataFrame) -> go.Figure:
    """Accuracy against confidence, a mark a bin, as large as the bin has answers, beside the line where both are the same.

    Parameters
    ----------
    table : of `analysis.asking.scores.calibration`, of one run or of several under one another.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "width": 1, "dash": "dot"}, name="as often right as sure", hoverinfo="skip"
    )
    several = len(table["task"].unique()) > 1
    filled = table[table["n"] > 0].assign(group=table["prompt"] + (" on " + table["task"] if several else ""))
    marks = marks_of(list(dict.fromkeys(filled["group"])))
    for group, rows in filled.groupby("group", sort=False):
        colour, shape = marks[group]
        figure.add_scatter(
            x=rows["confidence"].to_numpy(np.float32), y=rows["accuracy"].to_numpy(np.float32), mode="markers", name=drawn(group),
            marker={"symbol": shape, "color": colour, "size": 7 + 18 * np.sqrt(rows["n"].to_numpy() / filled["n"].max()), "opacity": 0.85, "line": {"width": 0}},
            customdata=rows[["n", "low", "high"]].to_numpy(),
            hovertemplate="%{customdata[0]:,.0f} answers given %{customdata[1]:.0%} to %{customdata[2]:.0%}<br>sure %{x:.1%}, right %{y:.1%}<extra>" + drawn(group) + "</extra>",
        )  # fmt: skip
    figure.update_layout(
        height=440, margin=MARGIN | {"t": 70}, xaxis_title="confidence: the mean probability of the answers", yaxis_title="share that is right",
        legend=ABOVE | {"itemsizing": "constant"},
    )  # fmt: skip
    figure.update_xaxes(range=[-0.02, 1.04], tickformat=".0%", zeroline=False)
    figure.update_yaxes(range=[-0.05, 1.07], tickformat=".0%", zeroline=False)
    return figure
