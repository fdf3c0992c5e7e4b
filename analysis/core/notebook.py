"""How a thing shows itself in a notebook. What is told of it may need rooms further down the house, so those rooms say it here: see `report.notebook`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TELLERS: dict[type, Callable[[Any], str]] = {}


class Shown:
    """Shows itself as HTML once something is told of its type, and as plain text else."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        teller = TELLERS.get(type(self))
        return None if teller is None else teller(self)
