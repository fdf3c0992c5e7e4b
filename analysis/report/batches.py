"""Thousands of adapters at once: what is in each, what is read in it and how its spectra look, as Parquet that any tool reads, and gone on with after a stop.

    manifest.parquet                     a row a file that was read: the columns of `inspect`, and copy_of, the first path with the same sha256
    refused.parquet                      a row a file that was refused: path, why
    tokens/base_model=…/part.parquet     a row a virtual token: path, sha256 and the columns of `readings`
    modules/base_model=…/part.parquet    a row a module of a LoRA: path, sha256 and the columns of `spectra`, its singular values as a list
    health/base_model=…/part.parquet     a row a finding about a LoRA: path, sha256 and the columns of `health`
    lens/base_model=…/part.parquet       where the lens is asked for: a row a word that an adapter pushes the model towards: path, sha256 and the columns of `lens`
    sketches/base_model=…/part.parquet   a few rows a LoRA: path, sha256 and the columns of `loras.sketching`, by which alike ones are found
    journal.sqlite                       what was done so far; a run that is started again goes on from it, and does again what another version did
    batch.log                            a line a file

Each file is read once, by the process that also computes its tables.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np
import pandas as pd

from soft_prompt_explorer import __version__
from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt, load_adapter
from soft_prompt_explorer.analysis.adapters.own_model import trusted_model
from soft_prompt_explorer.analysis.core import provenance
from soft_prompt_explorer.analysis.core.engines import Engine, outcomes
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.export import write_table
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.provenance import KEY, Provenance
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.loras.ranks import health, spectra, values_of
from soft_prompt_explorer.analysis.loras.sketching import sketches
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_ALIASES, EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary, load_vocabulary
from soft_prompt_explorer.analysis.models.weights import prepare_model
from soft_prompt_explorer.analysis.prompts.starts import start_from_config
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.analysis.report.batch_files import Found, find, on_this_machine
from soft_prompt_explorer.analysis.report.inspection import COLUMNS, describe, vocabulary_at_hand

if TYPE_CHECKING:
    from soft_prompt_explorer.analysis.behaviour.others import AtHand
    from soft_prompt_explorer.analysis.behaviour.unrelated import Watch

_Loaded = TypeVar("_Loaded")
TABLES = ("tokens", "modules", "health", "lens", "sketches")
NO_MODEL = "unknown"
ROWS_AT_ONCE = 200_000  # of a table that is written


class Done(NamedTuple):
    """What came of one: the row of `inspect` or why it was refused, its tables by name, packed for the journal, and the digests of models that were read for it."""

    url: str
    state: str
    row: dict[str, Any] | None
    refused: str | None
    tables: dict[str, bytes]
    models: dict[str, dict[str, str | None]]
    process: int
    seconds: float


def batch(
    pattern: str, folder: Path, *, model: str | None = None, lens: bool = False, engine: Engine = "loky", workers: int = 1,
    scheduler: str | None = None, command: str = "soft_prompt_explorer.batch", report: Report = no_report,
) -> pd.DataFrame:  # fmt: skip
    """Read all adapters that a pattern names, and keep the tables in a folder; what was done before is not done again.

    Parameters
    ----------
    folder : where the tables are kept, and the journal of what was done.
    model : whose vocabulary prompts are read against; each one's own where it is on this machine when None.
    lens : look through the model too (see `analysis.behaviour.difference_lens`), through the embedded one where none is named: each process loads it once, and what
        null adapters do is kept for the next adapter with the same start and lengths. It takes minutes an adapter on a processor.
    engine, workers, scheduler : see `core.engines.outcomes`; a cluster's workers have to see the files.
    command : as which every table's provenance names it.

    Returns
    -------
    The manifest.

    Raises
    ------
    InputError
        Nothing is named, the folder cannot be written or is of another batch, or the engine is not there.
    """
    found = find(pattern)
    if model is not None:
        load_vocabulary(model, report=report)  # prepared once, before several processes want it
    if lens:
        prepare_model(model or EMBEDDED_MODEL, report=report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        journal = _Journal(folder / "journal.sqlite", model, lens)
    except (OSError, sqlite3.DatabaseError) as error:
        raise InputError(f"The tables cannot be kept in {folder}: {error}; choose another folder.") from error
    with closing(journal), (folder / "batch.log").open("a", encoding="utf-8") as log:
        waiting = [each for each in found if not journal.has(each)]
        done = len(found) - len(waiting)
        report(done / len(found), f"{done:,} of {len(found):,} were done before")
        calls = [(each, model, lens) for each in waiting]
        for one in outcomes(read, calls, engine=engine, workers=workers, scheduler=scheduler):
            done += 1
            told = "refused" if one.refused else one.row["kind"] if one.row else ""
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')}\t{one.process}\t{one.seconds:.3f}\t{told}\t{printable(one.url)}\n")
            log.flush()
            journal.add(one)
            report(done / len(found), f"{done:,} of {len(found):,}")
        return _write(journal, {each.url for each in found}, folder, Provenance(command, (), journal.models()))


def read(one: Found, model: str | None, lens: bool) -> Done:
    """All that is told of one adapter, in one reading of its files."""
    _keep_freed_memory()
    began = time.perf_counter()
    row: dict[str, Any] | None = None
    refused, tables, notes = None, {}, []
    models: dict[str, dict[str, str | None]] = {}
    try:
        with provenance.own_log() as log, tempfile.TemporaryDirectory() as folder:
            adapter = load_adapter(on_this_machine(one, Path(folder)))
            vocabulary = _vocabulary_of(adapter, model)
            found: dict[str, pd.DataFrame] = {}
            for compute in (_tables, partial(_lens, model=model)) if lens else (_tables,):
                try:
                    found |= compute(adapter, vocabulary)
                except Exception as error:  # it was read, and only what is told of it could not be computed
                    notes.append(_why(error))
            row = {"path": printable(one.url), **describe(adapter, vocabulary, modules=found.get("modules"))}
            row["notes"] = "; ".join(filter(None, [row["notes"], *notes]))
            tables = {name: _packed(table) for name, table in found.items() if len(table)}
            models = {name: {**digest(), **log.computed.get(name, {})} for name, digest in log.models.items()}
    except Exception as error:
        row, refused = None, _why(error)
    return Done(one.url, one.state, row, refused, tables, models, os.getpid(), time.perf_counter() - began)


def _why(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    return f"Reading it failed unexpectedly ({type(error).__name__}: {printable(str(error))[:200]})."


@cache
def _keep_freed_memory() -> None:
    """Have the C library keep memory that is freed, up to twice as much as this array, for what is asked for next: it takes its measure from the largest
    one freed (mallopt(3), M_MMAP_THRESHOLD). Else every factor's pages are fetched from the system anew, a fifth of the time."""
    np.empty(2**24, np.uint8)


def _vocabulary_of(adapter: SoftPrompt | LoraAdapter, model: str | None) -> Vocabulary | None:
    if not isinstance(adapter, SoftPrompt) or adapter.kind != "soft_prompt":
        return None
    if model is None:
        return vocabulary_at_hand(adapter)
    vocabulary = _vocabulary(model)
    return vocabulary if vocabulary.width == adapter.width else None


def _vocabulary(model: str) -> Vocabulary:
    return _of_this_process(load_vocabulary, model)


def _of_this_process(load: Callable[[str], _Loaded], model: str) -> _Loaded:
    """What this process loaded of a model, once; where it comes from is said again for each adapter."""
    found, read = _loaded(load, model)
    provenance.say_again(read)
    return found


@lru_cache(maxsize=3)  # a vocabulary, a model, and what the prompts at hand change
def _loaded(load: Callable[[str], _Loaded], model: str) -> tuple[_Loaded, provenance.Log]:
    with provenance.own_log() as read:
        return load(model), read


def _tables(adapter: SoftPrompt | LoraAdapter, vocabulary: Vocabulary | None) -> dict[str, pd.DataFrame]:
    if isinstance(adapter, LoraAdapter):
        if adapter.needs_weights:
            return {}
        modules = spectra(adapter)
        found = health(adapter, modules)
        return {
            "modules": modules.assign(singular_values=[values_of(row).tolist() for row in modules.itertuples()]),
            "health": found.assign(module=found["module"].astype("string")),
            "sketches": sketches(adapter),
        }
    if vocabulary is None:
        return {}
    prompt = start_from_config(adapter, vocabulary)
    return {"tokens": pd.concat([readings(part, vocabulary) for part in prompt.split()], ignore_index=True)}


def _lens(adapter: SoftPrompt | LoraAdapter, vocabulary: Vocabulary | None, *, model: str | None) -> dict[str, pd.DataFrame]:
    """The words that an adapter pushes the model towards, as the command `lens` tells them."""
    from soft_prompt_explorer.analysis.behaviour.difference_lens import lens

    if model is None and (trusted_model(adapter) or adapter.base_model or EMBEDDED_MODEL) not in EMBEDDED_ALIASES:
        raise InputError(
            f"the lens was not used: the adapter is for {printable(str(adapter.base_model))}, and only a model that is named is loaded"
        )
    watch, words = _of_this_process(_watch, model or EMBEDDED_MODEL), _vocabulary(model or EMBEDDED_MODEL)
    others = _of_this_process(_at_hand, model or EMBEDDED_MODEL)
    parts: list[SoftPrompt | LoraAdapter] = [adapter]
    if isinstance(adapter, SoftPrompt) and adapter.kind == "soft_prompt" and vocabulary is not None:
        parts = [*start_from_config(adapter, vocabulary).split()]
    return {"lens": lens(parts, watch, words, others=others).drop(columns="path")}


def _watch(model: str) -> Watch:
    """A model with the texts that it is looked at with."""
    from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
    from soft_prompt_explorer.analysis.models.weights import load_model

    return Watch(load_model(model))


def _at_hand(model: str) -> AtHand:
    """What the prompts that ship for a model change, which is the same for every adapter."""
    from soft_prompt_explorer.analysis.behaviour.others import changes_at_hand

    return changes_at_hand(_of_this_process(_watch, model), _vocabulary(model))


def _packed(table: pd.DataFrame) -> bytes:
    """A table as Arrow's stream, which is written and read in a third of Parquet's time."""
    import pyarrow as pa

    arrow, packed = pa.Table.from_pandas(table, preserve_index=False), pa.BufferOutputStream()
    with pa.ipc.new_stream(packed, arrow.schema) as stream:
        stream.write_table(arrow)
    return packed.getvalue().to_pybytes()


class _Journal:
    """What was done, a row a file, each written for good before the next is begun."""

    def __init__(self, path: Path, model: str | None, lens: bool) -> None:
        self._db = sqlite3.connect(path)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT)")
        self._db.execute("CREATE TABLE IF NOT EXISTS done (url TEXT PRIMARY KEY, state TEXT, row TEXT, refused TEXT)")
        if not any(column[1] == "version" for column in self._db.execute("PRAGMA table_info(done)")):
            self._db.execute("ALTER TABLE done ADD COLUMN version TEXT")
        self._db.execute("CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, digest TEXT)")
        self._db.execute("CREATE TABLE IF NOT EXISTS tables (url TEXT, name TEXT, content BLOB, PRIMARY KEY (url, name))")
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?)", [("model", json.dumps(model)), ("lens", json.dumps(lens))])
        before = {name: json.loads(value) for name, value in self._db.execute("SELECT name, value FROM settings")}
        if before != {"model": model, "lens": lens}:
            how = f"against {before.get('model') or 'each own model'}, with{'' if before.get('lens') else 'out'} the lens"
            raise InputError(f"The folder {path.parent} holds a batch that was read {how}; choose another folder.")

    def has(self, found: Found) -> bool:
        """Whether it was done as it is now, by this version."""
        asked = "SELECT 1 FROM done WHERE url = ? AND state = ? AND version = ?"
        return self._db.execute(asked, (found.url, found.state, __version__)).fetchone() is not None

    def add(self, one: Done) -> None:
        with self._db:
            self._db.execute("DELETE FROM tables WHERE url = ?", (one.url,))
            row = None if one.row is None else json.dumps(one.row)
            self._db.execute("INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?, ?)", (one.url, one.state, row, one.refused, __version__))
            self._db.executemany("INSERT INTO tables VALUES (?, ?, ?)", [(one.url, name, content) for name, content in one.tables.items()])
            self._db.executemany(
                "INSERT OR REPLACE INTO models VALUES (?, ?)", [(name, json.dumps(told)) for name, told in one.models.items()]
            )

    def models(self) -> dict[str, provenance.Digest]:
        """What answers the digest of each model that was read, as a provenance asks for it."""
        told = self._db.execute("SELECT name, digest FROM models ORDER BY name")
        return {name: partial(json.loads, digest) for name, digest in told}

    def rows(self, urls: set[str]) -> Iterator[tuple[str, dict[str, Any] | None, str | None]]:
        for url, row, refused in self._db.execute("SELECT url, row, refused FROM done ORDER BY url"):
            if url in urls:
                yield url, None if row is None else json.loads(row), refused

    def tables(self, name: str, urls: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for url in urls:
            for (content,) in self._db.execute("SELECT content FROM tables WHERE url = ? AND name = ?", (url, name)):
                yield url, content

    def close(self) -> None:
        self._db.close()


def _write(journal: _Journal, urls: set[str], folder: Path, made: Provenance) -> pd.DataFrame:
    """The tables from the journal, a base model at a time, so that memory stays flat. The digests of the files are in the tables themselves."""
    done, refused = [], []
    for url, row, why in journal.rows(urls):
        if why is not None:
            refused.append((printable(url), why))
        elif row is not None:
            done.append(row | {"url": url})
    manifest = pd.DataFrame(done, columns=[*COLUMNS, "url"])
    manifest = manifest.astype({"virtual_tokens": "Int64", "width": "Int64", "tensors": "Int64", "norm_median": "float64"})
    first = manifest.drop_duplicates("sha256").set_index("sha256")["path"]
    manifest["copy_of"] = manifest["sha256"].map(first).where(manifest.duplicated("sha256"))
    for name in TABLES:
        for base, rows in manifest.groupby(manifest["base_model"].fillna(NO_MODEL), sort=True):
            _write_part(journal, name, rows, folder / name / f"base_model={quote(str(base), safe='')}" / "part.parquet", made)
    manifest = manifest.drop(columns="url")
    write_table(pd.DataFrame(refused, columns=["path", "why"]), folder / "refused.parquet", made)
    write_table(manifest, folder / "manifest.parquet", made)
    return manifest


def _write_part(journal: _Journal, name: str, rows: pd.DataFrame, path: Path, made: Provenance) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = dict(zip(rows["url"], zip(rows["path"], rows["sha256"], strict=True), strict=True))
    partial, writer = path.with_suffix(".partial"), None
    waiting: list[Any] = []
    count = 0

    def flush() -> None:
        nonlocal writer, waiting, count
        whole = pa.concat_tables(waiting, promote_options="permissive")
        if writer is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = pq.ParquetWriter(partial, whole.schema.with_metadata({KEY: made.as_json()}))
        writer.write_table(whole.cast(writer.schema))
        waiting, count = [], 0

    for url, content in journal.tables(name, list(known)):
        table = pa.ipc.open_stream(content).read_all().replace_schema_metadata(None)
        for column, value in zip(("sha256", "path"), reversed(known[url]), strict=True):
            table = table.add_column(0, column, pa.array([value] * len(table), pa.string()))
        waiting.append(table)
        count += len(table)
        if count >= ROWS_AT_ONCE:
            flush()
    if waiting:
        flush()
    if writer is not None:
        writer.close()
        partial.replace(path)
    elif path.exists():
        path.unlink()
