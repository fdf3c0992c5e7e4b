"""What a person reads of prompts: verdicts, clusters on the map, likeness, a search, and what each figure means."""

import io
import re

import pandas as pd
import pytest
from playwright.sync_api import expect

from tests.support.chromium import calm, download
from tests.support.commands import command_line_csv
from tests.support.places import REPOSITORY

pytestmark = pytest.mark.slow

GALLERY = REPOSITORY / "trained_prompts" / "gallery"
SENTIMENT = str(GALLERY / "sentiment-words-1")
FORMS = (("CSV", "csv"), ("Parquet", "parquet"), ("JSON", "json"), ("Markdown", "md"))
WORDS, TOKENS = 49_152, 400
# What is in no box, has no colour, or is cut out by a shape that Streamlit or the browser does not take (its `clip-path` is then "none").
UNSEEN = """() => {
    const shapes = [...document.querySelectorAll(".rows :is(.shape, .bar, .reach, .steps)")];
    const seen = shape => {
        const {backgroundColor, clipPath} = getComputedStyle(shape);
        const cut = shape.matches(".bar, .reach") || /^(path|polygon)/.test(clipPath);
        return shape.getBoundingClientRect().height > 1 && backgroundColor.startsWith("rgb(") && cut;
    };
    return shapes.length ? shapes.filter(shape => !seen(shape)).map(shape => shape.outerHTML) : ["none is drawn"];
}"""


def test_a_prompt_opens_with_its_direction_and_gives_the_evidence_of_each_token(page):
    page.goto("/prompt?prompt=sentiment-words-1&tab=Tokens&token=3")
    calm(page)
    direction = page.get_by_role("heading", name="What the tokens moved towards, together")
    expect(direction).to_be_visible()
    assert direction.bounding_box()["y"] < page.get_by_role("heading", name="All tokens", exact=True).bounding_box()["y"]
    p = r"p (< 0\.001|0\.\d{3})"
    points = rf"points at the task’s answer words \(median rank \d+ of 49,152, {p}\) as the form of an answer: {p} on a twin"
    sentence = page.get_by_text(re.compile(rf"^This prompt's tokens .*\(concentration \d\.\d\d\)\. .*{points}"))
    expect(sentence).to_be_visible()
    assert download(page, "CSV", "-direction") == command_line_csv("direction", SENTIMENT, "--task", "sentiment", "--top-k", "12")
    assert download(page, "CSV", "-readings") == command_line_csv("readings", SENTIMENT)

    verdict = pd.read_csv(io.BytesIO(command_line_csv("readings", SENTIMENT)), keep_default_na=False).iloc[3]["verdict"]
    expect(page.get_by_role("heading", level=3).filter(has_text=verdict)).to_be_visible()
    for evidence in ("Chance.", "Start.", "Learned direction."):
        expect(page.get_by_text(evidence, exact=True)).to_be_visible()
    histogram = page.get_by_role("figure", name=re.compile("^Best scores of 1,000 random vectors"))
    expect(histogram.get_by_text(re.compile(r"token 3: \d\.\d\d"))).to_be_visible()
    expect(histogram.get_by_text("1,000 random vectors", exact=True)).to_be_visible()

    page.get_by_role("radio", name="all 5 of sentiment").click()
    expect(page.get_by_text(re.compile(r"^The tokens of 5 prompts .*\(concentration"))).to_be_visible()
    expect(sentence).to_have_count(0)
    calm(page)
    paths = [str(GALLERY / f"sentiment-{start}") for start in ("random-1", "random-3", "text-1", "words-1", "words-2")]
    rows = download(page, "CSV", "-direction")
    assert rows == command_line_csv("direction", *paths, "--task", "sentiment", "--top-k", "12")


@pytest.mark.parametrize(
    "path",
    [
        *(f"/prompt?prompt=past-tense-words-1&tab={tab}" for tab in ("What+it+does", "Tokens", "Behaviour")),
        *(f"/lora?lora=sentiment-lora-8&tab={tab}" for tab in ("What+it+does", "Ranks")),
        *(f"/learn?tab={tab}" for tab in ("The+lesson", "Which+readings+hold", "Methods")),
    ],
)
def test_what_stands_open_is_drawn_without_a_chart_library_and_its_shapes_are_seen(page, path):
    page.goto(path)
    calm(page)
    expect(page.locator(".rows").first).to_be_visible()
    expect(page.get_by_test_id("stPlotlyChart")).to_have_count(0)
    asked_for = page.evaluate("performance.getEntriesByType('resource').map(each => each.name)")
    assert not [name for name in asked_for if "plotly" in name.lower()] and any(name.endswith(".js") for name in asked_for)
    page.wait_for_function(f"() => !({UNSEEN})().length")  # a fragment may be drawn anew meanwhile: all of them at one moment


def test_every_measure_is_explained_and_a_group_can_be_picked(page):
    page.goto("/learn?tab=Measures")
    calm(page)
    explained = page.get_by_text("What it does not show:")
    everything = explained.count()
    assert everything >= 25
    expect(page.locator(".katex-display")).to_have_count(everything)
    assert page.locator(".katex-error").count() == 0
    page.get_by_role("radio", name="Maps", exact=True).click()
    expect(page.get_by_role("heading", level=2)).to_have_text(["Maps"])
    expect(page).to_have_url(re.compile("group=Maps"))
    expect(explained).not_to_have_count(everything)
    calm(page)
    assert 0 < explained.count() < everything
    page.reload()
    calm(page)
    expect(page.get_by_role("heading", level=2)).to_have_text(["Maps"])
