"""What was asked of a run's prompt is kept with it, not asked again, and summed up in a row."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.behaviour.kept import FILE
from soft_prompt_explorer.analysis.behaviour.of_task import behave, examples_of, judged
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import runs_folder
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from tests.support.training import trained


@pytest.fixture
def run(toy_config, language_model, own_runs):
    recording = trained(toy_config, language_model)
    return store.save(recording, "mine", evaluate_run(recording, language_model=language_model))


def test_a_run_is_asked_once_for_so_many_examples(run, language_model, toy_config):
    assert kept_behaviour.kept("mine") is None
    kept_behaviour.test(["mine"], limit=3)
    first = (run / FILE).read_bytes()
    table = kept_behaviour.kept("mine")
    expected = behave(
        load_soft_prompt(run), load_vocabulary(toy_config.model), examples_of(TASKS["toy"], language_model, limit=3), TASKS["toy"]
    )
    pd.testing.assert_frame_equal(table, expected, rtol=0, atol=1e-5)

    told = []
    kept_behaviour.test(["mine"], limit=3, report=lambda share, doing: told.append(doing))
    assert (run / FILE).read_bytes() == first
    assert not any("asking" in doing for doing in told)
    kept_behaviour.test(["mine"], limit=4, report=lambda share, doing: told.append(doing))
    assert any("asking" in doing for doing in told)
    assert (kept_behaviour.kept("mine")["n"] == 4).all()


def test_the_summary_holds_the_figures_of_the_table_and_of_the_readings(run, toy_config):
    kept_behaviour.test(["mine"], limit=4)
    row = kept_behaviour.summary(["mine"]).iloc[0]
    assert row.index.tolist() == kept_behaviour.SUMMARY_COLUMNS
    table = kept_behaviour.kept("mine").drop_duplicates("intervention").set_index("intervention")
    for column, intervention, of in (
        ("score", "whole prompt", "score"), ("no_prompt", "no prompt", "score"), ("initial", "initial values", "score"), ("words", "nearest words", "score"),
        ("words_high", "nearest words", "score_high"), ("out", "task direction out", "score_change"), ("out_low", "task direction out", "score_change_low"),
        ("out_high", "task direction out", "score_change_high"), ("out_loss", "task direction out", "loss_change"),
        ("random_out", "random direction out", "score_change"), ("random_out_loss", "random direction out", "loss_change"),
        ("alone", "task direction alone", "score"), ("alone_high", "task direction alone", "score_high"), ("random_alone", "random direction alone", "score"),
    ):  # fmt: skip
        assert row[column] == table.loc[intervention, of], column
    prompt, vocabulary = load_soft_prompt(run), load_vocabulary(toy_config.model)
    counts = readings(prompt, vocabulary)["verdict"].value_counts()
    assert [row["echo"], row["unreadable"], row["near"], row["moved"]] == [
        counts.get(name, 0) for name in ("echo", "unreadable", "near a word", "moved along a word")
    ]
    verdict = judged(prompt, vocabulary, TASKS["toy"], kept_behaviour.kept("mine")).verdict
    assert (row["necessary"], row["sufficient"], row["words_work"], row["verdict"]) == (
        verdict.necessary, verdict.sufficient, verdict.words_work, verdict.label,
    )  # fmt: skip
    line = kept_behaviour.summary_markdown(kept_behaviour.summary(["mine"])).splitlines()[2]
    assert line.startswith("| mine") and f"{row['score']:.2f}" in line and row["verdict"] in line


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe nonsense"])
def test_a_damaged_file_counts_as_none(run, content):
    (run / FILE).write_bytes(content)
    assert kept_behaviour.kept("mine") is None
    with pytest.raises(InputError, match="has not been tested yet"):
        kept_behaviour.summary(["mine"])


def test_a_prompt_of_unknown_start_is_summed_up_without_a_direction(run, toy_config):
    (run / "initial.safetensors").unlink()
    kept_behaviour.test(["mine"], limit=4)
    row = kept_behaviour.summary(["mine"]).iloc[0]
    assert np.isnan(row["out"]) and np.isnan(row["words_p"]) and np.isnan(row["initial"])
    assert row["words"] >= 0


def test_the_command_asks_keeps_and_prints_a_row_a_prompt(run, training_command):
    status, out, err = training_command("behaviour", "mine", "--limit", 3, "--format", "csv")
    assert status == 0, err
    table = pd.read_csv(io.StringIO(out))
    assert table.columns.tolist() == kept_behaviour.SUMMARY_COLUMNS
    assert table["n"].tolist() == [3]
    assert kept_behaviour.kept("mine") is not None


def test_the_command_refuses_what_has_no_virtual_tokens(toy_config, language_model, own_runs, training_command):
    config = replace(toy_config, method="lora", rank=2, learning_rate=0.001)
    recording = trained(config, language_model)
    store.save(recording, "thin", evaluate_run(recording, language_model=language_model))
    for name, words in (("thin", "no virtual tokens"), ("nothing", "nothing")):
        status, _, err = training_command("behaviour", name)
        assert status == 2
        assert words in err


def test_a_report_of_a_run_has_what_was_kept_and_asks_what_was_not(run, toy_config, command, tmp_path):
    out = tmp_path / "report.html"
    arguments = ("report", run, "--model", toy_config.model, "--out", out)
    assert "mine: the model was not asked" in command(*arguments).err
    assert "The model has not been asked" in out.read_text()

    kept_behaviour.test(["mine"], limit=4)
    verdict = judged(load_soft_prompt(run), load_vocabulary(toy_config.model), TASKS["toy"], kept_behaviour.kept("mine")).verdict
    assert f"mine: {verdict.sentence}" in command(*arguments).err
    assert verdict.label.capitalize() in out.read_text()

    told = command(*arguments, "--task", "toy", "--limit", 3)
    assert "On 3 examples of toy" in told.err
    assert (kept_behaviour.kept("mine")["n"] == 4).all()


def test_what_a_folder_from_elsewhere_says_of_behaviour_is_not_believed(run, toy_config, command, tmp_path):
    kept_behaviour.test(["mine"], limit=4)
    elsewhere = tmp_path / "elsewhere" / "mine"
    shutil.copytree(run, elsewhere)
    asked = command("report", elsewhere, "--model", toy_config.model, "--out", tmp_path / "report.html")
    assert asked.status == 0
    assert "mine: the model was not asked" in asked.err


def test_what_was_asked_of_another_prompt_is_not_said_of_this_one(run, toy_config, command, tmp_path):
    """The same folder read with other initial values."""
    kept_behaviour.test(["mine"], limit=4)
    arguments = ("--model", toy_config.model, "--out", tmp_path / "report.html")
    assert "was not asked" not in command("report", run, *arguments).err
    np.save(tmp_path / "start.npy", np.ones_like(load_soft_prompt(run).embeddings))
    assert "was not asked" in command("report", run, *arguments, "--initial", tmp_path / "start.npy").err


def test_a_run_on_examples_of_ones_own_is_reported_from_its_own_file(language_model, toy_config, own_runs, command, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        rows = [
            f"the {word} {i},{' cat' if (i + len(folder) + (folder == 'b')) % 2 else ' mat'}"
            for i, word in enumerate(["cat", "mat", "text", "line"] * 8)
        ]
        (tmp_path / folder / "own.csv").write_text("\n".join(["input,target", *rows]) + "\n")
    config = replace(toy_config, task=str(tmp_path / "a" / "own.csv"))
    recording = trained(config, language_model)
    run = store.save(recording, "mine", evaluate_run(recording, language_model=language_model))
    kept_behaviour.test(["mine"], limit=4)
    arguments = ("report", run, "--model", toy_config.model, "--out", tmp_path / "report.html")
    first = command(*arguments).err
    assert "On 4 examples of" in first or "On 3 examples of" in first
    n = int(kept_behaviour.kept("mine")["n"].iloc[0])
    assert command(*arguments, "--task", tmp_path / "a" / "own.csv", "--limit", n).err == first
    assert command(*arguments, "--task", tmp_path / "b" / "own.csv", "--limit", n).err != first


def test_a_file_in_the_folder_of_runs_that_is_no_run_is_reported(run, toy_config, command, tmp_path):
    np.save(runs_folder() / "x.npy", load_soft_prompt(run).embeddings)
    (run / "run.json").write_text("{}")
    for path in (runs_folder() / "x.npy", run):
        written = command("report", path, "--model", toy_config.model, "--out", tmp_path / "report.html")
        assert written.status == 0, written.err
        assert "was not asked" in written.err


@pytest.mark.parametrize("damage", ["n,prompt\n", "", None])
def test_a_damaged_table_counts_as_none(run, damage):
    kept_behaviour.test(["mine"], limit=3)
    path = run / FILE
    path.write_text(path.read_text().replace(",3,", ",many,") if damage is None else damage)
    assert kept_behaviour.kept("mine") is None
