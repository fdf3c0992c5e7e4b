"""The words of the field, each in a sentence or two."""

import streamlit as st

from soft_prompt_explorer.analysis.report.glossary import INTRODUCTION, TERMS
from soft_prompt_explorer.app.pages import LEARN, MEASURES


def show_glossary() -> None:
    st.markdown(INTRODUCTION)
    wanted = st.text_input("Find a word", key="word", bind="query-params", placeholder="for instance: twin").strip().casefold()
    shown = [term for term in TERMS if wanted in f"{term.word} {term.says}".casefold()]
    if not shown:
        st.info("No word or explanation holds that. Clear the field to see all.", icon=":material/search_off:")
    for term in sorted(shown, key=lambda term: not term.word.casefold().startswith(wanted)):
        with st.container(gap="xxsmall"):
            st.markdown(f"**{term.word}.** {term.says}")
            if term.paper:
                st.caption(str(term.paper))
            if term.measure:
                st.page_link(
                    LEARN.file, label=f":small[How it is computed: {term.measure}]", query_params={"tab": MEASURES, "find": term.measure}
                )
