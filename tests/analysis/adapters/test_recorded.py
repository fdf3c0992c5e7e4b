"""The record of a training that a script writes: found in folders, read while it is written, and refused where it is no such thing."""

import json
import os

import pytest

from soft_prompt_explorer.analysis.adapters import recorded
from soft_prompt_explorer.analysis.adapters.recorded import find_recorded, read_recorded
from soft_prompt_explorer.analysis.core.errors import AdapterError

LOOKS = "step,echo_share,drift,norm_ratio,words,direction\n"


@pytest.fixture
def record(tmp_path):
    def write(name: str = "run", losses: str = "step,loss,learning_rate,seconds\n2,1.5,,0.2\n1,2.5,,0.1\n", looks: str = LOOKS, **said):
        folder = tmp_path / "folders" / name
        folder.mkdir(parents=True)
        (folder / "explorer.json").write_text(json.dumps({"model": "a model", "method": "PROMPT_TUNING"} | said))
        (folder / "losses.csv").write_text(losses)
        (folder / "followed.csv").write_text(looks)
        return folder

    return write


def test_a_record_is_read_in_the_order_of_its_steps_without_what_is_no_step(record):
    folder = record(losses="step,loss\n2,1.5\nx,9\n1,2.5\n3,nan\n", looks=LOOKS + "2,0.5,1.25,1.0,cat·do\x1bg,\n")
    read = read_recorded(folder)
    assert read.losses["step"].tolist() == [1, 2, 3] and read.losses["loss"].tolist()[:2] == [2.5, 1.5]
    assert read.looks.iloc[0].tolist() == [2, 0.5, 1.25, 1.0, "cat·do\\x1bg", ""]
    assert (read.model, read.method, read.steps, read.ended) == ("a model", "PROMPT_TUNING", 3, False)
    assert read_recorded(record("over", ended=True)).ended


def test_before_the_first_step_there_is_a_record_too(record):
    read = read_recorded(record(losses="step,loss\n"))
    assert read.steps == 0 and not len(read.losses)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("explorer.json", b"[]"),
        ("explorer.json", b"["),
        ("explorer.json", b"[" * 100_000),
        ("losses.csv", b""),
        ("losses.csv", b"loss\n1\n"),
        ("losses.csv", b"step,loss\n" + b"\x00\xff" * 9),
        ("losses.csv", b"step,loss" + b",a" * 10_000 + b"\n1,2\n"),
        ("followed.csv", b"step\n1\n"),
    ],
)
def test_what_is_no_record_is_refused_in_a_sentence(record, name, content):
    folder = record()
    (folder / name).write_bytes(content)
    with pytest.raises(AdapterError, match="start the script again"):
        read_recorded(folder)


def test_a_file_that_is_too_large_or_leads_elsewhere_is_not_read(record, tmp_path, monkeypatch):
    folder = record()
    (tmp_path / "secret.csv").write_text("step,loss\n1,2\n")
    (folder / "losses.csv").unlink()
    (folder / "losses.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(AdapterError):
        read_recorded(folder)
    large = record("large")
    monkeypatch.setattr(recorded, "MAX_TABLE_BYTES", 10)
    with pytest.raises(AdapterError):
        read_recorded(large)


def test_records_are_found_newest_first_some_levels_down_and_never_through_a_link(record, tmp_path):
    old, new, deep = record("old"), record("a/b/new"), record("a/b/c/d/deep")
    checkpoint = record("old/checkpoint-4")
    (checkpoint / "losses.csv").unlink()
    os.utime(old / "losses.csv", (1, 1))
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "to").symlink_to(tmp_path / "folders")
    assert find_recorded([tmp_path / "folders"]) == [new, old]
    assert deep in find_recorded([tmp_path / "folders"], depth=9)
    assert find_recorded([tmp_path / "linked", tmp_path / "nowhere"]) == []


def test_no_more_folders_are_looked_into_than_allowed(record, tmp_path):
    for i in range(20):
        record(f"run-{i}")
    assert len(find_recorded([tmp_path / "folders"], most=6)) == 5  # the first is the folder that they are in
    assert len(find_recorded([tmp_path / "folders", tmp_path / "folders"], most=6)) == 5
