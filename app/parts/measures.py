"""What a measure is: in full on the page Learn, in brief wherever its figure stands."""

import html

import streamlit as st

from soft_prompt_explorer.analysis.report.measures import MEASURES as ALL_MEASURES
from soft_prompt_explorer.analysis.report.measures import Measure
from soft_prompt_explorer.app.pages import LEARN, MEASURES


def what_is(*names: str) -> None:
    """A button that tells what the measures of these names are, from their records.

    Raises
    ------
    KeyError
        There is no measure of such a name.
    """
    of_name = {measure.name: measure for measure in ALL_MEASURES}
    with st.popover("What is this?", icon=":material/help:"):
        for measure in (of_name[name] for name in names):
            st.markdown(f"**{measure.name}.** {' '.join(measure.sentences)}")
            st.markdown(f"**What it does not show:** {measure.not_shown}")
            st.page_link(LEARN.file, label=f"{measure.name} in full", icon=LEARN.icon, query_params={"tab": MEASURES, "find": measure.name})


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
