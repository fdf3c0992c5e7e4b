"""What is drawn stands out from the page: axe sees neither a chart's lines nor the map, so the colours are measured here, by the formula of WCAG 2.2."""

import pytest

from soft_prompt_explorer.app.charts import spectra, theme
from tests.support.grounds import GROUNDS

LINES, WORDS = 3.0, 4.5  # 1.4.11 and 1.4.3


def luminance(colour: str) -> float:
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_formula_gives_what_is_known():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.005)  # the grey that just fails, in every handbook


@pytest.mark.parametrize("page", GROUNDS.values(), ids=GROUNDS)
def test_every_line_and_mark_of_a_chart_stands_out_on_both_pages(page):
    drawn = {*theme.CATEGORY_COLOURS, *(colour for colour, _ in theme.VERDICT_MARKS.values()), theme.GREY, spectra.LINE}
    assert not {colour: round(contrast(colour, page), 2) for colour in drawn if contrast(colour, page) < LINES}


@pytest.mark.parametrize("name", GROUNDS)
def test_everything_on_the_map_stands_out_on_its_page_and_what_is_written_can_be_read(name):
    page, look = GROUNDS[name], theme.MAP_LOOK[name]
    drawn = {*(colours[name] for colours in theme.MAP_COLOURS.values()), *theme.MAP_SCALE[name], *look.values()}
    assert not {colour: round(contrast(colour, page), 2) for colour in drawn if contrast(colour, page) < LINES}
    assert contrast(look["accent"], page) >= WORDS  # labels have it, or the page's text colour


def test_dark_words_can_be_read_on_every_ground_of_a_table_that_is_drawn():
    for scale in (theme.PALE_BLUES, theme.BLUE_WHITE_ORANGE):
        assert all(contrast("#111111", colour) >= WORDS for _, colour in scale)


def test_categories_are_told_apart_by_more_than_colour():
    groups = [f"{i}: group" for i in range(20)]
    marks = list(theme.marks_of(groups).values())
    assert len(set(marks)) == len(groups)
