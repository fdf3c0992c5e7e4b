"""A comparison: a row for every way to adapt the model, each with what it costs, kept as it is made and gone on with where it was broken off."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.trained_prompts.conftest import trained
from trained_prompts import comparison, runs, store
from trained_prompts.comparison import COLUMNS, ComparisonConfig, all_kept, compare, kept
from trained_prompts.evaluation import bare as bare_model
from trained_prompts.evaluation import evaluate, predictions, recorded
from trained_prompts.tasks import TASKS
from trained_prompts.trainer import TrainingConfig

MEASURED = ["seconds_training", "seconds_scoring", "peak_memory"]  # what no two runs have in common
PROMPTS = ("{input}\nThat is", "It says: {input}\nIn one word:")
WIDTH, LAYERS = 16, 2


@pytest.fixture
def config(toy_task, toy_config, own_runs, monkeypatch) -> ComparisonConfig:
    monkeypatch.setitem(TASKS, "toy", replace(toy_task, prompts=PROMPTS))
    return ComparisonConfig(task="toy", model=toy_config.model, steps=3)


@pytest.fixture
def whole(config, language_model) -> pd.DataFrame:
    table = compare(config, language_model=language_model)
    comparison._path(config).unlink()
    return table


def without_times(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=MEASURED).reset_index(drop=True)


def test_every_method_has_its_row_with_what_it_costs(config, whole, language_model):
    assert whole.columns.tolist() == COLUMNS
    assert whole["method"].tolist() == [
        "zero-shot", *["prompt engineering"] * 4, "prompt tuning", "p-tuning", "prefix tuning", "LoRA", "full fine-tuning",
    ]  # fmt: skip
    assert whole["what"].tolist()[:5] == ["{input}\nAnswer:", *PROMPTS, *(f"4 examples, then {prompt}" for prompt in PROMPTS)]
    trainable = whole.set_index("method")["trainable"]
    assert trainable["zero-shot"] == 0 and (trainable["prompt engineering"] == 0).all()
    assert trainable["prompt tuning"] == 10 * WIDTH
    assert trainable["p-tuning"] == 10 * WIDTH + 3 * (WIDTH * WIDTH + WIDTH)
    assert trainable["prefix tuning"] == 10 * LAYERS * 2 * WIDTH
    assert trainable["LoRA"] == LAYERS * 2 * 8 * (WIDTH + WIDTH)
    assert trainable["full fine-tuning"] == language_model[0].num_parameters()
    assert (whole["n"] == 4).all() and (whole["measure"] == "accuracy").all()
    assert ((whole["low"] <= whole["score"]) & (whole["score"] <= whole["high"])).all()
    assert (whole["peak_memory"] > 50e6).all() and (whole["seconds_scoring"] > 0).all()
    learns = whole["trainable"] > 0
    assert (whole.loc[learns, "seconds_training"] > 0).all() and (whole.loc[~learns, "seconds_training"] == 0).all()
    assert (whole.loc[learns, "seed"] == 0).all() and whole.loc[~learns, "seed"].isna().all()


def test_a_row_is_what_training_and_scoring_by_hand_give(config, whole, toy_task, language_model):
    rows = whole.set_index("method")
    assert rows.loc["zero-shot", "loss"] == pytest.approx(evaluate("", None, "toy", language_model=language_model)["loss"].item(), abs=1e-9)
    table = toy_task.examples("held-out", template=PROMPTS[1])
    by_words = predictions(bare_model(language_model), TASKS["toy"], table)
    assert whole.loc[2, "loss"] == pytest.approx(by_words["loss"].mean(), abs=1e-9)
    for method, settings in (("prompt tuning", {}), ("LoRA", {"method": "lora"}), ("full fine-tuning", {"method": "full"})):
        recording = trained(TrainingConfig(task="toy", model=config.model, steps=3, **settings), language_model)
        with recorded(recording, language_model) as subject:
            answered = predictions(subject, TASKS["toy"], toy_task.examples("held-out"))
        assert rows.loc[method, "loss"] == pytest.approx(answered["loss"].mean(), abs=1e-9)
        assert rows.loc[method, "score"] == answered["correct"].mean()
    assert rows["loss"].groupby(level=0).first().nunique() == 7


@pytest.mark.parametrize("rows", [1, 5, 7])
def test_a_comparison_that_was_broken_off_goes_on_where_it_was(rows, config, whole, language_model):
    def stop(table: pd.DataFrame) -> None:
        if len(table) == rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(config, language_model=language_model, row_made=stop)
    assert len(kept(config)) == rows
    made = []
    table = compare(config, language_model=language_model, row_made=lambda table: made.append(len(table)))
    assert made == list(range(rows + 1, 11))
    pd.testing.assert_frame_equal(without_times(table), without_times(whole), check_exact=True, check_dtype=False)
    pd.testing.assert_frame_equal(kept(config), table, check_exact=True, check_dtype=False)
    again = compare(config, language_model=language_model, row_made=lambda table: made.append("again"))
    assert "again" not in made
    pd.testing.assert_frame_equal(again, table, check_exact=True, check_dtype=False)


def test_a_method_that_was_broken_off_while_it_learned_goes_on_from_its_step(config, whole, language_model, monkeypatch):
    monkeypatch.setattr(runs, "CHECKPOINT_SECONDS", -1.0)
    seen = []

    def stop_at_the_second_step_of_lora(share: float, doing: str) -> None:
        seen.append(doing)
        if doing == "LoRA: step 2 of 3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(config, language_model=language_model, report=stop_at_the_second_step_of_lora)
    assert "LoRA: step 1 of 3" in seen
    seen.clear()
    table = compare(config, language_model=language_model, report=lambda share, doing: seen.append(doing))
    assert "LoRA: step 1 of 3" not in seen and "LoRA: step 3 of 3" in seen
    pd.testing.assert_frame_equal(without_times(table), without_times(whole), check_exact=True, check_dtype=False)
    assert not list(comparison._folder().glob(".unfinished/*"))


def test_other_settings_are_another_comparison(config, language_model):
    stopped = lambda table: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731 - after the first row
    for other in (config, replace(config, seed=1), replace(config, limit=2), replace(config, steps=4)):
        with pytest.raises(KeyboardInterrupt):
            compare(other, language_model=language_model, row_made=stopped)
    assert len(all_kept().query("origin == 'yours'")) == 4
    assert kept(replace(config, limit=2))["n"].tolist() == [2]
    assert kept(replace(config, limit=3)).empty and kept(replace(config, limit=3)).columns.tolist() == COLUMNS


def test_comparisons_that_ship_stand_beside_ones_own(config, whole, language_model, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "SHIPPED", tmp_path / "shipped")
    assert all_kept().empty and all_kept().columns.tolist() == [*COLUMNS, "origin"]
    (tmp_path / "shipped").mkdir()
    whole.to_csv(tmp_path / "shipped" / "toy.csv", index=False)
    compare(config, language_model=language_model)
    table = all_kept()
    assert table["origin"].tolist() == ["shipped"] * 10 + ["yours"] * 10
    both = [without_times(part.drop(columns="origin")) for _, part in table.groupby("origin")]
    pd.testing.assert_frame_equal(*both, check_exact=True)
    assert table["what"].tolist()[:10] == whole["what"].tolist()
    # Neither are they taken for runs.
    assert store.list_runs().query("origin == 'yours'").empty and store.unfinished().empty


def test_a_row_needs_no_more_than_its_own_examples(config, language_model):
    table = compare(replace(config, limit=3), language_model=language_model)
    assert (table["n"] == 3).all()
    assert np.isfinite(table["loss"]).all()
