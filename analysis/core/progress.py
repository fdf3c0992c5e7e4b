"""How a long computation tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[float, str], None]
"""Called with the share done, from 0 to 1, and what is being done now."""


def part(report: Report, i: float, n: float, name: str = "") -> Report:
    """A `Report` for one part of a computation, which tells the whole's share, and the part's name where it has one.

    Parameters
    ----------
    i, n : how much comes before it, and how much there is in all, both in parts as long as this one: of n like parts, i counts from 0.
    """

    def report_part(share: float, doing: str) -> None:
        report((i + share) / n, f"{name}: {doing}" if name else doing)

    return report_part


def no_report(share: float, doing: str) -> None:
    """The `Report` of a caller who shows no progress."""
