"""What Atlas shows: the tasks whose prompts are on the map, how their tokens are clustered, and which of them the filters leave."""

from __future__ import annotations

from typing import NamedTuple, get_args

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.core.filters import facets, left_by
from soft_prompt_explorer.analysis.prompts.clusters import Method, Space
from soft_prompt_explorer.analysis.prompts.projection import PROJECTIONS, Projection
from soft_prompt_explorer.app.parts import choosing
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.app.server.text import plain

FIRST_TASK = "past-tense"  # what a person sees first: four prompts, of which the page of the first lesson tells
COLOURS = ("cluster", "prompt", "task", "verdict", "norm")
FACETS = ("task", "start", "method", "verdict")
UNKNOWN = "unknown"


class Settings(NamedTuple):
    """How the tokens are clustered, coloured and laid out."""

    space: Space
    method: Method
    projection: Projection
    colour: str


def pick_tasks() -> None:
    """Whole tasks to put on the map; the field of prompts below takes them over."""
    runs = at_hand.list_runs().set_index("name")
    keys = [key for key in choosing.prompt_keys() if key in runs.index and key not in choosing.opened()]
    of_task = pd.Series({key: runs.loc[key, "task"] for key in keys}, dtype=object)

    def take_over() -> None:
        wanted = st.session_state["tasks"]
        st.session_state["prompts"] = [key for key in keys if of_task[key] in wanted]

    labels = {task: f"{task} {count}" for task, count in of_task.value_counts().sort_index().items()}
    st.pills(
        "Prompts of a task",
        list(labels),
        selection_mode="multi",
        wrap=True,
        key="tasks",
        format_func=labels.__getitem__,
        on_change=take_over,
        help="How many prompts of it are at hand; several can be picked",
    )


def pick_settings(columns: list[str]) -> Settings:
    """The settings, behind one button.

    Parameters
    ----------
    columns : of the person's own, to colour by.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        colour = st.segmented_control(
            "Colour", [*COLOURS, *columns], default="verdict", required=True, key="colour", bind="query-params", format_func=plain
        )
        with st.popover("Clusters and layout", icon=":material/tune:"):
            space = st.segmented_control(
                "Cluster", get_args(Space), default="position", required=True, key="space", bind="query-params",
                help="Positions echo how prompts were initialised. Displacements, what training added (P − P⁰), do so less, though tokens that began alike may move alike; they need the initial values.",
            )  # fmt: skip
            method = st.segmented_control(
                "by", get_args(Method), default="hdbscan", required=True, key="method", bind="query-params",
                help="HDBSCAN leaves out tokens that belong nowhere. The other two put every token in a cluster; their number is that of the best silhouette.",
            )  # fmt: skip
            projection = st.segmented_control(
                "Layout", list(PROJECTIONS), default="umap", required=True, key="map", bind="query-params",
                help="UMAP keeps near things near. PCA keeps the directions in which words differ most, and far things far.",
            )  # fmt: skip
    return Settings(space, method, projection, colour)


def described(tokens: pd.DataFrame) -> pd.DataFrame:
    """The table of `atlas_map.on_map` with task, start and method of each token's prompt, as far as they are known."""
    runs = at_hand.list_runs().set_index("name")
    told = {"task": "task", "start": "init", "method": "method"}
    return tokens.assign(
        **{name: tokens["prompt"].map(runs[column]).fillna(UNKNOWN).astype(str).replace("", UNKNOWN) for name, column in told.items()}
    )


def pick_filters(tokens: pd.DataFrame) -> pd.Series | None:
    """Which tokens are left by what a person ticks, as a column of truth; None where nothing is ticked. Each choice says how many tokens it leaves."""
    names = [name for name in FACETS if name in tokens and len(tokens[name].unique()) > 1]
    if not names:
        return None
    chosen = {name: st.session_state.get(f"only-{name}") or [] for name in names}
    counts = facets(tokens, chosen)
    ticked = sum(map(len, chosen.values()))
    with st.popover(f"Filter ({ticked})" if ticked else "Filter", icon=":material/filter_alt:"):
        for name in names:
            rows = counts[counts["facet"] == name].set_index("value")["rows"]
            labels = {value: f"{value} {count}" for value, count in rows.items()}
            st.pills(name.capitalize(), list(labels), selection_mode="multi", wrap=True, key=f"only-{name}", format_func=labels.__getitem__)
    return pd.Series(left_by(tokens, chosen)) if ticked else None
