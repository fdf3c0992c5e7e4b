"""What a person reads of prompts: verdicts, clusters on the map, likeness, a search, and what each figure means."""

import io
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.chromium import calm, choose_prompt, download, plot, upload
from tests.support.commands import command_line_csv
from tests.support.made_prompts import planted, unit
from tests.support.places import REPOSITORY
from tests.support.provenances import content_of

pytestmark = pytest.mark.slow

GALLERY = REPOSITORY / "trained_prompts" / "gallery"
SENTIMENT = str(GALLERY / "sentiment-words-1")
FORMS = (("CSV", "csv"), ("Parquet", "parquet"), ("JSON", "json"), ("Markdown", "md"))
WORDS, TOKENS = 49_152, 400


def points_on(chart: Locator) -> dict[str, int]:
    """How many words and how many virtual tokens the browser holds; only tokens can be selected, by `customdata`."""
    traces = chart.evaluate(
        "plot => plot._fullData.filter(trace => trace.x).map(trace => [trace.name, trace.x.length, trace.customdata?.length ?? 0])"
    )
    return {
        "words": sum(points for name, points, _ in traces if name.endswith(",152 words")),
        "tokens": sum(selectable for _, _, selectable in traces),
    }


def box_select(page: Page, chart: Locator) -> None:
    """Draw a box over the whole map."""
    chart.scroll_into_view_if_needed()
    chart.hover()
    chart.locator('[data-title="Box Select"]').click()
    area = chart.locator(".nsewdrag").last.bounding_box()
    page.mouse.move(area["x"] + 3, area["y"] + 3)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2, steps=5)
    page.mouse.move(area["x"] + area["width"] - 3, area["y"] + area["height"] - 3, steps=5)
    page.mouse.up()


def open_in_clusters(page: Page, path, method: str = "hdbscan") -> None:
    """Open a file, then the page Clusters on it alone; a file opened is the session's, so no page is loaded anew."""
    upload(page, path)
    expect(page.get_by_text(re.compile(rf"{path.stem}: Soft prompt"))).to_be_visible()
    page.get_by_role("link", name="Clusters").click()
    expect(page.get_by_role("heading", name="Clusters", level=1)).to_be_visible()
    calm(page)
    page.get_by_role("radio", name=method).click()
    calm(page)
    choose_prompt(page, f"{path.stem} (your file)")


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
    histogram = plot(page, "null")
    assert histogram.evaluate("plot => [plot._fullData[0].type, plot._fullData[0].x.length]") == ["histogram", 1000]
    expect(histogram.get_by_text(re.compile(r"token 3: \d\.\d\d"))).to_be_visible()

    page.get_by_role("radio", name="all 5 of sentiment").click()
    expect(page.get_by_text(re.compile(r"^The tokens of 5 prompts .*\(concentration"))).to_be_visible()
    expect(sentence).to_have_count(0)
    calm(page)
    paths = [str(GALLERY / f"sentiment-{start}") for start in ("random-1", "random-3", "text-1", "words-1", "words-2")]
    rows = download(page, "CSV", "-direction")
    assert rows == command_line_csv("direction", *paths, "--task", "sentiment", "--top-k", "12")


def test_every_word_and_virtual_token_is_on_the_map_and_a_box_selects_tokens(page, embedded_vocabulary, tmp_path):
    rng = np.random.default_rng(7)
    rows, _ = planted(embedded_vocabulary, 7)
    noise = embedded_vocabulary.mean + unit(rng.standard_normal((TOKENS - len(rows), embedded_vocabulary.width)))
    np.save(tmp_path / "planted.npy", np.concatenate([rows, noise]).astype(np.float32))
    open_in_clusters(page, tmp_path / "planted.npy")
    expect(page.get_by_test_id("stAlert").get_by_text("which is not here")).to_have_count(0)  # no word of a missing prompt
    expect(page.get_by_text(re.compile(r"5 of \d+ clusters are found again and tighter than chance"))).to_be_visible()
    expect(page.get_by_role("heading", name=f"All {TOKENS} virtual tokens")).to_be_visible()
    calm(page)
    chart = plot(page, "map-umap")
    assert points_on(chart) == {"words": WORDS, "tokens": TOKENS}

    box_select(page, chart)
    expect(page.get_by_role("heading", name=f"{TOKENS} selected virtual tokens")).to_be_visible()
    expect(page).to_have_url(re.compile(rf"selected=0-{TOKENS - 1}(&|$)"))
    calm(page)
    assert len(pd.read_csv(io.BytesIO(download(page, "CSV", "members")))) == TOKENS
    assert points_on(plot(page, "map-umap")) == {"words": WORDS, "tokens": TOKENS}


def test_a_link_restores_clusters_and_selection_and_the_downloads_are_the_command_lines(page, tmp_path):
    prompts = ("capitals-words-1", "sentiment-words-1")
    query = "&".join(f"prompts={name}" for name in prompts)
    page.goto(f"/clusters?{query}&method=kmeans&space=displacement&selected=3-5")
    expect(page.get_by_role("heading", name="3 selected virtual tokens")).to_be_visible()
    calm(page)
    for choice in ("kmeans", "displacement"):
        expect(page.get_by_role("radio", name=choice)).to_be_checked()
    for name in prompts:
        expect(page.get_by_test_id("stMultiSelect").get_by_text(name, exact=True)).to_be_visible()
    expect(page).to_have_url(re.compile("selected=3-5"))
    members = pd.read_csv(io.BytesIO(download(page, "CSV", "members")))
    assert members[["prompt", "position"]].to_numpy().tolist() == [["capitals-words-1", position] for position in (3, 4, 5)]
    for label, ending in FORMS:
        out = tmp_path / f"clusters.{ending}"
        arguments = [
            "clusters",
            *(str(GALLERY / name) for name in prompts),
            "--method",
            "kmeans",
            "--space",
            "displacement",
            "--out",
            str(out),
        ]
        subprocess.run([sys.executable, "-m", "analysis", *arguments], cwd=REPOSITORY, check=True, stderr=subprocess.DEVNULL)
        assert content_of(ending, download(page, label, "clusters-kmeans-displacement")) == content_of(ending, out.read_bytes()), label

    box_select(page, plot(page, "map-umap"))
    everything = 20  # two prompts of ten
    expect(page.get_by_role("heading", name=f"{everything} selected virtual tokens")).to_be_visible()
    expect(page).to_have_url(re.compile(f"selected=0-{everything - 1}(&|$)"))
    calm(page)
    fresh = page.context.new_page()
    fresh.goto(page.url)
    expect(fresh.get_by_role("heading", name=f"{everything} selected virtual tokens")).to_be_visible()


def test_a_computation_can_be_stopped_and_the_page_answers_while_clusters_are_computed(page, embedded_vocabulary, tmp_path):
    rows = embedded_vocabulary.mean + np.random.default_rng(8).standard_normal((3000, embedded_vocabulary.width))
    np.save(tmp_path / "many.npy", rows.astype(np.float32))
    open_in_clusters(page, tmp_path / "many.npy")
    page.get_by_role("radio", name="kmeans").click()
    stop = page.locator("[class*='st-key-stop'][class*='-clusters-'][class*='kmeans']").get_by_role("button", name="Stop", exact=True)
    expect(stop).to_be_visible()
    legend = plot(page, "map-umap").locator(".legendtext")
    expect(legend.filter(has_text=re.compile("^many$"))).to_be_visible()
    page.get_by_role("radio", name="task").click()
    expect(legend.filter(has_text=re.compile("^unknown$"))).to_be_visible()
    expect(stop).to_be_visible()  # still at it
    expect(page.get_by_text(re.compile("clusters are found again|found, and none can be believed"))).to_have_count(0)
    stop.click()
    expect(page.get_by_text("Stopped before the clusters were ready.")).to_be_visible()
    expect(page.get_by_role("button", name="Start again", exact=True)).to_be_visible()
    expect(stop).to_have_count(0)


def test_training_is_played_on_the_map(page):
    page.goto("/clusters?played=sentiment-words-1")
    calm(page)
    chart = plot(page, "played")
    chart.scroll_into_view_if_needed()
    play = chart.locator(".updatemenu-button", has_text="Play")
    expect(play).to_be_visible()
    assert chart.evaluate("plot => plot._fullLayout.sliders[0].active") == 0
    handle = chart.element_handle()
    play.click()
    page.wait_for_function("plot => plot._fullLayout.sliders[0].active > 2", arg=handle)
    expect(chart.locator(".slider-label", has_text=re.compile(r"^step [1-9]"))).to_be_visible()


def test_prompts_are_compared_pair_by_pair_and_two_side_by_side(page):
    prompts = ("capitals-words-1", "sentiment-random-1", "sentiment-words-1")
    query = "&".join(f"prompts={name}" for name in prompts)
    page.goto(f"/compare?{query}&a=capitals-words-1&b=sentiment-words-1")
    calm(page)
    sides = plot(page, "matrix-z").evaluate(
        "plot => plot._fullData.filter(trace => trace.type == 'heatmap').map(trace => [trace.x.length, trace.y.length])"
    )
    assert sides == [[3, 3]]
    expect(page.get_by_role("heading", name="Two side by side")).to_be_visible()
    expect(
        page.get_by_text(re.compile(r"z is \d\.\d: more alike than chance, beyond the start that 10 of 10 matched tokens share"))
    ).to_be_visible()
    paths = [str(GALLERY / name) for name in prompts]
    on_page, printed = (
        pd.read_csv(io.BytesIO(table), dtype=str, keep_default_na=False)
        for table in (download(page, "CSV", "similarity"), command_line_csv("similarity", *paths))
    )
    pd.testing.assert_frame_equal(on_page, printed.drop(columns=["path_a", "path_b"]))


def test_a_word_finds_the_virtual_tokens_that_resemble_it(page):
    page.goto("/search?word=positive")
    calm(page)
    expect(page.get_by_role("textbox", name="Word")).to_have_value("positive")
    expect(page.get_by_text(re.compile(r"tokens below resemble the word .*positive"))).to_be_visible()
    found = pd.read_csv(io.BytesIO(download(page, "CSV", "like-")))
    assert len(found) == 20
    assert found["z"].is_monotonic_decreasing
    assert found["rank"].tolist() == list(range(20))


def test_every_measure_is_explained_and_a_group_can_be_picked(page):
    page.goto("/learn?tab=Measures")
    calm(page)
    explained = page.get_by_text("What it does not show:")
    everything = explained.count()
    assert everything >= 25
    assert page.locator(".katex-display").count() == everything
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
