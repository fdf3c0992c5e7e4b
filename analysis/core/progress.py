"""How a long computation tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[float, str], None]
"""Called with the share done, from 0 to 1, and what is being done now."""


def part(report: Report, i: int, n: int, name: str = "") -> Report:
    """A `Report` for the i-th of n parts, counted from 0, that tells the whole's share and the part's name where it has one."""

    def report_part(share: float, doing: str) -> None:
        report((i + share) / n, f"{name}: {doing}" if name else doing)

    return report_part


def no_report(share: float, doing: str) -> None:
    """The `Report` of a caller who shows no progress."""
