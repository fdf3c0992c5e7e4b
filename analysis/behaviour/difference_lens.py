"""The difference lens: the words that an adapter pushes the model towards on texts that have nothing to do with its task.

The mean of the model's last states over the texts, with the adapter less without it, is read through the output layer as every state is. A word's score is what
that change does to its log-probability, to first order: its logit's change less the change that all words have in common. Words that come up whatever an adapter has learned are told from those that this one pushes by null adapters (`lens_null`): a word's z is its score less their mean, over their
spread; its p-value is the share of null adapters whose own strongest word stands out as far (max-T: Westfall and Young 1993, section 2.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.behaviour.lens_null import DRAWS, Looked, look
from soft_prompt_explorer.analysis.behaviour.others import AtHand
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
from soft_prompt_explorer.analysis.core.discoveries import q_values
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.twins import twins_of

COLUMNS = ["adapter", "path", "layer", "rank", "token_id", "token", "score", "z", "q", "specific_score", "twin_z", "twin_p", "against"]
TOP = 20
LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Pushed:
    """How far an adapter pushes every word at one layer.

    Attributes
    ----------
    scores : (V,) float64, the change of each word's log-probability to first order, in nats before any scaling of the logits.
    z : (V,) float64, beside the null adapters; of several kinds of them the smallest.
    p : (V,) float64, the share of null adapters whose own strongest word stands out as far, (1 + #) / (1 + draws); of several kinds the largest.
    null_z : (kinds, draws) float64, how far the strongest word of each null adapter stands out among the others of its kind.
    """

    scores: np.ndarray
    z: np.ndarray
    p: np.ndarray
    null_z: np.ndarray


def pushed(change: np.ndarray, null_changes: np.ndarray, output: np.ndarray, *, allowed: np.ndarray | None = None) -> Pushed:
    """Every word's score, z and p from one change of the state and those of null adapters.

    Parameters
    ----------
    change : (d,), the mean change over the texts.
    null_changes : (kinds, draws, d).
    output : (V, d), the output layer's rows less what all words have in common; see `output_rows`.
    allowed : (V,) bool, the words that take part; all when None. Of the others z is −inf and p is 1.
    """
    return _pushed(change, _null_scores(null_changes, output, allowed), output, allowed)


class _NullScores(NamedTuple):
    """Of one kind of null adapters: the mean and the spread of each word's scores (V,), and how far each one's strongest word stands out among the others."""

    mean: np.ndarray
    spread: np.ndarray
    strongest: np.ndarray


def _pushed(change: np.ndarray, nulls: Sequence[_NullScores], output: np.ndarray, allowed: np.ndarray | None) -> Pushed:
    scores = output @ change.astype(np.float32)
    z, p = np.full(len(output), np.inf), np.zeros(len(output))
    for null in nulls:
        n = len(null.strongest)
        kind_z = (scores - null.mean) / (null.spread * np.sqrt(1 + 1 / n))
        # Ties with a null adapter count against the word.
        kind_p = (1 + n - np.searchsorted(np.sort(null.strongest), kind_z, side="left")) / (1 + n)
        z, p = np.minimum(z, kind_z), np.maximum(p, kind_p)
    if allowed is not None:
        z, p = np.where(allowed, z, -np.inf), np.where(allowed, p, 1.0)
    return Pushed(scores.astype(np.float64), z, p, np.array([null.strongest for null in nulls]))


def _null_scores(null_changes: np.ndarray, output: np.ndarray, allowed: np.ndarray | None) -> list[_NullScores]:
    """Of each kind of null adapters; each of them is left out of its own mean and spread."""
    found = []
    for changes in null_changes:
        scores = changes.astype(np.float32) @ output.T
        n = len(scores)
        mean, spread = scores.mean(0, dtype=np.float64), scores.std(0, ddof=1, dtype=np.float64)
        spread = np.maximum(spread, np.finfo(np.float32).tiny)
        strongest = np.empty(n)
        for i, row in enumerate(scores):
            off = (row - mean) / spread
            # The mean and the variance without draw i, by those with it.
            left = np.maximum((n - 1) / (n - 2) - n / ((n - 1) * (n - 2)) * off**2, 1e-12)
            each = off * (n / (n - 1)) / np.sqrt(left * (1 + 1 / (n - 1)))
            strongest[i] = each.max() if allowed is None else each[allowed].max()
        found.append(_NullScores(mean, spread, strongest))
    return found


def lens(
    adapters: Sequence[SoftPrompt | LoraAdapter],
    watch: Watch,
    vocabulary: Vocabulary,
    *,
    paths: Sequence[str] | None = None,
    layer: int | None = None,
    top_k: int = TOP,
    others: AtHand | None = None,
    draws: int = DRAWS,
    report: Report = no_report,
) -> pd.DataFrame:
    """The words that each adapter pushes the model towards, the strongest first.

    Parameters
    ----------
    layer : after which the state is read; the last one when None. One of `watch.layers`.
    others : what adapters at hand change; the mean direction of those of other tasks is taken off for `specific_score`.

    Returns
    -------
    `top_k` rows an adapter: adapter, path, layer, rank, token_id, token, score (the change of the log-probability to first order), z (beside null adapters), q
    (Benjamini and Hochberg over these words, of p-values that already count for the whole vocabulary), specific_score (what the others share taken off too;
    missing without them), twin_z and twin_p (the same word in the prompt's twins, beside the same null adapters: the largest z and the smallest p; missing where no
    twin is known), against (the start, no prompt or the bare model).

    Raises
    ------
    InputError
        The layer is not one that is looked at, or as `look`.
    """
    at = at_layer(watch, layer)
    tables = []
    for i, adapter in enumerate(adapters):
        looked = look(adapter, watch, vocabulary, draws=draws, report=part(report, i, len(adapters)))
        output, twins = output_rows(watch, looked.common), twin_changes(adapter, watch)
        of_others = None if others is None else others.beside(adapter).changes
        table = words_of(looked, watch, vocabulary, at, output, twins, top_k=top_k, others=of_others)
        tables.append(table.assign(adapter=adapter.name, path=paths[i] if paths else "")[COLUMNS])
    report(1.0, "ready")
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)


def twin_changes(adapter: SoftPrompt | LoraAdapter, watch: Watch) -> np.ndarray:
    """What a prompt's twins change, (m, layers, d): the mean over the texts, less that of the start; of none where no twin is known.

    A twin was trained on answers dealt out anew among the examples. What it is pushed towards as well is the form of an answer.
    """
    twins = twins_of([adapter]) if isinstance(adapter, SoftPrompt) else []
    if not twins or (start := twins[0].initial) is None:
        return np.empty((0, len(watch.layers), watch.language_model.width))
    *seen, without = watch.of_rows(np.stack([*(twin.embeddings for twin in twins), start]))
    return np.array([(one.states - without.states).mean(0) for one in seen])


def words_of(
    looked: Looked,
    watch: Watch,
    vocabulary: Vocabulary,
    at: int,
    output: np.ndarray,
    twins: np.ndarray,
    *,
    top_k: int = TOP,
    others: np.ndarray | None = None,
) -> pd.DataFrame:
    """The rows of `lens` of what was looked at, at one place among `watch.layers`, without the adapter's name and path.

    Parameters
    ----------
    twins : of `twin_changes`.
    others : (m, layers, d), the mean change of each other task's adapters.
    """
    allowed = ~vocabulary.special
    nulls = _null_scores(looked.null_changes[:, :, at], output, allowed)
    found = _pushed(looked.change.mean(0)[at], nulls, output, allowed)
    of_twins = [_pushed(change[at], nulls, output, allowed) for change in twins]
    ids = np.argsort(-found.z, kind="stable")[:top_k]
    specific = np.full(len(ids), np.nan)
    if others is not None and len(others):
        direction = others[:, at].mean(0)
        direction = direction / np.linalg.norm(direction)
        change = looked.change.mean(0)[at]
        specific = output[ids] @ (change - (change @ direction) * direction)
    return pd.DataFrame(
        {
            "layer": watch.layers[at], "rank": np.arange(len(ids)), "token_id": ids, "token": [vocabulary.tokens[i] for i in ids],
            "score": found.scores[ids], "z": found.z[ids], "q": q_values(found.p[ids]), "specific_score": specific,
            "twin_z": np.max([twin.z[ids] for twin in of_twins], axis=0) if of_twins else np.nan,
            "twin_p": np.min([twin.p[ids] for twin in of_twins], axis=0) if of_twins else np.nan,
            "against": looked.against,
        }
    )  # fmt: skip


def at_layer(watch: Watch, layer: int | None) -> int:
    """Where a layer stands among those that are looked at; the last one for None.

    Raises
    ------
    InputError
        It is not one of them.
    """
    if layer is None:
        return len(watch.layers) - 1
    if layer not in watch.layers:
        raise InputError(f"The lens looks after the layers {', '.join(map(str, watch.layers))}, not after {layer}; choose one of these.")
    return watch.layers.index(layer)


def output_rows(watch: Watch, common: np.ndarray) -> np.ndarray:
    """The output layer's rows less what a change does to all words in common, (V, d) float32: the gradients of the words' log-probabilities.

    Parameters
    ----------
    common : (d,), see `Looked`.
    """
    return watch.language_model.model.get_output_embeddings().weight.detach().float().cpu().numpy() - common
