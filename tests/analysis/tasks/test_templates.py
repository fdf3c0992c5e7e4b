"""A template says once where the input stands, and is given with a task, a file or a run."""

import json

import pandas as pd
import pytest

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.own_data import keep_template, keep_uploaded, kept_tasks, task_from_file
from soft_prompt_explorer.analysis.tasks.task import OWN_TEMPLATE, checked_template
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

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
