"""The map under a hand that drags it: frames a second of ours, of Plotly's WebGL (scattergl) and of pydeck (deck.gl), in headless Chromium without a graphics card.

One page holds one map of 900 × 620 pixels or more with as many words as asked and 400 tokens, all at their full number: nothing is left out or thinned, and each answers the
pointer with a point's name. The mouse drags it in circles of 100 pixels; frames are callbacks of `requestAnimationFrame`, which Chromium holds back while it draws, at most 60 a second.
Contestants take turns, round after round, after a first drag that is not counted. So that no frame counts which shows nothing new, the picture is compared before and after: a map
that did not follow the mouse fails the run.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from tests.benchmarks.measure import alone, load, text_table
from tests.support.places import REPOSITORY
from tests.support.served import answers, free_port
from tests.support.waiting import PATIENCE, wait_until

WORDS = (49_152, 262_144)
CANVAS = {"ours": ".stage", "plotly": ".js-plotly-plot .nsewdrag", "pydeck": "[data-testid='stDeckGlJsonChart'] canvas"}
DRAWN = {
    "ours": "() => document.querySelector('.stVerticalBlock') && [...document.querySelectorAll('*')].some(e => e.shadowRoot?.querySelector('.atlas[data-draws]'))",
    "plotly": "() => document.querySelector('.js-plotly-plot')?._fullData && document.querySelector('.js-plotly-plot canvas')",
    "pydeck": "() => document.querySelector(\"[data-testid='stDeckGlJsonChart'] canvas\")",
}
ROUNDS, SECONDS = 5, 3.0
RADIUS, A_TURN = 100, 2.0  # pixels, and seconds a circle
A_MOVE = 0.008  # seconds at least from one word of the mouse to the next, as an ordinary one has it

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
    from tests.support.chromium import headless_chromium

    frames: dict[tuple[str, int], list[float]] = {(name, words): [] for words in WORDS for name in CANVAS}
    with served_page() as address, headless_chromium() as browser:
        context = browser.new_context(viewport={"width": 1400, "height": 1000})
        context.set_default_timeout(1000 * PATIENCE)
        renderer = ""
        with tqdm(total=len(frames) * (ROUNDS + 1), desc="map", file=sys.stderr) as bar:
            for words in WORDS:
                pages = {name: _opened(context, address, name, words) for name in CANVAS}
                for turn in range(ROUNDS + 1):
                    for name, page in pages.items():
                        page.bring_to_front()
                        renderer = page.evaluate(RENDERER)
                        rate = _dragged(page, name)
                        if turn:
                            frames[name, words].append(rate)
                        bar.update()
                for page in pages.values():
                    page.close()
    rows = []
    for words in WORDS:
        medians = {name: statistics.median(frames[name, words]) for name in CANVAS}
        for name, median in medians.items():
            each = frames[name, words]
            against = "" if name == "ours" else f"{medians['ours'] / median:.1f} ×"
            rows.append([f"{words:,} words: {name}", f"{median:.1f}", f"{min(each):.1f} to {max(each):.1f}", against])
    yield text_table(
        "the map while it is dragged, frames a second",
        ["", "median", "range", "ours beside it"],
        rows,
        f"{ROUNDS} drags of {SECONDS:.0f} s each. Drawn by {renderer}. {load()}",
    )


@contextmanager
def served_page() -> Iterator[str]:
    """The address of the page with one map."""
    port = free_port()
    script = str(Path(__file__).with_name("map_page.py"))
    options = ["--server.port", str(port), "--server.headless", "true", "--server.fileWatcherType", "none", "--server.address", "127.0.0.1"]
    command = [sys.executable, "-m", "streamlit", "run", script, *options, "--browser.gatherUsageStats", "false"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}") or server.poll() is not None)
            assert server.poll() is None, "the page with the map did not start"
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=PATIENCE)


def _opened(context, address: str, name: str, words: int):
    page = context.new_page()
    page.goto(f"{address}/?drawn={name}&words={words}")
    page.get_by_role("heading", name="Drawn").wait_for()
    page.wait_for_function(DRAWN[name])
    page.wait_for_timeout(4000)  # what is drawn after the first picture
    return page


def _dragged(page, name: str) -> float:
    """Drag the map in circles; frames a second."""
    canvas = page.locator(CANVAS[name]).last
    canvas.scroll_into_view_if_needed()
    area = canvas.bounding_box()
    x, y = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2
    page.mouse.move(x + RADIUS, y)
    page.mouse.down()
    page.mouse.move(x + RADIUS + 8, y)
    before = canvas.screenshot()
    page.evaluate(COUNT_FRAMES)
    began = time.perf_counter()
    while (at := time.perf_counter() - began) < SECONDS:
        angle = 2 * math.pi * at / A_TURN
        page.mouse.move(x + RADIUS * math.cos(angle), y + RADIUS * math.sin(angle))
        time.sleep(A_MOVE)
    frames = page.evaluate(FRAMES_A_SECOND)
    moved = canvas.screenshot() != before
    page.mouse.up()
    assert moved, f"{name} did not follow the mouse"
    page.wait_for_timeout(500)
    return frames


if __name__ == "__main__":
    alone(tables)
