"""A LoRA's spectra, by rank, by layer and beside another's."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from soft_prompt_explorer.app.charts.columns import in_words
from soft_prompt_explorer.app.charts.theme import CATEGORY_COLOURS, CATEGORY_SHAPES, GREY, MARGIN

LINE = "#1A7DBD"  # at least 3 : 1 on both backgrounds
MOST_LABELS = 16  # of layers, so that they can be read at 390 pixels


def spectra_by_layer(spectra: pd.DataFrame, *, cumulative: bool = False) -> go.Figure:
    """Every module's spectrum as a small curve of its own: a row a projection, in it the layers side by side, in each the ranks from left to right.

    All rows have one scale, which is logarithmic for singular values; what is under a thousandth of the largest leaves its row at the bottom. Where a layer has several
    modules of one projection, such as experts, their median is drawn.

    Parameters
    ----------
    spectra : layer, projection, rank (from 1), value, energy (cumulative share); of `analysis.loras.ranks.long_form`.
    cumulative : the energy instead of the singular values.
    """
    column = "energy" if cumulative else "value"
    drawn_rows = spectra.assign(layer=spectra["layer"].astype("float64").fillna(-1))
    drawn_rows = drawn_rows.groupby(["projection", "layer", "rank"], sort=False)[column].median().reset_index()
    layers = sorted(drawn_rows["layer"].unique())
    place = {layer: i for i, layer in enumerate(layers)}
    most, projections = int(drawn_rows["rank"].max()), list(dict.fromkeys(drawn_rows["projection"]))
    figure = make_subplots(
        rows=len(projections), cols=1, shared_xaxes=True, vertical_spacing=0.28 / max(4, len(projections)),
        subplot_titles=[html.escape(in_words(name), quote=False) for name in projections],
    )  # fmt: skip
    for number, projection in enumerate(projections, start=1):
        x, y, told = [], [], []
        for layer, rows in drawn_rows[drawn_rows["projection"] == projection].sort_values("rank").groupby("layer"):
            within = (rows["rank"].to_numpy() - 1) / max(most - 1, 1) * 0.8
            where = "no layer" if layer < 0 else f"layer {layer:.0f}"
            x += [*(place[layer] - 0.4 + within), None]  # a gap parts it from the next
            y += [*rows[column].where(rows[column] > 0), None]
            told += [*(f"{where}, rank {rank}" for rank in rows["rank"]), ""]
        figure.add_scatter(
            x=x, y=y, customdata=told, mode="lines+markers", line={"color": LINE, "width": 1.5}, marker={"size": 3.5, "color": LINE}, showlegend=False,
            hovertemplate="%{customdata}<br>" + ("%{y:.1%} of the energy" if cumulative else "singular value %{y:.3g}") + f"<extra>{html.escape(projection, quote=False)}</extra>",
            row=number, col=1,
        )  # fmt: skip
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1_000, 10**6) if len(layers) / step <= MOST_LABELS)
    labels = layers[::every]
    figure.update_xaxes(
        range=[-0.7, len(layers) - 0.3], tickvals=[place[layer] for layer in labels], ticktext=["none" if layer < 0 else f"{layer:.0f}" for layer in labels],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    figure.update_xaxes(title="layer", row=len(projections), col=1)
    if cumulative:
        figure.update_yaxes(range=[0, 1.05], tickformat=".0%", tickvals=[0, 0.5, 1])
    else:
        positive = drawn_rows.loc[drawn_rows["value"] > 0, "value"]
        high = float(positive.max())
        low = max(float(positive.min()), 1e-3 * high)
        ticks = log_ticks(low, high)
        figure.update_yaxes(
            type="log", range=[np.log10(low / 1.3), np.log10(high * 1.3)], tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks]
        )
    figure.update_layout(height=90 + 140 * len(projections), margin=MARGIN)
    return figure


def energy_and_effect(table: pd.DataFrame) -> go.Figure:
    """Each singular direction by its share of the energy and of the effect, on logarithmic scales, the projections told by colour and shape.

    Parameters
    ----------
    table : of `analysis.asking.sensitivity.effects`.
    """
    figure = go.Figure()
    shown = table[(table["energy_share"] > 0) & (table["effect_share"] > 0)]
    for i, (projection, rows) in enumerate(shown.groupby("projection", sort=False)):
        figure.add_scatter(
            x=rows["energy_share"].to_numpy(np.float32), y=rows["effect_share"].to_numpy(np.float32), mode="markers", name=html.escape(projection, quote=False),
            marker={"size": 5, "color": CATEGORY_COLOURS[i % len(CATEGORY_COLOURS)], "symbol": CATEGORY_SHAPES[i % len(CATEGORY_SHAPES)]},
            text=[f"{html.escape(row.module, quote=False)}, direction {row.direction}" for row in rows.itertuples()],
            hovertemplate="%{text}<br>energy %{x:.2%}, effect %{y:.2%}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(height=420, margin=MARGIN, xaxis_title="share of the energy", yaxis_title="share of the effect")
    figure.update_xaxes(type="log", exponentformat="power")
    figure.update_yaxes(type="log", exponentformat="power")
    return figure


def log_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Where a logarithmic axis is marked: at 1, 2 and 5 times the powers of ten, fewer where that were more than `most`.

    >>> log_ticks(0.08, 0.9), log_ticks(0.01, 30)
    ([0.1, 0.2, 0.5], [0.01, 0.1, 1.0, 10.0])
    """
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for factors in ((1, 2, 5), (1, 5), (1,)):
        ticks = [
            float(f"{factor}e{power}") for power in powers for factor in factors if low * 0.999 <= factor * 10.0**power <= high * 1.001
        ]
        if len(ticks) <= most:
            return ticks
    return ticks[:: -(-len(ticks) // most)]


def layer_map(table: pd.DataFrame, measure: str) -> go.Figure:
    """One measure of every module: a column a layer, a row a projection.

    Parameters
    ----------
    table : of `analysis.loras.ranks.spectra`, with the measure among its columns.
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
            z=values, x=["none" if layer < 0 else f"{layer:.0f}" for layer in square.columns], y=[in_words(name) for name in square.index], colorscale="Cividis",
            colorbar={"title": in_words(measure)}, hovertemplate="layer %{x}, %{y}<br>" + in_words(measure) + " %{z:.4g}<extra></extra>", xgap=1, ygap=1, hoverongaps=False, **limits,
        )
    )  # fmt: skip
    figure.update_layout(height=150 + 34 * len(square), margin=MARGIN, xaxis_title="layer", yaxis_title="projection")
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
    figure.update_layout(height=340, margin=MARGIN, xaxis_title="directions of the other", yaxis_title="directions of this one")
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
    for (projection, rows), colour, shape in zip(both.groupby("projection", sort=False), CATEGORY_COLOURS, CATEGORY_SHAPES, strict=False):
        figure.add_scatter(
            x=rows["layer"], y=rows[f"angle_{side}"].to_numpy(np.float32), mode="markers+lines", name=projection, line={"width": 1},
            marker={"color": colour, "symbol": shape, "size": 9}, hovertemplate="layer %{x}: %{y:.3f}<extra>" + projection + "</extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=rows["layer"], y=rows[f"angle_{side}_random"].to_numpy(np.float32), mode="markers", name=f"{projection}, random",
            marker={"color": GREY, "symbol": f"{shape}-open", "size": 8}, hovertemplate="layer %{x}: %{y:.3f}<extra>random</extra>",
        )  # fmt: skip
    figure.update_layout(
        height=340, margin=MARGIN, xaxis_title="layer", yaxis_title="mean cosine of the angles", legend={"orientation": "h", "y": 1.12}
    )
    figure.update_yaxes(range=[0, 1.02])
    return figure
