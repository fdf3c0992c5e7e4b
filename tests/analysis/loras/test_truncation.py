"""A truncated LoRA is the best one of its ranks, PEFT loads it, and at all of the energy nothing changes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.loras.ranks import spectra
from soft_prompt_explorer.analysis.loras.truncation import keep_directions, planned, truncate
from tests.support.lora_files import gaussian, lora_file
from tests.support.places import names_in
from tests.support.tiny_models import random_llama


def logits(tiny_llama, folder):
    from peft import PeftModel

    peft_model = PeftModel.from_pretrained(tiny_llama, folder)
    with torch.no_grad():
        result = peft_model(torch.tensor([[1, 2, 3, 4]])).logits
    peft_model.unload()
    return result


def test_at_all_of_the_energy_no_output_changes(tiny_lora, tiny_llama, tmp_path):
    table = truncate(load_lora(tiny_lora), 1.0, tmp_path / "whole")
    assert table["relative_error"].max() < 1e-7
    torch.testing.assert_close(logits(tiny_llama, tmp_path / "whole"), logits(tiny_llama, tiny_lora), atol=1e-5, rtol=1e-5)


def test_each_module_keeps_the_fewest_ranks_and_the_error_is_that_of_the_formed_updates(tiny_lora, tiny_llama, tmp_path):
    whole, small = load_lora(tiny_lora), tmp_path / "small"
    table = truncate(whole, 0.9, small).set_index("module")
    cut = load_lora(small)
    lost = total = 0.0
    for module, factors in whole.modules.items():
        update = factors.scaling * factors.B.astype(np.float64) @ factors.A
        values = np.linalg.svd(update, compute_uv=False)
        kept = int(1 + np.searchsorted(np.cumsum(values**2) / (values**2).sum(), 0.9))
        assert table.loc[module, "kept"] == kept == cut.modules[module].rank
        smaller = cut.modules[module].scaling * cut.modules[module].B @ cut.modules[module].A
        error = np.linalg.norm(update - smaller) / np.linalg.norm(update)
        assert table.loc[module, "relative_error"] == pytest.approx(error, rel=1e-4)
        assert error == pytest.approx(np.sqrt((values[kept:] ** 2).sum() / (values**2).sum()), rel=1e-4)  # no other rank-k matrix is nearer
        lost, total = lost + (error * np.linalg.norm(update)) ** 2, total + np.linalg.norm(update) ** 2
    assert table.loc["all", "relative_error"] == pytest.approx(np.sqrt(lost / total), rel=1e-4)
    assert table.loc["all", "kept"] == table["kept"][:-1].sum() < table.loc["all", "rank"]
    foreseen = planned(spectra(whole), 0.9).set_index("module")
    assert foreseen["kept"].tolist() == table["kept"].tolist()
    assert foreseen["relative_error"].to_numpy() == pytest.approx(table["relative_error"].to_numpy(), rel=1e-4)
    config = json.loads((small / "adapter_config.json").read_text())
    assert config["rank_pattern"] == table["kept"][:-1].to_dict() == config["alpha_pattern"]
    assert not torch.allclose(logits(tiny_llama, small), logits(tiny_llama, tiny_lora), atol=1e-5)


def test_a_module_that_was_never_trained_is_left_out(tmp_path):
    rng = np.random.default_rng(0)
    a, b = gaussian(16, 16, 3, rng)
    adapter = lora_file(
        tmp_path / "a.safetensors", {"model.layers.0.self_attn.q_proj": (a, b), "model.layers.1.self_attn.q_proj": (a, 0 * b)}
    )
    table = truncate(adapter, 0.95, tmp_path / "cut").set_index("module")
    assert table.loc["model.layers.1.self_attn.q_proj", "kept"] == 0
    assert list(load_lora(tmp_path / "cut").modules) == ["model.layers.0.self_attn.q_proj"]
    with pytest.raises(InputError, match="ever trained"):
        truncate(lora_file(tmp_path / "b.safetensors", {"m": (a, 0 * b)}), 0.95, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_convolution_keeps_its_kernel(tmp_path):
    rng = np.random.default_rng(1)
    a, b = (torch.from_numpy(rng.standard_normal(shape)).float() for shape in ((4, 5, 3, 3), (7, 4, 1, 1)))
    adapter = lora_file(tmp_path / "a.safetensors", {"conv": (a, b)})
    truncate(adapter, 1.0, tmp_path / "cut")
    cut = load_lora(tmp_path / "cut").modules["conv"]
    assert cut.tensors.entries[cut.a_name].shape == (4, 5, 3, 3)
    assert np.allclose(cut.B @ cut.A, adapter.modules["conv"].B @ adapter.modules["conv"].A, atol=1e-5)


def test_what_a_copy_of_the_factors_would_lose_is_refused(tiny_lora, byte_level_tokenizer, tmp_path):
    from peft import LoraConfig, get_peft_model

    for option, says in (({"modules_to_save": ["lm_head"]}, "kept whole"), ({"use_dora": True}, "DoRA")):
        model = random_llama(byte_level_tokenizer, hidden_size=16, intermediate_size=32, num_hidden_layers=1)
        get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **option)).save_pretrained(tmp_path / says)
        with pytest.raises(InputError, match=says):
            truncate(load_lora(tmp_path / says), 0.9, tmp_path / "cut")
    for energy in (0, 1.01, -1, float("nan")):
        with pytest.raises(InputError, match="above 0 and at most 1"):
            truncate(load_lora(tiny_lora), energy, tmp_path / "cut")
    with pytest.raises(InputError, match="exists"):
        truncate(load_lora(tiny_lora), 0.9, tiny_lora)


def test_the_command_line_writes_it_and_refuses_half_an_order(command, tiny_lora, tmp_path):
    outcome = command("spectra", tiny_lora, "--truncate", "0.9", "--save", tmp_path / "cut", "--format", "csv")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("module,rank,kept,relative_error\n")
    assert (tmp_path / "cut" / "adapter_model.safetensors").is_file()
    assert f"python -m trained_prompts evaluate {tmp_path / 'cut'} --task TASK" in outcome.err
    for arguments in (["--truncate", "0.9"], ["--save", tmp_path / "x"], ["--truncate", "0.9", "--save", tmp_path / "x", "--base", "m"]):
        assert command("spectra", tiny_lora, *arguments).status == 2


def own_named(path, family, conv=False):
    """A file in the naming of kohya or diffusers, and what it adds by module."""
    ends = ((1, 1), (3, 3)) if conv else ((), ())
    a, b = torch.randn(6, 20, *ends[1]), torch.randn(24, 6, *ends[0])
    if family == "kohya":
        tensors = {"lora_unet_in.lora_down.weight": a, "lora_unet_in.lora_up.weight": b, "lora_unet_in.alpha": torch.tensor(3.0)}
    elif family == "old diffusers":
        tensors = {"unet.attn.processor.to_q_lora.down.weight": a, "unet.attn.processor.to_q_lora.up.weight": b}
    else:
        tensors = {"unet.attn.to_q.lora_A.weight": a, "unet.attn.to_q.lora_B.weight": b}
    scaling = 0.5 if family == "kohya" else 1.0
    metadata = {"ss_base_model_version": "sd_v1", "ss_network_dim": "6", "ss_network_alpha": "3", "sshs_model_hash": "of the file"}
    save_file(tensors, path, metadata=metadata if family == "kohya" else {"format": "pt"})
    return tensors, scaling * (b.reshape(24, 6) @ a.reshape(6, -1)).numpy()


@pytest.mark.parametrize(("family", "conv"), [("kohya", False), ("kohya", True), ("old diffusers", False), ("diffusers", False)])
def test_a_copy_of_an_image_models_lora_keeps_the_files_naming(tmp_path, family, conv):
    tensors, update = own_named(tmp_path / "mine.safetensors", family, conv)
    table = truncate(load_lora(tmp_path / "mine.safetensors"), 0.6, tmp_path / "cut").set_index("module")
    assert names_in(tmp_path / "cut") == ["mine.safetensors"]
    copied = load_file(tmp_path / "cut" / "mine.safetensors")
    assert sorted(copied) == sorted(tensors)
    kept = int(table["kept"].iloc[0])
    assert kept < 6
    for name, tensor in copied.items():
        assert tensor.ndim == tensors[name].ndim
        if name.endswith("alpha"):
            assert tensor.item() == kept
    (factors,) = load_lora(tmp_path / "cut").modules.values()
    assert (factors.rank, factors.scaling) == (kept, 1.0)
    u, values, vt = np.linalg.svd(update, full_matrices=False)
    np.testing.assert_allclose(factors.B @ factors.A, u[:, :kept] * values[:kept] @ vt[:kept], atol=1e-4)
    if family == "kohya":
        with safe_open(tmp_path / "cut" / "mine.safetensors", "pt") as file:
            assert file.metadata() == {"ss_base_model_version": "sd_v1", "ss_network_dim": "Dynamic", "ss_network_alpha": "Dynamic"}


def test_of_a_copy_that_is_no_folder_for_peft_nobody_is_told_to_score_it(command, tmp_path):
    own_named(tmp_path / "mine.safetensors", "kohya", False)
    done = command("spectra", tmp_path / "mine.safetensors", "--truncate", 0.6, "--save", tmp_path / "cut")
    assert done.status == 0 and (tmp_path / "cut").is_dir() and "evaluate" not in done.err


def test_a_lora_whose_trainer_loads_no_such_copy_says_why(tmp_path):
    save_file({"unet:0:down": torch.randn(2, 8), "unet:0:up": torch.randn(8, 2)}, tmp_path / "old.safetensors")
    with pytest.raises(InputError, match=r"as cloneofsimo names it.*convert it to PEFT's layout"):
        truncate(load_lora(tmp_path / "old.safetensors"), 0.9, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


def test_directions_are_kept_one_by_one_whatever_their_order(tiny_lora, tmp_path):
    whole = load_lora(tiny_lora)
    modules = list(whole.modules)
    kept = {modules[0]: np.array([2, 0]), modules[-1]: np.array([1])}
    table = keep_directions(whole, kept, tmp_path / "cut").set_index("module")
    cut = load_lora(tmp_path / "cut")
    assert set(cut.modules) == set(kept)
    for module, numbers in kept.items():
        factors, smaller = whole.modules[module], cut.modules[module]
        u, values, vt = np.linalg.svd(factors.scaling * factors.B.astype(np.float64) @ factors.A)
        expected = sum(values[i] * np.outer(u[:, i], vt[i]) for i in numbers)
        np.testing.assert_allclose(smaller.scaling * smaller.B @ smaller.A, expected, atol=1e-5)
        lost = np.delete(values**2, numbers).sum() / (values**2).sum()
        assert table.loc[module, "kept"] == len(numbers) and table.loc[module, "relative_error"] == pytest.approx(np.sqrt(lost), rel=1e-4)
    assert table.loc["all", "kept"] == 3 and (table["kept"] == 0).sum() == len(modules) - 2


def test_directions_of_experts_in_one_parameter_are_not_kept_one_by_one(tmp_path):
    plain = lora_file(tmp_path / "a.safetensors", {"mlp.experts": gaussian(16, 16, 4, np.random.default_rng(0))})
    experts = replace(plain, modules={name: replace(factors, experts=2) for name, factors in plain.modules.items()})
    with pytest.raises(InputError, match="truncate it by energy"):
        keep_directions(experts, {}, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
