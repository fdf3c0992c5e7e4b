"""A training that is watched, in a real browser: it stays when its person goes away, nothing is below the fold, and nothing is drawn again that has not moved."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.support.chromium import loaded, window

pytestmark = pytest.mark.slow
FOLD = 900
# Counts how often a chart is drawn, also where it is put on the page anew, and gathers the looks at the words that the page has told meanwhile.
COUNT = """key => {
    [window.drawn, window.looks] = [0, new Set()];
    const listen = () => {
        window.looks.add(document.body.textContent.match(/Nearest words after step \\d+/)?.[0]);
        document.querySelectorAll(`[class*='st-key-${key}'] .js-plotly-plot`).forEach(plot => {
            if (plot.counted) return;
            plot.counted = true; window.drawn++;
            plot.on("plotly_afterplot", () => window.drawn++);
        });
    };
    listen();
    new MutationObserver(listen).observe(document.body, {childList: true, characterData: true, subtree: true});
}"""


@pytest.fixture
def low_window(chromium, dashboard):
    context = window(chromium, dashboard)
    page = context.new_page()
    page.set_viewport_size({"width": 1400, "height": FOLD})
    yield page
    context.close()


def by_menu(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).first.click()
    expect(page.get_by_role("heading", name=name, exact=True, level=1)).to_be_visible()
    loaded(page)


def test_a_training_that_is_left_and_stopped_can_still_be_saved_on_coming_back(low_window, runs_folder):
    page = low_window
    page.goto("/train?task=plural&steps=2000&tokens=4&every=200&limit=10")
    loaded(page)
    page.get_by_role("textbox", name="Name").fill("left alone")
    page.get_by_role("textbox", name="Name").press("Tab")
    expect(page.get_by_text("It will be called left-alone.")).to_be_visible()
    loaded(page)
    train = page.get_by_role("button", name="Train", exact=True)
    assert train.bounding_box()["y"] < FOLD  # all of it is on the screen
    train.click()
    expect(page).to_have_url(re.compile("job="))
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_in_viewport()
    expect(page.get_by_role("heading", name="left-alone")).to_be_in_viewport()
    expect(page.get_by_text(re.compile(r"Nearest words after step [1-9]"))).to_be_visible()

    key = "map-"
    expect(page.locator(f"[class*='st-key-{key}'] .js-plotly-plot").first).to_be_visible()
    page.evaluate(COUNT, key)
    page.wait_for_timeout(10_000)
    drawn, looks = page.evaluate("[window.drawn, window.looks.size]")
    assert drawn <= 3 * (looks + 1)  # a new look draws it, in three events; ten polls that drew it were thirty

    by_menu(page, "Library")
    assert "job=" not in page.url
    by_menu(page, "Train")
    expect(page).to_have_url(re.compile("job="))
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text(re.compile("it is not among your runs yet"))).to_be_in_viewport()
    by_menu(page, "Learn")
    by_menu(page, "Train")
    expect(page).to_have_url(re.compile("job="))
    expect(page.get_by_text(re.compile("it is not among your runs yet"))).to_be_in_viewport()
    page.get_by_role("button", name="Save what it has learned").click()
    expect(page.get_by_text("Saved as left-alone.")).to_be_visible()
    assert (runs_folder / "left-alone" / "run.json").is_file()
