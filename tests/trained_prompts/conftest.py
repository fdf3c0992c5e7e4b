"""A toy task on a tiny model: trains in milliseconds, by the same code as the real ones."""

import pandas as pd
import pytest

from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.analysis.tasks.task import Task
from soft_prompt_explorer.trained_prompts.runs.recording import Recording
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.trainer import train


@pytest.fixture
def own_runs(tmp_path, monkeypatch):
    """A folder of this test's own for runs."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("SOFT_PROMPT_EXPLORER_RUNS", str(folder))
    return folder


@pytest.fixture
def toy_task(monkeypatch) -> Task:
    """Four sentences of different lengths; one label has several tokens, the other one shares its first token with no other."""
    table = pd.DataFrame(
        {
            "input": ["the cat sat", "the mat", "a new line of the text on the mat", "the text"] * 2,
            "target": [" the cat", " mat", " mat", " the cat"] * 2,
            "split": ["train"] * 4 + ["held-out"] * 4,
        }
    )
    task = Task("toy", "A toy.", "{input}\nAnswer:", (" the cat", " mat"), "made here", lambda: table)
    monkeypatch.setitem(TASKS, "toy", task)
    yield task
    from soft_prompt_explorer.analysis.tasks.task import _loaded

    _loaded.cache_clear()


@pytest.fixture
def toy_config(toy_task, llama_folder, own_cache) -> TrainingConfig:
    return TrainingConfig(task="toy", model=str(llama_folder), tokens=3, steps=4, batch_size=4, init="random", learning_rate=0.1)


@pytest.fixture
def language_model(toy_config):
    """The tiny model, this test's own, and its tokenizer."""
    return load_model(toy_config.model, device="cpu")


def trained(config: TrainingConfig, language_model, **options) -> Recording:
    """What a run to its end leaves behind."""
    recording = Recording(config)
    for step in train(config, language_model=language_model, **options):
        recording.add(step)
    return recording
