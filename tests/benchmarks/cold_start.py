"""How long a command takes from nothing: `python -m tests.benchmarks.cold_start [--peers PYTHON]`.

Processor seconds of whole processes, in turn, medians of five after one that is not counted. PYTHON is that of an environment with gradience==0.11.0 and
adaptersentry==2.0.2.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys

from soft_prompt_explorer.analysis.core.folders import GALLERY
from tests.benchmarks.measure import text_table
from tests.support.places import REPOSITORY

ROUNDS = 5
TORCH = 'python -c "import torch"'


def seconds_of(command: list[str]) -> float:
    """The processor seconds of a process and of what it started."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if command[0] == sys.executable:
        environment |= {"PYTHONPATH": str(REPOSITORY)}
    else:
        environment.pop("PYTHONPATH", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def table(peers: str | None) -> str:
    prompt, lora = str(GALLERY / "plural-words-1" / "adapter_model.safetensors"), str(GALLERY / "capitals-lora-8")
    spe = [sys.executable, "-m", "soft_prompt_explorer"]
    commands = {
        TORCH: [sys.executable, "-c", "import torch"],
        "spe --help": [*spe, "--help"],
        "spe inspect ONE.safetensors": [*spe, "inspect", prompt],
        "spe inspect LORA": [*spe, "inspect", lora],
        "spe spectra LORA": [*spe, "spectra", lora],
    }
    if peers is not None:
        commands |= {
            "gradience audit": [peers, "-m", "gradience", "audit", "--peft-dir", lora],
            "adaptersentry scan": [peers, "-m", "adaptersentry", "scan", f"{lora}/adapter_model.safetensors"],
        }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(ROUNDS + 1):
        for name, command in commands.items():
            took = seconds_of(command)
            if turn:
                seconds[name].append(took)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    return text_table(
        f"from nothing, medians of {ROUNDS}",
        ["", "processor time", "range", "share of import torch"],
        [
            [name, f"{median:.2f} s", f"{min(seconds[name]):.2f} to {max(seconds[name]):.2f}", f"{median / medians[TORCH]:.2f}"]
            for name, median in medians.items()
        ],
        f"Load average {os.getloadavg()[0]:.1f} at the end.",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", help="the python of an environment with gradience and adaptersentry")
    print(table(parser.parse_args().peers))
