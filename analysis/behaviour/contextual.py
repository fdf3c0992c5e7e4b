"""Contextual neighbours: what the model makes of a virtual token inside the prompt, beside what it makes of ordinary words in ordinary sentences.

A trained row may be near to no row of the vocabulary while its state after some layers is near to the states of words there. (Of visual tokens: Krojer et al.
2026, "LatentLens: revealing highly interpretable visual tokens in LLMs", arXiv 2602.00462.) The sentences are those of the tasks that ship. A state's nearest one is found in any case, so it is told beside random prompts: displaced from
the same start by the same lengths, in directions of no preference and in directions from word to word, of which the larger p-value counts. A token that begins
as a word keeps its state near to that word's, so a reading that the start has too is an echo.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.behaviour.inside import hidden_states, layers_of, states_of_many
from soft_prompt_explorer.analysis.behaviour.lens_null import displaced, displacement_of
from soft_prompt_explorer.analysis.behaviour.unrelated import check_can_be_put, evenly_spaced
from soft_prompt_explorer.analysis.core.discoveries import q_values
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import cache_folder
from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel, weights_told
from soft_prompt_explorer.analysis.prompts.search import unit_rows
from soft_prompt_explorer.analysis.tasks.shipped import TASKS

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

COLUMNS = ["prompt", "position", "layer", "rank", "token_id", "token", "context", "score", "p", "q", "echo"]
OF_SENTENCES = ("topic", "formal", "sentiment")  # tasks whose examples are sentences; the small ones come whole
LAYERS = 5  # evenly spaced, the last one among them
MOST_STATES = 10_000  # at each layer
MOST_BYTES = 58_000_000  # of all states as they are kept: 10,000 at five layers 576 wide
SAME_TOKEN = 10  # states of one token at most, so that commas and articles do not fill the index
LONGEST = 64  # tokens of a sentence that are read
SINK = 5  # times the median length of a layer's states: longer are those that all positions attend to whatever they say (Xiao et al. 2023, arXiv 2309.17453)
DRAWS = 500  # random prompts of each kind
SEED = 20_267
LEVEL = 0.05
CONTEXT = 40  # characters that are told of a sentence
_TEXTS_AT_ONCE, _PROMPTS_AT_ONCE = 16, 32
_VERSION = 1  # raise it when the same model and sentences would be kept otherwise
_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, eq=False)
class Index:
    """States of words in sentences.

    Attributes
    ----------
    key : names its content: the model, the sentences and how they were chosen.
    layers : after which the states are, from 1 to the number of layers.
    means : (layers, d) float32, the mean state after each.
    states : (layers, m, d) float16, unit vectors after the mean is taken off.
    token_ids : (m,) int64, the token that stands there.
    ids : (t,) int32, the sentences' tokens, one sentence after another.
    places : (m, 3) int32, of each state where its token, its sentence's first token and the end of its sentence are in `ids`.
    """

    key: str
    layers: tuple[int, ...]
    means: np.ndarray
    states: np.ndarray
    token_ids: np.ndarray
    ids: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.token_ids)

    def context(self, state: int, vocabulary: Vocabulary) -> str:
        """The words around a state's token in its sentence, about 40 printable characters."""
        at, first, end = self.places[state].tolist()
        left, word, right = (
            "".join(vocabulary.tokens[i] for i in self.ids[part]) for part in (slice(first, at), slice(at, at + 1), slice(at + 1, end))
        )
        return around(left, word, right)

    def units(self, states: np.ndarray) -> np.ndarray:
        """States (layers, …, d) with their layer's mean taken off, of length 1, float64."""
        means = self.means.astype(np.float64).reshape(len(self.layers), *[1] * (states.ndim - 2), -1)
        return unit_rows(states.astype(np.float64) - means)


def around(left: str, word: str, right: str, most: int = CONTEXT) -> str:
    """A word with what stands on both sides, cut between words where it is longer than `most` characters.

    >>> around("Nobody who saw it could say why the", " film", " was so long that half of us had left.", 24)
    '… why the film was so…'
    """
    room = max(most - len(word), 0)
    before = min(len(left), max(room // 2, room - len(right)))
    after = min(len(right), room - before)
    if before < len(left):
        left = f"… {left[len(left) - before :].partition(' ')[2]}".rstrip() if before else "…"
    if after < len(right):
        right = f"{right[:after].rpartition(' ')[0]}…"
    return f"{left}{word}{right}"


def shipped_sentences() -> list[str]:
    """The sentences among the tasks' training examples, in an order drawn once and for all."""
    rng, sentences = np.random.default_rng(SEED), []
    for name in OF_SENTENCES:
        task = TASKS[name]
        table = task.examples("train", template="{input}")
        texts = table["text"].tolist() + ([] if task.labels else table["target"].str.strip().tolist())
        sentences += [texts[i] for i in rng.permutation(len(texts))]
    return [each for each in dict.fromkeys(sentences) if each]


def index_of(
    language_model: LanguageModel, vocabulary: Vocabulary, *, sentences: Sequence[str] | None = None, report: Report = no_report
) -> Index:
    """States of up to 10,000 words in sentences at five layers, looked at once (some 50 CPU seconds for the embedded model) and kept: 58 MB at most.

    The first token of each sentence is left out, for all positions attend to it whatever it says; so are the few others with such a state, special tokens and,
    of the same token, all but ten.

    Parameters
    ----------
    vocabulary : the model's own.
    sentences : those that ship when None; of each the first 64 tokens are read.

    Raises
    ------
    InputError
        The sentences hold no word to look at, or the model's layers were not found.
    """
    model, tokenizer = language_model
    layers = tuple(layer for layer in evenly_spaced(len(layers_of(model)), LAYERS) if layer)
    texts = shipped_sentences() if sentences is None else list(sentences)
    most = min(MOST_STATES, MOST_BYTES // (2 * len(layers) * vocabulary.width))
    told = hashlib.sha256(repr((layers, most, SAME_TOKEN, LONGEST, SINK)).encode())
    for strings in (texts, vocabulary.tokens):
        told.update("\0".join(strings).encode("utf-8", "replace"))
    for piece in weights_told(model):
        told.update(piece)
    key = told.hexdigest()[:32]

    def make() -> dict[str, np.ndarray]:
        return _looked_at(language_model, vocabulary, tokenizer(texts).input_ids, layers, most, report)

    kept = KeptArrays(cache_folder() / "contextual", key, _VERSION, shapes={"states": (len(layers), None, vocabulary.width)}).get(make)
    return Index(key, layers, **kept)


def _looked_at(
    language_model: LanguageModel, vocabulary: Vocabulary, encoded: list[list[int]], layers: tuple[int, ...], most: int, report: Report
) -> dict[str, np.ndarray]:
    chosen, at = _chosen(encoded, vocabulary, most)
    if not at:
        raise InputError("The sentences hold no word whose state could be kept; give some of two words or more.")
    starts = np.cumsum([0, *map(len, chosen)])
    states = np.empty((len(layers), len(at), vocabulary.width), dtype=np.float32)
    of_sentence: list[list[int]] = [[] for _ in chosen]
    for state, (sentence, _) in enumerate(at):
        of_sentence[sentence].append(state)
    order = sorted(range(len(chosen)), key=lambda sentence: len(chosen[sentence]))
    for begin in range(0, len(order), _TEXTS_AT_ONCE):
        report(begin / len(order), f"looking at words in sentences with {vocabulary.model}")
        some = order[begin : begin + _TEXTS_AT_ONCE]
        rows = np.zeros((len(some), len(chosen[some[-1]]), vocabulary.width), dtype=np.float32)
        for i, sentence in enumerate(some):  # what is filled up behind a sentence is seen by none of its tokens
            rows[i, : len(chosen[sentence])] = vocabulary.embeddings[chosen[sentence]]
        seen = states_of_many(rows, language_model.model, layers).numpy()
        for i, sentence in enumerate(some):
            for state in of_sentence[sentence]:
                states[:, state] = seen[:, i, at[state][1]]
    lengths = np.linalg.norm(states, axis=2)
    words = (lengths <= SINK * np.median(lengths, axis=1, keepdims=True)).all(axis=0)
    states, at = states[:, words], [each for each, is_word in zip(at, words, strict=True) if is_word]
    means = states.mean(axis=1, dtype=np.float64).astype(np.float32)
    units = np.stack([unit_rows(states[i] - means[i]).astype(np.float16) for i in range(len(layers))])
    report(1.0, "ready")
    places = [(starts[sentence] + place, starts[sentence], starts[sentence + 1]) for sentence, place in at]
    return {
        "means": means,
        "states": units,
        "token_ids": np.array([chosen[sentence][place] for sentence, place in at], dtype=np.int64),
        "ids": np.concatenate(chosen).astype(np.int32),
        "places": np.array(places, dtype=np.int32),
    }


def _chosen(encoded: list[list[int]], vocabulary: Vocabulary, most: int) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """The sentences that are read, and of each state which of them it is of and at which place."""
    seen: Counter[int] = Counter()
    chosen: list[list[int]] = []
    at: list[tuple[int, int]] = []
    for whole in encoded:
        ids, before = whole[:LONGEST], len(at)
        for place, token in enumerate(ids[1:], start=1):
            if len(at) < most and seen[token] < SAME_TOKEN and not vocabulary.special[token]:
                seen[token] += 1
                at.append((len(chosen), place))
        if len(at) > before:
            chosen.append(ids)
        if len(at) == most:
            break
    return chosen, at


def nearest_states(units: np.ndarray, index: Index, layer: int, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest states of an index, exactly; ties go to the one that comes first in it.

    Parameters
    ----------
    units : (n, d) float64, of `Index.units`.
    layer : a place among `index.layers`.

    Returns
    -------
    states, scores : (n, k) int64 and float64, best first: places in the index, and cosines with its vectors as they are kept.
    """
    rows = index.states[layer].astype(np.float32)
    rough = units.astype(np.float32) @ rows.T
    k = min(top_k, len(rows))
    # As in `prompts.search`: what float32 may have put wrong is scored again, by sums along each row, so that equal states score the same.
    slack = 4 * _EPSILON * (units.shape[1] / 2 + 4)
    found, scores = np.empty((len(units), k), dtype=np.int64), np.empty((len(units), k))
    for i, (unit, row) in enumerate(zip(units, rough, strict=True)):
        candidates = np.flatnonzero(row >= np.partition(row, len(row) - k)[len(row) - k] - slack)
        exact = (rows[candidates].astype(np.float64) * unit).sum(axis=1)
        best = np.lexsort((candidates, -exact))[:k]
        found[i], scores[i] = candidates[best], exact[best]
    return found, scores


def contextual_neighbours(
    prompt: SoftPrompt,
    language_model: LanguageModel,
    vocabulary: Vocabulary,
    *,
    top_k: int = 10,
    index: Index | None = None,
    draws: int = DRAWS,
    report: Report = no_report,
) -> pd.DataFrame:
    """The words in sentences whose states are nearest to those of each virtual token, layer by layer, beside random prompts.

    The first call of a prompt looks at those, some 35 CPU seconds for ten tokens before the embedded model; what came of it is kept.

    Parameters
    ----------
    vocabulary : the model's own.
    index : of `index_of`, which makes or reads it when None.
    draws : random prompts of each of two kinds.

    Returns
    -------
    `top_k` rows a position and layer: prompt, position, layer, rank, token_id, token, context (some words around it in its sentence), score (cosine once the
    layer's mean is taken off both), p (the share of random prompts that score as high for their nearest word at the same layer and position, (1 + #) / (1 + draws), of two kinds the larger), q
    (Benjamini and Hochberg 1995, over the prompt's positions and layers), echo (the start's state there has the same nearest word; missing where the start is
    unknown). p, q and echo are of the nearest word, and repeat on the rows of the others.

    Raises
    ------
    InputError
        No neighbour is asked for, or the prompt does not fit the model or the vocabulary.
    """
    if top_k < 1:
        raise InputError(f"At least one neighbour has to be asked for, not {top_k}.")
    prompt.check_width(vocabulary.width, vocabulary.model)
    check_can_be_put(prompt, language_model)
    index = index or index_of(language_model, vocabulary, report=part(report, 0, 2))
    layers, n = len(index.layers), len(prompt)
    units = states_at(prompt.embeddings, language_model, index)
    found = [nearest_states(units[i], index, i, top_k) for i in range(layers)]
    ids = np.stack([index.token_ids[states] for states, _ in found])  # (layers, n, k)
    scores = np.stack([each for _, each in found])
    p = np.ones((layers, n))
    if prompt.initial is None or not np.array_equal(prompt.embeddings, prompt.initial):
        null = _null(prompt, language_model, vocabulary, index, draws, part(report, 1, 2))
        p = ((1 + (null >= scores[:, :, 0]).sum(axis=1)) / (1 + draws)).max(axis=0)
    q = q_values(p)
    echo: np.ndarray = np.full((layers, n), None, dtype=object)
    if prompt.initial is not None:
        start = states_at(prompt.initial, language_model, index)
        echo = np.stack([index.token_ids[nearest_states(start[i], index, i, 1)[0][:, 0]] == ids[i, :, 0] for i in range(layers)])
    report(1.0, "ready")
    rows = []
    for position, layer in np.ndindex(n, layers):
        told = (p[layer, position], q[layer, position], echo[layer, position])
        for rank, state in enumerate(found[layer][0][position].tolist()):
            token = int(ids[layer, position, rank])
            word = (token, vocabulary.tokens[token], index.context(state, vocabulary), scores[layer, position, rank])
            rows.append((prompt.name, position, index.layers[layer], rank, *word, *told))
    return pd.DataFrame(rows, columns=COLUMNS).astype({"echo": "boolean"})


def reads(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of `contextual_neighbours` that read as a word beyond chance (q < 0.05) and are no echo; where the start is unknown, all that are beyond chance."""
    return table[(table["rank"] == 0) & (table["q"] < LEVEL) & ~table["echo"].fillna(False).astype(bool)]


def sentence(table: pd.DataFrame) -> str:
    """How many tokens of each layer read as a word, for a table of one prompt."""
    read, n = reads(table), table["position"].nunique()
    by_layer = [f"{(read['layer'] == layer).sum()} after layer {layer}" for layer in table["layer"].unique()]
    start = "; whether they began so is unknown" if table["echo"].isna().any() else " and are no echo of the start"
    return f"{table['prompt'].iloc[0]}: {read['position'].nunique()} of {n} tokens read as a word in context beyond chance at some layer{start} ({', '.join(by_layer)})."


def states_at(rows: np.ndarray, language_model: LanguageModel, index: Index) -> np.ndarray:
    """The states of (n, d) virtual tokens after the layers of an index as it compares them, (layers, n, d) float64."""
    return index.units(hidden_states(rows, language_model.model)[list(index.layers)].numpy())


def _null(
    prompt: SoftPrompt, language_model: LanguageModel, vocabulary: Vocabulary, index: Index, draws: int, report: Report
) -> np.ndarray:
    """The best score at each layer and position of random prompts of two kinds, (2, draws, layers, n) float32, drawn once and kept."""
    start, lengths, like = displacement_of(prompt, vocabulary, SEED)
    told = hashlib.sha256(index.key.encode() + repr((start.shape, draws, SEED, prompt.initial is None)).encode())
    told.update(start.tobytes() + lengths.astype(np.float32).tobytes())

    def make() -> dict[str, np.ndarray]:
        best = np.empty((2, draws, len(index.layers), len(start)), dtype=np.float32)
        rows = [torch.from_numpy(states.astype(np.float32)) for states in index.states]
        for kind, of_kind in enumerate((None, like)):
            rng = np.random.default_rng([SEED, kind])
            for begin in range(0, draws, _PROMPTS_AT_ONCE):
                count = min(_PROMPTS_AT_ONCE, draws - begin)
                report((kind * draws + begin) / (2 * draws), f"{prompt.name}: looking at random prompts")
                states = states_of_many(displaced(start, lengths, count, rng, of_kind), language_model.model, index.layers)
                units = torch.from_numpy(index.units(states.numpy()).astype(np.float32))
                for i, of_layer in enumerate(rows):
                    best[kind, begin : begin + count, i] = (units[i].flatten(0, 1) @ of_layer.T).amax(1).reshape(count, -1).numpy()
        return {"best": best}

    return KeptArrays(_folder_of_null(), told.hexdigest()[:32], _VERSION).get(make)["best"]


def _folder_of_null() -> Path:
    return cache_folder() / "contextual-null"
