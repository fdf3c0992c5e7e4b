"""The picture of score against size: rows are made once, words are chosen on training examples, and several seeds are told together."""

import json

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.asking.in_front import bare
from soft_prompt_explorer.analysis.asking.scores import score
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.computing import NoMemoryError
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.trained_prompts.experiments import sizes
from soft_prompt_explorer.trained_prompts.experiments.sizes import EXAMPLES, FULL, LORA, PROMPT_TUNING, WAYS, WRITTEN, ZERO_SHOT


@pytest.fixture
def quick(monkeypatch, llama_folder):
    monkeypatch.setattr(sizes, "STEPS", 2)
    monkeypatch.setattr(sizes, "MODELS", (str(llama_folder),))
    return str(llama_folder)


def test_every_row_is_made_once_and_says_what_was_measured(quick, tmp_path, monkeypatch):
    made = sizes.make([quick], ["plural"], folder=tmp_path)
    assert made.groupby("way").size().to_dict() == {way: 3 if way == PROMPT_TUNING else 1 for way in WAYS}
    language_model, task = load_model(quick), TASKS["plural"]
    asked = score("", bare(language_model), task, task.examples("held-out")).iloc[0]
    zero_shot = made[made["way"] == ZERO_SHOT].iloc[0]
    assert (zero_shot["score"], zero_shot["low"], zero_shot["high"], zero_shot["n"]) == pytest.approx(
        tuple(asked[["score", "low", "high", "n"]])
    )
    assert zero_shot["parameters"] == sum(parameter.numel() for parameter in language_model.model.parameters())
    written = made[made["way"] == WRITTEN].iloc[0]
    losses = {
        template: score("", bare(language_model), task, task.examples("train", template=template).tail(60)).iloc[0][["score", "loss"]]
        for template in task.prompts
    }
    assert written["what"] == max(losses, key=lambda template: (losses[template]["score"], -losses[template]["loss"]))
    assert made.loc[made["way"] == EXAMPLES, "what"].item() in (task.template, *task.prompts)
    prompts = made.loc[made["way"] == PROMPT_TUNING]
    assert prompts["seed"].tolist() == [0, 1, 2] and prompts["loss"].nunique() == 3
    assert [load_adapter(path).kind for path in tmp_path.iterdir() if path.is_dir()] == ["soft_prompt"] * 3

    monkeypatch.setattr(sizes, "load_model", None)  # it would fail: nothing is made again
    again = sizes.make([quick], ["plural"], folder=tmp_path)
    pd.testing.assert_frame_equal(again, made, check_dtype=False)


def test_of_the_largest_model_the_lora_is_kept_too(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "LARGEST", quick)
    made = sizes.make([quick], ["plural"], folder=tmp_path)
    assert made["way"].unique().tolist() == list(WAYS)
    assert sorted(load_adapter(path).kind for path in tmp_path.iterdir() if path.is_dir()) == ["lora", *["soft_prompt"] * 3]


def test_of_every_model_that_ships_three_seeds_of_prompt_tuning_are_told_and_their_prompts_score_as_the_table_says():
    table = sizes.kept()
    prompts = table[table["way"] == PROMPT_TUNING]
    assert prompts.groupby(["model", "task"])["seed"].apply(sorted).map(tuple).unique().tolist() == [(0, 1, 2)]
    for row in prompts.itertuples():
        run = sizes.FOLDER / f"{row.task}-{row.model}-prompt-tuning-{row.seed:.0f}" / "run.json"
        assert json.loads(run.read_text())["scores"]["trained"]["score"] == row.score


def test_what_does_not_fit_keeps_a_row_without_a_score(quick, tmp_path, monkeypatch):
    def refuse(config):
        if config.method == "full":
            raise NoMemoryError("too large")

    monkeypatch.setattr(sizes, "check_fits", refuse)
    made = sizes.make([quick], ["plural"], folder=tmp_path)
    row = made[made["way"] == FULL].iloc[0]
    assert np.isnan(row["score"]) and row["n"] == 0 and row["what"].endswith(sizes.TOO_LARGE)
    told = sizes.summary(made).set_index("way")
    assert np.isnan(told.loc[FULL, "score"]) and not np.isnan(told.loc[LORA, "score"])


def test_seeds_are_told_by_their_mean_and_their_spread():
    rows = [("m", 10, "plural", PROMPT_TUNING, "", "exact match", value, value - 0.1, value + 0.1, 50, 1.0, seed, 1.0, 1, "float32")
            for seed, value in enumerate((0.3, 0.4, 0.8))]  # fmt: skip
    rows.append(("m", 10, "plural", ZERO_SHOT, "", "exact match", 0.2, 0.1, 0.3, 50, 1.0, np.nan, 0.0, 1, "float32"))
    rows.append(("l", 5, "capitals", ZERO_SHOT, "", "exact match", 0.2, 0.1, 0.3, 50, 1.0, np.nan, 0.0, 1, "float32"))
    told = sizes.summary(pd.DataFrame(rows, columns=sizes.COLUMNS))
    assert told[["task", "way"]].to_numpy().tolist() == [["capitals", ZERO_SHOT], ["plural", ZERO_SHOT], ["plural", PROMPT_TUNING]]
    assert told.iloc[2][["score", "low", "high", "n", "seeds", "least", "most"]].tolist() == pytest.approx([0.5, 0.4, 0.6, 50, 3, 0.3, 0.8])


def test_a_task_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no task called 'x'"):
        sizes.make(tasks=["x"], folder=tmp_path)


def test_the_mean_of_the_tasks_is_of_what_was_scored_on_all_of_them():
    """By hand: (0.3 + 0.7) / 2, and the bounds √(0.03² + 0.04²) / 2 and √(0.06² + 0.08²) / 2 from it; of two seeds the means are (0.2 + 0.4) / 2 and (0.6 + 0.8) / 2."""
    rows = [("m", 10, task, way, "", "exact match", score, score - below, score + above, 50, 1.0, seed, 0.0, 1, "float32")
            for task, way, seed, score, below, above in (
                ("capitals", ZERO_SHOT, np.nan, 0.3, 0.03, 0.06), ("plural", ZERO_SHOT, np.nan, 0.7, 0.04, 0.08),
                ("capitals", PROMPT_TUNING, 0, 0.2, 0.1, 0.1), ("capitals", PROMPT_TUNING, 1, 0.6, 0.1, 0.1),
                ("plural", PROMPT_TUNING, 0, 0.4, 0.1, 0.1), ("plural", PROMPT_TUNING, 1, 0.8, 0.1, 0.1),
                ("capitals", LORA, 0, 0.5, 0.1, 0.1), ("capitals", FULL, 0, np.nan, np.nan, np.nan), ("plural", FULL, 0, 0.5, 0.1, 0.1),
            )]  # fmt: skip
    table = pd.DataFrame(rows, columns=sizes.COLUMNS)
    mean = sizes.over_tasks(table)
    assert mean["way"].tolist() == [ZERO_SHOT, PROMPT_TUNING]
    assert mean.iloc[0][["score", "low", "high", "seeds"]].tolist() == pytest.approx([0.5, 0.475, 0.55, 1])
    assert mean.iloc[1][["score", "seeds", "least", "most"]].tolist() == pytest.approx([0.5, 2, 0.3, 0.7])
    lines = sizes.markdown(table).splitlines()
    assert lines[0] == "| task | model | zero-shot | prompt tuning | LoRA | full fine-tuning |"
    assert (
        "| capitals | m | 0.30 (0.27 to 0.36) | 0.40 (0.30 to 0.50; 0.20 to 0.60 over 2 seeds) | 0.50 (0.40 to 0.60) | too large for the memory |"
        in lines
    )
    assert lines[-1] == "| mean of the tasks | m | 0.50 (0.47 to 0.55) | 0.50 (0.43 to 0.57; 0.30 to 0.70 over 2 seeds) | – | – |"


def test_models_and_tasks_are_chosen_of_what_is_made_alone(training_command):
    for chosen in (("--task", "plural"), ("--model", "smollm2-135m")):
        done = training_command("sizes", *chosen)
        assert (done.status, done.out) == (2, "")
        assert "give it too, or leave them out" in done.err
