"""A dashboard of the tests' own, served as `make app` serves it, and headless Chromium in front of it."""

import pytest
from playwright.sync_api import expect

from tests.support.chromium import headless_chromium, window
from tests.support.made_collection import made_collection
from tests.support.places import REPOSITORY
from tests.support.served import served
from tests.support.waiting import PATIENCE

# A busy machine is slow: what is waited for may come late, and only what never comes is a failure.
expect.set_options(timeout=1000 * PATIENCE)


@pytest.fixture(scope="session")
def runs_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dashboard") / "runs"


@pytest.fixture(scope="session")
def allowed_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("allowed")


@pytest.fixture(scope="session")
def batched(allowed_folder, llama_folder):
    """The folder of a batch's tables, in one that the dashboard may read."""
    return made_collection(allowed_folder / "adapters", allowed_folder / "tables", model=llama_folder, width=16)


@pytest.fixture(scope="session")
def dashboard(embedded_map, runs_folder, allowed_folder, tmp_path_factory):
    """The address of a running dashboard whose runs go to a folder of its own; the map of the embedded vocabulary was made before."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    folders = {"SOFT_PROMPT_EXPLORER_RUNS": str(runs_folder), "SOFT_PROMPT_EXPLORER_FOLDERS": str(allowed_folder)}
    with served(log, **folders) as address:
        yield address
    written = log.read_text()
    # Of this project's own code: Streamlit's server may itself stumble over a browser that closes.
    assert not any(f"{REPOSITORY / room}/" in written for room in ("app", "analysis", "trained_prompts")), written


@pytest.fixture(scope="session")
def chromium():
    with headless_chromium() as browser:
        yield browser


@pytest.fixture
def page(chromium, dashboard):
    """A fresh browser window, 1400 pixels wide; a script error in it fails the test."""
    context = window(chromium, dashboard)
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    context.close()
    assert not errors
