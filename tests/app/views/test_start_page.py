"""The first page: what this is, before anything else, in a line that is read in ten seconds."""

import pytest

from tests.support.driving import driver_of
from tests.support.places import REPOSITORY


@pytest.mark.slow
def test_the_first_page_says_what_this_is_in_ten_words_and_the_readme_begins_with_the_same(own_runs):
    start = driver_of("start").run()
    assert not start.exception
    first = start.markdown[0].value.strip("*")
    assert first == (REPOSITORY / "README.md").read_text(encoding="utf-8").split("\n\n")[1]
    assert len(first.split()) <= 10
    assert "soft prompt" in first and "LoRA" in first
