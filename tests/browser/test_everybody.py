"""The pages for everybody: at three widths, light and dark, by keyboard alone, without motion, and with links that can be sent."""

import json
import re
import zipfile

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from safetensors.numpy import save, save_file

from soft_prompt_explorer.app.pages import PAGES
from soft_prompt_explorer.app.parts.lesson import STEPS
from tests.support.chromium import calm, until, window
from tests.support.grounds import GROUNDS
from tests.support.places import EMBEDDED, REPOSITORY
from tests.support.seen import cut_off, drawn, findings, turned, unnamed
from tests.support.served import PATHS

pytestmark = pytest.mark.slow
WIDTHS = (1400, 1024, 390)


@pytest.fixture(scope="module")
def walker(chromium, dashboard):
    """One window for all pages: what they share is loaded once."""
    context = window(chromium, dashboard)
    yield context.new_page()
    context.close()


@pytest.fixture
def elsewhere(chromium, dashboard):
    """Another person's browser, which has seen nothing yet."""
    context = window(chromium, dashboard)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize(
    "path",
    [
        *PATHS,
        *(f"/learn?tab=Findings&finding={part}" for part in ("The+gallery", "What+the+LoRAs+use")),
        *(
            f"/learn?tab=Methods&methods={part}"
            for part in ("Score+against+size", "As+published", "Run+one", "What+readability+costs", "Scorecards")
        ),
        "/train?task=plural",
        "/train?tab=Follow+a+script+of+yours",
        "/lora?lora=sentiment-lora-8&tab=Beside+another&other=sentiment-lora-2",
    ],
)
def test_a_page_is_found_sound_by_axe_and_nothing_on_it_is_cut_off(walker, path):
    found = []
    walker.set_viewport_size({"width": WIDTHS[0], "height": 1000})
    walker.goto(path)
    drawn(walker)  # Streamlit forgets a page's own colours where the browser turns dark or light before they have come
    for width in WIDTHS:
        walker.set_viewport_size({"width": width, "height": 1000})
        for theme in ("light", "dark"):
            turned(walker, theme)
            expect(walker.get_by_test_id("stException")).to_have_count(0)
            if width != 1024:
                found += [f"{width} {theme} {each}" for each in findings(walker)]
            if theme == "light":
                found += [f"{width} {each}" for each in cut_off(walker)]
    found += unnamed(walker)
    assert not found, "\n".join(found)


WITH_MORE = {
    "/prompt?prompt=plural-words-1&tab=Tokens": (
        "Read against another model",
        "Take it elsewhere",
        "Settings",
        "What is this?",
        "Download",
    ),
    "/lora?lora=sentiment-lora-8&tab=Smaller+copy": ("Take it elsewhere", "rank_pattern"),
    "/atlas": ("Clusters and layout", "Your columns", "Filter", "Download"),
}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_opens_over_a_page_is_sound_too(walker, theme):
    walker.set_viewport_size({"width": WIDTHS[0], "height": 1000})
    walker.emulate_media(color_scheme=theme)
    found = []
    for path, buttons in WITH_MORE.items():
        walker.goto(path)
        drawn(walker)
        for button in buttons:
            walker.get_by_test_id("stPopoverButton").filter(has_text=button).first.click()
            expect(walker.get_by_test_id("stPopoverBody")).to_be_visible()
            drawn(walker)
            found += [f"{button}: {each}" for each in findings(walker, "[data-testid=stPopoverBody]") + cut_off(walker)]
            walker.keyboard.press("Escape")
            expect(walker.get_by_test_id("stPopoverBody")).to_have_count(0)
    assert not found, "\n".join(found)


def test_the_pages_are_as_light_and_as_dark_as_the_colours_were_measured_for(walker):
    walker.goto("/train")
    drawn(walker)
    for theme, colour in GROUNDS.items():
        turned(walker, theme)
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        expect(walker.locator(".stApp")).to_have_css("background-color", f"rgb({red}, {green}, {blue})")


def test_every_page_has_a_title_of_its_own_with_the_name_of_what_it_is_about(walker):
    titles = {}
    for place in PAGES:
        walker.goto(f"/{place.url_path}")
        calm(walker)
        titles[place.url_path] = walker.title()
    walker.goto("/prompt?prompt=plural-words-1")
    expect(walker).to_have_title("plural-words-1 · Soft Prompt Explorer")
    walker.goto("/lora?lora=capitals-lora-8")
    expect(walker).to_have_title("capitals-lora-8 · Soft Prompt Explorer")
    assert len(set(titles.values())) == len(PAGES), titles
    assert all(title.endswith(" · Soft Prompt Explorer") for title in titles.values()), titles


def test_the_tour_is_walked_step_by_step_and_each_step_can_be_sent_as_a_link(page, elsewhere):
    page.goto("/")
    page.get_by_role("link", name="Take the two-minute tour first").click()
    for number, step in enumerate(STEPS, start=1):
        expect(page.get_by_role("heading", name=f"{number}. {step.title}", exact=True)).to_be_visible()
        drawn(page)
        elsewhere.goto(page.url)
        expect(elsewhere.get_by_role("heading", name=f"{number}. {step.title}", exact=True)).to_be_visible()
        drawn(elsewhere)
        here, there = (each.get_by_role("tabpanel").first.inner_text() for each in (page, elsewhere))
        assert here == there
        assert len(here) > 200
        forward = page.get_by_role("button", name="Next")
        if number == len(STEPS):
            expect(forward).to_be_disabled()
            assert forward.get_attribute("data-testid") == "stBaseButton-secondary"  # a primary one that is off shows no word
        else:
            forward.click()
    page.get_by_role("button", name="Back").click()
    expect(page.get_by_role("heading", name=f"{len(STEPS) - 1}. {STEPS[-2].title}", exact=True)).to_be_visible()


def keep(page: Page, name: str) -> None:
    """Keep what was dropped under a name."""
    page.get_by_role("button", name="Keep it").click()
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("textbox", name="Name").press("Tab")
    page.get_by_role("button", name="Keep", exact=True).click()
    expect(page.get_by_text(f"Kept as {name}.")).to_be_visible()
    page.keyboard.press("Escape")


def said(page: Page) -> str:
    """What is written on the page below its frame."""
    drawn(page)
    return page.get_by_role("tabpanel").filter(visible=True).first.inner_text()


def test_the_first_door_reads_a_prompt_of_ones_own_and_its_link_finds_the_same_or_says_what_to_do(page, elsewhere, tmp_path):
    config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 5, "token_dim": 576, "base_model_name_or_path": EMBEDDED}
    rows = np.random.default_rng(7).standard_normal((5, 576)).astype(np.float32)
    with zipfile.ZipFile(tmp_path / "my-prompt.zip", "w") as archive:
        archive.writestr("adapter_config.json", json.dumps(config))
        archive.writestr("adapter_model.safetensors", save({"prompt_embeddings": rows}))
    page.goto("/")
    drawn(page)
    page.locator('input[type="file"]').set_input_files(tmp_path / "my-prompt.zip")
    expect(page.get_by_text("Soft prompt for smollm2-135m, 5 virtual tokens, 576 wide")).to_be_visible()
    keep(page, "door-prompt")
    page.get_by_role("button", name="Read this prompt").click()
    expect(page.get_by_role("heading", name="(your file)", level=1)).to_be_visible()
    page.get_by_role("tab", name="Tokens").click()
    expect(page.get_by_role("heading", name="All tokens")).to_be_visible()
    mine = said(page)
    elsewhere.goto(page.url)
    expect(
        elsewhere.get_by_text("which is not here: a run that was deleted, or a file opened in another session. Pick another.")
    ).to_be_visible()
    elsewhere.goto("/prompt?prompt=door-prompt&tab=Tokens")
    expect(elsewhere.get_by_role("heading", name="door-prompt", level=1)).to_be_visible()
    assert said(elsewhere) == mine


def test_the_second_door_reads_a_lora_of_ones_own_and_its_link_finds_the_same_or_says_what_to_do(page, elsewhere, tmp_path):
    down, up = np.eye(2, 6, dtype=np.float32), np.diag([3.0, 2.0]).astype(np.float32)
    parts = {"lora_down": down, "lora_up": np.concatenate([up, np.zeros((3, 2), np.float32)])}
    save_file(
        {f"lora_unet_block_{i}.{part}.weight": factor for i in range(3) for part, factor in parts.items()}
        | {f"lora_unet_block_{i}.alpha": np.array(2, np.float32) for i in range(3)},
        tmp_path / "my-style.safetensors",
    )
    page.goto("/")
    drawn(page)
    page.locator('input[type="file"]').set_input_files(tmp_path / "my-style.safetensors")
    expect(page.get_by_text("my-style: LoRA, 3 modules")).to_be_visible()
    keep(page, "door-lora")
    page.get_by_role("button", name="Read this LoRA").click()
    expect(page.get_by_role("heading", name="my-style (your file)", level=1)).to_be_visible()
    page.get_by_role("tab", name="Ranks").click()
    expect(page).to_have_url(re.compile("tab=Ranks"))
    expect(page.get_by_text("It uses its ranks: no fewer than 2 hold 95% of the energy")).to_be_visible()  # 9 of 13 in the first
    mine = said(page)
    elsewhere.goto(page.url)
    expect(
        elsewhere.get_by_text("which is not here: a run that was deleted, or a file opened in another session. Pick another.")
    ).to_be_visible()
    elsewhere.goto("/lora?lora=door-lora&tab=Ranks")
    expect(elsewhere.get_by_role("heading", name="door-lora", level=1)).to_be_visible()
    assert said(elsewhere) == mine.replace("my-style", "door-lora")


def test_the_third_door_trains_at_a_click_and_its_link_watches_the_same_training(page, elsewhere):
    elsewhere.goto("/train")  # what a browser loads once does not take the time that the training takes
    drawn(elsewhere)
    page.goto("/")
    page.get_by_role("link", name="Watch one learn").click()
    expect(page.get_by_role("heading", name="Train", level=1)).to_be_visible()
    drawn(page)
    page.get_by_role("button", name="Train it").last.click()
    expect(page).to_have_url(re.compile("job="))
    name = page.get_by_role("heading", name=re.compile("capitals-as-lora"))
    expect(name).to_be_visible()
    elsewhere.goto(page.url)
    expect(elsewhere.get_by_role("heading", name=name.inner_text(), exact=True)).to_be_visible()
    expect(elsewhere.get_by_text("left, then the scores")).to_be_visible()  # before its first step there is nothing to discard
    elsewhere.get_by_role("button", name="Stop", exact=True).click()
    for each in (page, elsewhere):
        expect(each.get_by_text("not among your runs yet")).to_be_visible()
    page.get_by_role("button", name="Discard", exact=True).click()
    expect(page.get_by_text("not among your runs yet")).to_have_count(0)


def test_the_button_back_undoes_one_choice_after_another_and_leads_from_page_to_page(page):
    page.goto("/learn?step=2")
    calm(page)
    page.goto("/prompt?prompt=sentiment-words-1&tab=Tokens&metric=dot")  # a link that was shared
    calm(page)
    page.get_by_role("tab", name="How it was made").click()
    expect(page).to_have_url(re.compile("tab=How"))
    calm(page)
    other = page.get_by_role("combobox", name="Another prompt")
    other.click()
    other.fill("plural-words-1")
    page.get_by_role("option", name="plural-words-1", exact=True).click()
    expect(page).to_have_url(re.compile("prompt=plural-words-1"))
    expect(page.get_by_role("heading", name="plural-words-1", level=1)).to_be_visible()
    calm(page)
    page.get_by_role("link", name="Train", exact=True).first.click()
    expect(page.get_by_role("heading", name="Train", level=1)).to_be_visible()
    calm(page)

    page.go_back()
    expect(page.get_by_role("heading", name="plural-words-1", level=1)).to_be_visible()
    calm(page)
    page.go_back()
    expect(page.get_by_role("heading", name="sentiment-words-1", level=1)).to_be_visible()
    expect(page.get_by_role("tab", name="How it was made")).to_have_attribute("aria-selected", "true")
    calm(page)
    page.go_back()
    expect(page).to_have_url(re.compile("prompt=sentiment-words-1.*tab=Tokens|tab=Tokens.*prompt=sentiment-words-1"))
    expect(page.get_by_role("tab", name="Tokens")).to_have_attribute("aria-selected", "true")
    calm(page)
    page.go_back()
    expect(page.get_by_role("heading", name=f"2. {STEPS[1].title}", exact=True)).to_be_visible()


def test_the_button_back_undoes_the_choice_of_a_metric(page):
    page.goto("/prompt?prompt=sentiment-words-1&tab=Tokens&metric=dot")
    calm(page)
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("combobox", name="Metric").click()
    page.get_by_role("option", name="euclidean", exact=True).click()
    expect(page).to_have_url(re.compile("metric=euclidean"))
    page.keyboard.press("Escape")
    by = page.get_by_text("score (euclidean)").first
    expect(by).to_be_visible()  # Streamlit sends a choice a moment late, and one that comes after a step back undoes it
    calm(page)
    page.go_back()
    expect(page).to_have_url(re.compile("metric=dot"))
    expect(by).to_have_count(0)
    calm(page)
    metric = page.get_by_role("combobox", name="Metric")
    if not metric.is_visible():
        until(metric, page.get_by_role("button", name="Settings").click)
    expect(metric).to_have_value("dot")


def test_what_was_done_before_the_pages_own_script_came_is_undone_too(page):
    page.goto("/_stcore/health")
    page.mouse.click(50, 50)
    before = page.evaluate(
        """async code => {
            document.body.classList.add("stApp");
            (await import(URL.createObjectURL(new Blob([code], {type: "text/javascript"})))).default();
            history.replaceState({}, "", "?metric=dot");
            return history.length;
        }""",
        (REPOSITORY / "app/parts/frame.js").read_text(encoding="utf-8"),
    )
    expect(page).to_have_url(re.compile("metric=dot"))
    page.wait_for_function("before => history.length > before", arg=before)
    page.go_back()
    expect(page).to_have_url(re.compile("health$"))


def contrast(colour: str, ground: str) -> float:
    """Of two colours as a browser computes them: WCAG 2.2, relative luminance."""

    def luminance(of: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", of)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    low, high = sorted((luminance(colour), luminance(ground)))
    return (high + 0.05) / (low + 0.05)


TICKS = """() => [...document.querySelectorAll(".js-plotly-plot :is(.xtick, .ytick) text")].filter(tick => tick.checkVisibility()).map(tick => {
    const style = getComputedStyle(tick);
    return [tick.textContent, style.fill, Number(style.opacity) * Number(style.fillOpacity), getComputedStyle(document.querySelector(".stApp")).backgroundColor];
})"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "path",
    [
        "/library?tab=Scores",
        "/lora?lora=sentiment-lora-8&tab=Beside+another&other=sentiment-lora-2",
        "/learn?tab=Methods&methods=Score+against+size",
    ],
)
def test_what_stands_along_an_axis_can_be_read(walker, path, theme):
    walker.set_viewport_size({"width": WIDTHS[0], "height": 1000})
    walker.emulate_media(color_scheme=theme)
    walker.goto(path)
    drawn(walker)
    ticks = walker.evaluate(TICKS)
    assert len(ticks) > 5
    assert [(text, colour) for text, colour, opacity, ground in ticks if opacity < 1 or contrast(colour, ground) < 4.5] == []


@pytest.mark.parametrize("path", ["/", "/prompt?prompt=plural-words-1", "/learn"])
def test_the_five_places_stay_in_sight_on_a_small_window(walker, path):
    walker.set_viewport_size({"width": 800, "height": 1000})
    walker.goto(path)
    drawn(walker)
    for place in (each for each in PAGES if each.in_menu):
        link = walker.get_by_role("link", name=place.title, exact=True).first
        expect(link).to_be_in_viewport(ratio=1)
        box = link.bounding_box()
        hit = walker.evaluate(
            "([x, y]) => document.elementFromPoint(x, y).closest('a')?.textContent",
            [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2],
        )
        assert place.title in (hit or ""), "nothing lies over it"
    assert cut_off(walker) == []


def ring(page: Page) -> dict:
    """Where the keyboard is, and the ring around it or around the field that it is in."""
    return page.evaluate(
        """() => {
            let at = document.activeElement;
            while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
            const shown = [at, at.parentElement, at.parentElement?.parentElement, at.parentElement?.parentElement?.parentElement].filter(Boolean).map(e => getComputedStyle(e));
            return {tag: at.tagName, role: at.getAttribute("role"), text: (at.innerText || at.getAttribute("aria-label") || "").slice(0, 40),
                seen: shown.some(style => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2), inSight: at.checkVisibility()};
        }"""
    )


def test_the_keyboard_alone_jumps_opens_tabs_and_presses_and_one_sees_where_it_is(page):
    page.goto("/")
    drawn(page)
    page.keyboard.press("/")
    expect(page.get_by_role("combobox", name="Jump to")).to_be_focused()
    assert ring(page)["seen"]
    page.keyboard.type("plural-words-1")
    expect(page.get_by_role("option", name="plural-words-1", exact=True)).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="plural-words-1", level=1)).to_be_visible()
    drawn(page)
    page.get_by_role("heading", level=1).click()  # away from the box, and on from here by keys alone
    passed = []
    for _ in range(40):
        page.keyboard.press("Tab")
        passed.append(ring(page))
        if passed[-1]["role"] == "tab":
            break
    assert passed[-1]["role"] == "tab"
    assert any(each["tag"] == "BUTTON" for each in passed)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Tokens")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("heading", name="All tokens")).to_be_visible()
    drawn(page)
    for _ in range(12):
        page.keyboard.press("Tab")
        passed.append(ring(page))
    assert not [each for each in passed if not each["seen"] or not each["inSight"]]
    page.goto("/learn")
    drawn(page)
    page.keyboard.press("/")
    page.keyboard.type("stable/rank")  # the key writes where something is being written
    assert page.get_by_role("combobox", name="Jump to").input_value() == "stable/rank"


def test_who_wishes_for_less_motion_gets_none(chromium, dashboard):
    moving = """() => [...document.querySelectorAll("*")].filter(e => {
        const style = getComputedStyle(e);
        return [style.transitionDuration, style.animationDuration].some(times => times.split(",").some(time => parseFloat(time) > 0.01));
    }).length"""
    counts = {}
    for wish in ("no-preference", "reduce"):
        context = window(chromium, dashboard, reduced_motion=wish)
        page = context.new_page()
        page.goto("/train")
        drawn(page)
        counts[wish] = page.evaluate(moving)
        context.close()
    assert counts["no-preference"] > 0  # there is something to take away
    assert counts["reduce"] == 0
