"""A run that another process can be told to train too: on examples in a file."""

import numpy as np
import pandas as pd
import pytest
import torch

from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig


@pytest.fixture
def own_file(tmp_path):
    """Forty examples in a file, so that another process finds the task too: thirty to learn from, ten held out."""
    rng = np.random.default_rng(0)
    words = ["cat", "mat", "text", "line", "café", "the", "new", "sat", "on", "of"]
    inputs = [f"{number} {' '.join(rng.choice(words, size=rng.integers(1, 6)))}" for number in range(40)]
    targets = [("the cat", "mat")[i % 2] for i in range(40)]
    path = tmp_path / "own.csv"
    pd.DataFrame({"input": inputs, "target": targets}).to_csv(path, index=False)
    return path


@pytest.fixture
def config(own_file, llama_folder, own_cache, own_runs) -> TrainingConfig:
    return TrainingConfig(
        task=str(own_file), model=str(llama_folder), tokens=3, steps=24, batch_size=4, init="random", learning_rate=0.1, validate_every=4,
        patience=50,
    )  # fmt: skip


@pytest.fixture
def one_thread():
    """As many threads as the other process has, so that sums are added up in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
