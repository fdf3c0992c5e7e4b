"""The pages in headless Chromium: how long until something useful stands, until all of it does, and until a click is answered.

On a machine that is busy with something else all of that is longer. What a page costs in processor time is told beside: of the server, and of the browser's main thread.

Times are taken in the page, at the frame that shows it, from the moment at which the browser begins to go there (of a click: from the press). *Whole* is when no script runs,
nothing is computed, no skeleton stands and every figure and map is drawn, and stays so for half a second.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from tqdm import tqdm

from tests.benchmarks.measure import alone, load, text_table
from tests.support.served import served
from tests.support.waiting import PATIENCE

ROUNDS = 3
STILL = 500  # milliseconds for which a page must stay whole
FIRST, WHOLE, COLD, CLICK = 1.5, 3.0, 4.0, 0.5  # seconds at most: what the pages are meant to keep to


class Shown(NamedTuple):
    """A page, and what of it is of use to a person first: an element, and the text in it or in its label."""

    name: str
    path: str
    first: str
    selector: str
    text: str = ""


PROMPT, LORA = "/prompt?prompt=past-tense-words-1&tab=", "/lora?lora=sentiment-lora-8&tab="
MAP = ".atlas[data-draws]"
PAGES = (
    Shown("Start", "/", "its doors", "[data-testid='stPageLink']", "past tense"),
    Shown("Library", "/library", "the table", "[data-testid='stDataFrame'] canvas"),
    Shown("Prompt: what it does", f"{PROMPT}What+it+does", "whether it works", "li", "It works"),
    Shown("Prompt: tokens", f"{PROMPT}Tokens", "the strip", "button[aria-checked], button[aria-pressed], [data-testid='stButtonGroup'] button", "9 "),
    Shown("Prompt: behaviour", f"{PROMPT}Behaviour", "whether it works", "li", "It works"),
    Shown("Prompt: try it", f"{PROMPT}Try+it", "whether it works", "li", "It works"),
    Shown("LoRA: what it does", f"{LORA}What+it+does", "whether it works", "li", "held-out"),
    Shown("LoRA: ranks", f"{LORA}Ranks", "which rank would do", "h4", "rank"),
    Shown("LoRA: smaller copy", f"{LORA}Smaller+copy", "whether it works", "li", "held-out"),
    Shown("Atlas", "/atlas", "the map", MAP),
    Shown("Train", "/train", "the presets", "button", "Train it"),
    Shown("Learn: the lesson", "/learn", "its first bars", ".rows .bar"),
    Shown("Learn: measures", "/learn?tab=Measures", "the first measure", "h2"),
    Shown("Learn: methods", "/learn?tab=Methods", "the first figure", ".rows .mark"),
)  # fmt: skip

# Elements within the components' own roots too. `{name: since when it holds}`, once the last of them has held for a while.
WATCH = """([wanted, after, still, patience]) => new Promise((resolve, reject) => {
    const began = performance.now();
    const inside = (root) => [root, ...[...root.querySelectorAll("*")].filter((e) => e.shadowRoot).flatMap((e) => inside(e.shadowRoot))];
    const every = (selector) => inside(document).flatMap((root) => [...root.querySelectorAll(selector)]);
    const there = ([selector, text]) => every(selector).some((e) => e.checkVisibility() && `${e.textContent} ${e.ariaLabel ?? ""}`.includes(text));
    const drawn = (holder, within) => every(holder).every((e) => !e.checkVisibility() || e.querySelector(within));
    const whole = () => document.querySelector("h1") && document.querySelector("[data-test-script-state='notRunning']")
        && !document.querySelector("[data-testid='stProgress'], [data-testid='stSkeleton'], [data-testid='stAppSkeleton'], [data-testid='stSpinner']")
        && drawn("[data-testid='stPlotlyChart']", ".main-svg") && drawn("[data-testid='stDataFrame']", "canvas")
        && every(".atlas").every((e) => e.matches("[data-draws]") || e.querySelector(".refusal"));
    const since = {};
    const look = () => {
        const now = performance.now();
        for (const [name, what] of Object.entries(wanted)) since[name] ??= there(what) ? now : null;
        const all = Object.keys(wanted).every((name) => since[name] !== null);
        since.whole = all && whole() ? since.whole ?? now : undefined;
        if (since.whole !== undefined && now - since.whole > still) {
            const from = after ? window.pressedAt : 0;
            resolve(Object.fromEntries(Object.entries(since).map(([name, at]) => [name, (at - from) / 1000])));
        } else if (now - began > 1000 * patience) reject(new Error(`it never stood: ${JSON.stringify(since)}`));
        else requestAnimationFrame(look);
    };
    look();
})"""
NOTE_PRESSES = "() => addEventListener('pointerdown', () => { window.pressedAt = performance.now(); }, true)"
PLACE_ON_MAP = """(root, i) => { const { atlas } = root, pane = atlas.panes[0], box = pane.stage.getBoundingClientRect(), { places } = atlas.tokens;
    return [box.left + atlas.view.across(places[2 * i], pane.width), box.top + atlas.view.down(places[2 * i + 1], pane.height)]; }"""


def tables() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        runs = {"SOFT_PROMPT_EXPLORER_RUNS": f"{folder}/runs"}
        yield _cold(Path(folder), runs)
        with served(Path(folder) / "server.log", **runs) as address:
            yield _warm(address)
            yield _clicks(address)


# --- Warm -----------------------------------------------------------------------------------------------------------------


def _warm(address: str) -> str:
    from tests.support.chromium import headless_chromium, window

    times: dict[str, list[dict[str, float]]] = {page.name: [] for page in PAGES}
    with headless_chromium() as browser:
        context = window(browser, address)
        for turn in range(ROUNDS + 1):
            for shown in tqdm(PAGES, desc="pages", file=sys.stderr):
                page = context.new_page()
                protocol = context.new_cdp_session(page)
                protocol.send("Performance.enable", {"timeDomain": "threadTicks"})
                before = _processor_seconds(address)
                seen = opened(page, shown)
                seen["server"] = _processor_seconds(address) - before
                seen["browser"] = next(
                    each["value"] for each in protocol.send("Performance.getMetrics")["metrics"] if each["name"] == "TaskDuration"
                )
                if turn:
                    times[shown.name].append(seen)
                page.close()
        context.close()
    rows = []
    for shown in PAGES:
        first, whole = ([each[name] for each in times[shown.name]] for name in ("first", "whole"))
        costs = [f"{statistics.median(each[name] for each in times[shown.name]):.2f} s" for name in ("server", "browser")]
        rows.append([f"{shown.name}: {shown.first}", *_told(first, FIRST), *_told(whole, WHOLE), *costs])
    return text_table(
        "pages, the server and the browser's cache warm",
        ["", "first", "range", "goal", "whole", "range", "goal", "server", "browser"],
        rows,
        f"Medians of {ROUNDS} visits after one that is not counted, a new session each. {load()}",
    )


def _processor_seconds(address: str) -> float:
    """The processor time that the server has used."""
    port = address.rpartition(":")[2]
    servers = [process for process in psutil.Process().children() if port in process.cmdline()]
    return sum(sum(process.cpu_times()[:2]) for process in servers)


def opened(page, shown: Shown) -> dict[str, float]:
    """Go to a page; the seconds until its first useful content, and until all of it stands."""
    page.goto(shown.path, wait_until="commit")
    return page.evaluate(WATCH, [{"first": [shown.selector, shown.text]}, False, STILL, PATIENCE])


# --- Cold -----------------------------------------------------------------------------------------------------------------


def _cold(folder: Path, runs: dict[str, str]) -> str:
    """A server that has just been started, and a browser that has nothing of it yet."""
    from tests.support.chromium import headless_chromium, received, window

    shown = [page for page in PAGES if page.name in ("Start", "Prompt: tokens", "LoRA: ranks", "Atlas")]
    rows = []
    with headless_chromium() as browser:
        for each in tqdm(shown, desc="cold", file=sys.stderr):
            seen = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                with served(folder / "cold.log", **runs) as address:
                    up = time.perf_counter() - began
                    context = window(browser, address)
                    page = context.new_page()
                    size = received(page)
                    seen.append(opened(page, each) | {"up": up, "bytes": sum(size)})
                    context.close()
            rows.append(
                [
                    f"{each.name}: {each.first}",
                    *(f"{statistics.median(one[name] for one in seen):.2f} s" for name in ("up", "first")),
                    *_told([one["whole"] for one in seen], COLD),
                    f"{statistics.median(one['bytes'] for one in seen) / 1e6:.1f} MB",
                ]
            )
    return text_table(
        "pages, a server that was just started and a browser without a cache",
        ["", "server answers", "first", "whole", "range", "goal", "received"],
        rows,
        f"Medians of {ROUNDS} starts after `prepare`, whose files the system may hold in memory; first and whole count from when the server answers. {load()}",
    )


# --- Clicks ---------------------------------------------------------------------------------------------------------------


def _clicks(address: str) -> str:
    """What a click selects, until its answer stands; each click has another answer than the one before."""
    from tests.support.chromium import headless_chromium, window

    strip = Shown("a token on the strip", f"{PROMPT}Tokens&token=9", "", "[aria-label]", "with token 9's score")
    row = Shown("a row of the library", "/library", "", "[data-testid='stDataFrame'] canvas")
    dot = Shown("a dot on the atlas", "/atlas", "", MAP)
    seen: dict[str, list[dict[str, float]]] = {each.name: [] for each in (strip, row, dot)}
    with headless_chromium() as browser:
        context = window(browser, address)
        for each in (strip, row, dot):
            page = context.new_page()
            opened(page, each)
            page.evaluate(NOTE_PRESSES)
            for turn in tqdm(range(2 * ROUNDS + 1), desc=each.name, file=sys.stderr):
                number = 3 + turn // 2
                if each is strip:
                    number = turn % 10
                    page.locator("[data-testid='stButtonGroup'] button").nth(number).click()
                    answer = ["[aria-label]", f"with token {number}'s score"]
                elif each is row:  # ticked, and then not any more
                    page.locator("[data-testid='stDataFrame'] canvas").first.click(position={"x": 16, "y": 52 + 35 * number}, force=True)
                    answer = ["p", "Click a name to read it"] if turn % 2 else ["button", "Read "]
                else:  # selected, and then let go
                    page.mouse.click(*page.locator(".atlas").evaluate(PLACE_ON_MAP, number))
                    answer = ["strong", "All " if turn % 2 else "1 selected virtual"]
                took = page.evaluate(WATCH, [{"first": answer}, True, STILL, PATIENCE])
                if turn:
                    seen[each.name].append(took)
            page.close()
        context.close()
    rows = [
        [name, *_told([one["first"] for one in each], CLICK), *_told([one["whole"] for one in each], None)[:2]]
        for name, each in seen.items()
    ]
    return text_table(
        "a click that selects",
        ["", "answered", "range", "goal", "whole", "range"],
        rows,
        f"Medians of {2 * ROUNDS} clicks after one that is not counted. {load()}",
    )


def _told(seconds: list[float], goal: float | None) -> list[str]:
    median = statistics.median(seconds)
    verdict = "" if goal is None else f"{'kept' if median <= goal else 'missed'} (≤ {goal:g} s)"
    return [f"{median:.2f} s", f"{min(seconds):.2f} to {max(seconds):.2f}", verdict]


if __name__ == "__main__":
    alone(tables)
