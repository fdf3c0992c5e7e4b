"""The way from a virtual token to Atlas: its prompt on the map with that token selected, and how the tokens moved there."""

from __future__ import annotations

import streamlit as st

from soft_prompt_explorer.app.pages import ATLAS
from soft_prompt_explorer.app.parts import choosing, naming
from soft_prompt_explorer.app.parts.prompt_header import run_of
from soft_prompt_explorer.app.parts.prompt_on_page import PromptOnPage
from soft_prompt_explorer.app.parts.selections import ranges
from soft_prompt_explorer.trained_prompts.runs import store


def link_to_map(label: str, keys: list[str], numbers: list[int], *, icon: str | None = ATLAS.icon, **said: str) -> None:
    """A link to Atlas with the prompts of these keys on the map; a button where a file of this session is among them, which no address leads anybody else to.

    Parameters
    ----------
    numbers : of the tokens that are selected there, counted over all of these prompts.
    said : what the link says beside.
    """
    of_prompts: dict[str, str | list[str]] = {"prompts": [choosing.prompt_label(key) for key in keys], "selected": ranges(numbers)}
    query = {**of_prompts, **said}
    if choosing.opened().keys().isdisjoint(keys):
        st.page_link(ATLAS.file, label=label, icon=icon, query_params=query)
    elif st.button(label, icon=icon, type="tertiary", key=f"to-map-{label}"):
        st.switch_page(ATLAS.file, query_params=query)


def show_ways_to_map(page: PromptOnPage, position: int) -> None:
    """To the map with one virtual token of the page's prompt selected, and to how all of them moved, where that was kept. Atlas reads a prompt against its own model alone."""
    if naming.said_model(page.key) not in (None, page.vocabulary.model):
        return
    before = 0
    for part in choosing.load_prompt(page.key).split():
        if part.name == page.prompt.name:
            break
        before += len(part)
    link_to_map("On the map", [page.key], [before + position])
    if run_of(page.key) is not None and store.has_trajectory(page.key):
        link_to_map("Play how it moved", [page.key], [before + position], icon=":material/play_arrow:", played=page.key)
