"""What a page shows only after somebody has done something there: axe finds it as sound as the page before, light and dark, and nothing is cut off."""

import time
from contextlib import suppress

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.support.chromium import AGAIN, calm, loaded, upload
from tests.support.seen import cut_off, findings, turned, unnamed
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.slow
BEHAVIOUR = "/prompt?prompt=plural-words-1&tab=Behaviour&view="


def wrong(page: Page) -> list[str]:
    """What is found on the page as it stands now, on a wide and on a narrow window."""
    found = []
    for width in (1400, 390):
        page.set_viewport_size({"width": width, "height": 1000})
        for theme in ("light", "dark"):
            turned(page, theme)
            expect(page.get_by_test_id("stException")).to_have_count(0)
            found += [f"{width} {theme} {each}" for each in findings(page)]
        found += [f"{width} {each}" for each in cut_off(page)]
    page.set_viewport_size({"width": 1400, "height": 1000})
    return found + unnamed(page)


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        (f"{BEHAVIOUR}One+token", "How much the answer attends to it"),
        (f"{BEHAVIOUR}Inside", "Attention of the answer to the prompt"),
        (f"{BEHAVIOUR}In+words", "Let the model write"),
        ("/atlas?prompts=capitals-words-1&prompts=sentiment-words-1&selected=0-12", "13 selected virtual tokens"),
        ("/library?verdict=unreadable&search=random", "unreadable"),
    ],
)
def test_a_view_that_is_chosen_is_sound(page, path, seen):
    page.goto(path)
    calm(page)
    expect(page.get_by_text(seen).or_(page.get_by_placeholder(seen)).first).to_be_visible()
    found = wrong(page)
    assert not found, "\n".join(found)


def begun(page: Page, name: str, steps: int) -> None:
    """Train under a name."""
    page.goto(f"/train?task=plural&steps={steps}&tokens=3&limit=10")
    loaded(page)
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("textbox", name="Name").press("Tab")
    loaded(page)
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()


def test_a_training_that_was_saved_is_sound(page):
    begun(page, "sound-saved", 4)
    expect(page.get_by_text("Saved as sound-saved.")).to_be_visible()
    calm(page)
    found = wrong(page)
    assert not found, "\n".join(found)


def test_a_training_that_was_stopped_is_sound_and_so_is_the_tray_meanwhile(page):
    begun(page, "sound-stopped", 2000)
    expect(page.get_by_text("left, then the scores")).to_be_visible()
    page.get_by_role("link", name="Learn", exact=True).first.click()
    expect(page.get_by_role("heading", name="Learn", level=1)).to_be_visible()
    tray = page.get_by_test_id("stPopoverButton").filter(has_text="running")
    found = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        tray.click()
        body = page.get_by_test_id("stPopoverBody")
        expect(body.get_by_role("button", name="Stop")).to_be_visible()
        page.wait_for_timeout(500)
        found += [f"tray {theme} {each}" for each in findings(page, "[data-testid=stPopoverBody]")]
        page.keyboard.press("Escape")
        expect(body).to_have_count(0)
    page.go_back()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("not among your runs yet")).to_be_visible()
    calm(page)
    found += wrong(page)
    page.get_by_role("button", name="Discard", exact=True).click()
    expect(page.get_by_text("not among your runs yet")).to_have_count(0)
    assert not found, "\n".join(found)


def test_the_receipt_of_a_file_and_the_geometry_of_what_cannot_be_read_are_sound(page, tmp_path):
    np.save(tmp_path / "far.npy", np.random.default_rng(2).standard_normal((6, 768)).astype(np.float32))
    upload(page, tmp_path / "far.npy")
    expect(page.get_by_text("Its words cannot be read yet")).to_be_visible()
    found = [f"receipt {each}" for each in wrong(page)]
    page.get_by_role("button", name="Read this prompt").click()
    expect(page.get_by_role("heading", name="Its geometry")).to_be_visible()
    calm(page)
    found += [f"geometry {each}" for each in wrong(page)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "path",
    ["/prompt?prompt=plural-words-1&tab=Tokens", "/prompt?prompt=plural-words-1&tab=What+it+does", "/lora?lora=sentiment-lora-8&tab=Ranks", "/train", "/learn?tab=Measures"],
)  # fmt: skip
def test_what_folds_out_is_sound_when_it_is_open(page, path):
    page.goto(path)
    calm(page)
    folded = page.locator("[data-testid='stExpander'] details:not([open]) > summary")
    expect(folded).not_to_have_count(0)
    deadline = time.monotonic() + PATIENCE
    while (left := folded.count()) and time.monotonic() < deadline:
        with suppress(AssertionError):  # a page that is being drawn anew takes no press
            folded.first.press("Enter")  # a mouse may miss what moves while another one opens
            expect(folded).not_to_have_count(left, timeout=AGAIN)
        calm(page)
    expect(folded).to_have_count(0)
    found = wrong(page)
    assert not found, "\n".join(found)
