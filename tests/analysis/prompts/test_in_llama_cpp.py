"""A prompt that was exported for llama.cpp, in llama.cpp."""

import numpy as np
import pytest
import torch

from tests.support.llama_cpp import WIDTH, LlamaCpp, write_tiny_gguf
from tests.support.plain_calls import by_transformers

IDS = [3, 17, 40]


@pytest.fixture
def model_file(tmp_path):
    write_tiny_gguf(tmp_path / "tiny.gguf", np.random.default_rng(0))
    return tmp_path / "tiny.gguf"


def test_llama_cpp_makes_the_logits_that_transformers_make(command, model_file, tmp_path):
    from transformers import AutoModelForCausalLM

    made = (0.2 * np.random.default_rng(1).standard_normal((5, WIDTH))).astype(np.float32)
    np.save(tmp_path / "made.npy", made)
    assert command("export", tmp_path / "made.npy", "--to", "llama.cpp", "--out", tmp_path / "p.bin").status == 0
    engine = LlamaCpp(model_file)
    engine.decode(rows=np.fromfile(tmp_path / "p.bin", dtype="<f4").reshape(-1, WIDTH))
    found = engine.decode(ids=IDS, at=len(made))

    model = AutoModelForCausalLM.from_pretrained(model_file.parent, gguf_file=model_file.name, dtype=torch.float32)
    with torch.no_grad():
        bare = model(input_ids=torch.tensor([IDS])).logits[0, -1]
    np.testing.assert_allclose(found, by_transformers(model, made, IDS).numpy(), atol=1e-4, rtol=0)
    assert np.abs(found - bare.numpy()).max() > 0.1  # the prompt is what is seen
    np.testing.assert_allclose(LlamaCpp(model_file).decode(ids=IDS), bare.numpy(), atol=1e-4, rtol=0)
