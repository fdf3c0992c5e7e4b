"""A run folder with one thing wrong is left out by name, and takes nothing else with it."""

import json
import shutil
from dataclasses import replace

import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.behaviour import kept, kept_lens, kept_translation
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.prompts.twins import twins_of
from soft_prompt_explorer.trained_prompts.runs import store
from tests.support.damaged_runs import PROMPT, damaged_runs


@pytest.fixture
def listed(training_command):
    """`python -m trained_prompts list --format json` in this process: its rows, and its lines on standard error."""

    def call() -> tuple[list[dict], list[str]]:
        ended = training_command("list", "--format", "json")
        assert ended.status == 0, ended.err
        return json.loads(ended.out), ended.err.splitlines()

    return call


def put(folder, name: str, at: tuple[str, ...], value: object) -> None:
    """A run of the gallery under this name, with another value at one place."""
    shutil.copytree(GALLERY / PROMPT, folder / name)
    run = inner = json.loads((folder / name / "run.json").read_text())
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    (folder / name / "run.json").write_text(json.dumps(run))


def test_a_run_with_a_wrong_field_is_named_with_what_was_found_and_what_to_do_and_the_others_are_listed(own_runs, listed):
    put(own_runs, "fine", ("created",), "2026-11-25T01:00:30+00:00")
    put(own_runs, "dated-5", ("created",), 5)
    put(own_runs, "many", ("trainable_parameters",), "many")
    put(own_runs, "no-score", ("scores", "trained"), {"n": 10})
    rows, said = listed()
    assert {row["name"] for row in rows if row["origin"] == "yours"} == {"fine"}
    assert len(rows) == len(list(GALLERY.glob("*/run.json"))) + 1
    assert len(said) == 3
    assert "'dated-5'" in said[0] and "created is 5, where a date and time is expected" in said[0] and str(own_runs / "dated-5") in said[0]
    assert "trainable_parameters is 'many', where a whole number is expected" in said[1]
    assert "scores.trained.measure is missing" in said[2] or "scores.trained." in said[2]
    for name in ("dated-5", "many", "no-score"):
        with pytest.raises(InputError, match=name):
            store.own_model(name)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (("config", "seed"), 2**70),
        (("config", "tokens"), 10.0),
        (("config", "method"), ["lora"]),
        (("config",), [1]),
        (("scores", "trained", "score"), float("nan")),
        (("scores", "trained", "n"), True),
        (("norms", "vocabulary_median"), 0),
        (("model", "name"), "two\nlines"),
        (("steps_done",), -1),
        (("versions",), ["torch"]),
    ],
)
def test_each_field_has_its_type(own_runs, at, value):
    put(own_runs, "wrong", at, value)
    (sentence,) = store.left_out().values()
    assert at[-1] in sentence and "\n" not in sentence
    assert "wrong" not in set(store.list_runs()["name"])


@pytest.mark.parametrize(
    "at", [("norms",), ("peak_memory_bytes",), ("config", "init_text"), ("kept_step",), ("another_version_writes_this",)]
)
def test_what_other_versions_leave_out_or_add_is_no_fault(own_runs, at):
    put(own_runs, "fine", at, None)
    assert not store.left_out()
    assert "fine" in set(store.list_runs()["name"])


def test_a_card_is_made_from_what_was_checked_and_says_nothing_but_itself(own_runs):
    put(own_runs, "theirs", ("config", "task"), "![i](http://evil.example/i.png) www.evil.example `x` | y")
    (own_runs / "theirs" / "README.md").unlink()
    (own_runs / "theirs" / "README.md").write_text("![i](http://evil.example/other.png)")
    card = store.read_card("theirs")
    assert "other.png" not in card
    assert "*`![i](http://evil.example/i.png) www.evil.example 'x' ¦ y`*" in card
    put(own_runs, "lines", ("config", "init_text"), "one\n\n![i](http://evil.example/i.png)")
    assert [line for line in store.read_card("lines").splitlines() if "evil" in line and not line.startswith("    ")] == []


def test_a_kept_file_whose_description_is_wrong_is_named_too(own_runs):
    (own_runs / "theirs").mkdir(parents=True)
    (own_runs / "theirs" / "kept.json").write_text('{"kind": 5, "format": "npy", "sha256": "0", "files": ["a.npy"], "kept": "2026"}')
    assert store.list_kept().empty
    assert "kind" in store.left_out()["theirs"]


def twins_in(folder) -> list:
    """The twins in a run's folder, as of the prompt that it was before it was damaged."""
    prompt = load_soft_prompt(GALLERY / PROMPT)
    return twins_of([replace(prompt, source=replace(prompt.source, path=folder))])


@pytest.mark.slow
def test_a_thousand_damaged_run_folders_are_listed_or_left_out_by_name(own_runs, listed):
    wrong = damaged_runs(own_runs, 1000)
    rows, said = listed()
    yours = [row["name"] for row in rows if row["origin"] == "yours"]
    left_out = store.left_out()
    gone = {name for name, what in wrong.items() if what == "run.json: gone"}
    assert set(yours) | set(left_out) | gone == set(wrong)
    assert not set(yours) & set(left_out)
    assert len(said) == len(left_out) > 200
    for name, sentence in left_out.items():
        assert name in sentence and len(sentence) < 1_000 and sentence.isprintable(), wrong[name]
    assert all(what.startswith("run.json") for name, what in wrong.items() if name in left_out)
    for name in yours:  # what rests on the rest of the folder is there, or refused in a sentence
        for read in (
            store.read_losses,
            store.own_model,
            store.read_card,
            lambda name: store.has_trajectory(name) and store.read_trajectory(name),
        ):
            try:
                read(name)
            except InputError as error:
                assert name in str(error), wrong[name]
        for read in (kept.read_kept, kept_lens.read, kept_translation.read, twins_in):
            read(own_runs / name)  # or it counts as nothing
