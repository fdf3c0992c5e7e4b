"""Which learning rate does a model's prompt want? `python -m tests.benchmarks.learning_rates [--models M...] [--tasks T...] [--rates R...] [--method M] [--seed S]`.

Every rate is tried by the recipe of the picture of sizes, from a seed that none of its prompts has, and scored on training examples set aside. No held-out example is read, so what the
picture tells of a rate that is chosen here was not chosen on.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.core.export import to_markdown
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.trained_prompts.experiments import sizes
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.initial import scale_of
from soft_prompt_explorer.trained_prompts.training.trainer import DivergedError, train

SEED = 3  # of no prompt of the picture
RATES = {sizes.PROMPT_TUNING: (0.05, 0.02, 0.007, 0.002), sizes.FULL: (3e-5, 1e-5, 3e-6)}
LAST = 10  # steps whose mean loss is told


def tried(config: TrainingConfig, language_model: LanguageModel) -> dict[str, float]:
    """The score on the examples set aside, the mean loss of the last steps, and the seconds; of a run whose loss became no number, the score is NaN."""
    losses, score, seconds = [], math.nan, math.nan
    try:
        for step in train(config, language_model=language_model):
            losses.append(step.loss)
            score, seconds = math.nan if step.validation is None else step.validation, step.seconds
    except DivergedError as error:
        print(error, file=sys.stderr)
    return {"score": score, "loss": float(np.mean(losses[-LAST:])), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(sizes.MODELS))
    parser.add_argument("--tasks", nargs="+", default=list(sizes.ASKED))
    parser.add_argument("--method", choices=list(RATES), default=sizes.PROMPT_TUNING)
    parser.add_argument("--rates", nargs="+", type=float)
    parser.add_argument("--seed", type=int, default=SEED)
    settings = parser.parse_args()
    rows = []
    for model in settings.models:
        length, language_model = scale_of(load_vocabulary(model)), load_model(model)
        for task in settings.tasks:
            base = replace(sizes.config_of(model, task, settings.method, settings.seed), validate_every=sizes.STEPS)
            for rate in settings.rates or RATES[settings.method]:
                row = {"model": model, "task": task, "rate": rate, "in word lengths": rate / length}
                rows.append(row | tried(replace(base, learning_rate=rate), language_model))
                print(rows[-1], file=sys.stderr, flush=True)
    print(to_markdown(pd.DataFrame(rows)).decode())


if __name__ == "__main__":
    main()
