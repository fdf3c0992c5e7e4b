"""The page Clusters in a real browser, with 400 uploaded virtual tokens on the map of the embedded vocabulary; and the slow analyses behind the pages.

The dashboard is a process of its own, as `make app` starts it, and the browser is headless Chromium, 1400 × 1000. Each round of the
first row opens the file in a fresh session and the page after it; its time begins when the file is chosen in the field “Prompts” and
ends when all tokens and every word of the vocabulary are on the map. The map itself was made before and is in the cache. A selection is
timed from the release of the mouse to the heading that counts the tokens. Frames are callbacks of `requestAnimationFrame` while the
mouse drags the map; without a graphics card Chromium draws WebGL in software, which the table names.

The analyses run in this process, after one call that is not counted; the null and the map are in the cache.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary, load_vocabulary
from soft_prompt_explorer.analysis.prompts.clusters import find_clusters
from soft_prompt_explorer.analysis.prompts.null import null_of
from soft_prompt_explorer.analysis.prompts.projection import vocabulary_map
from soft_prompt_explorer.analysis.prompts.search import unit_rows
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from tests.benchmarks.measure import median_and_range, take_turns, text_table

TOKENS, MANY, FEW = 400, 2000, 20
ROUNDS, SELECTIONS, PANS = 3, 7, 5
PAN_STEPS = 60

ALL_DRAWN = """([words, tokens]) => {
    const plot = document.querySelector("[class*='st-key-map-umap'] .js-plotly-plot");
    if (!plot?._fullData || !plot.querySelector("canvas")) return false;
    const drawn = plot._fullData.filter(trace => trace.x);
    return drawn.some(trace => trace.x.length === words)
        && drawn.reduce((sum, trace) => sum + (trace.customdata?.length ?? 0), 0) === tokens;
}"""
COUNT_FRAMES = """() => {
    window.framesBegan = performance.now(); window.framesSeen = 0; window.framesGoOn = true;
    const count = () => { window.framesSeen += 1; if (window.framesGoOn) requestAnimationFrame(count); };
    requestAnimationFrame(count);
}"""
FRAMES_A_SECOND = "() => { window.framesGoOn = false; return 1000 * window.framesSeen / (performance.now() - window.framesBegan); }"
RENDERER = """() => {
    const context = document.createElement("canvas").getContext("webgl");
    const names = context?.getExtension("WEBGL_debug_renderer_info");
    return names ? context.getParameter(names.UNMASKED_RENDERER_WEBGL) : "unknown";
}"""


def tables() -> Iterator[str]:
    """The browser, then the analyses."""
    vocabulary = load_vocabulary(EMBEDDED_MODEL)
    null_of(vocabulary)
    vocabulary_map(vocabulary)
    yield _in_the_browser(vocabulary)
    yield _analyses(vocabulary)


# --- In the browser ------------------------------------------------------------------------------------------------------


def _in_the_browser(vocabulary: Vocabulary) -> str:
    from tests.support.chromium import headless_chromium
    from tests.support.served import served

    drawn, selected, frames = [], [], []

    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder) / "server.log", SOFT_PROMPT_EXPLORER_RUNS=str(Path(folder) / "runs")) as address,
        headless_chromium() as browser,
    ):
        path = Path(folder, "planted.npy")
        np.save(path, _planted(vocabulary, TOKENS))
        with tqdm(total=1 + ROUNDS + SELECTIONS + PANS, desc="dashboard", file=sys.stderr) as bar:
            for turn in range(1 + ROUNDS):
                context = browser.new_context(viewport={"width": 1400, "height": 1000}, base_url=address)
                context.set_default_timeout(120_000)
                page = context.new_page()
                seconds = _open_map(page, path, len(vocabulary))
                if turn:
                    drawn.append(seconds)
                bar.update()
                if turn < ROUNDS:
                    context.close()
            page.get_by_test_id("stProgress").wait_for(state="detached")
            _at_rest(page)
            renderer = page.evaluate(RENDERER)
            for _ in range(PANS):
                frames.append(_pan(page))
                bar.update()
            _at_rest(page)
            for _ in range(SELECTIONS):
                selected.append(_select(page))
                bar.update()
            context.close()
    rows = [
        [f"map of {len(vocabulary):,} words and {TOKENS} tokens is drawn", *median_and_range(drawn), ""],
        ["from the end of a box selection to its heading", *median_and_range(selected), "under 2 s"],
        ["frames a second while the map is dragged", f"{statistics.median(frames):.0f}", f"{min(frames):.0f} to {max(frames):.0f}", ""],
    ]
    return text_table(
        "the page Clusters in headless Chromium",
        ["", "median", "range", "expected"],
        rows,
        f"{ROUNDS} pages, {SELECTIONS} selections, {PANS} drags. Drawn by {renderer}.",
    )


def _at_rest(page) -> None:
    page.wait_for_function("() => !document.querySelector('[data-test-script-state=\"running\"]')")


def _open_map(page, path: Path, words: int) -> float:
    """Upload the file, open the page Clusters, and choose the file there; seconds from the choice to the map."""
    page.goto("/open")
    page.locator('input[type="file"]').set_input_files(path)
    page.get_by_text(f"{path.stem}: Soft prompt").wait_for()
    page.get_by_role("link", name="Clusters").click()
    page.get_by_role("heading", name="Clusters", level=1).wait_for()
    _at_rest(page)
    field = page.get_by_test_id("stMultiSelect")
    field.get_by_role("button", name="Clear all").click()
    page.get_by_text("Pick a prompt.").wait_for()
    field.get_by_role("combobox").fill(path.stem)
    option = page.get_by_role("option", name=path.stem)
    option.wait_for()
    began = time.perf_counter()
    option.click()
    page.wait_for_function(ALL_DRAWN, arg=[words, TOKENS])
    took = time.perf_counter() - began
    page.keyboard.press("Escape")
    return took


def _plot_area(page) -> dict:
    plot = page.locator("[class*='st-key-map-umap'] .js-plotly-plot")
    plot.scroll_into_view_if_needed()
    plot.hover()
    return plot.locator(".nsewdrag").last.bounding_box()


def _mode(page, title: str) -> None:
    page.locator(f"[class*='st-key-map-umap'] [data-title='{title}']").click()


def _pan(page) -> float:
    """Drag the map there and back; frames a second."""
    area = _plot_area(page)
    _mode(page, "Pan")
    x, y = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.evaluate(COUNT_FRAMES)
    for step in range(PAN_STEPS):
        page.mouse.move(x + 100 * np.sin(2 * np.pi * step / PAN_STEPS), y)
    frames = page.evaluate(FRAMES_A_SECOND)
    page.mouse.up()
    return frames


def _select(page) -> float:
    """Draw a box over the whole map; seconds until the heading counts the tokens in it. A double click then lets go of them."""
    area = _plot_area(page)
    _mode(page, "Box Select")
    left, top, right, bottom = area["x"] + 3, area["y"] + 3, area["x"] + area["width"] - 3, area["y"] + area["height"] - 3
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move((left + right) / 2, (top + bottom) / 2, steps=4)
    page.mouse.move(right, bottom, steps=4)
    page.mouse.up()
    began = time.perf_counter()
    page.get_by_role("heading", name=f"{TOKENS} selected virtual tokens").wait_for()
    took = time.perf_counter() - began
    _at_rest(page)
    page.mouse.dblclick(left + 30, bottom - 30)
    page.get_by_role("heading", name=f"All {TOKENS} virtual tokens").wait_for()
    _at_rest(page)
    return took


# --- The analyses --------------------------------------------------------------------------------------------------------


def _analyses(vocabulary: Vocabulary) -> str:
    few, many = (SoftPrompt("planted", _planted(vocabulary, count), None, None, None, None) for count in (FEW, MANY))
    calls = {
        f"readings of {FEW} tokens, the null cached": (lambda: readings(few, vocabulary), "under 2 s"),
        f"clusters of {MANY:,} tokens, 100 bootstraps": (lambda: find_clusters([many], vocabulary), "under 30 s"),
    }
    seconds = take_turns({name: call for name, (call, _) in calls.items()}, rounds=ROUNDS, subject="analyses")
    rows = [[name, *median_and_range(seconds[name]), expected] for name, (_, expected) in calls.items()]
    return text_table("the analyses behind the pages", ["", "median", "range", "expected"], rows, f"{ROUNDS} rounds.")


def _planted(vocabulary: Vocabulary, count: int) -> np.ndarray:
    """A quarter of the tokens in clusters of twenty (of five where there are few), and noise, around the vocabulary's mean."""
    rng = np.random.default_rng(0)
    size = 20 if count >= 100 else 5
    centres = np.repeat(unit_rows(rng.standard_normal((count // 4 // size, vocabulary.width))), size, axis=0)
    members = centres + unit_rows(rng.standard_normal(centres.shape))
    noise = rng.standard_normal((count - len(members), vocabulary.width)) * np.sqrt(2 / vocabulary.width)
    return (vocabulary.mean + np.concatenate([members, noise])).astype(np.float32)
