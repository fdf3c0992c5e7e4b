"""What the tests of a prompt come to: whether it can be read, and what carries what it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.behaviour.asked import to_be_ranked
from soft_prompt_explorer.analysis.behaviour.changes import (
    DIRECTION_ALONE,
    DIRECTION_OUT,
    INITIAL,
    NO_PROMPT,
    PART_ALONE,
    PART_OUT,
    RANDOM_OUT,
    REST_ALONE,
    TWIN,
    WHOLE,
    WORDS,
)
from soft_prompt_explorer.analysis.behaviour.resampling import INTERVAL
from soft_prompt_explorer.analysis.core.discoveries import q_values
from soft_prompt_explorer.analysis.core.words import listed, p_said, signed
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.directions import TaskDirection, points_beyond_twins
from soft_prompt_explorer.analysis.prompts.starts import plain_verdict
from soft_prompt_explorer.analysis.prompts.verdicts import LEVEL

WORDS_NAMED = 3


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
    """What is known of a prompt that was asked: the tables of `behaviour` and of `analysis.prompts.verdicts.readings`, its task direction where it has one, and what they come to."""

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
    twins_moved: int | None = None,
    scored: str | None = None,
) -> Verdict:
    """What the tests of one prompt come to.

    Parameters
    ----------
    read : of `analysis.prompts.verdicts.readings`.
    table : of `behaviour`.
    direction, vocabulary : the task direction with the task's words tested, and what it was scored against; None where no initial values are known.
    twins_moved : the largest number of tokens that moved along a word in a twin; None where no twin is at hand.
    scored : what the prompt scored on more examples than these, in words, where that is known.
    """
    rows = table.drop_duplicates("intervention").set_index("intervention")
    whole, bare, known, has_twin = rows.loc[WHOLE], rows.loc[NO_PROMPT], INITIAL in rows.index, TWIN in rows.index
    better = bare["score_change_high"] < 0
    format_only = bool(better and has_twin and not rows.loc[TWIN, "score_change_high"] < 0)
    effect = bool(better and not format_only)
    points, as_format, p_words = _pointed(direction)
    # As the words of the direction, a token's word may be the form of an answer, and is none that can be read where a twin has as many, or none is at hand.
    learned = twins_moved is not None and int(read["verdict"].str.startswith("moved along a word").sum()) > twins_moved
    p_tokens = float(q_values(read["p_learned"].dropna()).min()) if learned else 1.0
    claims = _claims(rows, named=bool(read["verdict"].str.startswith(("moved along a word", "near a word")).any()), known=known)
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
    from scipy.stats import norm

    width = row[f"{column}_high"] - row[f"{column}_low"]
    if pd.isna(width):
        return 1.0
    error = width / (2 * norm.ppf(INTERVAL[1]))
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
            if to_be_ranked(row.to_dict() | {"intervention": row.name})
            else ""
        )
    return f" (p {p_said(row['rank_p'])} among {int(row['rank_draws'])} other directions of the same size)"


_VERDICTS_SAID = {
    "moved along a word": ("moved along a word that it did not start from", "moved along words that they did not start from"),
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
    words = f"the task's words ({_places(direction, vocabulary)}, p {p_said(direction.words_p)})"
    if points:
        return f"together they point at {words}, also once the direction of {twins} trained on shuffled answers is taken off (p {p_said(direction.beyond_twin_p)})"
    if as_format and not direction.twins:
        return f"together they point at {words}, which may be the form of an answer: no twin trained on shuffled answers is at hand"
    if as_format:
        return (
            f"together they point at {words}, and {twins} trained on shuffled answers {'does' if direction.twins == 1 else 'do'} so too (p {p_said(direction.twin_words_p)} there, and "
            f"{p_said(direction.beyond_twin_p)} once its direction is taken off): that is the form of an answer"
            if direction.twin_words_p < LEVEL
            else f"together they point at {words}, but not once the direction of {twins} trained on shuffled answers is taken off (p {p_said(direction.beyond_twin_p)}): that is the form of an answer"
        )
    twin_does = direction.twins and direction.twin_words_p * direction.twins < LEVEL
    beside = (
        f", as {twins} trained on shuffled answers {'does' if direction.twins == 1 else 'do'} (p {p_said(direction.twin_words_p)})"
        if twin_does
        else ""
    )
    return f"together they do not point at the task's words (p {p_said(direction.words_p)}){beside}"


def _places(direction: TaskDirection, vocabulary: Vocabulary) -> str:
    few = direction.word_ids[np.argsort(direction.ranks[direction.word_ids])][:WORDS_NAMED]
    places = [f"{vocabulary.tokens[i]!r} in place {direction.ranks[i]:,}" for i in few]
    named = listed(places) if len(direction.word_ids) <= WORDS_NAMED else f"median place {direction.words_median_rank:,.0f}"
    return f"{named} of {len(vocabulary):,}"


def _with_interval(row: pd.Series, column: str) -> str:
    return f"{signed(row[column])} (95 % interval {signed(row[f'{column}_low'])} to {signed(row[f'{column}_high'])})"
