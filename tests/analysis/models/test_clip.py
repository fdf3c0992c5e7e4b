"""The text encoders of CLIP as vocabularies: their rows, and their words without the mark at the end."""

import json

import numpy as np
import pytest
import torch

from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A tiny text encoder with a tokenizer that cuts words as CLIP's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    trainer = trainers.BpeTrainer(vocab_size=120, end_of_word_suffix="</w>", special_tokens=["<unk>", "<kept></w>"])
    tokenizer.train_from_iterator(["ein Bild von einem Hund", "ein Bild von einer Tür"] * 30, trainer)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    folder = tmp_path_factory.mktemp("clip")
    CLIPTextModel(CLIPTextConfig(vocab_size=tokenizer.get_vocab_size(), **sizes)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_the_rows_and_words_of_a_clip_text_encoder_are_read(clip_folder, own_cache):
    from transformers import CLIPTextModel

    vocabulary = load_vocabulary(str(clip_folder))
    rows = CLIPTextModel.from_pretrained(clip_folder).get_input_embeddings().weight.detach().numpy()
    assert np.array_equal(vocabulary.embeddings, rows)
    table = json.loads((clip_folder / "tokenizer.json").read_text())["model"]["vocab"]
    for word in ("Bild", "Hund", "ein"):
        assert vocabulary.tokens[table[f"{word}</w>"]] == word
    assert "Tür" in vocabulary.tokens
    assert vocabulary.tokens[table["<kept></w>"]] == "<kept></w>", "an added token stands for itself"
    assert [token for token in vocabulary.tokens if token.endswith("</w>")] == ["<kept></w>"]


def test_words_of_textual_inversion_are_read_against_clip(clip_folder, own_cache, tmp_path, command):
    vocabulary = load_vocabulary(str(clip_folder))
    table = json.loads((clip_folder / "tokenizer.json").read_text())["model"]["vocab"]
    rows = torch.from_numpy(vocabulary.embeddings[[table["Bild</w>"], table["Hund</w>"]]].copy())
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": rows}, "name": "mine"}, tmp_path / "embedding.pt")
    done = command("neighbours", tmp_path / "embedding.pt", "--model", clip_folder, "--top-k", "1", "--format", "json")
    assert [row["token"] for row in json.loads(done.out)] == ["Bild", "Hund"]
