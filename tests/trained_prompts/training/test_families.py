"""Models of eight families, tiny and of random weights: each is compared, trained by LoRA and set beside its weights, with PEFT as the reference."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from soft_prompt_explorer.trained_prompts.experiments.comparison import METHODS
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.lora import targets_of
from tests.support.tiny_models import FAMILIES, model_of, saved


@pytest.fixture
def folder(request, toy_task, own_runs, own_cache, byte_level_tokenizer, tmp_path):
    return saved(model_of(request.param, byte_level_tokenizer), byte_level_tokenizer, tmp_path / request.param)


def loaded(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def loss_by_hand(model, tokenizer, task) -> float:
    """The mean over held-out examples of the mean cross-entropy of an answer's tokens, an example at a time and nothing padded."""
    losses = []
    for row in task.examples("held-out").itertuples():
        asked, answer = (tokenizer(text, add_special_tokens=False).input_ids for text in (row.text, row.target))
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([asked + answer])).logits[0, len(asked) - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(logits.float(), torch.tensor(answer)).item())
    return float(np.mean(losses))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")  # of the reference, which is told nothing of GPT-2's weights
@pytest.mark.parametrize("folder", FAMILIES, indirect=True)
@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_a_lora_changes_what_peft_changes_and_stands_beside_those_weights(
    folder, targets, toy_task, own_runs, byte_level_tokenizer, training_command, command
):
    asked = (
        "train",
        "--task",
        "toy",
        "--model",
        folder,
        "--method",
        "lora",
        "--rank",
        2,
        "--steps",
        4,
        "--learning-rate",
        0.05,
        "--name",
        "it",
    )
    done = training_command(*asked, *(() if targets is None else ("--targets", targets)))
    assert done.status == 0, done.err

    run = json.loads((own_runs / "it" / "run.json").read_text())
    theirs = get_peft_model(loaded(folder), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=targets))
    expected = {name.removeprefix("base_model.model.") for name, part in theirs.named_modules() if hasattr(part, "lora_A")}
    assert run["config"]["targets"] == (["all-linear"] if targets else sorted({name.rpartition(".")[2] for name in expected}))
    kept = PeftModel.from_pretrained(loaded(folder), own_runs / "it")
    layers = {name.removeprefix("base_model.model."): part for name, part in kept.named_modules() if hasattr(part, "lora_A")}
    assert set(layers) == expected
    assert loss_by_hand(kept, byte_level_tokenizer, toy_task) == pytest.approx(run["scores"]["trained"]["loss"], abs=1e-4)
    assert abs(run["scores"]["trained"]["loss"] - run["scores"]["no prompt"]["loss"]) > 1e-3

    done = command("spectra", own_runs / "it", "--base", folder, "--format", "json")
    assert done.status == 0, done.err
    table = pd.DataFrame(json.loads(done.out)).set_index("module")
    assert set(table.index) == expected
    for name, layer in layers.items():
        weight, update = layer.get_base_layer().weight.detach(), layer.get_delta_weight("default").detach()
        assert table.loc[name, "relative_norm"] == pytest.approx(float(update.norm() / weight.norm()), rel=1e-3)
        assert table.loc[name, "spectral_norm"] == pytest.approx(float(torch.linalg.matrix_norm(update, 2)), rel=1e-3)
        wide = weight.T if layer.fan_in_fan_out else weight
        assert (table.loc[name, "out_features"], table.loc[name, "in_features"]) == tuple(wide.shape)
        assert math.isfinite(table.loc[name, "amplification"])
        assert table.loc[name, "problem"] is None


@pytest.mark.parametrize("folder", FAMILIES, indirect=True)
def test_every_method_is_compared_on_every_family(folder, toy_task, byte_level_tokenizer, training_command):
    done = training_command("compare", "--task", "toy", "--model", folder, "--steps", 2, "--limit", 4, "--format", "json")
    assert done.status == 0, done.err
    table = pd.DataFrame(json.loads(done.out))
    assert table["method"].tolist() == ["zero-shot", *METHODS]
    assert table["n"].tolist() == [4] * 6
    assert table.loc[0, "loss"] == pytest.approx(loss_by_hand(loaded(folder), byte_level_tokenizer, toy_task), abs=1e-3)


def test_the_modules_of_a_family_that_peft_does_not_know_have_to_be_named(
    toy_task, own_runs, own_cache, byte_level_tokenizer, tmp_path, training_command
):
    from transformers import OlmoConfig, OlmoForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}
    folder = saved(OlmoForCausalLM(OlmoConfig(vocab_size=len(byte_level_tokenizer), **sizes)), byte_level_tokenizer, tmp_path / "olmo")
    asked = ("train", "--task", "toy", "--model", folder, "--method", "lora", "--steps", 1, "--name", "it")
    done = training_command(*asked)
    assert done.status == 2
    assert (
        "PEFT names no modules that LoRA changes in a model of the family olmo; name them with --targets, or give --targets all-linear."
        in done.err
    )
    assert training_command(*asked, "--targets", "all-linear").status == 0


def test_the_modules_of_the_embedded_model_are_those_that_its_runs_always_changed():
    assert targets_of(TrainingConfig(task="plural", method="lora")) == ("q_proj", "v_proj")
