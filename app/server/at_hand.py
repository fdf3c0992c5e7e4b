"""What is at hand on this server, read once for all its sessions: vocabularies, and the lists of runs and of kept files.

A page is drawn anew at every click. What is on the disk is looked at each time, which takes a moment, and read again only where it has changed.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd

from soft_prompt_explorer.analysis.core.folders import GALLERY, file_state, runs_folder
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.digests import note
from soft_prompt_explorer.analysis.models.names import resolve_model
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary, load_vocabulary, vocabulary_state
from soft_prompt_explorer.trained_prompts.runs import store

VOCABULARIES = 4  # of as many models; the rows of a large one are memory-mapped
_T = TypeVar("_T")


class _Lists(NamedTuple):
    runs: pd.DataFrame
    kept: pd.DataFrame
    left_out: dict[str, str]


class _Read:
    """The latest things that were read, by name, each with the state that it was read in; what several threads ask for at once is read once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._locks: weakref.WeakValueDictionary[Hashable, threading.Lock] = weakref.WeakValueDictionary()  # of those that are waited for
        self._things: OrderedDict[Hashable, tuple[tuple, Any]] = OrderedDict()

    def get(self, name: Hashable, state: Callable[[], tuple], read: Callable[[], _T], *, settles: bool = False) -> _T:
        """What `read` answers, or has answered while `state` stays as it is.

        Parameters
        ----------
        settles : whether reading may itself change the state, and nothing else that happens meanwhile matters.
        """
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            now = state()
            with self._lock:
                known = self._things.get(name)
            if known is None or known[0] != now:
                thing = read()
                known = (state() if settles else now, thing)
            with self._lock:
                self._things[name] = known
                self._things.move_to_end(name)
                while len(self._things) > self._most:
                    self._things.popitem(last=False)
        return known[1]


_vocabularies = _Read(VOCABULARIES)
_lists = _Read(1)


def vocabulary(model: str, *, report: Report = no_report) -> Vocabulary:
    """The vocabulary of a model, loaded once a process for as long as its files, and what is kept of them, stay as they are.

    Raises
    ------
    ModelError
        As `analysis.models.vocabulary.load_vocabulary`.
    """
    read = _vocabularies.get(
        model, lambda: vocabulary_state(model, report=report), lambda: load_vocabulary(model, report=report), settles=True
    )
    note(resolve_model(model))
    return read


def list_runs() -> pd.DataFrame:
    """`store.list_runs`, read again when a run comes, goes or changes."""
    return _read_lists().runs.copy()


def list_kept() -> pd.DataFrame:
    """`store.list_kept`, likewise."""
    return _read_lists().kept.copy()


def left_out() -> dict[str, str]:
    """`store.left_out`, likewise."""
    return dict(_read_lists().left_out)


def _read_lists() -> _Lists:
    return _lists.get("lists", _state_of_runs, lambda: _Lists(store.list_runs(), store.list_kept(), store.left_out()))


def _state_of_runs() -> tuple:
    """The folders of runs, and in each folder there how the file looks that describes it."""
    return tuple((str(folder), *_state_of(folder)) for folder in (GALLERY, runs_folder()))


def _state_of(folder: Path) -> list[tuple]:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names alone: a thousand of them take a millisecond
    except OSError:
        return []
    return [(name, file_state(folder / name / "run.json"), file_state(folder / name / "kept.json")) for name in names if name[:1] != "."]
