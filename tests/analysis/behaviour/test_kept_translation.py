"""Texts in an adapter's place, kept with a run: the same after they were written and read, and nothing of a stranger's."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.behaviour.kept_translation import FILE, kept_with, read, write
from soft_prompt_explorer.analysis.behaviour.translation import COLUMNS, best_text, copied, sentence
from soft_prompt_explorer.analysis.core.folders import GALLERY


def told(share: float = 0.8) -> pd.DataFrame:
    rows = [
        ("a", "p", "t", "nothing", "", 0, np.nan, 2.0, 0.0, 0.0, 0.0, 0.1, 0.3, 5, False),
        ("a", "p", "t", "1 example", "=1+1\\n“x”", 4, 8.5, 0.4, share, share - 0.1, share + 0.1, 0.7, 0.3, 5, True),
        ("a", "p", "t", "control: random words", " a b", 2, 9.5, 1.4, 0.3, 0.2, 0.4, 0.2, 0.3, 5, False),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_what_was_written_is_read_again_without_the_path(tmp_path):
    write(told(), tmp_path)
    pd.testing.assert_frame_equal(read(tmp_path), told().assign(path=""))
    assert copied(best_text(read(tmp_path))["text"]) == "=1+1\n“x”"  # no apostrophe, as a CSV would have
    assert sentence(read(tmp_path)) == sentence(told())


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"{}", b"[]", b"[1]", b"[" * 100_000, b'[{"prompt": 1}]', b'{"prompt": {"0": "a"}}', None]
)
def test_what_cannot_be_read_counts_as_nothing(tmp_path, content):
    write(told(), tmp_path)
    if content is None:
        (tmp_path / FILE).unlink()
    else:
        (tmp_path / FILE).write_bytes(content)
    assert read(tmp_path) is None


@pytest.mark.parametrize(("field", "value"), [("share", "much"), ("text", 5), ("tokens", None), ("prompt", ["a"]), ("more", 1)])
def test_a_field_that_is_not_what_it_should_be_counts_as_nothing(tmp_path, field, value):
    write(told(), tmp_path)
    rows = json.loads((tmp_path / FILE).read_bytes())
    rows[1][field] = value
    (tmp_path / FILE).write_text(json.dumps(rows))
    assert read(tmp_path) is None


def test_what_lies_in_a_strangers_folder_is_not_believed(tmp_path):
    folder = shutil.copytree(GALLERY / "plural-words-1", tmp_path / "plural-words-1")
    write(told(), folder)
    assert kept_with(load_soft_prompt(folder)) is None
