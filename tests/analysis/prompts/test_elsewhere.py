"""A prompt that is taken elsewhere says there what it says here: the same rows, the same logits."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from soft_prompt_explorer.analysis.__main__ import app
from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.core.folders import GALLERY
from tests.support.commands import caller_of
from tests.support.plain_calls import by_transformers

PROMPT = GALLERY / "plural-words-1"
OUT = {"npy": "p.npy", "safetensors": "p.safetensors", "vllm": "p.pt", "llama.cpp": "p.bin", "peft": "folder"}


@pytest.fixture
def command(monkeypatch, capsys):
    return caller_of("analysis", app, monkeypatch, capsys)


@pytest.fixture
def rows(tiny_llama, tmp_path) -> np.ndarray:
    """A prompt of the tiny model in a file."""
    made = np.random.default_rng(0).normal(size=(3, tiny_llama.config.hidden_size)).astype(np.float32)
    np.save(tmp_path / "made.npy", made)
    return made


def test_peft_makes_the_same_logits_of_the_folder(command, rows, tiny_llama, tmp_path):
    from peft import PeftModel

    assert command("export", tmp_path / "made.npy", "--to", "peft", "--out", tmp_path / "folder").status == 0
    peft_model = PeftModel.from_pretrained(tiny_llama, tmp_path / "folder")
    with torch.no_grad():
        logits = peft_model(input_ids=torch.tensor([[5, 6, 7]]), attention_mask=torch.ones(1, 3, dtype=torch.long)).logits[0, -1]
    torch.testing.assert_close(logits, by_transformers(tiny_llama, rows, [5, 6, 7]), atol=1e-4, rtol=0)


def test_a_known_start_goes_along_where_the_format_has_a_place_for_it(command, tmp_path):
    whole = load_soft_prompt(PROMPT)
    for target in ("peft", "safetensors"):
        assert command("export", PROMPT, "--to", target, "--out", tmp_path / OUT[target]).status == 0
        again = load_soft_prompt(tmp_path / OUT[target])
        np.testing.assert_array_equal(again.embeddings, whole.embeddings)
        np.testing.assert_array_equal(again.start, whole.start)
    assert load_soft_prompt(tmp_path / "folder").base_model == whole.base_model


def test_the_rows_are_the_same_in_every_file(command, rows, tmp_path):
    for target in ("npy", "safetensors", "vllm", "llama.cpp"):
        assert command("export", tmp_path / "made.npy", "--to", target, "--out", tmp_path / OUT[target]).status == 0
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), rows)
    with safe_open(tmp_path / "p.safetensors", framework="np") as file:
        np.testing.assert_array_equal(file.get_tensor("prompt_embeddings"), rows)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "p.bin", dtype="<f4").reshape(3, -1), rows)
    # vLLM decodes base64 and loads with weights_only=True a tensor of two axes
    loaded = torch.load(io.BytesIO(base64.b64decode(base64.b64encode((tmp_path / "p.pt").read_bytes()))), weights_only=True)
    assert loaded.dim() == 2 and loaded.layout == torch.strided and loaded.dtype == torch.float32
    np.testing.assert_array_equal(loaded.numpy(), rows)


def test_a_file_with_its_text_is_the_whole_input(command, rows, llama_folder, language_model, tmp_path):
    options = ("--text", "the cat\\n", "--model", llama_folder, "--out", tmp_path / "p.pt")
    assert command("export", tmp_path / "made.npy", "--to", "vllm", *options).status == 0
    whole = torch.load(tmp_path / "p.pt", weights_only=True)
    model, tokenizer = language_model
    ids = tokenizer("the cat\n").input_ids
    assert len(whole) == 3 + len(ids)
    with torch.no_grad():
        logits = model(inputs_embeds=whole[None]).logits[0, -1]
    torch.testing.assert_close(logits, by_transformers(model, rows, ids), atol=1e-4, rtol=0)


def test_every_file_says_where_it_comes_from(command, tmp_path):
    for target, name in OUT.items():
        assert command("export", PROMPT, "--to", target, "--out", tmp_path / name).status == 0
    told = [json.loads((tmp_path / f"{OUT[target]}.provenance.json").read_bytes()) for target in ("npy", "vllm", "llama.cpp")]
    for path in (tmp_path / "p.safetensors", tmp_path / "folder" / "adapter_model.safetensors"):
        with safe_open(path, framework="np") as file:
            told.append(json.loads(file.metadata()["provenance"]))
    assert all([each["name"] for each in said["files"]] == ["plural-words-1"] for said in told)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((PROMPT, "--to", "onnx", "--out", "x"), "peft, npy, safetensors, vllm or llama.cpp"),
        ((PROMPT, "--to", "npy", "--out", "x.pt"), "does not end in .npy"),
        ((PROMPT, "--to", "peft", "--out", "taken"), "exists; choose another folder"),
        ((PROMPT, "--to", "npy", "--out", "x.npy", "--text", "a"), "vllm and llama.cpp alone"),
        ((PROMPT, "--to", "npy", "--out", "nowhere/x.npy"), "does not exist"),
        ((GALLERY / "capitals-lora-8", "--to", "npy", "--out", "x.npy"), "holds no virtual tokens"),
        (("several.npy", "--to", "vllm", "--out", "x.pt"), "holds 2 prompts"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_sentence_and_nothing_is_written(command, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    np.save(tmp_path / "several.npy", np.ones((2, 3, 8), dtype=np.float32))
    status, _, err = command("export", *arguments)
    assert status == 2 and sentence in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["several.npy", "taken"]


def test_new_words_stand_in_front_of_nothing(command, tmp_path):
    from safetensors.numpy import save_file

    save_file({"<cat-toy>": np.ones((2, 768), dtype=np.float32)}, tmp_path / "learned_embeds.safetensors")
    status, _, err = command("export", tmp_path / "learned_embeds.safetensors", "--to", "peft", "--out", tmp_path / "folder")
    assert status == 2 and "export it to npy or safetensors" in err
    assert command("export", tmp_path / "learned_embeds.safetensors", "--to", "npy", "--out", tmp_path / "x.npy").status == 0
