"""What a prompt tells without a vocabulary: the length of its rows, how alike they are, and how many directions they use."""

from __future__ import annotations

import streamlit as st

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.words import counted
from soft_prompt_explorer.analysis.prompts.geometry import MOST_TOKENS, cosines_within, directions_used
from soft_prompt_explorer.analysis.report.inspection import token_norms
from soft_prompt_explorer.app.charts.geometry import cosine_map, energy_bars
from soft_prompt_explorer.app.charts.words import token_norms as norms_chart
from soft_prompt_explorer.app.parts import widgets


def show_geometry(prompt: SoftPrompt) -> None:
    """Three figures that need no model, each with its table."""
    st.subheader("Its geometry")
    norms, pairs, used = token_norms(prompt), cosines_within(prompt), directions_used(prompt)
    same = int(pairs["same"].sum())
    half = int((used["energy"].cumsum() < 0.5).sum()) + 1
    said = [f"The median virtual token is {norms['norm'].median():.2f} long." if len(norms) else ""]
    if len(pairs):
        said.append(f"Two of its tokens have a cosine of {pairs['cosine'].median():.2f} in the median.")
        said.append(
            f"{counted(same, 'pair')} of tokens {'is' if same == 1 else 'are'} one and the same row."
            if same
            else "No two are the same row."
        )
    said.append(f"Half of its energy lies in {half} of {len(used)} directions.")
    st.markdown(" ".join(said))
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**How alike its tokens are**")
        if len(pairs):
            st.plotly_chart(
                cosine_map(pairs),
                key="within",
                alt=f"The cosine of every pair of virtual tokens; the median is {pairs['cosine'].median():.2f}.",
            )
            with widgets.downloads():
                widgets.download_buttons(pairs, f"{prompt.name}-cosines")
        else:
            st.caption("It has one token.")
    with right:
        st.markdown("**How many directions it uses**")
        st.plotly_chart(
            energy_bars(used), key="energy", alt=f"The share of the energy in each direction; the first holds {used['energy'].iloc[0]:.0%}."
        )
        st.markdown("**How long its tokens are**")
        st.plotly_chart(norms_chart(norms), key="norms", alt=f"Euclidean norms of {len(prompt)} virtual tokens.")
    st.caption(
        "None of this needs a vocabulary. What chance comes to is told beside a model’s words alone."
        + (f" The first {MOST_TOKENS} tokens are shown." if len(prompt) > MOST_TOKENS else "")
    )
