"""What all charts share: colours, marks, margins, and how text is drawn.

Colours are Okabe & Ito's, which people with colour-blindness can tell apart; what a colour says, a word or a shape says too.
A chart is a pure function of a table: table in, plotly Figure out. No Streamlit, no files.
"""

from __future__ import annotations

import html

from soft_prompt_explorer.analysis.core.words import shown
from soft_prompt_explorer.analysis.figures.colours import BLUE, BLUE_LIGHT, GREEN, GREY, ORANGE, PURPLE, VERMILION, YELLOW
from soft_prompt_explorer.analysis.prompts.starts import plain_verdict
from soft_prompt_explorer.analysis.prompts.verdicts import SHAPES

ROW_HEIGHT = 26
UNGROUPED = ("no cluster", "unknown")
# A category is told by its colour and by its shape; the lengths have no common divisor, so the pairs repeat late.
CATEGORY_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, BLUE_LIGHT, YELLOW)
CATEGORY_SHAPES = {
    2: ("circle", "square", "diamond", "triangle-up", "star", "cross", "hexagon", "triangle-down"),
    3: ("circle", "square", "diamond", "cross"),
}
VERDICT_MARKS = {
    "learned": (GREEN, "star"),
    "echo": (ORANGE, "square"),
    "near a word": (BLUE, "diamond"),
    "unreadable": (GREY, "x"),
    "never trained": (GREY, "circle-open"),
}
PALE_BLUES = [[0.0, "#F4F8FC"], [1.0, BLUE_LIGHT]]  # dark text stays readable on all of it
MARGIN = {"l": 10, "r": 10, "t": 30, "b": 40}
ABOVE = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}


def drawn(token: str) -> str:
    """A token for a chart: plotly would take `<b>` for markup."""
    return html.escape(shown(token), quote=False)


def verdict_label(verdict: str) -> str:
    """A verdict with the shape that stands for it on the map."""
    return f"{SHAPES[plain_verdict(verdict)]} {verdict}"


def marks_of(groups: list[str], dimensions: int) -> dict[str, tuple[str, str]]:
    """The colour and shape of each group; verdicts and "no cluster" have their own."""
    shapes = CATEGORY_SHAPES[dimensions]
    marks, place = {}, 0
    for group in groups:
        verdict = VERDICT_MARKS.get(plain_verdict(group))
        if verdict is not None:
            marks[group] = (verdict[0], verdict[1] if verdict[1] in (*shapes, "x") else "circle")
        elif group in UNGROUPED:
            marks[group] = (GREY, "x")
        else:
            marks[group] = (CATEGORY_COLOURS[place % len(CATEGORY_COLOURS)], shapes[place % len(shapes)])
            place += 1
    return marks


def shortened(text: str, letters: int) -> str:
    text = text.replace("\n", " ⏎ ")
    return text if len(text) <= letters else text[: letters - 1] + "…"
