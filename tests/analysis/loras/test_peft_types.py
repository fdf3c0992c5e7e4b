"""Every type in PEFT's own mapping: made by PEFT, saved, read, and its ΔW compared with what PEFT merges."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model

from soft_prompt_explorer.analysis.adapters import AdapterError, LoraAdapter, SoftPrompt, load_adapter
from soft_prompt_explorer.analysis.adapters.delta import Weight
from soft_prompt_explorer.analysis.loras.ranks import health, singular_values, spectra, values_of
from soft_prompt_explorer.analysis.loras.weights import with_base
from soft_prompt_explorer.analysis.report.inspection import inspect, modules
from tests.support import peft_types
from tests.support.peft_types import OPTIONS, TARGETS, TOKENS, TYPES, answers, made, merged

PROMPTS = {
    "PROMPT_TUNING": TOKENS,
    "MULTITASK_PROMPT_TUNING": TOKENS,
    "P_TUNING": TOKENS,
    "PREFIX_TUNING": TOKENS,
    "CARTRIDGE": TOKENS,
    "CPT": 3,
}
OWN_ROWS = ("ADAPTION_PROMPT", "TRAINABLE_TOKENS")
NOT_READ = {"SHADOW": "runs beside the model", "XLORA": "a router that mixes LoRAs"}
UNMERGED = ("BEFT", "LILY", "POLY")  # which PEFT cannot merge into a model without biases, or at all
DELTAS = sorted(set(OPTIONS) - set(PROMPTS) - set(OWN_ROWS) - set(NOT_READ) - set(UNMERGED))
CLOSE = 1e-6  # of the largest singular value


@pytest.fixture
def load(llama_folder):
    """The tiny Llama from its folder, anew each time."""
    from transformers import AutoModelForCausalLM

    return lambda: AutoModelForCausalLM.from_pretrained(llama_folder)


def update(factors) -> np.ndarray:
    a, b = factors.both()
    return factors.scaling * b.astype(np.float64) @ a.astype(np.float64)


def check_is(factors, expected: np.ndarray) -> None:
    expected = expected.reshape(len(expected), -1)
    values = np.linalg.svd(expected, compute_uv=False)
    assert values[0] > 0
    assert (factors.out_features, factors.in_features) == expected.shape
    assert np.abs(update(factors) - expected).max() < CLOSE * values[0]
    found = singular_values(factors)
    assert np.abs(np.pad(found, (0, len(values) - len(found))) - values).max() < CLOSE * values[0]


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_is_made_here_and_read_or_told_for_what_it_is(kind, load, tmp_path):
    folder = tmp_path / "adapter"
    if kind == "XLORA":
        peft_types.mixture_of_loras(load, folder)
    else:
        assert kind in OPTIONS, f"PEFT makes {kind}, which no test here makes: read it, or say what it is"
        made(load(), kind, folder)
    if kind in NOT_READ:
        with pytest.raises(AdapterError, match=NOT_READ[kind]):
            load_adapter(folder)
        return
    adapter = load_adapter(folder)
    assert adapter.method == kind
    assert len(adapter) > 0
    notes = inspect([folder])["notes"].item()
    if isinstance(adapter, LoraAdapter):
        assert kind in (*DELTAS, *UNMERGED)
        assert adapter.kind == ("lora" if kind in ("LORA", "ADALORA") else "delta")
        assert adapter.saved_modules == ()
        assert kind == "LORA" or "ΔW is" in notes
        assert len(modules(adapter)) == len(adapter)


def test_at_least_38_types_are_read():
    assert len([kind for kind in TYPES if kind not in NOT_READ]) >= 38


@pytest.mark.parametrize("kind", sorted(PROMPTS))
def test_the_rows_of_a_prompt_are_those_that_peft_saves(kind, load, tmp_path):
    model = made(load(), kind, tmp_path / "adapter")
    prompt = load_adapter(tmp_path / "adapter")
    assert len(prompt) == PROMPTS[kind]
    assert np.array_equal(prompt.embeddings, model.get_prompt_embedding_to_save("default").detach().numpy())
    assert prompt.kind == ("prefix" if kind in ("PREFIX_TUNING", "CARTRIDGE") else "soft_prompt")


@pytest.mark.parametrize("kind", DELTAS)
def test_a_spectrum_is_that_of_what_peft_merges(kind, load, llama_folder, own_cache, tmp_path):
    made(load(), kind, tmp_path / "adapter")
    expected = merged(load, kind, tmp_path / "adapter")
    adapter = with_base(load_adapter(tmp_path / "adapter"), str(llama_folder))
    assert {f"{path}.weight" for path in adapter.modules} == set(expected)
    for path, factors in adapter.modules.items():
        check_is(factors, expected[f"{path}.weight"].numpy())
    table = spectra(adapter)
    assert (table["spectral_norm"] > 0).all()
    assert [len(values_of(row)) for _, row in table.iterrows()] == table[["rank", "out_features", "in_features"]].min(axis=1).tolist()
    assert not health(adapter, table)["problem"].eq("never trained").any()


# Settings that make ΔW otherwise than the ones above do.
VARIATIONS = [
    ("ADALORA", {"init_r": 6, "lora_alpha": 0}),
    ("BOFT", {"boft_block_size": 0, "boft_block_num": 2}),
    ("DEFT", {"decomposition_method": "qr"}),
    ("DEFT", {"para": True}),
    ("GLORA", {"config_A_B": "vector"}),
    ("GLORA", {"config_A_B": "constant"}),
    ("GRALORA", {"hybrid_r": 0}),
    ("HRA", {"apply_GS": True}),
    ("IA3", {"feedforward_modules": []}),
    ("LOHA", {"r": 5}),
    ("LOHA", {"r": 2, "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"q_proj": 5}}),
    ("LOKR", {"r": 1}),
    ("LOKR", {"r": 1, "decompose_both": True, "decompose_factor": 8}),
    ("LOKR", {"r": 64, "alpha": 3, "rank_pattern": {"q_proj": 32}}),
    ("LORA", {"use_bdlora": {"target_modules_bd_a": ["q_proj"], "target_modules_bd_b": ["down_proj"], "nblocks": 2}, "r": 4}),
    ("MISS", {"init_weights": "bat"}),
    ("MISS", {"init_weights": "mini", "mini_r": 4}),
    ("MISS", {"r": 7}),
    ("OFT", {"use_cayley_neumann": False}),
    ("OFT", {"num_cayley_neumann_terms": 2}),
    ("OFT", {"num_cayley_neumann_terms": 3}),
    ("OFT", {"block_share": True}),
    ("OFT", {"coft": True, "eps": 0.1}),
    ("PEANUT", {"act_fn": "gelu", "depth": 0}),
    ("PSOFT", {"use_cayley_neumann": True, "cayley_neumann_eps": 0.5}),
    ("PSOFT", {"ab_svd_init": "pissa_init"}),
    ("PSOFT", {"psoft_svd": "lowrank"}),
    ("PSOFT", {"psoft_orth": False}),
    ("PSOFT", {"psoft_mag_b": False, "psoft_mag_a": False}),
    ("ROAD", {"variant": "road_2"}),
    ("ROAD", {"variant": "road_4"}),
    ("SUPERTUNING", {"r": None, "lora_alpha": None}),
    ("TINYLORA", {"weight_tying": 0.0}),
    ("TINYLORA", {"weight_tying": 1.0}),
    ("VBLORA", {"save_only_topk_weights": True}),
    ("WAVEFT", {"wavelet_family": "db3"}),
    ("WAVEFT", {"use_idwt": False}),
]


@pytest.mark.parametrize(("kind", "options"), VARIATIONS, ids=[f"{kind}-{options}" for kind, options in VARIATIONS])
def test_a_variation_is_read_as_peft_merges_it(kind, options, load, llama_folder, own_cache, tmp_path):
    made(load(), kind, tmp_path / "adapter", **options)
    expected = merged(load, kind, tmp_path / "adapter")
    adapter = with_base(load_adapter(tmp_path / "adapter"), str(llama_folder))
    assert {f"{path}.weight" for path in adapter.modules} == set(expected)
    for path, factors in adapter.modules.items():
        check_is(factors, expected[f"{path}.weight"].numpy())


def merged_convolutions(kind, folder, **options):
    """What PEFT merges into convolutions, (out, in · kernel), and the adapter as it is read, with their weights."""

    def base():
        torch.manual_seed(0)
        layers = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3), torch.nn.Conv2d(6, 8, 1), torch.nn.Conv1d(4, 6, 3))
        return layers.double()

    config = peft_types.config_of(kind, **{"target_modules": ["0", "1", "2"], "task_type": None} | options)
    model = get_peft_model(base(), config)
    peft_types.moved(model)
    model.save_pretrained(folder)
    model = PeftModel.from_pretrained(base(), folder, autocast_adapter_dtype=False)
    after = dict(model.double().merge_and_unload().named_parameters())
    weights = {name: weight.detach().numpy() for name, weight in base().named_parameters() if name.endswith("weight")}
    adapter = load_adapter(folder)
    for path, factors in adapter.modules.items():
        weight = weights[f"{path}.weight"]
        object.__setattr__(factors, "weight", lambda weight=weight: Weight(weight.reshape(len(weight), -1), None))
    return {path: after[f"{path}.weight"].detach().numpy() - weights[f"{path}.weight"] for path in adapter.modules}, adapter


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LOHA", {}),
        ("LOHA", {"use_effective_conv2d": True}),
        ("LOKR", {"r": 1}),
        ("LOKR", {"r": 8}),
        ("HIRA", {}),
        ("IA3", {"feedforward_modules": ["1"], "target_modules": ["0", "1"]}),
        ("IA3", {"feedforward_modules": [], "target_modules": ["0", "1"]}),
        ("OFT", {"oft_block_size": 2, "target_modules": ["0", "1"]}),
        ("HRA", {"r": 2, "target_modules": ["0", "1"]}),
        ("BOFT", {"boft_block_size": 2, "target_modules": ["0", "1"]}),
    ],
)
def test_a_convolution_counts_its_kernel_among_its_inputs(kind, options, tmp_path):
    expected, adapter = merged_convolutions(kind, tmp_path / "adapter", **options)
    assert len(expected) == len(options.get("target_modules", "012"))
    for path, factors in adapter.modules.items():
        check_is(factors, expected[path])


@pytest.mark.parametrize("kind", ["HIRA", "TINYLORA"])
def test_embeddings_are_changed_as_peft_merges_them(kind, load, llama_folder, own_cache, tmp_path):
    made(load(), kind, tmp_path / "adapter", target_modules=["embed_tokens"])
    expected = merged(load, kind, tmp_path / "adapter")
    adapter = with_base(load_adapter(tmp_path / "adapter"), str(llama_folder))
    check_is(adapter.modules["model.embed_tokens"], expected["model.embed_tokens.weight"].numpy())


def test_each_task_of_a_poly_and_each_expert_of_a_lily_is_a_module(load, tmp_path):
    poly = made(load(), "POLY", tmp_path / "poly")
    read = load_adapter(tmp_path / "poly")
    assert len(read) == len(TARGETS) * 2 * OPTIONS["POLY"]["n_tasks"]
    for path, factors in read.modules.items():
        owner, task, leaf = path.rsplit(".", 2)
        check_is(factors, answers(poly, f"{owner}.{leaf}", task_ids=torch.tensor([int(task)])).numpy().T)

    lily = made(load(), "LILY", tmp_path / "lily")
    read = load_adapter(tmp_path / "lily")
    for path in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        owner, leaf = path.rsplit(".", 1)
        layer = lily.base_model.model.get_submodule(path)
        hidden = layer.lily_A["default"].weight.detach()  # of each unit vector, as columns
        shares = torch.softmax(layer.lily_router["default"].weight.detach() @ hidden, dim=0)
        each = [torch.from_numpy(update(read.modules[f"{owner}.{i}.{leaf}"])) for i in range(2)]
        mixed = sum(expert * share for expert, share in zip(each, shares.double(), strict=True))
        assert np.allclose(mixed.numpy(), answers(lily, path).numpy().T, atol=1e-6)


def test_biases_alone_are_columns(load, tmp_path):
    model = made(load(), "BEFT", tmp_path / "adapter")
    path = "model.layers.0.self_attn.q_proj"
    factors = load_adapter(tmp_path / "adapter").modules[path]
    added = answers(model, path)  # the same for every input
    assert torch.allclose(added, added[:1].expand_as(added), atol=1e-6)
    assert np.allclose(update(factors)[:, 0], added[0].numpy(), atol=1e-6)


def test_a_butterfly_of_several_factors_is_the_product_that_peft_writes_down(load, tmp_path):
    """On a processor PEFT itself makes one factor alone, so this is its formula for several, by its own functions."""
    from peft.tuners.boft.layer import BOFTLayer
    from safetensors.torch import load_file, save_file

    made(load(), "BOFT", tmp_path / "adapter")
    path, factors = "model.layers.0.self_attn.q_proj", 2
    name = f"base_model.model.{path}.boft_R"
    generator = torch.Generator().manual_seed(3)
    stored = 0.3 * torch.randn(factors, 4, 4, 4, generator=generator, dtype=torch.float64)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    save_file(tensors | {name: stored}, tmp_path / "adapter" / "adapter_model.safetensors")
    turned = torch.eye(16, dtype=torch.float64)
    for i in range(factors):
        order = BOFTLayer.block_butterfly_perm(None, 16, 4 // 2**i, 2, factors - 1)
        arranged = BOFTLayer.perm2mat(None, order).double()
        turned = arranged @ torch.block_diag(*BOFTLayer.cayley_batch(None, stored[i])) @ arranged.T @ turned
    weight = load().get_submodule(path).weight.detach().double()
    expected = (turned @ weight.T).T * tensors[f"base_model.model.{path}.boft_s"].double() - weight
    read = load_adapter(tmp_path / "adapter").modules[path]
    a, b = replace(read, weight=lambda: Weight(weight.numpy(), None)).both()
    assert np.allclose(b @ a, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", ["VERA", "PVERA", "RANDLORA", "FROD", "TINYLORA"])
def test_what_was_saved_without_its_random_matrices_is_refused_with_the_way_out(kind, load, tmp_path):
    made(load(), kind, tmp_path / "adapter", save_projection=False)
    with pytest.raises(AdapterError, match="save it with save_projection"):
        load_adapter(tmp_path / "adapter")


def test_a_uni_lora_that_says_not_where_its_numbers_stand_is_refused_with_the_way_out(load, tmp_path):
    made(load(), "UNILORA", tmp_path / "adapter", save_indices=False)
    with pytest.raises(AdapterError, match="save it with save_indices"):
        load_adapter(tmp_path / "adapter")


def test_a_prompt_of_a_llama_adapter_is_told_as_what_it_is(load, tmp_path, command, llama_folder, own_cache):
    model = made(load(), "ADAPTION_PROMPT", tmp_path / "adapter")
    adapter = load_adapter(tmp_path / "adapter")
    assert isinstance(adapter, SoftPrompt)
    assert adapter.kind == "adaption_prompt"
    attentions = [layer.self_attn for layer in model.base_model.model.model.layers]
    assert adapter.parts == tuple((f"model.layers.{i}.self_attn", 3) for i in range(len(attentions)))
    for i, attention in enumerate(attentions):
        assert np.array_equal(adapter.embeddings[3 * i : 3 * i + 3], attention.adaption_prompt[0].detach().numpy())
        assert adapter.metadata["gates"][f"model.layers.{i}.self_attn"] == pytest.approx(attention.adaption_gate.item())
    refused = command("neighbours", tmp_path / "adapter", "--model", llama_folder)
    assert refused.status == 2
    assert "behind a gate and no input embeddings" in refused.err
    refused = command("lens", tmp_path / "adapter", "--model", llama_folder)
    assert refused.status == 2
    assert "inside each layer's attention" in refused.err


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("OFT", "is OFT, which is made of the weight that it changes"),
        ("FOURIERFT", "is FourierFT, whose file does not tell the shape of the weight that it changes"),
    ],
)
def test_without_the_base_model_one_sentence_says_what_is_needed(kind, why, load, tmp_path, command, llama_folder, own_cache):
    made(load(), kind, tmp_path / "adapter")
    refused = command("spectra", tmp_path / "adapter")
    assert (refused.status, refused.out) == (2, "")
    assert f"{why}; name the base model with --base." in refused.err
    told = command("spectra", tmp_path / "adapter", "--base", llama_folder, "--format", "csv")
    assert told.status == 0
    assert len(told.out.splitlines()) == 1 + 2 * len(TARGETS)
    assert ": ΔW is made with the base model's weights" in told.err


def test_another_base_model_is_refused(load, tmp_path, llama_folder, own_cache, byte_level_tokenizer):
    from tests.support.tiny_models import random_llama, saved

    made(load(), "HIRA", tmp_path / "adapter")
    other = saved(
        random_llama(byte_level_tokenizer, hidden_size=24, intermediate_size=32, num_hidden_layers=2),
        byte_level_tokenizer,
        tmp_path / "other",
    )
    with pytest.raises(AdapterError, match="or the base model is another"):
        spectra(with_base(load_adapter(tmp_path / "adapter"), str(other)))
