"""Modules that are slow to import, imported when something of them is first asked for."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 2.0  # seconds, longer than a page takes: whoever is apart may wait for a lock of the thread that waits for it here

_changed = threading.Condition()
_apart: set[int] = set()  # threads that may be in scipy
_importing: int | None = None  # the thread that imports torch
_alone = threading.RLock()


class Late:
    """A module by its name: torch takes a second to import, and who reads what is kept needs nothing of it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if self._name == "torch":
            whole_torch()
        return getattr(importlib.import_module(self._name), attribute)


@contextmanager
def apart_from_torch() -> Iterator[None]:
    """While it lasts, and for two seconds at most, no other thread begins to import torch by `whole_torch` or `Late`; one that has begun is waited for first.

    Scipy, where it finds torch half imported by another thread, asks it for what is not there yet and fails. Whatever may use scipy in a thread of its own does so in here, and
    need not wait for torch where nobody wants it yet. A block that wants torch itself gets it: it counts as left until torch is there.
    """
    me = threading.get_ident()
    with _changed:
        _changed.wait_for(lambda: _importing is None)
        entered = not _is_whole() and me not in _apart
        if entered:
            _apart.add(me)
    try:
        yield
    finally:
        if entered:
            with _changed:
                _apart.discard(me)
                _changed.notify_all()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Import something of transformers or peft in here: their modules import one another in a circle, so that two threads which begin at two of its ends find them half made."""
    with _alone:
        yield


def whole_torch() -> None:
    """Import torch once no other thread is in `apart_from_torch`, or after two seconds, or wait until the thread that does has ended."""
    global _importing
    me = threading.get_ident()
    if _is_whole() or _importing == me:
        return
    with _changed:
        was_apart = me in _apart
        _apart.discard(me)
        _changed.notify_all()
        _changed.wait_for(lambda: _is_whole() or (_importing is None and not _apart), PATIENCE)
        _changed.wait_for(lambda: _importing is None)
        if not _is_whole():
            _importing = me
    try:
        importlib.import_module("torch")
    finally:
        with _changed:
            if _importing == me:
                _importing = None
            if was_apart and not _is_whole():
                _apart.add(me)
            _changed.notify_all()


def _is_whole() -> bool:
    """Whether torch is imported to its end, by whomever."""
    module = sys.modules.get("torch")
    return module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False)
