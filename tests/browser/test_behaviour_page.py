"""What a person learns of a prompt's behaviour: the verdict at once, every row by download, the first rows soon where nothing was measured yet."""

import re
import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from soft_prompt_explorer.analysis.core.export import to_csv
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour
from tests.support.chromium import calm, download, plot
from tests.support.places import REPOSITORY

pytestmark = pytest.mark.slow
PROMPT = "plural-words-1"


def test_a_tested_prompt_opens_with_its_verdict_and_every_row_can_be_taken_along(page: Page, tmp_path):
    table = kept_behaviour.kept(PROMPT)
    label = kept_behaviour.summary([PROMPT])["verdict"].iloc[0]
    page.goto(f"/prompt?prompt={PROMPT}&tab=Behaviour")
    calm(page)
    expect(page.get_by_text(label.capitalize(), exact=False).first).to_be_visible()
    page.locator("summary", has_text="The evidence for this").press("Enter")
    expect(page.get_by_text(re.compile("10 of 10 tokens echo their initialisation"))).to_be_visible()
    marks = page.locator(".rows .mark")
    expect(marks).to_have_count(int(table["position"].isna().sum()) - 1)  # all but the whole prompt
    assert download(page, "CSV", "behaviour-") == to_csv(table)
    with page.expect_download() as event:
        page.get_by_role("button", name="Report (HTML)").click()
    of_command_line = tmp_path / "report.html"
    subprocess.run(
        [sys.executable, "-m", "analysis", "report", str(GALLERY / PROMPT), "--out", str(of_command_line)], cwd=REPOSITORY, check=True
    )
    of_page, of_command_line = (
        re.sub(rb"20\d\d-[-:T+\d]+|python -m [^<&]*|dashboard", b"", path.read_bytes()) for path in (event.value.path(), of_command_line)
    )
    assert of_page == of_command_line
    page.get_by_text("Each token too").click()
    calm(page)
    expect(page).to_have_url(re.compile("tokens=true"))
    page.reload()
    calm(page)
    expect(marks).to_have_count(len(table) - 1)


def test_rows_appear_soon_while_the_model_is_asked_and_it_can_be_stopped(page: Page):
    page.goto(f"/prompt?prompt={PROMPT}&tab=Behaviour&examples=50")
    calm(page)
    page.get_by_role("button", name="Ask the model").click()
    expect(page.locator(".rows .mark").first).to_be_visible()
    page.get_by_role("button", name="Stop").first.click()
    expect(page.get_by_text(re.compile("Stopped before the interventions"))).to_be_visible()


def test_one_token_and_what_the_model_makes_of_it_open_by_link(page: Page):
    page.goto(f"/prompt?prompt={PROMPT}&tab=Behaviour&view=One+token&token=3")
    calm(page)
    expect(page.get_by_role("spinbutton", name="Virtual token")).to_have_value("3")
    for said in ("Nearest words", "Its cluster", "What changing it does", "How much the answer attends to it"):
        expect(page.get_by_text(said).first).to_be_visible()
    plot(page, "heads-3")
    page.get_by_role("tab", name="Try it").click()
    expect(page).to_have_url(re.compile(r"tab=Try\+it"))
    calm(page)
    expect(page.get_by_text("its nearest words", exact=True)).to_be_visible()
    page.get_by_role("textbox", name="Input").fill("fox")
    page.keyboard.press("Enter")
    expect(page.get_by_text("→ foxes")).to_be_visible()
