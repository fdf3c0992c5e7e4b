"""A person's own CSV or JSON lines as a task: read line by line, refused in one sentence that names the line, split once and for all.

What kind of file it is, its content says and never its name. A file is parsed by `csv` and `json` alone; uploaded ones are kept under a name of ours.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import write_whole
from soft_prompt_explorer.analysis.core.provenance import file_read
from soft_prompt_explorer.analysis.tasks.task import OWN_TEMPLATE, SPLIT_SEED, Task, checked_template

MAX_BYTES, MAX_ROWS, MAX_CHARACTERS = 20_000_000, 200_000, 20_000
MIN_ROWS, MAX_LABELS, ROWS_A_LABEL = 20, 20, 3
COLUMNS, SPLITS = ("input", "target"), ("train", "held-out")

_JSON_KINDS = {type(None): "null", bool: "true or false", float: "no finite number", list: "a list", dict: "an object"}
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_SUFFIX = {"CSV": ".csv", "JSON lines": ".jsonl"}
_TEMPLATE_SUFFIX = ".template"


def task_from_file(path: Path) -> Task:
    """The task in a CSV or JSON-lines file with the columns `input` and `target`, and `template` if it says how they are asked; other columns are ignored.

    The answers are labels to choose among where there are 2 to 20 different ones with 3 examples each on average, the more frequent first, and
    else free text. A column `split` (train or held-out) is honoured; without one, every fifth example, at least 10 and at most 500, is
    held out by a permutation that is always the same for the same number of examples. A column `template` holds one template for the whole file: a row
    may leave it empty, and no two may differ.

    Raises
    ------
    InputError
        The sentence names the first line that cannot be used.
    """
    try:
        if not path.exists():
            raise InputError(f"There is no file {path}; give the path of a CSV or JSON-lines file.")
        if not path.is_file():
            raise InputError(f"{path} is not a file; give the path of a CSV or JSON-lines file.")
        stat = path.stat()
        task, digest = _read(path.absolute(), stat.st_size, stat.st_mtime_ns)
        file_read(path.name, digest)
        return task
    except OSError as error:
        raise InputError(f"The file {path} cannot be read: {error.strerror or error}.") from error


def keep_uploaded(name: str, content: bytes) -> Path:
    """Keep an uploaded file among the person's own tasks, once it has been checked as `task_from_file` does.

    Parameters
    ----------
    name : what the file was called: it is shown in sentences and shortened to letters, digits and dashes, never used as a path.

    Returns
    -------
    The kept file. The same content under the same name is kept once; other content gets a number, so that no run's task changes.

    Raises
    ------
    InputError
    """
    shown = re.split(r"[/\\]", name)[-1][:100] or "uploaded"
    kind, _, _ = _examples(content, shown)
    stem, folder = _slug(shown.rsplit(".", 1)[0]), own_tasks_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = {path.stem: path for path in folder.iterdir() if path.suffix in _SUFFIX.values()}
        numbered = (stem if i == 0 else f"{stem}-{i + 1}" for i in range(len(taken) + 1))
        free = next(own for own in numbered if own not in taken or taken[own].read_bytes() == content)
        path = taken.get(free, folder / f"{free}{_SUFFIX[kind]}")
        if free not in taken:
            write_whole(path, content)
    except OSError as error:
        raise InputError(f"The file cannot be kept in {folder}: {error.strerror or error}.") from error
    return path


def kept_tasks() -> list[Task]:
    """The tasks in the person's own kept files by name, as far as these can be read, each with the template that was kept for it."""
    return list(_kept().values())


def keep_template(name: str, template: str) -> Task:
    """Keep how one of the person's own kept tasks is asked from now on; a run goes on being asked as it was trained.

    Parameters
    ----------
    name : of one of `kept_tasks`.
    template : with `{input}` in it exactly once.

    Raises
    ------
    InputError
        There is no such task, or the template cannot be used or kept.
    """
    found = {task.name: path for path, task in _kept().items()}
    if name not in found:
        raise InputError(f"No task of your own is called {name[:80]!r}; the tasks are {', '.join(found) or 'none yet'}.")
    task = task_from_file(found[name]).asked_with(template)
    try:
        write_whole(found[name].with_suffix(_TEMPLATE_SUFFIX), task.template.encode())
    except OSError as error:
        raise InputError(f"The template cannot be kept in {found[name].parent}: {error.strerror or error}.") from error
    return task


def _kept() -> dict[Path, Task]:
    """Each kept file and its task."""
    tasks = {}
    for path in sorted(own_tasks_folder().glob("[a-z0-9]*.*"), key=lambda path: path.stem):
        if path.suffix not in _SUFFIX.values():
            continue
        try:
            task = task_from_file(path)
            kept = path.with_suffix(_TEMPLATE_SUFFIX)
            tasks[path] = task.asked_with(kept.read_text(encoding="utf-8")) if kept.is_file() else task
        except (InputError, OSError, UnicodeDecodeError):
            continue  # changed since it was kept, and by somebody else: the rest can still be used
    return tasks


def own_tasks_folder() -> Path:
    """Where uploaded files are kept: beside the person's own runs, and out of their list."""
    from soft_prompt_explorer.analysis.core.folders import runs_folder  # imports the trainer, which imports the tasks

    return runs_folder() / ".tasks"


@lru_cache(maxsize=64)
def _read(path: Path, size: int, modified: int) -> tuple[Task, str]:
    """The task of one state of a file and the file's sha256, so that a name can be asked for often: `size` and `modified` only tell the states apart."""
    if size > MAX_BYTES:
        raise _too_large(path.name)
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    _, table, template = _examples(content, path.name)
    digest = sha256(content).hexdigest()
    task = Task(
        name=f"own-{_slug(path.stem)}",
        description=f"Your own examples from {path.name}.",
        template=template or OWN_TEMPLATE,
        labels=_labels(table["target"]),
        source=f"{path.name}, sha256 {digest[:12]}…",
        load=lambda: table,
    )
    return task, digest


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "examples"


def _labels(targets: pd.Series) -> tuple[str, ...] | None:
    """The different targets, the more frequent first and then by alphabet; None where they are free text."""
    counts = Counter(targets)
    if len(counts) > MAX_LABELS or len(targets) < ROWS_A_LABEL * len(counts):
        return None
    return tuple(sorted(counts, key=lambda target: (-counts[target], target)))


# --- The table in a file ---------------------------------------------------------------------------------------------


def _examples(content: bytes, file: str) -> tuple[str, pd.DataFrame, str | None]:
    """The kind of a file, `CSV` or `JSON lines`, its examples (input, target and split, in an order that mixes them), and its template if it has one."""
    text = _text(content, file)
    kind = "JSON lines" if text.lstrip().startswith("{") else "CSV"
    if re.match(r"\s*\[\s*[{\]]", text):
        raise InputError(
            f"{file} is one JSON array, where JSON lines have an object on each line; convert it with "
            "`jq -c '.[]' FILE > NEW.jsonl`, or pandas.read_json(FILE).to_json(NEW, orient='records', lines=True)."
        )
    rows: list[tuple] = []
    template: str | None = None
    read: Callable[[str, str], Iterator[tuple[int, dict[str, Any]]]] = _json_lines if kind == "JSON lines" else _csv_rows
    for line, fields in read(text, file):
        if len(rows) == MAX_ROWS:
            raise InputError(f"{file} has more than {MAX_ROWS:,} examples; give that many at most.")
        rows.append(_example(line, fields, file))
        template = _template(line, fields, file, template)
        if len(rows[-1]) != len(rows[0]):
            raise InputError(f"Line {line} of {file} and its first example differ in whether they have a split; give all or none one.")
    return kind, _split(pd.DataFrame(rows, columns=[*COLUMNS, "split"][: len(rows[0]) if rows else 2]), file), template


def _text(content: bytes, file: str) -> str:
    if len(content) > MAX_BYTES:
        raise _too_large(file)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{file} is text in UTF-16, and UTF-8 was expected; save it again as “CSV UTF-8”.")
    if b"\0" in content:
        raise InputError(
            f"Line {_line_at(content, content.index(0))} of {file} holds a NUL byte, so it is not text; give a CSV or JSON lines."
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line_at(content, error.start)
        raise InputError(
            f"Line {line} of {file} is not UTF-8 (byte 0x{content[error.start]:02X}); save the file again as UTF-8."
        ) from error
    if not text.strip():
        raise InputError(f"{file} is empty; give a CSV or JSON lines with the columns input and target.")
    return text


def _line_at(content: bytes, position: int) -> int:
    return len((content[:position] + b"x").splitlines())


def _too_large(file: str) -> InputError:
    return InputError(f"{file} is larger than {MAX_BYTES // 10**6} MB, the most that is read; give fewer examples.")


def _csv_rows(text: str, file: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The physical line that each row begins on, and its fields by the header's names."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    header, line = None, 1
    try:
        for fields in reader:
            if len(fields) < 2 and not "".join(fields).strip():
                pass  # an empty line
            elif header is None:
                header = [name.strip() for name in fields]
                _check_columns(header, f"The header of {file}")
            elif len(fields) != len(header):
                raise InputError(
                    f"Line {line} of {file} has {_count(len(fields), 'field')} and the header {len(header)}; "
                    "put quotation marks around a text that holds the delimiter."
                )
            else:
                yield line, dict(zip(header, fields, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"Line {line} of {file} cannot be read as CSV ({error}); close its quotation marks, double those within a quoted text, "
            f"and keep a field to {MAX_CHARACTERS:,} characters."
        ) from error


def _delimiter(text: str) -> str:
    """The comma, unless a tab or a semicolon finds more of the columns in the header."""
    header = text.lstrip().splitlines()[0]

    def found(delimiter: str) -> tuple[int, int]:
        names = [name.strip(' "') for name in header.split(delimiter)]
        return len(set(COLUMNS) & set(names)), len(names)

    return max(",\t;", key=found)


def _json_lines(text: str, file: str) -> Iterator[tuple[int, dict[str, object]]]:
    for line, written in enumerate(io.StringIO(text, newline=None), start=1):
        if not written.strip():
            continue
        try:
            fields = json.loads(written, parse_int=str, parse_float=str)  # a number is taken as it is written
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "too deep"
            raise InputError(f"Line {line} of {file} is not JSON ({reason}); put one whole object on each line.") from error
        if not isinstance(fields, dict):
            raise InputError(f"Line {line} of {file} holds no JSON object; put one whole object on each line.")
        _check_columns(list(fields), f"Line {line} of {file}")
        yield line, fields


def _check_columns(found: list[str], where: str) -> None:
    for column in COLUMNS:
        if column not in found:
            shown = ", ".join(name[:40] or "(no name)" for name in found[:10]) + (", …" if len(found) > 10 else "")
            raise InputError(f"{where} has no column {column}, only {shown or 'none'}; name the columns input and target.")
    for column in (*COLUMNS, "split", "template"):
        if found.count(column) > 1:
            raise InputError(f"{where} has {found.count(column)} columns called {column}; rename all but one.")


def _example(line: int, fields: dict[str, object], file: str) -> tuple[str, ...]:
    """The input, the target with one space before it, and the split where there is one."""
    columns = [column for column in (*COLUMNS, "split") if column in fields]
    text = {column: _field(fields[column], f"The {column} on line {line} of {file}") for column in columns}
    if text.get("split", "train") not in SPLITS:
        raise InputError(f"The split on line {line} of {file} is {text['split'][:40]!r}; write train or held-out.")
    text["target"] = f" {text['target']}"
    return tuple(text.values())


def _template(line: int, fields: dict[str, object], file: str, before: str | None) -> str | None:
    """The file's template, once this line has been read: where it has none, what stood before."""
    written = fields.get("template")
    if written is None or written == "":
        return before
    if not isinstance(written, str):
        raise InputError(
            f"The template on line {line} of {file} is {_JSON_KINDS[type(written)]}, and a text was expected; write it in quotation marks."
        )
    template = checked_template(written, f"The template on line {line} of {file}")
    if before is not None and template != before:
        raise InputError(
            f"The template on line {line} of {file} differs from the one before it; give a file one template, and other templates a file of their own."
        )
    return template


def _field(value: object, where: str) -> str:
    """A field without the white space around it; `where` begins the sentence that refuses it."""
    if not isinstance(value, str):
        raise InputError(f"{where} is {_JSON_KINDS[type(value)]}, and a text or a number was expected; write it in quotation marks.")
    if _NO_TEXT.search(value):
        raise InputError(f"{where} holds a NUL or half a surrogate pair, which is no text; take it out.")
    if len(value) > MAX_CHARACTERS:
        raise InputError(
            f"{where} has {len(value):,} characters, and {MAX_CHARACTERS:,} are the most; shorten it, or close its quotation marks."
        )
    if not value.strip():
        raise InputError(f"{where} is empty; fill it in, or remove the example.")
    return value.strip()


def _split(table: pd.DataFrame, file: str) -> pd.DataFrame:
    if len(table) < MIN_ROWS:
        raise InputError(f"{file} has {_count(len(table), 'example')}, and {MIN_ROWS} are the fewest; add some.")
    if (table["target"] == table["target"].iloc[0]).all():
        raise InputError(
            f"All {len(table)} targets of {file} are {table['target'].iloc[0].strip()[:40]!r}, so there is nothing to learn; give two answers or more."
        )
    table = table.iloc[np.random.default_rng(SPLIT_SEED).permutation(len(table))].reset_index(drop=True)
    if "split" not in table:
        held_out = min(max(len(table) // 5, 10), 500)
        return table.assign(split=np.where(np.arange(len(table)) < held_out, *reversed(SPLITS)))
    for split in SPLITS:
        if not (table["split"] == split).any():
            raise InputError(f"No example of {file} has the split {split}; mark some of each, or leave the column out.")
    return table


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
