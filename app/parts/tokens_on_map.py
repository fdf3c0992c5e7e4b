"""Virtual tokens on the map of the vocabulary: where they are, and where they were while they were trained."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report
from soft_prompt_explorer.analysis.core.words import shown
from soft_prompt_explorer.analysis.figures import charts as figures
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.clusters import Clustering, Space, points_of
from soft_prompt_explorer.analysis.prompts.projection import (
    AXES,
    Projection,
    VocabularyMap,
    landmarks,
    map_neighbours,
    place,
    trustworthiness,
    vocabulary_map,
)
from soft_prompt_explorer.analysis.prompts.search import nearest
from soft_prompt_explorer.app.charts.vocabulary_map import token_map, trajectory_map
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.selections import numbers_in
from soft_prompt_explorer.app.server.background import computed
from soft_prompt_explorer.trained_prompts.runs import store

WORDS = 5  # near each token


class DrawnMap(NamedTuple):
    """The map of a vocabulary with virtual tokens on it.

    Attributes
    ----------
    signs : the words to write on it, of `analysis.prompts.projection.landmarks`.
    places : (tokens, dimensions), the tokens' places.
    trusted : the trustworthiness of these places, from 0 to 1.
    """

    on: VocabularyMap
    signs: pd.DataFrame
    places: np.ndarray
    trusted: float


def nearest_words(
    prompts: list[SoftPrompt], vocabulary: Vocabulary, space: Space, report: Report
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The unit vectors that are clustered, and the ids and scores of the words nearest to each."""
    parts = []
    for i, prompt in enumerate(prompts):
        report(i / len(prompts), prompt.name)
        points = points_of(prompt, vocabulary, space)
        parts.append((points, *nearest(vocabulary.mean + points, vocabulary, top_k=WORDS)))
    points, ids, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return points, ids, scores


def drawn_map(vocabulary: Vocabulary, projection: Projection, dimensions: int, points: np.ndarray, report: Report) -> DrawnMap:
    """The map, the words to write on it, the tokens' places, and how far these can be trusted."""
    on = vocabulary_map(vocabulary, projection=projection, dimensions=dimensions, report=report)
    at = place(points, on, vocabulary)
    return DrawnMap(on, landmarks(on, vocabulary), at, trustworthiness(points, at))


def tokens_table(
    prompts: list[SoftPrompt],
    vocabulary: Vocabulary,
    ids: np.ndarray,
    scores: np.ndarray,
    tasks: dict[str, str],
    found: Clustering | None,
    verdicts: pd.DataFrame | None,
) -> pd.DataFrame:
    """A row a virtual token: prompt, position, words, norm, task, and its cluster and verdict where these are there.

    Parameters
    ----------
    ids, scores : of its nearest words, a row a token.
    """
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
    return tokens


def show_map(
    drawn: DrawnMap,
    tokens: pd.DataFrame,
    ids: np.ndarray,
    vocabulary: Vocabulary,
    *,
    by: str,
    projection: str,
    of_what: str,
    chosen: list[int],
) -> list[int]:
    """The map with the tokens on it; answers which are selected, of `chosen` where nothing new was.

    Parameters
    ----------
    tokens : of `tokens_table`.
    ids : of the words nearest to each, the nearest first.
    by : the column that colours the tokens.
    of_what : tells these tokens from any others, for what the session remembers of them.
    """
    link = st.query_params.get("selected", "")
    on, axes = drawn.on, list(AXES[: drawn.on.dimensions])
    tokens = tokens.assign(**dict(zip(axes, drawn.places.T, strict=True)))
    near_ids = np.unique(ids[:, :3])
    near_ids = near_ids[np.isin(near_ids, on.ids)]
    near = pd.DataFrame(on.places[np.searchsorted(on.ids, near_ids)], columns=axes).assign(token=[vocabulary.tokens[i] for i in near_ids])
    first_link = st.session_state.setdefault(f"first-link-{of_what}", link)  # the map is not redrawn for what was selected on it
    figure = token_map(
        tokens, on.places, drawn.signs, near, by=by, selected=set(numbers_in(first_link, len(tokens))) if first_link else None
    )
    alt = f"Map of {len(on.ids):,} words by {projection.upper()} in {on.dimensions} dimensions, with {len(tokens)} virtual tokens of {tokens['prompt'].nunique()} prompts by {by}."
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
        f"{drawn.trusted:.2f} among these virtual tokens{sample}. Scroll to zoom, drag to move; lasso, box or a click selects tokens"
        f"{' in 2-D' if on.dimensions == 3 else ''}. A token near no word stands amid the words that it is least far from."
    )
    if on.dimensions == 2 and "verdict" in tokens and len(set(tokens["prompt"])) == 1:
        widgets.figure_buttons(lambda: figures.token_map(on, drawn.signs, tokens), f"{tokens['prompt'].iloc[0]}-map")
    return chosen


def show_true_neighbours(drawn: DrawnMap, point: np.ndarray, index: int, vocabulary: Vocabulary) -> None:
    """The words nearest to one token in truth and on the map."""
    truth = map_neighbours(point, drawn.places[index], drawn.on, vocabulary)
    both = int(((truth["true_rank"] < 15) & (truth["map_rank"] < 15)).sum())
    st.caption(f"Of its 15 nearest words, {both} are among the 15 nearest on the map.")
    st.dataframe(truth, hide_index=True, alt="The words nearest to this token in truth and on the map.")


def show_training(drawn: DrawnMap, trained: list[str], vocabulary: Vocabulary, content: tuple, space: str, projection: str) -> None:
    """A run, picked among these, as it moved on the map while it was trained."""
    st.subheader("While it was trained")
    name = st.selectbox(
        "Prompt", trained, index=None, key="played", bind="query-params", placeholder="pick one to play its training on the map"
    )
    with widgets.in_words():
        frames = None
        if name is not None:
            frames = computed(
                ("trajectory", name, content, space, projection, drawn.on.dimensions),
                "the training on the map",
                lambda report: played(name, drawn.on, vocabulary, space),
            )
    if frames is not None:
        st.plotly_chart(
            trajectory_map(frames, drawn.on.places, drawn.signs),
            key=f"played-{projection}-{drawn.on.dimensions}",
            config={"scrollZoom": True},
            alt=f"The {frames['position'].nunique()} virtual tokens of {name} on the map, over {frames['step'].max()} steps of training.",
        )
        widgets.download_buttons(frames, f"{name}-on-the-map")


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
