"""Rows of bars and marks: each thing stands where its number is, says what it is by its shape too, and nothing that is written in it is markup."""

import itertools
import math

import pytest

from soft_prompt_explorer.app.charts import theme
from soft_prompt_explorer.app.charts.behaviour import STYLES
from soft_prompt_explorer.app.charts.methods import METHOD_MARKS
from soft_prompt_explorer.app.charts.rows import SHAPES, STYLE, Mark, Row, Scale, columns_chart, row_chart, scale_of, tick_values
from tests.support.rows import of_class, parsed, seen, style, text

SCALE = Scale(-1.0, 3.0, "z")


def test_bars_begin_at_zero_and_end_at_their_value_on_either_side():
    right, left = seen(row_chart([Row("a", "", "", (2.0, "#0072B2")), Row("b", "", "", (-0.5, "#8A8A8A"))], SCALE, alt="")).rows
    assert right.bar == (pytest.approx(0.0), pytest.approx(2.0), "#0072B2")
    assert left.bar == (pytest.approx(-0.5), pytest.approx(0.0), "#8A8A8A")


def test_a_mark_stands_at_its_value_on_its_interval_and_one_without_a_number_is_not_drawn():
    marks = (
        Mark(1.0, "#0072B2", "star", 0.5, 2.5),
        Mark(math.nan, "#8A8A8A", "x", math.nan, math.nan),
        Mark(0.0, "#C98500", "diamond-open"),
    )
    (row,) = seen(row_chart([Row("a", "", "", marks=marks)], SCALE, alt="")).rows
    star, diamond = row.marks
    assert (star.shape, star.value, star.interval) == ("star", pytest.approx(1.0), (pytest.approx(0.5), pytest.approx(2.5)))
    assert (diamond.shape, diamond.value, diamond.interval) == ("diamond-open", pytest.approx(0.0), None)


def test_what_lies_beyond_the_ends_is_drawn_at_them():
    marks = (Mark(-7.0, "#0072B2", "circle", -9.0, 0.0), Mark(7.0, "#0072B2", "circle"))
    low, high = seen(row_chart([Row("a", "", "", marks=marks)], SCALE, alt="")).rows[0].marks
    assert (low.value, low.interval, high.value) == (pytest.approx(-1.0), (pytest.approx(-1.0), pytest.approx(0.0)), pytest.approx(3.0))


def test_an_open_mark_on_a_bar_is_filled_with_the_pages_colour():
    mark = Mark(1.0, "#C98500", "diamond-open")
    on_bar = row_chart([Row("a", "", "", (2.0, "#0072B2"), (mark,))], SCALE, alt="")
    (plate,), (drawn,) = of_class(parsed(on_bar), "plate"), of_class(parsed(on_bar), "mark")
    assert style(plate)["left"] == style(drawn)["left"] and "diamond" in plate.get("class").split()
    assert not of_class(parsed(row_chart([Row("a", "", "", marks=(mark,))], SCALE, alt="")), "plate")


def test_marks_of_one_row_have_lines_of_their_own():
    row = Row("a", "", "", marks=tuple(Mark(1.0, "#0072B2", "circle", lane=lane) for lane in range(2)))
    assert [mark.top for mark in seen(row_chart([row], SCALE, alt="")).rows[0].marks] == ["25%", "75%"]


def test_a_strangers_text_is_text_wherever_it_stands():
    evil = """<img src=x onerror="alert(1)">'&"""
    chart = row_chart(
        [Row(evil, evil, evil, (1.0, "#0072B2"))], Scale(0.0, 2.0, evil), alt=evil, legend=[(evil, "#0072B2", "circle")]
    )  # fmt: skip
    assert "<img" not in chart and not list(parsed(chart).iter("img"))
    drawn = seen(chart)
    (row,) = drawn.rows
    assert {row.label, row.written, row.heard, row.pointed_at, drawn.alt, drawn.title, *drawn.legend} == {evil}


def test_lines_and_bands_go_through_every_row_at_their_values():
    chart = row_chart([Row("a", "", ""), Row("b", "", "")], SCALE, alt="", lines=[0.0], dotted=[2.0], band=(0.5, 1.5))
    drawn = seen(chart)
    assert (drawn.lines, drawn.dotted) == ([pytest.approx(0.0)], [pytest.approx(2.0)])
    assert drawn.bands == [(pytest.approx(0.5), pytest.approx(1.5))]
    assert [len(of_class(parsed(chart), name)) for name in ("band", "dotted")] == [2, 2]


def test_a_scale_holds_zero_and_all_values_and_one_of_nothing_can_be_drawn():
    assert (scale_of([0.5, 0.75], "z", zero=False, room=0.2).low, scale_of([0.5, 0.75], "z", room=0.2).low) == (0.45, 0.0)
    assert scale_of([], "z", zero=False) == scale_of([0.0], "z")
    for values in ([3.0, 5.0], [-3.0, -5.0], [-1.0, 2.0], [0.0], [], [math.nan]):
        scale = scale_of(values, "z")
        assert scale.low < scale.high and scale.low <= 0 <= scale.high
        assert all(scale.low <= value <= scale.high for value in values if not math.isnan(value))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1.05, 1), (0, 1e-4), (-3e5, 12), (0.412, 0.43), (0, 7), (-0.3, -0.1)])
def test_an_axis_has_a_few_round_numbers_within_its_ends(low, high):
    ticks = tick_values(low, high)
    assert 2 <= len(ticks) <= 5
    assert low <= ticks[0] and ticks[-1] <= high
    steps = {round((after - before) / (high - low), 6) for before, after in itertools.pairwise(ticks)}
    assert len(steps) == 1


def test_every_shape_that_a_mark_may_have_can_be_cut_out():
    looks = {*STYLES.values(), *((colour, shape) for colour, shape in METHOD_MARKS.values() if shape not in ("pentagon", "bowtie"))}
    assert {shape for _, shape in looks} <= set(SHAPES)
    assert all(f'.rows .{name} {{ clip-path: path(evenodd, "{path}"); }}' in STYLE for name, path in SHAPES.items())


def test_without_a_title_there_is_no_axis_and_without_details_nothing_is_said_twice():
    tree = parsed(row_chart([Row("a", "98%", "", (0.5, theme.BLUE))], Scale(0.0, 1.0), alt="a: 98%"))
    assert not of_class(tree, "axis") and not of_class(tree, "ears") and not of_class(tree, "tick")
    assert style(of_class(tree, "bar")[0])["width"] == "50.00%"


def test_columns_are_as_high_as_their_counts_with_the_value_among_them():
    chart = columns_chart(
        [1, 4, 2], (0.0, 0.75), 0.5, Scale(-0.25, 1.0, "score"), says="<b>: 0.50", of="7 values", colour="#D55E00", alt="x"
    )
    (steps,), (line,) = of_class(parsed(chart), "steps"), of_class(parsed(chart), "told")
    drawn = style(steps)
    assert (drawn["left"], drawn["width"], style(line)["left"]) == ("20.00%", "60.00%", "60.00%")
    corners = drawn["clip-path"].removeprefix("polygon(").removesuffix(")").split(",")
    assert [corner.split()[1] for corner in corners] == ["100%", "75%", "75%", "0%", "0%", "50%", "50%", "100%"]
    assert [text(each) for each in of_class(parsed(chart), "legend")[0]] == ["<b>: 0.50", "7 values"]
