"""Clusters of virtual tokens within and across prompts, on the map of the vocabulary: which of them can be believed."""

import re
from typing import get_args

import numpy as np
import pandas as pd
import streamlit as st

from analysis.adapters import SoftPrompt
from analysis.core.errors import InputError
from analysis.core.progress import Report
from analysis.core.words import shown
from analysis.models.vocabulary import Vocabulary
from analysis.prompts.clusters import POWER, Method, Space, find_clusters, is_echo, is_real, may_be_echo, points_of
from analysis.prompts.neighbours import nearest
from analysis.prompts.projection import AXES, PROJECTIONS, VocabularyMap, landmarks, map_neighbours, place, trustworthiness, vocabulary_map
from analysis.prompts.readings import readings
from app.charts.vocabulary_map import token_map, trajectory_map
from app.parts import widgets
from app.server.background import computed
from trained_prompts.runs import store

DIMENSIONS = {"2-D": 2, "3-D": 3}
COLOURS = ["cluster", "prompt", "task", "verdict", "norm"]
WORDS = 5  # near each token


def ranges(numbers: list[int]) -> str:
    """Numbers as a link holds them: 0-4,9."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def numbers_in(text: str, below: int) -> list[int]:
    """What `ranges` wrote, ascending and each once; what is no range, or out of bounds, is left out."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,15})(?:-([0-9]{1,15}))?", part)
        if match is not None:
            first, last = int(match[1]), int(match[2] or match[1])
            found.update(range(first, min(last, below - 1) + 1))
    return sorted(found)


def remember(key: str, numbers: list[int]) -> None:
    """Keep a selection in the link."""
    if numbers:
        st.query_params[key] = ranges(numbers)
    elif key in st.query_params:
        del st.query_params[key]


def settings() -> tuple[str, str, str, str, int]:
    with st.container(horizontal=True, gap="large"):
        space = st.segmented_control(
            "Cluster", list(get_args(Space)), default="position", required=True, key="space", bind="query-params",
            help="Positions echo how prompts were initialised. Displacements, what training added (P − P⁰), do so less, though tokens that began alike may move alike; they need the initial values.",
        )  # fmt: skip
        method = st.segmented_control(
            "by", list(get_args(Method)), default="hdbscan", required=True, key="method", bind="query-params",
            help="HDBSCAN leaves out tokens that belong nowhere. The other two put every token in a cluster; their number is that of the best silhouette.",
        )  # fmt: skip
        colour = st.segmented_control("Colour", COLOURS, default="cluster", required=True, key="colour", bind="query-params")
        projection = st.segmented_control("Map", list(PROJECTIONS), default="umap", required=True, key="map", bind="query-params")
        dimensions = st.segmented_control("in", list(DIMENSIONS), default="2-D", required=True, key="dimensions", bind="query-params")
    return space, method, colour, projection, DIMENSIONS[dimensions]


def nearest_words(
    prompts: list[SoftPrompt], vocabulary: Vocabulary, space: str, report: Report
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The unit vectors that are clustered, and the ids and scores of the words nearest to each."""
    parts = []
    for i, prompt in enumerate(prompts):
        report(i / len(prompts), prompt.name)
        points = points_of(prompt, vocabulary, space)
        parts.append((points, *nearest(vocabulary.mean + points, vocabulary, top_k=WORDS)))
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def drawn_map(
    vocabulary: Vocabulary, projection: str, dimensions: int, points: np.ndarray, report: Report
) -> tuple[VocabularyMap, pd.DataFrame, np.ndarray, float]:
    """The map, the words to write on it, the tokens' places, and how far these can be trusted."""
    on = vocabulary_map(vocabulary, projection=projection, dimensions=dimensions, report=report)
    at = place(points, on, vocabulary)
    return on, landmarks(on, vocabulary), at, trustworthiness(points, at)


def played(name: str, on: VocabularyMap, vocabulary: Vocabulary, space: str) -> pd.DataFrame:
    """Where a run's tokens were on the map while it was trained: step, position, x, y(, z), word."""
    steps, embeddings = store.read_trajectory(name)
    if embeddings.shape[2] != vocabulary.width or len(steps) < 2:
        raise InputError(f"How {name} was trained cannot be played on this map: what was kept of it is of another model, or of one step.")
    start: np.ndarray = vocabulary.mean
    if space == "displacement":  # nothing had been added at the first step
        start, steps, embeddings = embeddings[:1], steps[1:], embeddings[1:]
    moved = (embeddings - start).reshape(-1, vocabulary.width)
    word_ids, _ = nearest(vocabulary.mean + moved, vocabulary, top_k=1)
    return pd.DataFrame(place(moved, on, vocabulary), columns=list(AXES[: on.dimensions])).assign(
        step=np.repeat(steps, embeddings.shape[1]),
        position=np.tile(np.arange(embeddings.shape[1]), len(steps)),
        word=[vocabulary.tokens[i] for i in word_ids[:, 0]],
    )


def headline(clusters: pd.DataFrame, tokens: int) -> None:
    real = is_real(clusters)
    if not len(clusters):
        st.info(f"There are no clusters among these {tokens:,} virtual tokens.", icon=":material/blur_off:")
    elif not real.any():
        st.info(
            f"{len(clusters)} found, and none can be believed: each is either not found again when tokens are left out, or no tighter than what "
            "the same method finds among prompts that began and moved likewise and have nothing else in common.",
            icon=":material/blur_off:",
        )
    else:
        names = "; ".join(f"{row.cluster}: {widgets.plain(row.label)}" for row in clusters[real].head(4).itertuples())
        said = f"{int(real.sum())} of {len(clusters)} clusters are found again and tighter than chance ({names}{' …' if real.sum() > 4 else ''})."
        echoes, suspect = (int((real & which(clusters)).sum()) for which in (is_echo, may_be_echo))
        if echoes:
            said += (
                f" {echoes} of them {'are echoes' if echoes > 1 else 'is an echo'}: the tokens lay together when they started, or started from the same "
                "words. Such a cluster tells how the prompts began, not what they learned."
            )
        if suspect:
            said += f" {suspect} of them may be {'echoes' if suspect > 1 else 'an echo'}: where the tokens started is unknown."
        if echoes or suspect:
            st.warning(said, icon=":material/replay:")
        else:
            st.success(said, icon=":material/verified:")


st.title("Clusters")
st.markdown("Do virtual tokens, within a prompt or across prompts, lie together, and is that more than chance and initialisation?")
prompts, vocabulary = widgets.pick_prompts("Prompts")
space, method, colour, projection, dimensions = settings()
runs = store.list_runs().set_index("name")["task"]
tasks = {prompt.name: runs[prompt.name] for prompt in prompts if prompt.name in runs.index}
content = (vocabulary.model, widgets.content_of(prompts))

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

words = [[vocabulary.tokens[i] for i in row] for row in ids]
tokens = pd.DataFrame(
    {
        "prompt": np.repeat([prompt.name for prompt in prompts], [len(prompt) for prompt in prompts]),
        "position": np.concatenate([np.arange(len(prompt)) for prompt in prompts]),
        "words": [
            " · ".join(f"{shown(word)} {score:.2f}" for word, score in zip(row, values, strict=True))
            for row, values in zip(words, scores, strict=True)
        ],
        "norm": np.concatenate([prompt.norms for prompt in prompts]),
    }
)
tokens["task"] = [tasks.get(name, "unknown") for name in tokens["prompt"]]
if found is not None and len(found.clusters):
    tokens["cluster"] = [f"{i}: {found.clusters['label'][i]}" if i >= 0 else "no cluster" for i in found.members["cluster"]]
if verdicts is not None:
    tokens["verdict"] = verdicts["verdict"].to_numpy()
by = colour if colour in tokens else "prompt"  # what is still being computed comes as soon as it is there

link = st.query_params.get("selected", "")
chosen: list[int] = numbers_in(link, len(tokens))
if made is not None:
    on, signs, at, trusted = made
    axes = list(AXES[: on.dimensions])
    tokens[axes] = at
    near_ids = np.unique(ids[:, :3])
    near_ids = near_ids[np.isin(near_ids, on.ids)]
    near = pd.DataFrame(on.places[np.searchsorted(on.ids, near_ids)], columns=axes).assign(token=[vocabulary.tokens[i] for i in near_ids])
    first_link = st.session_state.setdefault(f"first-link-{content}-{space}", link)  # the map is not redrawn for what was selected on it
    figure = token_map(tokens, on.places, signs, near, by=by, selected=set(numbers_in(first_link, len(tokens))) if first_link else None)
    alt = f"Map of {len(on.ids):,} words by {projection.upper()} in {on.dimensions} dimensions, with {len(tokens)} virtual tokens of {len(prompts)} prompts by {by}."
    if on.dimensions == 2:
        event = st.plotly_chart(
            figure,
            key=f"map-{projection}",
            on_select="rerun",
            selection_mode=("points", "box", "lasso"),
            config={"scrollZoom": True},
            alt=alt,
        )
        picked = [int(point["customdata"]) for point in event["selection"]["points"] if "customdata" in point]
        if event["selection"]["points"] or st.session_state.get("selected-before"):
            chosen = sorted(set(picked))
        st.session_state["selected-before"] = bool(picked)
    else:
        st.plotly_chart(figure, key=f"map-{projection}-3d", alt=alt)
    sample = f" · a random {len(on.ids):,} of its {len(vocabulary):,} words" if len(on.ids) < len(vocabulary) else ""
    st.caption(
        f"Trustworthiness of the map (k = 15; 1 is faithful, about 0.5 is chance): {on.trustworthiness:.2f} among words, "
        f"{trusted:.2f} among these virtual tokens{sample}. Scroll to zoom, drag to move; lasso, box or a click selects tokens"
        f"{' in 2-D' if on.dimensions == 3 else ''}. A token near no word stands amid the words that it is least far from."
    )
remember("selected", chosen)

if found is not None and len(found.clusters):
    st.subheader("Clusters")
    real, echo, suspect = is_real(found.clusters), is_echo(found.clusters), may_be_echo(found.clusters)
    listing = found.clusters.assign(
        believed=np.select([~real, echo, suspect], ["✘ no", "↺ an echo of the start", "? may be an echo"], "✔ yes")
    )
    rows = st.dataframe(
        listing[["cluster", "believed", "label", "size", "prompts", "tightness", "tightness_p", "stability", "start_tightness"]],
        hide_index=True,
        on_select="rerun",
        selection_mode="multi-row",
        key=f"rows-{content}-{space}-{method}",
        selection_default={"selection": {"rows": numbers_in(st.query_params.get("clusters", ""), len(listing))}},
        column_config={
            "believed": st.column_config.TextColumn(
                help="Found again (stability of 0.6 or more) and tighter than chance (tightness_p under 0.05), and its tokens did not lie together from the start"
            ),
            "prompts": st.column_config.NumberColumn(help="In how many prompts its members are"),
            "tightness": st.column_config.NumberColumn(format="%.2f", help="Mean cosine of the members' pairs"),
            "tightness_p": st.column_config.NumberColumn(
                format="%.3f",
                help="Share of sets of prompts that began and moved likewise in which the method finds a cluster as tight for its size",
            ),
            "stability": st.column_config.NumberColumn(format="%.2f", help="Mean Jaccard of its best match in 100 resamples"),
            "start_tightness": st.column_config.NumberColumn(
                format="%.2f", help="The tightness of the same tokens where they started; half of the cluster's own or more is an echo"
            ),
        },
        alt="The clusters: label, size, tightness with its p-value, and stability.",
    )["selection"]["rows"]
    widgets.download_buttons(found.clusters, f"clusters-{method}-{space}")
    st.caption(POWER)
    remember("clusters", rows)
    if rows:
        wanted = found.clusters["cluster"].iloc[rows]
        chosen = sorted({*chosen, *np.flatnonzero(found.members["cluster"].isin(wanted))})
    agreement = found.agreement[found.agreement["nmi"].notna()]
    nmi = "; ".join(f"with the {row['with']}: {row['nmi']:.2f} (n {row['n']})" for row in agreement.to_dict("records"))
    if nmi:
        st.caption(f"Agreement of the clusters (normalised mutual information, 0 to 1) {nmi}.")

st.subheader(f"{len(chosen)} selected virtual tokens" if chosen else f"All {len(tokens)} virtual tokens")
members = (
    tokens
    if found is None or not len(found.clusters)
    else tokens.assign(cluster=found.members["cluster"], probability=found.members["probability"])
)
members = members.iloc[chosen] if chosen else members
members = members.dropna(axis="columns", how="all")  # only HDBSCAN has a strength of membership
order = ["prompt", "position", "cluster", "probability", "verdict", "words", "task", "norm"]
st.dataframe(
    members[[name for name in order if name in members]],
    hide_index=True,
    column_config={
        "words": st.column_config.TextColumn(
            "nearest words", width="large", help="With their centred cosines; ␣ marks the space that starts a word"
        ),
        "norm": st.column_config.NumberColumn(format="%.2f"),
        "probability": st.column_config.NumberColumn("strength", format="%.2f", help="HDBSCAN's strength of the membership"),
    },
    height=widgets.table_height(len(members)),
    alt="The virtual tokens with their clusters and nearest words.",
)
if found is not None:
    widgets.download_buttons(found.members.iloc[chosen] if chosen else found.members, f"members-{method}-{space}")
if len(chosen) == 1 and made is not None:
    truth = map_neighbours(points[chosen[0]], at[chosen[0]], on, vocabulary)
    both = int(((truth["true_rank"] < 15) & (truth["map_rank"] < 15)).sum())
    st.caption(f"Of its 15 nearest words, {both} are among the 15 nearest on the map.")
    st.dataframe(truth, hide_index=True, alt="The words nearest to this token in truth and on the map.")

trained = [prompt.name for prompt in prompts if prompt.name in runs.index and store.has_trajectory(prompt.name)]
if trained and made is not None:
    st.subheader("While it was trained")
    name = st.selectbox(
        "Prompt", trained, index=None, key="played", bind="query-params", placeholder="pick one to play its training on the map"
    )
    with widgets.in_words():
        frames = name and computed(
            ("trajectory", name, content, space, projection, dimensions),
            "the training on the map",
            lambda report: played(name, on, vocabulary, space),
        )
    if frames is not None:
        st.plotly_chart(
            trajectory_map(frames, on.places, signs),
            key=f"played-{projection}-{dimensions}",
            config={"scrollZoom": True},
            alt=f"The {frames['position'].nunique()} virtual tokens of {name} on the map, over {frames['step'].max()} steps of training.",
        )
        widgets.download_buttons(frames, f"{name}-on-the-map")
widgets.provenance(prompts, vocabulary.model)
