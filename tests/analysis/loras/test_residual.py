"""A direction planted along a word is read as that word, and random directions are read as nothing."""

import numpy as np
import pytest
import torch

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.loras.residual import COLUMNS, residual_directions
from tests.support.lora_files import gaussian, lora_file


def test_a_planted_word_is_read_on_the_side_of_the_residual_stream_and_noise_is_not(tmp_path, embedded_vocabulary):
    rng = np.random.default_rng(0)
    word = embedded_vocabulary.tokens.index(" river")
    along = embedded_vocabulary.embeddings[word] - embedded_vocabulary.mean
    modules = {f"model.layers.{i}.self_attn.q_proj": gaussian(64, 576, 2, rng) for i in range(12)}
    a, b = gaussian(64, 576, 2, rng)
    a[0] = 50 * torch.from_numpy(along / np.linalg.norm(along))
    modules["model.layers.20.self_attn.q_proj"] = (a, b)
    a, b = gaussian(576, 64, 2, rng)
    b[:, 0] = -50 * torch.from_numpy(along / np.linalg.norm(along))
    modules["model.layers.21.self_attn.o_proj"] = (a, b)
    table = residual_directions(lora_file(tmp_path / "a.safetensors", modules), embedded_vocabulary)
    assert list(table.columns) == COLUMNS
    assert len(table) == 14 * 2 * 2
    told = table[table["q"] < 0.05]
    assert told[["layer", "side", "direction", "token"]].to_numpy().tolist() == [[20, "reads", 0, " river"], [21, "writes", 0, " river"]]
    assert told["p"].tolist() == pytest.approx([1 / 1001] * 2)


def test_modules_beside_no_residual_stream_are_left_out(tmp_path, embedded_vocabulary):
    rng = np.random.default_rng(1)
    a, b = gaussian(576, 576, 2, rng)
    adapter = lora_file(
        tmp_path / "a.safetensors", {"layers.0.q_proj": (a, 0 * b), "conv_in": (a, b), "layers.0.o_proj": gaussian(64, 576, 2, rng)}
    )
    with pytest.raises(InputError, match="576 wide"):
        residual_directions(adapter, embedded_vocabulary)
