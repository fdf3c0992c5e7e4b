"""The pages that people read first: short where they promise it, and true of the code as it is."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from typer.main import get_command

from docs.make import DOCS, asked_prompts, between, commands, pictures, rewritten, tables
from soft_prompt_explorer.__main__ import app as spe
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.asking import scores, sensitivity
from soft_prompt_explorer.analysis.behaviour import asked, contextual, translation
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.loras import base_weights, subspaces, truncation
from soft_prompt_explorer.analysis.loras import ranks as spectra
from soft_prompt_explorer.analysis.prompts import clusters
from soft_prompt_explorer.analysis.prompts import directions as direction
from soft_prompt_explorer.analysis.prompts import likeness as similarity
from soft_prompt_explorer.analysis.prompts import search as neighbours
from soft_prompt_explorer.analysis.prompts import verdicts as readings
from soft_prompt_explorer.analysis.report import inspection
from soft_prompt_explorer.analysis.tasks.finding import tasks_table
from soft_prompt_explorer.trained_prompts.experiments import comparison, kept_behaviour, truncated
from soft_prompt_explorer.trained_prompts.experiments import trades as trade
from soft_prompt_explorer.trained_prompts.gallery import RECIPES
from soft_prompt_explorer.trained_prompts.runs import store
from tests.support.places import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md")), *sorted((REPOSITORY / ".github").glob("*.md"))]
TABLES = [pytest.param(page, name, id=f"{page}-{name}", marks=[pytest.mark.slow] if name == "behaviour" else []) for page, name in tables()]
COLUMNS = {
    "inspect": inspection.COLUMNS,
    "neighbours": [*neighbours.COLUMNS, *contextual.COLUMNS],
    "readings": readings.COLUMNS,
    "direction": direction.COLUMNS,
    "clusters": [*clusters.COLUMNS, *clusters.MEMBER_COLUMNS],
    "similarity": similarity.COLUMNS,
    "spectra": [*spectra.COLUMNS, *base_weights.COLUMNS[1:], *subspaces.COLUMNS, *truncation.COLUMNS, *sensitivity.COLUMNS],
    "cut": truncated.SHARE_COLUMNS,
    "behaviour": asked.COLUMNS,
    "translate": translation.COLUMNS,
    "list": store._RUN_COLUMNS,
    "evaluate": [*scores.COLUMNS, *scores.SCORECARD_COLUMNS, *scores.CALIBRATION_COLUMNS],
    "compare": comparison.COLUMNS,
    "trade": trade.COLUMNS,
    "behaviour of runs": [*kept_behaviour.SUMMARY_COLUMNS, *kept_behaviour.TWIN_COLUMNS],
}


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_readme_is_one_page_of_at_most_six_thousand_bytes():
    assert README.stat().st_size <= 6_000


@pytest.mark.parametrize(("name", "table"), TABLES)
def test_a_table_is_what_the_code_makes_today(name, table):
    assert between(page(name), table) == tables()[name, table](), f"{table} in docs/{name} is stale; run `make docs`"


@pytest.mark.parametrize("name", pictures())
def test_a_picture_is_what_the_code_draws_today(name):
    assert (DOCS / name).read_bytes() == pictures()[name](), f"docs/{name} is stale; run `make docs`"


def test_every_mark_in_a_page_is_of_a_table_that_is_made():
    found = {(path.name, name) for path in DOCS.glob("*.md") for name in re.findall(r"^<!-- (?!/)(.+) -->$", path.read_text("utf-8"), re.M)}
    assert found == set(tables())


def test_a_table_is_written_between_its_marks_and_nowhere_else():
    text = "before\n<!-- it -->\nold\n<!-- /it -->\nafter\n"
    assert rewritten(text, "it", "new\n") == "before\n<!-- it -->\nnew\n<!-- /it -->\nafter\n"
    for broken in ("no marks", text + text, "<!-- /it -->\n<!-- it -->\n", "<!-- it -->\nno end\n"):
        with pytest.raises(ValueError, match="it"):
            rewritten(broken, "it", "new\n")


def test_the_gallery_and_the_comparison_show_every_score_with_its_interval():
    gallery, compared = between(page("findings.md"), "gallery"), between(page("findings.md"), "comparison")
    for path in GALLERY.glob("*/run.json"):
        trained = read_description(path.parent)["scores"]["trained"]
        assert re.search(rf"\| {path.parent.name} \|.*{trained['score']:.3f} \| {trained['low']:.3f} to {trained['high']:.3f} \|", gallery)
    table = pd.read_csv(comparison.SHIPPED / "sentiment.csv")
    assert table["method"].drop_duplicates().tolist() == ["zero-shot", "prompt engineering", *comparison.METHODS]
    for row in table.itertuples():
        assert f"{row.score:.3f} ({row.low:.3f} to {row.high:.3f})" in compared


def test_the_table_of_behaviour_has_every_prompt_that_ships():
    prompts = sorted(path.parent.name for path in GALLERY.glob("*/run.json") if RECIPES[path.parent.name].method != "lora")
    assert sorted(asked_prompts()) == prompts
    rows = between(page("findings.md"), "behaviour").splitlines()[2:]
    assert sorted(row.split(" | ")[0].strip("| ") for row in rows) == prompts


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_within_the_repository_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.is_file() and there.is_relative_to(REPOSITORY), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{path.name} links to {target}, and there is no such heading"


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def command_lines(path: Path) -> Iterator[tuple[str | None, list[str]]]:
    """The package that is called, or None, and the words after it, of each line of a page that calls a command."""
    for line in re.findall(r"(?:^    |`)((?:spe|python -m (?:analysis|trained_prompts)) [a-z][^`\n]*)", path.read_text("utf-8"), re.M):
        words = shlex.split(line, comments=True)
        yield (None, words[1:]) if words[0] == "spe" else (words[2], words[3:])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_line_that_a_page_shows_is_one_that_can_be_given(path):
    known = [*commands(), *((None, name, command) for name, command in get_command(spe).commands.items())]
    for room, words in command_lines(path):
        called = [command for where, name, command in known if (where, name) == (room, words[0])]
        assert called, f"{path.name} shows {words}"
        options = {option for command in called for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, f"{path.name} shows {words}"


def test_command_lines_are_found_where_there_are_some():
    assert len(list(command_lines(README))) == 6 and len(list(command_lines(DOCS / "command_line.md"))) >= len(list(commands()))


@pytest.mark.slow
def test_the_lines_of_python_in_the_readme_print_what_they_say_in_a_clone():
    code = README.read_text(encoding="utf-8").split("## In Python\n")[1].split("\n## ")[0]
    lines = [line[4:] for line in code.splitlines() if line.startswith("    ")]
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert all(name in ended.stdout for name in (*neighbours.COLUMNS, "nearest_token", "initial_token", "verdict"))
    assert len(ended.stdout.splitlines()) == 6 + 11  # five neighbours and ten virtual tokens, below the names of their columns


def sections() -> dict[str, str]:
    parts = re.split(r"^#{2,3} (.+)$", page("command_line.md"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_its_section():
    names = {name if (room, name) != ("trained_prompts", "behaviour") else "behaviour of runs" for room, name, _ in commands()}
    assert names <= set(sections())


def columns_told(name: str) -> list[str]:
    """The columns that the section of a command tells of, in the order in which they stand there."""
    told, is_of_columns = [], False
    for line in sections()[name].splitlines():
        if line.startswith("| column"):
            is_of_columns = True
        elif not line.startswith("|"):
            is_of_columns = False
        elif is_of_columns:
            told += re.findall(r"`([^`]+)`", line.split(" | ")[0])
    return told


@pytest.mark.parametrize("name", COLUMNS)
def test_the_columns_that_the_command_line_page_tells_of_are_those_of_the_table(name):
    assert sorted(columns_told(name)) == sorted(COLUMNS[name])


def test_the_columns_of_tasks_are_those_that_it_prints():
    assert columns_told("tasks") == list(tasks_table().columns)


def test_the_version_and_the_licence_that_are_cited_are_those_of_the_code():
    cited = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert "license: Apache-2.0" in cited and "Apache License" in (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    (version,) = re.findall(r"^version: (\d+\.\d+\.\d+)$", cited, re.M)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    assert project.get("version", version) == version


@pytest.mark.parametrize("path", [*PAGES, REPOSITORY / "CITATION.cff"], ids=lambda path: path.name)
def test_no_page_names_a_place_of_one_persons_machine(path):
    assert not re.search(r"/(?:home|Users|root|work)/", path.read_text(encoding="utf-8"))
