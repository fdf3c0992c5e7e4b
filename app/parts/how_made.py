"""How an adapter was made: the card of a run, and what was checked of a file."""

from __future__ import annotations

import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.app.pages import LIBRARY
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.parts.opened_file import show_content, show_receipt
from soft_prompt_explorer.app.parts.prompt_header import run_of
from soft_prompt_explorer.trained_prompts.runs import store


def show_made(key: str, adapter: SoftPrompt | LoraAdapter) -> None:
    """The card and the file of an adapter; a run of the person's own can be deleted."""
    run = run_of(key)
    if run is not None:
        with widgets.on_its_own():
            st.markdown(store.read_card(key).replace("# ", "#### ", 1))
        if run["origin"] == "yours":
            with st.popover("Delete this run", icon=":material/delete:"):
                st.write("Its files are removed from this machine.")
                if st.button("Delete it", key="delete"):
                    with widgets.in_words():
                        store.delete(key)
                    st.switch_page(LIBRARY.file)
    left, right = st.columns(2, gap="large")
    with left:
        show_receipt(adapter, choosing.notes_of(adapter))
    with right:
        show_content(adapter)
