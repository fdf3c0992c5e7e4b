"""What a training is said to take beside what it takes: `python -m tests.benchmarks.estimates [--models M...] [--methods M...] [--steps N]`.

Each model and method trains in a process of its own, where nothing else was held before: a few steps of eight examples. The estimate is made before, with no run of a person's
own at hand. Both are told, and the estimate over what was measured: 1.3 is 30 % too much.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd

from soft_prompt_explorer.analysis.core.export import to_markdown
from soft_prompt_explorer.analysis.models.computing import NoMemoryError
from soft_prompt_explorer.analysis.models.packaged import GEMMA_MODEL, QWEN_MODEL
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.trained_prompts.runs import recorded, store
from soft_prompt_explorer.trained_prompts.runs.estimates import estimate
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.memory import check_fits

MODELS = ("smollm2-135m", GEMMA_MODEL, QWEN_MODEL)
METHODS = ("prompt-tuning", "lora", "full")
TASKS = ("antonyms", "sentiment")
ALONE = pd.DataFrame(columns=store.list_runs().columns)  # no run was made before


def child(config: TrainingConfig) -> None:
    """Train, and print what was held at most and the seconds of a step."""
    language_model = load_model(config.model)
    with tempfile.TemporaryDirectory() as folder:
        at = []
        for recording, step in recorded.record(config, "it", language_model=language_model, limit=8, folder=Path(folder)):
            at.append(step.seconds)
            held = recording.peak_memory
    print(json.dumps({"memory": held, "seconds": (at[-1] - at[1]) / (len(at) - 2)}))  # the first step also makes room


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--tasks", nargs="*", default=TASKS)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.child:
        child(TrainingConfig(**json.loads(settings.child)))
        return
    rows = []
    for model in settings.models:
        for method in settings.methods:
            for task in settings.tasks:
                base = {"task": task, "model": model, "method": method, "steps": settings.steps}
                config = TrainingConfig(**base)
                try:
                    check_fits(config)
                except NoMemoryError:
                    continue
                said = estimate(replace(config, steps=10_000), limit=0, runs=ALONE)  # of the steps alone
                done = subprocess.run(
                    [sys.executable, "-m", "tests.benchmarks.estimates", "--child", json.dumps(base)], capture_output=True, text=True
                )
                if done.returncode:
                    print(f"{base}: {done.stderr[-500:]}", file=sys.stderr)
                    continue
                took = json.loads(done.stdout.splitlines()[-1])
                rows.append({"model": model, "method": method, "task": task, "memory_GB": took["memory"] / 1e9, "step_s": took["seconds"]})
                if said is not None:
                    rows[-1] |= {"memory_ratio": said.memory / took["memory"]}
                    rows[-1] |= {"time_ratio": said.seconds / 10_000 / took["seconds"]} if said.seconds else {}
                print(rows[-1], file=sys.stderr, flush=True)
    print(to_markdown(pd.DataFrame(rows)).decode())


if __name__ == "__main__":
    main()
