"""What a measure is: in full on the page Learn, in brief wherever its figure stands."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

import streamlit as st

from soft_prompt_explorer.analysis.report.measures import MEASURES as ALL_MEASURES
from soft_prompt_explorer.analysis.report.measures import Measure
from soft_prompt_explorer.app.pages import LEARN, MEASURES
from soft_prompt_explorer.app.parts import widgets

if TYPE_CHECKING:
    from streamlit.elements.lib.mutable_popover_container import PopoverContainer

_OF_COLUMN = {
    "pooled_cosine": "Pooled cosine",
    "mean_cosine": "Mean cosine",
    "matched_cosine": "Matched cosine",
    "cka": "CKA",
    "principal_angle_mean": "Mean principal angle",
    "z": "z",
    "stable_rank": "Stable rank",
    "effective_rank": "Effective rank",
    "rank_90": "Ranks at 90, 95 and 99 %",
    "rank_95": "Ranks at 90, 95 and 99 %",
    "rank_99": "Ranks at 90, 95 and 99 %",
    "spike": "Spike",
    "amplification": "Amplification",
    "intruders": "Intruder dimensions",
}


def of_columns(columns: Iterable[str]) -> list[str]:
    """The names of the measures that tables hold in these columns, as far as there are records of them."""
    return list(dict.fromkeys(_OF_COLUMN[column] for column in columns if column in _OF_COLUMN))


def what_is(*names: str) -> None:
    """A button that tells what the measures of these names are, from their records.

    Raises
    ------
    KeyError
        There is no measure of such a name.
    """
    of_name = {measure.name: measure for measure in ALL_MEASURES}
    with st.popover("What is this?", type="tertiary", icon=":material/help:"):
        for measure in (of_name[name] for name in names):
            st.markdown(f"**{measure.name}.** {' '.join(measure.sentences)}")
            st.markdown(f"**What it does not show:** {measure.not_shown}")
            st.page_link(LEARN.file, label=f"{measure.name} in full", icon=LEARN.icon, query_params={"tab": MEASURES, "find": measure.name})


def below(*names: str) -> PopoverContainer:
    """The line below a figure or a table: what its measures are, and the button that its exports are put behind, which is answered."""
    with st.container(horizontal=True, vertical_alignment="center"):
        if names:
            what_is(*names)
        return widgets.downloads()


def show_measure(measure: Measure) -> None:
    """One measure with its formula, an example where it has one, its limits and its source."""
    with st.container(border=True):
        st.subheader(measure.name, anchor=measure.anchor)
        st.markdown(" ".join(measure.sentences))
        _show_formula(measure)
        if measure.example:
            st.markdown(f"**For example:** {measure.example}")
        st.markdown(f"**What it does not show:** {measure.not_shown}")
        st.caption(f"Source: {measure.source}")


def _show_formula(measure: Measure) -> None:
    """Its formula, which the keyboard reaches and moves where it is wider than the window."""
    label = html.escape(f"Formula of {measure.name}")
    formula = "\n".join(line for line in measure.formula.splitlines() if line.strip())
    st.markdown(
        f'<div class="formula" role="group" aria-label="{label}" tabindex="0">\n\n$$\n{formula}\n$$\n\n</div>', unsafe_allow_html=True
    )
