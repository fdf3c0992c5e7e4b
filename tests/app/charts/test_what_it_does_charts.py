"""The charts of texts in an adapter's place and of readings compared: what a colour says, a shape says too; text is drawn as text."""

import numpy as np
import pandas as pd
import pytest

from soft_prompt_explorer.analysis.behaviour.translation import COLUMNS
from soft_prompt_explorer.app.charts.readings import readings_compared
from soft_prompt_explorer.app.charts.translation import shares
from soft_prompt_explorer.trained_prompts.experiments import benchmark

CANDIDATES = [
    ("nothing", 0.0, False), ("nearest words", -3.0, False), ("4 examples", 0.9, True), ("mixture", 0.95, False),
    ("control: 4 examples of <b>", 0.5, False), ("control: random words", -0.2, False),
]  # fmt: skip
TABLE = pd.DataFrame(
    [
        ("a", "", "t", name, "" if name == "nothing" else "x", 1, np.nan, 1.0, share, share - 0.1, share + 0.1, 0.5, 0.5, 9, chosen)
        for name, share, chosen in CANDIDATES
    ],
    columns=COLUMNS,
)


def test_texts_are_told_by_shape_and_what_is_worse_than_nothing_without_end_is_drawn_at_the_edge():
    figure = shares(TABLE)
    shapes = {trace.name: trace.marker.symbol for trace in figure.data}
    assert shapes == {"the text that was chosen": "star", "other texts": "circle", "a mixture of texts": "diamond", "controls": "x"}
    by_name = {trace.name: trace for trace in figure.data}
    assert list(by_name["other texts"].x) == [-1.0] and by_name["other texts"].customdata[0][1] == -3.0
    assert list(figure.layout.yaxis.ticktext) == ["mixture", "4 examples", "nearest words", "4 examples of &lt;b&gt;", "random words"]
    assert [shape.x0 for shape in figure.layout.shapes] == [0, 0.6]


def test_before_the_controls_are_told_there_is_no_line_of_theirs():
    assert [shape.x0 for shape in shares(TABLE.head(3)).layout.shapes] == [0]


def test_readings_stand_in_rows_with_chance_beside_them():
    rows = [
        ("lens", "soft prompts", 30, 0.3, 0.2, 0.5, 0.01, 0.05, 1.0, 0.5, 0.3, 0.7, 30, 60, 0.2),
        ("lens", "LoRAs", 10, 0.4, 0.2, 0.7, 0.01, 0.05, 1.0, np.nan, np.nan, np.nan, 0, 60, np.nan),
    ]
    figure = readings_compared(pd.DataFrame(rows, columns=benchmark.COLUMNS))
    assert [(trace.name, trace.marker.symbol, list(trace.x)) for trace in figure.data] == [
        ("soft prompts", "circle", [0.3]), ("their twins (soft prompts)", "circle-open", [0.2]), ("LoRAs", "square", [0.4]),
        ("their twins (LoRAs)", "square-open", [pytest.approx(np.nan, nan_ok=True)]), ("soft prompts", "circle", [0.5]), ("LoRAs", "square", []),
    ]  # fmt: skip
    assert [shape.x0 for shape in figure.layout.shapes] == [0.1, 0.5]
