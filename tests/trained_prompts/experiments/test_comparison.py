"""A comparison: a row for every way to adapt the model, each with what it costs, kept as it is made and gone on with where it was broken off."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.asking.answers import check_held_out, predictions
from soft_prompt_explorer.analysis.asking.in_front import bare as bare_model
from soft_prompt_explorer.analysis.asking.in_front import with_prompt
from soft_prompt_explorer.analysis.asking.scores import evaluate
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.export import WRITERS, write_table
from soft_prompt_explorer.analysis.core.provenance import Provenance
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.trained_prompts.experiments import comparison
from soft_prompt_explorer.trained_prompts.experiments.comparison import (
    COLUMNS,
    ComparisonConfig,
    all_kept,
    beside_zero_shot,
    compare,
    damaged,
    kept,
)
from soft_prompt_explorer.trained_prompts.experiments.prompt_engineering import shown_examples
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.recording import unfinished
from soft_prompt_explorer.trained_prompts.runs.scores import recorded
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from tests.support.training import ABSURD, trained

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
    assert rows.loc["zero-shot", "loss"] == pytest.approx(evaluate("", None, "toy", language_model=language_model)["loss"].item(), abs=1e-5)
    table = toy_task.examples("held-out", template=PROMPTS[1])
    by_words = predictions(bare_model(language_model), TASKS["toy"], table)
    assert whole.loc[2, "loss"] == pytest.approx(by_words["loss"].mean(), abs=1e-5)
    for method, settings in (("prompt tuning", {}), ("LoRA", {"method": "lora"}), ("full fine-tuning", {"method": "full"})):
        recording = trained(TrainingConfig(task="toy", model=config.model, steps=3, **settings), language_model)
        with recorded(recording, language_model) as subject:
            answered = predictions(subject, TASKS["toy"], toy_task.examples("held-out"))
        assert rows.loc[method, "loss"] == pytest.approx(answered["loss"].mean(), abs=1e-5)
        assert rows.loc[method, "score"] == answered["correct"].mean()
    assert rows["loss"].groupby(level=0).first().nunique() == 7


def test_a_prompt_too_long_with_its_examples_keeps_its_row_without_a_score(config, whole, language_model, monkeypatch):
    model, tokenizer = language_model
    shown = len(tokenizer(shown_examples(TASKS["toy"], PROMPTS[0])).input_ids)
    longest = max(len(tokenizer(text).input_ids) for text in TASKS["toy"].examples("held-out")["text"])
    assert longest + 10 < shown
    for context in (shown - 1, shown):  # no room for the examples; none for the input behind them
        monkeypatch.setattr(model.config, "max_position_embeddings", context)
        table = compare(config, language_model=language_model)
        comparison._path(config).unlink()
        row = table.iloc[3]
        assert row["what"] == f"4 examples, then {PROMPTS[0]}, too long for the model"
        assert row["n"] == 0 and row[["score", "low", "high", "loss"]].isna().all()
        assert table["score"].drop([3, 4]).equals(whole["score"].drop([3, 4]))
        assert beside_zero_shot(table)[3] == "no score"
        assert "| no score |" in comparison.markdown(table)


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
    assert store.list_runs().query("origin == 'yours'").empty and unfinished().empty


def test_a_row_needs_no_more_than_its_own_examples(config, language_model):
    table = compare(replace(config, limit=3), language_model=language_model)
    assert (table["n"] == 3).all()
    assert np.isfinite(table["loss"]).all()


def test_methods_that_diverge_keep_their_rows_and_the_comparison_goes_on(config, language_model, monkeypatch, tmp_path):
    """At a rate beyond what a config may hold, for two of the methods: one that can step back to its last good state, and one that cannot."""
    checked, absurd = TrainingConfig.__post_init__, ("p-tuning", "full")

    def absurdly(self) -> None:
        checked(self)
        if self.method in absurd:
            object.__setattr__(self, "learning_rate", ABSURD)

    monkeypatch.setattr(TrainingConfig, "__post_init__", absurdly)
    config = replace(config, steps=6)
    made = compare(config, language_model=language_model)
    assert made["method"].tolist()[5:] == ["prompt tuning", "p-tuning", "prefix tuning", "LoRA", "full fine-tuning"]
    lost = made["what"].str.endswith(", diverged")
    assert made.loc[lost, "method"].tolist() == ["p-tuning", "full fine-tuning"]
    assert made.loc[lost, ["score", "low", "high", "loss"]].isna().all(axis=None) and (made.loc[lost, "n"] == 0).all()
    assert made.loc[~lost, ["score", "low", "high", "loss"]].notna().all(axis=None)
    assert (made.loc[lost, "trainable"] > 0).all() and (made["measure"] == "accuracy").all()
    assert not list(comparison._folder().glob(".unfinished/*"))

    again = []
    table = compare(config, language_model=language_model, row_made=again.append)
    assert not again and all_kept()["what"].tolist()[-10:] == made["what"].tolist()
    pd.testing.assert_frame_equal(table.drop(columns="seed"), made.drop(columns="seed"), check_dtype=False)
    for ending in WRITERS:
        write_table(table, tmp_path / f"table.{ending}", Provenance("compare"))
    assert json.loads((tmp_path / "table.json").read_text())["rows"][-1]["score"] is None


def test_a_held_out_example_that_is_too_long_is_refused_before_anything_is_made(config, toy_task, language_model, own_runs, monkeypatch):
    table = toy_task.load()
    table.loc[len(table) - 1, "input"] = "the cat sat on the mat " * 100
    language_model[0].config.max_position_embeddings = 128
    monkeypatch.setitem(TASKS, "toy", replace(TASKS["toy"], load=lambda: table))
    told = []
    with pytest.raises(InputError, match=r"longest example needs \d+ positions .* and the model has 128"):
        compare(config, language_model=language_model, report=lambda share, doing: told.append(doing))
    assert not told and kept(config).empty
    training = TrainingConfig(task="toy", model=config.model, steps=3)
    with pytest.raises(InputError, match="the model has 128"):
        next(runs.record(training, "mine", language_model=language_model))
    assert next(runs.record(training, "mine", language_model=language_model, limit=3))[1].step == 0


@pytest.mark.parametrize("labels", [(" the cat", " mat"), None])
def test_what_is_just_not_too_long_to_be_scored_is_let_through(labels, config, toy_task, language_model):
    task = replace(toy_task, labels=labels)
    table = task.examples("held-out")
    for context in range(5, 40):
        language_model[0].config.max_position_embeddings = context
        ways = (
            lambda: check_held_out(task, language_model, virtual_tokens=3),
            lambda: predictions(with_prompt(language_model, np.ones((3, WIDTH), np.float32)), task, table),
        )
        refused = []
        for way in ways:
            try:
                way()
                refused.append(False)
            except InputError:
                refused.append(True)
        assert refused[0] == refused[1]
    assert not refused[0]


@pytest.mark.parametrize(
    "damage", ["nothing", "one cell", "half a row", "not text", "no zero-shot", "two zero-shots", "another method", "a word for a number"]
)
def test_a_file_that_holds_no_comparison_is_left_out_and_told(damage, config, whole, language_model):
    compare(config, language_model=language_model)
    good = comparison._path(config).read_bytes()
    lines = good.decode().split("\n")
    path = comparison._folder() / "damaged.csv"
    path.write_bytes({
        "nothing": b"", "one cell": b"method\nzero-shot\n", "half a row": good[:-200].rpartition(b"\n")[0] + b'\nLoRA,"rank', "not text": b"\xff\xfe\x00" * 50,
        "no zero-shot": "\n".join([lines[0], *lines[3:]]).encode(), "two zero-shots": good + good.split(b"\n", 1)[1],
        "another method": good.replace(b"\nLoRA,", b"\nmagic,"), "a word for a number": good.replace(b",accuracy,", b",accuracy,high", 1),
    }[damage])  # fmt: skip
    (sentence,) = damaged()
    assert "damaged.csv" in sentence and "\n" not in sentence
    assert all_kept()["origin"].tolist().count("yours") == len(whole)
    path.replace(comparison._path(config))
    with pytest.raises(InputError, match="holds no comparison"):
        compare(config, language_model=language_model)
