"""Every refusal is worded for whom it is said to: options on the command line, fields on a page, arguments in the library."""

import ast
import pickle
import re

import pytest

from soft_prompt_explorer.analysis.core import remedies
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.remedies import Remedy, ask_about, speaking
from tests.support.places import REPOSITORY

OPTION = re.compile(r"(?<![\w-])--[a-z]|python -m (?:analysis|trained_prompts)")
EVERY = {name: value for name, value in vars(remedies).items() if isinstance(value, Remedy)} | {"ask_about": ask_about("plural-words-1")}
# Faces of their own: what they say is said on a command line, or is a command to copy.
COMMAND_LINES = {
    "lens_commands.py",
    "likeness_commands.py",
    "translate_command.py",
    "batch_command.py",
    "export_command.py",
    "figure_command.py",
    "lora_command.py",
    "experiment_commands.py",
    "command_input.py",
    "__main__.py",
    "command_line.py",
    "remedies.py",
    "card.py",
    "embedded.py",
}
COPIED = {"take_away.py", "collection_page.py"}  # of the pages those that give a command to copy
FINDINGS = REPOSITORY / "docs" / "findings.md"  # which *Learn* draws


@pytest.mark.parametrize("name", EVERY)
def test_only_the_command_line_names_an_option(name):
    error = InputError("It is not so; give it", remedy=EVERY[name])
    assert OPTION.search(error.worded("command line"))
    for face in ("page", "library"):
        said = error.worded(face)
        assert "--" not in said and not OPTION.search(said)
        assert said.startswith("It is not so; give it ") and said.endswith(".") and not said.endswith("..")


def test_a_refusal_is_worded_for_the_face_that_is_spoken_to():
    error = InputError("Name it", remedy=remedies.MODEL)
    assert str(error) == "Name it to `load_vocabulary` or `load_model`."
    with speaking("command line"):
        assert str(error) == "Name it with --model."
        with speaking("page"):
            assert str(error) == "Name it in the field “Model”."
        assert str(error) == "Name it with --model."
    with speaking("command line"):
        assert str(pickle.loads(pickle.dumps(error))) == "Name it with --model."  # as a worker's process hands it over
    assert str(InputError("Name it.")) == "Name it."


@pytest.mark.parametrize("room", ["analysis", "trained_prompts", "app"])
def test_no_other_sentence_of_the_rooms_names_an_option(room):
    found, but_for = [], COPIED if room == "app" else COMMAND_LINES
    for path in sorted((REPOSITORY / room).rglob("*.py")):
        if path.name in but_for:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body and isinstance(node.body[0], ast.Expr)
        }
        found += [
            f"{path.relative_to(REPOSITORY)}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings and OPTION.search(node.value)
        ]
    assert found == []


def test_the_findings_name_an_option_only_in_the_command_that_prints_a_figure():
    """The one page that tells commands in its sentences: they say how a figure was made, as code."""
    text = FINDINGS.read_text(encoding="utf-8")
    assert OPTION.search(text)
    assert OPTION.search(re.sub(r"`[^`\n]+`", "", text)) is None
