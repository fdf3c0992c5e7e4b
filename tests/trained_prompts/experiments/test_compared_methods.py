"""What is said of compared methods keeps to their intervals, and what papers published is named with its place."""

import pandas as pd
import pytest

from soft_prompt_explorer.trained_prompts.experiments.comparison import (
    COLUMNS,
    SHIPPED,
    beside_zero_shot,
    best_of_each_method,
    published,
    told_apart,
)
from tests.support.comparisons import diverged, made_up


def test_a_row_is_beyond_zero_shot_only_where_the_intervals_have_nothing_in_common():
    assert beside_zero_shot(made_up()).tolist() == ["within", "below", "within", "within", "above", "above"]


def test_what_diverged_is_neither_told_apart_nor_not():
    assert beside_zero_shot(diverged(made_up())).tolist() == ["within", "below", "within", "within", "above", "no score"]
    best = best_of_each_method(diverged(made_up()))
    assert best["method"].tolist() == ["zero-shot", "prompt engineering", "prompt tuning", "LoRA", "full fine-tuning"]
    assert best["score"].isna().tolist() == [False] * 4 + [True]


def test_comparisons_are_told_apart_though_they_are_of_one_task_and_model():
    table = told_apart(pd.concat([made_up(), made_up(), made_up("capitals").head(1)], ignore_index=True))
    assert table["comparison"].tolist() == [1] * 6 + [2] * 6 + [3]


def test_of_prompt_engineering_the_best_prompt_is_kept():
    best = best_of_each_method(made_up())
    assert best["method"].tolist() == ["zero-shot", "prompt engineering", "prompt tuning", "LoRA", "full fine-tuning"]
    assert best["score"].tolist()[:2] == [0.50, 0.58]


@pytest.mark.parametrize(
    ("model", "layers", "width", "rank"), [("RoBERTa base", 12, 768, 8), ("RoBERTa large", 24, 1024, 8), ("DeBERTa XXL", 48, 1536, 16)]
)
def test_the_published_sizes_of_loras_are_those_of_the_papers_own_formula(model, layers, width, rank):
    rows = published().query("model == @model and method == 'LoRA'")
    assert (
        rows["trainable"] == round(2 * (2 * layers) * width * rank, -5)
    ).all()  # |Θ| = 2 · L · d · r, q and v in each layer; printed to 0.1 M


def test_what_ships_is_nothing_but_whole_comparisons():
    for path in SHIPPED.glob("*.csv"):
        table = pd.read_csv(path)
        assert table.columns.tolist() == COLUMNS, path
        assert table["method"].iloc[0] == "zero-shot", path
        assert (table["method"] == "zero-shot").sum() == 1, path
