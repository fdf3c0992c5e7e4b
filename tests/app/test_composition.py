"""How the dashboard is put together: every page has a record, and links are made from records."""

import ast

from soft_prompt_explorer.app.pages import PAGES
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
