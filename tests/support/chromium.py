"""Headless Chromium in front of the dashboard, and what a person does there again and again."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from playwright.sync_api import Browser, BrowserContext, Error, Locator, Page, expect, sync_playwright

from tests.support.waiting import PATIENCE

CHROMIUMS = (
    "chromium",
    "google-chrome",
    "chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
AGAIN = 45_000  # milliseconds, after which who pressed something that did nothing presses it again
SLOWER = float(os.environ.get("SLOWER", 1))  # times, to find what waits for too little: a browser on a machine as busy as that
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu-compositing",  # software draws the pages either way, and so with an eighth less processor time
    "--use-angle=swiftshader",  # maps are drawn by WebGL, here in software
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def headless_chromium() -> Iterator[Browser]:
    """A browser that runs as long as the block."""
    executable = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    assert executable, "a browser is needed: Chromium; on Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS, timeout=1000 * PATIENCE)
        yield browser
        browser.close()


def window(browser: Browser, address: str, *, width: int = 1400, **options) -> BrowserContext:
    """A fresh window at a dashboard."""
    context = browser.new_context(viewport={"width": width, "height": 1000}, base_url=address, accept_downloads=True, **options)
    context.set_default_timeout(1000 * PATIENCE)
    if SLOWER > 1:
        context.on("page", lambda page: context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": SLOWER}))
    return context


LOADED = """() => document.querySelector("h1") && window.softPromptExplorerSteps
    && document.querySelector("[data-test-script-state='notRunning']")"""


def loaded(page: Page) -> None:
    """Wait until the page is drawn with the script around it and no run of its own goes on, all at one moment."""
    page.wait_for_function(LOADED)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def until(seen: Locator, act: Callable[[], None]) -> None:
    """Do this, and again where it brought nothing: a page that is being drawn anew takes no press. At last what it brings has to be seen."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(Error, AssertionError):
            act()
            expect(seen).to_be_visible(timeout=AGAIN)
            return
    expect(seen).to_be_visible()


def download(page: Page, label: str, table: str = "st-key") -> bytes:
    """What the button of that label gives, of the table whose file's name holds these words; of the first table without them. It stands behind one of the buttons “Download”."""
    calm(page)  # a page that is drawn again breaks a download off
    button = page.locator(f"[class*='st-key-download-'][class*='{table}']").get_by_role("button", name=label, exact=True).first
    for opens in page.get_by_test_id("stPopoverButton").filter(has_text="Download", visible=True).all():
        until(page.get_by_test_id("stPopoverBody").get_by_role("button").first, opens.click)
        if button.is_visible():
            break
        page.keyboard.press("Escape")
        expect(page.get_by_test_id("stPopoverBody")).to_have_count(0)
    with page.expect_download() as event:
        button.click()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("stPopoverBody")).to_have_count(0)
    return event.value.path().read_bytes()


def upload(page: Page, *files) -> None:
    page.goto("/library?tab=Open+a+file")
    loaded(page)
    page.locator('input[type="file"]').set_input_files(list(files))


CALM = f"""{LOADED}
    && !document.querySelector("[data-testid='stProgress'], [data-testid='stSkeleton']")"""


def calm(page: Page) -> None:
    """Wait until the page is drawn, no script runs, nothing is being computed and nothing is still to come in its place, all at one moment."""
    page.wait_for_function(CALM)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def plot(page: Page, key: str) -> Locator:
    """The chart of a key, once it is drawn."""
    chart = page.locator(f"[class*='st-key-{key}'] .js-plotly-plot")
    expect(chart).to_be_visible()
    return chart


def received(page: Page) -> list[float]:
    """The bytes that a page receives from now on, answers and messages."""
    size: list[float] = []
    network = page.context.new_cdp_session(page)
    network.on("Network.loadingFinished", lambda event: size.append(event["encodedDataLength"]))
    network.on("Network.webSocketFrameReceived", lambda event: size.append(len(event["response"]["payloadData"]) * 3 / 4))
    network.send("Network.enable")
    return size


def choose_prompt(page: Page, label: str) -> None:
    """This prompt alone in the field “Prompts”."""
    field = page.get_by_test_id("stMultiSelect")
    field.get_by_role("button", name="Clear all").click()
    field.get_by_role("combobox").fill(label)
    page.get_by_role("option", name=label).click()
    page.keyboard.press("Escape")
