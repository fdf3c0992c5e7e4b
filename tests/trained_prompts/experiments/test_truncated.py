"""The score of a smaller copy is that of its files."""

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.asking.scores import compare_lora
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.loras.truncation import truncate
from soft_prompt_explorer.trained_prompts.experiments.truncated import DRAWS, WAYS, at_a_share, orders, score_truncated


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


def test_every_way_keeps_as_many_directions_each_by_its_own_order():
    measured = pd.DataFrame({"direction": [0, 1, 0, 1], "energy": [9.0, 4.0, 16.0, 1.0], "effect": [0.1, 0.4, 0.2, 0.3]})
    found = {way: sorted(rows.tolist()) for way, rows in orders(measured, 0.5).items()}
    assert list(found) == list(WAYS) and len(found) == 3 + DRAWS
    assert found["effect"] == [1, 3] and found["energy"] == [0, 2] == found["energy in each module"]
    measured["energy"] = [9.0, 8.0, 2.0, 1.0]
    assert sorted(orders(measured, 0.5)["energy"].tolist()) == [0, 1] and sorted(
        orders(measured, 0.5)["energy in each module"].tolist()
    ) == [0, 2]
    drawn = [tuple(sorted(orders(measured.loc[np.zeros(40, int)], 0.5)[f"random {i}"].tolist())) for i in range(DRAWS)]
    assert len(set(drawn)) == DRAWS and all(len(set(rows)) == 20 for rows in drawn)


def test_a_share_of_the_ranks_is_scored_beside_nothing_and_everything(toy_task, language_model, tiny_lora):
    table = at_a_share(load_lora(tiny_lora), tiny_lora, "toy", language_model=language_model, share=0.25).set_index("kept_by")
    without, whole = (row for _, row in compare_lora(tiny_lora, "whole", "toy", language_model=language_model).iterrows())
    assert table.loc["nothing kept", "loss"] == without["loss"] and table.loc["everything", "loss"] == whole["loss"]
    ranks = table["ranks"].iloc[0]
    assert (table.loc[list(WAYS), "kept"] == round(ranks / 4)).all() and ranks == 24
    assert table["energy_kept"].idxmax() == "everything" and table.loc[list(WAYS), "energy_kept"].idxmax() == "energy"
    assert table.loc[list(WAYS), "effect_kept"].idxmax() == "effect"
    for share in (0.0, 1.0):
        with pytest.raises(InputError, match="above 0 and below 1"):
            at_a_share(load_lora(tiny_lora), tiny_lora, "toy", language_model=language_model, share=share)
