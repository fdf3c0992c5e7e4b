"""Verdicts in a world where it is known what carries the behaviour."""

import re
from dataclasses import replace

import numpy as np
import pytest

from soft_prompt_explorer.analysis.behaviour.asked import Examples, behaviour
from soft_prompt_explorer.analysis.behaviour.changes import interventions
from soft_prompt_explorer.analysis.behaviour.resampling import Answers
from soft_prompt_explorer.analysis.behaviour.verdict import judge
from soft_prompt_explorer.analysis.core.progress import no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.directions import task_direction
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from tests.support.worlds import TOKENS, WIDTH, moved, word, world


@pytest.mark.parametrize(("points", "carries"), [(True, True), (True, False), (False, True), (False, False)])
def test_the_verdict_is_what_was_planted(vocabulary, points, carries):
    """All tokens drift along two directions: along words or not, and that drift is what the answers come from or is not."""
    rng = np.random.default_rng(3)
    words = [word(300), word(301)]
    towards = vocabulary.embeddings[[300, 301]].mean(axis=0) - vocabulary.mean
    towards /= np.linalg.norm(towards)
    away = -towards
    shared = towards if points else away
    hidden = np.linalg.qr(np.column_stack([towards, rng.standard_normal(WIDTH)]))[0][:, 1]
    signs = np.where(np.arange(TOKENS) < TOKENS - 1, 1.0, 1 - TOKENS)[:, None]  # of the hidden drift, the tokens share no direction
    prompt = moved(vocabulary, 0.8 * shared + 0.35 * signs * hidden)
    start = prompt.initial
    examples = world(shared, start) if carries else last_token_world(hidden, start)
    twin = moved(
        vocabulary, 0.8 * np.linalg.qr(np.column_stack([towards, hidden, rng.standard_normal(WIDTH)]))[0][:, 2] + np.zeros((TOKENS, 1))
    )
    direction = task_direction([prompt], vocabulary, words=words, twins=[twin])
    assert (direction.words_p < 0.05) == (direction.beyond_twin_p < 0.05) == points
    table = behaviour(prompt, vocabulary, examples, direction=direction)
    read = readings(prompt, vocabulary)
    verdict = judge(read.assign(verdict="echo"), table, direction=direction, vocabulary=vocabulary)
    assert (verdict.readable, verdict.causal, verdict.effect) == (points, carries, True)
    assert verdict.words_act == (points and carries)  # the direction is that of the words
    without = judge(read.assign(verdict="echo"), table, direction=task_direction([prompt], vocabulary, words=words), vocabulary=vocabulary)
    assert not without.readable and without.as_format == points  # without a twin it may be the form of an answer
    assert verdict.sentence.startswith("On 60 examples of toy: 6 of 6 tokens echo their initialisation; together they ")
    assert verdict.sentence.endswith(f": {verdict.label}.")
    assert (word(300).strip() in verdict.sentence) == points


def last_token_world(carrier: np.ndarray, start: np.ndarray) -> Examples:
    """A model that looks at the last token alone."""
    inner = world(-carrier, start[-1:])
    return replace(inner, ask=lambda rows, report: inner.ask(None if rows is None else rows[-1:], report))


def test_a_direction_that_only_makes_up_for_words_in_the_way_is_not_called_sufficient(vocabulary, prompt):
    """Without any prompt the model does as well as with the direction alone: what was learned is not shown to be in it."""
    direction = task_direction([prompt], vocabulary)
    inner = world(3 * direction.mean / np.linalg.norm(direction.mean), prompt.initial)
    good = Answers(np.zeros(60), np.ones((60, 2)))
    found = []
    alone = next(each.prompts[0] for each in interventions(prompt, vocabulary, direction=direction) if each.name == "task direction alone")
    for bare in (inner.ask(None, no_report), good, inner.ask(alone, no_report)):
        examples = replace(inner, ask=lambda rows, report, bare=bare: bare if rows is None else inner.ask(rows, report))
        table = behaviour(prompt, vocabulary, examples, direction=direction)
        found.append(judge(readings(prompt, vocabulary), table, direction=direction, vocabulary=vocabulary))
    assert [verdict.sufficient for verdict in found] == [True, False, False]


def test_the_sentence_holds_the_figures_of_the_table(vocabulary, prompt):
    direction = task_direction([prompt], vocabulary, words=[word(5)])
    table = behaviour(prompt, vocabulary, world(direction.mean * 4, prompt.initial), direction=direction)
    read = readings(prompt, vocabulary).assign(verdict=["moved along a word", "echo", "echo", "unreadable", "near a word", "echo"])
    sentence = judge(read, table, direction=direction, vocabulary=vocabulary).sentence
    assert (
        "1 of 6 tokens moved along a word that it did not start from, 3 echo their initialisation, 1 is near a word and 1 is unreadable"
        in sentence
    )
    figures = [float(figure.replace("−", "-")) for figure in re.findall(r"[+−]\d\.\d\d", sentence)]
    rows = table.drop_duplicates("intervention").set_index("intervention")
    out, random, alone, words = (
        rows.loc[name] for name in ("task direction out", "random direction out", "task direction alone", "nearest words")
    )

    def with_interval(row, column):
        return row[[column, f"{column}_low", f"{column}_high"]]

    expected = [
        *with_interval(out, "score_change"), *with_interval(out, "loss_change"), random["score_change"], random["loss_change"],
        *with_interval(alone, "score_beside_control"), *with_interval(alone, "score_beside_no_prompt"),
        *with_interval(words, "score_beside_no_prompt"), *with_interval(words, "score_beside_control"),
    ]  # fmt: skip
    assert figures == pytest.approx(expected, abs=0.0051)


def words_world(vocabulary, prompt, *, good: bool, bare: float = 0.1) -> Examples:
    """A model that does well where the last row is that of a word that the prompt did not start from."""
    target = vocabulary.embeddings[399]

    def ask(rows, report):
        rate = (
            bare
            if rows is None
            else 0.9
            if np.allclose(rows[-1], target, atol=0.5) and (good or not np.array_equal(rows[-1], target))
            else 0.1
        )
        right = np.arange(100) < 100 * rate
        return Answers(1.0 - right, np.column_stack([right, np.ones(100)]).astype(np.float64))

    return Examples("toy", "accuracy", ask, lambda sums: sums[..., 0] / sums[..., 1])


@pytest.mark.parametrize(("good", "bare", "works"), [(True, 0.1, True), (False, 0.1, False), (True, 0.85, False)])
def test_words_work_where_they_beat_no_prompt_and_the_start(vocabulary, prompt, good, bare, works):
    rows = prompt.embeddings.copy()
    rows[-1] = vocabulary.embeddings[399] + 0.01
    prompt = replace(prompt, embeddings=rows)
    table = behaviour(prompt, vocabulary, words_world(vocabulary, prompt, good=good, bare=bare))
    verdict = judge(readings(prompt, vocabulary).assign(verdict=["echo"] * 5 + ["near a word"]), table)
    assert verdict.words_work == works
    assert verdict.causal == verdict.readable == works
    unknown = replace(prompt, initial=None)
    verdict = judge(
        readings(unknown, vocabulary).assign(verdict="near a word"),
        behaviour(unknown, vocabulary, words_world(vocabulary, prompt, good=True)),
    )
    assert not verdict.words_work and not verdict.readable
    assert "what it started from is unknown" in verdict.sentence


def test_a_prompt_that_changes_nothing_has_no_effect_to_explain(vocabulary, prompt):
    direction = task_direction([prompt], vocabulary, words=[word(5)])
    carried = world(3 * direction.mean / np.linalg.norm(direction.mean), prompt.initial)
    whole = carried.ask(prompt.embeddings, no_report)
    examples = replace(carried, ask=lambda rows, report: whole if rows is None else carried.ask(rows, report))
    verdict = judge(
        readings(prompt, vocabulary),
        behaviour(prompt, vocabulary, examples, direction=direction),
        direction=direction,
        vocabulary=vocabulary,
    )
    assert (verdict.effect, verdict.necessary, verdict.causal, verdict.label) == (False, False, False, "too few examples to tell")
    assert "60 examples are too few to tell these apart: too few" in verdict.sentence
    more = judge(readings(prompt, vocabulary), behaviour(prompt, vocabulary, examples), scored="on 900 examples it scores more")
    assert "too few to tell these apart; on 900 examples it scores more: too few" in more.sentence


def test_what_a_twin_does_as_well_is_the_form_of_an_answer(vocabulary, prompt):
    direction = task_direction([prompt], vocabulary)
    carrier = 3 * direction.mean / np.linalg.norm(direction.mean)
    examples = world(carrier, prompt.initial)
    nothing = moved(vocabulary, np.random.default_rng(8).standard_normal((TOKENS, WIDTH)) * 1e-3)
    as_good = replace(prompt, name="it, shuffled 1")
    labels = {}
    for twin in (nothing, as_good):
        direction = task_direction([prompt], vocabulary, twins=[twin])
        table = behaviour(prompt, vocabulary, examples, direction=direction, twins=[twin])
        verdict = judge(readings(prompt, vocabulary), table, direction=direction, vocabulary=vocabulary)
        labels[twin.name] = (verdict.label, verdict.effect, verdict.format_only, verdict.causal)
    assert labels["it"] == ("causal, not readable", True, False, True)
    assert labels["it, shuffled 1"] == ("no more than the form of an answer", False, True, False)


def test_a_direction_that_reads_the_same_on_a_twin_names_the_form_of_an_answer(vocabulary):
    towards = vocabulary.embeddings[[300, 301]].mean(axis=0) - vocabulary.mean
    noise = np.random.default_rng(4).standard_normal((2, TOKENS, WIDTH)) * 0.1
    prompt, twin = (moved(vocabulary, 0.5 * towards + each) for each in noise)
    direction = task_direction([prompt], vocabulary, words=[word(300), word(301)], twins=[twin])
    assert direction.words_p < 0.05 and direction.twin_words_p < 0.05 <= direction.beyond_twin_p
    table = behaviour(prompt, vocabulary, world(towards, prompt.initial), direction=direction)
    verdict = judge(readings(prompt, vocabulary).assign(verdict="echo"), table, direction=direction, vocabulary=vocabulary)
    assert (verdict.points, verdict.as_format, verdict.readable) == (False, True, False)
    assert "that is the form of an answer" in verdict.sentence


def test_words_do_not_act_where_the_rest_of_the_direction_does(vocabulary):
    """The direction points at words, and the answers come from the part of it that the words do not span."""
    rng = np.random.default_rng(6)
    towards = vocabulary.embeddings[[300, 301]].mean(axis=0) - vocabulary.mean
    towards /= np.linalg.norm(towards)
    span = np.linalg.qr(np.column_stack([towards, vocabulary.embeddings[300], vocabulary.embeddings[301], rng.standard_normal(WIDTH)]))[0]
    rest = span[:, 3]
    prompt = moved(vocabulary, np.tile(0.6 * towards + 0.6 * rest, (TOKENS, 1)) + 0.02 * rng.standard_normal((TOKENS, WIDTH)))
    twin = moved(vocabulary, 0.3 * rng.standard_normal((TOKENS, WIDTH)))
    direction = task_direction([prompt], vocabulary, words=[word(300), word(301)], twins=[twin])
    table = behaviour(prompt, vocabulary, world(rest, prompt.initial), direction=direction, twins=[twin])
    verdict = judge(readings(prompt, vocabulary).assign(verdict="echo"), table, direction=direction, vocabulary=vocabulary)
    assert verdict.points and verdict.sufficient and not verdict.words_act
    assert verdict.label == "readable, and causal otherwise"


def test_the_rank_of_a_direction_that_has_nothing_to_do_with_the_answers_is_uniform():
    """Of 400 prompts and models that know nothing of one another at most 7 % have a rank at 0.05, whichever way the direction is put in."""
    from soft_prompt_explorer.analysis.behaviour.changes import RANKED, matched
    from soft_prompt_explorer.analysis.prompts.search import unit_rows
    from soft_prompt_explorer.analysis.prompts.verdicts import displacements

    rng = np.random.default_rng(12)
    rows = rng.standard_normal((400, WIDTH)).astype(np.float32)
    vocabulary = Vocabulary.from_embeddings([word(i) for i in range(400)], rows)
    found = {"alone": [], "out": []}
    for i in range(400):
        shared = rng.standard_normal(WIDTH) * 0.5
        prompt = moved(vocabulary, shared + rng.standard_normal((TOKENS, WIDTH)) * 0.5, name=f"p{i}")
        delta, carrier = displacements(prompt), rng.standard_normal(WIDTH)
        towards = unit_rows(unit_rows(delta).mean(axis=0))
        along = (delta @ towards)[:, None]
        others = rng.standard_normal((20, WIDTH))

        def effect(displacement, carrier=carrier):
            return displacement.mean(axis=0) @ carrier

        own = effect(along * towards)
        drawn = matched(delta, along, towards, vocabulary, others, rng)
        null = [effect(next(drawn)) for _ in range(RANKED)]
        assert np.linalg.norm(next(drawn)) == pytest.approx(np.linalg.norm(along))
        found["alone"].append((1 + sum(each >= own for each in null)) / (1 + RANKED))
        found["out"].append((1 + sum(-each >= -own for each in null)) / (1 + RANKED))
    shares = {how: np.mean(np.array(ps) <= 0.05) for how, ps in found.items()}
    assert max(shares.values()) <= 0.07, shares
