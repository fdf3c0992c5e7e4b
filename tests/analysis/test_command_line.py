"""The contract that others script against: columns, formats, exit statuses, one sentence on standard error."""

import io
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.support.places import EMBEDDED, REPOSITORY, names_in

INSPECT = [
    "path",
    "kind",
    "format",
    "tensors",
    "virtual_tokens",
    "width",
    "dtype",
    "base_model",
    "method",
    "norm_median",
    "sha256",
    "notes",
    "effective_rank",
]
READING_COLUMNS = [
    "prompt",
    "position",
    "norm",
    "norm_ratio",
    "nearest_token",
    "score",
    "p_chance",
    "q_chance",
    "initial_token",
    "echo",
    "drift",
    "delta_token",
    "p_learned",
    "verdict",
]
NEIGHBOURS = ["prompt", "position", "rank", "token_id", "token", "score", "metric"]


@pytest.fixture
def prompt(prompt_file, embedded_vocabulary):
    return prompt_file(embedded_vocabulary.embeddings[[100, 2000]] * np.float32(1.01), "mine")


def python(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=REPOSITORY, capture_output=True, check=False)


def assert_refused(status: int, out: str, err: str) -> None:
    assert status == 2
    assert out == ""
    (sentence,) = err.splitlines()
    assert sentence.isprintable()
    assert sentence.endswith(".")
    assert "Traceback" not in sentence


# --- As a process ----------------------------------------------------------------------------------------------------


def test_the_process_prints_the_table_and_ends_with_status_0(prompt, command):
    ended = python("-m", "analysis", "neighbours", prompt, "--format", "csv", "--top-k", 3)
    assert ended.returncode == 0
    assert ended.stderr == b""
    table = pd.read_csv(io.BytesIO(ended.stdout), keep_default_na=False)
    assert table["token_id"].tolist()[::3] == [100, 2000]
    assert command("neighbours", prompt, "--format", "csv", "--top-k", 3).out == ended.stdout.decode()


def test_the_process_refuses_in_one_sentence_with_status_2(tmp_path):
    ended = python("-m", "analysis", "inspect", tmp_path / "missing.npy")
    assert_refused(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def test_a_reader_that_closes_the_pipe_is_no_error(prompt):
    process = subprocess.Popen(
        [sys.executable, "-m", "analysis", "neighbours", str(prompt), "--top-k", "40000", "--format", "csv"],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == b"prompt,position,rank,token_id,token,score,metric\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


def test_help_is_shown_without_loading_torch():
    ended = python("-X", "importtime", "-m", "analysis", "--help")
    assert ended.returncode == 0
    assert {b"inspect", b"neighbours"} <= set(ended.stdout.split())
    imported = {line.rsplit("|", 1)[-1].strip() for line in ended.stderr.decode().splitlines()}
    assert "typer" in imported
    assert not imported & {"torch", "transformers", "streamlit", "sklearn", "huggingface_hub", "tokenizers"}


# --- inspect ---------------------------------------------------------------------------------------------------------


def test_inspect_prints_the_columns_that_others_rely_on(prompt, command):
    as_csv = command("inspect", prompt, prompt, "--format", "csv")
    as_json = command("inspect", prompt, prompt, "--format", "json")
    assert (as_csv.status, as_csv.err, as_json.status) == (0, "", 0)
    table = pd.read_csv(io.StringIO(as_csv.out))
    assert list(table.columns) == INSPECT
    assert table["path"].tolist() == [str(prompt)] * 2
    assert table["kind"].tolist() == ["soft_prompt"] * 2
    rows = json.loads(as_json.out)
    assert [list(row) for row in rows] == [INSPECT] * 2
    assert rows[0]["base_model"] is None
    assert rows[0]["virtual_tokens"] == 2


def test_a_table_for_reading_has_a_line_for_each_row(prompt, command):
    outcome = command("inspect", prompt, prompt)
    header, *rows = outcome.out.splitlines()
    assert header.split() == INSPECT
    assert len(rows) == 2


def test_the_table_for_reading_says_what_the_others_say(prompt, tmp_path, command):
    (tmp_path / "broken.npy").write_bytes(b"no prompt")
    files = (prompt, tmp_path / "broken.npy", REPOSITORY / "trained_prompts" / "gallery" / "capitals-lora-8")
    rows = json.loads(command("inspect", *files, "--format", "json").out)
    header, *lines = command("inspect", *files).out.splitlines()
    assert len(lines) == len(rows) == 3
    for column in INSPECT:
        end = re.search(rf"\b{column}\b", header).end()  # all columns end where their titles do
        for row, line in zip(rows, lines, strict=True):
            value = row[column]
            told = "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
            assert line[:end].endswith(told) and line[end : end + 1] in ("", " ")


# --- neighbours ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["centred", "cosine", "dot", "euclidean"])
def test_neighbours_prints_the_columns_that_others_rely_on(prompt, command, metric):
    outcome = command("neighbours", prompt, "--metric", metric, "--top-k", 2, "--format", "json")
    assert (outcome.status, outcome.err) == (0, "")
    rows = json.loads(outcome.out)
    assert [list(row) for row in rows] == [NEIGHBOURS] * 4
    assert [(row["prompt"], row["position"], row["rank"], row["metric"]) for row in rows] == [
        ("mine", 0, 0, metric), ("mine", 0, 1, metric), ("mine", 1, 0, metric), ("mine", 1, 1, metric),
    ]  # fmt: skip


def test_every_way_out_carries_the_same_table(prompt, command, tmp_path):
    options = ("neighbours", prompt, "--top-k", 4)
    printed = command(*options, "--format", "csv").out
    for ending in (".csv", ".parquet", ".json"):
        outcome = command(*options, "--out", tmp_path / f"table{ending}")
        assert (outcome.status, outcome.out) == (0, "")
        assert "8 rows" in outcome.err
    expected = pd.read_csv(io.StringIO(printed), keep_default_na=False)
    assert (tmp_path / "table.csv").read_text(encoding="utf-8") == printed
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), expected, check_exact=True)
    pd.testing.assert_frame_equal(
        pd.DataFrame(json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))["rows"]), expected, check_exact=True
    )


def test_a_prompt_for_another_model_is_read_when_that_model_is_named(prompt_file, tiny_llama, llama_folder, own_cache, command):
    rows = tiny_llama.get_input_embeddings().weight.detach().numpy()
    outcome = command(
        "neighbours", prompt_file(rows[[7, 250]]), "--model", llama_folder, "--top-k", 1, "--format", "json", "--metric", "csls"
    )
    assert outcome.status == 0
    assert [row["token_id"] for row in json.loads(outcome.out)] == [7, 250]


# --- Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("--metric", "manhattan"),
        ("--top-k", "0"),
        ("--top-k", "-3"),
        ("--script", "Klingon"),
        ("--script", "Thai", "--whole-words"),
        ("--model", "no-such/model"),
        ("--model", "."),
        ("--model", "pyproject.toml"),
        ("--out", "table.xlsx"),
        ("--out", "no-such-folder/table.csv"),
    ],
    ids=" ".join,
)
def test_an_option_that_cannot_be_honoured_is_refused(prompt, command, options, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    before = names_in(tmp_path)
    assert_refused(*command("neighbours", prompt, *options))
    assert names_in(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--format", "xml"), "xml"),
        (("--top-k", "many"), "--top-k"),
        (("--no-such-option",), "--no-such-option"),
        (("--out", "folder.csv"), "folder.csv"),
    ],
    ids=str,
)
def test_an_option_that_is_mistyped_is_refused_in_one_line(prompt, command, options, word, tmp_path, monkeypatch):
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.chdir(tmp_path)
    status, out, err = command("neighbours", prompt, *options)
    assert (status, out) == (2, "")
    (sentence,) = err.splitlines()
    assert word in sentence


@pytest.mark.parametrize(
    ("array", "options", "word"),
    [
        (np.full((3, 576), np.nan), (), "NaN"),
        (np.zeros((3, 10)), (), "10 wide"),
        (np.zeros((3, 10)), ("--model", EMBEDDED), "10 wide"),
        (np.zeros((2, 2, 3, 576)), (), "shape"),
        (np.zeros((3, 576), dtype=int), (), "int64"),
        (np.full((3, 576), 1e30), (), "beyond"),
    ],
)
def test_a_prompt_that_cannot_be_read_against_the_model_is_refused(prompt_file, command, array, options, word):
    outcome = command("neighbours", prompt_file(array), *options)
    assert_refused(*outcome)
    assert word in outcome.err


def test_an_empty_file_is_refused(tmp_path, command):
    (tmp_path / "empty.npy").touch()
    for name in ("inspect", "neighbours"):
        assert_refused(*command(name, tmp_path / "empty.npy"))


def test_a_file_name_with_a_line_break_is_still_refused_in_one_line(tmp_path, command):
    assert_refused(*command("inspect", tmp_path / "two\nlines.npy"))


def test_a_refused_file_leaves_the_old_table_in_place(tmp_path, command):
    (tmp_path / "table.csv").write_text("old")
    assert_refused(*command("inspect", tmp_path / "missing.npy", "--out", tmp_path / "table.csv"))
    assert (tmp_path / "table.csv").read_text() == "old"


def test_a_refused_file_among_others_keeps_its_row_with_the_reason(prompt, tmp_path, command):
    (tmp_path / "broken.npy").write_bytes(b"no prompt")
    status, out, err = command("inspect", prompt, tmp_path / "broken.npy", "--format", "json")
    good, refused = json.loads(out)
    assert (good["kind"], refused["kind"]) == ("soft_prompt", None)
    assert "neither" in refused["notes"]
    assert status == 2
    assert err == "1 of 2 were refused; their notes say why.\n"


def test_readings_give_each_token_a_verdict(command):
    gallery = REPOSITORY / "trained_prompts" / "gallery"
    table = pd.read_csv(io.StringIO(command("readings", gallery / "sentiment-words-1", "--format", "csv").out))
    assert list(table.columns) == READING_COLUMNS
    assert table["verdict"].tolist() == ["echo"] * 10


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", LONG),
        ("readings", LONG),
        ("spectra", LONG),
        ("similarity", LONG, LONG),
        ("lens", LONG),
        ("report", LONG),
        ("export", LONG),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_name_that_no_file_can_have_is_refused_in_a_sentence(command, arguments):
    more = {"report": ("--out", "report.html"), "export": ("--to", "vllm", "--out", "it.pt")}
    done = command(*arguments, *more.get(arguments[0], ()))
    assert_refused(*done)
    assert "too long" in done.err


def test_a_place_that_no_table_can_have_is_refused_in_a_sentence(command, prompt, tmp_path):
    (tmp_path / "text.txt").touch()
    for out in (tmp_path / LONG / "a.csv", tmp_path / "text.txt" / "a.csv", tmp_path / "s\udcff.json"):
        done = command("readings", prompt, "--out", out)
        assert (done.status, done.out) == (2, "")
        assert "Traceback" not in done.err


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize("method", ["hdbscan", "kmeans"])
def test_clusters_refuse_a_seed_that_there_is_not(command, prompt_file, embedded_vocabulary, method, seed):
    rows = prompt_file(embedded_vocabulary.embeddings[100:110], "ten")
    done = command("clusters", rows, "--model", EMBEDDED, "--method", method, "--seed", str(seed))
    assert done.status == 2
    assert f"from 0 to 4,294,967,295, not {seed}" in done.err


def test_two_tables_are_not_written_to_one_file(command, prompt, tmp_path):
    done = command("clusters", prompt, "--out", tmp_path / "it.csv", "--members", tmp_path / "it.csv")
    assert_refused(*done)
    assert not (tmp_path / "it.csv").exists()


def test_a_direction_has_a_first_word_at_least(command, prompt):
    done = command("direction", prompt, "--top-k", "0")
    assert (done.status, done.out) == (2, "")
    assert "greater than or equal to 1" in done.err


def test_a_text_of_no_token_is_not_put_behind_a_prompt(command, prompt, tmp_path):
    done = command("export", prompt, "--to", "vllm", "--out", tmp_path / "it.pt", "--text", "")
    assert done.status == 2
    assert "has no token to put behind the prompt" in done.err
    assert not (tmp_path / "it.pt").exists()
