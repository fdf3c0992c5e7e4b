"""Vectors of new words, as diffusers and the web interface keep them, are read as prompts."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soft_prompt_explorer.analysis.adapters import load_adapter, load_soft_prompt
from soft_prompt_explorer.analysis.report.inspection import inspect
from tests.support.adapter_files import refusal, same, torch_saved, values


def diffusers_word(path: Path, rows: torch.Tensor) -> Path:
    save_file({"<cat-toy>": rows}, path)
    return path


def diffusers_word_in_a_pickle(path: Path, rows: torch.Tensor) -> Path:
    return torch_saved({"<cat-toy>": rows}, path)


def word_of_the_web_interface(path: Path, rows: torch.Tensor) -> Path:
    content = {"string_to_token": {"*": 265}, "string_to_param": {"*": rows.requires_grad_()}, "name": "cat", "step": 999}
    return torch_saved(content | {"sd_checkpoint": "0123abcd", "sd_checkpoint_name": "v1-5"}, path)


def word_of_the_web_interface_in_safetensors(path: Path, rows: torch.Tensor) -> Path:
    save_file({"emb_params": rows}, path, metadata={"name": "cat"})
    return path


@pytest.mark.parametrize("shape", [(1, 24), (3, 24), (24,)])
@pytest.mark.parametrize(
    ("write", "word"),
    [
        (diffusers_word, "<cat-toy>"),
        (diffusers_word_in_a_pickle, "<cat-toy>"),
        (word_of_the_web_interface, "*"),
        (word_of_the_web_interface_in_safetensors, "emb_params"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_vectors_of_a_new_word_are_read(tmp_path, write, word, shape):
    rows = values(*shape)
    found = load_adapter(write(tmp_path / "learned_embeds", rows.clone()))
    assert same(found, rows.reshape(-1, 24))
    assert (found.kind, found.method) == ("textual_inversion", "TEXTUAL_INVERSION")
    assert found.metadata["words"] == [word] * len(found)
    row = inspect([found.source.path]).iloc[0]
    assert (row["kind"], row["virtual_tokens"], row["width"]) == ("textual_inversion", len(found), 24)
    assert f"stands for {word}" in row["notes"]


def test_several_new_words_are_told_apart(tmp_path):
    words = {"<s1>": values(24), "<s2>": values(2, 24)}
    save_file(words, tmp_path / "words.safetensors")
    found = load_adapter(tmp_path / "words.safetensors")
    assert same(found, torch.cat([words["<s1>"][None], words["<s2>"]]))
    assert found.metadata["words"] == ["<s1>", "<s2>", "<s2>"]


def test_new_words_for_two_text_encoders_are_refused(tmp_path):
    save_file({"<s1>": values(24), "<s2>": values(32)}, tmp_path / "words.safetensors")
    assert "several text encoders" in refusal(tmp_path / "words.safetensors")


def test_new_words_beside_a_lora_come_with_it(tmp_path):
    word, down, up = values(1, 24), values(2, 8), values(8, 2)
    save_file({"<s1>": word, "unet:0:down": down, "unet:0:up": up}, tmp_path / "lora.safetensors")
    lora = load_adapter(tmp_path / "lora.safetensors")
    assert list(lora.modules) == ["unet:0"]
    assert same(lora.textual_inversion, word)
    assert lora.textual_inversion.name == "lora (words)"
    assert same(load_soft_prompt(tmp_path / "lora.safetensors"), word)
    row = inspect([tmp_path / "lora.safetensors"]).iloc[0]
    assert row["kind"] == "lora"
    assert "textual-inversion vectors 1 × 24 (<s1>)" in row["notes"]
