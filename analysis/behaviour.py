"""Does the reading explain the behaviour? What the model does with a prompt that has been changed, beside what it does with the whole one.

A word near a virtual token, or a direction that names the answers, is a correlation until the model has been asked. Each intervention changes the prompt
in one way, the same examples are asked again, and the change is given with a paired interval: the same resamples of the examples for both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.adapters import SoftPrompt
from analysis.direction import TaskDirection
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
SEED = 20_213
WORDS_NAMED = 3
_INTERVAL = (0.025, 0.975)
_ITSELF, _CHANGE, _BESIDE_CONTROL, _BESIDE_NO_PROMPT = _OF = ("", "_change", "_beside_control", "_beside_no_prompt")
_PARTS = ("", "_low", "_high")
MEASURED = [f"{what}{of}{part}" for of in _OF for what in ("loss", "score") for part in _PARTS]
COLUMNS = ["prompt", "task", "intervention", "position", "amount", "draws", "n", "measure", *MEASURED]

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


def interventions(prompt: SoftPrompt, vocabulary: Vocabulary, *, direction: TaskDirection | None = None) -> Iterator[Intervention]:
    """Every way in which a prompt is changed, the most telling first. What is drawn at random is the same for the same prompt.

    What needs initial values is left out where they are unknown, and what takes a direction out, where nothing moved.

    Parameters
    ----------
    direction : the prompt's own task direction, or that of all prompts of its task; None leaves it out.

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
    delta = None if start is None else displacements(prompt)
    moved = delta is not None and bool(delta.any())
    if moved and direction is not None:
        yield from _along(delta, start, unit_rows(direction.mean), rng, out=DIRECTION_OUT, alone=DIRECTION_ALONE)
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
    asked: dict[str, Answers] | None = None,
    report: Report = no_report,
    row_made: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """What the model does with the prompt changed in every way, beside the whole one.

    Prompts that come to the same rows are asked once.

    Parameters
    ----------
    direction : see `interventions`.
    asked : what an earlier call on the same examples was answered before it was stopped; each answer is added, and none asked for again.
    row_made : called with the table so far after every row.

    Returns
    -------
    A row an intervention, the whole prompt first: prompt, task, intervention (see `INTERVENTIONS`), position (of the one token that was changed), amount (t of
    the path, or the number of the principal direction), draws (random draws, over which the row is the mean), n (examples), measure, and four times loss (nats a
    token) and score with the bounds of a 95 % interval, each followed by _low and _high: as they are (loss, score), less those of the whole prompt (loss_change,
    score_change), of the control that `CONTROLS` names (loss_beside_control, …; missing where it names none) and of the bare model (loss_beside_no_prompt, …).

    The intervals are paired bootstraps over examples, and over draws where there are several (Efron and Tibshirani 1993, section 8.3), with the spread of few draws
    corrected by √(D / (D − 1)). Where an answer is right or wrong, two made-up examples are resampled along, one that only the one and one that only the other gets
    right (Bonett and Price 2012 do so for the Wald interval): without them four changed answers would seem beyond chance, and none to prove that nothing changed.

    Raises
    ------
    InputError
        As `interventions`, or an example does not fit into the model.
    """
    different = {_key(rows) for each in interventions(prompt, vocabulary, direction=direction) for rows in each.prompts}
    asked = {} if asked is None else asked

    def answers(rows: np.ndarray | None, name: str) -> Answers:
        key = _key(rows)
        if key not in asked:
            done = len(different & asked.keys())
            asked[key] = examples.ask(rows, lambda share, _: report((done + share) / len(different), f"asking the model: {name}"))
        return asked[key]

    resampling: _Resampling | None = None
    rows: list[dict[str, object]] = []
    results: dict[tuple[str, int | None, float | None], list[Answers]] = {}
    for each in interventions(prompt, vocabulary, direction=direction):
        found = results[each.name, each.position, each.amount] = [answers(values, each.name) for values in each.prompts]
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
            if control in results and each.name in (name, control[0]):
                row |= resampling.values(results[name, position, amount], results[control], _BESIDE_CONTROL)
        row_made(_table(rows))
    report(1.0, "ready")
    return _table(rows)


def _key(rows: np.ndarray | None) -> str:
    return "" if rows is None else f"{len(rows)} {hashlib.sha256(rows.tobytes()).hexdigest()}"


def _table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """The rows so far; what is not compared with anything is missing."""
    return pd.DataFrame(rows, columns=COLUMNS).astype({"position": "Int64", "amount": "float64", **dict.fromkeys(MEASURED, "float64")})


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
    """Whether a prompt can be read, and whether what is read carries what it does.

    Every test is of a 95 % interval: an effect too small for so many examples to show counts as none, and one test in forty finds an effect where there is none.

    Attributes
    ----------
    effect : whether the prompt scores other than the bare model. Without an effect nothing can be causal.
    points : whether the tokens share a direction beyond chance, and it points at the task's words beyond chance.
    necessary : whether the score falls when the task direction is taken out, and by more than along random directions of the same size.
    sufficient : whether the initial values with the task direction alone score more than with random directions of the same size, and more than no prompt:
        to undo words that were in the way is no behaviour that was learned.
    words_work : whether the nearest words in place of the tokens score more than no prompt, and more than the initial values, where these are known: else
        they may be the words that it started from.
    readable : whether the direction points at the task's words, a token is called learned, or its words work.
    causal : of what is readable, whether the direction is necessary or sufficient or the words work; where nothing is, of the direction.
    label : readable and causal, in words.
    sentence : all of it, from the tests and nothing else.
    """

    effect: bool
    points: bool
    necessary: bool
    sufficient: bool
    words_work: bool
    readable: bool
    causal: bool
    label: str
    sentence: str


@dataclass(frozen=True, eq=False)
class Judged:
    """What is known of a prompt that was asked: the tables of `behaviour` and of `analysis.readings.readings`, its task direction where it has one, and what they come to."""

    table: pd.DataFrame
    read: pd.DataFrame
    direction: TaskDirection | None
    verdict: Verdict


NO_EFFECT = "no effect shown"
LABELS = {
    (True, True): "readable and causal",
    (True, False): "readable, not causal",
    (False, True): "causal, not readable",
    (False, False): "neither readable nor causal",
}


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
    whole, bare, known = rows.loc[WHOLE], rows.loc[NO_PROMPT], INITIAL in rows.index
    effect = not bare["score_change_low"] <= 0 <= bare["score_change_high"]
    parts = [_counted_verdicts(read["verdict"])]
    points = direction is not None and len(direction.word_ids) > 0 and direction.words_p < LEVEL and direction.concentration_p < LEVEL
    necessary = sufficient = works = False
    if direction is not None and DIRECTION_OUT in rows.index:
        out, alone = rows.loc[DIRECTION_OUT], rows.loc[DIRECTION_ALONE]
        necessary = out["score_change_high"] < 0 and out["score_beside_control_high"] < 0
        sufficient = alone["score_beside_control_low"] > 0 and alone["score_beside_no_prompt_low"] > 0
        parts += [_pointing(direction, vocabulary, points), *_direction_tested(rows)]
    named = bool(read["verdict"].str.startswith(("learned", "near a word")).any())
    if named:
        words = rows.loc[WORDS]
        works = known and words["score_beside_no_prompt_low"] > 0 and words["score_beside_control_low"] > 0
        beside_start = f" and {_with_interval(words, 'score_beside_control')} beside its start" if known else ""
        parts.append(
            f"its words in place of the tokens score {words['score']:.2f}, {_with_interval(words, 'score_beside_no_prompt')} beside no prompt{beside_start}"
        )
    if not known:
        parts.append("what it started from is unknown, so a word near a token may be no more than its start")
    works = works and effect
    readable = bool(points or works or read["verdict"].str.startswith("learned").any())
    carries = effect and (necessary or sufficient)
    causal = bool((carries and (points or not readable)) or works)
    label = LABELS[readable, causal] if effect else NO_EFFECT
    if not effect:
        parts.append(f"the prompt is not shown to score other than no prompt does ({whole['score']:.2f} and {bare['score']:.2f})")
    start = f"On {whole['n']} examples of {whole['task']}: "
    return Verdict(
        effect=effect, points=bool(points), necessary=bool(necessary), sufficient=bool(sufficient), words_work=bool(works), readable=readable, causal=causal,
        label=label, sentence=f"{start}{'; '.join(parts)}: {label}.",
    )  # fmt: skip


def _direction_tested(rows: pd.DataFrame) -> list[str]:
    """What came of taking the direction out, and of keeping it alone."""
    out, random, alone, start = (rows.loc[name] for name in (DIRECTION_OUT, RANDOM_OUT, DIRECTION_ALONE, INITIAL))
    measure = out["measure"]
    return [
        f"taking that direction out changes {measure} by {_with_interval(out, 'score_change')} and the loss by {_with_interval(out, 'loss_change')}, "
        f"random directions of the same size by {signed(random['score_change'])} and {signed(random['loss_change'])}",
        f"alone it takes the initial values from {start['score']:.2f} to {alone['score']:.2f}, {_with_interval(alone, 'score_beside_control')} beside random "
        f"directions and {_with_interval(alone, 'score_beside_no_prompt')} beside no prompt",
    ]


_VERDICTS_SAID = {
    "learned": ("is near or moved along a word that it did not start from", "are near or moved along words that they did not start from"),
    "echo": ("echoes its initialisation", "echo their initialisation"),
    "near a word": ("is near a word", "are near words"),
    "unreadable": ("is unreadable", "are unreadable"),
}


def _counted_verdicts(verdicts: pd.Series) -> str:
    plain = verdicts.map(plain_verdict)
    counts = {verdict: int((plain == verdict).sum()) for verdict in _VERDICTS_SAID}
    said = [(count, _VERDICTS_SAID[verdict][count > 1]) for verdict, count in counts.items() if count]
    (first, words), *others = said
    text = listed([f"{first} of {len(plain)} tokens {words}", *(f"{count} {words}" for count, words in others)])
    marks = set(verdicts[plain != verdicts].str.extract(r" \((.*)\)$", expand=False))
    return f"{text} (initial values {listed(sorted(marks))})" if marks else text


def _pointing(direction: TaskDirection, vocabulary: Vocabulary | None, points: bool) -> str:
    if not len(direction.word_ids) or vocabulary is None:
        shared = "share a direction" if direction.concentration_p < LEVEL else "share no direction beyond chance"
        return f"together they {shared} (p {_p(direction.concentration_p)}), for which no words were tested"
    if not points:
        return f"together they do not point at the task's words (p {_p(direction.words_p)}; of a shared direction {_p(direction.concentration_p)})"
    few = direction.word_ids[np.argsort(direction.ranks[direction.word_ids])][:WORDS_NAMED]
    places = [f"{vocabulary.tokens[i].strip()!r} in place {direction.ranks[i]:,}" for i in few]
    named = listed(places) if len(direction.word_ids) <= WORDS_NAMED else f"median place {direction.words_median_rank:,.0f}"
    return f"together they point at the task's words ({named} of {len(vocabulary):,}, p {_p(direction.words_p)})"


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
