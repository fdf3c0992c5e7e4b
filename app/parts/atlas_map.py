"""Virtual tokens on the map of the vocabulary, as Atlas and Compare draw them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report
from soft_prompt_explorer.analysis.core.words import shown
from soft_prompt_explorer.analysis.figures import charts as figures
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.clusters import Space, points_of
from soft_prompt_explorer.analysis.prompts.projection import (
    AXES,
    NEIGHBOURS,
    Placed,
    Projection,
    VocabularyMap,
    landmarks,
    place,
    trustworthiness,
    vocabulary_map,
)
from soft_prompt_explorer.analysis.prompts.search import nearest
from soft_prompt_explorer.analysis.prompts.shipped import places_of
from soft_prompt_explorer.app.map import payload
from soft_prompt_explorer.app.map.component import show_map
from soft_prompt_explorer.app.map.payload import Sent
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.parts.chosen import Chosen
from soft_prompt_explorer.app.parts.measures import what_is
from soft_prompt_explorer.app.server.background import computed
from soft_prompt_explorer.trained_prompts.runs import store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORDS = 5  # named beside each token


class WordMap(NamedTuple):
    """The map of a vocabulary, and what a browser draws of it."""

    on: VocabularyMap
    words: Sent


@dataclass(frozen=True, eq=False)
class OnMap:
    """Virtual tokens on a map.

    Attributes
    ----------
    points : (n, d), the unit vectors that stand on it, a row a token.
    table : prompt, position, words (the nearest ones, with their cosines), norm and kept (the share of the nearest words that the map keeps beside it).
    """

    points: np.ndarray
    placed: Placed
    table: pd.DataFrame

    @functools.cached_property
    def trusted(self) -> float:
        """The trustworthiness of the tokens' places among themselves."""
        return trustworthiness(self.points, self.placed.places)


def word_map(vocabulary: Vocabulary, projection: Projection) -> WordMap | None:
    """The map of these words, made once; None while it is being made."""

    def make(report: Report) -> WordMap:
        on = vocabulary_map(vocabulary, projection=projection, report=report)
        return WordMap(on, payload.words_sent(on, vocabulary))

    return computed(
        ("map of words", vocabulary.model, str(vocabulary.cache), projection),
        f"the map of {vocabulary.model}'s {len(vocabulary):,} words",
        make,
    )


def on_map(prompts: list[SoftPrompt], vocabulary: Vocabulary, space: Space, on: VocabularyMap) -> OnMap:
    """The virtual tokens of these prompts on the map of their vocabulary."""
    at = places_of(prompts, on, vocabulary, space=space)
    points = np.concatenate([points_of(prompt, vocabulary, space) for prompt in prompts])
    ids, scores = (at.near, at.scores) if len(on.ids) == len(vocabulary) else nearest(vocabulary.mean + points, vocabulary, top_k=WORDS)
    table = pd.DataFrame(
        {
            "prompt": np.repeat([prompt.name for prompt in prompts], [len(prompt) for prompt in prompts]),
            "position": np.concatenate([np.arange(len(prompt)) for prompt in prompts]),
            "words": [
                " · ".join(f"{shown(vocabulary.tokens[i])} {score:.2f}" for i, score in zip(row[:WORDS], values[:WORDS], strict=True))
                for row, values in zip(ids, scores, strict=True)
            ],
            "norm": np.concatenate([prompt.norms for prompt in prompts]),
            "kept": at.kept,
        }
    )
    return OnMap(points, at, table)


def tokens_on(base: WordMap, prompts: list[SoftPrompt], vocabulary: Vocabulary, space: Space, projection: Projection) -> OnMap | None:
    """`on_map`, computed beside the page; None while it is."""
    return computed(
        ("on the map", vocabulary.model, choosing.content_of(prompts), space, projection, str(vocabulary.cache)),
        "the tokens on the map",
        lambda report: on_map(prompts, vocabulary, space, base.on),
    )


def draw(
    base: WordMap, on: OnMap, tokens: pd.DataFrame, chosen: Chosen, *, by: str, vocabulary: Vocabulary, shown_tokens: str | None = None, marked: list[int] | None = None,
    frames: pd.DataFrame | None = None, panes: tuple[str, ...] = ("",), key: str = "on-map",
) -> None:  # fmt: skip
    """The map with these tokens, and how far it can be trusted.

    Parameters
    ----------
    tokens : the table of `on`, with the column `by` that colours them.
    shown_tokens : which of them, as `ranges` writes it; all when None.
    marked : token ids of words to write in any case.
    frames : of `played`; then that training is drawn in the place of the tokens.
    panes : two prompts to draw beside each other.
    """
    places = np.searchsorted(base.on.ids, marked or [])
    rows = [int(row) for row, i in zip(places, marked or [], strict=True) if row < len(base.on.ids) and base.on.ids[row] == i]
    count = "of two prompts, one on either side," if len(panes) == 2 else f"of {tokens['prompt'].nunique()} prompts"
    chosen.turn(key)

    def selected() -> None:
        chosen.choose(st.session_state[key]["selected"] or "", by=key)

    show_map(
        base.words,
        payload.tokens_sent(tokens, on.placed, base.on, panes=list(panes) if len(panes) == 2 else None),
        payload.colours_sent(tokens, by),
        None if frames is None else payload.frames_sent(frames),
        key=key,
        alt=f"Map of {len(base.on.ids):,} words of {vocabulary.model} with {len(tokens)} virtual tokens {count} by {by}. The tables of this page hold the same tokens.",
        selected=chosen.text,
        turn=chosen.turn(key),
        on_selected=selected,
        shown=shown_tokens,
        marked=rows,
        panes=panes,
        height=460 if len(panes) == 2 else 600,
    )
    sample = f" A random {len(base.on.ids):,} of {len(vocabulary):,} words are on it." if len(base.on.ids) < len(vocabulary) else ""
    st.caption(
        f"A map of two dimensions keeps little: on average {NEIGHBOURS * tokens['kept'].mean():.1f} of a token's {NEIGHBOURS} nearest words are beside it here, "
        f"and the paler a token, the fewer. Select one to draw lines to the true ones.{sample}",
        help=f"Trustworthiness (k = 15; 1 is faithful, about 0.5 is chance): {base.on.trustworthiness:.2f} among words, {on.trusted:.2f} among these tokens. "
        "A token stands where most of its nearest words are; one near no word stands amid words that it is least far from.",
    )
    what_is(f"{base.on.projection.upper()} map", "Trustworthiness")


def for_a_paper(base: WordMap, on: OnMap, tokens: pd.DataFrame, vocabulary: Vocabulary, numbers: list[int]) -> Figure:
    """The map as a figure, with these of the tokens, which have verdicts."""
    places = pd.DataFrame(on.placed.places, columns=["x", "y"])
    return figures.token_map(base.on, landmarks(base.on, vocabulary), tokens[["prompt", "position", "verdict"]].join(places).iloc[numbers])


def pick_training(
    trained: list[str], base: WordMap, vocabulary: Vocabulary, content: tuple, space: Space, projection: Projection
) -> pd.DataFrame | None:
    """A run, picked among these, as it moved on the map while it was trained: to be played in the place of the tokens."""
    name = st.selectbox(
        "Play a training", trained, index=None, key="played", bind="query-params", placeholder="pick a prompt to see its tokens move"
    )
    if name is None:
        return None
    with widgets.on_its_own():
        return computed(
            ("trajectory", name, content, space, projection, 2),
            "the training on the map",
            lambda report: played(name, base.on, vocabulary, space),
        )
    return None


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
