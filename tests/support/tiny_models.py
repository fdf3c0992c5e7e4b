"""Tiny models of random weights, and what their own code makes of a token."""

from pathlib import Path

import numpy as np


def random_llama(tokenizer, **sizes):
    """A Llama of random weights, always the same for the same sizes, with five more rows than its tokenizer has tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer) + 5, tie_word_embeddings=False, **heads | sizes))


def configs(rows: int) -> dict:
    """One small configuration of each of eight families."""
    import transformers as t

    words = {"vocab_size": rows, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, **words}
    bert_like = {"intermediate_size": 32, **small}
    llama_like = {"num_key_value_heads": 1, "head_dim": 8, **bert_like}
    return {
        "gpt2": t.GPT2Config(n_embd=16, n_layer=2, n_head=2, **words),
        "gpt_neox": t.GPTNeoXConfig(**bert_like),
        "falcon": t.FalconConfig(new_decoder_architecture=False, multi_query=True, **small),
        "bloom": t.BloomConfig(hidden_size=16, n_layer=2, n_head=2, **words),
        "opt": t.OPTConfig(ffn_dim=32, word_embed_proj_dim=16, max_position_embeddings=256, **small),
        "qwen2": t.Qwen2Config(**llama_like),
        "gemma3_text": t.Gemma3TextConfig(**llama_like),
        "llama": t.LlamaConfig(**llama_like),
    }


FAMILIES = ("gpt2", "gpt_neox", "falcon", "bloom", "opt", "qwen2", "gemma3_text", "llama")


def model_of(family: str, tokenizer):
    """A model of one of them, of random weights, with five more rows than its tokenizer has tokens."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(configs(len(tokenizer) + 5)[family])


def saved(model, tokenizer, folder: Path, **options) -> Path:
    """The folder of a model and its tokenizer, as save_pretrained writes them."""
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def embedding_rows(model) -> np.ndarray:
    """What the transformers model's own embedding layer answers for every token id."""
    import torch

    layer = model.get_input_embeddings()
    with torch.no_grad():
        return layer(torch.arange(layer.num_embeddings)).float().numpy()
