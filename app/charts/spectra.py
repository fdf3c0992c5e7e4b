"""A LoRA's spectra, by rank, by layer and beside another's."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from soft_prompt_explorer.app.charts.theme import CATEGORY_COLOURS, CATEGORY_SHAPES, GREY, MARGIN


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
        margin=MARGIN,
        showlegend=False,
        xaxis_title="rank",
        yaxis_title="share of the energy" if cumulative else "singular value",
    )
    if cumulative:
        figure.update_yaxes(range=[0, 1.02])
    else:
        figure.update_yaxes(type="log", exponentformat="power")
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
            marker={"size": 5, "color": CATEGORY_COLOURS[i % len(CATEGORY_COLOURS)], "symbol": CATEGORY_SHAPES[2][i % len(CATEGORY_SHAPES[2])]},
            text=[f"{html.escape(row.module, quote=False)}, direction {row.direction}" for row in rows.itertuples()],
            hovertemplate="%{text}<br>energy %{x:.2%}, effect %{y:.2%}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(height=420, margin=MARGIN, xaxis_title="share of the energy", yaxis_title="share of the effect")
    figure.update_xaxes(type="log", exponentformat="power")
    figure.update_yaxes(type="log", exponentformat="power")
    return figure


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
            z=values, x=["none" if layer < 0 else f"{layer:.0f}" for layer in square.columns], y=square.index.tolist(), colorscale="Cividis",
            colorbar={"title": measure}, hovertemplate="layer %{x}, %{y}<br>" + measure + " %{z:.4g}<extra></extra>", xgap=1, ygap=1, hoverongaps=False, **limits,
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
