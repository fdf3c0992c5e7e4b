"""Figures as text, so that two are told apart to the last bit."""

from pathlib import Path

import numpy as np
import torch

from soft_prompt_explorer.analysis.models.weights import load_model


def figures(*arrays) -> list[bytes]:
    return [np.asarray(array).tobytes() for array in arrays]


def of_model(gguf: Path) -> list:
    model, tokenizer = load_model(str(gguf), device="cpu")
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        logits = model(torch.arange(6)[None]).logits
    return [tokenizer("the cat")["input_ids"], *figures(logits, *(tensor.numpy() for tensor in model.state_dict().values()))]
