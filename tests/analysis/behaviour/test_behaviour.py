"""Interventions and their intervals against hand calculations."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from soft_prompt_explorer.analysis.behaviour.asked import COLUMNS, Examples, behaviour, lacks
from soft_prompt_explorer.analysis.behaviour.changes import CONTROLS, INTERVENTIONS, JUDGED_BY, interventions
from soft_prompt_explorer.analysis.behaviour.resampling import Answers
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import no_report
from soft_prompt_explorer.analysis.prompts.directions import task_direction
from tests.support.worlds import TOKENS, WIDTH, moved, word, world


def named(made, name, position=None, amount=None):
    return next(each for each in made if (each.name, each.position, each.amount) == (name, position, amount)).prompts


def test_what_was_asked_before_a_stop_is_not_asked_again(vocabulary, prompt):
    plain = world(np.eye(WIDTH)[0], prompt.initial)
    times, asked = [], {}

    def ask(rows, report):
        if len(times) == 9:
            raise KeyboardInterrupt
        times.append(rows)
        return plain.ask(rows, report)

    counted = Examples("toy", "accuracy", ask, plain.score)
    with pytest.raises(KeyboardInterrupt):
        behaviour(prompt, vocabulary, counted, asked=asked)
    times.append(None)  # past the stop
    shares = []
    table = behaviour(prompt, vocabulary, counted, asked=asked, report=lambda share, doing: shares.append(share))
    pd.testing.assert_frame_equal(table, behaviour(prompt, vocabulary, plain))
    assert len(times) - 1 == len(asked)
    assert shares[0] > 0.9 * 9 / len(asked)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_each_intervention_changes_what_its_name_says(vocabulary, prompt):
    answers = [word(7), word(8), word(9)]
    direction = task_direction([prompt], vocabulary, words=answers)
    twin = moved(vocabulary, -(prompt.embeddings - prompt.initial))
    made = list(interventions(prompt, vocabulary, direction=direction, twins=[twin]))
    assert {each.name for each in made} == set(INTERVENTIONS)
    np.testing.assert_array_equal(named(made, "twin on shuffled answers")[0], twin.embeddings)
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
    span = torch.tensor(vocabulary.embeddings[7:10] - vocabulary.mean, dtype=torch.float64)
    part = torch.linalg.lstsq(span.T, unit).solution @ span  # the part of the direction that three words span
    for name, values in (
        ("words' part out", rows - torch.outer(delta @ unit, part).numpy()),
        ("words' part alone", start + torch.outer(delta @ unit, part).numpy()),
        ("direction without words alone", start + torch.outer(delta @ unit, unit - part).numpy()),
    ):
        np.testing.assert_allclose(named(made, name)[0], values, atol=1e-5)
    principal = torch.linalg.svd(delta, full_matrices=False).Vh
    for out, alone, along, amount in (
        ("task direction out", "task direction alone", unit, None),
        ("principal direction out", "principal direction alone", principal[0], 1.0),
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
        list(interventions(replace(prompt, embeddings=prompt.embeddings[:, :5], initial=None), vocabulary))
    with pytest.raises(InputError, match="200 virtual tokens"):
        list(interventions(replace(prompt, embeddings=np.ones((201, WIDTH), np.float32), initial=None), vocabulary))


def test_changes_and_their_paired_intervals_are_those_of_scipy(vocabulary, prompt):
    examples = world(np.eye(WIDTH)[0] * 3, prompt.initial)
    table = behaviour(prompt, vocabulary, examples, direction=task_direction([prompt], vocabulary))
    assert table.columns.tolist() == COLUMNS
    whole, row = table.iloc[0], table[table["intervention"] == "initial values"].iloc[0]
    assert (whole["intervention"], whole["loss_change"], whole["loss_change_high"], whole["score_change"]) == ("whole prompt", 0, 0, 0)
    assert whole["score_change_low"] < 0 < whole["score_change_high"]  # that no answer of 60 changed does not prove that none would
    a, b, bare = (examples.ask(rows, no_report) for rows in (prompt.embeddings, prompt.initial, None))
    assert row["loss"] == pytest.approx(b.losses.mean())
    assert row["score"] == pytest.approx(b.counts[:, 0].mean())
    for of, other in (("change", a), ("beside_no_prompt", bare)):
        for what, before, after, made_up in (
            ("loss", other.losses, b.losses, ([], [])), ("score", other.counts[:, 0], b.counts[:, 0], ([0, 1], [1, 0])),
        ):  # fmt: skip
            assert row[f"{what}_{of}"] == pytest.approx((after - before).mean())
            pairs = np.concatenate([before, made_up[0]]), np.concatenate([after, made_up[1]])
            assert_interval_of_scipy(row, f"{what}_{of}", pairs, lambda x, y, axis: (y - x).mean(axis=axis), paired=True)
    assert_interval_of_scipy(row, "loss", (b.losses,), np.mean)
    assert_interval_of_scipy(row, "score", (np.concatenate([b.counts[:, 0], [0, 1]]),), np.mean)


def assert_interval_of_scipy(row, column, data, statistic, **options):
    expected = scipy.stats.bootstrap(
        data, statistic, vectorized=True, method="percentile", n_resamples=20_000, rng=1, **options
    ).confidence_interval
    spread = expected.high - expected.low
    assert row[f"{column}_low"] == pytest.approx(expected.low, abs=0.1 * spread + 1e-12)
    assert row[f"{column}_high"] == pytest.approx(expected.high, abs=0.1 * spread + 1e-12)


@pytest.mark.parametrize(("lost", "gained", "beyond"), [(4, 0, False), (6, 0, True), (0, 0, False), (10, 1, True), (8, 3, False)])
def test_few_changed_answers_are_not_beyond_chance_as_an_exact_test_of_pairs_has_it(vocabulary, lost, gained, beyond):
    """McNemar's exact test of the changed answers, beside the interval."""
    n = 200
    before, after = np.zeros(n), np.zeros(n)
    before[:lost], after[lost : lost + gained] = 1, 1
    prompt = moved(vocabulary, np.full((1, WIDTH), 0.1))
    whole = prompt.embeddings.tobytes()

    def ask(rows, report):
        right = before if rows is not None and rows.tobytes() == whole else after
        return Answers(np.ones(n), np.column_stack([right, np.ones(n)]))

    row = behaviour(prompt, vocabulary, Examples("toy", "accuracy", ask, lambda sums: sums[..., 0] / sums[..., 1])).iloc[2]
    assert row["score_change"] == pytest.approx((gained - lost) / n)
    assert (row["score_change_high"] < 0) == beyond
    assert not lost + gained or (scipy.stats.binomtest(lost, lost + gained).pvalue < 0.05) == beyond


def test_the_interval_of_a_mean_over_draws_is_as_wide_as_draws_differ(vocabulary, prompt):
    """Draws that differ and examples that do not: the interval is that of the mean of five, with the spread of five."""
    values = iter(np.random.default_rng(0).normal(size=1000))
    seen = {}

    def ask(rows, report):
        key = None if rows is None else rows.tobytes()
        value = seen.setdefault(key, next(values))
        return Answers(np.full(50, value), np.column_stack([np.full(50, value), np.ones(50)]))

    table = behaviour(prompt, vocabulary, Examples("toy", "a mean", ask, lambda sums: sums[..., 0] / sums[..., 1]))
    row = table[table["intervention"] == "random words"].iloc[0]
    drawn = [seen[rows.tobytes()] for rows in named(interventions(prompt, vocabulary), "random words")]
    assert row["draws"] == 5
    assert row["loss"] == pytest.approx(np.mean(drawn))
    width = 2 * 1.96 * np.std(drawn, ddof=1) / np.sqrt(5)
    assert row["loss_high"] - row["loss_low"] == pytest.approx(width, rel=0.15)
    assert row["score_high"] - row["score_low"] == pytest.approx(width, rel=0.15)


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
    assert control["loss_change_low"] < control["loss_change"] < control["loss_change_high"]
    assert out["loss_beside_control"] == pytest.approx(out["loss"] - control["loss"])
    assert out["loss_beside_control_low"] <= out["loss_beside_control"] <= out["loss_beside_control_high"]
    compared = table.loc[table["loss_beside_control"].notna(), "intervention"]
    assert set(compared) == set(CONTROLS)
    words, bare, start = (table[table["intervention"] == name].iloc[0] for name in ("nearest words", "no prompt", "initial values"))
    assert words["score_beside_control"] == pytest.approx(words["score"] - start["score"])
    assert words["score_beside_no_prompt"] == pytest.approx(words["score"] - bare["score"])
    assert table["score_beside_no_prompt"].notna().all()


def test_of_a_prompt_with_one_trained_token_that_token_has_the_whole_effect(vocabulary):
    drift = np.zeros((TOKENS, WIDTH))
    drift[4, 0] = 2.0
    prompt = moved(vocabulary, drift)
    examples = world(np.eye(WIDTH)[0] * 2, prompt.initial)
    table = behaviour(prompt, vocabulary, examples, direction=task_direction([prompt], vocabulary))
    back = table[table["intervention"] == "token at its initial value"].set_index("position")
    start = table[table["intervention"] == "initial values"].iloc[0]
    changes = [column for column in COLUMNS if "change" in column]
    assert start["loss_change"] > 0.1
    assert back.loc[4, changes].tolist() == start[changes].tolist()
    assert (back.drop(4)[["loss_change", "loss_change_low", "loss_change_high", "score_change"]] == 0).all(axis=None)


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


def test_what_was_kept_is_taken_over_and_only_what_it_lacks_is_asked(vocabulary, prompt):
    direction = task_direction([prompt], vocabulary, words=[word(5), word(6)])
    plain = world(direction.mean * 4, prompt.initial)
    whole = behaviour(prompt, vocabulary, plain, direction=direction)
    new = ["words' part out", "words' part alone", "direction without words alone"]
    old = whole[~whole["intervention"].isin(new)].drop(columns=["rank_p", "rank_draws"])
    assert lacks(old.reindex(columns=COLUMNS), prompt, vocabulary, direction=direction) and not lacks(
        whole, prompt, vocabulary, direction=direction
    )
    asked = {}
    again = behaviour(prompt, vocabulary, plain, direction=direction, before=old, asked=asked)
    pd.testing.assert_frame_equal(again, whole)
    assert len([key for key in asked if not key.startswith("few")]) == len(new) + 2  # the whole prompt and no prompt, to compare with
    times = []
    counted = Examples("toy", "accuracy", lambda rows, report: times.append(rows) or plain.ask(rows, report), plain.score)
    pd.testing.assert_frame_equal(behaviour(prompt, vocabulary, counted, direction=direction, before=whole), whole)
    assert not times


def test_what_no_verdict_rests_on_is_asked_quickly_and_compared_with_what_was_asked_so(vocabulary, prompt):
    direction = task_direction([prompt], vocabulary, words=[word(5), word(6)])
    exact, rough = world(direction.mean * 4, prompt.initial), replace(world(direction.mean * 3, prompt.initial), dtype="bfloat16")
    ways = {"exactly": exact, "roughly": rough, "both": replace(exact, quick=rough)}
    exactly, roughly, both = (behaviour(prompt, vocabulary, examples, direction=direction) for examples in ways.values())
    assert both["intervention"].tolist() == exactly["intervention"].tolist()
    judged = both["intervention"].isin(JUDGED_BY)
    pd.testing.assert_frame_equal(both[judged], exactly[judged])  # the ranks too
    assert both["rank_p"].notna().any()
    pd.testing.assert_frame_equal(both[~judged], roughly[~judged])
    assert set(both.loc[judged, "dtype"]) == {"float32"}
    assert set(both.loc[~judged, "dtype"]) == {"bfloat16"}
    assert not np.allclose(exactly.loc[~judged, "loss"], roughly.loc[~judged, "loss"])  # else nothing was tested


def test_the_rows_of_the_verdict_and_their_ranks_come_first(vocabulary, prompt):
    direction = task_direction([prompt], vocabulary, words=[word(5), word(6)])
    tables = []
    behaviour(prompt, vocabulary, world(direction.mean * 4, prompt.initial), direction=direction, row_made=tables.append)
    first = next(i for i, table in enumerate(tables) if not table["intervention"].isin(JUDGED_BY).all())
    assert set(tables[first - 1]["intervention"]) == set(tables[-1]["intervention"]) & JUDGED_BY
    assert tables[-1]["rank_p"].notna().any()
    assert tables[first - 1]["rank_p"].notna().sum() == tables[-1]["rank_p"].notna().sum()
