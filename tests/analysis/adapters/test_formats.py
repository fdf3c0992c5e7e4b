"""A format is a record: what it says, and how it is read."""

import ast
from dataclasses import replace

from soft_prompt_explorer.analysis import adapters
from soft_prompt_explorer.analysis.adapters.formats import FORMATS
from soft_prompt_explorer.analysis.core.folders import GALLERY
from tests.support.places import REPOSITORY


def test_every_module_that_reads_a_format_has_its_record():
    there = set()
    for file in (REPOSITORY / "analysis" / "adapters").glob("*.py"):
        first = {node.name: node.args.args[:1] for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}
        if {"reads", "read"} <= set(first) and first["reads"][0].arg == "opened":  # those of kinds of file are asked of a path
            there.add(file.stem)
    assert [each.reads.__module__ for each in FORMATS] == [each.read.__module__ for each in FORMATS]
    assert there == {each.read.__module__.rpartition(".")[2] for each in FORMATS}
    assert len({each.name for each in FORMATS}) == len(FORMATS) and all(each.says and each.source for each in FORMATS)


def test_a_format_is_read_as_its_record_says(monkeypatch):
    """Who adds one writes a record: here that of prompts without a config, with a note on each."""
    last = FORMATS[-1]
    mine = replace(last, name="mine", read=lambda opened, name: replace(last.read(opened, name), notes=("mine",)))
    monkeypatch.setattr(adapters, "FORMATS", (mine, *FORMATS))
    assert adapters.load_adapter(GALLERY / "plural-words-1").notes == ("mine",)
