"""The dashboard's navigation. Start it with `make app`."""

from pathlib import Path

import streamlit as st

from soft_prompt_explorer.analysis.core.late import apart_from_torch
from soft_prompt_explorer.analysis.core.remedies import speaking
from soft_prompt_explorer.app.pages import PAGES, START
from soft_prompt_explorer.app.parts.chosen import VISIT
from soft_prompt_explorer.app.parts.frame import show_frame, show_onward
from soft_prompt_explorer.app.server import read_here
from soft_prompt_explorer.app.server.background import FIRST_PAGE_DRAWN, begin_page

ICON = Path(__file__).parent / "favicon.svg"  # a name such as :material/explore: would have every browser ask a foreign host for it

# Keys of widgets that several pages have, each with values of its own: what was chosen on one is not the other's, where its link would lose against it.
SHARED = ("linked-tab", "linked-measure", "model", "method", "task", "tokens", "steps", "seed", "limit", "examples", "other")


def draw() -> None:
    """Draw the page that the person is on."""
    pages = [
        st.Page(
            page.file,
            title=page.title,
            icon=page.icon,
            url_path=page.url_path,
            default=page is START,
            visibility="visible" if page.in_menu else "hidden",
        )
        for page in PAGES
    ]
    with speaking("page"):
        st.set_page_config(
            page_icon=str(ICON), layout="wide"
        )  # before the menu: else the browser asks a foreign host for the icon of the page
        here = st.navigation(pages, position="top")
        st.set_page_config(page_title=f"{here.title} · Soft Prompt Explorer")
        if st.session_state.get("here") != here.url_path:
            for key in SHARED:
                st.session_state.pop(key, None)
            st.session_state[VISIT] = st.session_state.get(VISIT, 0) + 1
        st.session_state["here"] = here.url_path
        begin_page()
        read_here.begin()
        show_frame()
        with apart_from_torch():
            here.run()
            show_onward(here.url_path)
    FIRST_PAGE_DRAWN.set()


if __name__ == "__main__":  # and not where a process that is started from here reads this file again
    draw()
