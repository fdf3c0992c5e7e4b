"""Prompt against prompt: every pair as a matrix, and two side by side on the map, with one lasso across both."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.words import counted
from soft_prompt_explorer.analysis.figures import charts as figures
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.likeness import MEASURES, chance, matched, matrix, remarkable, similarity, tree
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.app.charts.columns import in_words
from soft_prompt_explorer.app.charts.similarity import similarity_matrix
from soft_prompt_explorer.app.parts import atlas_map, choosing, several, widgets
from soft_prompt_explorer.app.parts.atlas_choice import Settings
from soft_prompt_explorer.app.parts.chosen import Chosen, chosen_tokens
from soft_prompt_explorer.app.parts.measures import below, of_columns
from soft_prompt_explorer.app.parts.two_prompts import say_how_alike, show_beside_chance, show_pairs
from soft_prompt_explorer.app.server.background import computed


def show_comparison(prompts: list[SoftPrompt], vocabulary: Vocabulary, settings: Settings) -> None:
    """The page's second mode."""
    if len(prompts) < 2:
        st.info("Pick two or more prompts of one model.", icon=":material/info:")
        return
    names = [prompt.name for prompt in prompts]
    content = (vocabulary.model, choosing.content_of(prompts))
    table = computed(("similarity", content), "the similarities", lambda report: similarity(prompts, vocabulary, report=report))
    if table is None:
        return
    if len(prompts) > 2:
        _show_matrix(table, names)
    name_a, name_b = _pick_two(table, names)
    by_name = dict(zip(names, prompts, strict=True))
    a, b = by_name[name_a], by_name[name_b]
    row = table[table["prompt_a"].isin([name_a, name_b]) & table["prompt_b"].isin([name_a, name_b])].iloc[0]
    pairs = matched(a, b, vocabulary)
    say_how_alike(row, pairs, len(table))
    _show_panes([a, b], vocabulary, settings, pairs)
    band = computed(
        ("chance", vocabulary.model, str(vocabulary.cache), len(a), len(b)),
        "what unrelated prompts score",
        lambda report: chance(len(a), len(b), vocabulary, report=report),
    )
    if band is not None:
        show_beside_chance(row, band)
    keys = several.keys_by_name(prompts, st.session_state.get("prompts", []))
    with st.container(horizontal=True):
        for name in (name_a, name_b):
            several.link_to_prompt(name, keys)
    with widgets.downloads():
        widgets.download_buttons(table, "similarity")


def _show_matrix(table: pd.DataFrame, names: list[str]) -> None:
    """Every pair; a click on a cell picks it."""
    widgets.follow_link("measure", {name: name for name in MEASURES}, "z")
    measure = st.segmented_control("Measure", MEASURES, required=True, format_func=in_words, key="linked-measure") or "z"
    widgets.say_in_link("measure", None if measure == "z" else measure)
    level = remarkable(len(table))
    told = level if measure == "z" else None
    square = matrix(table, measure, names)
    key = f"matrix-{measure}"

    def picked() -> None:
        for point in st.session_state[key]["selection"]["points"][:1]:
            if point.get("customdata"):
                st.session_state["a"], st.session_state["b"] = point["customdata"][:2]

    known = table[measure].notna().any()
    best = " and ".join(table.loc[table[measure].idxmax(), ["prompt_a", "prompt_b"]]) if known else "unknown"
    st.plotly_chart(
        similarity_matrix(square, tree(table, names), measure, told),
        key=key,
        on_select=picked,
        selection_mode="points",
        alt=f"The {in_words(measure)} of every pair of {len(names)} prompts; the most alike by it are {best}.",
    )
    st.caption(
        f"Click a cell to set its two prompts side by side. Only z takes chance into account: white is {level:.1f}, beyond which one of {len(table)} unrelated pairs lies once in twenty times.",
        help="Chance is prompts that began and moved likewise and have nothing else in common. The tree joins prompts by matched cosine. The other five measures are high for "
        "unrelated prompts too: the band below shows how high.",
    )
    with below(*of_columns([measure])):
        widgets.figure_buttons(lambda: figures.similarity(square, tree(table, names), measure, told), f"similarity-{measure}")


def _pick_two(table: pd.DataFrame, names: list[str]) -> tuple[str, str]:
    best = table.loc[table["z"].idxmax()] if table["z"].notna().any() else table.iloc[0]
    left, right = st.columns(2)
    _first("a", names, best["prompt_a"])
    name_a = left.selectbox("One", names, index=None, key="a", bind="query-params") or best["prompt_a"]
    others = [name for name in names if name != name_a]
    if st.session_state.get("b") not in (None, *others):
        del st.session_state["b"]
    _first("b", others, best["prompt_b"])
    return name_a, right.selectbox("The other", others, index=None, key="b", bind="query-params") or others[0]


def _first(key: str, names: list[str], best: str) -> None:
    """What stands in a choice before its person, or a link, has chosen."""
    if st.session_state.get(key) is None and key not in st.query_params:
        st.session_state[key] = best if best in names else names[0]


@st.fragment
def _show_panes(two: list[SoftPrompt], vocabulary: Vocabulary, settings: Settings, pairs: pd.DataFrame) -> None:
    """The two on the map, and the pairs of their tokens: what is selected on one is selected on the other."""
    content = (vocabulary.model, choosing.content_of(two))
    with widgets.in_words():
        base = atlas_map.word_map(vocabulary, settings.projection)
        if base is None:
            return
        on = atlas_map.tokens_on(base, two, vocabulary, settings.space, settings.projection)
        verdicts = computed(
            ("verdicts of two", content), "the verdicts", lambda report: [readings(prompt, vocabulary, report=report) for prompt in two]
        )
    names = (two[0].name, two[1].name)
    if on is not None:
        chosen = chosen_tokens("pairs", content)
        tokens = on.table if verdicts is None else on.table.assign(verdict=np.concatenate([table["verdict"] for table in verdicts]))
        by = "verdict" if verdicts is not None else "prompt"
        atlas_map.draw(base, on, tokens, chosen, by=by, vocabulary=vocabulary, panes=names, key="panes")
        _say_selected(chosen, pairs, len(two[0]), len(tokens))
    show_pairs(pairs, names, verdicts)


def _say_selected(chosen: Chosen, pairs: pd.DataFrame, first: int, count: int) -> None:
    """How many of either are in the lasso, and how many of them are matched with each other."""
    selected = set(chosen.numbers(count))
    if not selected:
        st.caption("Drag and zoom move both sides. A lasso on either selects the tokens of both that lie within it.")
        return
    both = sum(row.position_a in selected and first + row.position_b in selected for row in pairs.itertuples())
    of_a = sum(i < first for i in selected)
    st.markdown(
        f"**{of_a} and {len(selected) - of_a} tokens selected**; {counted(both, 'matched pair')} lie{'s' if both == 1 else ''} within."
    )
