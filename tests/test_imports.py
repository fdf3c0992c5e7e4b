"""The house stands: a module imports from the rooms above its own and from no other, and never in a circle; tests lie in the same rooms."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

from tests.support.places import REPOSITORY

PACKAGE = "soft_prompt_explorer."
ROOMS = (  # from the top
    *("analysis.core", "analysis.models", "analysis.adapters", "analysis.tasks", "analysis.prompts", "analysis.loras"),
    *("analysis.asking", "analysis.behaviour", "analysis.figures", "analysis.report", "analysis"),
    *("trained_prompts.training", "trained_prompts.runs", "trained_prompts.experiments", "trained_prompts.gallery", "trained_prompts"),
    *("app.pages", "app.server", "app.charts", "app.map", "app.parts", "app.views", "app"),
)
LONGEST = 500  # lines of a file


def modules(*tops: str) -> dict[str, Path]:
    files = (file for top in tops or ("analysis", "trained_prompts", "app") for file in (REPOSITORY / top).rglob("*.py"))
    return {".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imported(file: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports anywhere, within functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = node.module.removeprefix(PACKAGE)
            found |= {name if (name := f"{module}.{alias.name}") in known else module for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix(PACKAGE) for alias in node.names}
    return found & set(known)


def room_of(module: str) -> int:
    return next(i for i, room in enumerate(ROOMS) if module == room or module.startswith(f"{room}."))


def test_no_import_runs_up_and_none_in_a_circle():
    known = modules()
    graph = {module: imported(file, known) - {module} for module, file in known.items()}
    assert sum(map(len, graph.values())) > 300  # they are found at all
    assert [(module, other) for module, others in graph.items() for other in others if room_of(other) > room_of(module)] == []
    TopologicalSorter(graph).prepare()  # raises where there is a circle


def test_every_room_is_one_that_is_listed():
    rooms = {".".join(module.split(".")[:2]) for module, file in modules().items() if file.name == "__init__.py" and "." in module}
    assert rooms == {room for room in ROOMS if "." in room} - {"app.pages"}


def test_contributors_are_told_of_every_room_in_its_order():
    house = (REPOSITORY / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## The house in ten lines")[1].split("\n## ")[0]
    lines = [line.strip() for line in house.splitlines() if line.startswith("    ")]
    assert len(lines) == 10
    told = []
    for line in lines[:-1]:  # the last is of what is beside the house
        place, says = re.split(r"\s{2,}", line, maxsplit=1)
        top, names = place.split("/")
        rooms = names.split(", ") if names else re.sub(r" \([^)]*\)", "", says.split(": ")[-1]).split(" · ")
        told += [f"{top}.{room}" for room in rooms]
    assert told == [room for room in ROOMS if "." in room and room != "app.pages"]


def test_tests_lie_in_the_rooms_that_they_test():
    folders = {module.rpartition(".")[0] for module in modules("tests") if module.split(".")[-1].startswith("test_")}
    assert folders - {"tests", "tests.browser"} <= {f"tests.{room}" for room in ROOMS}


def test_no_test_imports_a_test():
    """What several share is in tests/support; benchmarks share among themselves too."""
    known = modules("tests")
    graph = {module: imported(file, known) - {module} for module, file in known.items()}
    assert sum(map(len, graph.values())) > 100  # they are found at all
    shared, benchmarks = "tests.support.", "tests.benchmarks."
    wrong = [
        (module, other)
        for module, others in graph.items()
        for other in others
        if not other.startswith((shared, benchmarks) if module.startswith(benchmarks) else shared)
    ]
    assert wrong == []


def test_no_file_is_longer_than_a_person_reads():
    files = modules("analysis", "trained_prompts", "app", "soft_prompt_explorer", "tests").values()
    assert {str(file.relative_to(REPOSITORY)): lines for file in files if (lines := file.read_text().count("\n")) > LONGEST} == {}


def test_no_public_function_has_the_name_of_its_module():
    """Who imports the one by mistake for the other would see it late."""
    shared = {
        module
        for module, file in modules().items()
        if any(isinstance(node, ast.FunctionDef) and node.name == file.stem for node in ast.parse(file.read_text()).body)
    }
    assert shared == set()
