"""What files of adapters are made of, and what is read of them."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from soft_prompt_explorer.analysis.adapters import AdapterError, SoftPrompt, load_adapter

WIDTH = 16  # of every model here


def values(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def torch_saved(content, path: Path, **options) -> Path:
    torch.save(content, path, **options)
    return path


def same(prompt: SoftPrompt, expected) -> bool:
    """Whether a prompt's rows are these to the last bit, as float32."""
    expected = expected.detach().float().numpy() if isinstance(expected, torch.Tensor) else np.asarray(expected, dtype=np.float32)
    return prompt.embeddings.dtype == np.float32 and np.array_equal(prompt.embeddings, expected)


def refusal(path: Path, load=load_adapter) -> str:
    """The sentence that refuses a path."""
    with pytest.raises(AdapterError) as error:
        load(path)
    sentence = str(error.value)
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert sentence.isprintable(), "one line, and nothing that a terminal would act on"
    return sentence


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
