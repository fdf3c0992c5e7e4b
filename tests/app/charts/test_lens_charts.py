"""The charts of the lens: what stands out has a star and not a colour alone; markup in a token is drawn as text."""

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.behaviour.lens import COLUMNS
from soft_prompt_explorer.app.charts.lens import pushed_words, words_by_layer

ROWS = [
    ("a", "", layer, rank, rank, token, 1.0, 9.0 - rank - layer / 10, q, 0.1, np.nan, np.nan, "start")
    for layer in (4, 30)
    for rank, (token, q) in enumerate([(" yes", 0.01), ("<b>", 0.2)])
]
TABLE = pd.DataFrame(ROWS, columns=COLUMNS)


def test_words_beyond_chance_have_a_star():
    (bars,) = pushed_words(TABLE[TABLE["layer"] == 30]).data
    assert [label.startswith("★") for label in bars.y] == [True, False]
    assert "<b>" not in bars.y[1] and "&lt;b&gt;" in bars.y[1]
    assert list(bars.x) == [6.0, 5.0]


def test_a_twin_has_marks_of_its_own():
    table = TABLE[TABLE["layer"] == 30].assign(twin_z=[5.5, -1.0], twin_p=[0.01, 1.0])
    bars, twin = pushed_words(table).data
    assert list(twin.x) == [5.5, -1.0] and list(twin.y) == list(bars.y)
    assert twin.mode == "markers" and "twin" in twin.name


def test_layers_are_columns_in_their_order():
    (cells,) = words_by_layer(TABLE).data
    assert list(cells.x) == ["layer 4", "layer 30"] and cells.z.shape == (2, 2)
