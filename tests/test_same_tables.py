"""The command that compares two checkouts: what differs is seen, and a refusal of both is not taken for a table."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import REPOSITORY

PRINTS = "import sys\nprint('a,b')\n"
REFUSES = "import sys\nsys.exit('It is not so.')\n"


def compared(folder: Path, old: str, new: str) -> tuple[int, list[str]]:
    """The exit status and the lines, where the two checkouts differ in what `spectra` of their one LoRA does."""
    for name, spectra in (("old", old), ("new", new)):
        for room in ("analysis", "trained_prompts"):
            (folder / name / room).mkdir(parents=True)
            (folder / name / room / "__main__.py").write_text(
                f"import sys\nif sys.argv[1] == 'spectra':\n    exec({spectra!r})\nelse:\n    print(sys.argv)\n"
            )
        (folder / name / "trained_prompts" / "gallery" / "one-lora-2").mkdir(parents=True)
    run = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.same_tables", str(folder / "old"), str(folder / "new")], cwd=REPOSITORY, capture_output=True, text=True
    )  # fmt: skip
    assert not run.stderr
    return run.returncode, run.stdout.splitlines()


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        (PRINTS, PRINTS.replace("a,b", "a,c"), "table"),
        (PRINTS, PRINTS + "print('but', file=sys.stderr)\n", "errors"),
        (PRINTS, PRINTS + "sys.exit(3)\n", "status"),
        (REFUSES, REFUSES.replace("It", "That"), "errors"),
        (PRINTS, REFUSES, "status and table and errors"),
    ],
    ids=["table", "errors beside it", "status", "refusal", "a refusal for a table"],
)
def test_a_difference_in_status_output_or_errors_is_told(tmp_path, old, new, parts):
    status, lines = compared(tmp_path, old, new)
    assert status == 1
    assert lines[0].startswith(f"differs: spectra one-lora-2, in {parts} (")
    assert lines[1:] == ["tables that are the same: 8; refused by both in the same words: 0; different: 1"]


def test_what_both_refuse_is_counted_by_itself(tmp_path):
    status, lines = compared(tmp_path, REFUSES, REFUSES)
    assert status == 0
    assert lines == [
        "both refuse: spectra one-lora-2 (status 1): It is not so.",
        "tables that are the same: 8; refused by both in the same words: 1; different: 0",
    ]


def test_the_same_tables_are_the_same_wherever_the_checkouts_lie(tmp_path):
    here = PRINTS + "import os\nprint(os.getcwd())\n"
    assert compared(tmp_path, here, here) == (
        0,
        ["tables that are the same: 9; refused by both in the same words: 0; different: 0"],
    )
