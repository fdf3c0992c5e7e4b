"""`python -m tests.benchmarks` (or `make bench`): how fast, beside what else could be used, all measured in one run.

The contestants of a table take turns, round after round after one warm-up each, so that a machine that is busy with something else
slows all of them alike. The figures are medians; the ratios are ratios of medians. Tables go to standard output, progress to
standard error.
"""

from __future__ import annotations

import time

from tests.benchmarks import crowd, dashboard, map, neighbours, pages, spectra, training, vocabulary
from tests.benchmarks.measure import machine


def main() -> None:
    began = time.perf_counter()
    print(machine(), flush=True)
    for benchmark in (neighbours, training, vocabulary, spectra, dashboard, pages, crowd, map):
        for table in benchmark.tables():
            print(f"\n{table}", flush=True)
    print(f"\n{(time.perf_counter() - began) / 60:.1f} minutes in all")


if __name__ == "__main__":
    main()
