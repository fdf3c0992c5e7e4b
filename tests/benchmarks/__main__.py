"""`make bench`, or `python -m tests.benchmarks [--peers PYTHON]`: how fast, beside what else could be used, all measured in one run.

The contestants of a table take turns, round after round after one warm-up each, so that a machine that is busy with something else
slows all of them alike. The figures are medians; the ratios are ratios of medians. Tables go to standard output, progress to
standard error. PYTHON is that of an environment with gradience and adaptersentry, which `make bench` makes; without it they are left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import cold_start, collection, crowd, dashboard, map, neighbours, pages, recording, spectra, training, vocabulary
from tests.benchmarks.measure import machine

ADAPTERS, PROMPTS = 1_000, 500  # of the collections here; `python -m tests.benchmarks.collection` takes ten and four times as many


def tables(peers: str | None) -> Iterator[str]:
    for benchmark in (neighbours, training, vocabulary, spectra):
        yield from benchmark.tables()
    with tempfile.TemporaryDirectory() as folder:
        yield from collection.tables(Path(folder), peers=peers, adapters=ADAPTERS, prompts=PROMPTS)
    yield cold_start.table(peers)
    yield recording.table()
    for benchmark in (dashboard, pages, crowd, map):
        yield from benchmark.tables()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", help="the python of an environment with gradience and adaptersentry")
    peers = parser.parse_args().peers
    began = time.perf_counter()
    print(machine(), flush=True)
    for table in tables(peers):
        print(f"\n{table}", flush=True)
    print(f"\n{(time.perf_counter() - began) / 60:.1f} minutes in all")


if __name__ == "__main__":
    main()
