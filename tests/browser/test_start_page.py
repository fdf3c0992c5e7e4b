"""The first page in a browser: the map of all that ships, and the way from a mark on it to its prompt."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.support.chromium import calm, received, window
from tests.support.seen import drawn as all_drawn

pytestmark = pytest.mark.slow
TOKENS = 320
PLACE = """(root, i) => { const { atlas } = root, pane = atlas.panes[0], box = pane.stage.getBoundingClientRect(), { places } = atlas.tokens;
    return [box.left + atlas.view.across(places[2 * i], pane.width), box.top + atlas.view.down(places[2 * i + 1], pane.height)]; }"""
NEAREST_TO_IT = """(root, i) => { const { atlas } = root, pane = atlas.panes[0], { places } = atlas.tokens;
    const found = atlas.at(pane, atlas.view.across(places[2 * i], pane.width), atlas.view.down(places[2 * i + 1], pane.height), 10);
    return [atlas.tokens.prompts[atlas.tokens.prompt[found.i]], atlas.tokens.position[found.i]]; }"""

IN_PIXELS = """root => { const { atlas } = root, pane = atlas.panes[0], { places } = atlas.tokens;
    return Array.from({length: places.length / 2}, (_, i) => [atlas.view.across(places[2 * i], pane.width), atlas.view.down(places[2 * i + 1], pane.height)]); }"""
MOST_BYTES = 7e6


def test_a_browser_that_has_nothing_of_it_yet_receives_little_for_the_first_page(chromium, dashboard):
    context = window(chromium, dashboard)
    page = context.new_page()
    size = received(page)
    page.goto("/")
    expect(page.locator(f".atlas[data-tokens='{TOKENS}']")).to_be_visible()
    all_drawn(page)
    assert 1e6 < sum(size) < MOST_BYTES  # they are counted at all
    context.close()


def test_the_tokens_of_the_first_map_lie_in_no_one_spot_and_come_apart_where_one_goes_nearer(page):
    page.goto("/")
    drawn = page.locator(f".atlas[data-tokens='{TOKENS}']")
    expect(drawn).to_be_visible()
    calm(page)

    def in_fullest_spot() -> float:
        """The share of the tokens in the spot of 100 pixels that holds the most."""
        at = np.array(drawn.evaluate(IN_PIXELS))
        return float((np.linalg.norm(at[:, None] - at[None], axis=2) < 50).mean(1).max())

    at = np.array(drawn.evaluate(IN_PIXELS))
    assert len(at) == TOKENS
    assert np.ptp(at[:, 0]) > 300 and np.ptp(at[:, 1]) > 150
    assert in_fullest_spot() < 0.9  # most began as frequent words, which lie near each other among all words
    assert len(np.unique(at // 18, axis=0)) > 40  # as many marks stand beside each other
    drawn.locator(".stage").scroll_into_view_if_needed()
    middle = np.median(at, axis=0)
    box = drawn.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + middle[0], box["y"] + middle[1])
    for _ in range(12):
        page.mouse.wheel(0, -200)
        page.wait_for_timeout(100)
    assert in_fullest_spot() < 0.4


def test_a_mark_on_the_first_map_opens_its_prompt_and_the_way_back_leads_to_the_map(page):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/")
    drawn = page.locator(f".atlas[data-tokens='{TOKENS}']")
    expect(drawn).to_be_visible()
    calm(page)
    assert not [url for url in asked if "Plotly" in url]  # half of all bytes of a page that has one
    drawn.locator(".stage").scroll_into_view_if_needed()
    number = int(np.random.default_rng(0).integers(TOKENS))
    name, position = drawn.evaluate(NEAREST_TO_IT, number)
    page.mouse.move(*drawn.evaluate(PLACE, number))
    expect(drawn.locator(".tip")).to_contain_text(f"{name}, virtual token {position}")
    page.mouse.click(*drawn.evaluate(PLACE, number))
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    expect(page).to_have_url(re.compile(rf"prompt={name}.*token={position}|token={position}.*prompt={name}"))
    calm(page)
    page.go_back()
    expect(page.get_by_role("heading", name="A soft prompt works")).to_be_visible()
    expect(drawn).to_be_visible()
    calm(page)
    expect(page.get_by_role("heading", name="A soft prompt works")).to_be_visible()


def test_a_group_of_the_legend_is_lit_and_opens_nothing(page):
    page.goto("/")
    drawn = page.locator(f".atlas[data-tokens='{TOKENS}']")
    calm(page)
    drawn.get_by_role("button", name="echo").click()
    expect(drawn).not_to_have_attribute("data-selected", "")
    calm(page)
    expect(page.get_by_role("heading", name="A soft prompt works")).to_be_visible()


@pytest.mark.parametrize("width", [1400, 1024, 390])
def test_the_first_map_is_whole_at_every_width(chromium, dashboard, width):
    context = window(chromium, dashboard, width=width)
    page = context.new_page()
    page.goto("/")
    drawn = page.locator(f".atlas[data-tokens='{TOKENS}']")
    expect(drawn).to_be_visible()
    calm(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for box in (".tools", ".legend", ".stages"):
        assert drawn.locator(box).evaluate("box => box.scrollWidth <= box.clientWidth"), box
    assert drawn.locator(".stage").bounding_box()["width"] > min(0.5 * width, 450)
    context.close()


def test_without_webgl_the_first_page_says_so_and_the_prompts_are_listed(chromium, dashboard):
    context = window(chromium, dashboard)
    page = context.new_page()
    page.add_init_script(
        """const before = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...rest) { return kind === "webgl2" ? null : before.call(this, kind, ...rest); };"""
    )
    page.goto("/")
    expect(page.get_by_text("it offers no WebGL 2")).to_be_visible()
    calm(page)
    page.get_by_role("link", name="plural-words-1").click()
    expect(page.get_by_role("heading", name="plural-words-1", level=1)).to_be_visible()
    context.close()
