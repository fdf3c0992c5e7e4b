"""A vocabulary read from files is the one that the model itself would look up."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from soft_prompt_explorer.analysis.models.tensor_names import embedding_tensor_name
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary, load_vocabulary, printable
from soft_prompt_explorer.analysis.models.weights import ModelError
from tests.support.places import names_in
from tests.support.tiny_models import embedding_rows

# --- The embedded model ----------------------------------------------------------------------------------------------


def test_the_embedded_rows_are_those_of_the_transformers_model(embedded_vocabulary, embedded_model):
    model, _ = embedded_model
    assert np.array_equal(embedded_vocabulary.embeddings, model.get_input_embeddings().weight.numpy())
    assert embedded_vocabulary.embeddings.dtype == np.float32
    assert (len(embedded_vocabulary), embedded_vocabulary.width) == (49_152, 576)


def test_the_embedded_tokens_are_what_the_tokenizer_decodes(embedded_vocabulary, embedded_model):
    _, tokenizer = embedded_model
    compared = 0
    for token_id in np.random.default_rng(0).choice(len(embedded_vocabulary), size=3000, replace=False):
        text = tokenizer.decode([int(token_id)], clean_up_tokenization_spaces=False)
        if text.isprintable() and "�" not in text and "\\" not in text:
            assert embedded_vocabulary.tokens[token_id] == text
            compared += 1
        else:
            assert embedded_vocabulary.tokens[token_id] != text
    assert compared > 2500


def test_no_embedded_token_holds_an_unprintable_character(embedded_vocabulary):
    assert all(token.isprintable() for token in embedded_vocabulary.tokens)


def test_the_measures_are_those_of_the_rows(embedded_vocabulary):
    mean = embedded_vocabulary.embeddings.mean(axis=0, dtype=np.float64)
    rows = embedded_vocabulary.embeddings[::17].astype(np.float64)
    np.testing.assert_allclose(embedded_vocabulary.mean, mean, atol=1e-12)
    np.testing.assert_allclose(embedded_vocabulary.norms[::17], np.linalg.norm(rows, axis=1), rtol=1e-12)
    np.testing.assert_allclose(embedded_vocabulary.centred_norms[::17], np.linalg.norm(rows - mean, axis=1), rtol=1e-12)


# --- Folders ---------------------------------------------------------------------------------------------------------


def test_byte_level_tokens_are_shown_as_the_text_they_stand_for(llama_folder, own_cache, byte_level_tokenizer):
    vocabulary = load_vocabulary(str(llama_folder))
    for token_id in range(len(byte_level_tokenizer)):
        text = byte_level_tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        if text.isprintable() and "�" not in text and "\\" not in text:
            assert vocabulary.tokens[token_id] == text
    assert {"<|endoftext|>", " the", "\\n", "\\t", "\\\\", "<0xE4>", "<0xFF>", " "} <= set(vocabulary.tokens)
    assert all(token.isprintable() for token in vocabulary.tokens)


def test_rows_beyond_the_tokenizer_are_named_and_special(llama_folder, own_cache, byte_level_tokenizer, tiny_llama):
    vocabulary = load_vocabulary(str(llama_folder))
    size = len(byte_level_tokenizer)
    assert vocabulary.tokens[size:] == [f"<unused_row_{size + i}>" for i in range(5)]
    assert np.array_equal(vocabulary.embeddings, embedding_rows(tiny_llama))
    assert np.flatnonzero(vocabulary.special).tolist() == [byte_level_tokenizer.eos_token_id, *range(size, size + 5)]


def test_sharded_safetensors_are_read_like_whole_ones(llama_folder, sharded_llama_folder, own_cache):
    whole, sharded = load_vocabulary(str(llama_folder)), load_vocabulary(str(sharded_llama_folder))
    assert np.array_equal(whole.embeddings, sharded.embeddings)
    assert whole.tokens == sharded.tokens


def test_only_the_shard_with_the_embeddings_is_needed(sharded_llama_folder, tmp_path, own_cache, tiny_llama):
    folder = shutil.copytree(sharded_llama_folder, tmp_path / "model")
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    for shard in set(weight_map.values()) - {weight_map["model.embed_tokens.weight"]}:
        (folder / shard).unlink()
    assert np.array_equal(load_vocabulary(str(folder)).embeddings, embedding_rows(tiny_llama))


def test_other_safetensors_beside_the_models_own_do_no_harm(llama_folder, tmp_path, own_cache, tiny_llama):
    folder = shutil.copytree(llama_folder, tmp_path / "model")
    save_file({"prompt_embeddings": torch.zeros(3, 16)}, folder / "adapter_model.safetensors")
    assert np.array_equal(load_vocabulary(str(folder)).embeddings, embedding_rows(tiny_llama))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_read_exactly(dtype, llama_folder, tmp_path, own_cache):
    folder = shutil.copytree(llama_folder, tmp_path / "model")
    halves = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors")
    assert np.array_equal(load_vocabulary(str(folder)).embeddings, halves["model.embed_tokens.weight"].float().numpy())


def folder_with_tokenizer(folder, tokenizer, size: int):
    """A folder that holds a Llama's config, random embeddings of `size` rows, and this tokenizer."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file({"model.embed_tokens.weight": torch.randn(size, 4)}, folder / "model.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


def test_sentencepiece_tokens_are_shown_with_spaces_and_bytes(tmp_path, own_cache):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pieces = ["<unk>", "<0x0A>", "<0xE4>", "<0x41>", "▁the", "▁", "at", "中", "▁▁", "naï", "\n", "\u200b", "<unused0>"]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken("<unk>", special=True), AddedToken("<end▁of>", special=True)])
    vocabulary = load_vocabulary(folder_with_tokenizer(tmp_path / "model", tokenizer, 14))
    assert vocabulary.tokens == [
        "<unk>", "\\n", "<0xE4>", "A", " the", " ", "at", "中", "  ", "naï", "\\n", "\\u200b", "<unused0>", "<end▁of>",
    ]  # fmt: skip
    assert np.flatnonzero(vocabulary.special).tolist() == [0, 12, 13]


WORD_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "the", "##ing", "cat", "中", "!"]


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt"])
def test_word_pieces_are_shown_as_they_are(file, tmp_path, own_cache):
    from transformers import BertConfig, BertModel, BertTokenizer

    (tmp_path / "vocab.txt").write_text("\n".join(WORD_PIECES) + "\n")
    config = BertConfig(vocab_size=len(WORD_PIECES), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    model = BertModel(config)
    model.save_pretrained(tmp_path / "bert")
    if file == "tokenizer.json":
        BertTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "bert")
    else:
        shutil.copy(tmp_path / "vocab.txt", tmp_path / "bert" / "vocab.txt")
    assert (tmp_path / "bert" / file).is_file()

    vocabulary = load_vocabulary(str(tmp_path / "bert"))
    assert vocabulary.tokens == WORD_PIECES
    assert np.flatnonzero(vocabulary.special).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.array_equal(vocabulary.embeddings, model.get_input_embeddings().weight.detach().numpy())


# --- GGUF ------------------------------------------------------------------------------------------------------------


def write_gguf(path, architecture: str, rows: np.ndarray, tokens: list[str], kinds: list[int], quantisation=None):
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    data = rows if quantisation is None else gguf.quants.quantize(rows, quantisation)
    writer.add_tensor("token_embd.weight", data, raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


@pytest.mark.parametrize(("architecture", "scale"), [("llama", 1.0), ("gemma2", 8.0), ("gemma3", 8.0)])
def test_a_gguf_files_rows_and_tokens_are_read(architecture, scale, tmp_path, own_cache):
    rows = np.random.default_rng(3).normal(size=(6, 64)).astype(np.float16)
    tokens, kinds = ["<unk>", "</s>", "<0xE4>", "▁the", "中", "<unused7>"], [2, 3, 6, 1, 1, 5]
    vocabulary = load_vocabulary(write_gguf(tmp_path / "model.gguf", architecture, rows, tokens, kinds))
    np.testing.assert_allclose(vocabulary.embeddings, rows.astype(np.float32) * scale, rtol=1e-6)
    assert vocabulary.tokens == ["<unk>", "</s>", "<0xE4>", " the", "中", "<unused7>"]
    assert vocabulary.special.tolist() == [True, True, False, False, False, True]


def test_a_quantised_gguf_is_within_half_a_step_of_what_was_quantised(tmp_path, own_cache):
    from gguf import GGMLQuantizationType

    rows = np.random.default_rng(4).normal(size=(9000, 64)).astype(np.float32)
    path = write_gguf(tmp_path / "model.gguf", "llama", rows, [f"t{i}" for i in range(9000)], [1] * 9000, GGMLQuantizationType.Q8_0)
    steps = np.abs(rows.reshape(9000, 2, 32)).max(axis=2) / 127  # Q8_0: 32 values share a scale
    error = np.abs(load_vocabulary(path).embeddings - rows).reshape(9000, 2, 32)
    assert error.max() > 0
    assert (error <= 0.57 * steps[:, :, None]).all()  # half a step, and the scale itself is kept in float16


# --- The cache -------------------------------------------------------------------------------------------------------


def test_a_large_vocabulary_is_mapped(embedded_vocabulary):
    assert isinstance(embedded_vocabulary.embeddings, np.memmap)


def test_the_second_load_comes_from_the_cache_and_says_the_same(llama_folder, own_cache, monkeypatch):
    first = load_vocabulary(str(llama_folder))
    monkeypatch.setattr(
        "soft_prompt_explorer.analysis.models.vocabulary._open_folder", lambda folder: pytest.fail("the model was read again")
    )
    second = load_vocabulary(str(llama_folder))
    assert second.tokens == first.tokens
    for measure in ("embeddings", "special", "mean", "norms", "centred_norms"):
        assert np.array_equal(getattr(second, measure), getattr(first, measure))


def test_what_older_versions_kept_goes_when_a_vocabulary_is_made(llama_folder, own_cache):
    old = own_cache / "vocabularies" / "0123"
    old.mkdir(parents=True)
    for name in ("embeddings.npy", "tokens.json", "tokens-v1.parquet", "tokens-ab.faiss"):
        (old / name).touch()
    folder = load_vocabulary(str(llama_folder)).cache
    assert names_in(own_cache / "vocabularies") == [folder.name]
    assert names_in(folder) == ["embeddings.kept", "words.kept"]


@pytest.mark.parametrize("same_times", [False, True])
def test_a_changed_file_is_read_again(llama_folder, tmp_path, own_cache, same_times):
    folder = shutil.copytree(llama_folder, tmp_path / "model")
    weights = folder / "model.safetensors"
    load_vocabulary(str(folder))
    before = weights.stat()
    changed = {name: tensor + 1 for name, tensor in load_file(weights).items()}
    save_file(changed, weights, metadata={"format": "pt"})
    assert weights.stat().st_size == before.st_size
    if same_times:
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert np.array_equal(load_vocabulary(str(folder)).embeddings, changed["model.embed_tokens.weight"].numpy())


def test_a_model_that_cannot_be_read_leaves_nothing_in_the_cache(llama_folder, tmp_path, own_cache):
    folder = shutil.copytree(llama_folder, tmp_path / "model")
    save_file({"model.embed_tokens.weight": torch.full((300, 4), torch.nan)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="NaN"):
        load_vocabulary(str(folder))
    assert [path for path in own_cache.rglob("*") if path.is_file()] == []


# --- Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"{}"),
        ("model.safetensors", b""),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        ("model.safetensors.index.json", b"{"),
        ("model.safetensors.index.json", b'{"weight_map": {"model.embed_tokens.weight": "missing.safetensors"}}'),
        ("model.safetensors.index.json", b"{}"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:12].decode(),
)
def test_a_damaged_folder_is_refused_in_one_sentence(file, content, llama_folder, tmp_path, own_cache):
    folder = shutil.copytree(llama_folder, tmp_path / "model")
    (folder / file).write_bytes(content)
    with pytest.raises(ModelError) as refusal:
        load_vocabulary(str(folder))
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("file", ["tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(file, llama_folder, tmp_path, own_cache):
    folder = shutil.copytree(llama_folder, tmp_path / "model")
    (folder / file).unlink()
    with pytest.raises(ModelError, match=file.split(".")[-1]):
        load_vocabulary(str(folder))


def test_weights_in_a_pickle_are_refused_and_not_run(llama_folder, tmp_path, own_cache):
    folder = shutil.copytree(llama_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": torch.zeros(300, 4)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_vocabulary(str(folder))


@pytest.mark.parametrize("kept", [0, 10, 30, 100, 200, 300, -20_000, -1])
def test_a_truncated_gguf_is_refused_in_one_sentence(kept, tmp_path, own_cache):
    rows = np.ones((200, 64), dtype=np.float32)
    whole = Path(write_gguf(tmp_path / "whole.gguf", "llama", rows, [f"t{i}" for i in range(200)], [1] * 200)).read_bytes()
    (tmp_path / "model.gguf").write_bytes(whole[:kept])
    with pytest.raises(ModelError) as refusal:
        load_vocabulary(str(tmp_path / "model.gguf"))
    assert str(refusal.value).isprintable()


def test_a_text_file_named_gguf_is_refused(tmp_path, own_cache):
    (tmp_path / "model.gguf").write_text("not a model at all, " * 50)
    with pytest.raises(ModelError, match="GGUF"):
        load_vocabulary(str(tmp_path / "model.gguf"))


def test_tokens_and_rows_must_be_as_many():
    with pytest.raises(ModelError, match="2 tokens"):
        Vocabulary.from_embeddings(["a", "b"], np.zeros((3, 4), dtype=np.float32))


def test_a_checkpoint_without_input_embeddings_is_refused():
    with pytest.raises(ModelError, match="No input embeddings among the checkpoint's 2 tensors"):
        embedding_tensor_name(["lm_head.weight", "model.layers.0.mlp.up_proj.weight"])


# --- How a token is shown --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" word", " word"),
        ("\n", "\\n"),
        ("\t\r", "\\t\\r"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u200b", "\\u200b"),
        ("\u202eabc", "\\u202eabc"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("\\n", "\\\\n"),
        (b"\xe4\xb8", "<0xE4><0xB8>"),
        (b"\xe4\xb8\xad", "中"),
        (b"\x00", "\\x00"),
        ("", ""),
    ],
)
def test_a_token_is_shown_without_unprintable_characters(token, shown):
    assert printable(token) == shown
    assert printable(token).isprintable()
