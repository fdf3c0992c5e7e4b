"""The tab Collection in a browser: a lasso selects in the table and in the link, a tick marks a dot, and one is opened."""

import io
import re

import pandas as pd
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.chromium import calm, download, plot, until, window
from tests.support.made_collection import ADAPTERS, UNRELATED

pytestmark = pytest.mark.slow

# Where each dot is in the window, by its number.
PLACES = """plot => { const box = plot.getBoundingClientRect(), { xaxis, yaxis } = plot._fullLayout;
    return plot._fullData.flatMap(trace => Array.from(trace.customdata, (number, i) =>
        [number, box.left + xaxis._offset + xaxis.d2p(trace.x[i]), box.top + yaxis._offset + yaxis.d2p(trace.y[i])])); }"""
SELECTED = (
    """plot => plot._fullData.flatMap(trace => Array.from(trace.selectedpoints ?? [], i => trace.customdata[i])).sort((a, b) => a - b)"""
)


def lasso(page: Page, chart: Locator, places: list[tuple[float, float]]) -> None:
    """Draw around these places, with some room."""
    chart.scroll_into_view_if_needed()
    across, down = zip(*places, strict=True)
    left, right, top, bottom = min(across) - 6, max(across) + 6, min(down) - 6, max(down) + 6
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 1)):
        page.mouse.move(x, y, steps=4)
    page.mouse.up()


def tick_first(page: Page, table: Locator) -> None:
    """Tick the first row of a table, once it stands still: what was just unfolded is still moving."""
    expect(table.locator("tbody tr").first).to_be_attached()
    calm(page)
    until(page.get_by_text(re.compile(r"\d+ selected of")), lambda: table.click(position={"x": 18, "y": 52}))


def test_a_lasso_selects_in_the_table_in_the_link_and_for_the_export(page, batched):
    page.goto(f"/library?tab=Collection&collection={batched.name}&of-kind=LoRA")
    chart = plot(page, "map-")
    calm(page)
    expect(page.get_by_text(f"{UNRELATED + 4} of {ADAPTERS} adapters")).to_be_visible()
    chart.scroll_into_view_if_needed()
    places = chart.evaluate(PLACES)
    assert len(places) == UNRELATED + 4
    number, x, y = max(places, key=lambda place: place[1])  # the one that is the farthest to the right
    lasso(page, chart, [(x, y)])
    expect(page.get_by_text(f"1 selected of {UNRELATED + 4} adapters")).to_be_visible()
    expect(page).to_have_url(re.compile(rf"[?&]adapters={number}(&|$)"))
    calm(page)
    exported = pd.read_csv(io.BytesIO(download(page, "CSV", "collection")))
    whole = pd.read_parquet(batched / "manifest.parquet")
    assert exported["path"].tolist() == [whole["path"][number]]
    page.get_by_role("button", name="Clear the selection").click()
    expect(page.get_by_text("1 selected of")).to_have_count(0)
    expect(page).not_to_have_url(re.compile("adapters="))


def test_a_tick_marks_its_dot_and_a_link_to_it_opens_the_single_one(page, batched):
    page.goto(f"/library?tab=Collection&collection={batched.name}&of-kind=LoRA")
    plot(page, "map-")
    calm(page)
    tick_first(page, page.get_by_test_id("stDataFrame").first)
    expect(page.get_by_text("1 selected of")).to_be_visible()
    calm(page)
    first = int(pd.read_parquet(batched / "manifest.parquet")["kind"].eq("lora").idxmax())
    assert plot(page, "map-").evaluate(SELECTED) == [first]

    fresh = page.context.new_page()
    fresh.goto(page.url)
    expect(fresh.get_by_text("1 selected of")).to_be_visible()
    fresh.get_by_role("button", name=re.compile("^Open lora-base")).click()
    expect(fresh.get_by_role("heading", name="lora-base (your file)", level=1)).to_be_visible()
    fresh.get_by_role("link", name="Library").click()
    fresh.get_by_role("tab", name="Collection").click()
    expect(fresh.get_by_text("1 selected of")).to_be_visible()  # as it was left
    expect(fresh).to_have_url(re.compile(rf"[?&]collection={batched.name}&.*adapters={first}(&|$)"))


def test_an_empty_lasso_selects_nothing_and_says_so_and_a_group_of_near_copies_selects_all_of_them(page, batched):
    page.goto(f"/library?tab=Collection&collection={batched.name}&adapters=0-2")
    chart = plot(page, "map-")
    calm(page)
    expect(page.get_by_text("3 selected of")).to_be_visible()
    chart.scroll_into_view_if_needed()
    box = chart.locator(".nsewdrag").first.bounding_box()
    places = [(x, y) for _, x, y in chart.evaluate(PLACES)]
    x, y = next(
        (x, y)
        for x in range(int(box["x"]) + 30, int(box["x"] + box["width"]) - 30, 20)
        for y in range(int(box["y"]) + 30, int(box["y"] + box["height"]) - 30, 20)
        if all(abs(x - across) > 25 or abs(y - down) > 25 for across, down in places)
    )
    lasso(page, chart, [(x, y)])
    expect(page.get_by_text("No dot lies in there")).to_be_visible()
    expect(page.get_by_text(f"All {ADAPTERS} adapters")).to_be_visible()
    expect(page).not_to_have_url(re.compile("adapters="))
    page.locator("summary", has_text="Near copies: ").press("Enter")
    tick_first(page, page.get_by_test_id("stExpander").filter(has_text="Near copies: ").get_by_test_id("stDataFrame"))
    expect(page.get_by_text("3 selected of")).to_be_visible()
    calm(page)
    near = [
        i for i, name in enumerate(pd.read_parquet(batched / "manifest.parquet")["path"]) if re.search("lora-(base|near|zz-again)", name)
    ]
    selected = plot(page, "map-").evaluate(SELECTED)
    assert selected == near


def test_nothing_of_it_is_cut_off_on_a_telephone(chromium, dashboard, batched):
    context = window(chromium, dashboard, width=390, color_scheme="dark")
    page = context.new_page()
    page.goto(f"/library?tab=Collection&collection={batched.name}&more=true&adapters=0-2")
    plot(page, "map-")
    calm(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
