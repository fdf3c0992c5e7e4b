"""Interventions and their intervals against hand calculations; verdicts in a world where it is known what carries the behaviour."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from analysis.adapters import SoftPrompt
from analysis.behaviour import COLUMNS, CONTROLS, INTERVENTIONS, Answers, Examples, behaviour, interventions, judge
from analysis.direction import task_direction
from analysis.errors import InputError
from analysis.models import no_report
from analysis.readings import readings
from analysis.vocabulary import Vocabulary

WIDTH, TOKENS = 24, 6


@pytest.fixture(scope="module")
def vocabulary():
    rows = np.random.default_rng(0).standard_normal((400, WIDTH)).astype(np.float32)
    return Vocabulary.from_embeddings([word(i) for i in range(400)], rows)


def word(i: int) -> str:
    """A whole word of letters, another one for each number."""
    return " word" + "".join(chr(ord("a") + int(digit)) for digit in f"{i:03d}")


def moved(vocabulary, drift: np.ndarray, name="it") -> SoftPrompt:
    """Rows of the vocabulary, moved."""
    start = np.array(vocabulary.embeddings[10 : 10 + len(drift)])
    return SoftPrompt(name, (start + drift).astype(np.float32), start, None, None, None)


@pytest.fixture
def prompt(vocabulary):
    return moved(vocabulary, 0.3 * np.random.default_rng(1).standard_normal((TOKENS, WIDTH)))


def world(carrier: np.ndarray, start: np.ndarray, *, n=60) -> Examples:
    """A model that gets the more examples right the further the prompt's mean has gone along one direction from where it started."""
    thresholds = np.linspace(-0.2, 0.8, n)

    def ask(rows, report):
        report(1.0, "asked")
        gone = 0.0 if rows is None else float((rows.astype(np.float64).mean(axis=0) - start.mean(axis=0)) @ carrier)
        right = gone > thresholds
        return Answers(np.logaddexp(0, 4 * (thresholds - gone)), np.column_stack([right, np.ones(n)]).astype(np.float64))

    return Examples("toy", "accuracy", ask, lambda sums: sums[..., 0] / sums[..., 1])


def named(made, name, position=None, amount=None):
    return next(each for each in made if (each.name, each.position, each.amount) == (name, position, amount)).prompts


def test_each_intervention_changes_what_its_name_says(vocabulary, prompt):
    direction = task_direction([prompt], vocabulary)
    made = interventions(prompt, vocabulary, direction=direction)
    assert {each.name for each in made} == set(INTERVENTIONS)
    rows, start = prompt.embeddings, prompt.initial
    delta = torch.tensor(rows - start, dtype=torch.float64)
    unit = torch.tensor(direction.mean / np.linalg.norm(direction.mean))
    centred = vocabulary.embeddings - vocabulary.mean
    cosines = (rows - vocabulary.mean) @ centred.T / np.linalg.norm(centred, axis=1)
    nearest = vocabulary.embeddings[cosines.argmax(axis=1)]

    assert named(made, "no prompt") == (None,)
    np.testing.assert_array_equal(named(made, "nearest words")[0], nearest)
    np.testing.assert_array_equal(named(made, "token dropped", 2)[0], rows[[0, 1, 3, 4, 5]])
    for name, values in (
        ("token at its nearest word", nearest[2]),
        ("token at its initial value", start[2]),
        ("token at the mean", vocabulary.mean),
    ):
        (changed,) = named(made, name, 2)
        np.testing.assert_allclose(changed[2], values, rtol=1e-6)
        np.testing.assert_array_equal(np.delete(changed, 2, axis=0), np.delete(rows, 2, axis=0))
    np.testing.assert_allclose(named(made, "path", amount=0.25)[0], start + 0.25 * (rows - start), atol=1e-6)
    shuffled = named(made, "order shuffled")
    assert len(shuffled) > 1
    for values in shuffled:
        assert not np.array_equal(values, rows)
        np.testing.assert_array_equal(np.sort(values, axis=0), np.sort(rows, axis=0))
    principal = torch.linalg.svd(delta, full_matrices=False).Vh
    for out, alone, along, amount in (
        ("task direction out", "task direction alone", unit, None),
        ("principal direction out", "principal direction alone", principal[0], 1.0),
        ("principal direction out", "principal direction alone", principal[1], 2.0),
    ):
        size = delta @ along
        np.testing.assert_allclose(named(made, out, amount=amount)[0], rows - torch.outer(size, along).numpy(), atol=1e-5)
        np.testing.assert_allclose(named(made, alone, amount=amount)[0], start + torch.outer(size, along).numpy(), atol=1e-5)
        for name, end in ((out, rows), (alone, start)):
            for values in named(made, CONTROLS[name], amount=amount):  # as far from the same place, along another direction
                step = torch.tensor(values - end, dtype=torch.float64)
                np.testing.assert_allclose(step.norm(dim=1), size.abs(), atol=1e-5)
                assert torch.linalg.matrix_rank(step, tol=1e-4) == 1
                assert abs(step[0] @ along / step[0].norm()) < 0.9
    for values in named(made, "random words"):
        assert all((vocabulary.embeddings == row).all(axis=1).any() for row in values)


def test_what_cannot_be_changed_is_left_out(vocabulary, prompt):
    unknown = {each.name for each in interventions(replace(prompt, initial=None), vocabulary)}
    assert unknown == {
        "whole prompt", "no prompt", "nearest words", "token dropped", "token at its nearest word", "token at the mean", "order shuffled", "random words",
    }  # fmt: skip
    unmoved = {each.name for each in interventions(prompt.at_start(), vocabulary)}
    assert unmoved == unknown | {"initial values", "token at its initial value"}
    one = replace(prompt, embeddings=prompt.embeddings[:1], initial=None)
    assert named(interventions(one, vocabulary), "token dropped", 0) == (None,)
    with pytest.raises(InputError, match="wide"):
        interventions(replace(prompt, embeddings=prompt.embeddings[:, :5], initial=None), vocabulary)


def test_changes_and_their_paired_intervals_are_those_of_scipy(vocabulary, prompt):
    examples = world(np.eye(WIDTH)[0] * 3, prompt.initial)
    table = behaviour(prompt, vocabulary, examples, direction=task_direction([prompt], vocabulary))
    assert table.columns.tolist() == COLUMNS
    whole, row = table.iloc[0], table[table["intervention"] == "initial values"].iloc[0]
    assert (whole["intervention"], whole["loss_change"], whole["score_low"], whole["score_high"]) == ("whole prompt", 0, 0, 0)
    a, b = (examples.ask(rows, no_report) for rows in (prompt.embeddings, prompt.initial))
    assert row["loss"] == pytest.approx(b.losses.mean())
    assert row["score"] == pytest.approx(b.counts[:, 0].mean())
    for what, before, after in (("loss", a.losses, b.losses), ("score", a.counts[:, 0], b.counts[:, 0])):
        assert row[f"{what}_change"] == pytest.approx((after - before).mean())
        expected = scipy.stats.bootstrap(
            (before, after), lambda x, y, axis: (y - x).mean(axis=axis), paired=True, vectorized=True, method="percentile", n_resamples=20_000, rng=1
        ).confidence_interval  # fmt: skip
        spread = expected.high - expected.low
        assert row[f"{what}_low"] == pytest.approx(expected.low, abs=0.1 * spread)
        assert row[f"{what}_high"] == pytest.approx(expected.high, abs=0.1 * spread)


def test_a_control_of_several_draws_is_their_mean_and_the_direction_stands_beside_it(vocabulary, prompt):
    examples = world(np.eye(WIDTH)[0] * 3, prompt.initial)
    direction = task_direction([prompt], vocabulary)
    table = behaviour(prompt, vocabulary, examples, direction=direction)
    losses = [
        examples.ask(rows, no_report).losses.mean()
        for rows in named(interventions(prompt, vocabulary, direction=direction), "random direction out")
    ]
    control = table[table["intervention"] == "random direction out"].iloc[0]
    out = table[table["intervention"] == "task direction out"].iloc[0]
    assert control["draws"] == len(losses) > 1
    assert control["loss"] == pytest.approx(np.mean(losses))
    assert control["loss_low"] < control["loss_change"] < control["loss_high"]
    assert out["loss_beside_control"] == pytest.approx(out["loss"] - control["loss"])
    assert out["loss_beside_low"] <= out["loss_beside_control"] <= out["loss_beside_high"]
    compared = table.loc[table["loss_beside_control"].notna(), "intervention"]
    assert set(compared) == set(CONTROLS)
    words, bare = (table[table["intervention"] == name].iloc[0] for name in ("nearest words", "no prompt"))
    assert words["score_beside_control"] == pytest.approx(words["score"] - bare["score"])


def test_of_a_prompt_with_one_trained_token_that_token_has_the_whole_effect(vocabulary):
    drift = np.zeros((TOKENS, WIDTH))
    drift[4, 0] = 2.0
    prompt = moved(vocabulary, drift)
    examples = world(np.eye(WIDTH)[0] * 2, prompt.initial)
    table = behaviour(prompt, vocabulary, examples, direction=task_direction([prompt], vocabulary))
    back = table[table["intervention"] == "token at its initial value"].set_index("position")
    start = table[table["intervention"] == "initial values"].iloc[0]
    changes = [column for column in COLUMNS if column.split("_")[-1] in ("change", "low", "high") and "beside" not in column]
    assert start["loss_change"] > 0.1
    assert back.loc[4, changes].tolist() == start[changes].tolist()
    assert (back.drop(4)[changes] == 0).all(axis=None)


def test_prompts_that_come_to_the_same_are_asked_once_and_rows_come_as_they_are_made(vocabulary, prompt):
    asked, seen, told = [], [], []
    inner = world(np.eye(WIDTH)[0], prompt.initial)

    def ask(rows, report):
        asked.append(None if rows is None else rows.tobytes())
        return inner.ask(rows, report)

    table = behaviour(
        prompt, vocabulary, replace(inner, ask=ask), row_made=lambda so_far: seen.append(len(so_far)), report=lambda share, doing: told.append(share)
    )  # fmt: skip
    assert len(asked) == len(set(asked)) < table["draws"].sum()  # an echo's nearest word is its initial value
    assert seen == list(range(1, len(table) + 1))
    assert told == sorted(told) and told[-1] == 1.0


def test_a_stopped_run_stops_where_it_reports(vocabulary, prompt):
    class StoppedError(Exception):
        pass

    def report(share, doing):
        if share > 0.1:
            raise StoppedError

    with pytest.raises(StoppedError):
        behaviour(prompt, vocabulary, world(np.eye(WIDTH)[0], prompt.initial), report=report)


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
    direction = task_direction([prompt], vocabulary, words=words)
    assert (direction.words_p < 0.05) == points
    table = behaviour(prompt, vocabulary, examples, direction=direction)
    read = readings(prompt, vocabulary)
    verdict = judge(read.assign(verdict="echo"), table, direction=direction, vocabulary=vocabulary)
    assert (verdict.readable, verdict.causal, verdict.effect) == (points, carries, True)
    assert verdict.sentence.startswith("6 of 6 tokens echo their initialisation; together they ")
    assert verdict.sentence.endswith(f": {verdict.label}.")
    assert (word(300).strip() in verdict.sentence) == points


def last_token_world(carrier: np.ndarray, start: np.ndarray) -> Examples:
    """A model that looks at the last token alone."""
    inner = world(-carrier, start[-1:])
    return replace(inner, ask=lambda rows, report: inner.ask(None if rows is None else rows[-1:], report))


def test_the_sentence_holds_the_figures_of_the_table(vocabulary, prompt):
    direction = task_direction([prompt], vocabulary, words=[word(5)])
    table = behaviour(prompt, vocabulary, world(direction.mean * 4, prompt.initial), direction=direction)
    read = readings(prompt, vocabulary).assign(verdict=["learned", "echo", "echo", "unreadable", "near a word", "echo"])
    sentence = judge(read, table, direction=direction, vocabulary=vocabulary).sentence
    assert (
        "1 of 6 tokens is near or moved along a word that it did not start from, 3 echo their initialisation, 1 is near a word and 1 is unreadable"
        in sentence
    )
    figures = [float(figure.replace("−", "-")) for figure in re.findall(r"[+−]\d\.\d\d", sentence)]
    rows = table.drop_duplicates("intervention").set_index("intervention")
    out, random, alone, words = (
        rows.loc[name] for name in ("task direction out", "random direction out", "task direction alone", "nearest words")
    )
    beside = ["score_beside_control", "score_beside_low", "score_beside_high"]
    change = ["score_change", "score_low", "score_high"]
    assert figures == pytest.approx([*out[change], *random[change], *alone[beside], *words[beside]], abs=0.0051)


def test_a_prompt_that_changes_nothing_has_no_effect_to_explain(vocabulary, prompt):
    still = Examples("toy", "accuracy", lambda rows, report: Answers(np.ones(9), np.ones((9, 2))), lambda sums: sums[..., 0] / sums[..., 1])
    verdict = judge(readings(prompt, vocabulary).assign(verdict="echo"), behaviour(prompt, vocabulary, still))
    assert not verdict.effect and not verdict.causal
    assert "no effect to explain" in verdict.sentence
    assert isinstance(readings(prompt, vocabulary), pd.DataFrame)
