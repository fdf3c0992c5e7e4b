"""One measurement at a time on this server: seconds and memory are among what is measured."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from analysis.models import Report

_TURN = threading.Lock()


@contextmanager
def in_turn(report: Report) -> Iterator[None]:
    """Wait until no other measurement is made, saying so; the block is one itself."""
    while not _TURN.acquire(timeout=0.5):
        report(0.0, "waiting for another measurement to end")
    try:
        yield
    finally:
        _TURN.release()
