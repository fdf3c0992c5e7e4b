"""Comparisons of methods that are made up, as the tables of measured ones are."""

import numpy as np
import pandas as pd

from soft_prompt_explorer.trained_prompts.experiments.comparison import COLUMNS

ROWS = [  # method, what, score, low, high, trainable, seed
    ("zero-shot", "{input}\nAnswer:", 0.50, 0.45, 0.55, 0, None),
    ("prompt engineering", "<b>{input}</b> is", 0.40, 0.35, 0.44, 0, None),
    ("prompt engineering", "4 examples, then <b>{input}</b> is", 0.58, 0.53, 0.63, 0, None),
    ("prompt tuning", "10 virtual tokens, 150 steps at 0.05", 0.54, 0.49, 0.59, 5_760, 3),
    ("LoRA", "rank 8, 150 steps at 0.001", 0.66, 0.61, 0.71, 460_800, 3),
    ("full fine-tuning", "all weights, 150 steps at 2e-05", 0.70, 0.65, 0.75, 134_515_008, 3),
]


def made_up(task: str = "sentiment", model: str = "smollm2-135m", better: float = 0.0) -> pd.DataFrame:
    table = pd.DataFrame(ROWS, columns=["method", "what", "score", "low", "high", "trainable", "seed"])
    table[["score", "low", "high"]] += better
    return table.assign(
        task=task, model=model, measure="accuracy", n=400, loss=0.7, seconds_training=12.0, seconds_scoring=3.0, peak_memory=1_500_000_000
    )[COLUMNS]


def diverged(table: pd.DataFrame, method: str = "full fine-tuning") -> pd.DataFrame:
    """The same as it is where one method's loss became no number."""
    of_it = table["method"] == method
    table.loc[of_it, ["score", "low", "high", "loss"]] = np.nan
    return table.assign(n=table["n"].where(~of_it, 0), what=table["what"].where(~of_it, table["what"] + ", diverged"))
