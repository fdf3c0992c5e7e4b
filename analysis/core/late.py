"""Modules that are slow to import, imported when something of them is first asked for."""

from __future__ import annotations

import importlib
from typing import Any


class Late:
    """A module by its name: torch takes a second to import, and who reads what is kept needs nothing of it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


def whole_torch() -> None:
    """Import torch, or wait until the thread that does has ended. Scipy, where it finds torch half imported by another thread, asks it for what is not there yet and fails: so
    whatever may use scipy in a thread calls this first."""
    importlib.import_module("torch")
