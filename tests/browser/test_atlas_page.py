"""The map as an instrument, on the page Atlas: what a hand does on it, what the tables beside it say, and links that find the same view."""

import io
import itertools
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.support.chromium import calm, download, plot, until, window
from tests.support.commands import command_line_csv
from tests.support.places import REPOSITORY

pytestmark = pytest.mark.slow

GALLERY = REPOSITORY / "trained_prompts" / "gallery"
TWO = ("capitals-words-1", "sentiment-words-1")
# Plays a training on, and halts it in the moment in which it has come to a step.
PLAYED_UP_TO = """(root, step) => new Promise(done => {
    const play = root.atlas.play, look = () => (play.at < step && play.timer ? requestAnimationFrame(look) : done(play.pause()));
    if (!play.timer) play.button.click();
    requestAnimationFrame(look);
})"""
A_STEP_CALMLY = 700  # milliseconds
OF_TWO = "&".join(f"prompts={name}" for name in TWO)


def atlas(page: Page, tokens: int, key: str = "on-map") -> Locator:
    """The map, once it has drawn so many tokens."""
    found = page.locator(f".st-key-{key} .atlas[data-tokens='{tokens}']")
    expect(found).to_be_visible()
    return found


def pixels(stage: Locator) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stage.screenshot())).convert("RGB")).astype(int)


def tick_first(page: Page, table: str) -> None:
    """Tick the first row of the tokens or of the clusters, once that table has come and stands still."""
    found = page.locator(f"[class*='st-key-{table}-']")
    expect(found.locator("tbody tr").first).to_be_attached()
    calm(page)
    grid = found.locator("canvas").first
    grid.scroll_into_view_if_needed()
    grid.click(position={"x": 16, "y": 52}, force=True)


def lasso(page: Page, stage: Locator) -> None:
    """Draw around everything in sight."""
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    left, top, right, bottom = box["x"] + 4, box["y"] + 4, box["x"] + box["width"] - 4, box["y"] + box["height"] - 4
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 2)):
        page.mouse.move(x, y, steps=3)
    page.mouse.up()


def test_the_map_holds_every_word_and_a_lasso_selects_in_the_tables_and_in_the_link(page):
    page.goto(f"/atlas?{OF_TWO}")
    drawn = atlas(page, 20)
    calm(page)
    expect(drawn).to_have_attribute("data-words", "49152")
    expect(page.get_by_text("All 20 virtual tokens")).to_be_visible()
    draws = drawn.get_attribute("data-draws")
    page.get_by_role("button", name="Lasso (L)").click()
    lasso(page, drawn.locator(".stage"))
    expect(page.get_by_text("20 selected virtual tokens")).to_be_visible()
    expect(page).to_have_url(re.compile(r"selected=0-19(&|$)"))
    expect(drawn).to_have_attribute("data-selected", "0-19")
    calm(page)
    assert int(drawn.get_attribute("data-draws")) - int(draws) <= 3  # for the lasso, and none of them for the words
    members = pd.read_csv(io.BytesIO(download(page, "CSV", "members")))
    assert members["prompt"].value_counts().to_dict() == dict.fromkeys(TWO, 10)
    fresh = page.context.new_page()
    fresh.goto(page.url)
    expect(fresh.get_by_text("20 selected virtual tokens")).to_be_visible()
    expect(fresh.locator(".atlas")).to_have_attribute("data-selected", "0-19")


def test_the_result_of_a_lasso_and_of_a_picked_row_is_where_the_person_looks(chromium, dashboard):
    context = window(chromium, dashboard)
    page = context.new_page()
    page.set_viewport_size({"width": 1400, "height": 900})
    page.goto(f"/atlas?{OF_TWO}")
    drawn = atlas(page, 20)
    calm(page)
    page.get_by_role("button", name="Lasso (L)").click()
    lasso(page, drawn.locator(".stage"))
    expect(page.get_by_text("20 selected virtual tokens")).to_be_in_viewport()
    calm(page)
    page.get_by_role("button", name="Let go of what is selected").click()
    expect(page.get_by_text("All 20 virtual tokens")).to_be_visible()
    tick_first(page, "tokens")
    expect(drawn).to_have_attribute("data-selected", "0")
    expect(drawn.locator(".stage")).to_be_in_viewport(ratio=0.5)
    expect(page.get_by_role("link", name=f"Open {TWO[0]}")).to_be_in_viewport()
    context.close()


def test_keys_move_the_map_and_select_and_a_link_opens_the_prompt(page):
    page.goto(f"/atlas?{OF_TWO}")
    drawn = atlas(page, 20)
    calm(page)
    stage = drawn.locator(".stage")
    stage.focus()
    before = pixels(stage)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    page.wait_for_timeout(500)
    assert (np.abs(pixels(stage) - before).sum(axis=2) > 60).mean() > 0.02
    page.keyboard.press("0")
    page.keyboard.press("n")
    expect(drawn.locator(".tip")).to_contain_text("capitals-words-1, virtual token 0")
    expect(drawn.locator(".status")).to_contain_text("of its 15 nearest words beside it")
    page.keyboard.press("Enter")
    expect(drawn).to_have_attribute("data-selected", "0")
    expect(page.get_by_text("1 selected virtual token")).to_be_visible()
    expect(page.get_by_role("link", name="Open capitals-words-1")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("All 20 virtual tokens")).to_be_visible()
    expect(page).not_to_have_url(re.compile("selected="))


def test_a_link_of_before_restores_clusters_and_selection_and_the_downloads_are_the_command_lines(page):
    page.goto(f"/atlas?{OF_TWO}&method=kmeans&space=displacement&selected=3-5&colour=cluster")
    expect(page.get_by_text("3 selected virtual tokens")).to_be_visible()
    drawn = atlas(page, 20)
    expect(drawn).to_have_attribute("data-selected", "3-5")
    calm(page)
    members = pd.read_csv(io.BytesIO(download(page, "CSV", "members")))
    assert members[["prompt", "position"]].to_numpy().tolist() == [["capitals-words-1", position] for position in (3, 4, 5)]
    paths = [str(GALLERY / name) for name in TWO]
    expected = command_line_csv("clusters", *paths, "--method", "kmeans", "--space", "displacement")
    assert download(page, "CSV", "clusters-kmeans-displacement") == expected


def test_a_row_that_is_ticked_lights_its_point_and_a_cluster_its_tokens(page):
    page.goto(f"/atlas?{OF_TWO}&method=kmeans")
    drawn = atlas(page, 20)
    calm(page)
    stage = drawn.locator(".stage")
    before = pixels(stage)
    for table, selected in (("tokens", "0"), ("clusters", None)):
        tick_first(page, table)
        expect(drawn).not_to_have_attribute("data-selected", "")
        if selected is not None:
            expect(drawn).to_have_attribute("data-selected", selected)
            first = drawn.get_attribute("data-selected")
        else:
            expect(drawn).not_to_have_attribute("data-selected", first)
        calm(page)
        stage.scroll_into_view_if_needed()
        assert (np.abs(pixels(stage) - before).sum(axis=2) > 60).any()


def test_a_training_that_is_played_moves_on_the_map(page):
    page.goto("/atlas?prompts=sentiment-words-1&played=sentiment-words-1")
    drawn = atlas(page, 10)
    played = drawn.locator(".played")
    expect(played).to_be_visible()
    calm(page)
    stage = drawn.locator(".stage")
    stage.scroll_into_view_if_needed()
    slider = played.get_by_role("slider")
    first = pixels(stage)
    slider.focus()
    page.keyboard.press("End")
    expect(played.locator("output")).to_have_text("step 150 of 150")
    last = pixels(stage)
    assert (np.abs(last - first).sum(axis=2) > 60).sum() > 200
    places = drawn.evaluate(
        """root => new Promise(done => {
            const play = root.atlas.play, seen = new Set();
            const look = () => { seen.add(play.at); seen.size < 6 && play.timer ? requestAnimationFrame(look) : done([...seen]); };
            play.button.click();
            requestAnimationFrame(look);
        })"""
    )
    assert len(places) > 2 and any(at != int(at) for at in places)  # it glides from step to step
    seen = []
    for step in (2, 6, 12):
        drawn.evaluate(PLAYED_UP_TO, step)
        seen.append(pixels(stage))
    for now, later in itertools.pairwise(seen):
        assert (np.abs(now - later).sum(axis=2) > 60).sum() > 100  # they really move


def test_less_motion_is_respected_and_each_step_stands(chromium, dashboard):
    context = window(chromium, dashboard, reduced_motion="reduce")
    page = context.new_page()
    page.goto("/atlas?prompts=sentiment-words-1&played=sentiment-words-1")
    drawn = atlas(page, 10)
    calm(page)
    played = drawn.locator(".played")
    began = page.evaluate("performance.now()")
    played.get_by_role("button", name="Play").click()
    expect(played.locator("output")).not_to_have_text("step 0 of 150")
    at, now = drawn.evaluate("root => [root.atlas.play.at, performance.now()]")
    assert 0 < at == int(at) <= (now - began) / A_STEP_CALMLY
    context.close()


def test_the_map_can_be_taken_away_as_the_figure_that_the_command_draws(page, tmp_path):
    page.goto("/atlas?prompts=plural-words-1")
    atlas(page, 10)
    calm(page)
    figure = tmp_path / "map.svg"
    subprocess.run(
        [sys.executable, "-m", "analysis", "figure", "map", str(GALLERY / "plural-words-1"), "--out", str(figure)],
        cwd=REPOSITORY,
        check=True,
    )
    drawn = [re.sub(rb"<dc:description>.*?</dc:description>", b"", each) for each in (download(page, "SVG", "map-"), figure.read_bytes())]
    assert drawn[0] == drawn[1]


def test_a_word_is_searched_on_the_map_and_what_resembles_it_can_be_selected_there(page):
    page.goto(f"/atlas?{OF_TWO}&word=organ")
    drawn = atlas(page, 20)
    expect(page.get_by_text(re.compile(r"below resemble the word .*organ"))).to_be_visible()
    calm(page)
    found = pd.read_csv(io.BytesIO(download(page, "CSV", "like-")))
    assert len(found) == 20 and found["z"].is_monotonic_decreasing
    here = found[found["prompt"].isin(TWO)]
    page.get_by_role("button", name=f"Select the {len(here)} that are on the map").click()
    numbers = sorted(10 * TWO.index(row.prompt) + row.position for row in here.itertuples())
    expect(drawn).not_to_have_attribute("data-selected", "")
    told = drawn.get_attribute("data-selected")
    assert [i for part in told.split(",") for i in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)] == numbers
    calm(page)
    first = found.iloc[0]
    prompt_of_first = {"x": 40, "y": 52}
    table = page.locator(".st-key-found").get_by_test_id("stDataFrame")
    until(page.get_by_role("heading", name=first["prompt"], level=1), lambda: table.click(position=prompt_of_first))
    expect(page).to_have_url(re.compile(rf"/prompt\?.*prompt={first['prompt']}&.*token={first['position']}(&|$)"))
    page.get_by_role("link", name="On the map").click()
    drawn = atlas(page, 10)
    expect(drawn).to_have_attribute("data-selected", str(first["position"]))


def test_filters_count_what_they_leave_and_the_map_shows_that_alone(page):
    page.goto(f"/atlas?{OF_TWO}")
    atlas(page, 20)
    calm(page)
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("button", name="sentiment 10").click()
    atlas(page, 10)
    expect(page.get_by_text("All 10 virtual tokens")).to_be_visible()


def test_columns_of_ones_own_colour_the_map_and_what_they_do_not_know_is_not_drawn(page):
    page.goto(f"/atlas?{OF_TWO}")
    atlas(page, 20)
    calm(page)
    page.get_by_role("button", name="Your columns").click()
    rows = "".join(
        f"{TWO[0]},{position},{position / 4},{'odd' if position % 2 else '![even](http://127.0.0.1:9/)'}\n" for position in range(8)
    )
    mine = {"name": "mine.csv", "mimeType": "text/csv", "buffer": f"prompt,position,share,kind\n{rows}".encode()}
    page.locator('input[type="file"]').set_input_files(mine)
    page.get_by_role("radio", name="share").click()
    drawn = atlas(page, 8)
    expect(drawn.locator(".legend")).to_have_text(re.compile("^share0.*1.75$"))
    expect(page.get_by_text("Of 12 of 20 tokens your table has no number in share")).to_be_visible()
    page.get_by_role("radio", name="kind").click()
    drawn = atlas(page, 20)
    expect(drawn.locator(".legend").get_by_role("button")).to_have_text([re.compile("even"), re.compile("odd"), re.compile("unknown")])
    page.locator('input[type="file"]').set_input_files({"name": "no.csv", "mimeType": "text/csv", "buffer": b"name,share\na,1\n"})
    expect(page.get_by_text("The table needs a column prompt")).to_be_visible()
    atlas(page, 20)


def test_two_prompts_are_set_side_by_side_by_a_click_on_the_matrix_and_one_lasso_goes_over_both(page):
    prompts = ("capitals-words-1", "sentiment-random-1", "sentiment-words-1")
    query = "&".join(f"prompts={name}" for name in prompts)
    page.goto(f"/atlas?tab=Compare&{query}&a=capitals-words-1&b=sentiment-words-1")
    drawn = atlas(page, 20, "panes")
    matrix = plot(page, "matrix-z")  # above the panes, which it moves as it comes
    calm(page)
    expect(
        page.get_by_text(re.compile(r"z is \d\.\d: more alike than chance, beyond the start that 10 of 10 matched tokens share"))
    ).to_be_visible()
    stages = drawn.locator(".stage")
    expect(stages).to_have_count(2)
    expect(drawn.locator(".title")).to_have_text(["capitals-words-1", "sentiment-words-1"])
    stages.nth(1).scroll_into_view_if_needed()
    drawn.get_by_role("button", name="Lasso (L)").click()
    lasso(page, stages.nth(1))
    expect(page.get_by_text("10 and 10 tokens selected")).to_be_visible()

    matrix.scroll_into_view_if_needed()
    calm(page)
    places = matrix.evaluate(
        """plot => { const box = plot.getBoundingClientRect(), layout = plot._fullLayout, trace = plot._fullData.find(t => t.marker?.symbol === "square");
        return trace.customdata.map((pair, i) => [pair, box.left + layout.xaxis._offset + layout.xaxis.d2p(trace.x[i]),
            box.top + layout.yaxis._offset + layout.yaxis.d2p(trace.y[i])]); }"""
    )
    x, y = next((x, y) for pair, x, y in places if list(pair) == ["sentiment-random-1", "capitals-words-1"])
    until(drawn.locator(".title", has_text="sentiment-random-1"), lambda: page.mouse.click(x, y))
    expect(page).to_have_url(re.compile("a=sentiment-random-1.*b=capitals-words-1"))
    expect(drawn.locator(".title")).to_have_text(["sentiment-random-1", "capitals-words-1"])
    calm(page)
    paths = [str(GALLERY / name) for name in prompts]
    on_page, printed = (
        pd.read_csv(io.BytesIO(table), dtype=str, keep_default_na=False)
        for table in (download(page, "CSV", "similarity"), command_line_csv("similarity", *paths))
    )
    pd.testing.assert_frame_equal(on_page, printed.drop(columns=["path_a", "path_b"]))


@pytest.mark.parametrize("width", [1024, 390])
def test_nothing_is_cut_off_on_narrow_windows_and_a_finger_selects(chromium, dashboard, width):
    context = window(chromium, dashboard, width=width, has_touch=True, color_scheme="dark")
    page = context.new_page()
    page.goto(f"/atlas?{OF_TWO}")
    drawn = atlas(page, 20)
    calm(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for box in (".tools", ".legend", ".stages"):
        assert drawn.locator(box).evaluate("box => box.scrollWidth <= box.clientWidth"), box
    stage = drawn.locator(".stage")
    stage.scroll_into_view_if_needed()
    x, y = drawn.evaluate(
        """root => { const { atlas } = root, pane = atlas.panes[0], box = pane.stage.getBoundingClientRect(), { places } = atlas.tokens;
        return [box.left + atlas.view.across(places[0], pane.width), box.top + atlas.view.down(places[1], pane.height)]; }"""
    )
    page.touchscreen.tap(x, y)
    expect(drawn).not_to_have_attribute("data-selected", "")
    context.close()


def test_a_browser_without_webgl_is_told_so_and_keeps_the_tables(chromium, dashboard):
    context = window(chromium, dashboard)
    page = context.new_page()
    page.add_init_script(
        """const before = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...rest) { return kind === "webgl2" ? null : before.call(this, kind, ...rest); };"""
    )
    page.goto(f"/atlas?{OF_TWO}")
    expect(page.get_by_text("it offers no WebGL 2")).to_be_visible()
    expect(page.get_by_text("All 20 virtual tokens")).to_be_visible()
    context.close()
