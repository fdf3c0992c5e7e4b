"""Table in, plotly Figure out. Pure functions: no Streamlit, no files.

Colours are Okabe & Ito's, which people with colour-blindness can tell apart; what a colour says, a word or a shape says too.
"""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from analysis.core.words import shown
from analysis.prompts.readings import SHAPES
from analysis.prompts.starts import plain_verdict

BLUE, BLUE_LIGHT, ORANGE, GREY = "#0072B2", "#56B4E9", "#E69F00", "#8A8A8A"
GREEN, PURPLE, VERMILION, YELLOW = "#009E73", "#CC79A7", "#D55E00", "#F0E442"
ROW_HEIGHT = 26
UNGROUPED = ("no cluster", "unknown")
# A category is told by its colour and by its shape; the lengths have no common divisor, so the pairs repeat late.
CATEGORY_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, BLUE_LIGHT, YELLOW)
CATEGORY_SHAPES = {
    2: ("circle", "square", "diamond", "triangle-up", "star", "cross", "hexagon", "triangle-down"),
    3: ("circle", "square", "diamond", "cross"),
}
VERDICT_MARKS = {
    "learned": (GREEN, "star"),
    "echo": (ORANGE, "square"),
    "near a word": (BLUE, "diamond"),
    "unreadable": (GREY, "x"),
    "never trained": (GREY, "circle-open"),
}
# Runs beside another: told by colour and by dash, and named in the legend.
BESIDE_STYLES = [(VERMILION, "dash"), (GREEN, "dot"), (PURPLE, "dashdot"), (ORANGE, "longdash"), (BLUE_LIGHT, "longdashdot")]
_PALE_BLUES = [[0.0, "#F4F8FC"], [1.0, BLUE_LIGHT]]  # dark text stays readable on all of it
_MARGIN = {"l": 10, "r": 10, "t": 30, "b": 40}


def drawn(token: str) -> str:
    """A token for a chart: plotly would take `<b>` for markup."""
    return html.escape(shown(token), quote=False)


def verdict_label(verdict: str) -> str:
    """A verdict with the shape that stands for it on the map."""
    return f"{SHAPES[plain_verdict(verdict)]} {verdict}"


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
    figure.update_layout(height=280, margin=_MARGIN, xaxis_title="virtual token", yaxis_title="norm", bargap=0.15)
    return figure


def neighbours_heat_map(table: pd.DataFrame) -> go.Figure:
    """One row a virtual token, one column a rank, the word in the cell and its score as the colour.

    Parameters
    ----------
    table : of `analysis.prompts.neighbours.neighbours`, one prompt.
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
    table : rows of `analysis.prompts.neighbours.neighbours` of one prompt and position.
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
        height=300, margin=_MARGIN, xaxis_title="step", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}, showlegend=True
    )
    figure.update_xaxes(range=[0, longest + 1])


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
        margin=_MARGIN,
        xaxis_title="held-out score",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    figure.update_yaxes(
        autorange="reversed", title=None, type="category", tickmode="array", tickvals=runs["name"].tolist(),
        ticktext=[f"{drawn(row.name)}, n {row.n:,.0f}" for row in runs.itertuples(index=False)],
    )  # fmt: skip
    return figure


def _marks(groups: list[str], dimensions: int) -> dict[str, tuple[str, str]]:
    """The colour and shape of each group; verdicts and "no cluster" have their own."""
    shapes = CATEGORY_SHAPES[dimensions]
    marks, place = {}, 0
    for group in groups:
        verdict = VERDICT_MARKS.get(plain_verdict(group))
        if verdict is not None:
            marks[group] = (verdict[0], verdict[1] if verdict[1] in (*shapes, "x") else "circle")
        elif group in UNGROUPED:
            marks[group] = (GREY, "x")
        else:
            marks[group] = (CATEGORY_COLOURS[place % len(CATEGORY_COLOURS)], shapes[place % len(shapes)])
            place += 1
    return marks


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
    groups = sorted(set(tokens[by]), key=lambda group: (group in UNGROUPED, _leading_number(group), group))
    marks = _marks(groups, dimensions)
    for group in groups:
        colour, shape = marks[group]
        yield (
            html.escape(group, quote=False),
            tokens[tokens[by] == group],
            {"size": size, "color": colour, "symbol": shape, "line": outline},
        )


def similarity_matrix(square: pd.DataFrame, links: np.ndarray, measure: str) -> go.Figure:
    """Every prompt against every other, alike ones side by side, with the tree that joins them.

    Parameters
    ----------
    square : of `analysis.prompts.similarity.matrix`.
    links : of `analysis.prompts.similarity.tree`, its leaves in the order of `square`.
    """
    from scipy.cluster.hierarchy import dendrogram

    drawn_tree = dendrogram(links, no_plot=True)
    order = drawn_tree["leaves"]
    square = square.iloc[order, order]
    names = [html.escape(name, quote=False) for name in square.index]
    values = square.to_numpy(np.float32)
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=np.arange(len(names)),
            y=np.arange(len(names)),
            text=np.where(np.isnan(values), "", np.char.mod("%.2f" if measure != "z" else "%.1f", values)) if len(names) <= 20 else None,
            texttemplate="%{text}" if len(names) <= 20 else None,
            textfont={"color": "#111111"},
            colorscale=_PALE_BLUES,
            colorbar={"title": measure},
            customdata=[[f"{a}<br>{b}" for b in names] for a in names],
            hovertemplate="%{customdata}<br>" + measure + " %{z:.3f}<extra></extra>",
            hoverongaps=False,
            xgap=1,
            ygap=1,
        )
    )
    for across, up in zip(drawn_tree["dcoord"], drawn_tree["icoord"], strict=True):  # scipy's leaves stand at 5, 15, 25, …
        figure.add_scatter(
            x=np.array(across, np.float32), y=(np.array(up, np.float32) - 5) / 10, mode="lines", line={"color": GREY, "width": 1.5},
            hoverinfo="skip", showlegend=False, xaxis="x2",
        )  # fmt: skip
    places = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names, "showgrid": False, "zeroline": False}
    figure.update_layout(
        height=200 + ROW_HEIGHT * len(names),
        margin=_MARGIN | {"b": 90},
        xaxis={**places, "domain": [0, 0.78], "tickangle": -40},
        yaxis={**places, "autorange": "reversed"},
        xaxis2={"domain": [0.8, 1], "title": "1 − matched cosine", "showgrid": False, "zeroline": False},
    )
    return figure


def against_chance(values: pd.Series, chance: pd.DataFrame) -> go.Figure:
    """Each measure of two prompts as a dot, beside the band in which 95 % of unrelated prompts lie.

    Parameters
    ----------
    values : by measure.
    chance : of `analysis.prompts.similarity.chance`.
    """
    figure = go.Figure()
    known = chance[chance["mean"].notna()]
    figure.add_bar(
        x=(known["high"] - known["low"]).to_numpy(np.float32), y=known["measure"], base=known["low"].to_numpy(np.float32), orientation="h", width=0.5,
        marker={"color": GREY, "opacity": 0.35}, name="unrelated prompts, 95 %", hovertemplate="%{y}<br>%{base:.3f} to %{x:.3f}<extra>unrelated</extra>",
    )  # fmt: skip
    shown_values = values[chance["measure"]]
    figure.add_scatter(
        x=shown_values.to_numpy(np.float32), y=chance["measure"], mode="markers+text", text=[f"{value:.2f}" for value in shown_values], textposition="top center",
        marker={"size": 12, "color": BLUE, "symbol": "diamond"}, name="these two", hovertemplate="%{y}: %{x:.3f}<extra>these two</extra>",
    )  # fmt: skip
    figure.update_layout(height=320, margin=_MARGIN, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
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
        height=260, margin=_MARGIN | {"t": 45}, xaxis_title="best centred cosine with a word", yaxis_title="random vectors", bargap=0.05
    )
    figure.update_xaxes(range=[min(0.0, float(null.min()), score) - 0.02, 1.02])
    return figure


def direction_bars(table: pd.DataFrame, tested: set[int]) -> go.Figure:
    """The words that a task direction points at, the nearest on top; the task's own words are marked by colour and by a star.

    Parameters
    ----------
    table : of `analysis.prompts.direction.direction`.
    tested : token ids of the task's words.
    """
    own = table["token_id"].isin(tested).to_numpy()
    figure = go.Figure(
        go.Bar(
            x=table["score"].to_numpy(np.float32),
            y=[f"{row.rank:,}: {drawn(row.token)}{' ★' if mine else ''}" for row, mine in zip(table.itertuples(), own, strict=True)],
            orientation="h",
            marker_color=np.where(own, GREEN, BLUE_LIGHT),
            hovertemplate="%{y}<br>score %{x:.4f}<extra></extra>",
        )
    )
    figure.update_layout(
        height=90 + ROW_HEIGHT * len(table), margin=_MARGIN, xaxis_title="cosine with the shared direction", showlegend=False
    )
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def spectrum_lines(spectra: pd.DataFrame, *, cumulative: bool) -> go.Figure:
    """The spectrum of each module as a line, darker the deeper its layer.

    Parameters
    ----------
    spectra : module, layer, rank (from 1), value, energy (cumulative share).
    cumulative : the energy curves instead of the singular values, which have a logarithmic scale.
    """
    figure = go.Figure()
    modules = spectra.groupby("module", sort=False)
    shades = sample_colorscale("Cividis", np.linspace(0, 0.95, max(len(modules), 2)))
    for (module, rows), shade in zip(modules, shades, strict=False):
        figure.add_scatter(
            x=rows["rank"].to_numpy(), y=rows["energy" if cumulative else "value"].to_numpy(np.float32), mode="lines+markers", line={"color": shade, "width": 1.5},
            marker={"size": 4}, name=html.escape(module, quote=False), hovertemplate="%{fullData.name}<br>rank %{x}: %{y:.4g}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=380,
        margin=_MARGIN,
        showlegend=False,
        xaxis_title="rank",
        yaxis_title="share of the energy" if cumulative else "singular value",
    )
    if cumulative:
        figure.update_yaxes(range=[0, 1.02])
    else:
        figure.update_yaxes(type="log", exponentformat="power")
    return figure


def layer_map(table: pd.DataFrame, measure: str) -> go.Figure:
    """One measure of every module: a column a layer, a row a projection.

    Parameters
    ----------
    table : of `analysis.loras.spectra.spectra`, with the measure among its columns.
    """
    square = table.assign(layer=table["layer"].astype("float64").fillna(-1)).pivot_table(
        index="projection", columns="layer", values=measure, aggfunc="median", sort=False
    )
    square = square.sort_index(axis=1)
    values = square.to_numpy(np.float32)
    known = np.unique(values[np.isfinite(values)])
    limits = {"zmin": 0.0, "zmax": float(known[0]) or 1.0} if len(known) == 1 else {}  # Plotly would centre the scale on the one value
    figure = go.Figure(
        go.Heatmap(
            z=values, x=["none" if layer < 0 else f"{layer:.0f}" for layer in square.columns], y=square.index.tolist(), colorscale="Cividis",
            colorbar={"title": measure}, hovertemplate="layer %{x}, %{y}<br>" + measure + " %{z:.4g}<extra></extra>", xgap=1, ygap=1, hoverongaps=False, **limits,
        )
    )  # fmt: skip
    figure.update_layout(height=150 + 34 * len(square), margin=_MARGIN, xaxis_title="layer", yaxis_title="projection")
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category")
    return figure


def subspace_map(table: pd.DataFrame, column: str) -> go.Figure:
    """φ(i, j) of two updates, or of two random ones (`column` is phi or phi_random), on the scale from 0 to 1.

    Parameters
    ----------
    table : of `analysis.loras.subspaces.subspace_similarity`.
    """
    square = table.pivot(index="i", columns="j", values=column)
    figure = go.Figure(
        go.Heatmap(
            z=square.to_numpy(np.float32), x=square.columns.to_numpy(), y=square.index.to_numpy(), zmin=0, zmax=1, colorscale="Cividis",
            colorbar={"title": "φ"}, hovertemplate="first %{y} and first %{x}<br>φ %{z:.3f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(height=340, margin=_MARGIN, xaxis_title="directions of the other", yaxis_title="directions of this one")
    return figure


def angles_by_layer(table: pd.DataFrame, side: str) -> go.Figure:
    """The mean cosine of the principal angles of each module by its layer, beside random directions (open marks).

    Parameters
    ----------
    table : of `analysis.loras.subspaces.against`.
    side : out or in.
    """
    figure = go.Figure()
    both = table[table["in"] == "both"]
    for (projection, rows), colour, shape in zip(
        both.groupby("projection", sort=False), CATEGORY_COLOURS, CATEGORY_SHAPES[2], strict=False
    ):
        figure.add_scatter(
            x=rows["layer"], y=rows[f"angle_{side}"].to_numpy(np.float32), mode="markers+lines", name=projection, line={"width": 1},
            marker={"color": colour, "symbol": shape, "size": 9}, hovertemplate="layer %{x}: %{y:.3f}<extra>" + projection + "</extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=rows["layer"], y=rows[f"angle_{side}_random"].to_numpy(np.float32), mode="markers", name=f"{projection}, random",
            marker={"color": GREY, "symbol": f"{shape}-open", "size": 8}, hovertemplate="layer %{x}: %{y:.3f}<extra>random</extra>",
        )  # fmt: skip
    figure.update_layout(
        height=340, margin=_MARGIN, xaxis_title="layer", yaxis_title="mean cosine of the angles", legend={"orientation": "h", "y": 1.12}
    )
    figure.update_yaxes(range=[0, 1.02])
    return figure


# Methods are told by colour and shape, those of papers by the same shapes with nothing in them.
METHOD_MARKS = {
    "zero-shot": (GREY, "circle"), "prompt engineering": (ORANGE, "square"), "prompt tuning": (BLUE, "diamond"), "p-tuning": (BLUE_LIGHT, "triangle-up"),
    "prefix tuning": (PURPLE, "star"), "LoRA": (GREEN, "cross"), "full fine-tuning": (VERMILION, "hexagon"), "prefix-embedding tuning": (BLUE, "diamond"),
    "prefix-layer tuning": (PURPLE, "star"), "adapter": (ORANGE, "pentagon"), "BitFit": (BLUE_LIGHT, "triangle-down"), "last two layers": (GREY, "bowtie"),
}  # fmt: skip
_LABEL_LETTERS = 40


def method_scores(table: pd.DataFrame) -> go.Figure:
    """A dot and a 95 % interval for each row, in the order of the table; zero-shot's interval is a band behind all.

    Parameters
    ----------
    table : of `trained_prompts.experiments.comparison.compare`.
    """
    figure = go.Figure()
    table = table.reset_index(drop=True)
    _add_zero_shot_band(figure, table, upright=True)
    for method, rows in table.groupby("method", sort=False):
        _add_method(figure, method, rows, x=rows["score"], y=rows.index, error_x=_interval(rows))
    labels = [_row_label(row) for row in table.itertuples()]
    figure.update_layout(
        height=120 + ROW_HEIGHT * len(table), margin=_MARGIN | {"t": 70}, xaxis_title=f"held-out {table['measure'].iloc[0]}", legend=_ABOVE
    )
    figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(tickvals=list(table.index), ticktext=labels, range=[len(table) - 0.4, -0.6], zeroline=False, showgrid=False)
    return figure


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
    _add_zero_shot_band(figure, table, upright=False)
    for method, rows in table.groupby("method", sort=False):
        _add_method(figure, method, rows, x=rows["trainable"].where(trained, 10**places), y=rows["score"], error_y=_interval(rows))
    decades = range(decade, int(np.ceil(places.max())) + 1)
    figure.add_vline(x=10 ** (none + 0.7), line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_layout(height=420, margin=_MARGIN | {"t": 70}, xaxis_title="trainable parameters", legend=_ABOVE)
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
    table : rows of `trained_prompts.experiments.comparison.compare`, a method and model each, with total (the model's parameters).
    """
    figure = go.Figure()
    methods = list(dict.fromkeys(table["method"]))
    aside = dict(zip(methods, 10 ** np.linspace(-0.03, 0.03, len(methods)), strict=True))
    for method, rows in table.sort_values("total", kind="stable").groupby("method", sort=False):
        _add_method(figure, method, rows, x=rows["total"] * aside[method], y=rows["score"], error_y=_interval(rows), mode="markers+lines")
    models = table.drop_duplicates("model").sort_values("total")
    figure.update_layout(height=420, margin=_MARGIN | {"t": 70, "b": 60}, xaxis_title="parameters of the model", legend=_ABOVE)
    figure.update_xaxes(
        type="log", tickvals=models["total"].tolist(), ticktext=[f"{_counted(row.total)}<br>{drawn(row.model.rstrip('/').rpartition('/')[2])}" for row in models.itertuples()], showgrid=False,
        range=[np.log10(models["total"].min()) - 0.15, np.log10(models["total"].max()) + 0.15],
    )  # fmt: skip
    figure.update_yaxes(title=f"held-out {table['measure'].iloc[0]}", tickformat=".0%")
    return figure


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
    powers = range(int(np.floor(np.log10(table[against].min()))), int(np.ceil(np.log10(table[against].max()))) + 1)
    title = "trainable parameters" if against == "trainable" else "parameters of the model"
    figure.update_layout(height=420, margin=_MARGIN | {"t": 70}, xaxis_title=title, yaxis_title=table["metric"].iloc[0], legend=_ABOVE)
    figure.update_xaxes(
        type="log", tickvals=[10.0**power for power in powers], ticktext=[_counted(10.0**power) for power in powers], showgrid=False
    )
    return figure


TRADE_MARKS = {"score": ("the vectors", BLUE, "circle", "solid"), "words_score": ("their words in their place", ORANGE, "square", "dash")}
_READABILITY = {"cosine": "mean centred cosine with the nearest word", "near": "share of tokens nearer to a word than chance"}


def readability_trade(table: pd.DataFrame, x: str) -> go.Figure:
    """Scores of prompts and of the words in their place against how near to words they are, each mark with its γ, over the band of the bare model.

    Parameters
    ----------
    table : of `trained_prompts.experiments.trade.trade`, with family: the prompts of one number are joined by a line in the order of γ.
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
                customdata=[f"{drawn(row.prompt)}, {label}, n {row.n:,.0f}<br>{drawn(_shortened(row.words, 60))}" for row, label in zip(rows.itertuples(), labels, strict=True)],
                hovertemplate="%{customdata}<br>%{y:.1%}<extra>" + name + "</extra>",
            )  # fmt: skip
    room = 0.12 * (float(np.ptp(table[x])) or 1.0)
    figure.update_layout(height=420, margin=_MARGIN | {"t": 70}, xaxis_title=_READABILITY[x], legend=_ABOVE)
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
    marks = _marks(list(dict.fromkeys(filled["group"])), 2)
    for group, rows in filled.groupby("group", sort=False):
        colour, shape = marks[group]
        figure.add_scatter(
            x=rows["confidence"].to_numpy(np.float32), y=rows["accuracy"].to_numpy(np.float32), mode="markers", name=drawn(group),
            marker={"symbol": shape, "color": colour, "size": 7 + 18 * np.sqrt(rows["n"].to_numpy() / filled["n"].max()), "opacity": 0.85, "line": {"width": 0}},
            customdata=rows[["n", "low", "high"]].to_numpy(),
            hovertemplate="%{customdata[0]:,.0f} answers given %{customdata[1]:.0%} to %{customdata[2]:.0%}<br>sure %{x:.1%}, right %{y:.1%}<extra>" + drawn(group) + "</extra>",
        )  # fmt: skip
    figure.update_layout(
        height=440, margin=_MARGIN | {"t": 70}, xaxis_title="confidence: the mean probability of the answers", yaxis_title="share that is right",
        legend=_ABOVE | {"itemsizing": "constant"},
    )  # fmt: skip
    figure.update_xaxes(range=[-0.02, 1.04], tickformat=".0%", zeroline=False)
    figure.update_yaxes(range=[-0.05, 1.07], tickformat=".0%", zeroline=False)
    return figure


_ABOVE = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}


def _add_method(figure: go.Figure, method: str, rows: pd.DataFrame, **style) -> None:
    """The rows of one method as filled marks: what was measured here."""
    colour, shape = METHOD_MARKS[method]
    errors = {axis: style.pop(axis) | {"color": colour, "thickness": 1.5} for axis in ("error_x", "error_y") if axis in style}
    figure.add_scatter(
        **({"mode": "markers"} | style), **errors, name=method, marker={"symbol": shape, "size": 10, "color": colour}, line={"color": colour, "width": 1},
        customdata=[f"{html.escape(_shortened(row.what, 90), quote=False)}<br>{row.score:.3f} ({row.low:.3f} to {row.high:.3f}), n {row.n:,.0f}<br>{_counted(row.trainable)} trainable" for row in rows.itertuples()],
        hovertemplate="%{customdata}<extra>" + method + "</extra>",
    )  # fmt: skip


def _add_zero_shot_band(figure: go.Figure, table: pd.DataFrame, *, upright: bool) -> None:
    bare = table[table["method"] == "zero-shot"]
    if not len(bare):
        return
    low, high = float(bare["low"].iloc[0]), float(bare["high"].iloc[0])
    style = {"fillcolor": GREY, "opacity": 0.2, "line_width": 0, "layer": "below"}
    if upright:
        figure.add_vrect(x0=low, x1=high, **style)
    else:
        figure.add_hrect(y0=low, y1=high, **style)


def _interval(rows: pd.DataFrame) -> dict:
    return {"type": "data", "symmetric": False, "array": rows["high"] - rows["score"], "arrayminus": rows["score"] - rows["low"]}


def _row_label(row) -> str:
    """A row of a comparison for an axis: its method, or of prompt engineering the prompt itself."""
    if row.method != "prompt engineering":
        return row.method
    return html.escape(_shortened(row.what, _LABEL_LETTERS), quote=False)


def _shortened(text: str, letters: int) -> str:
    text = text.replace("\n", " ⏎ ")
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _counted(number: float) -> str:
    """A count as an axis says it: 5,760 is 5.76 k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:g}"


def _leading_number(text: str) -> int:
    number = text.split(":")[0]
    return int(number) if number.isdecimal() else -1


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
    figure.update_layout(height=620, margin=_MARGIN, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"})
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
