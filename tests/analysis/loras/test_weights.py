"""Each module of an adapter is put beside the very weight that PEFT changed, whichever way round and under whatever name the model keeps it."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from soft_prompt_explorer.analysis.adapters import load_adapter, load_lora
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.loras.base_weights import against_base
from soft_prompt_explorer.analysis.loras.weights import source_of, with_base
from tests.support.peft_types import config_of, moved

SIZES = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}


def llama(**options):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{"vocab_size": 30} | SIZES | options))


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=12, n_layer=2, n_head=2, n_positions=16))


def bert():
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(vocab_size=30, **{name: size for name, size in SIZES.items() if name != "num_key_value_heads"}))


CASES = {
    "GPT-2": (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "a tied head": (lambda: llama(tie_word_embeddings=True), {"target_modules": ["q_proj", "lm_head"]}),
    "a head of its own": (lambda: llama(tie_word_embeddings=False), {"target_modules": ["q_proj", "lm_head"]}),
    "embeddings": (lambda: llama(tie_word_embeddings=False), {"target_modules": ["q_proj", "embed_tokens"]}),
    "as many words as the model is wide": (lambda: llama(vocab_size=12), {"target_modules": ["embed_tokens"]}),
    "replicated layers": (lambda: llama(), {"target_modules": ["q_proj"], "layer_replication": [[0, 2], [1, 2], [0, 1]]}),
    "a turned weight of a family that is not known": (gpt2, {"target_modules": ["c_proj"], "fan_in_fan_out": True}),
    "an encoder and its tied head": (bert, {"target_modules": ["query", "predictions.decoder"]}),
    "an encoder": (bert, {"target_modules": ["query", "dense"]}),
}


def weights_and_changes(model, folder):
    """Of every module that PEFT changed, its weight before and what PEFT merges into it, both (out, in)."""
    peft_model = PeftModel.from_pretrained(model, folder)
    found = {}
    for path, layer in peft_model.base_model.model.named_modules():
        if hasattr(layer, "lora_A") and hasattr(layer, "get_delta_weight"):
            weight, delta = layer.get_base_layer().weight.detach(), layer.get_delta_weight("default").detach()
            turned = getattr(layer, "fan_in_fan_out", False) or isinstance(layer.get_base_layer(), torch.nn.Embedding)
            found[path] = [(each.T if turned else each).double().numpy() for each in (weight, delta)]
    return found


@pytest.mark.parametrize("name", CASES)
def test_every_module_stands_beside_the_weight_that_peft_changed(name, tmp_path, own_cache):
    make, options = CASES[name]
    make().save_pretrained(tmp_path / "base")
    if "not known" in name:
        (tmp_path / "base" / "config.json").write_text('{"model_type": "of_my_own"}')
    changed = get_peft_model(make(), LoraConfig(r=2, **options))
    moved(changed)
    changed.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    expected = weights_and_changes(make(), tmp_path / "adapter")
    table = against_base(load_lora(tmp_path / "adapter"), str(tmp_path / "base")).set_index("module")
    assert set(table.index) == set(expected)
    for path, (weight, delta) in expected.items():
        u, values, vt = np.linalg.svd(delta)
        used = int((values > 1e-6 * values[0]).sum())
        assert table.loc[path, "relative_norm"] == pytest.approx(np.linalg.norm(delta) / np.linalg.norm(weight), rel=1e-4)
        projected = np.linalg.norm(u[:, :used].T @ weight @ vt[:used].T)
        assert table.loc[path, "amplification"] == pytest.approx(np.linalg.norm(delta) / projected, rel=1e-3)


def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    return MixtralForCausalLM(MixtralConfig(vocab_size=30, num_local_experts=3, **SIZES | {"intermediate_size": 12}))


def gpt_oss():
    from transformers import GptOssConfig, GptOssForCausalLM

    torch.manual_seed(0)
    sizes = SIZES | {"intermediate_size": 12, "head_dim": 6}
    return GptOssForCausalLM(GptOssConfig(vocab_size=30, num_local_experts=3, num_experts_per_tok=2, **sizes))


@pytest.mark.parametrize(("make", "is_turned"), [(mixtral, False), (gpt_oss, True)])
def test_every_expert_stands_beside_its_own_weight(make, is_turned, tmp_path, own_cache):
    make().save_pretrained(tmp_path / "base")
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    changed = get_peft_model(make(), LoraConfig(r=2, target_modules=[], target_parameters=targets))
    moved(changed)
    changed.save_pretrained(tmp_path / "adapter")
    before = {name: weight.detach().double().numpy() for name, weight in make().named_parameters()}
    merged = PeftModel.from_pretrained(make(), tmp_path / "adapter").merge_and_unload()
    table = against_base(load_lora(tmp_path / "adapter"), str(tmp_path / "base")).set_index("module")
    assert len(table) == 2 * 2 * 3
    for name, weight in merged.named_parameters():
        if not name.endswith(tuple(targets)):
            continue
        owner, _, parameter = name.rpartition(".")
        for i, (after, own) in enumerate(zip(weight.detach().double().numpy(), before[name], strict=True)):
            delta, own = (each.T if is_turned else each for each in (after - own, own))
            u, _, vt = np.linalg.svd(delta)
            row = table.loc[f"{owner}.{i}.{parameter}"]
            assert row["relative_norm"] == pytest.approx(np.linalg.norm(delta) / np.linalg.norm(own), rel=1e-4)
            projected = np.linalg.norm(u[:, :2].T @ own @ vt[:2].T)
            assert row["amplification"] == pytest.approx(np.linalg.norm(delta) / projected, rel=1e-2)


def test_a_turned_weight_is_multiplied_the_right_way_round(tmp_path, own_cache):
    gpt2().save_pretrained(tmp_path / "base")
    before = {name: weight.detach().double().numpy() for name, weight in gpt2().named_parameters()}
    changed = get_peft_model(gpt2(), config_of("IA3", target_modules=["c_attn", "c_fc"], feedforward_modules=["c_fc"], fan_in_fan_out=True))
    moved(changed)
    changed.save_pretrained(tmp_path / "adapter")
    adapter = with_base(load_adapter(tmp_path / "adapter"), str(tmp_path / "base"))
    after = {name: weight.detach().double().numpy() for name, weight in changed.merge_and_unload().named_parameters()}
    assert len(adapter) == 4
    for path, factors in adapter.modules.items():
        a, b = factors.both()
        np.testing.assert_allclose((b @ a).T, after[f"{path}.weight"] - before[f"{path}.weight"], atol=1e-6)


def test_updates_that_are_made_of_a_model_are_refused_another_ones(tmp_path, own_cache):
    gpt2().save_pretrained(tmp_path / "gpt2")
    changed = get_peft_model(llama(), config_of("IA3"))
    changed.save_pretrained(tmp_path / "adapter")
    with pytest.raises(InputError, match=r"has no weight model\.layers\.0.*name the model that the adapter was trained on"):
        with_base(load_adapter(tmp_path / "adapter"), str(tmp_path / "gpt2"))


@pytest.mark.parametrize(
    ("listed", "layer", "source"),
    [
        ([[0, 4], [2, 5]], 3, 3),
        ([[0, 4], [2, 5]], 4, 2),
        ([[0, 4], [2, 5]], 6, 4),
        ([[0, 4], [2, 5]], 7, None),
        ([[0, 2**62]], 10**8, 10**8),  # as many layers as nobody has are not listed one by one
        ([[2, 0]], 0, None),
        ([[0, 1.5]], 0, None),
        ("0-4", 0, None),
        (None, 9, 9),
    ],
)
def test_the_source_of_a_replicated_layer(listed, layer, source):
    found = source_of(f"model.layers.{layer}.mlp.up_proj", {"layer_replication": listed})
    assert found == (None if source is None else f"model.layers.{source}.mlp.up_proj")
