"""What a run's settings leave to its model: the learning rate of prompt tuning, beside the lengths of the model's words."""

import json
from contextlib import closing
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.trained_prompts.runs import recorded
from soft_prompt_explorer.trained_prompts.runs.recording import checkpoint_path
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.settling import rate_of, settled
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.tiny_models import saved


@pytest.fixture
def with_words_of(tiny_llama, byte_level_tokenizer, tmp_path, toy_config):
    """The toy run of a model whose words have values of a root mean square, with no rate given."""

    def made(scale: float) -> TrainingConfig:
        rows = tiny_llama.get_input_embeddings().weight
        before = rows.data.clone()
        rows.data *= scale / before.square().mean().sqrt()
        folder = saved(tiny_llama, byte_level_tokenizer, tmp_path / f"words-{scale:g}")
        rows.data = before
        return replace(toy_config, model=str(folder), learning_rate=None)

    return made


@pytest.mark.parametrize(("scale", "rate"), [(0.0173, 0.007), (0.04, 0.02), (0.136, 0.05), (1.03, 0.05)])
def test_prompt_tuning_learns_with_less_where_words_are_short(with_words_of, scale, rate):
    config = with_words_of(scale)
    (stored,) = (array for name, array in load_file(f"{config.model}/model.safetensors").items() if "embed_tokens" in name)
    assert np.sqrt(np.square(stored.astype(np.float64)).mean()) == pytest.approx(scale, rel=1e-5)
    assert rate_of(config) == rate
    assert rate_of(replace(config, learning_rate=0.3)) == 0.3  # what is given stays


def test_the_first_step_moves_each_value_by_the_rate(with_words_of):
    """Adam's first step is the rate times the gradient's sign."""
    first, second, *_ = [step.embeddings for step in train(with_words_of(0.0173))]
    moved = np.abs(second - first)
    assert moved.max() == pytest.approx(0.007, rel=1e-3)
    assert np.median(moved) == pytest.approx(0.007, rel=1e-2)


def test_a_run_says_with_what_rate_it_learned_and_goes_on_with_it(with_words_of, tmp_path):
    config = with_words_of(0.0173)
    language_model = load_model(config.model)
    with closing(recorded.record(config, "broken-off", language_model=language_model, folder=tmp_path)) as made:
        for recording, step in made:
            if step.step == 2:
                recording.write_checkpoint(checkpoint_path("broken-off", tmp_path))
                break
    for name in ("broken-off", "whole"):
        recorded.run(config, name, language_model=language_model, folder=tmp_path)
    assert json.loads((tmp_path / "broken-off" / "run.json").read_text())["config"]["learning_rate"] == 0.007
    rates = [pd.read_csv(tmp_path / name / "losses.csv")["learning_rate"].tolist() for name in ("broken-off", "whole")]
    assert rates[0] == rates[1] == pytest.approx([0.007, 0.00525, 0.0035, 0.00175])


def test_the_rates_that_nobody_names_are_the_methods_own(toy_config):
    assert rate_of(TrainingConfig(task="sentiment")) == 0.05  # of the embedded model, whose prompts have always learned so
    assert rate_of(replace(toy_config, method="lora", learning_rate=None)) == 0.001
    lora = settled(TrainingConfig(task="sentiment", method="lora", rank=4))
    assert (lora.learning_rate, lora.alpha, lora.targets) == (0.001, 8.0, ("q_proj", "v_proj"))
