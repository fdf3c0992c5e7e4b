"""One table, the same bytes everywhere: what the command line prints is what a page's button downloads."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import pandas as pd

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import write_whole
from soft_prompt_explorer.analysis.core.provenance import BESIDE, KEY, Provenance

# A spreadsheet runs a cell that starts with one of these (OWASP, "CSV injection"; the last four are their full-width forms).
_FORMULA_STARTS = tuple("=+-@\t\r＝＋－＠")


def to_csv(table: pd.DataFrame) -> bytes:
    """UTF-8 with a header row; numbers round-trip; a text cell that a spreadsheet would run as a formula gets a leading apostrophe."""
    return table.map(_disarmed).to_csv(index=False, lineterminator="\n").encode("utf-8")


def to_json(table: pd.DataFrame, made: Provenance | None = None) -> bytes:
    """A list of one object a row; missing values are null. With a provenance, an object that holds it first, and that list as `rows`."""
    rows = [{key: _plain(value) for key, value in row.items()} for row in table.to_dict("records")]
    content = rows if made is None else {KEY: made.told(), "rows": rows}
    return (json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode("utf-8")


def to_parquet(table: pd.DataFrame, made: Provenance | None = None) -> bytes:
    """Apache Parquet, the column types kept; a provenance is in the file's metadata, as JSON under `provenance`."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = pa.Table.from_pandas(table, preserve_index=False)
    if made is not None:
        columns = columns.replace_schema_metadata({**(columns.schema.metadata or {}), KEY: made.as_json()})
    buffer = io.BytesIO()
    parquet.write_table(columns, buffer)
    return buffer.getvalue()


def to_markdown(table: pd.DataFrame) -> bytes:
    """A pipe table as GitHub renders it: for a note, a paper's draft or an issue. Numbers have four digits; text is shown, never interpreted."""
    numeric = [pd.api.types.is_numeric_dtype(table[name]) and not pd.api.types.is_bool_dtype(table[name]) for name in table.columns]
    lines = [list(map(_markdown_cell, table.columns)), ["---:" if right else "---" for right in numeric]]
    lines += [[_markdown_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).encode("utf-8")


WRITERS = {"csv": to_csv, "parquet": to_parquet, "json": to_json, "md": to_markdown}
WITHIN = {"parquet": to_parquet, "json": to_json}  # which hold their provenance; it lies beside the others


def written(table: pd.DataFrame, form: str, made: Provenance) -> bytes:
    """The file of a table in one of the formats of `WRITERS`, with its provenance where the format can hold it."""
    return WITHIN[form](table, made) if form in WITHIN else WRITERS[form](table)


def write_table(table: pd.DataFrame, path: Path, made: Provenance) -> None:
    """Write a table in the format that the file's ending names, its provenance within or beside it; each file appears whole or not at all.

    Raises
    ------
    InputError
        The ending is none of .csv, .parquet, .json and .md, or the file cannot be written.
    """
    form = form_of(path)
    content = written(table, form, made)
    if form not in WITHIN:
        write(made.as_file(), path.with_name(path.name + BESIDE))
    write(content, path)


def write(content: bytes, path: Path) -> None:
    """Write a file; it appears whole or not at all.

    Raises
    ------
    InputError
        It cannot be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error


def form_of(path: Path) -> str:
    """The format that a file's ending names.

    Raises
    ------
    InputError
    """
    form = path.suffix.lower().lstrip(".")
    if form not in WRITERS:
        raise InputError(f"{path.name} does not end in .csv, .parquet, .json or .md; the ending chooses the format.")
    return form


def _disarmed(value):
    if not isinstance(value, str):
        return value
    value = value.replace("\r", "\\r")  # the writer quotes a line feed but not this one, and readers take it for the row's end
    return "'" + value if value.lstrip(" ").startswith(_FORMULA_STARTS) else value


def _markdown_cell(value) -> str:
    value = _plain(value)
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", text).replace("\n", " ").replace("\r", " ")
    return "␣" + text[1:] if text.startswith(" ") else text  # the space that starts a word stays visible


def _plain(value):
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    return value.item() if hasattr(value, "item") else value
