"""A training as it goes: its loss, its score and its verdicts by step."""

from __future__ import annotations

import html

import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.app.charts.theme import BLUE, BLUE_LIGHT, GREEN, GREY, MARGIN, ORANGE, PURPLE, VERDICT_MARKS, VERMILION

# Runs beside another: told by colour and by dash, and named in the legend.
BESIDE_STYLES = [(VERMILION, "dash"), (GREEN, "dot"), (PURPLE, "dashdot"), (ORANGE, "longdash"), (BLUE_LIGHT, "longdashdot")]


def loss_curve(losses: pd.DataFrame, *, steps: int, beside: dict[str, pd.DataFrame] | None = None) -> go.Figure:
    """Each step's loss as a dot, and the mean of the last ten as a line.

    Parameters
    ----------
    losses : step, loss; one row a step.
    steps : where the axis ends.
    beside : the losses of other runs by name: the mean of the last ten of each is a line with dashes of its own, named in the legend.
    """
    figure = go.Figure()
    figure.add_scatter(x=losses["step"], y=losses["loss"], mode="markers", name="this step", marker={"color": GREY, "size": 5})
    smooth = _smooth(losses)
    figure.add_scatter(x=losses["step"], y=smooth, mode="lines", name="mean of the last ten", line={"color": BLUE, "width": 2.5})
    for (name, other), style in zip((beside or {}).items(), BESIDE_STYLES, strict=False):
        _add_named_line(figure, name, other["step"], _smooth(other), style)
    _progress_layout(figure, steps, beside)
    figure.update_yaxes(title="loss (nats a token)", rangemode="tozero")
    return figure


def validation_curve(losses: pd.DataFrame, measure: str, *, steps: int, beside: dict[str, pd.DataFrame] | None = None) -> go.Figure:
    """The score on examples set aside, as far as it was measured.

    Parameters
    ----------
    losses : step, validation (nan where it was not measured).
    measure : what the score is.
    steps, beside : as of `loss_curve`; a run without such scores is left out.
    """
    figure = go.Figure()
    scored = losses[losses["validation"].notna()]
    figure.add_scatter(
        x=scored["step"], y=scored["validation"], mode="lines+markers", name="this run", line={"color": BLUE, "width": 2.5}, marker={"size": 8},
        hovertemplate="step %{x}: %{y:.3f}<extra></extra>",
    )  # fmt: skip
    for (name, other), style in zip((beside or {}).items(), BESIDE_STYLES, strict=False):
        if "validation" in other:
            known = other[other["validation"].notna()]
            _add_named_line(figure, name, known["step"], known["validation"], style)
    _progress_layout(figure, steps, beside)
    figure.update_yaxes(title=measure, range=[0, 1.02])
    return figure


def verdict_counts(looks: pd.DataFrame, *, steps: int) -> go.Figure:
    """How many virtual tokens had each verdict while they learned: a line a verdict, told by colour and by the shape of its marks.

    Parameters
    ----------
    looks : step, verdict; one row a virtual token and look.
    steps : where the axis ends.
    """
    counts = looks.groupby(["step", "verdict"]).size().unstack(fill_value=0)
    figure = go.Figure()
    for verdict in [verdict for verdict in VERDICT_MARKS if verdict in counts]:
        colour, shape = VERDICT_MARKS[verdict]
        figure.add_scatter(
            x=counts.index.to_numpy(), y=counts[verdict].to_numpy(), mode="lines+markers", name=verdict, line={"color": colour, "width": 2, "shape": "hv"},
            marker={"symbol": shape, "size": 8}, cliponaxis=False, hovertemplate="step %{x}: %{y} " + verdict + "<extra></extra>",
        )  # fmt: skip
    _progress_layout(figure, steps, None)
    figure.update_yaxes(title="virtual tokens", rangemode="tozero", tickformat="d")
    return figure


def followed_curve(looks: pd.DataFrame, column: str, title: str, *, steps: int) -> go.Figure:
    """What a script of one's own records at each look, by step.

    Parameters
    ----------
    looks : of `analysis.adapters.recorded.Recorded`.
    column : echo_share, drift or norm_ratio.
    steps : where the axis ends.
    """
    is_share = column == "echo_share"
    figure = go.Figure(
        go.Scatter(
            x=looks["step"], y=looks[column], mode="lines+markers", line={"color": BLUE, "width": 2.5}, marker={"size": 7}, cliponaxis=False,
            hovertemplate="step %{x}: %{y:" + (".0%" if is_share else ".3f") + "}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(height=260, margin=MARGIN, xaxis_title="step", showlegend=False)
    figure.update_xaxes(range=[0, steps + 1])
    figure.update_yaxes(title=title, **({"range": [0, 1.02], "tickformat": ".0%"} if is_share else {"rangemode": "tozero"}))
    return figure


def _smooth(losses: pd.DataFrame) -> pd.Series:
    return losses["loss"].rolling(10, min_periods=1).mean()


def _add_named_line(figure: go.Figure, name: str, steps: pd.Series, values: pd.Series, style: tuple[str, str]) -> None:
    if not len(steps):
        return
    colour, dash = style
    label = html.escape(name, quote=False)
    figure.add_scatter(
        x=steps, y=values, mode="lines", name=label, line={"color": colour, "width": 2, "dash": dash},
        hovertemplate="step %{x}: %{y:.3f}<extra>" + label + "</extra>",
    )  # fmt: skip


def _progress_layout(figure: go.Figure, steps: int, beside: dict[str, pd.DataFrame] | None) -> None:
    longest = max([steps, *(int(other["step"].max()) for other in (beside or {}).values() if len(other))])
    figure.update_layout(
        height=300, margin=MARGIN, xaxis_title="step", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}, showlegend=True
    )
    figure.update_xaxes(range=[0, longest + 1])
