"""Analyses that take more than a moment: computed beside the page, with progress and a way to stop, and kept by what they were computed from.

A page asks for a result by its key. While the result is being computed the page shows how far it is, draws everything else, and
answers clicks; once it is there the page is drawn again with it. Two sessions that ask for the same share one computation.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from typing import Any, NamedTuple, TypeVar

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.late import apart_from_torch, whole_torch
from soft_prompt_explorer.analysis.core.progress import Report
from soft_prompt_explorer.analysis.core.remedies import speaking
from soft_prompt_explorer.app.server.text import plain

KEPT = 64  # results; maps and clusterings are a few megabytes at most
AT_ONCE = 4  # a person who changes a setting leaves the old computation behind; the new one need not wait for it
EACH_AT_ONCE = AT_ONCE - 1  # of one session: there is always a place for another's
EACH = 8  # computations under way or waiting for one session: more than any page asks for at once
PATIENCE = 1.0  # seconds before progress is shown at all: most results are there by then
FIRST_PAGE_DRAWN = threading.Event()  # somebody has seen a page of this server
_Result = TypeVar("_Result")


class _StoppedError(Exception):
    """Raised inside a computation when its person asked it to stop."""


class _Work:
    """One computation: who wants it, where it is, and what came of it.

    Attributes
    ----------
    wanted_by : sessions, each with the number of its latest run of a page that asked for it.
    place_of : the session whose place it has, once it is under way.
    """

    def __init__(self, compute: Callable[[Report], object], *, alone: bool) -> None:
        self.share, self.doing = 0.0, "waiting for its turn"
        self.alone = alone
        self.wanted_by: dict[str, int] = {}
        self.place_of: str | None = None
        self.started = False
        self.stop = threading.Event()
        self.future: Future = Future()
        self._compute = compute

    def run(self, ended: Callable[[_Work], None]) -> None:
        # A thread that does not hold up the server's end, as those of an executor would.
        self.started, self.doing = True, "starting"
        threading.Thread(target=self._run, args=(ended,), name="analysis", daemon=True).start()

    def _run(self, ended: Callable[[_Work], None]) -> None:
        try:
            if self.alone:  # a language model is asked
                whole_torch()
            with speaking("page"), apart_from_torch():
                self.future.set_result(self._compute(self._report))
        except BaseException as error:  # whatever it is, the page asks the future for it
            self.future.set_exception(error)
        finally:
            ended(self)

    def _report(self, share: float, doing: str) -> None:
        if self.stop.is_set():
            raise _StoppedError
        self.share, self.doing = min(max(share, 0.0), 1.0), doing


class Background:
    """What is being computed and what was, the latest `KEPT`.

    Places go round by session: a session has `EACH_AT_ONCE` of them at most, who has the fewest, and waited longest, comes first, and what a page shows just now comes before what
    nobody looks at. Where a session has `EACH` computations that are not done, a new one replaces its oldest that neither its page nor anybody else's asks for.

    Parameters
    ----------
    is_open : whether a session's page is still there.
    """

    def __init__(self, is_open: Callable[[str], bool]) -> None:
        self._is_open = is_open
        self._lock = threading.RLock()
        self._works: OrderedDict[Hashable, _Work] = OrderedDict()
        self._under_way: list[_Work] = []  # also what was stopped or forgotten, until it has ended
        self._runs: dict[str, int] = {}
        self._served: dict[str, int] = {}  # the latest place that each session was given, by number
        self._places_given = 0

    def begin(self, session: str) -> None:
        """A session begins to draw a page anew: what it asked for before is looked at only where it asks for it again."""
        with self._lock:
            self._runs[session] = self._runs.get(session, 0) + 1
            for gone in [each for each in self._runs if each != session and not self._is_open(each)]:
                del self._runs[gone]
                self._served.pop(gone, None)

    def work(self, key: Hashable, compute: Callable[[Report], object], *, session: str = "", alone: bool = False) -> _Work:
        """The computation of this key, started if there is none, as soon as there is a place for it."""
        with self._lock:
            if key not in self._works:
                self._make_room(session)
                self._works[key] = _Work(compute, alone=alone)
            work = self._works[key]
            work.wanted_by[session] = self._runs.setdefault(session, 0)
            self._works.move_to_end(key)
            for old in [key for key, work in self._works.items() if work.future.done()][: max(0, len(self._works) - KEPT)]:
                del self._works[old]
            self._start()
            return work

    def done(self, key: Hashable) -> Any:
        """What came of the computation of this key, where it has ended well."""
        with self._lock:
            work = self._works.get(key)
        if work is None or not work.future.done() or work.future.cancelled() or work.future.exception() is not None:
            return None
        return work.future.result()

    def progress_of(self, key: Hashable) -> tuple[float, str] | None:
        """How far the computation of this key is and what it is doing; (1, "") where it has ended well, None where there is none or it failed."""
        with self._lock:
            work = self._works.get(key)
        if work is None:
            return None
        if not work.future.done():
            return work.share, work.doing
        return None if work.future.cancelled() or work.future.exception() is not None else (1.0, "")

    def leave(self, key: Hashable, session: str) -> None:
        """A session does not want it any more: it is stopped, unless another session's page shows it; who asks for it then begins it anew."""
        with self._lock:
            work = self._works.get(key)
            if work is not None:
                work.wanted_by.pop(session, None)
                if not self._is_watched(work):
                    self.stop(self._works.pop(key))

    def stop(self, work: _Work) -> None:
        """Stop it at its next report; at once where it has not begun."""
        with self._lock:
            work.stop.set()
            if not work.started:
                work.future.cancel()
            self._start()

    def forget(self, key: Hashable) -> None:
        with self._lock:
            self._works.pop(key, None)

    def _is_watched(self, work: _Work) -> bool:
        """Whether the page of some session shows it now."""
        return any(self._runs.get(session) == run for session, run in work.wanted_by.items())

    def _can_go(self, work: _Work) -> bool:
        """Whether a newer one may take its place: of what asks a language model and was begun, minutes would be lost."""
        return not self._is_watched(work) and not (work.alone and work.started)

    def _make_room(self, session: str) -> None:
        mine = [key for key, work in self._works.items() if not work.future.done() and set(work.wanted_by) == {session}]
        for key in [key for key in mine if self._can_go(self._works[key])][: max(0, len(mine) + 1 - EACH)]:
            self.stop(self._works.pop(key))

    def _start(self) -> None:
        """Give the places that are free to those who wait."""
        for alone, places in ((False, AT_ONCE), (True, 1)):
            while (next_one := self._next(alone, places)) is not None:
                self._places_given += 1
                next_one.place_of = next(iter(next_one.wanted_by))
                self._served[next_one.place_of] = self._places_given
                self._under_way.append(next_one)
                next_one.run(self._ended)

    def _next(self, alone: bool, places: int) -> _Work | None:
        running = [work for work in self._under_way if work.alone == alone]
        if len(running) >= places:
            return None
        each = Counter(work.place_of for work in running)
        waiting = [work for work in self._works.values() if work.alone == alone and not work.started and not work.future.done()]
        waiting = [work for work in waiting if alone or min(each[session] for session in work.wanted_by) < EACH_AT_ONCE]

        def turn(work: _Work) -> tuple:
            return not self._is_watched(work), min((each[session], self._served.get(session, 0)) for session in work.wanted_by)

        return min(waiting, key=turn, default=None)

    def _ended(self, work: _Work) -> None:
        with self._lock:
            self._under_way.remove(work)
            self._start()


def session() -> str:
    """Whose page is being drawn."""
    context = get_script_run_ctx(suppress_warning=True)
    return "" if context is None else context.session_id


def _is_open(session: str) -> bool:
    return runtime.exists() and runtime.get_instance().is_active_session(session)


def begin_page() -> None:
    """To be called where the drawing of a page begins; a part that is drawn again by itself does not count."""
    _background().begin(session())


@st.cache_resource
def _background() -> Background:
    """The one of this server."""
    return Background(_is_open)


def found(key: tuple) -> Any:
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
    if key in _left():
        if (result := found(key)) is None:
            _offer_again(key, what)
        return result
    work = _background().work(key, compute, session=session(), alone=alone)
    if work.future.done():
        waited_for().pop(key, None)
    try:
        return work.future.result(timeout=PATIENCE if work.share == 0.0 else 0.0)
    except TimeoutError:
        waited_for()[key] = Waited(
            what, st.session_state.get("here", ""), {name: st.query_params.get_all(name) for name in st.query_params}
        )
        _show_progress(key, what, work)
    except (_StoppedError, CancelledError):
        _background().forget(key)
        _left().add(key)
        _offer_again(key, what)
    except InputError:
        _background().forget(key)
        raise
    except Exception as error:  # a bug: the page says so and the log has the traceback
        _background().forget(key)
        logging.getLogger(__name__).exception("%s failed", what)
        st.error(
            f"Computing {plain(what)} failed unexpectedly ({type(error).__name__}); the server's log says where.", icon=":material/error:"
        )
    return None


class Waited(NamedTuple):
    """What a person waits for: in a few words, on which page, and what the link of that page said."""

    what: str
    page: str
    query: dict[str, list[str]]


def waited_for() -> dict[tuple, Waited]:
    """What this person's pages asked for and did not show yet, by key."""
    return st.session_state.setdefault("waited", {})


def progress_of(key: tuple) -> tuple[float, str] | None:
    """`Background.progress_of`, of this server."""
    return _background().progress_of(key)


def stop(key: tuple) -> None:
    """This person does not want it any more."""
    _left().add(key)
    _background().leave(key, session())


def _left() -> set[tuple]:
    """What this person stopped, by key, and has not started again."""
    return st.session_state.setdefault("left", set())


def _offer_again(key: tuple, what: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.warning(f"Stopped before {plain(what)} were ready.", icon=":material/stop_circle:")
        if st.button("Start again", key=f"again-{key}", icon=":material/restart_alt:"):
            _left().discard(key)
            st.rerun()


def _show_progress(key: tuple, what: str, work: _Work) -> None:
    @st.fragment(run_every=0.5)
    def watched() -> None:
        if work.future.done():
            st.rerun()  # the whole page, with the result
        with st.container(horizontal=True, vertical_alignment="center"):
            st.progress(work.share, text=plain(f"{what[0].upper()}{what[1:]}: {work.doing}"))
            if st.button("Stop", key=f"stop-{key}", icon=":material/stop:"):
                stop(key)
                st.rerun()

    watched()
