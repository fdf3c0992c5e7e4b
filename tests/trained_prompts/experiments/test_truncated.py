"""The score of a smaller copy is that of its files."""

import pytest

from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.asking.scores import compare_lora
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.loras.truncation import truncate
from soft_prompt_explorer.trained_prompts.experiments.truncated import score_truncated


@pytest.mark.parametrize("energy", [0.5, 1.0])
def test_it_is_scored_as_the_files_that_truncation_writes(toy_task, language_model, tiny_lora, tmp_path, energy):
    truncate(load_lora(tiny_lora), energy, tmp_path / "cut")
    of_files = compare_lora(tmp_path / "cut", "cut", "toy", language_model=language_model).iloc[1]
    scored = score_truncated(load_lora(tiny_lora), energy, "toy", language_model=language_model).iloc[0]
    assert scored["prompt"] == f"lora at {energy:.0%} of its energy"
    assert scored.drop(["prompt", "seconds"]).to_dict() == of_files.drop(["prompt", "seconds"]).to_dict()


def test_all_of_the_energy_scores_as_the_whole_and_half_of_it_does_not(toy_task, language_model, tiny_lora):
    without, whole = (row for _, row in compare_lora(tiny_lora, "whole", "toy", language_model=language_model).iterrows())
    all_of_it, half = (score_truncated(load_lora(tiny_lora), share, "toy", language_model=language_model).iloc[0] for share in (1.0, 0.5))
    assert all_of_it["loss"] == pytest.approx(whole["loss"], abs=1e-5)
    assert abs(half["loss"] - whole["loss"]) > 1e-4 < abs(half["loss"] - without["loss"])


def test_only_so_many_examples_are_scored_and_half_an_order_is_refused(toy_task, language_model, tiny_lora):
    assert score_truncated(load_lora(tiny_lora), 0.9, "toy", language_model=language_model, limit=2)["n"].item() == 2
    with pytest.raises(InputError, match="above 0"):
        score_truncated(load_lora(tiny_lora), 0.0, "toy", language_model=language_model)
