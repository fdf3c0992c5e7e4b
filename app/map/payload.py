"""What the map is drawn from, as bytes: arrays and texts packed together, known by their content, and sent to a browser once.

A stranger's text (the name of a prompt, a token) travels as text and is drawn as text.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.core.words import shown
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.projection import Placed, VocabularyMap, label_order
from soft_prompt_explorer.app.charts.theme import CATEGORY_SHAPES, MAP_COLOURS, MAP_SCALE, group_order, marks_of

_ALIGNED = 8
SHAPES = (*CATEGORY_SHAPES, "x", "circle-open")  # in the order of app/map/js/marks.js


class Sent(NamedTuple):
    """Packed bytes and the key that they are known by: what differs has another key."""

    key: str
    packed: bytes


def packed(arrays: dict[str, np.ndarray], **texts: Any) -> Sent:
    """Arrays and texts as app/map/js/held.js reads them: the key (32 letters), the length of the header, the header (JSON), the arrays, each at a multiple of eight."""
    parts, places, at = [], {}, 0
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        places[name] = (array.dtype.newbyteorder("<").str.lstrip("<|"), at, array.size)
        parts.append(raw + bytes(-len(raw) % _ALIGNED))
        at += len(parts[-1])
    header = json.dumps({"arrays": places, "texts": texts}, ensure_ascii=False).encode("utf-8", "replace")
    header += b" " * (-len(header) % _ALIGNED)
    body = len(header).to_bytes(4, "little") + bytes(4) + header + b"".join(parts)
    key = hashlib.sha256(body).hexdigest()[:32]
    return Sent(key, key.encode() + body)


def words_sent(on: VocabularyMap, vocabulary: Vocabulary) -> Sent:
    """The words of a map of two dimensions: places, texts, and which of them to write first."""
    texts = [shown(vocabulary.tokens[i]) for i in on.ids]
    return packed({"places": on.places.astype(np.float32), "order": label_order(on, vocabulary).astype(np.int32)}, texts=texts)


def tokens_sent(tokens: pd.DataFrame, placed: Placed, on: VocabularyMap, *, panes: list[str] | None = None) -> Sent:
    """Virtual tokens with their places and their true neighbours.

    Parameters
    ----------
    tokens : prompt, position and words (for the pointer), a row a token.
    placed : of the same tokens; its words are on the map.
    panes : the prompt that each pane shows; one pane with all of them when None.
    """
    prompts = list(dict.fromkeys(tokens["prompt"]))
    order = {name: i for i, name in enumerate(panes or [])}
    return packed(
        {
            "places": placed.places.astype(np.float32),
            "kept": placed.kept.astype(np.float32),
            "near": np.searchsorted(on.ids, placed.near).astype(np.int32),
            "pane": tokens["prompt"].map(lambda name: order.get(name, 0)).to_numpy(np.uint8),
            "prompt": tokens["prompt"].map(prompts.index).to_numpy(np.uint16),
            "position": tokens["position"].to_numpy(np.int32),
        },
        prompts=prompts,
        texts=tokens["words"].tolist(),
    )


def colours_sent(tokens: pd.DataFrame, by: str) -> Sent:
    """The colour and shape of each token by a column: numbers give a scale, text gives groups."""
    values = tokens[by]
    if pd.api.types.is_float_dtype(values):
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        steps = len(MAP_SCALE["light"])
        share = ((values - low) / (high - low if high > low else 1.0)).fillna(0.0).clip(0.0, 1.0).to_numpy()
        arrays = {
            "colour": (share * (steps - 1)).round().astype(np.uint8),
            "shape": np.zeros(len(tokens), np.uint8),
            "group": np.zeros(len(tokens), np.uint16),
            "value": values.to_numpy(np.float32),
        }
        return packed(arrays, by=by, palette=MAP_SCALE, scale={"name": by, "low": low, "high": high}, groups=[])
    groups = sorted(set(values), key=group_order)
    marks = marks_of(groups)
    colours = list(MAP_COLOURS)
    listed = [
        {
            "name": group,
            "colour": colours.index(marks[group][0]),
            "shape": SHAPES.index(marks[group][1]),
        }
        for group in groups
    ]
    number = values.map({group: i for i, group in enumerate(groups)}).to_numpy(np.uint16)
    arrays = {
        "colour": np.array([group["colour"] for group in listed], np.uint8)[number],
        "shape": np.array([group["shape"] for group in listed], np.uint8)[number],
        "group": number,
    }
    palette = {theme: [MAP_COLOURS[colour][theme] for colour in colours] for theme in ("light", "dark")}
    return packed(arrays, by=by, palette=palette, scale=None, groups=listed)


def frames_sent(frames: pd.DataFrame) -> Sent:
    """A training on the map: step, position, x, y and word; each step has the same positions."""
    frames = frames.sort_values(["step", "position"])
    words = list(dict.fromkeys(frames["word"]))
    number = frames["word"].map({word: i for i, word in enumerate(words)})
    return packed(
        {
            "places": frames[["x", "y"]].to_numpy(np.float32),
            "steps": np.unique(frames["step"]).astype(np.int32),
            "word": number.to_numpy(np.int32),
        },
        words=[shown(word) for word in words],
    )
