"""Every intervention on a prompt, asked: a table of losses and scores with their intervals and ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.behaviour.changes import (
    CONTROLS,
    DIRECTION_ALONE,
    DIRECTION_OUT,
    INTERVENTIONS,
    NO_PROMPT,
    PART_ALONE,
    PART_OUT,
    RANKED,
    SEED,
    WHOLE,
    Change,
    float32_rows,
    interventions,
    matched,
    words_part,
)
from soft_prompt_explorer.analysis.behaviour.resampling import BESIDE_CONTROL, BESIDE_NO_PROMPT, CHANGE, MEASURED, Answers, Resampling
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.directions import TaskDirection
from soft_prompt_explorer.analysis.prompts.search import unit_rows
from soft_prompt_explorer.analysis.prompts.verdicts import displacements

GIVEN_UP = 10  # of them that do as much, after which no more are asked (Besag and Clifford 1991)
RANKS = 0.2  # of all that is asked, about: for telling how far it is
RANKED_ON = 20  # examples for it, at most: the rank is as valid with few
COLUMNS = ["prompt", "task", "intervention", "position", "amount", "draws", "n", "measure", *MEASURED, "rank_p", "rank_draws", "dtype"]


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
    dtype : the numbers that the model computes in.
    quick : the same examples, asked of the same model in numbers of 16 bits; None where that saves nothing, or somebody chose the numbers.
    """

    task: str
    measure: str
    ask: Callable[[np.ndarray | None, Report], Answers]
    score: Callable[[np.ndarray], np.ndarray]
    few: Callable[[np.ndarray | None, Report], Answers] | None = None
    dtype: str = "float32"
    quick: Examples | None = None

    def for_one(self, intervention: str) -> Examples:
        """Those that an intervention is asked: no verdict rests on what is asked quickly."""
        return self.quick if self.quick is not None and not INTERVENTIONS[intervention].judged else self


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

    Prompts that come to the same rows are asked once. What no verdict rests on is asked quickly where `examples` has a way to, and compared with the whole
    prompt and the bare model asked so.

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
    first 20 examples, and how many of these were asked: 199, or fewer where ten did as much before. Missing where there was nothing to rank. dtype: the numbers that
    the model computed the row in.

    The intervals are paired bootstraps over examples, and over draws where there are several (Efron and Tibshirani 1993, section 8.3), with the spread of few draws
    corrected by √(D / (D − 1)). Where an answer is right or wrong, two made-up examples are resampled along, one that only the one and one that only the other gets
    right (Bonett and Price 2012 do so for the Wald interval): without them four changed answers would seem beyond chance, and none to prove that nothing changed.

    Raises
    ------
    InputError
        As `interventions`, or an example does not fit into the model.
    """
    in_order = [each for each in interventions(prompt, vocabulary, direction=direction, twins=twins) if only is None or each.name in only]
    every = sorted(in_order, key=lambda each: not INTERVENTIONS[each.name].judged)  # what the verdict rests on first
    known = {} if before is None else {_place(row): row._asdict() for row in before.reindex(columns=COLUMNS).itertuples(index=False)}
    lacking = [each for each in every if _place_of(each) not in known]
    # What is new is compared with these two, so they are asked again.
    taken_over = {place for place in known if not (lacking and place[0] in (WHOLE, NO_PROMPT))}
    needed = [each for each in every if _place_of(each) not in taken_over]
    compared = {each.name: each for each in every if each.name in (WHOLE, NO_PROMPT)}
    different = {
        _key(rows, of)
        for each in needed
        for of in [examples.for_one(each.name)]
        for one in [each, *([] if of is examples else compared.values())]
        for rows in one.prompts
    }
    asked = {} if asked is None else asked

    ranks = RANKS * len(different) if direction is not None else 0.0  # what ranking is taken to be, in prompts asked
    ranked = 0.0  # of it, so far

    def share_done(now: float) -> float:
        return (len(different & asked.keys()) + ranked + now) / (len(different) + ranks) if different else 1.0

    def answers(each: Change, of: Examples, name: str) -> list[Answers]:
        for rows in each.prompts:
            if (key := _key(rows, of)) not in asked:
                asked[key] = of.ask(rows, lambda share, _: report(share_done(share), f"asking the model: {name}"))
        return [asked[_key(rows, of)] for rows in each.prompts]

    resampling: Resampling | None = None
    rows: list[dict[str, Any]] = []
    results: dict[tuple[str, int | None, float | None], list[Answers]] = {}

    def table() -> pd.DataFrame:
        """The rows so far; what is not compared with anything is missing."""
        made = dict(zip(results, rows, strict=True))
        return _table([made[place] for each in in_order if (place := (each.name, each.position, each.amount)) in made])

    def beside(name: str, of_all: float) -> Report:
        return lambda share, doing: report(share_done(share * of_all), f"asking the model: {name}, beside {doing}")

    def rank() -> None:
        nonlocal ranked
        if direction is None or prompt.initial is None:
            return
        wanting = [row for row in rows if to_be_ranked(row) and pd.isna(row.get("rank_p", np.nan))]
        for row in wanting:
            name, of_all = row["intervention"], ranks / len(wanting)
            row |= _ranked(name, prompt, vocabulary, examples, direction, others, asked, beside(name, of_all))
            ranked += of_all
            row_made(table())
        ranked = ranks

    for _, alike in groupby(every, key=lambda each: INTERVENTIONS[each.name].judged):
        for each in alike:
            place = each.name, each.position, each.amount
            if _place_of(each) in taken_over:
                rows.append(known[_place_of(each)])
                results[place] = []
                continue
            of = examples.for_one(each.name)
            found = results[place] = answers(each, of, each.name)
            if resampling is None:
                resampling = Resampling(found[0], examples.score)
            if of is examples:
                whole, bare = results[WHOLE, None, None], results.get((NO_PROMPT, None, None))
            else:
                whole = answers(compared[WHOLE], of, each.name)
                bare = answers(compared[NO_PROMPT], of, each.name) if NO_PROMPT in compared else None
            rows.append(
                {
                    "prompt": prompt.name, "task": examples.task, "intervention": each.name, "position": each.position, "amount": each.amount,
                    "draws": len(found), "n": len(found[0].losses), "measure": examples.measure, "dtype": of.dtype,
                    **resampling.values(found), **resampling.values(found, whole, CHANGE),
                }
            )  # fmt: skip
            if bare is not None:
                rows[-1] |= resampling.values(found, bare, BESIDE_NO_PROMPT)
            if each.name == NO_PROMPT:
                rows[0] |= resampling.values(whole, found, BESIDE_NO_PROMPT)
            # A control comes after what it is compared with, or before it.
            for row, (name, position, amount) in zip(rows, results, strict=True):
                if name not in CONTROLS:
                    continue
                control = (CONTROLS[name], position, amount)
                if results.get(control) and results[name, position, amount] and each.name in (name, control[0]):
                    row |= resampling.values(results[name, position, amount], results[control], BESIDE_CONTROL)
            row_made(table())
        rank()  # once the judged ones are there; of the others none is ranked
    report(1.0, "ready")
    return table()


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
    return any(to_be_ranked(row) and pd.isna(row["rank_p"]) for row in table.to_dict("records"))


def _place_of(each: Change) -> tuple[str, int, float, int]:
    """What tells a row from the others, the number of draws among it: with another twin the row of the twins is another."""
    position, amount = (-1 if each.position is None else each.position), (-1.0 if each.amount is None else each.amount)
    return each.name, position, amount, len(each.prompts)


def _place(row) -> tuple[str, int, float, int]:
    position, amount = (-1 if pd.isna(row.position) else int(row.position)), (-1.0 if pd.isna(row.amount) else float(row.amount))
    return row.intervention, position, amount, int(row.draws)


def to_be_ranked(row: dict[str, Any]) -> bool:
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
        rows = float32_rows(start + delta - displacement if taken_out else start + displacement)
        key = f"few {_key(rows, examples)}"
        if key not in asked:
            asked[key] = (examples.few or examples.ask)(rows, no_report)
        score = float(examples.score(asked[key].counts.sum(axis=0)))
        return -score if taken_out else score

    rng = np.random.default_rng([SEED, 1, INTERVENTIONS[name].seed, *hashlib.sha256(float32_rows(start + delta).tobytes()).digest()[:8]])
    own, as_much, drawn = effect(along * towards), 0, 0
    others = np.empty((0, vocabulary.width)) if others is None else others
    for drawn, displacement in enumerate(matched(delta, along, towards, vocabulary, others, rng), start=1):
        as_much += effect(displacement) >= own
        report(drawn / RANKED, f"direction {drawn} of {RANKED}")
        if as_much == GIVEN_UP or drawn == RANKED:
            break
    # Stopped early, the share of draws that did as much is itself a p-value (Besag and Clifford 1991, section 2).
    return {"rank_p": as_much / drawn if as_much == GIVEN_UP else (1 + as_much) / (1 + drawn), "rank_draws": drawn}


def _key(rows: np.ndarray | None, of: Examples) -> str:
    return f"{of.dtype} " + ("" if rows is None else f"{len(rows)} {hashlib.sha256(rows.tobytes()).hexdigest()}")


def _table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """The rows so far; what is not compared with anything is missing."""
    return pd.DataFrame(rows, columns=COLUMNS).astype(
        {"position": "Int64", "amount": "float64", "rank_draws": "Int64", **dict.fromkeys([*MEASURED, "rank_p"], "float64")}
    )
