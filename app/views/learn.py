"""What the explorer teaches: the lesson, which readings hold, every measure, every method beside the others, what was found, the words of the field and the papers behind it all."""

import streamlit as st

from soft_prompt_explorer.analysis.report.measures import GROUPS, INTRODUCTION, LEGEND
from soft_prompt_explorer.analysis.report.measures import MEASURES as ALL_MEASURES
from soft_prompt_explorer.app.pages import (
    FINDINGS,
    GLOSSARY,
    LESSON,
    MEASURED,
    MEASURES,
    METHODS,
    PUBLISHED,
    READINGS,
    RUN_ONE,
    SCORECARDS,
    SIZES,
    SOURCES,
    TRADES,
)
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.compared_readings import show_compared_readings
from soft_prompt_explorer.app.parts.comparisons import offer_to_run
from soft_prompt_explorer.app.parts.findings import show_findings
from soft_prompt_explorer.app.parts.glossary import show_glossary
from soft_prompt_explorer.app.parts.lesson import show_lesson
from soft_prompt_explorer.app.parts.measured_methods import show_measured
from soft_prompt_explorer.app.parts.measures import show_measure
from soft_prompt_explorer.app.parts.papers import show_papers
from soft_prompt_explorer.app.parts.published import show_published
from soft_prompt_explorer.app.parts.scorecards import show_scorecards
from soft_prompt_explorer.app.parts.sizes import show_sizes
from soft_prompt_explorer.app.parts.trades import show_trade

ALL = "All"


def show_measures() -> None:
    st.markdown(INTRODUCTION)
    wanted = st.text_input("Find a measure", key="find", bind="query-params", placeholder="for instance: stable rank").strip().casefold()
    picked = st.segmented_control("Show", (ALL, *GROUPS), default=ALL, required=True, key="group", bind="query-params")
    with st.expander("Symbols", icon=":material/function:"):
        st.markdown(LEGEND)
    for group in GROUPS:
        shown = [
            measure
            for measure in ALL_MEASURES
            if measure.group == group and picked in (ALL, group) and wanted in f"{measure.name} {' '.join(measure.sentences)}".casefold()
        ]
        if shown:
            st.header(group)
        for measure in shown:
            show_measure(measure)


METHODS_PARTS = {
    MEASURED: show_measured,
    SIZES: show_sizes,
    PUBLISHED: show_published,
    RUN_ONE: offer_to_run,
    TRADES: show_trade,
    SCORECARDS: show_scorecards,
}
# What a link that names no part says of one.
SAYS = {
    "of-task": SIZES,
    "published": PUBLISHED,
    "against": PUBLISHED,
    "new-task": RUN_ONE,
    "new-model": RUN_ONE,
    "trade": TRADES,
    "runs": SCORECARDS,
}


def show_methods() -> None:
    st.markdown("The same model and the same examples, adapted in every way: what each gives, and what it costs.")
    first = next((part for name, part in SAYS.items() if name in st.query_params), MEASURED)
    widgets.follow_link("methods", {name: name for name in METHODS_PARTS}, first)
    picked = st.segmented_control("What to see", list(METHODS_PARTS), required=True, key="linked-methods", label_visibility="collapsed")
    widgets.say_in_link("methods", None if picked == MEASURED else picked)
    with widgets.on_its_own():
        METHODS_PARTS[picked or MEASURED]()


st.title("Learn")
PARTS = {
    LESSON: show_lesson,
    READINGS: show_compared_readings,
    MEASURES: show_measures,
    METHODS: show_methods,
    FINDINGS: show_findings,
    GLOSSARY: show_glossary,
    SOURCES: show_papers,
}
for tab, show in zip(widgets.tabs(list(PARTS)), PARTS.values(), strict=True):
    with tab:
        if tab.open:
            show()
