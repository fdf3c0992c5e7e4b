"""Prompts as PEFT makes them."""

import numpy as np
import pytest
import torch
from peft import PromptTuningConfig, get_peft_model

from tests.support.adapter_files import WIDTH


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, WIDTH))


@pytest.fixture
def make_peft(llama_folder):
    """A PEFT model over a tiny Llama, or over a tiny T5 where the config is for an encoder-decoder."""
    from transformers import AutoModelForCausalLM, T5Config, T5ForConditionalGeneration

    def make(config):
        torch.manual_seed(2)
        if config.task_type == "CAUSAL_LM":
            model = AutoModelForCausalLM.from_pretrained(llama_folder)
        else:
            sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
            model = T5ForConditionalGeneration(T5Config(vocab_size=300, **sizes, decoder_start_token_id=0))
        return get_peft_model(model, config).eval()

    return make


@pytest.fixture(scope="module")
def peft_model(llama_folder):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    return get_peft_model(
        AutoModelForCausalLM.from_pretrained(llama_folder), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    )


@pytest.fixture
def peft_folder(peft_model, tmp_path):
    peft_model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"
