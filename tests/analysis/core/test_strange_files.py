"""What anybody may have put in a folder is read at once and within a bound, or refused."""

import contextlib
import os
import threading
import time

import pytest

from soft_prompt_explorer.analysis.core.strange_files import DAMAGED, MAX_HEADER, read_file, read_table


def put(path, kind: str) -> None:
    """No file, or one that never ends."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    else:  # no more than its length on the disk
        with path.open("wb") as file:
            file.truncate(64 * 2**30)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "endless"])
@pytest.mark.parametrize("read", [lambda path: read_file(path, 1_000), read_table])
def test_what_is_no_file_or_never_ends_is_refused_at_once(tmp_path, kind, read):
    put(tmp_path / "it", kind)
    refused = []

    def call() -> None:
        try:
            read(tmp_path / "it")
        except DAMAGED as error:
            refused.append(error)

    thread = threading.Thread(target=call, daemon=True)  # one that waits for ever fails the test, and does not stop it
    thread.start()
    thread.join(20)
    assert refused


def test_a_file_is_read_up_to_its_bound_and_through_a_link(tmp_path):
    (tmp_path / "it").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "it")
    assert read_file(tmp_path / "it", 5) == read_file(tmp_path / "link", 5) == b"12345"
    with pytest.raises(ValueError, match="larger than 4 bytes"):
        read_file(tmp_path / "it", 4)


def test_a_table_has_a_bound_of_rows_and_of_columns(tmp_path):
    (tmp_path / "it").write_text("a,b\n" + "1,2\n" * 5)
    assert read_table(tmp_path / "it", rows=5).shape == (5, 2)
    with pytest.raises(ValueError, match="more than 4 rows"):
        read_table(tmp_path / "it", rows=4)
    (tmp_path / "it").write_text("," * MAX_HEADER + ",\n1")
    with pytest.raises(ValueError, match="columns"):
        read_table(tmp_path / "it")


@pytest.mark.parametrize(
    "content",
    ["\n" + ",".join(["a"] * 40_000) + "\n1\n", '"x\ny",' + ",".join(["a"] * 20_000) + "\n1\n", "a,b\n" + ",".join(["1"] * 100_000) + "\n"],
    ids=["an empty line before its header", "a line's end in a name", "a row that is wider than its header"],
)
def test_columns_have_a_bound_wherever_they_stand(tmp_path, content):
    (tmp_path / "it").write_text(content)
    began = time.process_time()
    with contextlib.suppress(DAMAGED):
        assert read_table(tmp_path / "it").shape[1] == 2
    assert time.process_time() - began < 3  # pandas alone takes 8 to 13 s
