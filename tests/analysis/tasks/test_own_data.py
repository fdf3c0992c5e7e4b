"""A person's own file is a task, or one sentence that says on which line it is not."""

import csv
import json
import os
import re
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.own_data import keep_uploaded, kept_tasks, own_tasks_folder, task_from_file
from tests.support.places import names_in

ROWS = [(f"text {i}", "good" if i % 3 else "bad") for i in range(30)]
NOTES = [(f"note {i}", f"answer {i}") for i in range(30)]


@pytest.fixture
def write(tmp_path):
    def save(content: bytes | str, name: str = "mine.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return save


def as_csv(rows=ROWS, header="input,target") -> str:
    return "\n".join([header, *(",".join(row) for row in rows)]) + "\n"


def as_lines(rows=ROWS) -> str:
    return "".join(json.dumps(dict(zip(("input", "target", "split"), row, strict=False))) + "\n" for row in rows)


def pairs(task) -> set[tuple[str, str]]:
    """The inputs and targets of a task, out of its filled template."""
    table = pd.concat([task.examples("train"), task.examples("held-out")])
    assert table["text"].str.endswith("\nAnswer:").all()
    return set(zip(table["text"].str.removesuffix("\nAnswer:"), table["target"], strict=True))


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as refused:
        task_from_file(path)
    sentence = str(refused.value)
    assert sentence.isprintable()
    assert sentence.endswith(".")
    assert not re.search(r"\. [A-Z]", sentence)  # one sentence
    return sentence


# --- What is read ----------------------------------------------------------------------------------------------------


def test_a_csv_is_a_task_whose_targets_begin_with_one_space(write):
    task = task_from_file(write(as_csv(), "My Films (2).csv"))
    assert task.name == "own-my-films-2"
    assert task.description == "Your own examples from My Films (2).csv."
    assert re.fullmatch(r"My Films \(2\)\.csv, sha256 [0-9a-f]{12}…", task.source)
    assert task.labels == (" good", " bad")  # the more frequent first
    assert pairs(task) == {(text, f" {target}") for text, target in ROWS}


@pytest.mark.parametrize(
    "content",
    [
        as_csv(),
        as_lines(),
        as_csv().replace(",", "\t"),
        as_csv().replace(",", ";"),
        as_csv().replace("\n", "\r\n"),
        as_csv().replace("\n", "\r"),
        as_lines().replace("\n", "\r\n"),
        "\ufeff" + as_csv(),
        "\ufeff" + as_lines(),
        "\n\n" + as_csv().replace("\n", "\n\n"),
        as_lines().replace("\n", "\n\n"),
        as_csv([(f" {text} ", f"  {target}\t") for text, target in ROWS], ' input ,"target"'),
        as_csv([(target, "x", text) for text, target in ROWS], "target,date;or\tday,input"),
        as_csv([(str(i), *row) for i, row in enumerate(ROWS)], ",input,target"),  # as pandas writes its index
    ],
)
def test_the_same_examples_are_read_from_every_layout(content, write):
    task = task_from_file(write(content, "mine.txt"))
    assert pairs(task) == {(text, f" {target}") for text, target in ROWS}


def test_the_kind_is_told_by_the_content_and_not_by_the_name(write):
    assert pairs(task_from_file(write(as_lines(), "a.csv"))) == pairs(task_from_file(write(as_csv(), "a.jsonl")))


def test_numbers_are_taken_as_they_are_written(write):
    rows = "".join(f'{{"input": {i}, "target": {i}.50, "extra": [null]}}\n' for i in range(30))
    assert ("7", " 7.50") in pairs(task_from_file(write(rows)))


def test_braces_formulas_and_quotes_in_a_text_stay_what_they_are(write):
    texts = ["{input} {0} {", "=1+1", 'she said "hi", twice', "%s $HOME `ls`", "two\nlines"]
    rows = [(text, str(i % 2)) for i, text in enumerate(texts * 6)]
    with (path := write("")).open("w", newline="") as file:
        csv.writer(file).writerows([("input", "target"), *rows])
    assert {text for text, _ in pairs(task_from_file(path))} == set(texts)


def test_answers_are_labels_where_they_are_few_and_each_has_its_examples(write):
    def labels(targets):
        return task_from_file(write(as_csv([(f"text {i}", target) for i, target in enumerate(targets)]))).labels

    assert labels([str(i % 20) for i in range(60)]) == tuple(f" {i}" for i in sorted(map(str, range(20))))
    assert labels([str(i % 20) for i in range(59)]) is None  # not three of each
    assert labels([str(i % 21) for i in range(200)]) is None  # more than twenty
    assert labels(["b"] * 10 + ["a"] * 10 + ["c"] * 11) == (" c", " a", " b")


@pytest.mark.parametrize(("examples", "held_out"), [(20, 10), (49, 10), (104, 20), (2500, 500), (3000, 500)])
def test_every_fifth_example_is_held_out_at_least_10_and_at_most_500(examples, held_out, write):
    task = task_from_file(write(as_csv([(f"text {i}", f"answer {i}") for i in range(examples)])))
    train, held = task.examples("train"), task.examples("held-out")
    assert (len(train), len(held)) == (examples - held_out, held_out)
    assert not set(train["text"]) & set(held["text"])


def test_the_split_is_the_same_whatever_the_file_is_called_and_mixes_the_labels(write):
    rows = sorted(ROWS, key=lambda row: row[1])
    one, other = task_from_file(write(as_csv(rows), "one.csv")), task_from_file(write(as_lines(rows), "other.jsonl"))
    for split in ("train", "held-out"):
        pd.testing.assert_frame_equal(one.examples(split), other.examples(split))
        assert one.examples(split)["target"].nunique() == 2


@pytest.mark.parametrize("written", [as_csv, as_lines])
def test_a_split_in_the_file_is_honoured(written, write):
    rows = [(text, target, "held-out" if i < 3 else "train") for i, (text, target) in enumerate(ROWS)]
    content = as_csv(rows, "input,target,split") if written is as_csv else as_lines(rows)
    assert set(task_from_file(write(content)).examples("held-out")["text"]) == {f"text {i}\nAnswer:" for i in range(3)}


def test_a_changed_file_is_read_again(write):
    path = write(as_csv())
    assert task_from_file(path) is task_from_file(path)
    os.utime(write(as_csv(NOTES)), ns=(0, 0))
    assert task_from_file(path).labels is None


# Any text without a NUL or half a surrogate pair that is more than white space.
fields = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).filter(str.strip)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(fields, fields), min_size=20, max_size=40), separator=st.sampled_from(",\t;"))
def test_what_pandas_writes_is_read_back(rows, separator):
    table = pd.DataFrame(rows, columns=["input", "target"]).astype(str)
    table.loc[0, "target"] += "0"  # so that not all are the same
    table.loc[1, "target"] += "1"
    expected = {(text.strip(), f" {target.strip()}") for text, target in table.itertuples(index=False)}
    with tempfile.TemporaryDirectory() as folder:
        table.to_csv(Path(folder) / "a.csv", index=False, sep=separator, quoting=csv.QUOTE_ALL)
        table.to_json(Path(folder) / "a.jsonl", orient="records", lines=True)
        for name in ("a.csv", "a.jsonl"):
            assert pairs(task_from_file(Path(folder) / name)) == expected


# --- What is refused -------------------------------------------------------------------------------------------------

HEAD = as_csv(ROWS[:20])  # 21 lines
LINES = as_lines(ROWS[:20])  # 20 lines


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "mine.csv is empty"),
        (" \n\r\n", "mine.csv is empty"),
        (b"\xef\xbb\xbf", "mine.csv is empty"),
        (HEAD.encode() + b"caf\xe9,good\n", "Line 22 of mine.csv is not UTF-8 (byte 0xE9)"),
        (HEAD.replace("\n", "\r").encode() + b"caf\xe9,good\n", "Line 22 of mine.csv is not UTF-8"),
        (HEAD.encode("utf-16"), "UTF-16"),
        (HEAD.encode("utf-16-le"), "Line 1 of mine.csv holds a NUL byte"),
        (HEAD + "a\0b,good\n", "Line 22 of mine.csv holds a NUL byte"),
        ("text,label\n" + as_csv(), "The header of mine.csv has no column input, only text, label"),
        (as_csv(header="input,Target"), "no column target, only input, Target"),
        (as_csv(header="input;Target").replace(",", ";"), "no column target, only input, Target"),
        (as_csv([(*row, "x") for row in ROWS], "input,target,input"), "has 2 columns called input"),
        (HEAD + "text,\n", "The target on line 22 of mine.csv is empty"),
        (HEAD + " ,good\n", "The input on line 22 of mine.csv is empty"),
        (HEAD + '\n\n"two\nlines",good\n,good\n', "The input on line 26 of mine.csv is empty"),
        (HEAD + '"two\n\nlines",""\n', "The target on line 22 of mine.csv is empty"),
        (HEAD + "well, it is good,good\n", "Line 22 of mine.csv has 3 fields and the header 2"),
        (HEAD + "well\n", "Line 22 of mine.csv has 1 field and the header 2"),
        (HEAD + '"an open quotation mark,good\na,b\n', "Line 22 of mine.csv cannot be read as CSV"),
        (HEAD + '"quoted" and not,good\n', "Line 22 of mine.csv cannot be read as CSV"),
        (HEAD + '"' + "x" * 200_000 + '",good\n', "Line 22 of mine.csv cannot be read as CSV"),
        (HEAD + "x" * 20_001 + ",good\n", "The input on line 22 of mine.csv has 20,001 characters"),
        (HEAD + "x," + "x" * 20_001 + "\n", "The target on line 22 of mine.csv has 20,001 characters"),
        (
            as_csv([(*row, "train") for row in ROWS] + [("a", "b", "test")], "input,target,split"),
            "The split on line 32 of mine.csv is 'test'",
        ),
        (as_csv([(*row, "train") for row in ROWS] + [("a", "b", "")], "input,target,split"), "The split on line 32 of mine.csv is empty"),
        (as_csv([(*row, "train") for row in ROWS], "input,target,split"), "No example of mine.csv has the split held-out"),
        (as_csv([(*row, "held-out") for row in ROWS], "input,target,split"), "No example of mine.csv has the split train"),
        ("input,target\n", "mine.csv has 0 examples, and 20"),
        ("input,target\na,b\n", "mine.csv has 1 example, and 20"),
        (as_csv(ROWS[:19]), "mine.csv has 19 examples, and 20"),
        (as_csv([(text, " good") for text, _ in ROWS]), "All 30 targets of mine.csv are 'good'"),
        ("[" + LINES.strip().replace("\n", ",\n") + "]", "mine.csv is one JSON array"),
        ("\n [\n{}]", "jq -c '.[]'"),
        (LINES + '{"input": "a", "target": }\n', "Line 21 of mine.csv is not JSON"),
        (LINES + '\n{"input": "a",\n"target": "b"}\n', "Line 22 of mine.csv is not JSON"),
        (LINES + "[" * 100_000 + "\n", "Line 21 of mine.csv is not JSON (too deep)"),
        (LINES + "7\n", "Line 21 of mine.csv holds no JSON object"),
        (LINES + '{"input": "a", "label": "b"}\n', "Line 21 of mine.csv has no column target, only input, label"),
        (LINES + "{}\n", "Line 21 of mine.csv has no column input, only none"),
        (LINES + '{"input": "a", "target": null}\n', "The target on line 21 of mine.csv is null"),
        (LINES + '{"input": true, "target": "b"}\n', "The input on line 21 of mine.csv is true or false"),
        (LINES + '{"input": NaN, "target": "b"}\n', "The input on line 21 of mine.csv is no finite number"),
        (LINES + '{"input": "a", "target": ["b"]}\n', "The target on line 21 of mine.csv is a list"),
        (LINES + '{"input": {"a": 1}, "target": "b"}\n', "The input on line 21 of mine.csv is an object"),
        (LINES + '{"input": "a", "target": " "}\n', "The target on line 21 of mine.csv is empty"),
        (LINES + '{"input": "\\u0000", "target": "b"}\n', "The input on line 21 of mine.csv holds a NUL"),
        (LINES + '{"input": "a\\ud83d", "target": "b"}\n', "half a surrogate pair"),
        (LINES + '{"input": "a", "target": "b", "split": "train"}\n', "Line 21 of mine.csv and its first example differ"),
    ],
)
def test_a_file_that_is_no_task_is_refused_with_its_line(content, words, write):
    assert words in refusal(write(content))


def test_the_sentence_stays_short_and_printable_whatever_the_file_holds(write):
    header = ",".join(f"\x1b[31m{i}" + "x" * 500 for i in range(50))
    assert len(refusal(write(as_csv(header=header)))) < 800
    assert len(refusal(write(as_csv([(text, "y" * 5000) for text, _ in ROWS])))) < 300


def test_what_is_no_file_is_refused(tmp_path):
    assert "There is no file" in refusal(tmp_path / "nothing.csv")
    assert "is not a file" in refusal(tmp_path)
    assert "cannot be read" in refusal(tmp_path / ("x" * 300))
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file" in refusal(tmp_path / "pipe")


def test_a_large_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(20_000_001)
    assert "large.csv is larger than 20 MB" in refusal(tmp_path / "large.csv")


def test_two_hundred_thousand_examples_are_read_and_one_more_is_not(write):
    rows = [(str(i), str(i % 2)) for i in range(200_001)]
    assert len(task_from_file(write(as_csv(rows[:-1]))).examples("train")) == 199_500
    assert "more than 200,000 examples" in refusal(write(as_csv(rows)))


# --- What is kept ----------------------------------------------------------------------------------------------------


def test_an_uploaded_file_is_kept_under_a_name_of_ours_and_found_by_it(own_runs):
    path = keep_uploaded("../../My films.csv", as_csv().encode())
    assert path == own_tasks_folder() / "my-films.csv"
    assert path.parent.is_relative_to(own_runs)
    assert path.read_bytes() == as_csv().encode()
    assert [task.name for task in kept_tasks()] == ["own-my-films"]
    assert get_task("own-my-films").labels == (" good", " bad")


@pytest.mark.parametrize("name", ["", "..", "/", "../..", "C:\\x\\..", ".csv", "\0", "评论.csv", "a" * 5000, "con\n.csv"])
def test_no_name_of_an_upload_is_a_path(name, own_runs):
    path = keep_uploaded(name, as_lines().encode())
    assert path.parent == own_runs / ".tasks"
    assert re.fullmatch(r"[a-z0-9-]{1,40}\.jsonl", path.name)
    assert names_in(own_runs) == [".tasks"]


def test_other_content_under_a_kept_name_never_replaces_it(own_runs):
    first, second = (keep_uploaded("mine.csv", as_csv(rows).encode()) for rows in (ROWS, NOTES))
    third = keep_uploaded("mine.jsonl", as_lines().encode())
    assert keep_uploaded("mine.csv", as_csv(ROWS).encode()) == first
    assert [path.name for path in (first, second, third)] == ["mine.csv", "mine-2.csv", "mine-3.jsonl"]
    assert [task.name for task in kept_tasks()] == ["own-mine", "own-mine-2", "own-mine-3"]


def test_what_cannot_be_read_is_not_kept_and_refused_by_its_own_name(own_runs):
    with pytest.raises(InputError, match=r"My films\.csv has 19 examples"):
        keep_uploaded("My films.csv", as_csv(ROWS[:19]).encode())
    with pytest.raises(InputError, match="larger than 20 MB"):
        keep_uploaded("mine.csv", b"x" * 20_000_001)
    assert not own_runs.exists()
    assert kept_tasks() == []


def test_kept_files_that_were_spoilt_are_passed_over(own_runs):
    path = keep_uploaded("a.csv", as_csv().encode())
    keep_uploaded("b.csv", as_csv().encode())
    path.write_text("nothing")
    assert [task.name for task in kept_tasks()] == ["own-b"]


def test_a_folder_that_cannot_be_written_is_said(own_runs):
    own_runs.write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot be kept in"):
        keep_uploaded("a.csv", as_csv().encode())
