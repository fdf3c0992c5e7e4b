"""A prompt is asked as it was trained: its template is kept with its run, and what is asked is shown."""

import json

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.asking.answers import predictions
from soft_prompt_explorer.analysis.behaviour.verdict import TOO_FEW
from soft_prompt_explorer.analysis.tasks.task import OWN_TEMPLATE
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour
from soft_prompt_explorer.trained_prompts.experiments.comparison import ComparisonConfig
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.card import command_of
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from tests.support.training import trained

COLOUR = "Thing: {input}\nColour:"


@pytest.fixture
def asked_texts(monkeypatch):
    """Every text that the model is asked while the test lasts."""
    texts = []
    whole = predictions

    def spied(subject, task, table, **options):
        texts.extend(table["text"])
        return whole(subject, task, table, **options)

    for module in ("soft_prompt_explorer.analysis.asking.scores", "soft_prompt_explorer.analysis.behaviour.of_task"):
        monkeypatch.setattr(f"{module}.predictions", spied)
    return texts


def test_a_run_trained_with_a_template_is_asked_with_it_ever_after(training_command, toy_config, own_runs, asked_texts, tmp_path):
    arguments = ["--task", "toy", "--model", toy_config.model, "--tokens", 3, "--steps", 3, "--batch-size", 4, "--init", "random"]
    made = training_command("train", *arguments, "--name", "mine", "--template", "Thing: {input}\\nColour:")
    assert made.status == 0, made.err
    example = "asked: ‘Thing: the cat sat⏎Colour:’ → ‘ the cat’"
    assert example in made.err.splitlines()
    run = json.loads((own_runs / "mine" / "run.json").read_text())
    assert run["config"]["template"] == run["asked"]["template"] == COLOUR
    assert f"asked: {run['asked']['first_example']}" == example and run["asked"]["first_example"] in store.read_card("mine")
    assert r"--template 'Thing: {input}\nColour:'" in command_of(run)
    for arguments in (
        ["evaluate", "mine", "--task", "toy"],
        ["evaluate", own_runs / "mine", "--task", "toy", "--model", toy_config.model],
        ["behaviour", "mine", "--limit", 3],
    ):
        asked_texts.clear()
        outcome = training_command(*arguments)
        assert outcome.status == 0, outcome.err
        assert asked_texts and all(text.startswith("Thing: ") and text.endswith("\nColour:") for text in asked_texts)
        assert example in outcome.err and "unknown" not in outcome.err
    assert kept_behaviour.task_of("mine").template == COLOUR
    asked_texts.clear()
    given = training_command("evaluate", "mine", "--task", "toy", "--template", "{input}:")
    assert all(text.endswith(":") and not text.startswith("Thing") for text in asked_texts)
    assert "asked: ‘the cat sat:’ → ‘ the cat’" in given.err and "unknown" not in given.err


def test_of_a_prompt_from_elsewhere_it_is_said_that_its_template_is_unknown(
    training_command, command, toy_config, language_model, own_runs, tmp_path
):
    recording = trained(toy_config, language_model)
    np.save(tmp_path / "foreign.npy", recording.embeddings)
    model = ["--model", toy_config.model]
    plain = training_command("evaluate", tmp_path / "foreign.npy", "--task", "toy", *model)
    assert plain.status == 0, plain.err
    asked, note = plain.err.splitlines()
    assert asked == "asked: ‘the cat sat⏎Answer:’ → ‘ the cat’"
    assert note.startswith(
        "foreign.npy was not trained here, and the template that it was trained with is unknown: it was asked as ‘{input}⏎Answer:’"
    )
    given = training_command("evaluate", tmp_path / "foreign.npy", "--task", "toy", "--template", COLOUR, *model)
    assert given.err.splitlines() == ["asked: ‘Thing: the cat sat⏎Colour:’ → ‘ the cat’"]
    asked, note, verdict = command("behaviour", tmp_path / "foreign.npy", "--task", "toy", "--limit", 3, *model).err.splitlines()
    assert "unknown" in note and verdict.startswith("foreign: ")
    if TOO_FEW in verdict:
        assert verdict.endswith(f"{TOO_FEW} when asked as ‘{{input}}⏎Answer:’, which may not be how it was trained.")
    page = tmp_path / "report.html"
    written = command("report", tmp_path / "foreign.npy", "--task", "toy", "--limit", 3, "--out", page, *model)
    assert written.status == 0, written.err
    text = page.read_text()
    assert text.index("the template that it was trained with is unknown") < text.index('<div class="verdict">')
    assert "asked: ‘the cat sat⏎Answer:’ → ‘ the cat’" in text


def test_a_comparison_with_a_template_is_another_comparison(toy_task):
    plain, asked = ComparisonConfig(task="toy"), ComparisonConfig(task="toy", template=COLOUR)
    assert plain.key != asked.key and ComparisonConfig(task="toy", template=OWN_TEMPLATE).key == plain.key
    assert asked.asked_task().template == COLOUR


# --- The case that this is for ---------------------------------------------------------------------------------------

COLOURED = {
    "red": "tomato strawberry blood ruby cherry rose brick fire lobster rust",
    "green": "grass lime cucumber frog emerald leaf lettuce pea spinach mint",
    "blue": "sky sea ocean sapphire jeans ink blueberry whale denim navy",
    "yellow": "banana lemon sun butter corn daffodil canary mustard gold honey",
}


@pytest.mark.slow
def test_a_prompt_that_knows_its_colours_under_its_own_template_seems_to_know_none_under_another(
    training_command, embedded_model, own_runs, tmp_path
):
    rows = [(thing, colour, split) for split in ("train", "held-out") for colour, things in COLOURED.items() for thing in things.split()]
    pd.DataFrame(rows, columns=["input", "target", "split"]).to_csv(tmp_path / "things.csv", index=False)
    config = TrainingConfig(task=str(tmp_path / "things.csv"), template=COLOUR, tokens=5, steps=40, batch_size=4)
    np.save(tmp_path / "coloured.npy", trained(config, embedded_model).embeddings)

    def asked(*template) -> tuple[dict, list[str]]:
        outcome = training_command("evaluate", tmp_path / "coloured.npy", "--task", tmp_path / "things.csv", "--format", "json", *template)
        assert outcome.status == 0, outcome.err
        return json.loads(outcome.out)[-1], outcome.err.splitlines()

    own, said = asked("--template", r"Thing: {input}\nColour:")
    assert own["n"] == 40 and own["score"] > 0.65
    assert len(said) == 1 and said[0].startswith("asked: ‘Thing: ") and "⏎Colour:’ → ‘ " in said[0]
    other, said = asked()
    assert other["score"] < 0.5 and other["high"] < own["low"]
    assert said[0].endswith(("→ ‘ red’", "→ ‘ green’", "→ ‘ blue’", "→ ‘ yellow’")) and "⏎Answer:’" in said[0]
    assert "a low score may be the template's doing" in said[1]
