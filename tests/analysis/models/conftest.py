"""A hub on this machine, and models to serve."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.hub import running_hub
from tests.support.places import names_in
from tests.support.tiny_models import embedding_rows, random_llama, saved


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="session")
def wide_llama(byte_level_tokenizer):
    """A Llama of 33 MB, 5 MB of them input embeddings, so that two percent of those are more than a header."""
    return random_llama(byte_level_tokenizer, hidden_size=4096, intermediate_size=512, num_hidden_layers=1, head_dim=8)


@pytest.fixture(scope="session")
def wide_folder(wide_llama, byte_level_tokenizer, tmp_path_factory) -> Path:
    folder = saved(wide_llama, byte_level_tokenizer, tmp_path_factory.mktemp("models") / "wide")
    assert "model.safetensors" in names_in(folder)
    return folder


@pytest.fixture(scope="session")
def wide_sharded_folder(wide_llama, byte_level_tokenizer, tmp_path_factory) -> Path:
    folder = saved(wide_llama, byte_level_tokenizer, tmp_path_factory.mktemp("models") / "wide-sharded", max_shard_size="16MB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="session")
def wide_rows(wide_llama) -> np.ndarray:
    """What the model's own embedding layer answers: the reference for everything that is read here."""
    return embedding_rows(wide_llama)
