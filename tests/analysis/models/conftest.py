"""A hub on this machine, and models to serve."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.hub import running_hub
from tests.support.places import names_in
from tests.support.tiny_models import embedding_rows, random_llama, saved

LLAMA_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="session")
def wide_llama(byte_level_tokenizer):
    """A Llama of 33 MB, 5 MB of them input embeddings, so that two percent of those are more than a header."""
    return random_llama(byte_level_tokenizer, hidden_size=4096, intermediate_size=512, num_hidden_layers=1, head_dim=8)


@pytest.fixture(scope="session")
def wide_folder(wide_llama, byte_level_tokenizer, tmp_path_factory) -> Path:
    folder = saved(wide_llama, byte_level_tokenizer, tmp_path_factory.mktemp("models") / "wide")
    assert "model.safetensors" in names_in(folder)
    return folder


@pytest.fixture(scope="session")
def wide_sharded_folder(wide_llama, byte_level_tokenizer, tmp_path_factory) -> Path:
    folder = saved(wide_llama, byte_level_tokenizer, tmp_path_factory.mktemp("models") / "wide-sharded", max_shard_size="16MB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="session")
def wide_rows(wide_llama) -> np.ndarray:
    """What the model's own embedding layer answers: the reference for everything that is read here."""
    return embedding_rows(wide_llama)


@pytest.fixture(scope="session")
def llama_gguf(tiny_llama, byte_level_tokenizer, tmp_path_factory) -> Path:
    """The tiny Llama as a `.gguf` file of float32 tensors, its tokenizer in it."""
    import gguf

    path, config = tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny_llama.config
    writer = gguf.GGUFWriter(path, "llama")
    by_id = {token_id: token for token, token_id in byte_level_tokenizer.get_vocab().items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([by_id.get(i, f"<unused{i}>") for i in range(config.vocab_size)])
    writer.add_token_types([3] + [1] * (config.vocab_size - 1))
    merges = json.loads(byte_level_tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id):
        add(0)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    for name, tensor in tiny_llama.state_dict().items():
        name = name.removeprefix("model.").removesuffix(".weight")
        if name.startswith("layers."):
            _, layer, part = name.split(".", 2)
            name = f"blk.{layer}.{LLAMA_TENSORS[part]}"
        else:
            name = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}[name]
        writer.add_tensor(f"{name}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
