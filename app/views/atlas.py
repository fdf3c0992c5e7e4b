"""The map of the vocabulary with virtual tokens on it: clusters, a search, and prompt against prompt."""

from functools import partial

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.prompts.shipped import clusters_of, readings_of
from soft_prompt_explorer.app.pages import COMPARE, MAP
from soft_prompt_explorer.app.parts import atlas_choice, atlas_map, choosing, several, widgets
from soft_prompt_explorer.app.parts.atlas_compare import show_comparison
from soft_prompt_explorer.app.parts.atlas_panel import offer_downloads, show_clusters, show_tokens
from soft_prompt_explorer.app.parts.atlas_search import search_box, show_found
from soft_prompt_explorer.app.parts.chosen import chosen_tokens
from soft_prompt_explorer.app.parts.cluster_headline import headline
from soft_prompt_explorer.app.parts.own_columns import KEYS, pick_own, say_unheard, says_something, with_own
from soft_prompt_explorer.app.parts.selections import ranges
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.app.server.background import computed
from soft_prompt_explorer.trained_prompts.runs import store

st.title("Atlas")
with st.container(gap="small"):
    left, right = st.columns([5, 4], gap="medium")
    with left:
        atlas_choice.pick_tasks()
    with right:
        prompts, vocabulary = several.pick_prompts("Prompts", of_task=atlas_choice.FIRST_TASK)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        place = st.container(width="content")
        own = pick_own()
    with place:
        settings = atlas_choice.pick_settings([] if own is None else list(own.columns.difference(KEYS)))
content = (vocabulary.model, choosing.content_of(prompts))
runs = at_hand.list_runs().set_index("name")["task"]
tasks = {prompt.name: runs[prompt.name] for prompt in prompts if prompt.name in runs.index}


@st.fragment
def show_atlas() -> None:
    """The map, and the panel beside it: a click redraws these alone."""
    left, right = st.columns([2, 1], gap="medium")
    place = left.container()
    asked = None
    with right, widgets.on_its_own():
        asked = search_box(vocabulary)
    with left, widgets.in_words():
        base = atlas_map.word_map(vocabulary, settings.projection)
        if base is None:
            return
        on = atlas_map.tokens_on(base, prompts, vocabulary, settings.space, settings.projection)
        if on is None:
            return
        found = computed(
            ("clusters", content, settings.space, settings.method),
            "the clusters",
            lambda report: clusters_of(prompts, vocabulary, method=settings.method, space=settings.space, tasks=tasks, report=report),
        )
        verdicts = computed(
            ("verdicts", content),
            "the verdicts",
            lambda report: pd.concat([readings_of(prompt, vocabulary, report=report) for prompt in prompts], ignore_index=True),
        )
        trained = [prompt.name for prompt in prompts if prompt.name in runs.index and store.has_trajectory(prompt.name)]
        frames = atlas_map.pick_training(trained, base, vocabulary, content, settings.space, settings.projection) if trained else None
    tokens = atlas_choice.described(on.table if own is None else with_own(on.table, own))
    if verdicts is not None:
        tokens["verdict"] = verdicts["verdict"].to_numpy()
    if found is not None and len(found.clusters):
        names = {row.cluster: f"{row.cluster}: {row.label}" for row in found.clusters.itertuples()}
        tokens["cluster"] = found.members["cluster"].map(names).fillna("no cluster")
    chosen = chosen_tokens("selected", content)
    of_what = f"{hash(content)}-{settings.space}-{settings.method}"
    with right:
        if asked is not None:
            with widgets.on_its_own():
                show_found(asked, vocabulary, tokens, chosen)
        if found is not None:
            headline(found.clusters, len(tokens))
            show_clusters(found, chosen, of_what)
        keep = atlas_choice.pick_filters(tokens)
        numbers = tokens.index.to_numpy() if keep is None else tokens.index[keep].to_numpy()
        show_tokens(tokens, numbers, chosen, of_what, several.keys_by_name(prompts, st.session_state.get("prompts", [])))
        figure = partial(atlas_map.for_a_paper, base, on, tokens, vocabulary)
        offer_downloads(found, tokens, numbers, chosen, f"{settings.method}-{settings.space}", figure)
    by = settings.colour if settings.colour in tokens else "prompt"  # what is still being computed comes as soon as it is there
    with place:
        if own is not None:
            say_unheard(tokens, own)
        known = says_something(tokens, by)
        drawn = numbers if known is None else numbers[known.to_numpy()[numbers]]
        atlas_map.draw(
            base, on, tokens, chosen,
            by=by,
            vocabulary=vocabulary,
            shown_tokens=None if keep is None and known is None else ranges(drawn.tolist()),
            marked=asked.wanted if asked else None,
            frames=frames,
        )  # fmt: skip


map_tab, compare_tab = widgets.tabs([MAP, COMPARE])
with map_tab:
    if map_tab.open:
        show_atlas()
with compare_tab:
    if compare_tab.open:
        with widgets.in_words():
            show_comparison(prompts, vocabulary, settings)
widgets.provenance(prompts, vocabulary.model)
