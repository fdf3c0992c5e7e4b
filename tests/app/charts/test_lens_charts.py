"""The charts of the lens: what stands out has a star and not a colour alone; markup in a token is drawn as text."""

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.behaviour.difference_lens import COLUMNS
from soft_prompt_explorer.app.charts.lens import pushed_words, words_by_layer
from tests.support.rows import seen

ROWS = [
    ("a", "", layer, rank, rank, token, 1.0, 9.0 - rank - layer / 10, q, 0.1, np.nan, np.nan, "start")
    for layer in (4, 30)
    for rank, (token, q) in enumerate([(" yes", 0.01), ("<b>", 0.2)])
]
TABLE = pd.DataFrame(ROWS, columns=COLUMNS)


def test_words_beyond_chance_have_a_star():
    chart = seen(pushed_words(TABLE[TABLE["layer"] == 30], alt="x"))
    assert [(row.label, row.written) for row in chart.rows] == [("★ ␣yes", "6.0"), ("<b>", "5.0")]
    np.testing.assert_allclose([row.bar[:2] for row in chart.rows], [(0, 6), (0, 5)], atol=0.01)
    assert chart.rows[0].bar[2] != chart.rows[1].bar[2]
    assert not chart.legend and not any(row.marks for row in chart.rows)


def test_a_twin_has_marks_of_its_own():
    table = TABLE[TABLE["layer"] == 30].assign(twin_z=[5.5, -1.0], twin_p=[0.01, 1.0])
    chart = seen(pushed_words(table, alt="x"))
    (first,), (second,) = (row.marks for row in chart.rows)
    np.testing.assert_allclose([first.value, second.value, chart.rows[1].bar[0]], [5.5, -1.0, 0.0], atol=0.01)
    assert chart.legend["its twin, trained on shuffled answers"] == (first.shape, first.colour) == ("diamond-open", second.colour)
    assert chart.rows[0].heard == chart.rows[0].pointed_at == "␣yes: z 6.0, score 1.00, q 0.010; its twin z 5.5, p 0.010"


def test_layers_are_columns_in_their_order():
    (cells,) = words_by_layer(TABLE).data
    assert list(cells.x) == ["layer 4", "layer 30"] and cells.z.shape == (2, 2)
