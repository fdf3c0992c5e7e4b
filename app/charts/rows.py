"""Rows of bars and marks on one line, as plain HTML: drawn at once, read without pointing, at any width, on a light and on a dark page.

A chart of this kind is a pure function of a table: table in, HTML out. What is written in it is escaped here and nowhere else.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from soft_prompt_explorer.app.charts.theme import GREY

# Cut out of a square of 16 pixels, for Streamlit takes an SVG away. The names are Plotly's, which the other charts use: one mark is one shape everywhere.
SHAPES = {
    "circle": "M13.2 8A5.2 5.2 0 1 1 2.8 8A5.2 5.2 0 1 1 13.2 8Z",
    "square": "M3.3 3.3H12.7V12.7H3.3Z",
    "diamond": "M8 1.6L14.4 8L8 14.4L1.6 8Z",
    "triangle-up": "M8 2L14 13H2Z",
    "triangle-down": "M8 14L14 3H2Z",
    "cross": "M6 2H10V6H14V10H10V14H6V10H2V6H6Z",
    "x": "M8 5.6L11.6 2L14 4.4L10.4 8L14 11.6L11.6 14L8 10.4L4.4 14L2 11.6L5.6 8L2 4.4L4.4 2Z",
    "star": "M8 1L9.65 5.73L14.66 5.84L10.66 8.87L12.11 13.66L8 10.8L3.89 13.66L5.34 8.87L1.34 5.84L6.35 5.73Z",
    "hexagon": "M8 1.8L13.4 4.9V11.1L8 14.2L2.6 11.1V4.9Z",
    "circle-open": "M13.6 8A5.6 5.6 0 1 1 2.4 8A5.6 5.6 0 1 1 13.6 8ZM11.4 8A3.4 3.4 0 1 1 4.6 8A3.4 3.4 0 1 1 11.4 8Z",
    "square-open": "M3 3H13V13H3ZM5.2 5.2H10.8V10.8H5.2Z",
    "diamond-open": "M8 1L15 8L8 15L1 8ZM8 4.2L11.8 8L8 11.8L4.2 8Z",
    "block": "M0 2H16V14H0Z",
}
OPEN = "-open"
MOST_TICKS = 5
STYLE = f"""<style>
.rows {{ margin: 0; font-size: 14px; line-height: 1.25; }}
.rows ul {{ list-style: none; margin: 0; padding: 0; }}
.rows li {{ margin: 0; }}
.rows .legend {{ display: flex; flex-wrap: wrap; gap: 2px 16px; margin-bottom: 6px; }}
.rows .legend li {{ display: flex; align-items: center; gap: 5px; }}
.rows .shape {{ display: block; flex: none; width: 16px; height: 16px; }}
.rows .field {{ display: grid; grid-template-columns: fit-content(40%) minmax(60px, 1fr) fit-content(34%); }}
.rows .field :is(ul, li, div) {{ display: grid; grid-template-columns: subgrid; grid-column: 1 / -1; align-items: center; }}
.rows .label {{ overflow-wrap: anywhere; padding: 2px 0; }}
.rows .written {{ text-align: right; overflow-wrap: anywhere; white-space: pre-line; font-variant-numeric: tabular-nums; }}
.rows .across {{ position: relative; align-self: stretch; margin: 0 16px 0 14px; }}
.rows .across > * {{ position: absolute; }}
.rows .across .bar {{ top: 4px; bottom: 4px; min-width: 2px; border-radius: 2px; }}
.rows .reach {{ height: 2px; transform: translateY(-50%); }}
.rows :is(.mark, .plate) {{ transform: translate(-50%, -50%); }}
.rows .plate {{ background: light-dark(#FFFFFF, #171614); }}
.rows .line {{ top: 0; bottom: 0; border-left: 1px solid {GREY}; }}
.rows .dotted {{ border-left: 2px dotted {GREY}; }}
.rows .tick {{ top: 0; bottom: 0; border-left: 1px solid currentColor; opacity: 0.12; }}
.rows .band {{ top: 0; bottom: 0; background: {GREY}; opacity: 0.28; }}
.rows .axis {{ font-size: 12px; min-height: 22px; }}
.rows :is(.axis .across, .axis.across) > span {{ top: 4px; transform: translateX(-50%); white-space: nowrap; font-variant-numeric: tabular-nums; }}
.rows .title {{ font-size: 12px; text-align: center; }}
.rows .columns {{ height: 150px; }}
.rows .steps {{ top: 0; bottom: 0; }}
.rows .tall {{ height: 84px; margin-top: 6px; margin-bottom: 6px; }}
.rows .level {{ left: 0; right: 0; border-top: 1px solid currentColor; opacity: 0.15; }}
.rows .levels {{ position: relative; height: 84px; width: 3em; font-size: 12px; }}
.rows .levels span {{ position: absolute; right: 0; transform: translateY(-50%); }}
.rows .columns .told {{ border-left-width: 3px; }}
.rows .columns + .axis {{ height: 22px; }}
{"".join(f'.rows .{name} {{ clip-path: path(evenodd, "{path}"); }} ' for name, path in SHAPES.items())}
.rows .ears {{ position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }}
</style>"""


@dataclass(frozen=True)
class Mark:
    """A shape at a value, on the line of its 95 % interval where it has one.

    Attributes
    ----------
    shape : of `SHAPES`, or the same with "-open": with nothing in it.
    lane : which of the lines within its row, from the top.
    """

    value: float
    colour: str
    shape: str
    low: float = math.nan
    high: float = math.nan
    lane: int = 0


@dataclass(frozen=True)
class Row:
    """One thing.

    Attributes
    ----------
    label, written : what stands before and behind its line; what is written has a line a lane.
    says : its figures in a sentence, for who points at it and for who hears it; empty where the label and what is written say all.
    bar : where a bar from 0 ends, and its colour.
    marks : drawn in their order; one whose value is no number is not.
    """

    label: str
    written: str
    says: str
    bar: tuple[float, str] | None = None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Scale:
    """What the lines of all rows measure.

    Attributes
    ----------
    low, high : their ends; what lies beyond is drawn there.
    title : what is measured, in a few words; without it no axis is drawn.
    written : how a number is written on the axis.
    """

    low: float
    high: float
    title: str = ""
    written: str = "{:.10g}"

    def place(self, value: float) -> float:
        """Where a value is between the ends, in percent."""
        share = (value - self.low) / (self.high - self.low)
        return 100 * min(max(share, 0.0), 1.0)


def scale_of(values: Iterable[float], title: str, *, zero: bool = True, room: float = 0.04, written: str = "{:.10g}") -> Scale:
    """The scale on which all of these are seen, with that share of room beyond the outermost, but for 0.

    Parameters
    ----------
    zero : whether 0 is seen too, from which bars go.

    >>> scale_of([2.0, 4.0], "z", room=0.25)
    Scale(low=0.0, high=5.0, title='z', written='{:.10g}')
    """
    numbers = [*([0.0] if zero else []), *(float(value) for value in values if math.isfinite(value))] or [0.0]
    low, high = min(numbers), max(numbers)
    beyond = room * ((high - low) or 1.0)
    return Scale(low and low - beyond, high and high + beyond, title, written) if low < high else Scale(0.0, 1.0, title, written)


def row_chart(
    rows: Sequence[Row],
    scale: Scale,
    *,
    alt: str,
    legend: Sequence[tuple[str, str, str]] = (),
    lines: Sequence[float] = (),
    dotted: Sequence[float] = (),
    band: tuple[float, float] | None = None,
) -> str:
    """The rows below one another.

    Parameters
    ----------
    alt : what the chart shows, for who does not see it.
    legend : name, colour and shape of each kind of mark; bars have the shape "block".
    lines, dotted : where a thin and where a dotted line goes through all rows.
    band : the ends of a grey band behind all rows.

    Returns
    -------
    str : HTML without scripts, for `st.html`.
    """
    ticks = tick_values(scale.low, scale.high) if scale.title else []
    ground = "".join(
        [
            "" if band is None else _stretch("band", *band, scale),
            *(f'<i class="tick" style="left:{scale.place(tick):.2f}%"></i>' for tick in ticks),
            *(f'<i class="line" style="left:{scale.place(value):.2f}%"></i>' for value in lines),
            *(f'<i class="line dotted" style="left:{scale.place(value):.2f}%"></i>' for value in dotted),
        ]
    )
    items = "".join(_row(row, scale, ground) for row in rows)
    axis = ""
    if scale.title:
        axis = (
            f'<div class="axis" aria-hidden="true"><span></span><span class="across">{_numbers(scale, ticks)}</span></div>'
            f'<div><span></span><span class="title">{html.escape(scale.title)}</span></div>'
        )
    return figure(f'<div class="field"><ul>{items}</ul>{axis}</div>', legend, alt)


def columns_chart(
    counts: Sequence[int], ends: tuple[float, float], value: float, scale: Scale, *, says: str, of: str, colour: str, alt: str
) -> str:
    """How many values lie in each of so many equal parts of a range, as grey columns, with one value as a line through them.

    Parameters
    ----------
    counts, ends : of the parts, and of the range.
    says, of : what the line and what the columns are.
    colour : of the line.

    Returns
    -------
    str : HTML without scripts, for `st.html`.
    """
    most = max(*counts, 1)
    columns = _stretch("steps", *ends, scale, f";background:{GREY};clip-path:{outline([count / most for count in counts])}")
    line = f'<i class="line told" style="left:{scale.place(value):.2f}%;border-color:{colour}"></i>'
    numbers = _numbers(scale, tick_values(scale.low, scale.high))
    body = (
        f'<div class="columns across" aria-hidden="true">{columns}{line}</div><div class="axis across" aria-hidden="true">{numbers}</div>'
        f'<div class="title">{html.escape(scale.title)}</div>'
    )
    return figure(body, [(says, colour, "block"), (of, GREY, "block")], alt)


def figure(body: str, legend: Sequence[tuple[str, str, str]], alt: str) -> str:
    """What stands in a chart, below what its shapes mean, with its style."""
    named = "".join(f"<li>{_shape(colour, shape)}{html.escape(name)}</li>" for name, colour, shape in legend)
    kinds = f'<ul class="legend">{named}</ul>' if named else ""
    return f'{STYLE}<figure class="rows" aria-label="{html.escape(alt)}">{kinds}{body}</figure>'


def _numbers(scale: Scale, ticks: Sequence[float]) -> str:
    return "".join(f'<span style="left:{scale.place(tick):.2f}%">{scale.written.format(tick)}</span>' for tick in ticks)


def _row(row: Row, scale: Scale, ground: str) -> str:
    lanes = 1 + max((mark.lane for mark in row.marks), default=0)
    drawn = ground + ("" if row.bar is None else _stretch("bar", 0.0, row.bar[0], scale, f";background:{row.bar[1]}"))
    drawn += "".join(_mark(mark, scale, lanes, on_bar=row.bar is not None) for mark in row.marks if math.isfinite(mark.value))
    says = html.escape(row.says)
    pointed_at, heard = (f' title="{says}"', f'<span class="ears"> {says}</span>') if says else ("", "")
    return (
        f'<li style="min-height:{max(25, 17 * lanes)}px"><span class="label"><bdi>{html.escape(row.label)}</bdi></span>'
        f'<span class="across"{pointed_at} aria-hidden="true">{drawn}</span>'
        f'<span class="written">{html.escape(row.written)}{heard}</span></li>'
    )


def _stretch(kind: str, start: float, end: float, scale: Scale, style: str = "") -> str:
    left, right = sorted((scale.place(start), scale.place(end)))
    return f'<i class="{kind}" style="left:{left:.2f}%;width:{right - left:.2f}%{style}"></i>'


def _mark(mark: Mark, scale: Scale, lanes: int, *, on_bar: bool) -> str:
    top = f"top:{100 * (mark.lane + 0.5) / lanes:.4g}%"
    place = f"left:{scale.place(mark.value):.2f}%;{top}"
    # An open mark on a bar is filled with the page's colour: on the bar's it would not stand out.
    plate = f'<i class="shape {mark.shape.removesuffix(OPEN)} plate" style="{place}"></i>' if on_bar and mark.shape.endswith(OPEN) else ""
    reach = ""
    if math.isfinite(mark.low) and math.isfinite(mark.high):
        reach = _stretch("reach", mark.low, mark.high, scale, f";{top};background:{mark.colour}")
    return plate + reach + _shape(mark.colour, mark.shape, " mark", f"{place};")


def _shape(colour: str, shape: str, kind: str = "", style: str = "") -> str:
    return f'<i class="shape {shape}{kind}" style="{style}background:{colour}"></i>'


def outline(heights: Sequence[float]) -> str:
    """What is below a line of steps, each as wide as the others, as CSS cuts it out of a box.

    Parameters
    ----------
    heights : of the steps, from 0 at the bottom of the box to 1 at its top.

    >>> outline([0.25, 1.0])
    'polygon(0% 100%,0% 75%,50% 75%,50% 0%,100% 0%,100% 100%)'
    """
    corners = [(100 * (i + right) / len(heights), 100 - 100 * height) for i, height in enumerate(heights) for right in (0, 1)]
    return f"polygon({','.join(f'{across:.4g}% {down:.4g}%' for across, down in [(0, 100), *corners, (100, 100)])})"


def tick_values(low: float, high: float) -> list[float]:
    """Where an axis is marked: at the multiples of 1, 2 or 5 times a power of ten, as few as leave at most `MOST_TICKS`.

    >>> tick_values(-1.05, 1.05), tick_values(0, 47), tick_values(0.412, 0.43)
    ([-1.0, -0.5, 0.0, 0.5, 1.0], [0.0, 10.0, 20.0, 30.0, 40.0], [0.415, 0.42, 0.425, 0.43])
    """
    power = 10.0 ** math.floor(math.log10((high - low) / MOST_TICKS))
    for step in (factor * power for factor in (1, 2, 5, 10, 20)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < MOST_TICKS:
            break
    return [float(f"{number * step:.10g}") for number in range(first, last + 1)]
