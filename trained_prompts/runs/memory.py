"""How much memory a stretch of work takes at most."""

from __future__ import annotations

import threading

import psutil

EVERY_SECONDS = 0.02


class PeakMemory:
    """`with PeakMemory() as peak: ...`, then `peak.bytes`: the most that this process held at once, the model with it.

    The resident memory, looked at fifty times a second; with CUDA what its allocator held at most is added.
    """

    def __init__(self) -> None:
        self._process, self._most, self._ended = psutil.Process(), 0, threading.Event()

    def __enter__(self) -> PeakMemory:
        import torch

        self._cuda = torch.cuda.is_available()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        self._look()
        threading.Thread(target=self._watch, name="memory", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._look()
        self._ended.set()

    @property
    def bytes(self) -> int:
        import torch

        return self._most + (torch.cuda.max_memory_allocated() if self._cuda else 0)

    def _look(self) -> None:
        self._most = max(self._most, self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            self._look()
