"""Sketches of LoRAs beside the exact overlaps of their subspaces, and beside unrelated ones."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.adapters import load_adapter
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.loras.sketching import ALIKE, MODULES, alike, sketches
from soft_prompt_explorer.analysis.loras.subspaces import subspace_similarity
from tests.support.lora_files import gaussian, lora_file

NAMES = [f"layers.{i}.q_proj" for i in range(6)]


def estimate(one: pd.DataFrame, other: pd.DataFrame, side: str) -> float:
    a, b = (np.concatenate(list(table[side])) for table in (one, other))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_sketch_tells_the_exact_overlap_of_the_gallerys_loras():
    adapters = [load_adapter(GALLERY / name) for name in ("capitals-lora-8", "sentiment-lora-8")]
    one, other = map(sketches, adapters)
    assert len(one) == MODULES and one["module"].tolist() == other["module"].tolist()
    for column, side in (("a", "in"), ("b", "out")):
        exact = []
        for module in one["module"]:
            factors = [adapter.modules[module] for adapter in adapters]
            phi = subspace_similarity(*factors, side=side).iloc[-1]["phi"]
            chance = 8 / (factors[0].in_features if side == "in" else factors[0].out_features)
            exact.append((phi - chance) / (1 - chance))
        assert abs(estimate(one, other, column) - np.mean(exact)) < 0.2  # three spreads
    found = alike(pd.concat([one.assign(adapter="one"), other.assign(adapter="other")]))
    assert found.to_numpy().tolist() == [["one", "one", "one"], ["other", "other", "one"]]  # one seed, two tasks


@pytest.mark.parametrize(("modules", "width", "rank"), [(1, 64, 1), (6, 64, 32), (6, 576, 8)])
def test_unrelated_loras_of_any_shape_are_not_alike(tmp_path, modules, width, rank):
    rng, drawn = np.random.default_rng(3), []
    for _ in range(40):
        factors = {name: gaussian(width, width, rank, rng) for name in NAMES[:modules]}
        drawn.append(sketches(lora_file(tmp_path / "adapter.safetensors", factors)))
    likes = [estimate(one, other, side) for one, other in combinations(drawn, 2) for side in "ab"]
    assert max(likes) < ALIKE and abs(np.mean(likes)) < 0.01 and np.std(likes) < 0.08


def test_a_narrow_lora_has_no_sketch_and_an_untrained_one_is_like_none_in_b(tmp_path):
    rng = np.random.default_rng(5)
    narrow = lora_file(tmp_path / "narrow.safetensors", {NAMES[0]: gaussian(16, 64, 2, rng)})
    assert not len(sketches(narrow))
    a, b = gaussian(64, 64, 2, rng)
    untrained = sketches(lora_file(tmp_path / "zero.safetensors", {NAMES[0]: (a, 0 * b)}))
    assert not np.any(untrained["b"][0]) and np.any(untrained["a"][0])
    twice = alike(pd.concat([untrained.assign(adapter="x"), untrained.assign(adapter="y")]))
    assert twice["near_copy_of"].tolist() == ["x", "y"] and twice["same_start_as"].tolist() == ["x", "x"]
