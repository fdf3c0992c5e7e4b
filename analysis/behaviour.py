"""Does the reading explain the behaviour? What the model does with a prompt that has been changed, beside what it does with the whole one.

A word near a virtual token, or a direction that names the answers, is a correlation until the model has been asked. Each intervention changes the prompt
in one way, the same examples are asked again, and the change is given with a paired interval: the same resamples of the examples for both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.adapters import SoftPrompt
from analysis.direction import TaskDirection
from analysis.models import Report, listed, no_report
from analysis.neighbours import allowed_tokens, nearest, unit_rows
from analysis.readings import RECOVERED, displacements
from analysis.vocabulary import Vocabulary

DRAWS = 3  # of each control that is drawn at random: an interval of its own, and not most of the time
PATH = (0.25, 0.5, 0.75, 1.25, 1.5)  # t of P⁰ + t (P − P⁰)
PRINCIPAL = 2  # leading principal directions of the displacements
RESAMPLES = 2_000
SEED = 20_213
LEVEL = 0.05
_INTERVAL = (0.025, 0.975)
_CHANGES = [f"{what}_{part}" for what in ("loss", "score") for part in ("change", "low", "high")]
_BESIDE = [f"{what}_beside_{part}" for what in ("loss", "score") for part in ("control", "low", "high")]
COLUMNS = ["prompt", "task", "intervention", "position", "amount", "draws", "n", "measure", "loss", "score", *_CHANGES, *_BESIDE]

WHOLE, NO_PROMPT, INITIAL, WORDS = "whole prompt", "no prompt", "initial values", "nearest words"
DIRECTION_OUT, DIRECTION_ALONE = "task direction out", "task direction alone"
RANDOM_OUT, RANDOM_ALONE = "random direction out", "random direction alone"
INTERVENTIONS: dict[str, str] = {
    WHOLE: "the prompt as it was trained",
    NO_PROMPT: "the bare model",
    INITIAL: "every token at the value that it started from",
    WORDS: "every token replaced by its nearest word: the prompt that could be written down (Khashabi et al. 2022)",
    DIRECTION_OUT: "the task direction taken out of what training added to each token",
    DIRECTION_ALONE: "the initial values, and of what training added the task direction alone",
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
# Whose result is compared with whose: a direction with random ones of the same size, words with no words at all.
CONTROLS = {
    WORDS: NO_PROMPT,
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
    score : from sums of counts, (..., k), to the score, (...).
    """

    task: str
    measure: str
    ask: Callable[[np.ndarray | None, Report], Answers]
    score: Callable[[np.ndarray], np.ndarray]


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


def interventions(prompt: SoftPrompt, vocabulary: Vocabulary, *, direction: TaskDirection | None = None) -> list[Intervention]:
    """Every way in which a prompt is changed, the most telling first.

    What needs initial values is left out where they are unknown, and what takes a direction out, where nothing moved.

    Parameters
    ----------
    direction : the prompt's own task direction, or that of all prompts of its task; None leaves it out.

    Raises
    ------
    InputError
        The prompt is not as wide as the vocabulary, or its rows are no input embeddings.
    """
    prompt.check_is_embeddings()
    prompt.check_width(vocabulary.width, vocabulary.model)
    rows = np.asarray(prompt.embeddings, dtype=np.float32)
    words = discretised(prompt, vocabulary).embeddings
    start = None if prompt.initial is None else np.asarray(prompt.initial, dtype=np.float32)
    rng = np.random.default_rng(SEED)
    made = [Intervention(WHOLE, (rows,)), Intervention(NO_PROMPT, (None,))]
    if start is not None:
        made.append(Intervention(INITIAL, (start,)))
    made.append(Intervention(WORDS, (words,)))
    delta = None if start is None else displacements(prompt)
    moved = delta is not None and bool(delta.any())
    if moved and direction is not None:
        made += _along(delta, start, unit_rows(direction.mean), rng, out=DIRECTION_OUT, alone=DIRECTION_ALONE)
    if moved:
        made += [Intervention("path", (_rows(start + t * delta),), amount=t) for t in PATH]
    replacements = {"token at its nearest word": words, "token at its initial value": start, "token at the mean": vocabulary.mean}
    for position in range(len(rows)):
        made.append(Intervention("token dropped", (_without(rows, position),), position))
        for name, values in replacements.items():
            if values is not None:
                changed = rows.copy()
                changed[position] = values[position] if values.ndim == 2 else values
                made.append(Intervention(name, (changed,), position))
    if len(rows) > 1:
        made.append(Intervention("order shuffled", tuple(rows[_derangement(len(rows), rng)] for _ in range(DRAWS))))
    whole_words = np.flatnonzero(allowed_tokens(vocabulary, exclude_special=True, whole_words=True))
    drawn = [vocabulary.embeddings[np.sort(rng.choice(whole_words, size=len(rows)))] for _ in range(DRAWS)]
    made.append(Intervention("random words", tuple(values.astype(np.float32) for values in drawn)))
    if moved:
        _, sizes, principal = np.linalg.svd(delta, full_matrices=False)
        for k in range(min(PRINCIPAL, int((sizes > 0).sum()))):
            made += _along(
                delta, start, principal[k], rng, out="principal direction out", alone="principal direction alone", amount=float(k + 1)
            )
    return made


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
    report: Report = no_report,
    row_made: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """What the model does with the prompt changed in every way, beside the whole one.

    Prompts that come to the same rows are asked once.

    Parameters
    ----------
    direction : see `interventions`.
    row_made : called with the table so far after every row.

    Returns
    -------
    A row an intervention, the whole prompt first: prompt, task, intervention (see `INTERVENTIONS`), position (of the one token that was changed), amount (t of
    the path, or the number of the principal direction), draws (random draws, over which the row is the mean), n (examples), measure, loss (nats a token),
    score, and the changes from the whole prompt: loss_change, loss_low, loss_high, score_change, score_low, score_high, the bounds of a 95 % interval (a
    paired bootstrap over examples, and over draws where there are several; Efron and Tibshirani 1993, section 8.3). Where `CONTROLS` names one:
    loss_beside_control, score_beside_control and their intervals, the difference from that control.

    Raises
    ------
    InputError
        As `interventions`, or an example does not fit into the model.
    """
    made = interventions(prompt, vocabulary, direction=direction)
    asked: dict[bytes | None, Answers] = {}
    different = {None if rows is None else rows.tobytes() for each in made for rows in each.prompts}

    def answers(rows: np.ndarray | None, name: str) -> Answers:
        key = None if rows is None else rows.tobytes()
        if key not in asked:
            done = len(asked)
            asked[key] = examples.ask(rows, lambda share, _: report((done + share) / len(different), f"asking the model: {name}"))
        return asked[key]

    resampling: _Resampling | None = None
    rows: list[list] = []
    results: dict[tuple[str, int | None, float | None], _Result] = {}
    for each in made:
        of_each = [answers(values, each.name) for values in each.prompts]
        if resampling is None:
            resampling = _Resampling(of_each[0], examples.score)
        result = results[each.name, each.position, each.amount] = resampling.result(of_each)
        row = [prompt.name, examples.task, each.name, each.position, each.amount, len(of_each), len(of_each[0].losses), examples.measure]
        rows.append([*row, result.loss, result.score, *result.beside(results[WHOLE, None, None]), *[np.nan] * len(_BESIDE)])
        for i, (name, position, amount) in enumerate(results):  # a control comes after what it is compared with, or before it
            control = (CONTROLS.get(name), position, amount)
            if control in results and each.name in (name, control[0]):
                rows[i][-len(_BESIDE) :] = results[name, position, amount].beside(results[control])
        row_made(_table(rows))
    report(1.0, "ready")
    return _table(rows)


def _table(rows: list[list]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS).astype({"position": "Int64", "amount": "float64"})


@dataclass(frozen=True, eq=False)
class _Result:
    """Loss and score, and both in every resample."""

    loss: float
    score: float
    losses: np.ndarray
    scores: np.ndarray

    def beside(self, other: _Result) -> list[float]:
        """The change of loss and of score from another result, each with its 95 % interval."""
        changes = ((self.loss - other.loss, self.losses - other.losses), (self.score - other.score, self.scores - other.scores))
        values = [value for change, resampled in changes for value in (change, *np.quantile(resampled, _INTERVAL))]
        return [round(float(value), 12) + 0.0 for value in values]  # the mean of three equal scores is not quite that score


class _Resampling:
    """The resamples of the examples, the same for every intervention: a change is then between the same examples."""

    def __init__(self, answers: Answers, score: Callable[[np.ndarray], np.ndarray]) -> None:
        rng = np.random.default_rng(SEED)
        self._score, self._seed = score, int(rng.integers(2**31))
        n, units = len(answers.losses), len(answers.counts)
        self._examples = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)  # how often each example is drawn
        same = n == units
        self._units = self._examples if same else rng.multinomial(units, np.full(units, 1 / units), size=RESAMPLES).astype(np.float64)

    def result(self, draws: Sequence[Answers]) -> _Result:
        losses = np.stack([self._examples @ each.losses / len(each.losses) for each in draws], axis=1)  # (resamples, draws)
        scores = np.stack([self._score(self._units @ each.counts) for each in draws], axis=1)
        rng = np.random.default_rng(self._seed)
        weights = rng.multinomial(len(draws), np.full(len(draws), 1 / len(draws)), size=RESAMPLES) / len(draws)
        return _Result(
            float(np.mean([each.losses.mean() for each in draws])),
            float(np.mean([self._score(each.counts.sum(axis=0)) for each in draws])),
            (losses * weights).sum(axis=1),
            (scores * weights).sum(axis=1),
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a prompt can be read, and whether what is read carries what it does.

    Attributes
    ----------
    readable : whether the task direction points at the task's words beyond chance, or tokens are nearer to words that they did not start from than chance
        allows.
    necessary : whether the score falls when the task direction is taken out, by more than along random directions of the same size.
    sufficient : whether the initial values with the task direction alone score more than with random directions of the same size.
    words_work : whether the nearest words in place of the tokens score more than no prompt. Where nothing but an echo was read they are not asked for.
    causal : of what is readable, whether it is necessary, sufficient or works; where nothing is, of the direction. All beyond the 95 % interval: an effect too
        small for so many examples to show counts as none.
    effect : whether the prompt itself scores other than the bare model.
    label : the two in words.
    sentence : all of it, from the tests and nothing else.
    """

    readable: bool
    causal: bool
    necessary: bool
    sufficient: bool
    words_work: bool
    effect: bool
    label: str
    sentence: str


def judge(
    read: pd.DataFrame, table: pd.DataFrame, *, direction: TaskDirection | None = None, vocabulary: Vocabulary | None = None
) -> Verdict:
    """What the tests of one prompt come to.

    Parameters
    ----------
    read : of `analysis.readings.readings`.
    table : of `behaviour`.
    direction, vocabulary : the task direction with the task's words tested, and what it was scored against; None where no initial values are known.
    """
    rows = table.drop_duplicates("intervention").set_index("intervention")
    measure, whole = table["measure"].iloc[0], rows.loc[WHOLE]
    bare = rows.loc[NO_PROMPT]
    effect = not bare["score_low"] <= 0 <= bare["score_high"]
    parts = [_counted_verdicts(read["verdict"])]
    points = direction is not None and len(direction.word_ids) > 0 and direction.words_p < LEVEL
    necessary = sufficient = works = False
    if direction is not None and DIRECTION_OUT in rows.index:
        out, alone, start = rows.loc[DIRECTION_OUT], rows.loc[DIRECTION_ALONE], rows.loc[INITIAL]
        necessary = out["score_high"] < 0 and out["score_beside_high"] < 0
        sufficient = alone["score_beside_low"] > 0 and alone["score"] > start["score"]
        parts.append(_pointing(direction, vocabulary, points))
        parts.append(
            f"taking that direction out changes {measure} by {_with_interval(out, 'change')}, random directions of the same size by "
            f"{_with_interval(rows.loc[RANDOM_OUT], 'change')}"
        )
        parts.append(
            f"alone it takes the initial values from {start['score']:.2f} to {alone['score']:.2f}, {_with_interval(alone, 'beside')} beside random directions"
        )
    named = bool(read["verdict"].str.startswith(("learned", "near a word")).any())
    if named:
        words = rows.loc[WORDS]
        works = words["score_beside_low"] > 0
        parts.append(
            f"the nearest words in place of the tokens score {words['score']:.2f}, {_with_interval(words, 'beside')} beside no prompt"
        )
    readable = bool(points or named)
    carries = necessary or sufficient
    causal = bool((points and carries) or (named and works) or (not readable and carries))
    label = {
        (True, True): "readable and causal",
        (True, False): "readable, not causal",
        (False, True): "causal, not readable",
        (False, False): "neither readable nor causal",
    }[readable, causal]
    if not effect:
        parts.append(
            f"the prompt itself scores as the bare model does ({whole['score']:.2f} and {bare['score']:.2f}), so there is no effect to explain"
        )
    sentence = "; ".join(parts)
    return Verdict(
        readable=readable,
        causal=causal,
        necessary=bool(necessary),
        sufficient=bool(sufficient),
        words_work=bool(works),
        effect=bool(effect),
        label=label,
        sentence=f"{sentence[0].upper()}{sentence[1:]}: {label}.",
    )


_VERDICTS_SAID = {
    "learned": ("is near or moved along a word that it did not start from", "are near or moved along words that they did not start from"),
    "echo": ("echoes its initialisation", "echo their initialisation"),
    "near a word": ("is near a word", "are near words"),
    "unreadable": ("is unreadable", "are unreadable"),
}


def _counted_verdicts(verdicts: pd.Series) -> str:
    plain = verdicts.str.removesuffix(RECOVERED)
    counts = {verdict: int((plain == verdict).sum()) for verdict in _VERDICTS_SAID}
    said = [(count, _VERDICTS_SAID[verdict][count > 1]) for verdict, count in counts.items() if count]
    (first, words), *others = said
    text = listed([f"{first} of {len(plain)} tokens {words}", *(f"{count} {words}" for count, words in others)])
    return f"{text} (recovered initial values)" if (plain != verdicts).any() else text


def _pointing(direction: TaskDirection, vocabulary: Vocabulary | None, points: bool) -> str:
    if not len(direction.word_ids) or vocabulary is None:
        return f"their displacements share a direction (p {_p(direction.concentration_p)}), for which no words were tested"
    if not points:
        return f"together they do not point at the task's words (p {_p(direction.words_p)})"
    best = direction.word_ids[np.argsort(direction.ranks[direction.word_ids])][:3]
    return f"together they point at {listed([repr(vocabulary.tokens[i].strip()) for i in best])} (p {_p(direction.words_p)})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _with_interval(row: pd.Series, of: str) -> str:
    """A change of the score, or (`beside`) what it has beside its control, with the interval."""
    value = row["score_change" if of == "change" else "score_beside_control"]
    low, high = (row["score_low"], row["score_high"]) if of == "change" else (row["score_beside_low"], row["score_beside_high"])
    return f"{value:+.2f} (95 % interval {low:+.2f} to {high:+.2f})".replace("-", "−")
