"""Of every family of models, the rows that are read are what its first layer receives."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from soft_prompt_explorer.analysis.models.tensor_names import embedding_tensor_name
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from tests.support.tiny_models import embedding_rows, saved

ROWS = 300


def small_models() -> dict:
    """One small configuration a family of those that keep, scale, project or name their input embeddings in a way of their own."""
    import transformers as t

    rows = {"vocab_size": ROWS, "pad_token_id": 0}
    width = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, **rows}
    bert_like = {"intermediate_size": 32, **width}
    llama_like = {"num_key_value_heads": 2, "head_dim": 8, **bert_like}
    opt_like = {"ffn_dim": 32, **width}
    bart_like = {
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "decoder_start_token_id": 0, **rows,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4,
    }  # fmt: skip
    return {
        "llama": t.LlamaConfig(**llama_like),
        "qwen2": t.Qwen2Config(**llama_like),
        "qwen3": t.Qwen3Config(**llama_like),
        "cohere": t.CohereConfig(**llama_like),
        "gemma": t.GemmaConfig(**llama_like),
        "gemma2": t.Gemma2Config(**llama_like),
        "gemma3": t.Gemma3TextConfig(**llama_like),
        "gemma3-with-vision": t.Gemma3Config(
            text_config=llama_like, vision_config=vision, image_token_index=ROWS - 1, mm_tokens_per_image=4, pad_token_id=0
        ),
        "paligemma": t.PaliGemmaConfig(
            text_config={"model_type": "gemma", **llama_like},
            vision_config={"model_type": "siglip_vision_model", "projection_dim": 16, **vision},
            image_token_index=ROWS - 1,
            projection_dim=16,
        ),
        "vaultgemma": t.VaultGemmaConfig(**llama_like),
        "recurrentgemma": t.RecurrentGemmaConfig(num_key_value_heads=2, lru_width=16, block_types=["attention"], **bert_like),
        "granite": t.GraniteConfig(embedding_multiplier=12.0, **llama_like),
        "minicpm3": t.MiniCPM3Config(
            scale_emb=12, q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, **bert_like
        ),
        "falcon-h1": t.FalconH1Config(
            embedding_multiplier=5.5, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1, **llama_like
        ),
        "bert": t.BertConfig(**bert_like),
        "albert": t.AlbertConfig(embedding_size=8, **bert_like),
        "gpt2": t.GPT2Config(n_embd=16, n_layer=1, n_head=2, **rows),
        "gpt-neox": t.GPTNeoXConfig(**bert_like),
        "opt": t.OPTConfig(word_embed_proj_dim=16, **opt_like),
        "opt-projected": t.OPTConfig(word_embed_proj_dim=8, **opt_like),
        "bloom": t.BloomConfig(hidden_size=16, n_layer=1, n_head=2, **rows),
        "mamba": t.MambaConfig(hidden_size=16, state_size=4, num_hidden_layers=1, **rows),
        "t5": t.T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0, **rows),
        "t5gemma": t.T5GemmaConfig(encoder=llama_like, decoder=llama_like, **rows),
        "bart": t.BartConfig(**bart_like),
        "bart-scaled": t.BartConfig(scale_embedding=True, **bart_like),
        "pegasus-scaled": t.PegasusConfig(scale_embedding=True, **bart_like),
        "marian-scaled": t.MarianConfig(scale_embedding=True, **bart_like),
        "marian-two-languages": t.MarianConfig(share_encoder_decoder_embeddings=False, tie_word_embeddings=False, **bart_like),
        "fsmt": t.FSMTConfig(
            langs=["de", "en"], src_vocab_size=ROWS, tgt_vocab_size=ROWS, scale_embedding=True, tie_word_embeddings=False, **bart_like
        ),
    }


# These scale outside the embedding layer, but only what they have looked up by its id.
SCALED_OUTSIDE_THE_LAYER = {"falcon-h1": 5.5, "pegasus-scaled": 4.0, "marian-scaled": 4.0}


def small_model(config, *, head: bool):
    """A model of random weights, in eval mode; with a head it gives logits, without one hidden states."""
    import transformers as t

    heads = (t.AutoModelForSeq2SeqLM, t.AutoModelForMaskedLM, t.AutoModelForCausalLM, t.AutoModelForImageTextToText)
    headed = next(auto for auto in heads if type(config) in auto._model_mapping)
    torch.manual_seed(2)
    model = (headed if head else t.AutoModel).from_config(config).eval().requires_grad_(False)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return model


@pytest.mark.parametrize("head", [False, True], ids=["bare", "with-head"])
@pytest.mark.parametrize("family", small_models())
def test_the_rows_of_a_family_do_the_same_as_their_ids(family, head, tmp_path, own_cache, byte_level_tokenizer):
    model = small_model(small_models()[family], head=head)
    vocabulary = load_vocabulary(str(saved(model, byte_level_tokenizer, tmp_path / family)))
    assert len(vocabulary) == ROWS
    np.testing.assert_allclose(vocabulary.embeddings, embedding_rows(model) * SCALED_OUTSIDE_THE_LAYER.get(family, 1.0), rtol=1e-6)

    ids = torch.randint(1, 250, (2, 7), generator=torch.Generator().manual_seed(3))
    rows = torch.from_numpy(vocabulary.embeddings[ids.numpy()])
    rest = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    by_id = model(input_ids=ids, **rest)[0]
    torch.testing.assert_close(model(input_ids=None, inputs_embeds=rows, **rest)[0], by_id, rtol=1e-4, atol=1e-5)
    if family != "bloom":  # it normalises its rows before the first layer
        by_doubled = model(input_ids=None, inputs_embeds=2 * rows, **rest)[0]
        assert (by_doubled - by_id).abs().max() > 1e-3, "a wrong scale would show"


@pytest.mark.parametrize(("family", "narrow"), [("opt-projected", 8), ("albert", 8)])
def test_rows_that_a_model_projects_are_read_before_that(family, narrow, tmp_path, own_cache, byte_level_tokenizer):
    config = small_models()[family]
    vocabulary = load_vocabulary(str(saved(small_model(config, head=True), byte_level_tokenizer, tmp_path / family)))
    assert vocabulary.width == narrow < config.hidden_size


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt-neox", "opt", "bert", "gemma2", "bart"])
def test_the_rows_are_the_inputs_whether_or_not_the_head_shares_them(family, tied, tmp_path, own_cache, byte_level_tokenizer):
    config = small_models()[family]
    config.tie_word_embeddings = tied
    model = small_model(config, head=True)
    vocabulary = load_vocabulary(str(saved(model, byte_level_tokenizer, tmp_path / family)))
    layer = model.model.encoder.embed_tokens if family == "bart" else model.get_input_embeddings()
    np.testing.assert_allclose(vocabulary.embeddings, layer(torch.arange(ROWS)), rtol=1e-6)
    assert np.array_equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight) == tied


@pytest.mark.parametrize("copies", [(), ("encoder",), ("encoder", "decoder"), ("decoder",)], ids=str)
def test_a_t5_may_hold_its_shared_rows_alone_or_with_copies(copies, tmp_path, own_cache, byte_level_tokenizer):
    model = small_model(small_models()["t5"], head=True)
    folder = saved(model, byte_level_tokenizer, tmp_path / "t5")
    tensors = load_file(folder / "model.safetensors")
    assert "shared.weight" in tensors
    tensors |= {f"{part}.embed_tokens.weight": tensors["shared.weight"].clone() for part in copies}
    save_file(tensors, folder / "model.safetensors")
    assert np.array_equal(load_vocabulary(str(folder)).embeddings, embedding_rows(model))


@pytest.mark.parametrize(
    ("right", "others"),
    [
        ("model.embed_tokens.weight", ["lm_head.weight", "model.layers.61.embed_tokens.weight"]),  # DeepSeek V3 predicts two tokens
        ("language_model.model.embed_tokens.weight", ["vision_tower.vision_model.embeddings.position_embedding.weight"]),
        ("model.language_model.embed_tokens.weight", ["model.vision_tower.embeddings.patch_embedding.weight"]),
        ("model.language_model.embed_tokens.weight", ["model.language_model.embed_tokens_per_layer.weight"]),
        ("bert.embeddings.word_embeddings.weight", ["bert.embeddings.position_embeddings.weight", "cls.predictions.decoder.weight"]),
        ("bert.embeddings.word_embeddings.weight", ["bert.embeddings.token_type_embeddings.weight"]),
        ("shared.weight", ["decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "lm_head.weight"]),
        ("shared.weight", ["decoder.embed_tokens.weight"]),
        ("model.encoder.embed_tokens.weight", ["model.decoder.embed_tokens.weight", "model.encoder.embed_positions.weight"]),
        ("model.encoder.text_model.embed_tokens.weight", ["model.decoder.embed_tokens.weight"]),
        ("encoder.embeddings.word_embeddings.weight", ["decoder.embeddings.word_embeddings.weight"]),
        ("model.decoder.embed_tokens.weight", ["model.decoder.embed_positions.weight", "model.decoder.project_in.weight"]),
        ("language_model.model.decoder.embed_tokens.weight", ["qformer.embeddings.word_embeddings.weight"]),
        ("thinker.model.embed_tokens.weight", ["talker.model.embed_tokens.weight", "token2wav.code2wav_dit_model.text_embed.codec_embed.weight"]),
        ("wte.weight", ["wpe.weight", "h.0.attn.c_attn.weight"]),
        ("backbone.embeddings.weight", ["backbone.layers.0.mixer.in_proj.weight", "lm_head.weight"]),
    ],
)  # fmt: skip
def test_the_input_embeddings_are_told_from_tensors_of_like_names(right, others):
    assert embedding_tensor_name([right, *others]) == right
    assert embedding_tensor_name([*others, right]) == right


def test_tokens_beyond_the_rows_are_left_out(tmp_path, own_cache, byte_level_tokenizer):
    size = len(byte_level_tokenizer) - 7
    config = small_models()["llama"]
    config.vocab_size = size
    model = small_model(config, head=True)
    vocabulary = load_vocabulary(str(saved(model, byte_level_tokenizer, tmp_path / "llama")))
    assert len(vocabulary) == len(vocabulary.tokens) == len(vocabulary.special) == size
    assert np.array_equal(vocabulary.embeddings, embedding_rows(model))
