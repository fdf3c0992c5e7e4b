"""A direction's effect is the loss's own second order in it, example by example, and the fewest directions that hold a share are that."""

import numpy as np
import pandas as pd
import pytest
import torch

from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.asking import sensitivity
from soft_prompt_explorer.analysis.asking.sensitivity import by_module, effects, fewest_by_effect
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.tasks.finding import get_task


@pytest.fixture
def measured(toy_task, tiny_lora, language_model) -> pd.DataFrame:
    return effects(load_lora(tiny_lora), get_task("toy"), language_model=language_model)


def losses(model, tokenizer, task) -> list[float]:
    """The mean loss of each training example's answer, one at a time, by plain transformers."""
    found = []
    for text, target in task.examples("train").head(64)[["text", "target"]].itertuples(index=False):
        answer = tokenizer(target, add_special_tokens=False).input_ids
        ids = tokenizer(text).input_ids + answer
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -len(answer) - 1 : -1].double()
        found.append(float(-logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].mean()))
    return found


def test_an_effect_is_half_the_mean_square_of_the_slopes_of_each_examples_loss(toy_task, tiny_lora, language_model, monkeypatch):
    """The slopes by differences, each direction of two modules made a little longer and shorter in the dense weight itself."""
    adapter, task, step = load_lora(tiny_lora), get_task("toy"), 3e-3
    monkeypatch.setattr(sensitivity, "BATCH_SIZE", 3)  # several batches, of unlike lengths
    measured = effects(adapter, task, language_model=language_model)
    dense = {module: factors.scaling * factors.B.astype(np.float64) @ factors.A for module, factors in adapter.modules.items()}
    model = language_model.model
    weights = {module: model.get_submodule(module).weight for module in dense}
    with torch.no_grad():
        for module, weight in weights.items():
            weight += torch.from_numpy(dense[module]).float()
    for module in list(dense)[:1] + list(dense)[-1:]:
        u, values, vt = np.linalg.svd(dense[module])
        for i in (0, 2):
            term = torch.from_numpy(step * values[i] * np.outer(u[:, i], vt[i])).float()
            both = []
            for sign in (1, -1):
                with torch.no_grad():
                    weights[module] += sign * term
                both.append(np.array(losses(model, language_model.tokenizer, task)))
                with torch.no_grad():
                    weights[module] -= sign * term
            slopes = (both[0] - both[1]) / (2 * step)
            row = measured[(measured["module"] == module) & (measured["direction"] == i)].iloc[0]
            assert row["effect"] == pytest.approx(0.5 * np.mean(slopes**2), rel=0.02)
            assert row["singular_value"] == pytest.approx(values[i], rel=1e-5)


def test_shares_are_of_all_modules_and_the_model_is_as_it_was(measured, tiny_lora, language_model, toy_task):
    adapter = load_lora(tiny_lora)
    assert len(measured) == sum(factors.rank for factors in adapter.modules.values())
    assert measured[["energy_share", "effect_share"]].sum().to_numpy() == pytest.approx([1.0, 1.0])
    assert (measured["energy"] == measured["singular_value"] ** 2).all()
    assert not any("lora" in name for name, _ in language_model.model.named_modules())
    assert not any(parameter.requires_grad for parameter in language_model.model.parameters())


def test_the_number_of_examples_is_kept_and_no_held_out_one_is_asked(toy_task, tiny_lora, language_model, monkeypatch):
    task = get_task("toy")
    asked = []
    original = type(task).examples
    monkeypatch.setattr(type(task), "examples", lambda self, split: asked.append(split) or original(self, split))
    two = effects(load_lora(tiny_lora), task, language_model=language_model, examples=2)
    all_of_them = effects(load_lora(tiny_lora), task, language_model=language_model)
    assert set(asked) == {"train"}
    assert not np.allclose(two["effect"], all_of_them["effect"])


def table(effect: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"module": ["a", "a", "b", "b"], "direction": [0, 1, 0, 1], "effect": effect})


@pytest.mark.parametrize(
    ("share", "kept"),
    [(0.5, {"b": [1]}), (0.6, {"a": [0], "b": [1]}), (0.9, {"a": [0, 1], "b": [1]}), (1.0, {"a": [0, 1], "b": [1]}), (0.01, {"b": [1]})],
)
def test_the_fewest_directions_that_hold_a_share_are_of_all_modules_together(share, kept):
    found = fewest_by_effect(table([0.3, 0.2, 0.0, 0.5]), share)
    assert {module: each.tolist() for module, each in found.items()} == kept


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, float("nan")])
def test_no_other_share_is_one(share):
    with pytest.raises(InputError, match="above 0 and at most 1"):
        fewest_by_effect(table([1.0, 1.0, 1.0, 1.0]), share)


def test_rows_are_directions_by_module():
    assert {module: each.tolist() for module, each in by_module(table([0.0] * 4), np.array([3, 0, 1])).items()} == {"a": [0, 1], "b": [1]}
