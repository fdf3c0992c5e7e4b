"""Methods of adapting a model against each other: scores against what they cost, measured here and as published."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.app.charts.rows import Mark, Row, row_chart, scale_of
from soft_prompt_explorer.app.charts.theme import (
    ABOVE,
    BLUE,
    BLUE_LIGHT,
    GREEN,
    GREY,
    MARGIN,
    ORANGE,
    PURPLE,
    VERMILION,
    drawn,
    shortened,
)

# Methods are told by colour and shape, those of papers by the same shapes with nothing in them.
METHOD_MARKS = {
    "zero-shot": (GREY, "circle"), "prompt engineering": (ORANGE, "square"), "prompt tuning": (BLUE, "diamond"), "p-tuning": (BLUE_LIGHT, "triangle-up"),
    "prefix tuning": (PURPLE, "star"), "LoRA": (GREEN, "cross"), "full fine-tuning": (VERMILION, "hexagon"), "prefix-embedding tuning": (BLUE, "diamond"),
    "hand-written prompt": (ORANGE, "square"), "4 examples": (PURPLE, "pentagon"), "prefix-layer tuning": (PURPLE, "star"), "adapter": (ORANGE, "pentagon"), "BitFit": (BLUE_LIGHT, "triangle-down"), "last two layers": (GREY, "bowtie"),
}  # fmt: skip
_LABEL_LETTERS = 40


def method_scores(table: pd.DataFrame, *, alt: str) -> str:
    """A mark and a 95 % interval for each row, in the order of the table; zero-shot's interval is a band behind all.

    Parameters
    ----------
    table : of `trained_prompts.experiments.comparison.compare`.
    """
    rows = []
    for each in table.itertuples():
        label = each.method if each.method != "prompt engineering" else shortened(each.what, _LABEL_LETTERS)
        scored = each.score == each.score
        score = f"{each.score:.3f} ({each.low:.3f} to {each.high:.3f}), n {each.n:,.0f}" if scored else "no score"
        says = f"{each.method}, {shortened(each.what, 90)}: {score}; {_counted(each.trainable)} trainable"
        mark = Mark(each.score, *METHOD_MARKS[each.method], each.low, each.high)
        rows.append(Row(label, f"{each.score:.3f}" if scored else "none", says, marks=(mark,)))
    scale = scale_of([*table["low"], *table["high"]], f"held-out {table['measure'].iloc[0]}", zero=False, written="{:.0%}")
    legend = [(method, *METHOD_MARKS[method]) for method in dict.fromkeys(table["method"])]
    return row_chart(rows, scale, alt=alt, legend=legend, band=_zero_shot_band(table))


def score_by_trainable(table: pd.DataFrame) -> go.Figure:
    """Score against trainable parameters on a logarithmic axis; what trains nothing stands side by side at "none".

    Parameters
    ----------
    table : of `trained_prompts.experiments.comparison.compare`.
    """
    figure = go.Figure()
    trained = table["trainable"] > 0
    decade = int(np.floor(np.log10(table.loc[trained, "trainable"].min()))) if trained.any() else 4
    none = decade - 1.0  # in powers of ten, as all places here
    places = np.log10(table["trainable"].where(trained, 1))
    places[~trained] = none + np.linspace(-0.45, 0.45, max(2, (~trained).sum()))[: (~trained).sum()]
    band = _zero_shot_band(table)
    if band is not None:
        figure.add_hrect(y0=band[0], y1=band[1], fillcolor=GREY, opacity=0.2, line_width=0, layer="below")
    for method, rows in table.groupby("method", sort=False):
        _add_method(figure, method, rows, x=rows["trainable"].where(trained, 10**places))
    decades = range(decade, int(np.ceil(places.max())) + 1)
    figure.add_vline(x=10 ** (none + 0.7), line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_layout(height=420, margin=MARGIN | {"t": 70}, xaxis_title="trainable parameters", legend=ABOVE)
    figure.update_xaxes(
        type="log",
        tickvals=[10**none, *(10.0**power for power in decades)],
        ticktext=["none", *(_counted(10.0**power) for power in decades)],
    )
    figure.update_xaxes(range=[none - 0.7, places.max() + 0.4], showgrid=False)
    figure.update_yaxes(title=f"held-out {table['measure'].iloc[0]}", tickformat=".0%")
    return figure


def score_by_size(table: pd.DataFrame) -> go.Figure:
    """Score against the parameters of the whole model, a line a method; methods stand a little apart so that their intervals can be seen.

    Parameters
    ----------
    table : rows of `trained_prompts.experiments.comparison.compare`, a method and model each, with total (the model's parameters) and, where another text is to be
        seen at a mark, says; and least and most, of several seeds, which are drawn as open marks where they differ.
    """
    figure = go.Figure()
    methods = list(dict.fromkeys(table["method"]))
    aside = dict(zip(methods, 10 ** np.linspace(-0.03, 0.03, len(methods)), strict=True))
    for method, rows in table.sort_values("total", kind="stable").groupby("method", sort=False):
        if "most" in rows:
            _add_seeds(figure, method, rows[rows["most"] > rows["least"]], aside[method])
        _add_method(figure, method, rows, x=rows["total"] * aside[method], mode="markers+lines")
    models = table.drop_duplicates("model").sort_values("total")
    figure.update_layout(height=420, margin=MARGIN | {"t": 70, "b": 60}, xaxis_title="parameters of the model", legend=ABOVE)
    figure.update_xaxes(
        type="log", tickvals=models["total"].tolist(), ticktext=[f"{_counted(row.total)}<br>{drawn(row.model.rstrip('/').rpartition('/')[2])}" for row in models.itertuples()], showgrid=False,
        range=[np.log10(models["total"].min()) - 0.15, np.log10(models["total"].max()) + 0.15],
    )  # fmt: skip
    figure.update_yaxes(title=f"held-out {table['measure'].iloc[0]}", tickformat=".0%")
    return figure


def score_over_sizes(table: pd.DataFrame) -> go.Figure:
    """The picture of Lester et al. 2021, figure 1, as it was measured here: score against the parameters of the model, a line a way.

    Parameters
    ----------
    table : rows of `trained_prompts.experiments.sizes.summary` of one task, or of `over_tasks`. The least and the most of several seeds have open marks.
    """
    said = [
        f"{row.model}<br>{row.score:.3f} ({row.low:.3f} to {row.high:.3f})" + (f"<br>{row.least:.3f} to {row.most:.3f} over {row.seeds:.0f} seeds" if row.seeds > 1 else "")
        for row in table.itertuples()
    ]  # fmt: skip
    return score_by_size(table.rename(columns={"way": "method", "parameters": "total"}).assign(says=said))


def published_scores(table: pd.DataFrame, against: str) -> go.Figure:
    """What a paper printed, in open marks: the methods by shape, colour and hover, the points of a model (or of a method) joined by a line.

    Parameters
    ----------
    table : rows of `trained_prompts.experiments.comparison.published` of one metric.
    against : trainable, or total (the parameters of the whole model), where each method is joined over the models.
    """
    figure = go.Figure()
    if against == "trainable":
        for model, rows in table.sort_values("trainable").groupby("model", sort=False):
            figure.add_scatter(
                x=rows["trainable"],
                y=rows["score"],
                mode="lines",
                line={"color": GREY, "width": 1, "dash": "dot"},
                hoverinfo="skip",
                showlegend=False,
            )
            last = rows.iloc[-1]
            figure.add_annotation(
                x=np.log10(last["trainable"]), y=last["score"], text=model, showarrow=False, yshift=16, xanchor="right", font={"size": 11}
            )
    for method, rows in table.groupby("method", sort=False):
        colour, shape = METHOD_MARKS[method]
        figure.add_scatter(
            x=rows[against], y=rows["score"], mode="markers" if against == "trainable" else "markers+lines", name=method, line={"color": colour, "width": 1, "dash": "dot"},
            marker={"symbol": f"{shape}-open", "size": 11, "color": colour, "line": {"width": 2}},
            error_y={"type": "data", "array": rows["plus_minus"], "color": colour, "thickness": 1.5},
            customdata=[f"{row.model}, {row.printed}: {row.score:g}" + (f" ± {row.plus_minus:g}" if row.plus_minus == row.plus_minus else "") + f"<br>{_counted(row.trainable)} trainable of {_counted(row.total)}" + (f"<br>{row.note}" if row.note else "") for row in rows.itertuples()],
            hovertemplate="%{customdata}<extra>published</extra>",
        )  # fmt: skip
    if against == "trainable":
        powers = range(int(np.floor(np.log10(table[against].min()))), int(np.ceil(np.log10(table[against].max()))) + 1)
        ticks = {10.0**power: _counted(10.0**power) for power in powers}
    else:
        ticks = {row.total: f"{_counted(row.total)}<br>{row.model}" for row in table.drop_duplicates("model").itertuples()}
    title = "trainable parameters" if against == "trainable" else "parameters of the model"
    figure.update_layout(height=420, margin=MARGIN | {"t": 70}, xaxis_title=title, yaxis_title=table["metric"].iloc[0], legend=ABOVE)
    figure.update_xaxes(type="log", tickvals=list(ticks), ticktext=list(ticks.values()), showgrid=False)
    return figure


def _add_method(figure: go.Figure, method: str, rows: pd.DataFrame, *, x: pd.Series, mode: str = "markers") -> None:
    """The rows of one method as filled marks: what was measured here, with its intervals."""
    colour, shape = METHOD_MARKS[method]
    figure.add_scatter(
        x=x, y=rows["score"], mode=mode, error_y=_interval(rows) | {"color": colour, "thickness": 1.5}, name=method, legendgroup=method, marker={"symbol": shape, "size": 10, "color": colour}, line={"color": colour, "width": 1},
        customdata=rows["says"] if "says" in rows else [f"{html.escape(shortened(row.what, 90), quote=False)}<br>{row.score:.3f} ({row.low:.3f} to {row.high:.3f}), n {row.n:,.0f}<br>{_counted(row.trainable)} trainable" for row in rows.itertuples()],
        hovertemplate="%{customdata}<extra>" + method + "</extra>",
    )  # fmt: skip


def _add_seeds(figure: go.Figure, method: str, rows: pd.DataFrame, aside: float) -> None:
    """The least and the most that seeds of one method score, as open marks joined by a dotted line, a pair a model."""
    colour, shape = METHOD_MARKS[method]
    for row in rows.itertuples():
        figure.add_scatter(
            x=[row.total * aside] * 2, y=[row.least, row.most], mode="markers+lines", line={"color": colour, "width": 1, "dash": "dot"}, showlegend=False,
            marker={"symbol": f"{shape}-open", "size": 8, "color": colour, "line": {"width": 1.5}}, legendgroup=method, customdata=["lowest", "highest"],
            hovertemplate="%{y:.3f}: the %{customdata} of " + f"{row.seeds:.0f} seeds, {drawn(row.model)}<extra>{method}</extra>",
        )  # fmt: skip


def _zero_shot_band(table: pd.DataFrame) -> tuple[float, float] | None:
    bare = table[table["method"] == "zero-shot"]
    return (float(bare["low"].iloc[0]), float(bare["high"].iloc[0])) if len(bare) else None


def _interval(rows: pd.DataFrame) -> dict:
    return {"type": "data", "symmetric": False, "array": rows["high"] - rows["score"], "arrayminus": rows["score"] - rows["low"]}


def _counted(number: float) -> str:
    """A count as an axis says it: 5,760 is 5.76 k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:g}"
