"""How a long computation tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[float, str], None]
"""Called with the share done, from 0 to 1, and what is being done now."""


def no_report(share: float, doing: str) -> None:
    """The `Report` of a caller who shows no progress."""
