"""Does the reading explain the behaviour? What the model does with a prompt that has been changed, beside what it does with the whole one.

A word near a virtual token, or a direction that names the answers, is a correlation until the model has been asked. Each intervention changes the prompt
in one way, the same examples are asked again, and the change is given with a paired interval: the same resamples of the examples for both.

That taking a direction out matters says nothing while other directions of the same size would matter as much (Elazar et al. 2021; Makelov et al. 2023). So where a
direction seems to matter, its effect is ranked among those of directions that know nothing of the task and move the tokens as far. And a direction that acts
is not yet its words: these are tested by the part of the direction that they span.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, norm

from analysis.adapters import SoftPrompt
from analysis.direction import TaskDirection, points_beyond_twins
from analysis.errors import InputError
from analysis.models import Report, listed, no_report
from analysis.neighbours import allowed_tokens, nearest, unit_rows
from analysis.readings import LEVEL, displacements
from analysis.starts import plain_verdict
from analysis.vocabulary import Vocabulary

DRAWS = 5  # of each control that is drawn at random: an interval of its own, and not most of the time
PATH = (0.25, 0.5, 0.75, 1.25, 1.5)  # t of P⁰ + t (P − P⁰)
PRINCIPAL = 1  # leading principal directions of the displacements
MOST_TOKENS = 200
RESAMPLES = 2_000
RANKED = (
    199  # directions of the same size that an effect is ranked among: p is 0.005 at best, which can bear a correction over many prompts
)
GIVEN_UP = 10  # of them that do as much, after which no more are asked (Besag and Clifford 1991)
RANKED_ON = 20  # examples for it, at most: the rank is as valid with few
WORD_DIRECTIONS = 16  # that a task's words span, at most: as many words as the width span everything
SEED = 20_213
WORDS_NAMED = 3
_INTERVAL = (0.025, 0.975)
_ITSELF, _CHANGE, _BESIDE_CONTROL, _BESIDE_NO_PROMPT = _OF = ("", "_change", "_beside_control", "_beside_no_prompt")
_PARTS = ("", "_low", "_high")
MEASURED = [f"{what}{of}{part}" for of in _OF for what in ("loss", "score") for part in _PARTS]
COLUMNS = ["prompt", "task", "intervention", "position", "amount", "draws", "n", "measure", *MEASURED, "rank_p", "rank_draws"]

WHOLE, NO_PROMPT, INITIAL, WORDS = "whole prompt", "no prompt", "initial values", "nearest words"
DIRECTION_OUT, DIRECTION_ALONE = "task direction out", "task direction alone"
RANDOM_OUT, RANDOM_ALONE = "random direction out", "random direction alone"
TWIN = "twin on shuffled answers"
PART_OUT, PART_ALONE, REST_ALONE = "words' part out", "words' part alone", "direction without words alone"
INTERVENTIONS: dict[str, str] = {
    WHOLE: "the prompt as it was trained",
    NO_PROMPT: "the bare model",
    INITIAL: "every token at the value that it started from",
    WORDS: "every token replaced by its nearest word: the prompt that could be written down (Khashabi et al. 2022)",
    TWIN: "the prompt trained from the same start on answers dealt out anew: what it does as well is the form of an answer",
    DIRECTION_OUT: "the task direction taken out of what training added to each token",
    DIRECTION_ALONE: "the initial values, and of what training added the task direction alone",
    PART_OUT: "of the task direction the part that the task's words span, taken out of each token",
    PART_ALONE: "the initial values, and of the task direction only the part that the task's words span",
    REST_ALONE: "the initial values, and the task direction without the part that the task's words span",
    "path": "initial values + t times what training added",
    "token dropped": "the prompt without one token",
    "token at its nearest word": "one token replaced by its nearest word",
    "token at its initial value": "one token put back to where it started",
    "token at the mean": "one token replaced by the mean of the vocabulary",
    "order shuffled": "the same tokens in a random order",
    "random words": "as many random words",
    RANDOM_OUT: "what was taken out with the task direction, taken out along random directions",
    RANDOM_ALONE: "the initial values moved along random directions, as far as along the task direction",
    "principal direction out": "a leading principal direction of what training added, taken out",
    "principal direction alone": "the initial values, and that principal direction alone",
    "random direction out, principal": "what was taken out with that principal direction, taken out along random directions",
    "random direction alone, principal": "the initial values moved along random directions, as far as along that principal direction",
}
# What the verdict rests on: a tenth of all.
JUDGED_BY = frozenset(
    {WHOLE, NO_PROMPT, INITIAL, WORDS, TWIN, DIRECTION_OUT, DIRECTION_ALONE, RANDOM_OUT, RANDOM_ALONE, PART_OUT, PART_ALONE, REST_ALONE}
)
# Whose result is compared with whose: a direction with random ones of the same size, words with those that were there at the start.
CONTROLS = {
    WORDS: INITIAL,
    DIRECTION_OUT: RANDOM_OUT,
    DIRECTION_ALONE: RANDOM_ALONE,
    "principal direction out": "random direction out, principal",
    "principal direction alone": "random direction alone, principal",
}


@dataclass(frozen=True, eq=False)
class Answers:
    """What came of asking every example once.

    Attributes
    ----------
    losses : (n,) float64, nats a token of the answer wanted.
    counts : (units, k) float64, what each example (or question of several examples) adds to the k sums that the score is computed from.
    """

    losses: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples of a task, ready to be asked with any prompt in front of them.

    Attributes
    ----------
    task : its name.
    measure : what the score is called.
    ask : of (m, d) float32 virtual tokens, or of None for the bare model; told how far it is.
    few : the same of the first `RANKED_ON` examples alone; None asks all of them.
    score : from sums of counts, (..., k), to the score, (...).
    """

    task: str
    measure: str
    ask: Callable[[np.ndarray | None, Report], Answers]
    score: Callable[[np.ndarray], np.ndarray]
    few: Callable[[np.ndarray | None, Report], Answers] | None = None


@dataclass(frozen=True, eq=False)
class Intervention:
    """One way to change a prompt.

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
) -> Iterator[Intervention]:
    """Every way in which a prompt is changed, the most telling first. What is drawn at random is the same for the same prompt.

    What needs initial values is left out where they are unknown, and what takes a direction out, where nothing moved.

    Parameters
    ----------
    direction : the prompt's own task direction, or that of all prompts of its task; None leaves it out.
    twins : trained on answers dealt out anew from the same start (see `analysis.twins`).

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
    yield Intervention(WHOLE, (rows,))
    yield Intervention(NO_PROMPT, (None,))
    if start is not None:
        yield Intervention(INITIAL, (start,))
    yield Intervention(WORDS, (words,))
    if twins:
        yield Intervention(TWIN, tuple(_rows(twin.embeddings) for twin in twins))
    delta = None if start is None else displacements(prompt)
    moved = delta is not None and bool(delta.any())
    if moved and direction is not None:
        unit = unit_rows(direction.mean)
        yield from _along(delta, start, unit, rng, out=DIRECTION_OUT, alone=DIRECTION_ALONE)
        if len(direction.word_ids):
            end, part = start + delta, words_part(direction, vocabulary)
            along = (delta @ unit)[:, None]
            yield Intervention(PART_OUT, (_rows(end - along * part),))
            yield Intervention(PART_ALONE, (_rows(start + along * part),))
            yield Intervention(REST_ALONE, (_rows(start + along * (unit - part)),))
    if moved:
        yield from (Intervention("path", (_rows(start + t * delta),), amount=t) for t in PATH)
    replacements = {"token at its nearest word": words, "token at its initial value": start, "token at the mean": vocabulary.mean}
    for position in range(len(rows)):
        yield Intervention("token dropped", (_without(rows, position),), position)
        for name, values in replacements.items():
            if values is not None:
                changed = rows.copy()
                changed[position] = values[position] if values.ndim == 2 else values
                yield Intervention(name, (changed,), position)
    if len(rows) > 1:
        yield Intervention("order shuffled", tuple(rows[_derangement(len(rows), rng)] for _ in range(DRAWS)))
    whole_words = np.flatnonzero(allowed_tokens(vocabulary, exclude_special=True, whole_words=True))
    drawn = [vocabulary.embeddings[np.sort(rng.choice(whole_words, size=len(rows)))] for _ in range(DRAWS)]
    yield Intervention("random words", tuple(values.astype(np.float32) for values in drawn))
    if moved:
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
        return unit_rows(rng.standard_normal(len(ids)) @ (vocabulary.embeddings[ids].astype(np.float64) - vocabulary.mean))

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
) -> list[Intervention]:
    """A direction taken out of the displacements and kept alone, and random directions in its place: as much of each token, elsewhere."""
    along = (delta @ unit)[:, None]  # (n, 1): how far each token went in this direction
    random = unit_rows(rng.standard_normal((DRAWS, len(unit))))
    end = start + delta
    return [
        Intervention(out, (_rows(end - along * unit),), amount=amount),
        Intervention(CONTROLS[out], tuple(_rows(end - along * other) for other in random), amount=amount),
        Intervention(alone, (_rows(start + along * unit),), amount=amount),
        Intervention(CONTROLS[alone], tuple(_rows(start + along * other) for other in random), amount=amount),
    ]


def _rows(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32)


def _without(rows: np.ndarray, position: int) -> np.ndarray | None:
    return np.delete(rows, position, axis=0) if len(rows) > 1 else None


def _derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """An order in which something has changed its place."""
    while True:
        order = rng.permutation(n)
        if (order != np.arange(n)).any():
            return order


def behaviour(
    prompt: SoftPrompt,
    vocabulary: Vocabulary,
    examples: Examples,
    *,
    direction: TaskDirection | None = None,
    twins: Sequence[SoftPrompt] = (),
    others: np.ndarray | None = None,
    before: pd.DataFrame | None = None,
    only: Collection[str] | None = None,
    asked: dict[str, Answers] | None = None,
    report: Report = no_report,
    row_made: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """What the model does with the prompt changed in every way, beside the whole one.

    Prompts that come to the same rows are asked once.

    Parameters
    ----------
    direction, twins : see `interventions`.
    others : (k, d), the task directions of other tasks' prompts for the same model, for `matched`.
    before : a table of the same prompt and examples that an earlier version made: its rows are taken over, and only what it lacks is asked.
    only : the interventions that are asked, by name; all when None.
    asked : what an earlier call on the same examples was answered before it was stopped; each answer is added, and none asked for again.
    row_made : called with the table so far after every row.

    Returns
    -------
    A row an intervention, the whole prompt first: prompt, task, intervention (see `INTERVENTIONS`), position (of the one token that was changed), amount (t of
    the path, or the number of the principal direction), draws (random draws, over which the row is the mean), n (examples), measure, and four times loss (nats a
    token) and score with the bounds of a 95 % interval, each followed by _low and _high: as they are (loss, score), less those of the whole prompt (loss_change,
    score_change), of the control that `CONTROLS` names (loss_beside_control, …; missing where it names none) and of the bare model (loss_beside_no_prompt, …).
    rank_p, rank_draws: of a direction, or its words' part, whose interval says that it matters, the rank of its effect among those of `matched` directions on the
    first 20 examples, and how many of these were asked: 199, or fewer where ten did as much before. Missing where there was nothing to rank.

    The intervals are paired bootstraps over examples, and over draws where there are several (Efron and Tibshirani 1993, section 8.3), with the spread of few draws
    corrected by √(D / (D − 1)). Where an answer is right or wrong, two made-up examples are resampled along, one that only the one and one that only the other gets
    right (Bonett and Price 2012 do so for the Wald interval): without them four changed answers would seem beyond chance, and none to prove that nothing changed.

    Raises
    ------
    InputError
        As `interventions`, or an example does not fit into the model.
    """
    every = [each for each in interventions(prompt, vocabulary, direction=direction, twins=twins) if only is None or each.name in only]
    known = {} if before is None else {_place(row): row._asdict() for row in before.reindex(columns=COLUMNS).itertuples(index=False)}
    lacking = [each for each in every if _place_of(each) not in known]
    # What is new is compared with these two, so they are asked again.
    taken_over = {place for place in known if not (lacking and place[0] in (WHOLE, NO_PROMPT))}
    needed = [each for each in every if _place_of(each) not in taken_over]
    different = {_key(rows) for each in needed for rows in each.prompts}
    asked = {} if asked is None else asked

    def answers(rows: np.ndarray | None, name: str) -> Answers:
        key = _key(rows)
        if key not in asked:
            done = len(different & asked.keys())
            asked[key] = examples.ask(rows, lambda share, _: report(0.9 * (done + share) / len(different), f"asking the model: {name}"))
        return asked[key]

    resampling: _Resampling | None = None
    rows: list[dict[str, object]] = []
    results: dict[tuple[str, int | None, float | None], list[Answers]] = {}
    for each in every:
        place = each.name, each.position, each.amount
        if _place_of(each) in taken_over:
            rows.append(known[_place_of(each)])
            results[place] = []
            continue
        found = results[place] = [answers(values, each.name) for values in each.prompts]
        if resampling is None:
            resampling = _Resampling(found[0], examples.score)
        whole, bare = results[WHOLE, None, None], results.get((NO_PROMPT, None, None))
        rows.append(
            {
                "prompt": prompt.name, "task": examples.task, "intervention": each.name, "position": each.position, "amount": each.amount,
                "draws": len(found), "n": len(found[0].losses), "measure": examples.measure,
                **resampling.values(found), **resampling.values(found, whole, _CHANGE),
            }
        )  # fmt: skip
        if bare is not None:
            rows[-1] |= resampling.values(found, bare, _BESIDE_NO_PROMPT)
        if each.name == NO_PROMPT:
            rows[0] |= resampling.values(whole, found, _BESIDE_NO_PROMPT)
        # A control comes after what it is compared with, or before it.
        for row, (name, position, amount) in zip(rows, results, strict=True):
            control = (CONTROLS.get(name), position, amount)
            if results.get(control) and results[name, position, amount] and each.name in (name, control[0]):
                row |= resampling.values(results[name, position, amount], results[control], _BESIDE_CONTROL)
        row_made(_table(rows))
    if direction is not None and prompt.initial is not None:
        for row in rows:
            if _to_be_ranked(row) and pd.isna(row.get("rank_p", np.nan)):
                report(0.9, f"asking the model: {row['intervention']}, beside other directions")
                row |= _ranked(row["intervention"], prompt, vocabulary, examples, direction, others, asked, report)
                row_made(_table(rows))
    report(1.0, "ready")
    return _table(rows)


def lacks(
    table: pd.DataFrame,
    prompt: SoftPrompt,
    vocabulary: Vocabulary,
    *,
    direction: TaskDirection | None = None,
    twins: Sequence[SoftPrompt] = (),
) -> bool:
    """Whether a table that was kept lacks what `behaviour` would ask today."""
    places = {_place(row) for row in table.itertuples(index=False)}
    if any(_place_of(each) not in places for each in interventions(prompt, vocabulary, direction=direction, twins=twins)):
        return True
    return any(_to_be_ranked(row) and pd.isna(row["rank_p"]) for row in table.to_dict("records"))


def _place_of(each: Intervention) -> tuple[str, int, float]:
    return each.name, -1 if each.position is None else each.position, -1.0 if each.amount is None else each.amount


def _place(row) -> tuple[str, int, float]:
    return row.intervention, -1 if pd.isna(row.position) else int(row.position), -1.0 if pd.isna(row.amount) else float(row.amount)


def _to_be_ranked(row: dict[str, object]) -> bool:
    """Whether an interval says that a direction matters: only then is there an effect to rank."""
    if row["intervention"] in (DIRECTION_OUT, PART_OUT):
        return row["score_change_high"] < 0
    return row["intervention"] in (DIRECTION_ALONE, PART_ALONE) and row["score_beside_no_prompt_low"] > 0


def _ranked(
    name: str, prompt: SoftPrompt, vocabulary: Vocabulary, examples: Examples, direction: TaskDirection, others: np.ndarray | None,
    asked: dict[str, Answers], report: Report,
) -> dict[str, object]:  # fmt: skip
    """The rank of an effect among those of `matched` directions: rank_p and rank_draws."""
    start, delta, unit = np.asarray(prompt.initial, dtype=np.float64), displacements(prompt), unit_rows(direction.mean)
    towards = words_part(direction, vocabulary) if name in (PART_OUT, PART_ALONE) else unit
    along = (delta @ unit)[:, None]
    taken_out = name in (DIRECTION_OUT, PART_OUT)

    def effect(displacement: np.ndarray) -> float:
        rows = _rows(start + delta - displacement if taken_out else start + displacement)
        key = f"few {_key(rows)}"
        if key not in asked:
            asked[key] = (examples.few or examples.ask)(
                rows, lambda share, doing: report(0.9, f"asking the model: {name}, beside other directions")
            )
        score = float(examples.score(asked[key].counts.sum(axis=0)))
        return -score if taken_out else score

    rng = np.random.default_rng([SEED, 1, list(INTERVENTIONS).index(name), *hashlib.sha256(_rows(start + delta).tobytes()).digest()[:8]])
    own, as_much, drawn = effect(along * towards), 0, 0
    others = np.empty((0, vocabulary.width)) if others is None else others
    for drawn, displacement in enumerate(matched(delta, along, towards, vocabulary, others, rng), start=1):
        as_much += effect(displacement) >= own
        report(0.9 + 0.1 * drawn / RANKED, f"asking the model: {name}, beside direction {drawn} of {RANKED}")
        if as_much == GIVEN_UP or drawn == RANKED:
            break
    # Stopped early, the share of draws that did as much is itself a p-value (Besag and Clifford 1991, section 2).
    return {"rank_p": as_much / drawn if as_much == GIVEN_UP else (1 + as_much) / (1 + drawn), "rank_draws": drawn}


def _key(rows: np.ndarray | None) -> str:
    return "" if rows is None else f"{len(rows)} {hashlib.sha256(rows.tobytes()).hexdigest()}"


def _table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """The rows so far; what is not compared with anything is missing."""
    return pd.DataFrame(rows, columns=COLUMNS).astype(
        {"position": "Int64", "amount": "float64", "rank_draws": "Int64", **dict.fromkeys([*MEASURED, "rank_p"], "float64")}
    )


def row_label(row) -> str:
    """What the intervention of a row is called where there is room for a line."""
    if row.intervention == "path":
        return f"{row.amount:g} of the way from start to end"
    number = "" if np.isnan(row.amount) else f" {row.amount:g}"
    where = "" if pd.isna(row.position) else f" {row.position}"
    return f"{row.intervention}{number}{where}"


class _Resampling:
    """The resamples of the examples, the same for every intervention: a change is then between the same examples."""

    def __init__(self, answers: Answers, score: Callable[[np.ndarray], np.ndarray]) -> None:
        rng = np.random.default_rng(SEED)
        self._score, self._seed = score, int(rng.integers(2**31))
        counts = answers.counts
        self._right_or_wrong = counts.shape[1] == 2 and bool((counts[:, 1] == 1).all()) and bool(np.isin(counts[:, 0], (0, 1)).all())
        self._examples = _times_drawn(len(answers.losses), rng)
        self._units = _times_drawn(len(counts) + 2 * self._right_or_wrong, rng)

    def values(self, of: Sequence[Answers], other: Sequence[Answers] | None = None, called: str = _ITSELF) -> dict[str, float]:
        """Loss and score, or their difference from another's, each with its 95 % interval, by column; both are means over their draws."""
        n, both = len(of[0].losses), (of, *([other] if other else []))
        losses = [self._means([each.losses[:, None] for each in draws], self._examples, lambda sums: sums[..., 0] / n) for draws in both]
        scores = [self._means([each.counts for each in draws], self._units, self._score) for draws in both]
        values = {}
        for what, found, made_up in (("loss", losses, 0.0), ("score", scores, self._made_up(paired=other is not None))):
            value, resampled = found[0]
            if other:
                value, resampled = value - found[1][0], resampled - found[1][1]
            bounds = np.quantile(resampled + made_up, _INTERVAL)
            # The mean of three equal scores is not quite that score.
            values |= {
                f"{what}{called}{part}": round(float(number), 12) + 0.0 for part, number in zip(_PARTS, (value, *bounds), strict=True)
            }
        return values

    def _means(self, draws: Sequence[np.ndarray], times: np.ndarray, score: Callable) -> tuple[float, np.ndarray]:
        """The mean over draws of the score, and the same in every resample, (resamples,)."""
        n = len(draws[0])
        # The made-up examples add nothing to either sum but their number, which the score of right and wrong answers is divided by.
        extra = np.zeros((len(times), draws[0].shape[1]))
        if times.shape[1] > n:
            extra[:, 1] = times[:, n:].sum(axis=1)
        of_draws = np.stack([score(times[:, :n] @ counts + extra) for counts in draws], axis=1)
        return float(np.mean([score(counts.sum(axis=0)) for counts in draws])), (of_draws * self._draw_weights(len(draws))).sum(axis=1)

    def _made_up(self, *, paired: bool) -> np.ndarray | float:
        """What the two made-up examples add to a score, or to a difference of scores, in every resample."""
        if not self._right_or_wrong:
            return 0.0
        first, second = self._units[:, -2], self._units[:, -1]
        return ((first - second) if paired else first) / self._units.shape[1]

    def _draw_weights(self, count: int) -> np.ndarray:
        """How much each draw counts in each resample, (resamples, count)."""
        if count == 1:
            return np.ones((RESAMPLES, 1))
        rng = np.random.default_rng(self._seed)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
        return 1 / count + np.sqrt(count / (count - 1)) * (weights - 1 / count)


def _times_drawn(n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n is drawn in each resample, (resamples, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a prompt can be read, and what carries what it does.

    "Causal" is said of what was taken out or put in, and of nothing else. The claims about one prompt are corrected for one another (Holm 1979).

    Attributes
    ----------
    effect : whether the prompt scores more than the bare model and, where there are any, more than each of its twins. Without an effect nothing can be causal.
    format_only : whether it scores more than the bare model and not more than its twins: what it learned may be the form of an answer.
    points : whether the task direction points at the task's words beyond chance, does so without what it shares with twins, and no twin points at them. Nothing
        points where no twin is at hand: the words may be the form of an answer.
    as_format : whether the words are pointed at, and not by what the direction does not share with a twin's, or no twin is at hand: as the form of an answer.
    necessary : whether the score falls when the task direction is taken out, and more than without other directions of the same size.
    sufficient : whether the initial values with the task direction alone score more than no prompt, and more than with other directions of the same size:
        to undo words that were in the way is no behaviour that was learned.
    words_work : whether the nearest words in place of the tokens score more than no prompt, and more than the initial values, where these are known: else
        they may be the words that it started from.
    words_act : whether the direction acts and the part of it that the task's words span acts too, alone or taken out, beside other directions of the same size.
    readable : whether the direction points at the task's words, more tokens are called learned than in any twin, or its words work.
    causal : whether the direction is necessary or sufficient, or the nearest words work.
    p_readable, p_causal : the smallest p-value of either, corrected for the claims about this prompt, for a correction over many prompts; 1 where nothing was tested.
    label : one of `LABELS`, in words.
    sentence : all of it, from the tests and nothing else.
    """

    effect: bool
    format_only: bool
    points: bool
    as_format: bool
    necessary: bool
    sufficient: bool
    words_work: bool
    words_act: bool
    readable: bool
    causal: bool
    p_readable: float
    p_causal: float
    label: str
    sentence: str


@dataclass(frozen=True, eq=False)
class Judged:
    """What is known of a prompt that was asked: the tables of `behaviour` and of `analysis.readings.readings`, its task direction where it has one, and what they come to."""

    table: pd.DataFrame
    read: pd.DataFrame
    direction: TaskDirection | None
    verdict: Verdict


TOO_FEW, WORSE, FORMAT = "too few examples to tell", "scores less than no prompt", "no more than the form of an answer"
NO_EFFECT = (TOO_FEW, WORSE)
READABLE_AND_CAUSAL, OTHERWISE = "readable and causal", "readable, and causal otherwise"
LABELS: dict[str, str] = {
    READABLE_AND_CAUSAL: "what is read is what acts: the words' part of the direction, or the words themselves in the place of the tokens",
    OTHERWISE: "words can be read and the direction acts, and it is not shown that the words are why",
    "readable, not causal": "words can be read, and nothing that was taken out or put in is shown to matter",
    "causal, not readable": "the direction acts and names no word",
    "neither readable nor causal": "the prompt has an effect, no word can be read in it, and no direction is shown to carry it",
    FORMAT: "it scores more than no prompt, and not more than its twin that was trained on shuffled answers",
    TOO_FEW: "on so many examples the prompt is not shown to score other than no prompt",
    WORSE: "the prompt is shown to score less than no prompt on this task as it was asked",
}


def judge(
    read: pd.DataFrame,
    table: pd.DataFrame,
    *,
    direction: TaskDirection | None = None,
    vocabulary: Vocabulary | None = None,
    twins_learned: int | None = None,
    scored: str | None = None,
) -> Verdict:
    """What the tests of one prompt come to.

    Parameters
    ----------
    read : of `analysis.readings.readings`.
    table : of `behaviour`.
    direction, vocabulary : the task direction with the task's words tested, and what it was scored against; None where no initial values are known.
    twins_learned : the largest number of tokens called learned in a twin; None where no twin is at hand.
    scored : what the prompt scored on more examples than these, in words, where that is known.
    """
    rows = table.drop_duplicates("intervention").set_index("intervention")
    whole, bare, known, has_twin = rows.loc[WHOLE], rows.loc[NO_PROMPT], INITIAL in rows.index, TWIN in rows.index
    better = bare["score_change_high"] < 0
    format_only = bool(better and has_twin and not rows.loc[TWIN, "score_change_high"] < 0)
    effect = bool(better and not format_only)
    points, as_format, p_words = _pointed(direction)
    # As the words of the direction, a token's word may be the form of an answer, and is none that can be read where a twin has as many, or none is at hand.
    learned = twins_learned is not None and int(read["verdict"].str.startswith("learned").sum()) > twins_learned
    p_tokens = float(false_discovery_control(read["p_learned"].dropna(), method="bh").min()) if learned else 1.0
    claims = _claims(rows, named=bool(read["verdict"].str.startswith(("learned", "near a word")).any()), known=known)
    holds = _holm(claims)
    necessary, sufficient, works = (effect and holds[name] <= LEVEL for name in ("necessary", "sufficient", "words work"))
    # A family of its own, asked only once the direction as a whole acts: two parts, so twice the p-value.
    acts = (necessary or sufficient) and points and 2 * min(_part_p(rows, PART_OUT), _part_p(rows, PART_ALONE)) <= LEVEL
    readable = bool(points or works or learned)
    causal = bool(necessary or sufficient or works)
    if not better:
        label = WORSE if bare["score_change_low"] > 0 else TOO_FEW
    elif format_only:
        label = FORMAT
    elif readable and causal:
        label = READABLE_AND_CAUSAL if acts or works else OTHERWISE
    else:
        label = {
            (True, False): "readable, not causal",
            (False, True): "causal, not readable",
            (False, False): "neither readable nor causal",
        }[readable, causal]
    parts = [_counted_verdicts(read["verdict"])]
    if direction is not None and DIRECTION_OUT in rows.index:
        parts += [_pointing(direction, vocabulary, points, as_format), *_direction_tested(rows)]
        if points and PART_ALONE in rows.index:
            parts.append(_words_tested(rows))
    if "words work" in claims:
        words = rows.loc[WORDS]
        beside_start = f" and {_with_interval(words, 'score_beside_control')} beside its start" if known else ""
        parts.append(
            f"its words in place of the tokens score {words['score']:.2f}, {_with_interval(words, 'score_beside_no_prompt')} beside no prompt{beside_start}"
        )
    if not known:
        parts.append("what it started from is unknown, so a word near a token may be no more than its start")
    parts.append(_effect_said(rows, scored, better=bool(better), format_only=format_only))
    start = f"On {whole['n']} examples of {whole['task']}: "
    return Verdict(
        effect=effect, format_only=format_only, points=points, as_format=as_format, necessary=bool(necessary), sufficient=bool(sufficient), words_work=bool(works),
        words_act=bool(acts), readable=readable, causal=causal, p_readable=min(1.0, 2 * min(p_words if points else 1.0, p_tokens)) if readable else 1.0,
        p_causal=min([1.0, *holds.values()]) if effect else 1.0, label=label, sentence=f"{start}{'; '.join(parts)}: {label}.",
    )  # fmt: skip


def _pointed(direction: TaskDirection | None) -> tuple[bool, bool, float]:
    """Whether the direction points at the task's words, whether it does so as the form of an answer, and the p-value of the former."""
    if direction is None or not len(direction.word_ids):
        return False, False, 1.0
    points = points_beyond_twins(direction)
    return points, bool(direction.words_p < LEVEL and not points), float(max(direction.words_p, direction.beyond_twin_p)) if points else 1.0


def _claims(rows: pd.DataFrame, *, named: bool, known: bool) -> dict[str, float]:
    """The p-value of each claim that something carries what the prompt does: of its interval, read as normal, or of its rank, whichever is larger."""
    claims = {}
    if DIRECTION_OUT in rows.index:
        claims["necessary"] = _part_p(rows, DIRECTION_OUT)
        claims["sufficient"] = _part_p(rows, DIRECTION_ALONE)
    if named and known:
        words = rows.loc[WORDS]
        claims["words work"] = max(_one_sided(words, "score_beside_no_prompt", 1), _one_sided(words, "score_beside_control", 1))
    return claims


def _part_p(rows: pd.DataFrame, name: str) -> float:
    """The p-value of a direction, or its words' part, being taken out or put in: of its interval and of its rank, whichever is larger; 1 where it was not ranked."""
    if name not in rows.index or pd.isna(rows.loc[name, "rank_p"]):
        return 1.0
    row = rows.loc[name]
    of_interval = _one_sided(row, "score_change", -1) if name in (DIRECTION_OUT, PART_OUT) else _one_sided(row, "score_beside_no_prompt", 1)
    return max(of_interval, float(row["rank_p"]))


def _one_sided(row: pd.Series, column: str, sign: int) -> float:
    width = row[f"{column}_high"] - row[f"{column}_low"]
    if pd.isna(width):
        return 1.0
    error = width / (2 * norm.ppf(_INTERVAL[1]))
    return float(norm.sf(sign * row[column] / error)) if error > 0 else (0.0 if sign * row[column] > 0 else 1.0)


def _holm(claims: dict[str, float]) -> dict[str, float]:
    """The p-values corrected for one another (Holm 1979); a claim that was not tested has 1."""
    corrected, largest = dict.fromkeys(("necessary", "sufficient", "words work"), 1.0), 0.0
    for i, (name, p) in enumerate(sorted(claims.items(), key=lambda claim: claim[1])):
        largest = max(largest, min(1.0, (len(claims) - i) * p))
        corrected[name] = largest
    return corrected


def _effect_said(rows: pd.DataFrame, scored: str | None, *, better: bool, format_only: bool) -> str:
    whole, bare = rows.loc[WHOLE], rows.loc[NO_PROMPT]
    both = f"the prompt scores {whole['score']:.2f} and no prompt {bare['score']:.2f}"
    if format_only:
        return f"{both}, and its twin trained on shuffled answers {rows.loc[TWIN, 'score']:.2f}, which is not shown to be less"
    if better:
        twin = f", its twin trained on shuffled answers {rows.loc[TWIN, 'score']:.2f}" if TWIN in rows.index else ""
        return f"{both}{twin}"
    if bare["score_change_low"] > 0:
        return both
    return f"{both}, and {whole['n']} examples are too few to tell these apart{f'; {scored}' if scored else ''}"


def _direction_tested(rows: pd.DataFrame) -> list[str]:
    """What came of taking the direction out, and of keeping it alone."""
    out, random, alone, start = (rows.loc[name] for name in (DIRECTION_OUT, RANDOM_OUT, DIRECTION_ALONE, INITIAL))
    measure = out["measure"]
    return [
        f"taking that direction out changes {measure} by {_with_interval(out, 'score_change')}{_rank_said(out)} and the loss by {_with_interval(out, 'loss_change')}, "
        f"random directions of the same size by {signed(random['score_change'])} and {signed(random['loss_change'])}",
        f"alone it takes the initial values from {start['score']:.2f} to {alone['score']:.2f}, {_with_interval(alone, 'score_beside_control')} beside random "
        f"directions and {_with_interval(alone, 'score_beside_no_prompt')} beside no prompt{_rank_said(alone)}",
    ]


def _words_tested(rows: pd.DataFrame) -> str:
    out, alone, rest = (rows.loc[name] for name in (PART_OUT, PART_ALONE, REST_ALONE))
    return (
        f"the part of it that the words span takes the initial values to {alone['score']:.2f}{_rank_said(alone)}, the rest of it to {rest['score']:.2f}, and without that part the "
        f"prompt changes by {_with_interval(out, 'score_change')}{_rank_said(out)}"
    )


def _rank_said(row: pd.Series) -> str:
    if pd.isna(row["rank_p"]):
        return (
            " (not ranked among other directions, so nothing is claimed)"
            if _to_be_ranked(row.to_dict() | {"intervention": row.name})
            else ""
        )
    return f" (p {_p(row['rank_p'])} among {int(row['rank_draws'])} other directions of the same size)"


_VERDICTS_SAID = {
    "learned": ("is near or moved along a word that it did not start from", "are near or moved along words that they did not start from"),
    "echo": ("echoes its initialisation", "echo their initialisation"),
    "near a word": ("is near a word", "are near words"),
    "unreadable": ("is unreadable", "are unreadable"),
    "never trained": ("was never trained", "were never trained"),
}


def _counted_verdicts(verdicts: pd.Series) -> str:
    plain = verdicts.map(plain_verdict)
    counts = {verdict: int((plain == verdict).sum()) for verdict in _VERDICTS_SAID}
    said = [(count, _VERDICTS_SAID[verdict][count > 1]) for verdict, count in counts.items() if count]
    (first, words), *others = said
    text = listed([f"{first} of {len(plain)} tokens {words}", *(f"{count} {words}" for count, words in others)])
    marks = set(verdicts[plain != verdicts].str.extract(r" \((.*)\)$", expand=False))
    return f"{text} (initial values {listed(sorted(marks))})" if marks else text


def _pointing(direction: TaskDirection, vocabulary: Vocabulary | None, points: bool, as_format: bool) -> str:
    twins = "its twin" if direction.twins == 1 else f"its {direction.twins} twins"
    if not len(direction.word_ids) or vocabulary is None:
        return "what the tokens share was not tested on any words"
    words = f"the task's words ({_places(direction, vocabulary)}, p {_p(direction.words_p)})"
    if points:
        return f"together they point at {words}, also without what they share with {twins} trained on shuffled answers (p {_p(direction.beyond_twin_p)})"
    if as_format and not direction.twins:
        return f"together they point at {words}, which may be the form of an answer: no twin trained on shuffled answers is at hand"
    if as_format:
        return (
            f"together they point at {words}, and {twins} trained on shuffled answers {'does' if direction.twins == 1 else 'do'} so too (p {_p(direction.twin_words_p)} there, and "
            f"{_p(direction.beyond_twin_p)} without what they share): that is the form of an answer"
            if direction.twin_words_p < LEVEL
            else f"together they point at {words}, but not without what they share with {twins} trained on shuffled answers (p {_p(direction.beyond_twin_p)}): that is the form of an answer"
        )
    twin_does = direction.twins and direction.twin_words_p * direction.twins < LEVEL
    beside = (
        f", as {twins} trained on shuffled answers {'does' if direction.twins == 1 else 'do'} (p {_p(direction.twin_words_p)})"
        if twin_does
        else ""
    )
    return f"together they do not point at the task's words (p {_p(direction.words_p)}){beside}"


def _places(direction: TaskDirection, vocabulary: Vocabulary) -> str:
    few = direction.word_ids[np.argsort(direction.ranks[direction.word_ids])][:WORDS_NAMED]
    places = [f"{vocabulary.tokens[i]!r} in place {direction.ranks[i]:,}" for i in few]
    named = listed(places) if len(direction.word_ids) <= WORDS_NAMED else f"median place {direction.words_median_rank:,.0f}"
    return f"{named} of {len(vocabulary):,}"


def p_value(p: float) -> str:
    """A p-value as it is told everywhere: `0.012`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _p(value: float) -> str:
    return f"{'' if value < 0.001 else '= '}{p_value(value)}"


def signed(value: float, digits: int = 2) -> str:
    """A change, with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _with_interval(row: pd.Series, column: str) -> str:
    return f"{signed(row[column])} (95 % interval {signed(row[f'{column}_low'])} to {signed(row[f'{column}_high'])})"
