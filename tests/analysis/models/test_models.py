"""A model's name resolves to one set of files, or to a sentence that lists what was tried."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_SHA256, EMBEDDED_WIDTH
from soft_prompt_explorer.analysis.models.names import default_model, is_at_hand, resolve_model
from soft_prompt_explorer.analysis.models.weights import ModelError, is_prepared, load_model, model_sha256, prepare_model
from tests.support.places import EMBEDDED
from tests.support.tiny_models import embedding_rows


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- Names -----------------------------------------------------------------------------------------------------------


def test_the_embedded_model_is_the_file_that_the_design_names():
    model = resolve_model(EMBEDDED)
    assert (model.kind, model.is_gguf) == ("embedded", True)
    assert sha256(model.path) == EMBEDDED_SHA256 == model_sha256(EMBEDDED)


def test_a_folder_and_a_gguf_file_resolve_to_themselves(llama_folder, tmp_path):
    (tmp_path / "model.GGUF").touch()
    folder, file = resolve_model(str(llama_folder)), resolve_model(str(tmp_path / "model.GGUF"))
    assert (folder.kind, folder.path, folder.is_gguf) == ("folder", llama_folder, False)
    assert (file.kind, file.path, file.is_gguf) == ("gguf", tmp_path / "model.GGUF", True)


@pytest.mark.parametrize(
    "name", ["no-such/model", "nosuchmodel", "no/such/model", "../missing", "", "a b", "smollm2-135M\n", "missing.gguf"]
)
def test_a_name_that_resolves_to_nothing_gets_a_sentence_that_lists_what_was_tried(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as refusal:
        resolve_model(name)
    sentence = str(refusal.value)
    assert sentence.isprintable()
    if name:
        assert EMBEDDED in sentence
        assert "path" in sentence
        assert "hub" in sentence


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        resolve_model(str(tmp_path))


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "weights.bin").touch()
    with pytest.raises(ModelError, match=r"is not a \.gguf"):
        resolve_model(str(tmp_path / "weights.bin"))


def test_whether_a_vocabulary_is_at_hand_is_known_without_the_network(llama_folder, tmp_path):
    (tmp_path / "model.gguf").touch()
    assert all(is_at_hand(name) for name in (EMBEDDED, str(llama_folder), str(tmp_path / "model.gguf")))
    assert not any(is_at_hand(name) for name in ("no-such/model", "no/such/model", "../missing", "", "a b", "\0", str(tmp_path)))


# --- Which model an adapter is read against --------------------------------------------------------------------------


@pytest.mark.parametrize("base", [None, EMBEDDED, "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_a_prompt_of_the_embedded_models_width_is_read_against_it_unless_it_names_another(base):
    assert default_model(base, EMBEDDED_WIDTH) == EMBEDDED


def test_a_prompt_of_another_width_that_names_no_model_is_refused():
    with pytest.raises(ModelError, match=r"768 wide .* 576 wide.*load_model"):
        default_model(None, 768)


@pytest.mark.parametrize("base", ["no-such/model", "gpt2", "https://example.org/model", "C:\\models\\llama"])
def test_a_prompt_of_a_model_that_is_not_at_hand_is_never_read_against_another(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="load_model"):
        default_model(base, EMBEDDED_WIDTH)


def test_why_the_model_of_a_prompt_cannot_be_read_is_said(monkeypatch, own_cache):
    def broken(name, report, *, tried):
        raise ModelError("The connection broke off.")

    monkeypatch.setattr("soft_prompt_explorer.analysis.models.hub.vocabulary_folder", broken)
    with pytest.raises(ModelError, match="broke off"):
        default_model("someone/model", EMBEDDED_WIDTH)


@pytest.mark.parametrize("written", ["{folder}", "model", "./model", "owner/model"])
def test_a_path_in_an_adapter_is_never_followed(written, llama_folder, tmp_path, monkeypatch, own_cache):
    shutil.copytree(llama_folder, tmp_path / "model")
    shutil.copytree(llama_folder, tmp_path / "owner" / "model")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="not followed"):
        default_model(written.format(folder=llama_folder), 16)
    assert not own_cache.exists()


# --- Making ready ----------------------------------------------------------------------------------------------------


def test_a_folder_is_loaded_as_it_stands(llama_folder, own_cache, tiny_llama):
    assert is_prepared(str(llama_folder))
    assert prepare_model(str(llama_folder)) == llama_folder
    model, tokenizer = load_model(str(llama_folder), device="cpu")
    assert np.array_equal(embedding_rows(model), embedding_rows(tiny_llama))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert tokenizer.decode(tokenizer("the cat")["input_ids"]) == "the cat"


def test_the_prepared_embedded_model_continues_a_sentence(embedded_model):
    model, tokenizer = embedded_model
    ids = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=1, do_sample=False)
    assert tokenizer.decode(answer[0, -1]) == " Paris"


def test_the_sha256_of_a_sharded_folder_depends_on_every_shard(sharded_llama_folder, tmp_path):
    folder = shutil.copytree(sharded_llama_folder, tmp_path / "model")
    before = model_sha256(str(folder))
    assert before == model_sha256(str(sharded_llama_folder))
    last = max(folder.glob("*.safetensors"))
    last.write_bytes(last.read_bytes()[:-1] + b"\x01")
    assert model_sha256(str(folder)) != before
