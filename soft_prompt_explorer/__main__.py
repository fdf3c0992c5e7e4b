"""The command `spe`: every command of both command lines, and without any the dashboard."""

from __future__ import annotations

import sys
from importlib import resources
from typing import Annotated

import typer

from soft_prompt_explorer import __version__
from soft_prompt_explorer.analysis.__main__ import app as reading
from soft_prompt_explorer.analysis.command_line import run
from soft_prompt_explorer.trained_prompts.__main__ import app as training

app = typer.Typer(
    help="Read soft prompts and LoRAs, train them, and see both in a browser: `spe` by itself opens the dashboard.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_TAKEN = {"behaviour": "ask-runs"}  # a command of both, by another name where it is that of `python -m trained_prompts`
app.registered_commands += reading.registered_commands
for _command in training.registered_commands:
    assert _command.callback is not None
    _name = _command.name or _command.callback.__name__
    app.command(_TAKEN.get(_name, _name))(_command.callback)


def _told(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def dashboard(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_told, is_eager=True)] = False,
    port: Annotated[int, typer.Option(help="Of the dashboard, on this machine alone.")] = 8501,
) -> None:
    """Read soft prompts and LoRAs, train them, and see both in a browser: `spe` by itself opens the dashboard."""
    if context.invoked_subcommand is not None:
        return
    from streamlit.web import cli

    page = resources.files("soft_prompt_explorer.app") / "serve.py"  # beside this folder in a clone, within it where it is installed
    sys.argv = ["streamlit", "run", str(page), "--server.port", str(port)]
    raise SystemExit(cli.main())


def main() -> None:
    run(app)


if __name__ == "__main__":
    main()
