"""What stands in a chart of rows, read from its HTML: by the numbers on its axis, and not by the code that drew it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree

Element = ElementTree.Element


@dataclass(frozen=True)
class SeenMark:
    """A mark: what it says by its shape, colour and place, and the ends of its interval."""

    shape: str
    colour: str
    value: float
    interval: tuple[float, float] | None
    top: str


@dataclass(frozen=True)
class SeenRow:
    label: str
    written: str
    heard: str
    pointed_at: str | None
    bar: tuple[float, float, str] | None
    marks: list[SeenMark]


@dataclass(frozen=True)
class Seen:
    """A chart: its rows, the lines and the bands through them all, and what its shapes mean."""

    alt: str
    title: str
    rows: list[SeenRow]
    lines: list[float]
    dotted: list[float]
    bands: list[tuple[float, float]]
    legend: dict[str, tuple[str, str]]


def parsed(chart: str) -> Element:
    """The chart as a tree; what is not well formed, or holds markup of a stranger's, is none."""
    return ElementTree.fromstring(f"<div>{chart}</div>")


def of_class(within: Element, name: str) -> list[Element]:
    return [each for each in within.iter() if name in each.get("class", "").split()]


def style(element: Element) -> dict[str, str]:
    return dict(part.split(":", 1) for part in element.get("style", "").split(";") if part)


def text(element: Element) -> str:
    return "".join(element.itertext())


def seen(chart: str) -> Seen:
    """The chart as who reads it by its axis sees it."""
    figure = of_class(parsed(chart), "rows")[0]
    ticks = [(_percent(style(each)["left"]), _number(text(each))) for each in of_class(figure, "axis")[0].iter("span") if each.get("style")]
    (start, low), (end, high) = ticks[0], ticks[-1]

    def value(percent: float) -> float:
        return low + (percent - start) * (high - low) / (end - start)

    def ends(element: Element) -> tuple[float, float]:
        left, width = (_percent(style(element)[name]) for name in ("left", "width"))
        return value(left), value(left + width)

    def row(element: Element) -> SeenRow:
        (across,), (written,) = of_class(element, "across"), of_class(element, "written")
        bars = [(*ends(bar), style(bar)["background"]) for bar in of_class(across, "bar")]
        marks, interval = [], None
        for each in across:
            names, drawn = each.get("class", "").split(), style(each)
            if "reach" in names:
                interval = ends(each)
            elif "mark" in names:
                (shape,) = set(names) - {"shape", "mark"}
                marks.append(SeenMark(shape, drawn["background"], value(_percent(drawn["left"])), interval, drawn["top"]))
                interval = None
        heard = " ".join(text(each).strip() for each in of_class(written, "ears"))
        return SeenRow(
            text(of_class(element, "label")[0]), written.text or "", heard, across.get("title"), bars[0] if bars else None, marks
        )

    items = list(of_class(figure, "field")[0].iter("li"))
    lines = [(value(_percent(style(each)["left"])), each.get("class", "").split()) for each in of_class(items[0], "line")] if items else []
    legend = {text(each): _look(each) for group in of_class(figure, "legend") for each in group.iter("li")}
    return Seen(
        figure.get("aria-label", ""),
        " ".join(text(each) for each in of_class(figure, "title")),
        [row(each) for each in items],
        [place for place, names in lines if "dotted" not in names],
        [place for place, names in lines if "dotted" in names],
        [ends(each) for each in of_class(items[0], "band")] if items else [],
        legend,
    )


def _look(item: Element) -> tuple[str, str]:
    (key,) = of_class(item, "shape")
    (shape,) = set(key.get("class", "").split()) - {"shape"}
    return shape, style(key)["background"]


def _percent(length: str) -> float:
    return float(re.fullmatch(r"(-?[\d.]+)%", length)[1])


def _number(tick: str) -> float:
    return float(tick[:-1]) / 100 if tick.endswith("%") else float(tick)
