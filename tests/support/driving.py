"""Streamlit's own test driver at a page of the dashboard."""

from streamlit.testing.v1 import AppTest

from tests.support.places import REPOSITORY
from tests.support.waiting import PATIENCE, wait_until


def driver_of(view: str, /, *, state: dict | None = None, **query: str | list[str]) -> AppTest:
    """The driver at this page, which has not been run yet, with what its session holds and its link asks for."""
    driver = AppTest.from_file(str(REPOSITORY / "app" / "main.py"), default_timeout=PATIENCE)
    for key, value in (state or {}).items():
        driver.session_state[key] = value
    driver.switch_page(f"views/{view}.py")
    for key, value in query.items():
        driver.query_params[key] = value
    return driver


def settled(driver: AppTest) -> AppTest:
    """The page, drawn again until nothing is being computed beside it."""
    wait_until(lambda: not driver.run().get("progress"))
    return driver


def outside(driver: AppTest, kind: str, block: str) -> list:
    """The elements of this kind on the page that no block of that kind holds."""

    def within(parent) -> list:
        found = []
        for child in parent.children.values():
            if child.type == kind:
                found.append(child)
            elif hasattr(child, "children") and child.type != block:
                found += within(child)
        return found

    return within(driver.main)
