"""The folder that `batch` wrote, opened again: one row an adapter, from the columns that are needed, a part of a table in memory at a time.

The folder may be a stranger's. Its tables are only parsed, a link in it is not followed, and what stands in it as a path is text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.behaviour.difference_lens import LEVEL
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.remedies import BATCHED
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.loras import sketching
from soft_prompt_explorer.analysis.prompts.starts import plain_verdict
from soft_prompt_explorer.analysis.prompts.verdicts import VERDICTS

COLUMNS = [
    *("path", "kind", "base_model", "method", "virtual_tokens", "norm_median", *VERDICTS, "verdict"),
    *("modules", "rank", "effective_rank", "rank_90", "spectral_norm", "findings", "words"),
    *("copies", "near_copies", "near_copy_of", "same_start", "same_start_as", "format", "sha256", "notes"),
]
OF_MODULES = ["rank", "effective_rank", "rank_90", "spectral_norm"]
OF_MANIFEST = {
    "path": str, "kind": str, "format": str, "base_model": str, "method": str, "sha256": str, "notes": str,
    "virtual_tokens": float, "norm_median": float, "effective_rank": float,
}  # fmt: skip
MOST_ADAPTERS, MOST_PARTS = 200_000, 10_000
ROWS_AT_ONCE, BYTES_AT_ONCE = 50_000, 2**28  # of a table; of the columns in one of its row groups, unpacked
MOST_OF_ONE = 1_000_000  # rows of one adapter in a table
WORDS = 5
DEEPEST = 8  # folders that lead a name
Alike = Literal["copies", "near_copies", "same_start"]


def collection(folder: Path, *, report: Report = no_report) -> pd.DataFrame:
    """What is known of each adapter of a batch.

    Parameters
    ----------
    folder : that `spe batch … --out` wrote.

    Returns
    -------
    One row an adapter, in the order of the manifest:

    - path, kind, base_model, method, virtual_tokens, norm_median, format, sha256, notes: those of `inspect`; what it does not hold is missing.
    - moved along a word, echo, near a word, unreadable, never trained: how many virtual tokens have that verdict; verdict: the most frequent (the first of these in a tie).
    - modules: how many; rank, effective_rank, rank_90, spectral_norm: the medians over them. The effective_rank of a prompt is that of its rows.
    - findings: how many `health` has. words: those that it pushes the model towards beyond chance, where the batch used the lens.
    - copies: files with the same bytes, itself counted. near_copies: files of other bytes that change the same directions, itself counted; near_copy_of: the first of them.
      same_start: how many that are no near copies of each other began from its A, itself counted; same_start_as: the first of them. Missing where nothing
      can be said: see `analysis.loras.sketching`.

    Raises
    ------
    InputError
        The folder is none of a batch, is damaged, or holds more than is read at once.
    """
    report(0.0, "the manifest")
    table = pd.concat(
        [pd.DataFrame(columns=list(OF_MANIFEST)), *_batches(folder, folder / "manifest.parquet", OF_MANIFEST, most=MOST_ADAPTERS)],
        ignore_index=True,
    )
    if table["path"].isna().any() or table["path"].duplicated().any():
        raise InputError(f"The manifest in {folder} tells of an adapter twice, or of none; run the batch again.")
    numbers = {name: "float64" for name, kind in OF_MANIFEST.items() if kind is float}
    table = table.astype(numbers).astype({"virtual_tokens": "Int64"})
    known = set(table["path"])
    report(0.2, "the verdicts")
    verdicts = _of_each(folder, "tokens", {"verdict": str}, _counted, known)
    report(0.4, "the spectra")
    modules = _of_each(folder, "modules", dict.fromkeys(OF_MODULES, float), _medians, known)
    report(0.6, "the findings and the words")
    findings = _of_each(folder, "health", {"problem": str}, lambda rows: {"findings": len(rows)}, known)
    words = _of_each(folder, "lens", {"token": str, "rank": float, "z": float, "q": float}, _strongest, known)
    ranks = table.pop("effective_rank")
    for name, found in (("tokens", verdicts), ("modules", modules), ("health", findings), ("lens", words)):
        table = table.join(found, on="path") if len(found) else table
        if name == "health" and "findings" in table and len(modules):
            told = table["path"].isin(modules.index)
            table["findings"] = table["findings"].fillna(0).where(told | table["findings"].notna())
    table = table.reindex(columns=[*table.columns, *(name for name in COLUMNS if name not in table.columns)])
    table["effective_rank"] = table["effective_rank"].astype(float).fillna(ranks)
    table["copies"] = table.groupby("sha256", dropna=False)["path"].transform("size").where(table["sha256"].notna(), 1)
    report(0.7, "comparing LoRAs")
    table = _with_alike(folder, table, report)
    counts = [*VERDICTS, "modules", "findings", "copies", "near_copies", "same_start"]
    figures = [*OF_MODULES, "norm_median"]
    texts = [name for name in COLUMNS if name not in (*counts, *figures, "virtual_tokens")]
    report(1.0, "ready")
    return table[COLUMNS].astype(dict.fromkeys(counts, "Int64") | dict.fromkeys(figures, "float64") | dict.fromkeys(texts, object))


def refused(folder: Path) -> pd.DataFrame:
    """The files that the batch refused: path, why.

    Raises
    ------
    InputError
        As `collection`.
    """
    parts = _batches(folder, folder / "refused.parquet", {"path": str, "why": str}, most=MOST_ADAPTERS)
    return pd.concat([pd.DataFrame(columns=["path", "why"]), *parts], ignore_index=True)


def groups(table: pd.DataFrame, by: Alike) -> pd.DataFrame:
    """The adapters that are alike, group by group.

    Parameters
    ----------
    table : of `collection`.
    by : copies (the same bytes), near_copies (the same directions) or same_start (the same A, of adapters that are no near copies of each other).

    Returns
    -------
    One row an adapter that has another like it, each group together, with its number in `table` as the index: group (from 0, in the order of their first
    ones), first (the path of that), path.
    """
    first = table.groupby("sha256")["path"].transform("first").where(table["sha256"].notna(), table["path"])
    leads = {"copies": first, "near_copies": table["near_copy_of"].fillna(first), "same_start": table["same_start_as"].fillna(first)}[by]
    leads = leads[(table[by] > 1).fillna(False)]
    found = pd.DataFrame({"group": pd.factorize(leads)[0], "first": leads, "path": table["path"][leads.index]})
    return found.sort_values("group", kind="stable")


def short_names(paths: Sequence[str]) -> list[str]:
    """A name for each path: its last part, led by as many of its folders as tell it from the others, up to `DEEPEST`; else the whole."""
    parts = [path.rstrip("/").split("/") for path in paths]
    names = list(paths)
    waiting = list(range(len(names)))
    for depth in range(1, DEEPEST + 1):
        ends = ["/".join(each[-depth:]) for each in parts]
        count = Counter(ends)
        for i in waiting:
            if count[ends[i]] == 1:
                names[i] = ends[i]
        waiting = [i for i in waiting if count[ends[i]] > 1]
    return names


def _counted(rows: pd.DataFrame) -> dict[str, object]:
    counts = rows["verdict"].map(plain_verdict, na_action="ignore").value_counts()
    told = {name: int(counts.get(name, 0)) for name in VERDICTS}
    return {**told, "verdict": max(told, key=lambda name: told[name]) if any(told.values()) else None}


def _medians(rows: pd.DataFrame) -> dict[str, object]:
    medians = np.median(rows[OF_MODULES].to_numpy(np.float64), axis=0)
    return {"modules": len(rows), **dict(zip(OF_MODULES, medians.tolist(), strict=True))}


def _strongest(rows: pd.DataFrame) -> dict[str, object]:
    told = rows[rows["q"] < LEVEL].sort_values("z", ascending=False)
    return {"words": " · ".join(told["token"].dropna().head(WORDS)) or None}


def _with_alike(folder: Path, table: pd.DataFrame, report: Report) -> pd.DataFrame:
    """The table with who is a near copy of whom, and who began from the same A; files of the same bytes are compared once."""
    first = table.drop_duplicates("sha256").set_index("sha256")["path"]
    first_of = table.set_index("path")["sha256"].map(first)  # the first of the same bytes, by path
    columns: dict[str, type] = {"path": str, "module": str, "out_features": float, "in_features": float, "a": list, "b": list}
    wanted, parts = set(first), []
    for part in _parts(folder, "sketches", columns):
        parts.append(part[part["path"].isin(wanted)])
    if not parts or not sum(map(len, parts)):
        return table
    rows = pd.concat(parts, ignore_index=True)
    for side in ("a", "b"):
        rows = rows[[_is_sketch(value) for value in rows[side]]]
    order = {path: i for i, path in enumerate(first)}
    rows = rows.rename(columns={"path": "adapter"}).sort_values("adapter", key=lambda paths: paths.map(order), kind="stable")
    found = sketching.alike(rows, report=lambda share, doing: report(0.7 + 0.3 * share, doing)).set_index("adapter")
    near, start = found["near_copy_of"], found["same_start_as"]
    counts = found.assign(
        near_copies=near.map(near.value_counts()), same_start=start.map(found.groupby("same_start_as")["near_copy_of"].nunique())
    )
    counts["same_start_as"] = start.where(counts["same_start"] > 1)
    for name in ("near_copy_of", "same_start_as"):
        counts[name] = counts[name].where(counts[name] != counts.index)
    told = counts.loc[first_of[first_of.isin(counts.index)]].set_index(first_of.index[first_of.isin(counts.index)])
    return table.drop(columns=list(counts)).join(told, on="path")


def _is_sketch(value: object) -> bool:
    return isinstance(value, np.ndarray) and 0 < len(value) <= sketching.PROBES and bool(np.isfinite(value).all())


def _of_each(folder: Path, name: str, columns: dict[str, type], told, known: set[str]) -> pd.DataFrame:
    """What `told` makes of each adapter's rows in a table, by its path. The rows of one stand together, as the batch wrote them."""
    answers: dict[str, dict[str, object]] = {}

    def take(rows: pd.DataFrame) -> None:
        for path, group in rows.groupby("path", sort=False, observed=True):
            if path in answers:
                raise InputError(f"The table {name} in {folder} tells of an adapter in two places; run the batch again.")
            if path in known:
                answers[str(path)] = told(group)

    for file in _files(folder, name):
        waiting = pd.DataFrame()
        for part in _batches(folder, file, {"path": str, **columns}):
            rows = pd.concat([waiting, part], ignore_index=True) if len(waiting) else part
            last = rows["path"] == rows["path"].iloc[-1]
            take(rows[~last])
            waiting = rows[last]
            if len(waiting) > MOST_OF_ONE:
                raise InputError(f"The table {name} in {folder} has more than {MOST_OF_ONE:,} rows of one adapter; run the batch again.")
        if len(waiting):
            take(waiting)
    return pd.DataFrame.from_dict(answers, orient="index")


def _parts(folder: Path, name: str, columns: dict[str, type]) -> Iterator[pd.DataFrame]:
    for file in _files(folder, name):
        yield from _batches(folder, file, columns)


def _files(folder: Path, name: str) -> list[Path]:
    files = sorted((folder / name).glob("*/part.parquet")) if (folder / name).is_dir() else []
    if len(files) > MOST_PARTS:
        raise InputError(f"The table {name} in {folder} has {len(files):,} parts, and {MOST_PARTS:,} are the most that are read.")
    return files


def _batches(folder: Path, path: Path, columns: dict[str, type], *, most: int | None = None) -> Iterator[pd.DataFrame]:
    """These columns of a Parquet file, some rows at a time; a column that it lacks is missing throughout, unless it is `path`.

    Parameters
    ----------
    columns : each with what it holds: str, float or list (of numbers). Text of a stranger's is made printable.
    most : of the rows of the whole file.

    Raises
    ------
    InputError
        There is no such file in the folder, it is damaged, or it unpacks to more than is read at once.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"There is no {path.name} in {folder}; name a folder", remedy=BATCHED)
    try:
        with pq.ParquetFile(path, read_dictionary=[name for name, kind in columns.items() if kind is str]) as file:
            names = file.schema_arrow.names
            kinds = dict(zip(names, file.schema_arrow.types, strict=True))
            held = [name for name in columns if name in names]
            unlike = [name for name in held if not _fits(kinds[name], columns[name])]
            if "path" not in held or unlike:
                raise InputError(f"{path} is no table of a batch: its column {(unlike or ['path'])[0]} is missing or holds something else.")
            _check_sizes(file, path, held, most)
            for part in file.iter_batches(ROWS_AT_ONCE, columns=held):
                rows = part.to_pandas(ignore_metadata=True)
                for name in held:
                    if columns[name] is str:
                        texts = rows[name].astype("category")
                        rows[name] = texts.cat.rename_categories(_told(list(texts.cat.categories))).astype(object)
                yield rows.reindex(columns=list(columns))
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read as Parquet: it is damaged, or cut off; run the batch again.") from error


def _told(texts: list[str]) -> list[str]:
    """Each made printable where it is not, and still told apart."""
    told = [text if text.isprintable() else printable(text) for text in map(str, texts)]
    return told if len(set(told)) == len(told) else texts


def _fits(kind, wanted: type) -> bool:
    import pyarrow.types as of

    kind = kind.value_type if of.is_dictionary(kind) else kind
    number = of.is_integer(kind) or of.is_floating(kind)
    if wanted is str:
        return of.is_string(kind) or of.is_large_string(kind) or of.is_null(kind)
    return number or of.is_null(kind) if wanted is float else of.is_list(kind) and of.is_floating(kind.value_type)


def _check_sizes(file, path: Path, held: list[str], most: int | None) -> None:
    if most is not None and file.metadata.num_rows > most:
        raise InputError(
            f"{path} has {file.metadata.num_rows:,} rows, and {most:,} are the most that are read at once; batch fewer into a folder."
        )
    for i in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(i)
        chunks = [group.column(j) for j in range(group.num_columns)]
        size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in held)
        if size > BYTES_AT_ONCE:
            raise InputError(f"{path} unpacks to {size:,} bytes in one piece, and {BYTES_AT_ONCE:,} are the most that are read at once.")
