"""A prompt's rows by themselves, beside numpy."""

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.prompts.geometry import MOST_TOKENS, cosines_within, directions_used


def prompt_of(rows: np.ndarray) -> SoftPrompt:
    return SoftPrompt("made", rows.astype(np.float32), None, None, None, None)


def test_cosines_equal_numpys_and_a_repeated_row_is_told():
    rows = np.random.default_rng(0).normal(size=(5, 12))
    rows[4] = rows[1]
    table = cosines_within(prompt_of(rows))
    lengths = np.linalg.norm(rows, axis=1)
    wanted = (rows @ rows.T) / np.outer(lengths, lengths)
    assert len(table) == 10
    assert table["cosine"].tolist() == pytest.approx(
        [wanted[a, b] for a, b in zip(table["position_a"], table["position_b"], strict=True)], abs=1e-6
    )
    assert table.loc[table["same"], ["position_a", "position_b"]].to_numpy().tolist() == [[1, 4]]


def test_directions_hold_the_whole_energy_and_a_prompt_of_zeros_none():
    rows = np.diag([3.0, 4.0]) @ np.eye(2, 7)
    used = directions_used(prompt_of(rows))
    assert used["singular_value"].tolist() == pytest.approx([4.0, 3.0])
    assert used["energy"].tolist() == pytest.approx([16 / 25, 9 / 25])
    zeros = prompt_of(np.zeros((3, 7)))
    assert directions_used(zeros)["energy"].sum() == 0
    assert cosines_within(zeros)["cosine"].abs().max() == 0


def test_one_token_has_no_pair_and_a_long_prompt_is_cut():
    assert cosines_within(prompt_of(np.ones((1, 4)))).empty
    long = prompt_of(np.random.default_rng(1).normal(size=(MOST_TOKENS + 3, 4)))
    assert cosines_within(long)["position_b"].max() == MOST_TOKENS - 1
    assert len(directions_used(long)) == 4
