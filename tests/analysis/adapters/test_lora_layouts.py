"""LoRAs of trainers that keep their factors another way than PEFT have the update that their own package adds."""

import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.loras.ranks import spectra, values_of
from tests.support.adapter_files import refusal, torch_saved, values

A, B = values(3, 20), values(28, 3)  # (r, in), (out, r)
PRODUCT = (B.double() @ A.double()).numpy()


def update(lora, module):
    factors = lora.modules[module]
    return factors.scaling * factors.B.astype(np.float64) @ factors.A  # in float32 it is another figure on another processor


NAMES = {
    "MLX": {"model.layers.0.q_proj.lora_a": A.T, "model.layers.0.q_proj.lora_b": B.T},
    "torchtune": {"layers.0.attn.q_proj.lora_a.weight": A, "layers.0.attn.q_proj.lora_b.weight": B},
    "loralib": {"transformer.h.0.attn.c_attn.lora_A": A, "transformer.h.0.attn.c_attn.lora_B": B},
    "XLabs": {"double_blocks.0.processor.qkv_lora1.down.weight": A, "double_blocks.0.processor.qkv_lora1.up.weight": B},
    "NeMo": {f"layers.0.adapter_layer.lora_kqv_adapter.linear_{part}.weight": x for part, x in (("in", A), ("out", B))},
    "AdapterHub": {"roberta.layer.0.query.loras.mine.lora_A": A, "roberta.layer.0.query.loras.mine.lora_B": B},
}


@pytest.mark.parametrize("family", NAMES)
def test_the_factors_of_each_trainer_multiply_to_its_update(family, tmp_path):
    save_file({name: tensor.contiguous() for name, tensor in NAMES[family].items()}, tmp_path / "file.safetensors")
    lora = load_lora(tmp_path / "file.safetensors")
    (module,) = lora.modules
    np.testing.assert_allclose(update(lora, module), PRODUCT, rtol=1e-6)
    assert f"({family})" in lora.source.format
    assert "the scaling is taken as 1" in " ".join(lora.notes)
    expected = np.linalg.svd(PRODUCT.astype(np.float64), compute_uv=False)[:3]
    assert values_of(spectra(lora).iloc[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("family", "magnitude"), [("MLX", "model.layers.0.q_proj.m"), ("torchtune", "layers.0.attn.q_proj.magnitude")])
def test_the_magnitudes_of_mlx_and_torchtune_are_those_of_dora(family, magnitude, tmp_path):
    lengths = torch.arange(1.0, 1 + len(PRODUCT))
    beside = {"norm.m": torch.ones(2), "norm.magnitude": torch.ones(2)}  # which are no LoRA's
    save_file(
        {name: tensor.contiguous() for name, tensor in NAMES[family].items()} | {magnitude: lengths} | beside, tmp_path / "it.safetensors"
    )
    lora = load_lora(tmp_path / "it.safetensors")
    (module,) = lora.modules
    assert lora.method == "LORA (DoRA)"
    assert lora.modules[module].magnitude.tolist() == lengths.tolist()
    assert set(lora.saved_modules) == set(beside)
    np.testing.assert_allclose(update(lora, module), PRODUCT, rtol=1e-6)


@pytest.mark.parametrize(
    ("said", "scaling"),
    [({"rank": 3, "scale": 7.5}, 7.5), ({"rank": 3, "alpha": 6, "scale": 10.0}, 20.0), ({"rank": 3}, 1.0), ("damaged", 1.0)],
)
def test_the_folder_of_mlx_says_its_scale(tmp_path, said, scaling):
    folder = tmp_path / "mlx"
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in NAMES["MLX"].items()}, folder / "adapters.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": said}))
    old = tmp_path / "old"
    old.mkdir()
    np.savez(old / "adapters.npz", **{name: tensor.numpy() for name, tensor in NAMES["MLX"].items()})  # before it wrote safetensors
    (old / "adapter_config.json").write_bytes((folder / "adapter_config.json").read_bytes())
    with zipfile.ZipFile(tmp_path / "mlx.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    for path in (folder, folder / "adapters.safetensors", tmp_path / "mlx.zip", old, old / "adapters.npz"):
        lora = load_lora(path)
        assert lora.modules["model.layers.0.q_proj"].scaling == scaling
        np.testing.assert_allclose(update(lora, "model.layers.0.q_proj"), scaling * PRODUCT, rtol=1e-4, atol=1e-4)
    assert len(load_lora(tmp_path / "mlx.zip").source.sha256) == 64


def test_experts_of_mlx_are_refused_and_not_turned(tmp_path):
    save_file({"m.lora_a": values(4, 3, 20), "m.lora_b": values(4, 28, 3)}, tmp_path / "moe.safetensors")
    assert "several experts in one" in refusal(tmp_path / "moe.safetensors")


def test_the_lora_of_adapterhub_is_scaled_by_its_config(tmp_path):
    torch_saved(NAMES["AdapterHub"], tmp_path / "pytorch_adapter.bin")
    config = {"config": {"architecture": "lora", "alpha": 12, "r": 3, "composition_mode": "add"}, "model_type": "roberta"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    np.testing.assert_allclose(update(load_lora(tmp_path), "roberta.layer.0.query"), 4 * PRODUCT, rtol=1e-5)


@pytest.mark.parametrize("groups", [2, 3])
def test_a_fused_layer_of_equal_parts_is_as_many_modules(tmp_path, groups):
    parts = [(values(2, 12) + i, values(12, 2) - i) for i in range(groups)]
    fused = {"h.0.attn.lora_A": torch.cat([a for a, _ in parts]), "h.0.attn.lora_B": torch.cat([b for _, b in parts])}
    lora = load_lora(torch_saved(fused, tmp_path / "lit.ckpt"))
    assert list(lora.modules) == [f"h.0.attn.{i}" for i in range(groups)]
    for i, (a, b) in enumerate(parts):
        np.testing.assert_allclose(update(lora, f"h.0.attn.{i}"), (b @ a).numpy(), rtol=1e-5)


def test_a_fused_layer_whose_parts_need_not_be_equal_is_refused(tmp_path):
    fused = {"h.0.attn.lora_A": values(6, 12), "h.0.attn.lora_B": values(24, 2)}
    assert "do not multiply" in refusal(torch_saved(fused, tmp_path / "lit.ckpt"))


def test_the_list_of_cloneofsimo_is_pairs_of_up_and_down(tmp_path):
    second = values(5, 9), values(11, 5)
    lora = load_lora(torch_saved([B.half(), A.half(), second[1], second[0]], tmp_path / "list.pt"))
    assert list(lora.modules) == ["unnamed:0", "unnamed:1"] and "LoRA (cloneofsimo)" in lora.source.format
    np.testing.assert_allclose(update(lora, "unnamed:0"), (B.half().double() @ A.half().double()).numpy(), rtol=1e-6)
    np.testing.assert_allclose(update(lora, "unnamed:1"), (second[1].double() @ second[0].double()).numpy(), rtol=1e-6)
    assert len(spectra(lora)) == 2


@pytest.mark.parametrize("shape", [(6, 9), (6, 4, 3, 3)])
def test_lycoris_full_is_a_whole_change_of_its_weights(tmp_path, shape):
    difference = values(*shape)
    save_file(
        {"lora_unet_a.diff": difference, "lora_unet_a.diff_b": values(6), "lora_unet_b.diff_b": values(4)}, tmp_path / "full.safetensors"
    )
    lora = load_lora(tmp_path / "full.safetensors")
    assert (lora.kind, list(lora.modules)) == ("delta", ["lora_unet_a"])
    np.testing.assert_allclose(update(lora, "lora_unet_a"), difference.reshape(6, -1).numpy(), rtol=1e-6)
    assert sorted(lora.saved_modules) == ["lora_unet_a.diff_b", "lora_unet_b.diff_b"]


def gguf_lora(path, tensors, *, alpha=None, kind="lora"):
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", kind)
    if alpha is not None:
        writer.add_float32("adapter.lora.alpha", alpha)
    for name, array in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_lora_of_llama_cpp_is_read_with_its_alpha(tmp_path):
    tensors = {"blk.0.attn_q.weight.lora_a": A.numpy(), "blk.0.attn_q.weight.lora_b": B.half().numpy()}
    tensors |= {"token_embd.weight.lora_a": values(40, 3).numpy(), "token_embd.weight.lora_b": values(16, 3).numpy()}
    lora = load_lora(gguf_lora(tmp_path / "lora", tensors, alpha=6.0))
    assert list(lora.modules) == ["blk.0.attn_q", "token_embd"]
    np.testing.assert_allclose(update(lora, "blk.0.attn_q"), 2 * B.half().double().numpy() @ A.numpy(), rtol=1e-5)
    np.testing.assert_allclose(update(lora, "token_embd"), 2 * values(16, 3).double().numpy() @ values(40, 3).numpy().T, rtol=1e-5)
    assert "scaling is taken as 1" not in " ".join(lora.notes)


@pytest.mark.parametrize(
    ("tensors", "kind", "says"),
    [
        ({"blk.0.attn_q.weight.lora_a": values(3, 20).numpy()}, "lora", "only one of the two factors"),
        ({"blk.0.experts.weight.lora_a": values(2, 3, 20).numpy()}, "lora", "two dimensions"),
        ({"blk.0.attn_q.weight.lora_a": values(3, 20).numpy()}, "alora", "only a LoRA"),
        ({"blk.0.attn_q.bias": values(20).numpy()}, "lora", "a vector"),
    ],
)
def test_other_adapters_of_llama_cpp_are_refused(tmp_path, tensors, kind, says):
    assert says in refusal(gguf_lora(tmp_path / "lora.gguf", tensors, kind=kind))


def test_a_gguf_that_is_cut_is_refused(tmp_path):
    path = gguf_lora(tmp_path / "lora.gguf", {"m.weight.lora_a": A.numpy(), "m.weight.lora_b": B.numpy()})
    path.write_bytes(path.read_bytes()[:-200])
    assert "does not hold" in refusal(path)
