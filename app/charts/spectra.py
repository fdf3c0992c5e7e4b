"""A LoRA's spectra, by rank, by layer and beside another's."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.app.charts.columns import in_words
from soft_prompt_explorer.app.charts.rows import figure, outline
from soft_prompt_explorer.app.charts.theme import CATEGORY_COLOURS, CATEGORY_SHAPES, GREY, MARGIN, PALE_BLUES

LINE = "#1A7DBD"  # at least 3 : 1 on both backgrounds
MOST_LABELS = 16  # of layers, so that they can be read
MOST_STEPS = 32  # of a profile
TABLE_STYLE = """<style>
.layers { overflow-x: auto; font-size: 13px; font-variant-numeric: tabular-nums; }
.layers table { border-collapse: separate; border-spacing: 2px; }
.layers th { font-weight: 400; text-align: center; padding: 3px 5px; }
.layers th[scope="row"], .layers th:first-child { text-align: left; min-width: 5em; }
.layers td { color: #111111; text-align: right; padding: 4px 5px; min-width: 2.2em; border-radius: 2px; }
</style>"""


def spectra_by_layer(spectra: pd.DataFrame, *, alt: str, cumulative: bool = False) -> str:
    """Every module's spectrum as a small profile of its own: a row a projection, in it the layers side by side, in each a step a rank from left to right.

    All rows have one scale, which is logarithmic for singular values; what is under a thousandth of the largest leaves its row at the bottom. Where a layer has several
    modules of one projection, such as experts, their median is drawn. Of more than `MOST_STEPS` ranks so many are drawn, evenly apart: a profile is no wider in pixels.

    Parameters
    ----------
    spectra : layer, projection, rank (from 1), value, energy (cumulative share); of `analysis.loras.ranks.long_form`.
    cumulative : the energy instead of the singular values.
    """
    column = "energy" if cumulative else "value"
    medians = spectra.assign(layer=spectra["layer"].astype("float64").fillna(-1))
    medians = medians.groupby(["projection", "layer", "rank"], sort=False)[column].median().reset_index()
    layers, most = sorted(medians["layer"].unique()), int(medians["rank"].max())
    low, high, ticks = _ends(medians[column], cumulative)

    def height(value):
        """Of a value or of several, a share of the row's."""
        return value / high if cumulative else np.log(value / low) / np.log(high / low)

    medians = medians.assign(height=height(medians[column].clip(lower=low)).clip(0, 1))
    down = {f"{tick:.0%}" if cumulative else f"{tick:g}": 1 - height(tick) for tick in ticks}
    ground = "".join(f'<i class="level" style="top:{100 * at:.2f}%"></i>' for at in down.values())
    numbers = "".join(f'<span style="top:{100 * at:.2f}%">{tick}</span>' for tick, at in down.items())
    drawn = _spread(most)
    rows = []
    for projection, of_it in medians.groupby("projection", sort=False):
        profiles = []
        for layer, ranks in of_it.groupby("layer"):
            steps = ranks.set_index("rank").reindex(drawn)
            own = ranks.set_index("rank")[column].dropna()
            at = _spread(len(own))
            values = [f"{value:.1%}" if cumulative else f"{value:.3g}" for value in own.iloc[at - 1]]
            told = ", ".join(values if len(at) == len(own) else [f"rank {rank}: {value}" for rank, value in zip(at, values, strict=True)])
            place = f"left:{100 * (layers.index(layer) + 0.08) / len(layers):.2f}%;width:{84 / len(layers):.2f}%"
            shape = outline(steps["height"].fillna(0.0).tolist())
            profiles.append(f'<i class="steps" title="{_named(layer)}: {told}" style="{place};background:{LINE};clip-path:{shape}"></i>')
        rows.append(
            f'<li><span class="label">{html.escape(in_words(str(projection)))}</span><span class="across tall" aria-hidden="true">{ground}{"".join(profiles)}</span>'
            f'<span class="levels" aria-hidden="true">{numbers}</span></li>'
        )
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1_000, 10**6) if len(layers) / step <= MOST_LABELS)
    below = "".join(
        f'<span style="left:{100 * (place + 0.5) / len(layers):.2f}%">{"none" if layer < 0 else f"{layer:.0f}"}</span>'
        for place, layer in list(enumerate(layers))[::every]
    )
    axis = f'<div class="axis" aria-hidden="true"><span></span><span class="across">{below}</span></div><div><span></span><span class="title">layer</span></div>'
    return figure(f'<div class="field"><ul>{"".join(rows)}</ul>{axis}</div>', [], alt)


def _ends(values: pd.Series, cumulative: bool) -> tuple[float, float, list[float]]:
    """The ends of the scale of spectra, and where it is marked."""
    if cumulative:
        return 0.0, 1.05, [0.0, 0.5, 1.0]
    positive = values[values > 0]
    high = float(positive.max())
    low = max(float(positive.min()), 1e-3 * high)
    return low / 1.3, high * 1.3, log_ticks(low, high, most=3)


def _spread(most: int) -> np.ndarray:
    """Ranks from 1 to the last one, `MOST_STEPS` at most, evenly apart."""
    return np.unique(np.linspace(1, most, min(most, MOST_STEPS)).round().astype(int))


def _named(layer: float) -> str:
    return "no layer" if layer < 0 else f"layer {layer:.0f}"


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


def layer_map(table: pd.DataFrame, measure: str, *, alt: str) -> str:
    """One measure of every module as a table: a row a projection, a column a layer, the larger the bluer. Where a layer has several modules of a projection, their median.

    Parameters
    ----------
    table : of `analysis.loras.ranks.spectra`, with the measure among its columns.

    Returns
    -------
    str : HTML without scripts, for `st.html`.
    """
    numbers = table.assign(layer=table["layer"].astype("float64").fillna(-1), value=table[measure].astype("float64"))
    square = numbers.groupby(["projection", "layer"])["value"].median().unstack("layer").reindex(dict.fromkeys(table["projection"]))
    known = square.to_numpy()[np.isfinite(square.to_numpy())]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    low = 0.0 if low == high else low  # one value alone is drawn as large as it is
    form = ".0f" if (known == np.round(known)).all() and high < 10_000 else "#.3g"

    def cell(value: float) -> str:
        if not np.isfinite(value):
            return "<td></td>"
        return f'<td style="background:{_between(value, low, high)}">{value:{form}}</td>'

    head = "".join(f'<th scope="col">{"none" if layer < 0 else f"{layer:.0f}"}</th>' for layer in square.columns)
    body = "".join(
        f'<tr><th scope="row">{html.escape(in_words(str(projection)))}</th>{"".join(map(cell, values))}</tr>'
        for projection, values in zip(square.index, square.to_numpy(), strict=True)
    )
    return (
        f'{TABLE_STYLE}<div class="layers" role="region" aria-label="{html.escape(alt)}" tabindex="0">'
        f'<table><thead><tr><th scope="col">layer</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _between(value: float, low: float, high: float) -> str:
    """The colour of a value on the scale of pale blues."""
    share = (value - low) / (high - low) if high > low else 0.0
    ends = [[int(str(colour)[i : i + 2], 16) for i in (1, 3, 5)] for _, colour in PALE_BLUES]
    return "#" + "".join(f"{round(start + share * (end - start)):02X}" for start, end in zip(*ends, strict=True))


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
