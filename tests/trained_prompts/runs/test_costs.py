"""What a run costs in memory and time is measured."""

import subprocess
import sys

from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.trained_prompts.runs import recorded as runs

TAKES_200_MEGABYTES = """
import numpy as np

from soft_prompt_explorer.trained_prompts.runs.memory import PeakMemory

with PeakMemory() as nothing:
    pass
with PeakMemory() as peak:
    taken = np.ones(25_000_000)
    for _ in range(20):  # longer than the time between two looks
        taken.sum()
    del taken
print(peak.bytes - nothing.bytes)
"""


def test_the_peak_sees_200_megabytes_that_come_and_go():
    # In a process of its own: what other tests left behind is given back to the system whenever it pleases.
    answer = subprocess.run([sys.executable, "-c", TAKES_200_MEGABYTES], capture_output=True, text=True, check=True)
    assert 190e6 < float(answer.stdout) < 300e6


def test_a_run_says_what_it_cost(config, language_model, own_runs):
    runs.run(config, "mine", language_model=language_model)
    run = read_description(own_runs / "mine")
    assert run["trainable_parameters"] == 3 * 16
    assert run["peak_memory_bytes"] > 50e6
    assert 0 < run["seconds_training"] < 60
