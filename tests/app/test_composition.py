"""How the dashboard is put together: every page has a record, and links are made from records."""

import ast

import pytest

from soft_prompt_explorer.app.pages import HERO, HERO_LORA, MOVED, PAGES, goes_on
from tests.support.places import REPOSITORY

APP = REPOSITORY / "app"


def test_every_view_has_a_record_and_every_record_a_view():
    assert sorted(page.file for page in PAGES) == sorted(f"views/{path.name}" for path in (APP / "views").glob("[!_]*.py"))
    assert len({page.url_path for page in PAGES}) == len({page.title for page in PAGES}) == len(PAGES)


def test_no_link_names_a_view_but_by_its_record():
    for path in APP.rglob("*.py"):
        texts = [
            node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        if path != APP / "pages.py":
            assert not [text for text in texts if text.startswith("views/")], path


def test_a_view_fits_two_screens_and_no_module_is_a_heap():
    for path in APP.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= (120 if path.parent.name == "views" else 500), path


@pytest.mark.parametrize(
    ("address", "said", "to", "link"),
    [
        ("gallery", [], "library", []),
        ("open", [("path", "a.npy")], "library", [("tab", "Open a file"), ("path", "a.npy")]),
        ("neighbours", [("prompt", "a"), ("k", "3")], "prompt", [("tab", "Tokens"), ("prompt", "a"), ("k", "3")]),
        ("behaviour", [("prompt", "a"), ("view", "Inside")], "prompt", [("tab", "Behaviour"), ("prompt", "a"), ("view", "Inside")]),
        ("behaviour", [("prompt", "a"), ("view", "Answers")], "prompt", [("tab", "Try it"), ("prompt", "a"), ("view", "Answers")]),
        ("spectra", [("lora", "a")], "lora", [("tab", "Ranks"), ("lora", "a")]),
        ("spectra", [("lora", "a"), ("keep", "0.9")], "lora", [("tab", "Smaller copy"), ("lora", "a"), ("keep", "0.9")]),
        ("spectra", [("lora", "a"), ("other", "b")], "lora", [("tab", "Beside another"), ("lora", "a"), ("other", "b")]),
        ("methods", [("task", "toy")], "learn", [("tab", "Methods"), ("task", "toy")]),
        ("measures", [("group", "Maps")], "learn", [("tab", "Measures"), ("group", "Maps")]),
        ("prompt", [("tab", "Tokens")], "prompt", [("tab", "Tokens"), ("prompt", HERO)]),
        ("lora", [], "lora", [("lora", HERO_LORA)]),
    ],
)
def test_an_address_of_before_leads_to_what_shows_now_what_it_showed_with_all_that_it_said(address, said, to, link):
    assert goes_on(address, said) == (to, link)
    assert goes_on(to, link) is None


def test_no_address_of_before_is_a_pages_own_and_each_leads_to_a_page():
    assert not {moved.url_path for moved in MOVED} & {page.url_path for page in PAGES}
    assert {moved.to for moved in MOVED} <= set(PAGES)


def test_the_first_page_is_found_by_its_name_too():
    assert goes_on("start", [("step", "2")]) == ("", [("step", "2")])
    assert goes_on("", [("step", "2")]) is None
