"""Clusters in words and in tables: which of them can be believed, and who is in them."""

import numpy as np
import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.prompts.clusters import POWER, Clustering, is_echo, is_real, may_be_echo
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.selections import numbers_in, remember


def headline(clusters: pd.DataFrame, tokens: int) -> None:
    """How many of the clusters among so many virtual tokens can be believed, and which."""
    real = is_real(clusters)
    if not len(clusters):
        st.info(f"There are no clusters among these {tokens:,} virtual tokens.", icon=":material/blur_off:")
    elif not real.any():
        st.info(
            f"{len(clusters)} found, and none can be believed: each is either not found again when tokens are left out, or no tighter than what "
            "the same method finds among prompts that began and moved likewise and have nothing else in common.",
            icon=":material/blur_off:",
        )
    else:
        names = "; ".join(f"{row.cluster}: {widgets.plain(row.label)}" for row in clusters[real].head(4).itertuples())
        said = f"{int(real.sum())} of {len(clusters)} clusters are found again and tighter than chance ({names}{' …' if real.sum() > 4 else ''})."
        echoes, suspect = (int((real & which(clusters)).sum()) for which in (is_echo, may_be_echo))
        if echoes:
            said += (
                f" {echoes} of them {'are echoes' if echoes > 1 else 'is an echo'}: the tokens lay together when they started, or started from the same "
                "words. Such a cluster tells how the prompts began, not what they learned."
            )
        if suspect:
            said += f" {suspect} of them may be {'echoes' if suspect > 1 else 'an echo'}: where the tokens started is unknown."
        if echoes or suspect:
            st.warning(said, icon=":material/replay:")
        else:
            st.success(said, icon=":material/verified:")


def show_clusters(found: Clustering, chosen: list[int], *, method: str, space: str, of_what: str) -> list[int]:
    """A row a cluster, to pick from; answers the tokens that are selected, those of the picked clusters among them."""
    st.subheader("Clusters")
    real, echo, suspect = is_real(found.clusters), is_echo(found.clusters), may_be_echo(found.clusters)
    listing = found.clusters.assign(
        believed=np.select([~real, echo, suspect], ["✘ no", "↺ an echo of the start", "? may be an echo"], "✔ yes")
    )
    rows = st.dataframe(
        listing[["cluster", "believed", "label", "size", "prompts", "tightness", "tightness_p", "stability", "start_tightness"]],
        hide_index=True,
        on_select="rerun",
        selection_mode="multi-row",
        key=f"rows-{of_what}",
        selection_default={"selection": {"rows": numbers_in(st.query_params.get("clusters", ""), len(listing))}},
        column_config={
            "believed": st.column_config.TextColumn(
                help="Found again (stability of 0.6 or more) and tighter than chance (tightness_p under 0.05), and its tokens did not lie together from the start"
            ),
            "prompts": st.column_config.NumberColumn(help="In how many prompts its members are"),
            "tightness": st.column_config.NumberColumn(format="%.2f", help="Mean cosine of the members' pairs"),
            "tightness_p": st.column_config.NumberColumn(
                format="%.3f",
                help="Share of sets of prompts that began and moved likewise in which the method finds a cluster as tight for its size",
            ),
            "stability": st.column_config.NumberColumn(format="%.2f", help="Mean Jaccard of its best match in 100 resamples"),
            "start_tightness": st.column_config.NumberColumn(
                format="%.2f", help="The tightness of the same tokens where they started; half of the cluster's own or more is an echo"
            ),
        },
        alt="The clusters: label, size, tightness with its p-value, and stability.",
    )["selection"]["rows"]
    widgets.download_buttons(found.clusters, f"clusters-{method}-{space}", seed=0)
    st.caption(POWER)
    remember("clusters", rows)
    if rows:
        wanted = found.clusters["cluster"].iloc[rows]
        chosen = sorted({*chosen, *np.flatnonzero(found.members["cluster"].isin(wanted))})
    agreement = found.agreement[found.agreement["nmi"].notna()]
    nmi = "; ".join(f"with the {row['with']}: {row['nmi']:.2f} (n {row['n']})" for row in agreement.to_dict("records"))
    if nmi:
        st.caption(f"Agreement of the clusters (normalised mutual information, 0 to 1) {nmi}.")
    return chosen


def show_members(tokens: pd.DataFrame, found: Clustering | None, chosen: list[int], export_name: str) -> None:
    """The selected virtual tokens, or all, with their clusters and nearest words.

    Parameters
    ----------
    export_name : of the file that they are exported to.
    """
    st.subheader(f"{len(chosen)} selected virtual tokens" if chosen else f"All {len(tokens)} virtual tokens")
    members = (
        tokens
        if found is None or not len(found.clusters)
        else tokens.assign(cluster=found.members["cluster"], probability=found.members["probability"])
    )
    members = members.iloc[chosen] if chosen else members
    members = members.dropna(axis="columns", how="all")  # only HDBSCAN has a strength of membership
    order = ["prompt", "position", "cluster", "probability", "verdict", "words", "task", "norm"]
    st.dataframe(
        members[[name for name in order if name in members]],
        hide_index=True,
        column_config={
            "words": st.column_config.TextColumn(
                "nearest words", width="large", help="With their centred cosines; ␣ marks the space that starts a word"
            ),
            "norm": st.column_config.NumberColumn(format="%.2f"),
            "probability": st.column_config.NumberColumn("strength", format="%.2f", help="HDBSCAN's strength of the membership"),
        },
        height=widgets.table_height(len(members)),
        alt="The virtual tokens with their clusters and nearest words.",
    )
    if found is not None:
        widgets.download_buttons(found.members.iloc[chosen] if chosen else found.members, export_name, seed=0)
