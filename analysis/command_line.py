"""What both command lines (`python -m analysis`, `python -m trained_prompts`) have in common."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soft_prompt_explorer.analysis.core import provenance
from soft_prompt_explorer.analysis.core.errors import InputError, not_installed
from soft_prompt_explorer.analysis.core.progress import Report
from soft_prompt_explorer.analysis.core.remedies import speaking
from soft_prompt_explorer.analysis.models.computing import DEVICE_VARIABLE, DTYPE_VARIABLE

if TYPE_CHECKING:
    import pandas as pd


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How to print the table on standard output.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Write to this file instead: .csv, .parquet, .json or .md.", dir_okay=False)]
_refused: ContextVar[list[str] | None] = ContextVar("refused", default=None)
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="smollm2-135m, a hub id, a folder or a .gguf file. [default: the adapter's own, else SPE_MODEL's]"),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        envvar=DTYPE_VARIABLE,
        help="The numbers that the model computes in: float32, bfloat16, float16, or auto, which is bfloat16 for more than 500 million parameters where the device has it in hardware. "
        "[default: auto]",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", envvar=DEVICE_VARIABLE, help="Where the model computes: cpu, cuda, cuda:1, mps. [default: the best that torch finds]"
    ),
]


def new_app(help_text: str) -> typer.Typer:
    return typer.Typer(help=help_text, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def run(app: typer.Typer) -> None:
    """Run a command line: status 0 done, 1 a bug, 2 the input was refused (one sentence on standard error), or a part of it (see `leave_out`)."""
    read = provenance.Log()
    provenance.keep(lambda: read)
    with speaking("command line"):
        refused: list[str] = []
        before, chosen = _refused.set(refused), {name: os.environ.get(name) for name in (DTYPE_VARIABLE, DEVICE_VARIABLE)}
        try:
            _run(app, refused)
        finally:
            _refused.reset(before)
            for name, value in chosen.items():  # a command's choice is its own
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def leave_out(error: InputError) -> None:
    """Say that one of many files is refused, and go on with the others; the status is 2 in the end."""
    print(f"Left out: {error}", file=sys.stderr)
    refused = _refused.get()
    if refused is not None:
        refused.append(str(error))


def _run(app: typer.Typer, refused: list[str]) -> None:
    try:
        status = app(standalone_mode=False)
        if refused:
            raise InputError(
                f"{len(refused)} of the adapters that were found {'were' if len(refused) > 1 else 'was'} refused and left out."
            )
        raise SystemExit(status)
    except typer.TyperException as error:  # an option or argument that does not parse
        message = error.format_message()
        print(message if message.startswith("Usage:") else " ".join(message.split()), file=sys.stderr)  # no argument at all: the help
        raise SystemExit(2) from None
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:  # of a name that no file can have, where nobody expected one
        if error.errno not in (errno.ENAMETOOLONG, errno.ENOTDIR):
            raise
        print(
            f"{str(error.filename)[:80]!r}{'…' if len(str(error.filename)) > 80 else ''} cannot be a file here: {error.strerror}.",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except UnicodeEncodeError as error:
        print(
            f"A name or a text holds {error.object[error.start : error.end]!a}, which is no character; name the file otherwise.",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        if (told := not_installed(error)) is None:
            raise
        print(told, file=sys.stderr)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, typer.Abort):  # typer turns the one into the other
        print("Stopped; nothing was saved.", file=sys.stderr)
        raise SystemExit(130) from None


def emit(table: pd.DataFrame, form: Format, out: Path | None, *, seed: int | None = None) -> None:
    """Print a table, or write it where `--out` says, with where it comes from.

    Parameters
    ----------
    seed : of a command that takes one.
    """
    from soft_prompt_explorer.analysis.core import export

    if out is not None:
        export.write_table(table, out, provenance.made_by(provenance.typed_command(), seed=seed))
        print(f"{len(table)} rows written to {out}", file=sys.stderr)
    elif form is Format.table:
        shown = table.to_string(index=False, float_format=lambda number: f"{number:.4g}", na_rep="-")
        _print(((shown if len(table) else "nothing") + "\n").encode("utf-8", "replace"))
    else:
        _print(export.WRITERS[form](table))


def show_rows(rows: list[dict], columns: list[str]) -> None:
    """Print rows as a table for reading, as `emit` does: for an answer that takes less time than pandas takes to load."""
    lines = [columns, *([_shown(row.get(column)) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [" ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    _print(("\n".join(text) + "\n").encode("utf-8", "replace"))


def _shown(value: object) -> str:
    if value is None or value != value:  # NaN
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print(content: bytes) -> None:
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # `... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def check_out(out: Path | None) -> None:
    """Refuse an unusable `--out` before the work is done."""
    if out is not None:
        from soft_prompt_explorer.analysis.core import export

        export.form_of(out)
        check_folder(out)


def check_page(out: Path) -> None:
    """`check_out` of a report."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{out.name} does not end in .html; the report is a page for a browser.")
    check_folder(out)


def check_folder(out: Path) -> None:
    """Refuse a file in a folder that is not there before the work is done."""
    if not out.parent.is_dir():
        raise InputError(f"The folder {out.parent} does not exist; create it, or choose another place for {out.name}.")


@contextmanager
def progress_bar() -> Iterator[Report]:
    """A bar on standard error that appears once something reports, for instance a vocabulary read for the first time."""
    from tqdm import tqdm

    bar: tqdm | None = None

    def report(share: float, doing: str) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=100, bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}", file=sys.stderr, leave=False, disable=None)
        bar.set_description_str(doing, refresh=False)
        bar.update(100 * share - bar.n)

    try:
        yield report
    finally:
        if bar is not None:
            bar.close()
