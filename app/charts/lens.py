"""What an adapter pushes the model towards: table in, rows or a plotly Figure out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soft_prompt_explorer.analysis.behaviour.difference_lens import LEVEL
from soft_prompt_explorer.analysis.core.words import p_value, shown
from soft_prompt_explorer.app.charts.rows import Mark, Row, row_chart, scale_of
from soft_prompt_explorer.app.charts.theme import BLUE, GREY, MARGIN, ORANGE, PALE_BLUES, ROW_HEIGHT, drawn

WORDS_SHOWN = 12
TWIN = (ORANGE, "diamond-open")


def pushed_words(table: pd.DataFrame, *, alt: str) -> str:
    """The strongest words of one layer as bars, as long as their z; those beyond chance in blue, with a star, the others in grey;
    beside them, where a twin is known, how far it is pushed there.

    Parameters
    ----------
    table : rows of `analysis.behaviour.difference_lens.lens` of one adapter and layer.
    """
    words = table.head(WORDS_SHOWN)
    with_twin = bool(words["twin_z"].notna().all())
    rows = []
    for word in words.itertuples():
        beyond = word.q < LEVEL
        says = f"{shown(word.token)}: z {word.z:.1f}, score {word.score:.2f}, q {p_value(word.q)}"
        rows.append(
            Row(
                f"{'★ ' if beyond else ''}{shown(word.token)}",
                f"{word.z:.1f}",
                f"{says}; its twin z {word.twin_z:.1f}, p {p_value(word.twin_p)}" if with_twin else says,
                (word.z, BLUE if beyond else GREY),
                (Mark(word.twin_z, *TWIN),) if with_twin else (),
            )
        )
    kinds = [("the prompt", BLUE, "block"), ("its twin, trained on shuffled answers", *TWIN)] if with_twin else []
    scale = scale_of([*words["z"], *(words["twin_z"] if with_twin else [])], "z, beside adapters that know nothing")
    return row_chart(rows, scale, alt=alt, legend=kinds, lines=[0])


def words_by_layer(table: pd.DataFrame, *, ranks: int = 5) -> go.Figure:
    """A column a layer, its strongest words from the top down, and z as the colour.

    Parameters
    ----------
    table : rows of `analysis.behaviour.difference_lens.lens` of one adapter, of several layers.
    """
    first = table[table["rank"] < ranks]
    z = first.pivot(index="rank", columns="layer", values="z")
    words = first.pivot(index="rank", columns="layer", values="token").map(drawn)
    figure = go.Figure(
        go.Heatmap(
            z=z.to_numpy(np.float32),
            x=[f"layer {layer}" for layer in z.columns],
            y=[f"rank {rank}" for rank in z.index],
            text=words.to_numpy(),
            texttemplate="%{text}",
            hovertemplate="%{x}, %{y}<br>%{text}<br>z %{z:.1f}<extra></extra>",
            colorscale=PALE_BLUES,
            textfont={"color": "#111111"},
            colorbar={"title": "z"},
            xgap=1,
            ygap=1,
        )
    )
    figure.update_layout(height=110 + ROW_HEIGHT * ranks, margin=MARGIN)
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    figure.update_xaxes(showgrid=False, side="top")
    return figure
