"""The sheet that every figure for a paper is drawn on, and its file: SVG or PDF, text as text, with where it comes from in the file's metadata.

Figures are drawn by matplotlib without its `pyplot`: no window, no global state, no network.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.provenance import Provenance
from soft_prompt_explorer.analysis.core.words import escaped, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = {"pdf": "application/pdf", "svg": "image/svg+xml"}
WIDTH = 85.0  # mm: a column of most journals
NARROWEST, WIDEST = 40.0, 400.0  # mm
TALLEST = 2_000.0  # mm
ROW = 4.2  # mm for a row with a word on it
_INCH = 25.4
_UNITS = {"mm": 1.0, "cm": 10.0, "in": _INCH}
_STYLE: Any = {  # of matplotlib's rcParams, whose annotation lists each key
    "font.family": "DejaVu Sans",  # it comes with matplotlib: the same everywhere
    "font.size": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.parse_math": False,  # a token may hold $
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "soft-prompt-explorer",  # the same file each time
    "pdf.fonttype": 42,  # text stays text, in TrueType
}


def width_of(text: str) -> float:
    """A width in millimetres.

    Raises
    ------
    InputError
        It is no number with mm, cm or in, or out of bounds.

    Examples
    --------
    >>> width_of("85mm"), width_of("8.5cm")
    (85.0, 85.0)
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)\s*(mm|cm|in)", text.strip())
    width = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not NARROWEST <= width <= WIDEST:
        raise InputError(
            f"The width is a number with mm, cm or in, from {NARROWEST:g}mm to {WIDEST:g}mm, for instance 85mm, not {text[:40]!r}."
        )
    return width


def form_of(path: Path) -> str:
    """The format that a figure's ending names.

    Raises
    ------
    InputError
    """
    form = path.suffix.lower().lstrip(".")
    if form not in FORMS:
        raise InputError(f"{path.name} does not end in .pdf or .svg; the ending chooses the format.")
    return form


@contextmanager
def sheet(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of so many millimetres, to be drawn on while the block lasts.

    Raises
    ------
    InputError
        It would be taller than anybody can print.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if height > TALLEST:
        raise InputError(f"The figure would be {height / 1000:.1f} m tall, and {TALLEST / 1000:g} m is the most; give a smaller adapter.")
    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width / _INCH, height / _INCH), layout="constrained")


def written(figure: Figure, form: str, made: Provenance) -> bytes:
    """The file of a figure. Its provenance is JSON in `Keywords` of a PDF, and in the Dublin Core `description` of an SVG.

    Parameters
    ----------
    form : pdf or svg.
    """
    import matplotlib

    said = made.as_json()
    metadata = {"Keywords": said, "CreationDate": None} if form == "pdf" else {"Description": said, "Date": None}
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format=form, dpi=300, metadata=metadata | {"Creator": "Soft Prompt Explorer"})
    return buffer.getvalue()


def word(token: str) -> str:
    """A token for a label: the space that starts it is made visible, and a character that the font lacks is spelled out."""
    return "".join(letter if ord(letter) in _letters() else escaped(letter) for letter in shown(token))


def clear_frame(axes: Axes) -> None:
    """No axes, for a map, whose coordinates mean nothing."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def label_rows(axes: Axes, labels: list[str]) -> None:
    """A row each from the top down, with room for half a row above and below."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


@lru_cache(maxsize=1)
def _letters() -> frozenset[int]:
    """What the font that comes with matplotlib can draw."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
