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
