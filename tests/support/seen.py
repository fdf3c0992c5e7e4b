"""What of a page is seen in a browser: whether text is cut off, and what the accessibility checker axe finds."""

from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

# Text that ends beyond a box that hides what is beyond it and cannot be scrolled, or beyond the window. What is hidden from all eyes is left out, and what
# is whole in a title; the cells of a table are drawn on a canvas, where nothing can be asked.
CUT_OFF = """() => {
    const found = new Set();
    const up = node => node.parentElement ?? (node.parentNode instanceof ShadowRoot ? node.parentNode.host : null);
    const inTitle = (element, text) => { for (let e = element; e; e = up(e)) if (e.getAttribute("title")?.includes(text)) return true; return false; };
    const tell = (text, element, why) => inTitle(element, text) || found.add(`“${text.slice(0, 60)}” ${why}`);

    function look(text, element, box) {
        let fixed = false, free = false; // out of the boxes that are not its own
        for (let e = element; e; e = up(e)) {
            const style = getComputedStyle(e);
            const holds = !free || style.position !== "static" || style.transform !== "none";
            if (holds && e !== document.body && e !== document.documentElement && !fixed) {
                const own = e.getBoundingClientRect();
                if (["hidden", "clip"].includes(style.overflowX)) {
                    if (own.width <= 1 || own.height <= 1) return; // for ears alone
                    if (box.right > own.right + 1.5 || box.left < own.left - 1.5) return tell(text, element, `is cut by ${e.className?.baseVal ?? e.className}`);
                }
                if (["auto", "scroll"].includes(style.overflowX)) return; // can be moved into sight
            }
            if (holds) free = style.position === "absolute";
            fixed ||= style.position === "fixed";
        }
        if (box.right > innerWidth + 1 || box.left < -1) tell(text, element, "is cut by the window");
    }

    function walk(root) {
        const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
        for (let node = walker.nextNode(); node; node = walker.nextNode()) {
            if (node.shadowRoot) walk(node.shadowRoot);
            if (node.nodeType === Node.ELEMENT_NODE) {
                if (!node.matches("input:not([type=file], [type=range], [type=checkbox], [type=radio]), textarea") || !node.checkVisibility()) continue;
                const style = getComputedStyle(node), context = new OffscreenCanvas(1, 1).getContext("2d");
                context.font = style.font;
                const room = node.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight), text = node.value || node.placeholder;
                if (node.matches("input") && text && room > 4 && context.measureText(text).width > room + 1) tell(text, node, "is longer than its field");
                continue;
            }
            const text = node.textContent.trim(), element = node.parentElement;
            if (!text || !element || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
            if (element.closest("style, script, noscript, [data-testid='stIconMaterial'], canvas, .katex-mathml")) continue;
            const range = document.createRange();
            range.selectNodeContents(node);
            const box = range.getBoundingClientRect();
            if (box.width > 1) look(text, element, box);
        }
    }
    walk(document.body);
    return [...found];
}"""
SCROLLS_SIDEWAYS = """() => [document.documentElement, ...document.querySelectorAll("[data-testid='stMain']")].some(box => box.scrollWidth > box.clientWidth)"""
DRAWN = """() => document.querySelector("h1")
    && document.querySelector("[data-test-script-state='notRunning']")
    && !document.querySelector("[data-testid='stProgress'], [data-testid='stSkeleton'], [data-stale='true']")
    && !document.getAnimations().some(each => each instanceof CSSTransition && each.playState !== "finished" && each.effect.target.checkVisibility())
    && [...document.querySelectorAll("[data-testid='stPlotlyChart']")].every(chart => !chart.checkVisibility()
        || chart.querySelector(".main-svg")?.getBoundingClientRect().width <= chart.getBoundingClientRect().width + 1)"""


def drawn(page: Page) -> None:
    """Wait until everything is drawn, the charts in the width that they have."""
    page.wait_for_function(DRAWN)
    page.wait_for_timeout(300)  # what glides has come to rest
    page.wait_for_function(DRAWN)


def turned(page: Page, theme: Literal["light", "dark"]) -> None:
    """Turn the system light or dark, and wait until the page is drawn so."""
    page.emulate_media(color_scheme=theme)
    page.wait_for_function("theme => getComputedStyle(document.querySelector('.stApp')).colorScheme === theme", arg=theme)
    drawn(page)


def findings(page: Page, within: str | None = None) -> list[str]:
    """What axe finds that is serious or critical: the rule and the element, a line each. What a page shows by itself every second or two is asked for again: while it is drawn it is pale."""
    found = _findings(page, within)
    if found:
        drawn(page)
        found = _findings(page, within)
    return found


def _findings(page: Page, within: str | None) -> list[str]:
    found = Axe().run(page, context=within).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {'  '.join(map(str, node['target']))} {node['html'][:120]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def cut_off(page: Page) -> list[str]:
    """What cannot be read to its end: a line a text, and one where the page scrolls sideways."""
    return page.evaluate(CUT_OFF) + ["the page scrolls sideways"] * page.evaluate(SCROLLS_SIDEWAYS)


def unnamed(page: Page) -> list[str]:
    """The figures that say nothing to who does not see them: a line each."""
    figures = page.locator("[data-testid='stPlotlyChart'], [data-testid='stDataFrame'], .stage, figure, [role='region']")
    return [
        figure.evaluate("figure => figure.outerHTML.slice(0, 200)")
        for figure in figures.all()
        if not figure.evaluate(
            "figure => [figure, ...figure.querySelectorAll('*')].some(e => e.getAttribute('aria-label') || e.getAttribute('alt'))"
        )
    ]
