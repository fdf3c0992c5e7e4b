"""Clusters in words: which of them can be believed."""

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.prompts.clusters import is_echo, is_real, may_be_echo
from soft_prompt_explorer.app.parts import widgets


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
