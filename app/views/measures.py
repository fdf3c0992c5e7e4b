"""Which readings can be believed, and every measure that the explorer shows, from the records of `analysis.report.measures`."""

import streamlit as st

from soft_prompt_explorer.analysis.report.measures import GROUPS, INTRODUCTION, LEGEND, MEASURES
from soft_prompt_explorer.app.parts.compared_readings import show_compared_readings
from soft_prompt_explorer.app.parts.measures import show_measure

ALL = "All"

st.title("Measures")
st.markdown(INTRODUCTION)
with st.container(border=True):
    st.markdown(f"**Symbols.** {LEGEND}")
picked = st.segmented_control("Show", (ALL, *GROUPS), default=ALL, required=True, key="group", bind="query-params")
if picked == ALL:
    show_compared_readings()
for group in GROUPS:
    if picked in (ALL, group):
        st.header(group)
        for measure in MEASURES:
            if measure.group == group:
                show_measure(measure)
