"""The charts of methods hold the figures of their table."""

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.app.charts.methods import (
    METHOD_MARKS,
    _counted,
    method_scores,
    published_scores,
    score_by_size,
    score_by_trainable,
    score_over_sizes,
)
from soft_prompt_explorer.trained_prompts.experiments.comparison import published
from soft_prompt_explorer.trained_prompts.experiments.sizes import PROMPT_TUNING, kept, summary
from tests.support.comparisons import diverged, made_up
from tests.support.rows import seen


def test_the_rows_stand_in_the_order_of_the_table_over_the_band_of_zero_shot():
    chart = seen(method_scores(made_up(), alt="x"))
    assert [row.label for row in chart.rows] == [
        "zero-shot",
        "<b>{input}</b> is",
        "4 examples, then <b>{input}</b> is",
        "prompt tuning",
        "LoRA",
        "full fine-tuning",
    ]
    np.testing.assert_allclose(chart.bands, [(0.45, 0.55)], atol=1e-3)
    (lora,) = chart.rows[4].marks
    np.testing.assert_allclose([lora.value, *lora.interval], [0.66, 0.61, 0.71], atol=1e-3)
    assert chart.rows[4].written == "0.660" and "460.8 k trainable" in chart.rows[4].heard


def test_methods_differ_in_shape_as_well_as_colour():
    looks = seen(method_scores(made_up(), alt="x")).legend
    shapes, colours = (set(each) for each in zip(*looks.values(), strict=True))
    assert len(shapes) == len(colours) == len(looks) == 5


def test_what_trains_nothing_stands_at_none_left_of_every_size():
    figure = score_by_trainable(made_up())
    by_name = {trace.name: trace for trace in figure.data}
    untrained = [*by_name["zero-shot"].x, *by_name["prompt engineering"].x]
    assert figure.layout.xaxis.ticktext[0] == "none"
    assert max(untrained) < 1_000 < by_name["prompt tuning"].x[0] == 5_760
    assert len(set(untrained)) == 3  # side by side


def test_a_comparison_that_has_only_begun_can_be_drawn():
    figure = score_by_trainable(made_up().head(1))
    assert figure.layout.xaxis.ticktext[0] == "none"
    assert len(seen(method_scores(made_up().head(1), alt="x")).rows) == 1


def test_models_stand_in_the_order_of_their_size():
    table = pd.concat([made_up(model="/models/large/", better=0.1), made_up()], ignore_index=True)
    table = table.assign(total=np.where(table["model"] == "smollm2-135m", 134_515_008, 2_000_000_000))
    figure = score_by_size(table[table["method"] == "LoRA"])
    assert list(figure.layout.xaxis.ticktext) == ["134.5 M<br>smollm2-135m", "2 G<br>large"]
    np.testing.assert_allclose(figure.data[0].y, [0.66, 0.76])


def test_a_method_that_diverged_keeps_its_row_without_a_mark():
    table = diverged(made_up())
    for figure in (score_by_trainable(table), score_by_size(table.assign(total=134_515_008))):
        full = figure.data[-1]
        assert full.name == "full fine-tuning"
        assert np.isnan(np.array([*full.x, *full.y], dtype=float)).sum() == 1
    last = seen(method_scores(table, alt="x")).rows[-1]
    assert (last.label, last.written, last.marks) == ("full fine-tuning", "none", [])


@pytest.mark.parametrize("against", ["trainable", "total"])
def test_published_figures_have_open_marks_and_only_the_spreads_that_were_printed(against):
    table = published()
    rows = table[table["metric"] == "E2E NLG Challenge, BLEU"]
    marked = [trace for trace in published_scores(rows, against).data if trace.name]
    assert all(trace.marker.symbol.endswith("-open") for trace in marked)
    assert sum(len(trace.y) for trace in marked) == len(rows) == 12
    lora = next(trace for trace in marked if trace.name == "LoRA")
    full = next(trace for trace in marked if trace.name == "full fine-tuning")
    assert list(lora.error_y.array) == [0.1, 0.1]
    assert np.isnan(full.error_y.array).all()


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0"), (576, "576"), (5_760, "5.76 k"), (134_515_008, "134.5 M"), (175_255_800_000, "175.3 G")]
)
def test_counts_are_shown_short(number, shown):
    assert _counted(number) == shown


def test_every_published_figure_names_its_paper_and_table_and_has_a_mark():
    table = published()
    assert table.drop(columns="plus_minus").notna().all(axis=None)
    assert table["table"].str.fullmatch(r"Table \d+").all()
    assert set(table["method"]) <= set(METHOD_MARKS)
    assert (table["trainable"] <= table["total"]).all()
    assert (
        table.loc[table["method"] == "full fine-tuning", "trainable"] == table.loc[table["method"] == "full fine-tuning", "total"]
    ).all()


def test_the_lowest_and_the_highest_seed_have_open_marks_that_hide_with_their_method():
    told = summary(kept())
    rows = told[told["task"] == "past-tense"]
    figure = score_over_sizes(rows[rows["score"].notna()])
    seeds = [trace for trace in figure.data if str(trace.marker.symbol).endswith("-open")]
    assert {trace.legendgroup for trace in seeds} == {PROMPT_TUNING} and len(seeds) == 3
    expected = rows[rows["way"] == PROMPT_TUNING].sort_values("parameters")[["least", "most"]]
    np.testing.assert_allclose([trace.y for trace in seeds], expected)
    means = next(trace for trace in figure.data if trace.name == PROMPT_TUNING)
    np.testing.assert_allclose([trace.x[0] for trace in seeds], means.x)
    assert means.legendgroup == PROMPT_TUNING
