"""A prompt that was exported for vLLM, in vLLM: where VLLM_PYTHON names the Python of an environment that has it, for it does not go with our transformers."""

import json
import os
import subprocess

import numpy as np
import pytest
import torch

from tests.support.places import REPOSITORY
from tests.support.plain_calls import by_transformers

WIDTH, IDS = 128, [3, 17, 40]
PYTHON = os.environ.get("VLLM_PYTHON")


@pytest.fixture
def model_and_folder(tmp_path):
    """A Llama of random weights, with the width of a head that vLLM's kernels know."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=64, intermediate_size=256,
        max_position_embeddings=256, initializer_range=0.2, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


@pytest.mark.slow
@pytest.mark.skipif(PYTHON is None, reason="VLLM_PYTHON names no Python that has vLLM")
def test_vllm_makes_the_probabilities_that_transformers_make(command, model_and_folder, tmp_path):
    model, folder = model_and_folder
    made = (0.2 * np.random.default_rng(1).standard_normal((5, WIDTH))).astype(np.float32)
    np.save(tmp_path / "made.npy", made)
    assert command("export", tmp_path / "made.npy", "--to", "vllm", "--out", tmp_path / "p.pt").status == 0
    whole = torch.cat([torch.load(tmp_path / "p.pt", weights_only=True), model.get_input_embeddings().weight[IDS].detach()])
    torch.save(whole, tmp_path / "whole.pt")
    asked = [PYTHON, REPOSITORY / "tests" / "support" / "in_vllm.py", folder, tmp_path / "whole.pt"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=tmp_path)
    found = {int(word): value for word, value in json.loads(answer.stdout.splitlines()[-1]).items()}

    truth, bare = (by_transformers(model, rows, IDS).log_softmax(-1).detach() for rows in (made, made[:0]))
    assert set(truth.topk(10).indices.tolist()) <= set(found)
    assert max(abs(truth[word].item() - value) for word, value in found.items()) < 1e-4
    assert max(abs(bare[word].item() - value) for word, value in found.items()) > 0.1  # the prompt is what is seen
