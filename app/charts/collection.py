"""A collection of adapters as a map: a dot each, at two of its figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.app.charts.theme import ABOVE, GREY, MARGIN, drawn, marks_of, shortened

MOST_GROUPS = 7  # as many as there are colours
OTHERS, NO_VERDICT = "all others", "no verdict"
WIDE = 100.0  # values that span more than so many times the smallest are drawn on a log scale
_NAME_LETTERS, _GROUP_LETTERS = 60, 32


def few_groups(values: pd.Series) -> tuple[pd.Series, list[str]]:
    """The most frequent values, all others under one name, and in which order they are listed: the colours and shapes go by that, whatever is filtered."""
    counts = values.value_counts()
    if len(counts) <= MOST_GROUPS:
        return values, sorted(counts.index)
    shown = sorted(counts.index[: MOST_GROUPS - 1])
    return values.where(values.isin(shown), OTHERS), [*shown, OTHERS]


def collection_map(
    dots: pd.DataFrame, x_title: str, y_title: str, groups: list[str], *, selected: Sequence[int] | None = None
) -> go.Figure:  # fmt: skip
    """A dot an adapter, told by colour and shape; a dot's `customdata` is its number.

    Parameters
    ----------
    dots : number, name, group, x, y; none of them missing.
    groups : all that there are, in the order of `few_groups`; those of no dot are left out.
    selected : the numbers of those that stand out; all alike when None.
    """
    figure = go.Figure()
    marks = marks_of(groups) | {OTHERS: (GREY, "x"), NO_VERDICT: (GREY, "triangle-down-open")}
    sizes = dots["group"].value_counts()
    chosen = None if selected is None else dots["number"].isin(selected)
    for group in sorted(sizes.index, key=lambda group: -sizes[group]):  # the fewest lie on top
        rows = dots["group"] == group
        colour, shape = marks[group]
        figure.add_scattergl(
            x=dots.loc[rows, "x"].to_numpy(np.float32), y=dots.loc[rows, "y"].to_numpy(np.float32), mode="markers",
            name=drawn(f"{shortened(group, _GROUP_LETTERS)} ({sizes[group]:,})"), legendrank=groups.index(group),
            marker={"size": 8, "color": colour, "symbol": shape, "opacity": 0.75},
            selected={"marker": {"opacity": 1.0, "size": 10}}, unselected={"marker": {"color": GREY, "opacity": 0.2, "size": 6}},
            selectedpoints=None if chosen is None else np.flatnonzero(chosen[rows]).tolist(),
            customdata=dots.loc[rows, "number"].to_numpy(np.int32), text=[drawn(shortened(name, _NAME_LETTERS)) for name in dots.loc[rows, "name"]],
            hovertemplate=f"%{{text}}<br>{x_title} %{{x:.4~g}}<br>{y_title} %{{y:.4~g}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=460, margin=MARGIN, legend=ABOVE | {"itemsizing": "constant"}, showlegend=len(sizes) > 1, dragmode="lasso",
        xaxis=_axis(dots["x"], x_title), yaxis=_axis(dots["y"], y_title),
    )  # fmt: skip
    return figure


def _axis(values: pd.Series, title: str) -> dict:
    if len(values) and 0 < WIDE * values.min() < values.max():
        return {"type": "log", "title": f"{title} (log scale)"}
    return {"title": title, "zeroline": False}
