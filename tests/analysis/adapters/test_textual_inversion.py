"""Vectors of new words, as diffusers and the web interface keep them, are read as prompts."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soft_prompt_explorer.analysis.adapters import AdapterError, load_adapter, load_soft_prompt
from soft_prompt_explorer.analysis.report.inspection import inspect
from tests.support.adapter_files import same, torch_saved, values


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


@pytest.mark.parametrize("names", [("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"), ("<s1>", "<s2>")])
def test_the_words_of_two_text_encoders_are_two_prompts(names, tmp_path):
    words = dict(zip(names, (values(3, 24), values(3, 32)), strict=True))
    save_file(words, tmp_path / "words.safetensors")
    found = load_adapter(tmp_path / "words.safetensors", name="mine")
    assert (found.name, found.kind) == ("mine", "textual_inversion")
    prompts = found.split()
    assert [prompt.name for prompt in prompts] == [f"mine ({name})" for name in names]
    assert all(same(prompt, rows) for prompt, rows in zip(prompts, words.values(), strict=True))
    row = inspect([tmp_path / "words.safetensors"]).iloc[0]
    assert (row["virtual_tokens"], row["width"]) == (3, 24)
    assert f"holds 2 prompts, for several text encoders: {names[0]} 3 × 24 and {names[1]} 3 × 32" in row["notes"]
    with pytest.raises(AdapterError, match="holds 2 prompts"):
        found.check_is_one()


def test_each_of_two_text_encoders_reads_its_own_words(tmp_path, command, llama_folder, tiny_llama, own_cache):
    rows = tiny_llama.get_input_embeddings().weight.detach()
    save_file({"clip_g": values(2, 24), "clip_l": rows[[7, 250]].clone()}, tmp_path / "words.safetensors")
    done = command("neighbours", tmp_path / "words.safetensors", "--model", llama_folder, "--top-k", 1, "--format", "json")
    assert [(row["prompt"], row["token_id"]) for row in json.loads(done.out)] == [("words (clip_l)", 7), ("words (clip_l)", 250)]
    assert "Left out: words (clip_g) is 24 wide" in done.err
    save_file({"clip_l": values(2, 20), "clip_g": values(2, 24)}, tmp_path / "words.safetensors")
    done = command("neighbours", tmp_path / "words.safetensors", "--model", llama_folder)
    assert (done.status, done.out) == (2, "")


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
