"""The share of false discoveries, beside scipy's."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from soft_prompt_explorer.analysis.core.discoveries import q_values


@pytest.mark.parametrize("shape", [(1,), (7,), (400,), (20, 3)])
def test_it_is_scipys_bit_by_bit_whatever_order_and_ties(shape):
    rng = np.random.default_rng(len(shape))
    for p in (rng.uniform(size=shape), rng.integers(0, 4, shape) / 3, np.zeros(shape), np.ones(shape), rng.uniform(size=shape) ** 9):
        np.testing.assert_array_equal(q_values(p), false_discovery_control(p, axis=None, method="bh").reshape(shape))


def test_of_none_there_is_none_and_what_is_no_probability_is_refused():
    assert q_values([]).shape == (0,)
    for wrong in ([0.2, np.nan], [1.1], [-0.1]):
        with pytest.raises(ValueError, match="from 0 to 1"):
            q_values(wrong)
