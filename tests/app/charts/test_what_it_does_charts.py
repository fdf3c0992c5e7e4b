"""The charts of texts in an adapter's place and of readings compared: what a colour says, a shape says too; text is drawn as text."""

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.behaviour.translation import COLUMNS
from soft_prompt_explorer.app.charts.readings import readings_compared
from soft_prompt_explorer.app.charts.translation import shares
from soft_prompt_explorer.trained_prompts.experiments import benchmark
from tests.support.rows import seen

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
    chart = seen(shares(TABLE, alt="x"))
    shapes = {name: shape for name, (shape, _) in chart.legend.items()}
    assert shapes == {"the text that was chosen": "star", "other texts": "circle", "a mixture of texts": "diamond", "controls": "x"}
    assert len({colour for _, colour in chart.legend.values()}) == 4
    assert [row.label for row in chart.rows] == ["mixture", "4 examples", "nearest words", "4 examples of <b>", "random words"]
    marks = [mark for row in chart.rows for mark in row.marks]
    assert [mark.shape for mark in marks] == ["diamond", "star", "circle", "x", "x"]
    np.testing.assert_allclose([mark.value for mark in marks], [0.95, 0.9, -1.0, 0.5, -0.2], atol=1e-3)
    np.testing.assert_allclose([marks[1].interval, marks[2].interval], [(0.8, 1.0), (-1.0, -1.0)], atol=1e-3)
    assert chart.rows[2].written == "-3.00"
    np.testing.assert_allclose([chart.lines, chart.dotted], [[0], [0.6]], atol=1e-3)


def test_before_the_controls_are_told_there_is_no_line_of_theirs():
    chart = seen(shares(TABLE.head(3), alt="x"))
    np.testing.assert_allclose(chart.lines, [0], atol=1e-3)
    assert not chart.dotted


def test_readings_stand_in_rows_with_chance_beside_them():
    rows = [
        ("lens", "soft prompts", 30, 0.3, 0.2, 0.5, 0.01, 0.05, 1.0, 0.5, 0.3, 0.7, 30, 60, 0.2),
        ("lens", "LoRAs", 10, 0.4, 0.2, 0.7, 0.01, 0.05, 1.0, np.nan, np.nan, np.nan, 0, 60, np.nan),
    ]
    table = pd.DataFrame(rows, columns=benchmark.COLUMNS)
    named, apart = (seen(readings_compared(table, question, alt="x")) for question in ("named", "told apart"))
    (row,) = named.rows
    assert (row.label, row.written) == ("lens", "30%\n40%")
    twin, prompts, loras = row.marks  # of the LoRAs' twins nothing is known
    assert [mark.shape for mark in row.marks] == ["circle-open", "circle", "square"] and twin.top == prompts.top != loras.top
    np.testing.assert_allclose([mark.value for mark in row.marks], [0.2, 0.3, 0.4], atol=1e-3)
    np.testing.assert_allclose([prompts.interval, loras.interval], [(0.2, 0.5), (0.2, 0.7)], atol=1e-3)
    assert named.legend == {"soft prompts": ("circle", prompts.colour), "LoRAs": ("square", loras.colour)}
    (row,) = apart.rows
    (mark,) = row.marks
    assert (mark.shape, row.written) == ("circle", "50%") and list(apart.legend) == ["soft prompts"]
    np.testing.assert_allclose([mark.value, *mark.interval], [0.5, 0.3, 0.7], atol=1e-3)
    np.testing.assert_allclose([named.dotted, apart.dotted], [[0.1], [0.5]], atol=1e-3)
