"""A measure on the page Measures."""

import streamlit as st

from soft_prompt_explorer.analysis.report.measures import Measure


def show_measure(measure: Measure) -> None:
    with st.container(border=True):
        st.subheader(measure.name, anchor=measure.anchor)
        st.markdown(" ".join(measure.sentences))
        st.latex(measure.formula)
        st.markdown(f"**What it does not show:** {measure.not_shown}")
        st.caption(f"Source: {measure.source}")
