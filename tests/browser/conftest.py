"""A dashboard of the tests' own, served as `make app` serves it, and headless Chromium in front of it."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.support.places import REPOSITORY
from tests.support.waiting import PATIENCE, wait_until

CHROMIUMS = (
    "chromium",
    "google-chrome",
    "chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",  # maps are drawn by WebGL, here in software
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


PATHS = (  # of every page
    "/",
    "/open",
    "/neighbours?prompt=sentiment-words-1",
    "/clusters",
    "/compare",
    "/search",
    "/spectra",
    "/behaviour?prompt=plural-words-1",
    "/train",
    "/methods",
    "/measures",
)
# A busy machine is slow: what is waited for may come late, and only what never comes is a failure.
expect.set_options(timeout=1000 * PATIENCE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def runs_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dashboard") / "runs"


@pytest.fixture(scope="session")
def allowed_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("allowed")


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/_stcore/health", timeout=60).close()
    except OSError:
        return False
    return True


@contextmanager
def served(log: Path, **environment: str) -> Iterator[str]:
    """The address of a dashboard that runs as long as the block, what it writes in a file."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "soft_prompt_explorer", "--port", str(port)]
    with log.open("w") as file:
        server = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | environment, stdout=file, stderr=file)
        try:
            wait_until(lambda: answers(address) or server.poll() is not None)
            assert server.poll() is None, f"the dashboard did not start: {log.read_text()}"
            yield address
        finally:
            server.terminate()
            server.wait(timeout=PATIENCE)


@contextmanager
def headless_chromium() -> Iterator[Browser]:
    """A browser that runs as long as the block."""
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    assert executable, "a browser is needed: Chromium; on Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS, timeout=1000 * PATIENCE)
        yield browser
        browser.close()


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


def window(browser: Browser, address: str, *, width: int = 1400, **options) -> BrowserContext:
    """A fresh window at a dashboard."""
    context = browser.new_context(viewport={"width": width, "height": 1000}, base_url=address, accept_downloads=True, **options)
    context.set_default_timeout(1000 * PATIENCE)
    return context


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
