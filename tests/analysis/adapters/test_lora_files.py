"""LoRA in every naming, its updates equal to what the trainers' own code makes of the factors."""

import json
import time

import numpy as np
import pytest
import torch
from peft import (
    AdaLoraConfig,
    HRAConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from torch import nn

from soft_prompt_explorer.analysis.adapters import AdapterError, LoraAdapter, load_adapter
from soft_prompt_explorer.analysis.report.inspection import inspect, modules

LINEAR = ["q_proj", "v_proj"]


def update(factors) -> np.ndarray:
    return factors.scaling * factors.B.astype(np.float64) @ factors.A.astype(np.float64)


def trained(model):
    """Factors that are not zero, as after training."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def own_updates(model) -> dict[str, np.ndarray]:
    """What PEFT's own layers add to their weights, (out, in · kernel)."""
    from peft.tuners.lora.layer import LoraLayer

    found = {}
    for path, layer in model.base_model.model.named_modules():
        if isinstance(layer, LoraLayer):
            delta = layer.get_delta_weight("default").detach()
            if isinstance(layer.get_base_layer(), nn.Embedding) or getattr(layer, "fan_in_fan_out", False):
                delta = delta.T
            found[path] = delta.reshape(len(delta), -1).double().numpy()
    return found


@pytest.fixture
def llama(llama_folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(llama_folder)


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ({"target_modules": LINEAR}, "LORA"),
        ({"target_modules": LINEAR, "use_rslora": True}, "LORA (rsLoRA)"),
        ({"target_modules": LINEAR, "use_dora": True}, "LORA (DoRA)"),
        (
            {
                "target_modules": LINEAR,
                "rank_pattern": {"q_proj": 2, r"layers\.1\.self_attn\.v_proj": 7},
                "alpha_pattern": {"^model.*v_proj": 3},
            },
            "LORA",
        ),
        ({"target_modules": [*LINEAR, "embed_tokens"], "modules_to_save": ["lm_head"]}, "LORA"),
        ({"target_modules": ["embed_tokens"], "use_dora": True, "use_rslora": True}, "LORA (DoRA, rsLoRA)"),
        ({"target_modules": LINEAR, "lora_bias": True, "rank_pattern": {"v_proj": 3}, "use_rslora": True}, "LORA (rsLoRA)"),
        ({"target_modules": LINEAR, "init_lora_weights": "pissa"}, "LORA (PiSSA)"),
        ({"target_modules": LINEAR, "init_lora_weights": "olora"}, "LORA (OLoRA)"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.filterwarnings("ignore:`lora_bias=True`", "ignore:Adapter 'default'")  # PEFT takes a bias for a damaged factor
@pytest.mark.parametrize("pickled", [False, True])
def test_a_peft_loras_updates_are_those_of_pefts_own_layers(llama, tmp_path, options, method, pickled):
    torch.manual_seed(2)
    model = trained(get_peft_model(llama, LoraConfig(r=4, lora_alpha=10, **options)))
    model.save_pretrained(tmp_path / "lora", save_embedding_layers=False)
    if pickled:
        weights = tmp_path / "lora" / "adapter_model.safetensors"
        torch.save(load_file(weights), tmp_path / "lora" / "adapter_model.bin")
        weights.unlink()
    lora = load_adapter(tmp_path / "lora")
    expected = own_updates(model)
    assert set(lora.modules) == set(expected)
    for path, factors in lora.modules.items():
        assert (factors.out_features, factors.in_features) == expected[path].shape
        assert np.allclose(update(factors), expected[path], rtol=1e-5, atol=1e-5), path
        assert (factors.magnitude is not None) == ("DoRA" in method)
    assert lora.method == method
    magnitudes = {path: layer for path, layer in model.base_model.model.named_modules() if path in expected and "DoRA" in method}
    for path, layer in magnitudes.items():
        assert np.array_equal(lora.modules[path].magnitude, layer.lora_magnitude_vector["default"].weight.detach().numpy())
    assert sum(name.endswith("lora_B.bias") for name in lora.saved_modules) == (len(lora) if options.get("lora_bias") else 0)
    assert [name for name in lora.saved_modules if "lm_head" in name] == (
        ["base_model.model.lm_head.weight"] if "modules_to_save" in options else []
    )
    row = inspect([tmp_path / "lora"]).iloc[0]
    assert (row["kind"], row["method"], row["base_model"]) == ("lora", method, model.peft_config["default"].base_model_name_or_path)
    assert "never trained" not in row["notes"]
    assert ("base weights' own directions" in row["notes"]) == ("iSSA" in method or "OLoRA" in method)


def test_convolutions_and_transposed_layers_are_read_as_peft_applies_them(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2, n_positions=16))
    flat = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.Conv2d(4, 4, (1, 3), stride=2, padding=1))
    line_and_space = nn.ModuleList([nn.Conv1d(4, 6, 3), nn.Conv3d(2, 4, 3)])
    for name, base, targets in (("gpt2", gpt2, ["c_attn"]), ("flat", flat, ["0", "2", "3"]), ("others", line_and_space, ["0", "1"])):
        model = trained(get_peft_model(base, LoraConfig(r=2, lora_alpha=3, target_modules=targets, fan_in_fan_out=name == "gpt2")))
        model.save_pretrained(tmp_path / name)
        expected = own_updates(model)
        lora = load_adapter(tmp_path / name)
        assert set(lora.modules) == set(expected)
        for path, factors in lora.modules.items():
            assert np.allclose(update(factors), expected[path], rtol=1e-5, atol=1e-5), path


def test_a_lora_that_was_never_trained_is_remarked_on(llama, tmp_path):
    get_peft_model(llama, LoraConfig(r=4, target_modules=LINEAR)).save_pretrained(tmp_path / "lora")
    assert "never trained" in inspect([tmp_path / "lora"])["notes"].item()


def test_peft_weights_without_their_config_have_an_unknown_scaling(llama, tmp_path):
    trained(get_peft_model(llama, LoraConfig(r=4, lora_alpha=64, target_modules=LINEAR))).save_pretrained(tmp_path / "lora")
    (tmp_path / "lora" / "adapter_config.json").unlink()
    lora = load_adapter(tmp_path / "lora")
    assert {factors.scaling for factors in lora.modules.values()} == {1.0}
    assert any("alpha is not in the file for 4 modules" in note for note in lora.notes)


# --- Image models ----------------------------------------------------------------------------------------------------


def pair(out=6, inner=4, rank=2, kernel=(), dtype=torch.float32):
    generator = torch.Generator().manual_seed(out * 100 + inner)
    up = torch.randn(out, rank, *(1 for _ in kernel), generator=generator).to(dtype)
    return up, torch.randn(rank, inner, *kernel, generator=generator).to(dtype)


@pytest.mark.parametrize(
    ("up_name", "down_name", "module", "family"),
    [
        ("lora_unet_mid_to_q.lora_up.weight", "lora_unet_mid_to_q.lora_down.weight", "lora_unet_mid_to_q", "kohya"),
        (
            "unet.mid.attn1.processor.to_q_lora.up.weight",
            "unet.mid.attn1.processor.to_q_lora.down.weight",
            "unet.mid.attn1.to_q",
            "diffusers",
        ),
        (
            "text_encoder.q_proj.lora_linear_layer.up.weight",
            "text_encoder.q_proj.lora_linear_layer.down.weight",
            "text_encoder.q_proj",
            "diffusers",
        ),
        ("unet.mid.attn1.to_q.lora.up.weight", "unet.mid.attn1.to_q.lora.down.weight", "unet.mid.attn1.to_q", "diffusers"),
        ("unet.mid.attn1.to_q.lora_B.weight", "unet.mid.attn1.to_q.lora_A.weight", "unet.mid.attn1.to_q", "PEFT naming"),
        ("unet:3:up", "unet:3:down", "unet:3", "cloneofsimo"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("saved", ["safetensors", "pickle"])
def test_each_naming_gives_the_same_factors(tmp_path, up_name, down_name, module, family, dtype, saved):
    up, down = pair(dtype=dtype)
    path = tmp_path / "style"
    (save_file if saved == "safetensors" else torch.save)({up_name: up, down_name: down}, path)
    lora = load_adapter(path)
    assert list(lora.modules) == [module]
    factors = lora.modules[module]
    assert np.array_equal(factors.A, down.float().numpy())
    assert np.array_equal(factors.B, up.float().numpy())
    assert family in lora.source.format
    assert lora.source.dtype == str(dtype).removeprefix("torch.")


def test_kohyas_alpha_scales_the_update_and_its_absence_is_said(tmp_path):
    up, down = pair()
    names = {"a.lora_up.weight": up, "a.lora_down.weight": down, "b.lora_up.weight": up.clone(), "b.lora_down.weight": down.clone()}
    save_file(names | {"a.alpha": torch.tensor(1.0)}, tmp_path / "style.safetensors")
    lora = load_adapter(tmp_path / "style.safetensors")
    assert lora.modules["a"].scaling == 0.5
    assert lora.modules["b"].scaling == 1.0
    assert "alpha is not in the file for 1 module: the scaling is taken as 1" in lora.notes


def test_a_convolution_in_two_and_in_three_factors(tmp_path):
    up, down = pair(kernel=(3, 3))
    middle = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    plain = torch.randn(2, 4, 1, 1, generator=torch.Generator().manual_seed(2))
    tensors = {"two.lora_up.weight": up, "two.lora_down.weight": down}
    tensors |= {"three.lora_up.weight": up.clone(), "three.lora_down.weight": plain, "three.lora_mid.weight": middle}
    save_file(tensors, tmp_path / "style.safetensors")
    lora = load_adapter(tmp_path / "style.safetensors")
    two = torch.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
    # The reference is the network itself: one convolution after the other.
    image = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(3))
    layers = nn.functional.conv2d(nn.functional.conv2d(nn.functional.conv2d(image, plain), middle), up)
    for path, expected in (("two", nn.functional.conv2d(image, two)), ("three", layers)):
        weight = torch.tensor(update(lora.modules[path])).float().reshape(6, 4, 3, 3)
        assert torch.allclose(nn.functional.conv2d(image, weight), expected, atol=1e-4)
        assert (lora.modules[path].rank, lora.modules[path].in_features) == (2, 36)


def test_the_config_that_diffusers_keeps_in_the_header_is_used(tmp_path):
    up, down = pair()
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 8})}
    save_file({"unet.x.to_q.lora_B.weight": up, "unet.x.to_q.lora_A.weight": down}, tmp_path / "style.safetensors", metadata=metadata)
    assert load_adapter(tmp_path / "style.safetensors").modules["unet.x.to_q"].scaling == 4.0


def test_each_part_of_a_diffusers_model_has_its_own_config_in_the_header(tmp_path):
    up, down = pair()
    said = {"unet": {"r": 2, "lora_alpha": 2, "use_rslora": False}, "text_encoder": {"r": 2, "lora_alpha": 32, "alpha_pattern": {"k": 6}}}
    flat = {f"{part}.{key}": value for part, config in said.items() for key, value in config.items()}
    names = ("unet.x.q", "text_encoder.x.q", "text_encoder.x.k", "transformer.x.q")
    tensors = {f"{name}.lora_{letter}.weight": factor.clone() for name in names for letter, factor in (("A", down), ("B", up))}
    save_file(tensors, tmp_path / "style.safetensors", metadata={"lora_adapter_metadata": json.dumps(flat)})
    lora = load_adapter(tmp_path / "style.safetensors")
    # As diffusers loads them: each part by the config of its prefix.
    assert {name: lora.modules[name].scaling for name in names} == dict(zip(names, (1.0, 16.0, 3.0, 1.0), strict=True))
    assert "alpha is not in the file for 1 module: the scaling is taken as 1" in lora.notes


def test_kohyas_magnitudes_are_those_of_dora(tmp_path):
    up, down = pair()
    magnitude = torch.rand(1, 4, generator=torch.Generator().manual_seed(1))
    tensors = {"a.lora_up.weight": up, "a.lora_down.weight": down, "a.alpha": torch.tensor(2.0), "a.dora_scale": magnitude}
    save_file(tensors, tmp_path / "style.safetensors", metadata={"ss_base_model_version": "sdxl_base_v1-0"})
    lora = load_adapter(tmp_path / "style.safetensors")
    assert np.array_equal(lora.modules["a"].magnitude, magnitude[0].numpy())
    assert (lora.method, lora.base_model) == ("LORA (DoRA)", "sdxl_base_v1-0")
    assert lora.saved_modules == ()


def test_layers_stand_in_the_order_of_their_numbers(tmp_path):
    up, down = pair()
    save_file(
        {f"unet:{i}:{part}": (up if part == "up" else down).clone() for i in range(12) for part in ("up", "down")}, tmp_path / "style"
    )
    assert modules(load_adapter(tmp_path / "style"))["module"].tolist() == [f"unet:{i}" for i in range(12)]


# --- What is refused and what is remarked on --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (IA3Config(target_modules=LINEAR, feedforward_modules=[]), "IA³"),
        (OFTConfig(r=2, oft_block_size=0, target_modules=LINEAR), "OFT"),
        (VeraConfig(r=4, target_modules=LINEAR), "VeRA"),
        (HRAConfig(r=4, target_modules=LINEAR), "neither a prompt nor a LoRA"),
        (TrainableTokensConfig(token_indices=[1, 2]), "neither a prompt nor a LoRA"),
    ],
    ids=lambda value: type(value).__name__.removesuffix("Config"),
)
def test_what_is_akin_to_lora_is_refused_by_its_name_without_its_config(llama, tmp_path, config, word):
    get_peft_model(llama, config).save_pretrained(tmp_path)
    assert load_adapter(tmp_path).method == config.peft_type.value
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match=word):
        load_adapter(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        LoHaConfig(r=2, alpha=2, target_modules=LINEAR),
        LoKrConfig(r=2, alpha=2, target_modules=LINEAR),
        AdaLoraConfig(init_r=4, lora_alpha=4, target_r=2, total_step=10, target_modules=LINEAR),
    ],
    ids=lambda value: type(value).__name__.removesuffix("Config"),
)
def test_relatives_whose_tensors_tell_their_type_are_read_without_a_config_at_a_scaling_of_one(llama, tmp_path, config):
    model = get_peft_model(llama, config)
    for parameter in model.parameters():
        parameter.data += 0.1 * parameter.requires_grad
    model.save_pretrained(tmp_path)
    known = load_adapter(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    adapter = load_adapter(tmp_path)
    assert adapter.method == config.peft_type.value
    assert "without adapter_config.json" in inspect([tmp_path])["notes"].item()
    for path, factors in adapter.modules.items():
        assert np.allclose(update(factors), update(known.modules[path]), rtol=1e-4), path


def test_a_file_that_is_part_lora_is_read_as_one_and_says_so(tmp_path):
    up, down = pair()
    loha = {f"b.hada_{part}": torch.ones(2, 2) for part in ("w1_a", "w1_b", "w2_a", "w2_b")}
    save_file({"a.lora_up.weight": up, "a.lora_down.weight": down} | loha, tmp_path / "style.safetensors")
    adapter = load_adapter(tmp_path / "style.safetensors")
    assert list(adapter.modules) == ["a"]
    assert "part of it is LoHa, which is not read" in adapter.notes


@pytest.mark.parametrize("alpha", [None, 3.0])
def test_a_loha_of_lycoris_is_scaled_by_its_own_alpha(tmp_path, alpha):
    generator = torch.Generator().manual_seed(1)
    shapes = {"w1_a": (6, 2), "w1_b": (2, 5), "w2_a": (6, 2), "w2_b": (2, 5)}
    tensors = {f"lora_unet_mid_to_q.hada_{part}": torch.randn(*shape, generator=generator) for part, shape in shapes.items()}
    save_file(tensors | ({} if alpha is None else {"lora_unet_mid_to_q.alpha": torch.tensor(alpha)}), tmp_path / "style.safetensors")
    parts = [tensors[f"lora_unet_mid_to_q.hada_{part}"].double().numpy() for part in shapes]
    expected = (1.0 if alpha is None else alpha / 2) * (parts[0] @ parts[1]) * (parts[2] @ parts[3])
    assert np.allclose(update(load_adapter(tmp_path / "style.safetensors").modules["lora_unet_mid_to_q"]), expected)


@pytest.mark.parametrize(
    ("tensors", "word"),
    [
        ({"a.lora_up.weight": torch.ones(4, 2)}, "only one of the two factors"),
        ({"a.lora_up.weight": torch.ones(4, 2), "a.lora_down.weight": torch.ones(3, 4)}, "do not multiply"),
        ({"a.lora_up.weight": torch.ones(4, 0), "a.lora_down.weight": torch.ones(0, 4)}, "do not multiply"),
        ({"a.lora_up.weight": torch.ones(8), "a.lora_down.weight": torch.ones(2, 4)}, "do not multiply"),
        (
            {
                "a.lora_up.weight": torch.ones(4, 2, 1, 1),
                "a.lora_down.weight": torch.ones(2, 4, 1, 1),
                "a.lora_mid.weight": torch.ones(3, 3, 3, 3),
            },
            "do not multiply",
        ),
        ({"base_model.model.a.lora_A.weight": torch.ones(2, 4)}, "only one of the two factors"),
        ({"a.hada_w1_a": torch.ones(4, 2), "a.hada_w1_b": torch.ones(2, 4)}, "LoHa"),
        ({"a.lokr_w1": torch.ones(4, 2), "a.lokr_w2_a": torch.ones(2, 4)}, "LoKr"),
        ({"a.lokr_w1": torch.ones(2**11, 2**11), "a.lokr_w2": torch.ones(8, 8)}, "which no model has"),
    ],
)
def test_factors_that_make_no_update_are_refused(tmp_path, tensors, word):
    save_file(tensors, tmp_path / "style.safetensors")
    with pytest.raises(AdapterError, match=word):
        load_adapter(tmp_path / "style.safetensors")


def test_nan_in_a_lora_is_read_and_remarked_on(tmp_path):
    up, down = pair()
    up[0, 0] = torch.nan
    save_file({"a.lora_up.weight": up, "a.lora_down.weight": down}, tmp_path / "style.safetensors")
    assert "NaN or infinity in 1 modules, the first a" in inspect([tmp_path / "style.safetensors"])["notes"].item()


@pytest.mark.parametrize("pattern", ["(a+)+", "((a|aa)+)+b", "(", "*"])
def test_a_pattern_that_would_match_for_ever_is_refused_in_time(tmp_path, pattern):
    up, down = pair()
    names = [f"base_model.model.{'a' * 60}!{i}.lora_{part}.weight" for i in range(50) for part in "AB"]
    save_file({name: (down if "_A" in name else up).clone() for name in names}, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "rank_pattern": {pattern: 2}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    start = time.process_time()
    try:
        assert isinstance(load_adapter(tmp_path), LoraAdapter)
    except AdapterError as error:
        assert "pattern" in str(error)
    assert time.process_time() - start < 3
