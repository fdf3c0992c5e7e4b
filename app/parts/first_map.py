"""The map of the first page: every virtual token that ships among the vocabulary's words, and what each prompt does."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.prompts.starts import plain_verdict
from soft_prompt_explorer.analysis.prompts.verdicts import VERDICTS
from soft_prompt_explorer.app.charts.theme import mark_of
from soft_prompt_explorer.app.map import payload
from soft_prompt_explorer.app.map.component import show_map
from soft_prompt_explorer.app.pages import PROMPT, TOKENS
from soft_prompt_explorer.app.parts import atlas_map, choosing, widgets
from soft_prompt_explorer.app.parts.library_table import everything
from soft_prompt_explorer.app.parts.library_verdicts import verdicts_that_ship
from soft_prompt_explorer.app.parts.measures import what_is
from soft_prompt_explorer.app.parts.selections import numbers_in

KEY, CLICKED = "first-map", "clicked-on-first-map"
HEIGHT = 460


def follow_click() -> None:
    """Go to the token that was clicked on the map, on the page of its prompt; of several that were lassoed, nowhere."""
    clicked = st.session_state.pop(CLICKED, None)
    if clicked is None:
        return
    places = [(name, position) for name in _shipped()["key"] for position in range(len(choosing.load_prompt(name)))]
    numbers = numbers_in(clicked, len(places))
    if len(numbers) == 1:
        name, position = places[numbers[0]]
        st.switch_page(PROMPT.file, query_params={"prompt": name, "tab": TOKENS, "token": str(position)})


def show_first_map() -> None:
    """The map, and beside it each prompt with what it does."""
    shipped = _shipped()
    left, right = st.columns([5, 3], gap="medium")
    with right, st.container(height=HEIGHT + 110):
        for row in shipped.itertuples():
            with st.container(gap=None):
                st.page_link(PROMPT.file, label=row.name, icon=PROMPT.icon, query_params={"prompt": row.key})
                st.caption(": ".join(filter(None, (row.task, widgets.plain(row.does)))))
    with left, widgets.on_its_own():
        _show_map(shipped)


def _shipped() -> pd.DataFrame:
    """The rows of the library of the prompts that ship, those first of which it is told what they do."""
    rows = everything()
    rows = rows[(rows["kind"] == "prompt") & (rows["origin"] == "ships")]
    return rows.assign(untold=rows["does"] == "").sort_values(["untold", "task", "name"])


def _show_map(shipped: pd.DataFrame) -> None:
    vocabulary = widgets.vocabulary(EMBEDDED_MODEL)
    prompts = [choosing.load_prompt(key) for key in shipped["key"]]
    verdicts = verdicts_that_ship(prompts, vocabulary)
    base = atlas_map.word_map(vocabulary, "umap")
    on = None if base is None else atlas_map.tokens_on(base, prompts, vocabulary, "position", "umap")
    if base is None or on is None or verdicts is None:
        return
    does = dict(zip(shipped["name"], shipped["does"], strict=True))
    tokens = on.table.assign(
        verdict=verdicts["verdict"].to_numpy(),
        words=[f"{does[row.prompt]}\n{row.words}" if does[row.prompt] else row.words for row in on.table.itertuples()],
    )

    def clicked() -> None:
        st.session_state[CLICKED] = st.session_state[KEY]["selected"] or ""

    show_map(
        base.words,
        payload.tokens_sent(tokens, on.placed, base.on),
        payload.colours_sent(tokens, "verdict"),
        key=KEY,
        alt=f"Map of {len(base.on.ids):,} words of {vocabulary.model} with the {len(tokens)} virtual tokens of the {len(prompts)} prompts that ship, by verdict.",
        selected="",
        turn=0,
        on_selected=clicked,
        height=HEIGHT,
    )
    st.caption(
        f"Every mark is one of the {len(tokens)} virtual tokens that ship, among the {len(base.on.ids):,} words of {vocabulary.model}. A click opens its prompt."
    )
    what_is("UMAP map", "Trustworthiness", "Verdict")
    counts = verdicts["verdict"].value_counts()
    st.markdown(
        "  \n".join(f"{mark_of(verdict)} **{count} {verdict}**: {VERDICTS[plain_verdict(verdict)]}" for verdict, count in counts.items())
    )
