"""A LoRA is trained on PEFT's own model, kept as PEFT keeps it, and leaves the frozen model as it was."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch

from soft_prompt_explorer.analysis.adapters import LoraAdapter, load_adapter
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.asking.lora import applied, applied_weights
from soft_prompt_explorer.analysis.asking.scores import compare_lora
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from soft_prompt_explorer.trained_prompts.training import lora
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.training import trained

IDS = torch.tensor([[5, 6, 7, 8]])


def test_the_model_is_left_as_it_was_also_when_training_is_broken_off(lora_config, language_model):
    model = language_model[0]
    names = [name for name, _ in model.named_modules()]
    before = model(IDS).logits
    trained(lora_config, language_model)
    steps = train(lora_config, language_model=language_model)
    next(steps), next(steps)
    steps.close()
    assert torch.equal(model(IDS).logits, before)
    assert [name for name, _ in model.named_modules()] == names
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_same_seed_gives_the_same_curve_and_another_seed_another(lora_config, language_model):
    first, again, other = (trained(c, language_model) for c in (lora_config, lora_config, replace(lora_config, seed=3)))
    assert first.losses()["loss"].tolist() == again.losses()["loss"].tolist() != other.losses()["loss"].tolist()
    assert all(np.array_equal(first.weights[name], again.weights[name]) for name in first.weights)


def test_before_training_it_changes_nothing_and_each_step_lowers_or_raises_the_loss_by_its_own_factors(lora_config, language_model):
    steps = list(train(lora_config, language_model=language_model))
    assert all(not array.any() for name, array in steps[0].weights.items() if "lora_B" in name)
    assert all(array.any() for name, array in steps[1].weights.items() if "lora_B" in name)
    assert steps[0].embeddings is None


def test_peft_loads_what_was_saved_and_so_does_our_reader_and_a_merge_by_hand_agrees(saved_lora, lora_config, language_model):
    from peft import PeftModel

    model = language_model[0]
    before = model(IDS).logits
    with applied(model, saved_lora):
        ours = model(IDS).logits
    assert not torch.allclose(ours, before, atol=1e-4)
    assert torch.equal(model(IDS).logits, before)

    adapter = load_adapter(saved_lora)
    assert isinstance(adapter, LoraAdapter)
    assert {factors.rank for factors in adapter.modules.values()} == {3}
    assert {factors.scaling for factors in adapter.modules.values()} == {2.0}
    merged = load_model(lora_config.model, device="cpu")[0]
    parts = dict(merged.named_modules())
    for module, factors in adapter.modules.items():
        parts[module].weight.data += torch.from_numpy(factors.scaling * factors.B @ factors.A)
    torch.testing.assert_close(merged(IDS).logits, ours, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(PeftModel.from_pretrained(model, saved_lora)(IDS).logits, ours, atol=1e-4, rtol=1e-4)


def test_the_scores_of_a_run_are_those_of_its_files(saved_lora, lora_config, language_model):
    kept = read_description(saved_lora)["scores"]
    table = compare_lora(saved_lora, "mine", "toy", language_model=language_model).set_index("prompt")
    assert set(kept) == {"no prompt", "trained"}
    assert table.loc["mine", "loss"] == pytest.approx(kept["trained"]["loss"], abs=1e-6)
    assert table.loc["no prompt", "loss"] == pytest.approx(kept["no prompt"]["loss"], abs=1e-6)
    assert kept["trained"]["loss"] != kept["no prompt"]["loss"]


def test_a_run_is_listed_and_its_card_holds_the_command_that_makes_it(saved_lora):
    row = store.list_runs().set_index("name").loc["mine"]
    assert (row["method"], row["rank"]) == ("lora", 3)
    assert row[["tokens", "init", "norm_ratio", "start"]].isna().all()
    card = store.read_card("mine")
    command = shlex.split(next(line for line in card.splitlines() if line.startswith("    python")))
    for option in (["--method", "lora"], ["--rank", "3"], ["--alpha", "6.0"], ["--targets", "q_proj,v_proj"], ["--learning-rate", "0.05"]):
        assert command[command.index(option[0]) + 1] == option[1]
    config = json.loads((saved_lora / "run.json").read_text())["config"]
    assert "tokens" not in config and config["targets"] == ["q_proj", "v_proj"]


def test_rslora_and_other_targets_are_pefts(lora_config, language_model, own_runs):
    recording = trained(replace(lora_config, rslora=True, targets=("o_proj", "down_proj"), alpha=5.0), language_model)
    path = store.save(recording, "wide", evaluate_run(recording, language_model=language_model))
    adapter = load_adapter(path)
    assert {module.rpartition(".")[2] for module in adapter.modules} == {"o_proj", "down_proj"}
    assert {factors.scaling for factors in adapter.modules.values()} == {5.0 / np.sqrt(3)}
    assert "--rslora" in store.read_card("wide")


def test_what_cannot_be_trained_or_applied_is_refused(lora_config, language_model, saved_lora, tmp_path):
    for wrong, says in (
        ({"rank": 0}, "rank of 1 to"),
        ({"alpha": -1.0}, "alpha"),
        ({"method": "adapter"}, "prompt-tuning, p-tuning, prefix-tuning, lora, full"),
    ):
        with pytest.raises(InputError, match=says):
            replace(lora_config, **wrong)
    with pytest.raises(InputError, match=r"linear ones are .*q_proj"):
        next(train(replace(lora_config, targets=("no_such",)), language_model=language_model))
    with pytest.raises(InputError, match="safetensors"), applied(language_model[0], tmp_path):
        pass
    wrong_weights = {name: array[:, :5] for name, array in trained(lora_config, language_model).weights.items()}
    with pytest.raises(InputError, match="does not fit"), applied_weights(language_model[0], lora.config_of(lora_config), wrong_weights):
        pass
    few = dict(list(trained(lora_config, language_model).weights.items())[:1])
    with pytest.raises(InputError, match="factors are missing"), applied_weights(language_model[0], lora.config_of(lora_config), few):
        pass
    assert not [name for name, _ in language_model[0].named_modules() if "lora" in name]
