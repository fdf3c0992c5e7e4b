"""Analyses that take more than a moment: computed beside the page, with progress and a way to stop, and kept by what they were computed from.

A page asks for a result by its key. While the result is being computed the page shows how far it is, draws everything else, and
answers clicks; once it is there the page is drawn again with it. Two sessions that ask for the same share one computation.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from typing import TypeVar

import streamlit as st

from analysis.errors import InputError
from analysis.models import Report

KEPT = 64  # results; maps and clusterings are a few megabytes at most
AT_ONCE = 4  # a person who changes a setting leaves the old computation behind; the new one need not wait for it
PATIENCE = 1.0  # seconds before progress is shown at all: most results are there by then
_Result = TypeVar("_Result")


class _StoppedError(Exception):
    """Raised inside a computation when its person asked it to stop."""


class _Work:
    """One computation: where it is, and what came of it."""

    def __init__(self, compute: Callable[[Report], object], turns: threading.Semaphore) -> None:
        self.share, self.doing = 0.0, "waiting for its turn"
        self.stop = threading.Event()
        self.future: Future = Future()
        # A thread that does not hold up the server's end, as those of an executor would.
        threading.Thread(target=self._run, args=(compute, turns), name="analysis", daemon=True).start()

    def _run(self, compute: Callable[[Report], object], turns: threading.Semaphore) -> None:
        with turns:
            if not self.future.set_running_or_notify_cancel():
                return
            self.doing = "starting"
            try:
                self.future.set_result(compute(self._report))
            except BaseException as error:  # whatever it is, the page asks the future for it
                self.future.set_exception(error)

    def _report(self, share: float, doing: str) -> None:
        if self.stop.is_set():
            raise _StoppedError
        self.share, self.doing = min(max(share, 0.0), 1.0), doing


class Background:
    """What is being computed and what was, the latest `KEPT`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(AT_ONCE)
        self._alone = threading.Semaphore(1)
        self._works: OrderedDict[Hashable, _Work] = OrderedDict()

    def work(self, key: Hashable, compute: Callable[[Report], object], *, alone: bool = False) -> _Work:
        """The computation of this key, started if there is none."""
        with self._lock:
            if key not in self._works:
                self._works[key] = _Work(compute, self._alone if alone else self._turns)
            self._works.move_to_end(key)
            for old in [key for key, work in self._works.items() if work.future.done()][: max(0, len(self._works) - KEPT)]:
                del self._works[old]
            return self._works[key]

    def done(self, key: Hashable) -> object | None:
        """What came of the computation of this key, where it has ended well."""
        with self._lock:
            work = self._works.get(key)
        ended = work is not None and work.future.done() and not work.future.cancelled() and work.future.exception() is None
        return work.future.result() if ended else None

    def forget(self, key: Hashable) -> None:
        with self._lock:
            self._works.pop(key, None)


@st.cache_resource
def _background() -> Background:
    """The one of this server."""
    return Background()


def found(key: tuple) -> object | None:
    """The result of `computed` for this key where it is there; nothing is started."""
    return _background().done(key)


def computed(key: tuple, what: str, compute: Callable[[Report], _Result], *, alone: bool = False) -> _Result | None:
    """The result of `compute` if it is there; else None, with its progress and a button to stop it where the page is.

    Parameters
    ----------
    key : everything that the result depends on.
    what : in a few words, for instance "the clusters".
    compute : is handed a `Report`, which it must call now and then: that is where it is stopped. No `st.*` inside.
    alone : whether it waits for others that do to end: what asks a language model, whose seconds and memory are measured or who changes for a while how it computes.

    Raises
    ------
    InputError
        What `compute` raised.
    """
    work = _background().work(key, compute, alone=alone)
    try:
        return work.future.result(timeout=PATIENCE if work.share == 0.0 else 0.0)
    except TimeoutError:
        _show_progress(key, what, work)
    except (_StoppedError, CancelledError):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.warning(f"Stopped before {what} were ready.", icon=":material/stop_circle:")
            if st.button("Start again", key=f"again-{key}", icon=":material/restart_alt:"):
                _background().forget(key)
                st.rerun()
    except InputError:
        _background().forget(key)
        raise
    except Exception as error:  # a bug: the page says so and the log has the traceback
        _background().forget(key)
        logging.getLogger(__name__).exception("%s failed", what)
        st.error(f"Computing {what} failed unexpectedly ({type(error).__name__}); the server's log says where.", icon=":material/error:")
    return None


def _show_progress(key: tuple, what: str, work: _Work) -> None:
    @st.fragment(run_every=0.5)
    def watched() -> None:
        if work.future.done():
            st.rerun()  # the whole page, with the result
        with st.container(horizontal=True, vertical_alignment="center"):
            st.progress(work.share, text=f"{what[0].upper()}{what[1:]}: {work.doing}")
            if st.button("Stop", key=f"stop-{key}", icon=":material/stop:"):
                work.stop.set()
                work.future.cancel()  # where it has not begun

    watched()
