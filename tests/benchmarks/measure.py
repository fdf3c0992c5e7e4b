"""What the benchmarks share: taking turns, peak memory, and tables as plain text."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version

from tqdm import tqdm

PACKAGES = ("numpy", "torch", "transformers", "peft", "accelerate", "scikit-learn", "faiss-cpu", "gguf")
PAUSE = 0.05  # seconds before each measurement, in which the last contestant's threads go to sleep


def take_turns(contestants: dict[str, Callable[[], object]], *, rounds: int, subject: str) -> dict[str, list[float]]:
    """Seconds of each contestant in each round: A B C, A B C, …, after a first round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    with tqdm(total=(rounds + 1) * len(contestants), desc=subject, file=sys.stderr) as bar:
        for turn in range(rounds + 1):
            for name, call in contestants.items():
                gc.collect()
                time.sleep(PAUSE)
                began = time.perf_counter()
                result = call()
                took = time.perf_counter() - began
                del result  # what a call gives back is freed outside its time, before the next one begins
                if turn:
                    seconds[name].append(took)
                bar.update()
    return seconds


def once(contestants: dict[str, Callable[[], object]], *, subject: str) -> dict[str, list[float]]:
    """Seconds of one call of each, for what takes so long that a first call is not slower for being the first."""
    seconds = {}
    for name, call in tqdm(contestants.items(), desc=subject, file=sys.stderr):
        gc.collect()
        began = time.perf_counter()
        call()
        seconds[name] = [time.perf_counter() - began]
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, ours: str) -> str:
    """How many times as long as ours: above 1, ours is faster."""
    times = statistics.median(seconds[name]) / statistics.median(seconds[ours])
    return f"{times:.2f} ×" if times < 100 else f"{times:,.0f} ×"


def median_and_range(seconds: Sequence[float]) -> list[str]:
    """The median, and the smallest and largest, as table cells."""
    return [_duration(statistics.median(seconds)), f"{_duration(min(seconds))} to {_duration(max(seconds))}"]


def text_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *notes: str) -> str:
    """A title, a table with its first column to the left and the others to the right, and notes below."""
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    lines = [title, "-" * (sum(widths) + 2 * len(widths) - 2)]
    for row in (columns, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, *notes])


def machine() -> str:
    """Where the figures come from."""
    import torch

    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads, "
        f"load average {load}\nPython {platform.python_version()}, {packages}"
    )


def load() -> str:
    """How busy the machine is, for below a table."""
    return f"Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."


def alone(benchmark: Callable[[], Iterable[str]]) -> None:
    """Print the tables of one benchmark that is run by itself."""
    print(machine(), flush=True)
    for table in benchmark():
        print(f"\n{table}", flush=True)


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.1f} ms"
    return f"{seconds:.2f} s"
