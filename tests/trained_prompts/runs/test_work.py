"""What a step multiplies and keeps, counted from a config, is what torch counts in the step itself."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.size import total_parameters
from soft_prompt_explorer.analysis.models.weights import prepare_model
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.trained_prompts.runs import work
from soft_prompt_explorer.trained_prompts.runs.estimates import _tokens
from soft_prompt_explorer.trained_prompts.runs.work import (
    EMBEDDED,
    Shape,
    Step,
    bytes_kept,
    operations,
    products_a_second,
    seconds,
    shape_in,
)
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.tiny_models import FAMILIES, model_of

STEPS = 8


def test_the_shape_that_ships_is_the_embedded_models_own():
    assert shape_in(prepare_model(EMBEDDED_MODEL), total_parameters(EMBEDDED_MODEL)) == EMBEDDED


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prompt-tuning", "lora", "full"])
def test_the_operations_of_a_step_are_those_that_torch_counts(embedded_model, method):
    """Attention's own products and the LoRA's factors are left out, and a batch's answers stand in more columns than each example's own."""
    config = TrainingConfig(task="antonyms", method=method, steps=STEPS, device="cpu")
    steps = train(config, language_model=embedded_model)
    next(steps)
    with FlopCounterMode(display=False) as counted:
        list(steps)
    tokens = _tokens(TASKS["antonyms"], EMBEDDED_MODEL)
    virtual = config.described().get("tokens", 0)
    said = operations(EMBEDDED, Step(method, config.batch_size * (tokens.mean + virtual), config.batch_size * tokens.answer))
    assert said == pytest.approx(counted.get_total_flops() / STEPS, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prompt-tuning", "lora", "full"])
def test_what_a_step_keeps_is_what_torch_saves_for_the_way_back(embedded_model, method):
    config = TrainingConfig(task="sentiment", method=method, steps=3, device="cpu")
    steps = train(config, language_model=embedded_model)
    next(steps)
    weights = {weight.untyped_storage().data_ptr() for weight in embedded_model.model.parameters()}
    most, kept = 0, {}

    def pack(tensor):
        nonlocal most
        if (
            tensor.untyped_storage().data_ptr() not in weights and tensor.numel() < 20_000_000
        ):  # of full fine-tuning the copy's own weights are larger, or the vocabulary
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            most = max(most, sum(kept.values()))
        return tensor

    lengths = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        for step in steps:
            kept.clear()
            lengths.append(step.step)
    tokens = _tokens(TASKS["sentiment"], EMBEDDED_MODEL)
    virtual = config.described().get("tokens", 0)
    mean, longest = (
        bytes_kept(EMBEDDED, Step(method, config.batch_size * (each + virtual), 0), "float32") for each in (tokens.mean, tokens.longest)
    )
    assert 0.6 * mean < most < 1.3 * longest


def test_the_shape_of_every_family_is_read(byte_level_tokenizer, tmp_path):
    for family in FAMILIES:
        model = model_of(family, byte_level_tokenizer)
        model.save_pretrained(tmp_path / family)
        parameters = sum(weight.numel() for weight in model.parameters())
        shape, config = shape_in(tmp_path / family, parameters), model.config
        assert (shape.layers, shape.width, shape.vocabulary) == (config.num_hidden_layers, config.hidden_size, config.vocab_size), family
        assert shape.body == parameters - sum(
            weight.numel() for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
        )


def test_more_work_takes_longer_and_more_room():
    shape = Shape(2, 64, 128, 1_000, 100_000)
    few, many = Step("lora", 20, 8), Step("lora", 2_000, 8)
    assert seconds(shape, many, "float32", "cpu") > seconds(shape, few, "float32", "cpu") > 0
    assert operations(shape, Step("full", 10, 2)) == 6 * (100_000 * 10 + 64_000 * 2)
    assert operations(shape, Step("prompt-tuning", 10, 2)) == 4 * (100_000 * 10 + 64_000 * 2)
    wide = replace(many, factors=50_000)
    assert operations(shape, wide) - operations(shape, many) == 6 * 50_000 * 2_000
    assert bytes_kept(shape, wide, "float32") - bytes_kept(shape, many, "float32") == 16 * 50_000
    again = replace(many, again=True)
    assert operations(shape, again) == 1.5 * operations(shape, many)
    assert bytes_kept(shape, again, "float32") < bytes_kept(shape, many, "float32")
    full = replace(many, method="full")
    assert bytes_kept(shape, full, "bfloat16") == bytes_kept(shape, full, "float32")


def test_a_device_is_measured_anew_after_a_minute_and_the_best_counts(monkeypatch):
    speeds, clock = iter([5.0, 9.0, 2.0]), [100.0]
    monkeypatch.setattr(work, "_measured", {})
    monkeypatch.setattr(work, "_measure", lambda *_: next(speeds))
    monkeypatch.setattr(work, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    shape = Shape(2, 64, 128, 1_000, 100_000)
    found = []
    for at in (100.0, 130.0, 170.0, 240.0):
        clock[0] = at
        found.append(products_a_second("float32", "cpu", 150, shape))
    assert found == [5.0, 5.0, 9.0, 9.0]


def test_what_a_device_is_measured_with_is_never_large(monkeypatch):
    asked = []
    monkeypatch.setattr(work, "_measured", {})
    monkeypatch.setattr(work, "_measure", lambda *what: asked.append(what) or 1.0)
    for tokens in (1, 100, 1e9):
        products_a_second("float32", "cpu", tokens, Shape(2, 10**7, 10**7, 1_000, 100_000))
    assert asked == [("float32", "cpu", 64, 2_048, 8_192), ("float32", "cpu", 256, 2_048, 8_192)]
