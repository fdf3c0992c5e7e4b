"""How kept files are read."""

import pytest

from soft_prompt_explorer.analysis.core import kept


@pytest.fixture(params=["read whole", "mapped"])
def large_from(request, monkeypatch):
    """From how many bytes on a file is memory-mapped: both ways of reading answer the same."""
    if request.param == "mapped":
        monkeypatch.setattr(kept, "READ_WHOLE_UP_TO", 0)
