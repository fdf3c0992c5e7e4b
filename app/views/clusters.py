"""Clusters of virtual tokens within and across prompts, on the map of the vocabulary: which of them can be believed."""

from typing import get_args

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.prompts.clusters import Method, Space, find_clusters
from soft_prompt_explorer.analysis.prompts.projection import PROJECTIONS, Projection
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.app.parts import choosing, several, widgets
from soft_prompt_explorer.app.parts.cluster_tables import headline, show_clusters, show_members
from soft_prompt_explorer.app.parts.selections import numbers_in, remember
from soft_prompt_explorer.app.parts.tokens_on_map import (
    drawn_map,
    nearest_words,
    show_map,
    show_training,
    show_true_neighbours,
    tokens_table,
)
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.app.server.background import computed
from soft_prompt_explorer.trained_prompts.runs import store

DIMENSIONS = {"2-D": 2, "3-D": 3}
COLOURS = ["cluster", "prompt", "task", "verdict", "norm"]


def settings() -> tuple[Space, Method, str, Projection, int]:
    with st.container(horizontal=True, gap="large"):
        space = st.segmented_control(
            "Cluster", get_args(Space), default="position", required=True, key="space", bind="query-params",
            help="Positions echo how prompts were initialised. Displacements, what training added (P − P⁰), do so less, though tokens that began alike may move alike; they need the initial values.",
        )  # fmt: skip
        method = st.segmented_control(
            "by", get_args(Method), default="hdbscan", required=True, key="method", bind="query-params",
            help="HDBSCAN leaves out tokens that belong nowhere. The other two put every token in a cluster; their number is that of the best silhouette.",
        )  # fmt: skip
        colour = st.segmented_control("Colour", COLOURS, default="cluster", required=True, key="colour", bind="query-params")
        projection = st.segmented_control("Map", list(PROJECTIONS), default="umap", required=True, key="map", bind="query-params")
        dimensions = st.segmented_control("in", list(DIMENSIONS), default="2-D", required=True, key="dimensions", bind="query-params")
    return space, method, colour, projection, DIMENSIONS[dimensions]


st.title("Clusters")
st.markdown("Do virtual tokens, within a prompt or across prompts, lie together, and is that more than chance and initialisation?")
prompts, vocabulary = several.pick_prompts("Prompts")
space, method, colour, projection, dimensions = settings()
runs = at_hand.list_runs().set_index("name")["task"]
tasks = {prompt.name: runs[prompt.name] for prompt in prompts if prompt.name in runs.index}
content = (vocabulary.model, choosing.content_of(prompts))

with widgets.in_words():
    points, ids, scores = (
        computed(("points", content, space), "the nearest words", lambda report: nearest_words(prompts, vocabulary, space, report))
        or st.stop()
    )
    found = computed(
        ("clusters", content, space, method),
        "the clusters",
        lambda report: find_clusters(prompts, vocabulary, method=method, space=space, tasks=tasks, report=report),
    )
    made = computed(
        ("map", vocabulary.model, str(vocabulary.cache), projection, dimensions, content, space),
        f"the tokens on the map of {vocabulary.model}'s {len(vocabulary):,} words",
        lambda report: drawn_map(vocabulary, projection, dimensions, points, report),
    )
    verdicts = None
    if colour == "verdict":
        verdicts = computed(
            ("verdicts", content),
            "the verdicts",
            lambda report: pd.concat([readings(prompt, vocabulary, report=report) for prompt in prompts], ignore_index=True),
        )
if found is not None:
    headline(found.clusters, len(points))

tokens = tokens_table(prompts, vocabulary, ids, scores, tasks, found, verdicts)
by = colour if colour in tokens else "prompt"  # what is still being computed comes as soon as it is there

chosen = numbers_in(st.query_params.get("selected", ""), len(tokens))
if made is not None:
    chosen = show_map(made, tokens, ids, vocabulary, by=by, projection=projection, of_what=f"{content}-{space}", chosen=chosen)
remember("selected", chosen)

if found is not None and len(found.clusters):
    chosen = show_clusters(found, chosen, method=method, space=space, of_what=f"{content}-{space}-{method}")

show_members(tokens, found, chosen, f"members-{method}-{space}")
if len(chosen) == 1 and made is not None:
    show_true_neighbours(made, points[chosen[0]], chosen[0], vocabulary)
trained = [prompt.name for prompt in prompts if prompt.name in runs.index and store.has_trajectory(prompt.name)]
if trained and made is not None:
    show_training(made, trained, vocabulary, content, space, projection)
widgets.provenance(prompts, vocabulary.model)
