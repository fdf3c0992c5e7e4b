"""The table of the Library under a hand: sorted, ticked, and left for the page of what was clicked."""

import re

import pytest
from playwright.sync_api import Page, expect

from soft_prompt_explorer.trained_prompts.runs import store
from tests.support.chromium import calm, until

pytestmark = pytest.mark.slow
ROW, HEAD = 35, 35  # pixels


def cell(page: Page, row: int, x: int) -> None:
    """Press a cell of the table; the head is row -1, and the ticks stand at 16 pixels."""
    grid = page.locator("[class*='st-key-library-'] canvas").first
    grid.scroll_into_view_if_needed()
    grid.click(position={"x": x, "y": HEAD + ROW * row + 17}, force=True)


def opened(page: Page, link: str) -> None:
    page.goto(link)
    expect(page.locator("[class*='st-key-library-'] canvas").first).to_be_visible()
    expect(page.locator("[class*='st-key-library-'] tbody tr").first).to_be_attached()
    calm(page)


def test_a_name_that_is_clicked_opens_its_page_also_where_the_table_was_sorted(page):
    loras = store.list_runs().query("method == 'lora'")
    last = sorted(loras["name"])[-1]
    opened(page, "/library?kind=LoRA")
    first = page.locator("[class*='st-key-library-'] tbody tr").first
    for name in (sorted(loras["name"])[0], last):  # by name, and the other way round
        cell(page, -1, 110)
        expect(first).to_contain_text(name)
    until(page.get_by_role("heading", name=last, exact=True, level=1), lambda: cell(page, 0, 110))
    expect(page).to_have_url(re.compile(f"/lora\\?.*lora={last}"))
    page.go_back()
    expect(page.get_by_role("heading", name="Library", level=1)).to_be_visible()
    opened(page, "/library?search=plural-words-2")
    until(page.get_by_role("heading", name="plural-words-2", exact=True, level=1), lambda: cell(page, 0, 110))


def test_keys_walk_through_the_table_and_tick_a_row_and_nothing_opens_by_itself(page):
    opened(page, "/library?kind=LoRA")
    second = page.locator("[class*='st-key-library-'] tbody tr").nth(1).locator("td").first.text_content()
    page.get_by_role("combobox", name="Verdict").focus()
    grid = page.locator("[class*='st-key-library-'] canvas").first
    for _ in range(10):
        page.keyboard.press("Tab")
        if grid.evaluate("grid => grid === document.activeElement || grid.contains(document.activeElement)"):
            break
    page.wait_for_timeout(1000)  # nothing is to come
    calm(page)
    expect(page.get_by_role("heading", name="Library", level=1)).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Space")
    page.get_by_role("button", name=re.compile(f"Read {second}$")).click()
    expect(page.get_by_role("heading", name=second, exact=True, level=1)).to_be_visible()


def test_two_prompts_that_are_ticked_are_compared_in_the_atlas(page):
    opened(page, "/library?kind=prompt&search=plural-words")
    cell(page, 0, 16)
    expect(page.get_by_role("button", name="Read plural-words-1")).to_be_visible()
    expect(page.get_by_role("button", name="Compare them")).to_have_count(0)
    calm(page)
    cell(page, 1, 16)
    page.get_by_role("button", name="Compare them").click()
    expect(page.get_by_role("heading", name="Atlas", level=1)).to_be_visible()
    expect(page.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")
    for name in ("plural-words-1", "plural-words-2"):
        expect(page).to_have_url(re.compile(f"prompts={name}"))
    expect(page.get_by_text("plural-words-2").first).to_be_visible()


def test_two_loras_that_are_ticked_stand_beside_each_other(page):
    opened(page, "/library?kind=LoRA&search=sentiment")
    cell(page, 0, 16)
    expect(page.get_by_role("button", name="Read sentiment-")).to_have_count(1)
    calm(page)
    cell(page, 1, 16)
    page.get_by_role("button", name="Compare them").click()
    expect(page.get_by_role("tab", name="Beside another")).to_have_attribute("aria-selected", "true")
    expect(page).to_have_url(re.compile("other=sentiment-lora-"))
    expect(page.get_by_text("60 modules are in both")).to_be_visible()


def test_a_prompt_and_a_lora_that_are_ticked_together_are_told_what_can_be_done(page):
    opened(page, "/library?tasks=capitals")
    last = page.locator("[class*='st-key-library-'] tbody tr").count() - 1
    cell(page, 0, 16)
    expect(page.get_by_role("button", name="Read capitals-")).to_have_count(1)
    calm(page)
    cell(page, last, 16)  # the LoRAs stand last
    expect(page.get_by_text("are not compared here. Read each on its page")).to_be_visible()
    expect(page.get_by_role("button", name="Compare them")).to_have_count(0)
    page.get_by_role("button", name="Read capitals-lora-8").click()
    expect(page.get_by_role("heading", name="capitals-lora-8", level=1)).to_be_visible()
