"""Runs that keep a checkpoint at each step."""

import pytest

from soft_prompt_explorer.trained_prompts.runs import recorded as runs


@pytest.fixture
def checkpoint_each_step(monkeypatch):
    monkeypatch.setattr(runs, "CHECKPOINT_SECONDS", -1.0)
