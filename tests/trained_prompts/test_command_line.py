import json

import pandas as pd
import pytest

from soft_prompt_explorer.analysis.asking.scores import CALIBRATION_COLUMNS, COLUMNS
from soft_prompt_explorer.trained_prompts.runs.store import list_runs


@pytest.fixture
def command(training_command):
    return training_command


@pytest.fixture
def toy_arguments(toy_config):
    return ["--task", "toy", "--model", toy_config.model, "--tokens", 3, "--steps", 3, "--batch-size", 4, "--init", "random"]


def test_a_prompt_is_trained_kept_listed_and_evaluated(command, toy_arguments, own_runs):
    trained = command("train", *toy_arguments, "--name", "mine", "--format", "json")
    assert trained.status == 0
    rows = json.loads(trained.out)
    assert [row["prompt"] for row in rows] == ["no prompt", "initial values", "trained"]
    assert list(rows[0]) == COLUMNS

    listed = json.loads(command("list", "--format", "json").out)
    assert [row["name"] for row in listed if row["origin"] == "yours"] == ["mine"]

    for name in ("mine", own_runs / "mine"):
        evaluated = command("evaluate", name, "--task", "toy", "--model", toy_arguments[3], "--format", "json")
        assert evaluated.status == 0
        assert [row["score"] for row in json.loads(evaluated.out)] == [row["score"] for row in rows]


@pytest.mark.parametrize(("rate", "worse"), [(0.001, False), (1, True)])
def test_training_that_made_it_worse_says_so(command, toy_arguments, own_runs, rate, worse):
    trained = command(
        "train", *toy_arguments, "--method", "full", "--steps", 2, "--learning-rate", rate, "--name", "mine", "--format", "json"
    )
    rows = json.loads(trained.out)
    assert (rows[-1]["loss"] > rows[0]["loss"]) == worse
    assert ("The held-out loss is higher with it" in trained.err) == worse


def test_how_sure_a_prompt_is_can_be_had_by_itself(command, toy_arguments, own_runs):
    command("train", *toy_arguments, "--name", "mine")
    asked = ["evaluate", "mine", "--task", "toy", "--format", "json"]
    bins = pd.DataFrame(json.loads(command(*asked, "--calibration").out))
    assert bins.columns.tolist() == CALIBRATION_COLUMNS and bins["bin"].tolist() == list(range(10))
    assert bins["n"].sum() == 4 and set(bins["prompt"]) == {"mine"}
    card = pd.DataFrame(json.loads(command(*asked, "--scorecard").out)).set_index("measure")["value"]
    filled = bins[bins["n"] > 0]
    assert (filled["n"] * (filled["accuracy"] - filled["confidence"]).abs()).sum() / 4 == pytest.approx(card["calibration error"])
    both = command(*asked, "--scorecard", "--calibration")
    assert both.status == 2 and "not both" in both.err


def test_the_same_settings_give_the_same_prompt(command, toy_arguments, own_runs):
    for name in ("one", "two"):
        assert command("train", *toy_arguments, "--name", name).status == 0
    first, second = ((own_runs / name / "adapter_model.safetensors").read_bytes() for name in ("one", "two"))
    assert first == second


def test_tasks_can_be_written_as_a_file(command, tmp_path):
    assert command("tasks", "--out", tmp_path / "tasks.parquet").status == 0
    assert pd.read_parquet(tmp_path / "tasks.parquet")["task"].tolist()[:2] == ["sentiment", "capitals"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--task", "weather", "--name", "x"], "sentiment, capitals"),
        (["train", "--task", "capitals", "--name", "../x"], "cannot be used"),
        (["train", "--task", "capitals", "--name", "x", "--tokens", "0"], "1 to 200"),
        (["train", "--task", "capitals", "--name", "x", "--init", "text"], "--init-text"),
        (["train", "--task", "capitals", "--name", "x", "--model", "no/such/model"], "tried"),
        (["evaluate", "no-such-run", "--task", "capitals"], "the prompts are"),
        (["evaluate", "/no/such/file.npy", "--task", "capitals"], "no file or folder"),
        (["train", "--task", "capitals", "--name", "x", "--limit", "0"], "--limit"),
        (["train", "--task", "capitals", "--name", "x", "--seed", "-1"], "seed"),
        (["evaluate", "x" * 5000, "--task", "capitals"], "No prompt is called"),
        (["tasks", "--out", "table.txt"], ".csv, .parquet, .json or .md"),
    ],
)
def test_bad_input_gets_one_sentence_and_status_2(command, own_runs, arguments, says):
    outcome = command(*arguments)
    assert outcome.status == 2
    assert outcome.out == ""
    assert says in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list(own_runs.glob("*"))
    assert list_runs().query("origin == 'yours'").empty
