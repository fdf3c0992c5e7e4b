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
CATEGORY_SHAPES = ("circle", "square", "diamond", "triangle-up", "star", "cross", "hexagon", "triangle-down")
VERDICT_MARKS = {
    "moved along a word": (GREEN, "star"),
    "echo": (ORANGE, "square"),
    "near a word": (BLUE, "diamond"),
    "unreadable": (GREY, "x"),
    "never trained": (GREY, "circle-open"),
}
MARKDOWN_COLOURS = {"moved along a word": "green", "echo": "orange", "near a word": "blue", "unreadable": "grey", "never trained": "grey"}
HAS_EFFECT, NO_EFFECT = "acts", "as chance"
EFFECT_MARKS = {HAS_EFFECT: (PURPLE, "▲"), NO_EFFECT: (GREY, "▽")}
# The map knows the page's theme: on a dark page its colours are brighter, and what is in no group stands back less.
MAP_COLOURS = {
    BLUE: {"light": BLUE, "dark": "#3B8FCC"},
    ORANGE: {"light": ORANGE, "dark": "#E69F00"},
    GREEN: {"light": GREEN, "dark": "#009E73"},
    PURPLE: {"light": PURPLE, "dark": "#CC79A7"},
    VERMILION: {"light": VERMILION, "dark": "#E8752B"},
    BLUE_LIGHT: {"light": BLUE_LIGHT, "dark": "#7CC8F2"},
    YELLOW: {"light": YELLOW, "dark": "#F0E442"},
    GREY: {"light": "#3F4450", "dark": "#D5D9E0"},
}
MAP_LOOK = {
    "light": {"words": "#7A8090", "accent": BLUE, "trail": GREY, "moving": VERMILION},
    "dark": {"words": "#868C99", "accent": "#4FA3D9", "trail": GREY, "moving": "#E8752B"},
}
# Cividis (Nuñez, Anderton & Renslow 2018), as far as it stands out from the page 3 : 1.
MAP_SCALE = {
    "light": ["#00224E", "#002E6C", "#203A6F", "#36466C", "#49536C", "#5A5F6E", "#696B71", "#787877", "#898578", "#999277"],
    "dark": ["#5F636F", "#6F7073", "#7E7D78", "#908B78", "#A19975", "#B4A76F", "#C6B667", "#DAC65B", "#EED649", "#FEE838"],
}
PALE_BLUES = [[0.0, "#F4F8FC"], [1.0, "#56B4E9"]]  # dark text stays readable on all of it
BLUE_WHITE_ORANGE = [[0.0, "#56B4E9"], [0.5, "#FFFFFF"], [1.0, "#E69F00"]]  # the like, around a value that tells
MARGIN = {"l": 10, "r": 10, "t": 30, "b": 40}
ABOVE = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}


def drawn(token: str) -> str:
    """A token for a chart: plotly would take `<b>` for markup."""
    return html.escape(shown(token), quote=False)


def verdict_label(verdict: str) -> str:
    """A verdict with the shape that stands for it on the map."""
    return f"{SHAPES[plain_verdict(verdict)]} {verdict}"


def mark_of(verdict: str) -> str:
    """The shape that stands for a verdict, in its colour: Markdown."""
    return f":{MARKDOWN_COLOURS[plain_verdict(verdict)]}[{SHAPES[plain_verdict(verdict)]}]"


def group_order(group: str) -> tuple:
    """Groups as they are listed: by the number that a name begins with, then by name; those of no group last."""
    number = group.split(":")[0]
    return group in UNGROUPED, int(number) if number.isdecimal() and len(number) < 10 else -1, group


def marks_of(groups: list[str]) -> dict[str, tuple[str, str]]:
    """The colour and shape of each group; verdicts and "no cluster" have their own."""
    shapes = CATEGORY_SHAPES
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
