"""What is asked is shown, and a prompt is asked as it was trained: its template is given, kept with its run, or said to be unknown."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.asking.answers import predictions
from soft_prompt_explorer.analysis.behaviour.templates import how_asked, together
from soft_prompt_explorer.analysis.behaviour.verdict import TOO_FEW, Verdict
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.own_data import keep_template, keep_uploaded, kept_tasks, task_from_file
from soft_prompt_explorer.analysis.tasks.task import OWN_TEMPLATE, checked_template
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour
from soft_prompt_explorer.trained_prompts.experiments.comparison import ComparisonConfig
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.card import command_of
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from tests.support.training import trained

COLOUR = "Thing: {input}\nColour:"
THINGS = [(f"thing {i}", "red" if i % 2 else "blue") for i in range(30)]


def colours(template: str | None = COLOUR, header="template") -> bytes:
    rows = [{"input": thing, "target": colour} | ({header: template} if template is not None else {}) for thing, colour in THINGS]
    return pd.DataFrame(rows).to_csv(index=False).encode()


@pytest.fixture
def file(tmp_path):
    def write(content: bytes, name="colours.csv"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


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


# --- A template ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("Thing:\nColour:", "holds {input} nowhere"),
        ("Thing: {}\nColour:", "holds {input} nowhere"),
        ("{input} and {input}", "holds {input} 2 times"),
        ("", "nowhere"),
        ("{input}\0", "NUL"),
        ("{input}\ud800", "surrogate"),
        ("{input}" + "x" * 30_000, "30,007 characters"),
    ],
)
def test_input_stands_in_a_template_exactly_once(template, says, file):
    for ask in (
        lambda: checked_template(template),
        lambda: get_task("plural", template),
        lambda: TrainingConfig(task="plural", template=template),
    ):
        with pytest.raises(InputError) as refused:
            ask()
        assert says in str(refused.value) and str(refused.value).isprintable()


def test_the_two_characters_of_a_line_end_are_one():
    assert checked_template("Thing: {input}\\nColour:") == COLOUR


def test_a_task_asked_in_another_way_has_the_same_examples():
    own, other = get_task("plural"), get_task("plural", "one {input}, two")
    assert other.examples("held-out")["target"].tolist() == own.examples("held-out")["target"].tolist()
    inputs = own.examples("held-out")["text"].str.removeprefix("Singular: ").str.removesuffix("\nPlural:")
    assert other.examples("held-out")["text"].tolist() == [f"one {word}, two" for word in inputs]
    assert other.first_example() == f"‘one {inputs.iloc[0]}, two’ → ‘{own.examples('held-out')['target'].iloc[0]}’"


# --- Examples of one's own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["csv", "jsonl"])
def test_a_column_says_how_a_file_s_examples_are_asked(file, layout):
    content = colours() if layout == "csv" else pd.read_csv(file(colours())).to_json(orient="records", lines=True).encode()
    task = task_from_file(file(content, f"mine.{layout}"))
    assert task.template == COLOUR
    text = task.examples("held-out")["text"].iloc[0]
    assert text.startswith("Thing: thing ") and text.endswith("\nColour:")
    assert task.first_example() == f"‘{text.replace(chr(10), '⏎')}’ → ‘{task.examples('held-out')['target'].iloc[0]}’"
    assert task_from_file(file(colours(None), "plain.csv")).template == OWN_TEMPLATE
    assert task_from_file(file(colours("x", header="remark"), "other.csv")).template == OWN_TEMPLATE


def test_a_row_may_leave_its_template_empty_and_none_may_differ(file):
    table = pd.DataFrame(
        [{"input": thing, "target": colour, "template": COLOUR if i < 3 else ""} for i, (thing, colour) in enumerate(THINGS)]
    )
    assert task_from_file(file(table.to_csv(index=False).encode())).template == COLOUR
    table.loc[7, "template"] = "{input}:"
    with pytest.raises(InputError, match=r"The template on line 12 of two\.csv differs"):
        task_from_file(file(table.to_csv(index=False).encode(), "two.csv"))
    lines = [
        json.dumps({"input": thing, "target": colour, "template": 3.5 if i == 4 else COLOUR}) for i, (thing, colour) in enumerate(THINGS)
    ]
    with pytest.raises(InputError, match=r"The template on line 5 of bad\.jsonl holds \{input\} nowhere"):
        task_from_file(file("\n".join(lines).encode(), "bad.jsonl"))
    with pytest.raises(InputError, match=r"The template on line 2 of none\.csv holds \{input\} nowhere"):
        task_from_file(file(colours("Thing: {}"), "none.csv"))


def test_a_template_is_kept_with_an_own_task_and_a_run_keeps_the_one_it_was_trained_with(own_runs, llama_folder, own_cache):
    keep_uploaded("Colours.csv", colours(None))
    (task,) = kept_tasks()
    assert task.template == OWN_TEMPLATE
    before = TrainingConfig(task=task.name, model=str(llama_folder), tokens=3, steps=2)
    assert keep_template(task.name, "Thing: {input}\\nColour:").template == COLOUR
    assert get_task(task.name).template == COLOUR and [each.name for each in kept_tasks()] == [task.name]
    after = TrainingConfig(task=task.name, model=str(llama_folder), tokens=3, steps=2)
    assert before.asked_task().template == before.described()["template"] == OWN_TEMPLATE
    assert after.asked_task().template == after.described()["template"] == COLOUR
    with pytest.raises(InputError, match="nowhere"):
        keep_template(task.name, "Thing:")
    with pytest.raises(InputError, match="No task of your own"):
        keep_template("sentiment", COLOUR)


# --- Runs ------------------------------------------------------------------------------------------------------------


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


def verdict(label: str) -> Verdict:
    return Verdict(
        effect=False, format_only=False, points=False, as_format=False, necessary=False, sufficient=False, words_work=False, words_act=False, readable=False,
        causal=False, p_readable=1.0, p_causal=1.0, label=label,
        sentence=f"On 3 examples of toy: nothing: {label}.",
    )  # fmt: skip


def test_a_low_score_under_an_unknown_template_is_not_held_against_the_prompt(toy_task, tmp_path):
    unknown, known = how_asked(tmp_path, "toy"), how_asked(tmp_path, "toy", COLOUR)
    assert known.said(verdict(TOO_FEW)) == verdict(TOO_FEW) and known.note("x") is None
    assert unknown.said(verdict("readable, not causal")) == verdict("readable, not causal")
    said = unknown.said(verdict(TOO_FEW))
    assert said.label == f"{TOO_FEW} when asked as ‘{{input}}⏎Answer:’, which may not be how it was trained"
    assert said.sentence == f"On 3 examples of toy: nothing: {said.label}."
    assert "a low score may be the template's doing" in unknown.note("x\x1b[1m") and unknown.note("x\x1b[1m").isprintable()


def test_prompts_of_different_templates_are_not_put_side_by_side(toy_task, tmp_path):
    first, second = how_asked(tmp_path, "toy", COLOUR), how_asked(tmp_path, "toy", "{input}:")
    assert together([first, first]) == first
    with pytest.raises(InputError, match="trained with different templates"):
        together([first, second])


def test_a_run_json_from_elsewhere_that_is_none_tells_no_template(toy_config, language_model, own_runs):
    recording = trained(toy_config, language_model)
    path = store.save(recording, "mine", evaluate_run(recording, language_model=language_model))
    assert how_asked(load_soft_prompt(path), "toy").known
    for content in ("{}", "[]", "no json", '{"config": {"task": "toy", "template": "no place"}}', '{"config": {"task": ["toy"]}}'):
        (path / "run.json").write_text(content)
        assert not how_asked(load_soft_prompt(path), "toy").known
    shutil.rmtree(path)
    assert not how_asked(path, "toy").known


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
