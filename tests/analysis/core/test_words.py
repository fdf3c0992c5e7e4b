"""Figures in words: nothing is rounded over a bound that decides."""

import pytest

from soft_prompt_explorer.analysis.core.words import byte_count, p_said, p_value


@pytest.mark.parametrize(
    ("p", "told", "said"),
    [
        (0.0004, "< 0.001", "< 0.001"),
        (0.012, "0.012", "= 0.012"),
        (50 / 1001, "< 0.05", "< 0.05"),  # 0.04995
        (0.05, "0.050", "= 0.050"),
        (0.0504, "0.050", "= 0.050"),
        (0.0494, "0.049", "= 0.049"),
    ],
)
def test_a_p_value_under_the_level_is_not_told_as_the_level(p, told, said):
    assert (p_value(p), p_said(p)) == (told, said)


@pytest.mark.parametrize(
    ("size", "told"), [(996_000, "1 MB"), (9_960_000, "10 MB"), (999_400_000, "999 MB"), (999_600_000, "1 GB"), (1_500_000_000, "1.5 GB")]
)
def test_a_size_has_two_digits_that_count_in_the_unit_that_it_reaches(size, told):
    assert byte_count(size) == told
