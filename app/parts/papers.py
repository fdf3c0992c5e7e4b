"""The papers that the explorer builds on, each with its BibTeX and the measures that come from it."""

import streamlit as st

from soft_prompt_explorer.analysis.core.papers import PAPERS
from soft_prompt_explorer.analysis.report.measures import MEASURES as ALL_MEASURES
from soft_prompt_explorer.app.pages import LEARN, MEASURES


def show_papers() -> None:
    st.markdown(
        "The explorer computes what these papers propose, or tests what they say. Open one to copy its BibTeX and to see what is computed from it."
    )
    st.download_button(
        f"All {len(PAPERS)} as BibTeX", "\n\n".join(paper.bibtex for paper in PAPERS) + "\n", "soft-prompt-explorer.bib", "application/x-bibtex",
        icon=":material/download:",
    )  # fmt: skip
    for paper in PAPERS:
        with st.expander(str(paper)):
            st.code(paper.bibtex, language="bibtex", wrap_lines=True)
            for measure in ALL_MEASURES:
                if paper.brief in measure.source:
                    st.page_link(LEARN.file, label=measure.name, icon=LEARN.icon, query_params={"tab": MEASURES, "find": measure.name})
