"""A command line in this process, with what it prints caught."""

import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.support.places import REPOSITORY


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


def caller_of(package: str, app, monkeypatch, capsys) -> Callable[..., Outcome]:
    """Runs `python -m PACKAGE` with the arguments that it is called with."""
    from soft_prompt_explorer.analysis.command_line import run

    def call(*arguments) -> Outcome:
        monkeypatch.setattr("sys.argv", [package, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(app)
        captured = capsys.readouterr()
        return Outcome(ended.value.code or 0, captured.out, captured.err)

    return call


def command_line_csv(*arguments: str) -> bytes:
    return subprocess.run(
        [sys.executable, "-m", "analysis", *arguments, "--format", "csv"], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE
    ).stdout
