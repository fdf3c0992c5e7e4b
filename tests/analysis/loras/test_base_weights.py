"""A LoRA beside its weights: by hand, and by two dense SVDs of the formed sum."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.loras.base_weights import COLUMNS, against_base, base_svd, intruder_dimensions, magnitude_change
from soft_prompt_explorer.analysis.loras.ranks import singular_vectors
from tests.support.lora_files import gaussian, lora_file


def dense_intruders(weight, update, top=10, epsilon=0.5):
    """Shuttleworth et al. 2024 as they write it."""
    before = torch.linalg.svd(torch.from_numpy(weight).double(), full_matrices=False).U
    after = torch.linalg.svd(torch.from_numpy(weight + update).double(), full_matrices=False).U[:, :top]
    return int(((before.T @ after).abs().max(dim=0).values < epsilon).sum())


@pytest.mark.parametrize(("out", "inp", "rank"), [(60, 60, 4), (90, 40, 6), (40, 90, 6), (7, 5, 3), (12, 30, 12)])
@pytest.mark.parametrize("strength", [0.01, 1.0, 5.0])
def test_intruders_are_those_of_two_dense_decompositions(tmp_path, own_cache, out, inp, rank, strength):
    rng = np.random.default_rng(rank)
    q, p = (np.linalg.qr(rng.standard_normal((n, min(out, inp))))[0] for n in (out, inp))
    weight = (q * np.geomspace(10, 0.1, min(out, inp)) @ p.T).astype(np.float32)
    a, b = gaussian(out, inp, rank, rng)
    factors = lora_file(tmp_path / "a.safetensors", {"m": (a, strength * b)}).modules["m"]
    update = factors.B.astype(np.float64) @ factors.A
    assert intruder_dimensions(factors, base_svd(weight)) == dense_intruders(weight, update)


def test_strong_updates_intrude_and_weak_ones_do_not(tmp_path, own_cache):
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((80, 60)).astype(np.float32)
    a, b = gaussian(80, 60, 4, rng)
    weak, strong = (lora_file(tmp_path / f"{s}.safetensors", {"m": (a, s * b)}).modules["m"] for s in (1e-4, 1.0))
    assert intruder_dimensions(weak, base_svd(weight)) == 0
    assert intruder_dimensions(strong, base_svd(weight)) == 4


def test_the_decomposition_of_a_weight_is_kept_by_its_content(own_cache):
    weight = np.random.default_rng(2).standard_normal((20, 12)).astype(np.float32)
    u, s, vt = base_svd(weight)
    assert np.allclose(u * s @ vt, weight, atol=1e-5)
    assert len(list((own_cache / "base-svd").iterdir())) == 1
    assert all(np.array_equal(x, y) for x, y in zip(base_svd(weight), (u, s, vt), strict=True))
    base_svd(weight + 1)
    assert len(list((own_cache / "base-svd").iterdir())) == 2


def test_a_module_that_the_model_lacks_or_has_in_another_shape_has_an_empty_row(tmp_path, llama_folder, own_cache, command):
    rng = np.random.default_rng(3)
    modules = {
        "model.layers.0.self_attn.q_proj": gaussian(16, 16, 2, rng),
        "model.layers.0.self_attn.v_proj": gaussian(16, 8, 2, rng),
        "model.layers.9.self_attn.q_proj": gaussian(16, 16, 2, rng),
    }
    adapter = lora_file(tmp_path / "a.safetensors", modules)
    table = against_base(adapter, str(llama_folder)).set_index("module")
    assert table["relative_norm"].notna().tolist() == [True, False, False]
    assert table.loc["model.layers.9.self_attn.q_proj"].drop("problem").isna().all()
    assert table["problem"].isna().tolist() == [True, False, False]
    told = command("spectra", tmp_path / "a.safetensors", "--base", llama_folder, "--format", "csv")
    assert (told.status, len(told.out.splitlines())) == (0, 4)
    assert "2 of the 3 modules have no weight of their name and shape in" in told.err


def test_a_module_that_cannot_be_compared_leaves_its_row_empty_and_the_others_whole(tmp_path, llama_folder, own_cache, command):
    base = tmp_path / "base"
    shutil.copytree(llama_folder, base)
    weights = load_file(base / "model.safetensors")
    weights["model.layers.0.self_attn.k_proj.weight"][3, 2] = torch.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    tensors = {}
    for leaf in ("q_proj", "k_proj", "v_proj"):
        for factor, matrix in zip("AB", gaussian(16, 16, 2, np.random.default_rng(5)), strict=True):
            tensors[f"base_model.model.model.layers.0.self_attn.{leaf}.lora_{factor}.weight"] = torch.from_numpy(np.float32(matrix))
    tensors["base_model.model.model.layers.0.self_attn.v_proj.lora_magnitude_vector"] = torch.ones(5)
    save_file(tensors, tmp_path / "a.safetensors")
    table = against_base(load_lora(tmp_path / "a.safetensors"), str(base)).set_index("module")
    assert table["relative_norm"].notna().tolist() == [leaf.endswith("q_proj") for leaf in table.index]
    problems = {leaf.rpartition(".")[2]: problem for leaf, problem in table["problem"].items()}
    assert np.isnan(problems.pop("q_proj"))
    assert problems.pop("k_proj") == "its weight holds NaN or infinity"
    assert "are not 16 finite numbers" in problems.pop("v_proj")
    told = command("spectra", tmp_path / "a.safetensors", "--base", base, "--format", "csv")
    assert (told.status, len(told.out.splitlines())) == (0, 4)
    assert "Nothing stands beside model.layers.0.self_attn.k_proj: its weight holds NaN or infinity" in told.err


def test_the_magnitudes_of_dora_begin_as_the_lengths_of_the_weights_rows(llama_folder, own_cache, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float32)
    peft_model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], use_dora=True, task_type="CAUSAL_LM"))
    peft_model.save_pretrained(tmp_path / "fresh")
    fresh = against_base(load_lora(tmp_path / "fresh"), str(llama_folder))
    assert fresh["magnitude_change"].to_numpy() == pytest.approx(0.0, abs=1e-6)

    part = "model.layers.1.mlp.down_proj"
    layer = peft_model.base_model.model.get_submodule(part)
    lengths = layer.get_base_layer().weight.detach().numpy().astype(np.float64)
    lengths = np.sqrt((lengths**2).sum(axis=1))
    with torch.no_grad():
        layer.lora_magnitude_vector["default"].weight[:4] += torch.tensor([0.5, -0.5, 0.25, 0.0])
    peft_model.save_pretrained(tmp_path / "changed")
    changed = load_lora(tmp_path / "changed")
    table = against_base(changed, str(llama_folder)).set_index("module")
    assert table.loc[part, "magnitude_change"] == pytest.approx(1.25 / lengths.sum(), rel=1e-5)
    assert table["magnitude_change"].drop(part).to_numpy() == pytest.approx(0.0, abs=1e-6)


def test_a_plain_lora_has_no_magnitudes_and_damaged_ones_are_refused(tmp_path):
    weight = np.eye(6, dtype=np.float32)
    a, b = gaussian(6, 6, 2, np.random.default_rng(4))
    assert np.isnan(magnitude_change(lora_file(tmp_path / "plain.safetensors", {"m": (a, b)}).modules["m"], weight))
    for i, magnitude in enumerate((torch.ones(5), torch.full((6,), torch.nan))):
        factors = {"m.lora_A.weight": a, "m.lora_B.weight": b, "m.lora_magnitude_vector": magnitude}
        save_file({f"base_model.model.{name}": tensor for name, tensor in factors.items()}, tmp_path / f"{i}.safetensors")
        with pytest.raises(AdapterError, match="not 6 finite numbers"):
            magnitude_change(load_lora(tmp_path / f"{i}.safetensors").modules["m"], weight)


@pytest.mark.slow
def test_a_trained_lora_of_the_embedded_model_is_measured_as_dense_linear_algebra_measures_it(embedded_model):
    adapter = load_lora(GALLERY / "sentiment-lora-8")
    table = against_base(adapter, "smollm2-135m").set_index("module")
    assert ["module", *table.columns] == COLUMNS
    assert len(table) == 60
    parts = dict(embedded_model[0].named_modules())
    for module in list(adapter.modules)[::7]:
        factors, weight = adapter.modules[module], parts[module].weight.numpy()
        update = factors.scaling * factors.B.astype(np.float64) @ factors.A
        row = table.loc[module]
        assert row["relative_norm"] == pytest.approx(np.linalg.norm(update) / np.linalg.norm(weight), rel=1e-5)
        u, _, vt = np.linalg.svd(update)
        r = int((singular_vectors(factors)[1] > 1e-6 * singular_vectors(factors)[1][0]).sum())
        expected = np.linalg.norm(update) / np.linalg.norm(u[:, :r].T @ weight @ vt[:r].T)
        assert row["amplification"] == pytest.approx(expected, rel=1e-4)
        assert row["intruders"] == dense_intruders(weight.astype(np.float64), update)


@pytest.mark.slow
def test_the_command_line_adds_the_columns(command):
    outcome = command("spectra", GALLERY / "sentiment-lora-2", "--base", "smollm2-135m", "--format", "csv")
    assert outcome.status == 0
    assert outcome.out.splitlines()[0].endswith(",spike,singular_values,relative_norm,amplification,intruders,magnitude_change,problem")
