"""Does the reading explain the behaviour? What the model does with a prompt that has been changed, beside what it does with the whole one.

A word near a virtual token, or a direction that names the answers, is a correlation until the model has been asked. Each intervention changes the prompt
in one way, the same examples are asked again, and the change is given with a paired interval: the same resamples of the examples for both.

That taking a direction out matters says nothing while other directions of the same size would matter as much (Elazar et al. 2021; Makelov et al. 2023). So where a
direction seems to matter, its effect is ranked among those of directions that know nothing of the task and move the tokens as far. And a direction that acts
is not yet its words: these are tested by the part of the direction that they span.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.directions import TaskDirection
from soft_prompt_explorer.analysis.prompts.search import allowed_tokens, nearest, unit_rows
from soft_prompt_explorer.analysis.prompts.verdicts import displacements

DRAWS = 5  # of each control that is drawn at random: an interval of its own, and not most of the time
PATH = (0.25, 0.5, 0.75, 1.25, 1.5)  # t of P⁰ + t (P − P⁰)
PRINCIPAL = 1  # leading principal directions of the displacements
MOST_TOKENS = 200
RANKED = (
    199  # directions of the same size that an effect is ranked among: p is 0.005 at best, which can bear a correction over many prompts
)
WORD_DIRECTIONS = 16  # that a task's words span, at most: as many words as the width span everything
SEED = 20_213
WHOLE, NO_PROMPT, INITIAL, WORDS = "whole prompt", "no prompt", "initial values", "nearest words"
DIRECTION_OUT, DIRECTION_ALONE = "task direction out", "task direction alone"
RANDOM_OUT, RANDOM_ALONE = "random direction out", "random direction alone"
TWIN = "twin on shuffled answers"
PART_OUT, PART_ALONE, REST_ALONE = "words' part out", "words' part alone", "direction without words alone"
Group = Literal[
    "the whole prompt changed",
    "the task direction",
    "its words' part, and the rest",
    "principal directions",
    "random directions of the same size",
    "the path from start to end",
    "one token",
]


@dataclass(frozen=True)
class Intervention:
    """One way to change a prompt.

    Attributes
    ----------
    group : what it belongs to in a chart; None of the prompt as it is.
    control : the name of the one whose result it is compared with: of a direction random ones of the same size, of words those that were there at the start.
    judged : whether the verdict rests on it. Such are a tenth of all that is asked.
    seed : of the directions that its effect is ranked among; None where it is not ranked.
    """

    name: str
    says: str
    group: Group | None
    control: str | None = None
    judged: bool = False
    seed: int | None = None


INTERVENTIONS: dict[str, Intervention] = {
    each.name: each
    for each in (
        Intervention(WHOLE, "the prompt as it was trained", None, judged=True),
        Intervention(NO_PROMPT, "the bare model", "the whole prompt changed", judged=True),
        Intervention(INITIAL, "every token at the value that it started from", "the whole prompt changed", judged=True),
        Intervention(
            WORDS,
            "every token replaced by its nearest word: the prompt that could be written down (Khashabi et al. 2022)",
            "the whole prompt changed",
            control=INITIAL,
            judged=True,
        ),
        Intervention(
            TWIN,
            "the prompt trained from the same start on answers dealt out anew: what it does as well is the form of an answer",
            "the whole prompt changed",
            judged=True,
        ),
        Intervention(
            DIRECTION_OUT,
            "the task direction taken out of what training added to each token",
            "the task direction",
            control=RANDOM_OUT,
            judged=True,
            seed=5,
        ),
        Intervention(
            DIRECTION_ALONE,
            "the initial values, and of what training added the task direction alone",
            "the task direction",
            control=RANDOM_ALONE,
            judged=True,
            seed=6,
        ),
        Intervention(
            PART_OUT,
            "of the task direction the part that the task's words span, taken out of each token",
            "its words' part, and the rest",
            judged=True,
            seed=7,
        ),
        Intervention(
            PART_ALONE,
            "the initial values, and of the task direction only the part that the task's words span",
            "its words' part, and the rest",
            judged=True,
            seed=8,
        ),
        Intervention(
            REST_ALONE,
            "the initial values, and the task direction without the part that the task's words span",
            "its words' part, and the rest",
            judged=True,
        ),
        Intervention("path", "initial values + t times what training added", "the path from start to end"),
        Intervention("token dropped", "the prompt without one token", "one token"),
        Intervention("token at its nearest word", "one token replaced by its nearest word", "one token"),
        Intervention("token at its initial value", "one token put back to where it started", "one token"),
        Intervention("token at the mean", "one token replaced by the mean of the vocabulary", "one token"),
        Intervention("order shuffled", "the same tokens in a random order", "the whole prompt changed"),
        Intervention("random words", "as many random words", "the whole prompt changed"),
        Intervention(
            RANDOM_OUT,
            "what was taken out with the task direction, taken out along random directions",
            "random directions of the same size",
            judged=True,
        ),
        Intervention(
            RANDOM_ALONE,
            "the initial values moved along random directions, as far as along the task direction",
            "random directions of the same size",
            judged=True,
        ),
        Intervention(
            "principal direction out",
            "a leading principal direction of what training added, taken out",
            "principal directions",
            control="random direction out, principal",
        ),
        Intervention(
            "principal direction alone",
            "the initial values, and that principal direction alone",
            "principal directions",
            control="random direction alone, principal",
        ),
        Intervention(
            "random direction out, principal",
            "what was taken out with that principal direction, taken out along random directions",
            "random directions of the same size",
        ),
        Intervention(
            "random direction alone, principal",
            "the initial values moved along random directions, as far as along that principal direction",
            "random directions of the same size",
        ),
    )
}
JUDGED_BY = frozenset(each.name for each in INTERVENTIONS.values() if each.judged)
CONTROLS = {each.name: each.control for each in INTERVENTIONS.values() if each.control is not None}


@dataclass(frozen=True, eq=False)
class Change:
    """A prompt that was changed in one way.

    Attributes
    ----------
    name : a key of `INTERVENTIONS`.
    prompts : the changed prompt, (m, d) float32, or None where nothing of it is left; several where it is drawn at random.
    position : the virtual token that is changed, where it is one.
    amount : t of a path, or the number of a principal direction, from 1.
    """

    name: str
    prompts: tuple[np.ndarray | None, ...]
    position: int | None = None
    amount: float | None = None


def discretised(prompt: SoftPrompt, vocabulary: Vocabulary) -> SoftPrompt:
    """The prompt with each virtual token replaced by its nearest word (Khashabi et al. 2022, section 3), itself a prompt that can be written down."""
    ids, _ = nearest(prompt.embeddings, vocabulary, top_k=1)
    return replace(prompt, name=f"{prompt.name}, words", embeddings=np.array(vocabulary.embeddings[ids[:, 0]], dtype=np.float32))


def interventions(
    prompt: SoftPrompt, vocabulary: Vocabulary, *, direction: TaskDirection | None = None, twins: Sequence[SoftPrompt] = ()
) -> Iterator[Change]:
    """Every way in which a prompt is changed, the most telling first. What is drawn at random is the same for the same prompt.

    What needs initial values is left out where they are unknown, and what takes a direction out, where nothing moved.

    Parameters
    ----------
    direction : the prompt's own task direction, or that of all prompts of its task; None leaves it out.
    twins : trained on answers dealt out anew from the same start (see `analysis.prompts.twins`).

    Raises
    ------
    InputError
        The prompt is not as wide as the vocabulary, has more than 200 tokens, or its rows are no input embeddings.
    """
    prompt.check_is_embeddings()
    prompt.check_width(vocabulary.width, vocabulary.model)
    check_can_be_changed(prompt)
    rows = np.asarray(prompt.embeddings, dtype=np.float32)
    words = discretised(prompt, vocabulary).embeddings
    start = None if prompt.initial is None else np.asarray(prompt.initial, dtype=np.float32)
    rng = np.random.default_rng([SEED, *hashlib.sha256(rows.tobytes()).digest()[:8]])
    yield Change(WHOLE, (rows,))
    yield Change(NO_PROMPT, (None,))
    if start is not None:
        yield Change(INITIAL, (start,))
    yield Change(WORDS, (words,))
    if twins:
        yield Change(TWIN, tuple(float32_rows(twin.embeddings) for twin in twins))
    delta = None if start is None else displacements(prompt)
    if delta is not None and not delta.any():
        delta = None
    if start is not None and delta is not None and direction is not None:
        unit = unit_rows(direction.mean)
        yield from _along(delta, start, unit, rng, out=DIRECTION_OUT, alone=DIRECTION_ALONE)
        if len(direction.word_ids):
            end, part = start + delta, words_part(direction, vocabulary)
            along = (delta @ unit)[:, None]
            yield Change(PART_OUT, (float32_rows(end - along * part),))
            yield Change(PART_ALONE, (float32_rows(start + along * part),))
            yield Change(REST_ALONE, (float32_rows(start + along * (unit - part)),))
    if start is not None and delta is not None:
        yield from (Change("path", (float32_rows(start + t * delta),), amount=t) for t in PATH)
    replacements = {"token at its nearest word": words, "token at its initial value": start, "token at the mean": vocabulary.mean}
    for position in range(len(rows)):
        yield Change("token dropped", (_without(rows, position),), position)
        for name, values in replacements.items():
            if values is not None:
                changed = rows.copy()
                changed[position] = values[position] if values.ndim == 2 else values
                yield Change(name, (changed,), position)
    if len(rows) > 1:
        yield Change("order shuffled", tuple(rows[_derangement(len(rows), rng)] for _ in range(DRAWS)))
    whole_words = np.flatnonzero(allowed_tokens(vocabulary, exclude_special=True, whole_words=True))
    drawn = [vocabulary.embeddings[np.sort(rng.choice(whole_words, size=len(rows)))] for _ in range(DRAWS)]
    yield Change("random words", tuple(values.astype(np.float32) for values in drawn))
    if start is not None and delta is not None:
        _, sizes, principal = np.linalg.svd(delta, full_matrices=False)
        for k in range(min(PRINCIPAL, int((sizes > 0).sum()))):
            yield from _along(
                delta, start, principal[k], rng, out="principal direction out", alone="principal direction alone", amount=float(k + 1)
            )


def words_part(direction: TaskDirection, vocabulary: Vocabulary) -> np.ndarray:
    """The part of the unit task direction that the task's words span, (d,): their mean and, of the words around it, the leading directions, 16 in all at most."""
    rows = vocabulary.embeddings[direction.word_ids].astype(np.float64) - vocabulary.mean
    mean = rows.mean(axis=0)
    _, _, around = np.linalg.svd(rows - mean, full_matrices=False)
    basis, _ = np.linalg.qr(np.concatenate([mean[None], around[: max(0, min(WORD_DIRECTIONS, len(rows)) - 1)]]).T)
    return basis @ (basis.T @ unit_rows(direction.mean))


def matched(
    delta: np.ndarray, along: np.ndarray, towards: np.ndarray, vocabulary: Vocabulary, others: np.ndarray, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Displacements (n, d) that move the tokens as far as `along` × `towards` does, in directions that know nothing of the task, without end.

    Each token goes as far as along `towards`; in turn in a random direction of the prompt's own displacements that is orthogonal to it, in that of another
    task's prompt while there are any left, in one from N(0, Σ) and in one of no preference.

    Parameters
    ----------
    delta : (n, d), all that training added.
    along, towards : (n, 1) and (d,), how far each token went and in which direction.
    others : (k, d), the task directions of other tasks' prompts.
    """
    unit = unit_rows(towards)
    steps = along * np.linalg.norm(towards)
    _, sizes, span = np.linalg.svd(delta - (delta @ unit)[:, None] * unit, full_matrices=False)
    span = span[sizes > 1e-6 * max(sizes.max(initial=0.0), 1e-300)]
    left = list(rng.permutation(unit_rows(others)) if len(others) else [])
    sigma_draw = _drawer(vocabulary, rng)
    while True:
        if len(span):
            yield steps * unit_rows(rng.standard_normal(len(span)) @ span)
        if left:
            yield steps * left.pop()
        yield steps * sigma_draw()
        yield steps * unit_rows(rng.standard_normal(vocabulary.width))


def _drawer(vocabulary: Vocabulary, rng: np.random.Generator) -> Callable[[], np.ndarray]:
    """Draws unit directions from N(0, Σ), each a sum of 1,024 of the vocabulary's rows with random weights."""

    def draw() -> np.ndarray:
        ids = np.sort(rng.integers(0, len(vocabulary), 1_024))
        weights = rng.standard_normal(len(ids))
        return unit_rows(
            weights.astype(np.float32) @ np.asarray(vocabulary.embeddings[ids], dtype=np.float32) - weights.sum() * vocabulary.mean
        )

    return draw


def check_can_be_changed(prompt: SoftPrompt) -> None:
    """Refuse a prompt too long to be changed token by token, or trained for another kind of model than a causal one.

    Raises
    ------
    InputError
    """
    prompt.check_is_causal()
    if len(prompt) > MOST_TOKENS:
        raise InputError(
            f"Prompts of up to {MOST_TOKENS} virtual tokens can be changed token by token, and {prompt.name} has {len(prompt):,}."
        )


def _along(
    delta: np.ndarray, start: np.ndarray, unit: np.ndarray, rng: np.random.Generator, *, out: str, alone: str, amount: float | None = None
) -> list[Change]:
    """A direction taken out of the displacements and kept alone, and random directions in its place: as much of each token, elsewhere."""
    along = (delta @ unit)[:, None]  # (n, 1): how far each token went in this direction
    random = unit_rows(rng.standard_normal((DRAWS, len(unit))))
    end = start + delta
    return [
        Change(out, (float32_rows(end - along * unit),), amount=amount),
        Change(CONTROLS[out], tuple(float32_rows(end - along * other) for other in random), amount=amount),
        Change(alone, (float32_rows(start + along * unit),), amount=amount),
        Change(CONTROLS[alone], tuple(float32_rows(start + along * other) for other in random), amount=amount),
    ]


def float32_rows(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32)


def _without(rows: np.ndarray, position: int) -> np.ndarray | None:
    return np.delete(rows, position, axis=0) if len(rows) > 1 else None


def _derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """An order in which something has changed its place."""
    while True:
        order = rng.permutation(n)
        if (order != np.arange(n)).any():
            return order


def row_label(row) -> str:
    """What the intervention of a row is called where there is room for a line."""
    if row.intervention == "path":
        return f"{row.amount:g} of the way from start to end"
    number = "" if np.isnan(row.amount) else f" {row.amount:g}"
    where = "" if pd.isna(row.position) else f" {row.position}"
    return f"{row.intervention}{number}{where}"
