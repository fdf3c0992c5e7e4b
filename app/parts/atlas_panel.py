"""The panel beside the map: clusters and tokens as tables, which select on the map and show what is selected there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.core.words import counted
from soft_prompt_explorer.analysis.prompts.clusters import POWER, Clustering, is_echo, is_real, may_be_echo
from soft_prompt_explorer.app.parts import several, widgets
from soft_prompt_explorer.app.parts.chosen import Chosen
from soft_prompt_explorer.app.parts.measures import what_is
from soft_prompt_explorer.app.parts.selections import numbers_in, ranges
from soft_prompt_explorer.app.parts.tables import show_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINKS = 6  # prompts that are linked to of a selection


def show_clusters(found: Clustering, chosen: Chosen, of_what: str) -> None:
    """A row a cluster; a ticked one selects its tokens."""
    clusters = found.clusters
    if not len(clusters):
        return
    believed = np.select([~is_real(clusters), is_echo(clusters), may_be_echo(clusters)], ["✘ no", "↺ echo", "? may be an echo"], "✔ yes")
    key = f"clusters-{of_what}-{chosen.turn('clusters')}"
    first = chosen.turn("clusters") == 0  # a link of before names clusters
    default = numbers_in(st.query_params.get("clusters", ""), len(clusters)) if first else []

    def picked() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        _choose_clusters(found, rows, chosen)

    show_table(
        clusters.assign(believed=believed)[["believed", "label", "size", "shared_start", "stability", "tightness", "tightness_p"]],
        on_select=picked,
        selection_mode="multi-row",
        selection_default={"selection": {"rows": default}},
        key=key,
        height=220 if len(clusters) > 5 else "content",
        column_config={
            "believed": st.column_config.TextColumn(
                help="Found again (stability of 0.6 or more) and tighter than chance (p under 0.05), and its tokens did not lie together from the start"
            ),
            "label": st.column_config.TextColumn("cluster", help="The words most frequent near its tokens"),
            "size": st.column_config.NumberColumn("tokens"),
            "shared_start": st.column_config.NumberColumn(
                "same start", format="percent", help="Share of its tokens that began as the same word as another of them: an echo"
            ),
            "stability": st.column_config.NumberColumn(format="%.2f", help="Mean Jaccard of its best match in 100 resamples"),
            "tightness": st.column_config.NumberColumn(format="%.2f", help="Mean cosine of the members' pairs"),
            "tightness_p": st.column_config.NumberColumn(
                "is it luck? (p)",
                help="Share of sets of prompts that began and moved likewise in which the method finds a cluster as tight for its size",
            ),
        },
        alt="The clusters: label, size, tightness with its p-value, and stability.",
    )
    what_is("Clustering methods", "Cluster label", "Cluster tightness", "Cluster stability", "Echo of the start")
    if default and not chosen.text:
        _choose_clusters(found, default, chosen)
        st.rerun()


def _choose_clusters(found: Clustering, rows: list[int], chosen: Chosen) -> None:
    wanted = found.clusters["cluster"].iloc[rows]
    chosen.choose(np.flatnonzero(found.members["cluster"].isin(wanted)).tolist(), by="clusters")
    if rows:
        st.query_params["clusters"] = ranges(rows)
    else:
        st.query_params.pop("clusters", None)


def show_tokens(tokens: pd.DataFrame, left: np.ndarray, chosen: Chosen, of_what: str, keys: dict[str, str]) -> None:
    """A row a token, the selected ones first and ticked.

    Parameters
    ----------
    tokens : prompt, position, words, and what else is known of each.
    left : the numbers of those that the filters leave.
    """
    selected = [i for i in chosen.numbers(len(tokens)) if i in set(left.tolist())]
    with st.container(horizontal=True, vertical_alignment="center"):  # above the table, where it is in sight
        st.markdown(
            f"**{counted(len(selected), 'selected virtual token')}**" if selected else f"**All {counted(len(left), 'virtual token')}**",
            width="content",
        )
        if selected:
            _link_to(tokens.iloc[selected], keys)
    turn = chosen.turn("tokens")
    key = f"tokens-{of_what}-{turn}-{hash(left.tobytes())}"
    kept = st.session_state.setdefault(f"order-{chosen.link}", {})
    if key not in kept:  # while a person ticks rows, they stay where they are
        kept.clear()
        kept[key] = [*selected, *(i for i in left.tolist() if i not in set(selected))]
    order = kept[key]

    def picked() -> None:
        chosen.choose([order[row] for row in st.session_state[key]["selection"]["rows"]], by="tokens")

    columns: dict = {
        "position": st.column_config.NumberColumn("token"),
        "words": st.column_config.TextColumn(
            "nearest words", width="medium", help="With their centred cosines; ␣ marks the space that starts a word"
        ),
        "kept": st.column_config.NumberColumn("kept", format="percent", help="Share of its 15 nearest words that the map keeps beside it"),
        "norm": st.column_config.NumberColumn(format="%.2f"),
    }
    listed = tokens.iloc[order]
    if "verdict" in listed:
        cells, columns["verdict"] = widgets.verdict_column(listed["verdict"])
        listed = listed.assign(verdict=cells)
    names = ["prompt", "position", "words", "verdict", "cluster", "kept", "norm", "task", "start"]
    show_table(
        listed[[name for name in names if name in listed]],
        on_select=picked,
        selection_mode="multi-row",
        selection_default={"selection": {"rows": [row for row, i in enumerate(order) if i in set(selected)]}},
        key=key,
        column_config=columns,
        height=300 if len(order) > 8 else "content",
        alt="The virtual tokens with their nearest words; a ticked row is selected on the map.",
    )


def _link_to(selected: pd.DataFrame, keys: dict[str, str]) -> None:
    """The way to the prompts of the selected tokens, each at the first of them."""
    for name, rows in list(selected.groupby("prompt", sort=False))[:LINKS]:
        several.link_to_prompt(name, keys, token=str(rows["position"].iloc[0]))


def offer_downloads(
    found: Clustering | None, tokens: pd.DataFrame, left: np.ndarray, chosen: Chosen, name: str, draw: Callable[[list[int]], Figure]
) -> None:
    """The clusters, and the selected tokens or all, as files; the map of these tokens as a figure, once their verdicts are there.

    Parameters
    ----------
    left : the numbers of the tokens that the filters leave.
    draw : the map with the tokens of these numbers.
    """
    selected = chosen.numbers(len(tokens)) or left.tolist()
    with widgets.downloads():
        if found is not None:
            st.markdown("Clusters")
            widgets.download_buttons(found.clusters, f"clusters-{name}")
            st.markdown("Their members, of the selected tokens or all")
            widgets.download_buttons(found.members.iloc[selected], f"members-{name}")
        st.markdown("The tokens with their places' worth")
        widgets.download_buttons(tokens.iloc[selected], "tokens-on-the-map")
        if "verdict" in tokens:
            st.markdown("The map, for a paper")
            widgets.figure_buttons(lambda: draw(selected), f"map-{name}")
    if found is not None:
        st.caption("Where no cluster is told, there may be one.", help=POWER)
