"""No page is an end: each leads on to another."""

import pytest

from soft_prompt_explorer.app.pages import HERO, HERO_LORA, LORA, ONWARD, PAGES, PROMPT
from tests.support.driving import driver_of, settled

pytestmark = pytest.mark.slow
ABOUT = {PROMPT: {"prompt": HERO}, LORA: {"lora": HERO_LORA}}


def said(link) -> tuple[str, str, str]:
    return link.proto.label, link.proto.page, link.proto.query_string


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.title)
def test_every_page_leads_on(embedded_map, own_runs, page):
    view = page.file.removeprefix("views/").removesuffix(".py")
    driver = settled(driver_of(view, **ABOUT.get(page, {})))
    assert not driver.exception and not driver.error
    links = [said(link) for link in driver.get("page_link")]
    links.remove(next(link for link in links if link[0] == "Open a file"))  # of the frame, which every page has
    assert [link for link in links if link[1] != page.url_path or link[2]]
    assert {(each.label, each.to.url_path) for each in ONWARD.get(page.url_path, ())} <= {link[:2] for link in links}


def test_the_ways_on_below_a_page_lead_to_other_pages_and_those_draw(embedded_map, own_runs):
    for here, ways in ONWARD.items():
        for way in ways:
            assert way.to.url_path != here
            driver = settled(driver_of(way.to.file.removeprefix("views/").removesuffix(".py"), **way.query))
            assert not driver.exception and not driver.error
            if "tab" in way.query:
                assert way.query["tab"] in [tab.label for tab in driver.tabs]
