"""Tables come back as they were, whatever format they left in."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.export import to_csv, to_json, to_markdown, to_parquet, write_table
from soft_prompt_explorer.analysis.core.provenance import Provenance
from tests.support.places import names_in

AWKWARD = [" word", "слово", "中文", 'quote " and, comma', "😀", "", "NaN", "null", "ﷺ", "don't"]
FLOATS = [0.1, 1 / 3, -2.5e-300, 1e300, 5e-324, -0.0, 123456789.123456789, np.pi, -1.0, np.nextafter(1, 2)]
MADE = Provenance("spe neighbours x.npy", (("x.npy", "ab" * 32),), {"toy": lambda: {"sha256": "cd" * 32}}, seed=3)
SINGLES = np.array([0.1, 1 / 3, -2.5e-30, 1e38, 1e-45, -0.0, 123456789.0, np.pi, -1.0, 3.4e38], dtype=np.float32)


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame({"token": AWKWARD, "score": FLOATS, "single": SINGLES, "rank": range(10)})


def cells(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8"))))


def test_csv_keeps_every_float_and_every_character(table):
    header, *rows = cells(to_csv(table))
    assert header == ["token", "score", "single", "rank"]
    assert [row[0] for row in rows] == AWKWARD
    assert [float(row[1]) for row in rows] == FLOATS
    assert np.array_equal(np.array([row[2] for row in rows], dtype=np.float32), SINGLES)
    assert [row[3] for row in rows] == [str(i) for i in range(10)]


def test_json_keeps_every_float_and_every_character(table):
    rows = json.loads(to_json(table))
    assert [row["token"] for row in rows] == AWKWARD
    assert [row["score"] for row in rows] == FLOATS
    assert np.array_equal(np.array([row["single"] for row in rows], dtype=np.float32), SINGLES)
    assert [row["rank"] for row in rows] == list(range(10))


def test_parquet_keeps_values_and_types(table):
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(to_parquet(table))), table)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_what_is_missing_or_not_finite_is_null_in_json(dtype):
    table = pd.DataFrame({"score": np.array([np.nan, np.inf, -np.inf, 1.5], dtype=dtype), "word": ["a", None, np.nan, "b"]})
    rows = json.loads(to_json(table), parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert [row["score"] for row in rows] == [None, None, None, 1.5]
    assert [row["word"] for row in rows] == ["a", None, None, "b"]


def test_an_empty_table_keeps_its_header():
    empty = pd.DataFrame(columns=["token", "score"])
    assert to_csv(empty) == b"token,score\n"
    assert json.loads(to_json(empty)) == []
    assert list(pd.read_parquet(io.BytesIO(to_parquet(empty))).columns) == ["token", "score"]


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@SUM(A1)", " =1+1", "   @x", "\t=1", "＝1", "-"])
def test_a_csv_cell_never_starts_a_formula(formula):
    ((cell,),) = cells(to_csv(pd.DataFrame({"token": [formula]})))[1:]
    assert cell == "'" + formula


@pytest.mark.parametrize("text", ["\r=1", "a\r=1", "a\n=1", "a\r\n=1"])
def test_a_line_break_in_a_cell_starts_no_row_of_its_own(text):
    content = to_csv(pd.DataFrame({"token": [text]})).decode("utf-8")
    assert len(list(csv.reader(io.StringIO(content, newline=None)))) == 2


def test_numbers_are_no_formulas():
    assert to_csv(pd.DataFrame({"score": [-1.5], "rank": [-3]})) == b"score,rank\n-1.5,-3\n"


def test_the_ending_chooses_the_format(tmp_path, table):
    for ending in (".csv", ".json", ".PARQUET"):
        write_table(table, tmp_path / f"table{ending}", MADE)
    assert (tmp_path / "table.csv").read_bytes() == to_csv(table)
    assert json.loads((tmp_path / "table.json").read_bytes())["rows"] == json.loads(to_json(table))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.PARQUET"), table)


def test_every_file_says_where_it_comes_from_within_or_beside_it(tmp_path, table):
    for ending in ("csv", "json", "parquet", "md"):
        write_table(table, tmp_path / f"table.{ending}", MADE)
    told = [
        json.loads((tmp_path / "table.csv.provenance.json").read_bytes()),
        json.loads((tmp_path / "table.md.provenance.json").read_bytes()),
        json.loads((tmp_path / "table.json").read_bytes())["provenance"],
        json.loads(parquet.read_schema(tmp_path / "table.parquet").metadata[b"provenance"]),
    ]
    assert names_in(tmp_path) == sorted(
        ["table.csv", "table.csv.provenance.json", "table.json", "table.md", "table.md.provenance.json", "table.parquet"]
    )
    for each in told:
        assert abs(datetime.now(UTC) - datetime.fromisoformat(each.pop("date"))) < timedelta(minutes=1)
        assert each == {
            "version": metadata.version("soft-prompt-explorer"),
            "command": "spe neighbours x.npy",
            "models": [{"name": "toy", "sha256": "cd" * 32}],
            "files": [{"name": "x.npy", "sha256": "ab" * 32}],
            "seed": 3,
        }


def test_the_rows_of_a_table_stay_a_list_where_nothing_is_said_of_it(table):
    assert isinstance(json.loads(to_json(table)), list)


@pytest.mark.parametrize("name", ["table.xlsx", "table", "csv"])
def test_an_unknown_ending_is_refused_and_nothing_is_written(tmp_path, table, name):
    with pytest.raises(InputError, match=r"\.csv, \.parquet, \.json or \.md"):
        write_table(table, tmp_path / name, MADE)
    assert names_in(tmp_path) == []


def test_a_table_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "table.parquet"
    path.write_bytes(b"old")
    with pytest.raises(Exception, match="Conversion failed"):
        write_table(pd.DataFrame({"mixed": ["text", b"bytes", 1.0]}, dtype=object), path, MADE)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["table.parquet"]


@pytest.mark.parametrize("name", ["missing/table.csv", "folder.csv"])
def test_a_place_that_cannot_be_written_to_is_refused_in_one_sentence(tmp_path, table, name):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="cannot be written") as refusal:
        write_table(table, tmp_path / name, MADE)
    assert "\n" not in str(refusal.value)


def test_markdown_is_one_table_whatever_the_cells_hold():
    cells = pd.DataFrame(
        {"token": [" word", "a|b", "<b>*x*</b>", "two\nlines", None], "score": [0.123456, 1.0, np.nan, -2.5e-9, 3.0], "n": [1, 2, 3, 4, 5]}
    )
    lines = to_markdown(cells).decode("utf-8").splitlines()
    assert lines[:2] == ["| token | score | n |", "| --- | ---: | ---: |"]
    assert lines[2:] == [
        "| ␣word | 0.1235 | 1 |",
        "| a\\|b | 1 | 2 |",
        "| \\<b\\>\\*x\\*\\</b\\> |  | 3 |",
        "| two lines | -2.5e-09 | 4 |",
        "|  | 3 | 5 |",
    ]
