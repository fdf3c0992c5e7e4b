"""What the pages share: refusals in words, progress, the export buttons, the column of verdicts, and the line that says where figures come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.core import export
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report
from soft_prompt_explorer.analysis.core.provenance import BESIDE, Provenance
from soft_prompt_explorer.analysis.core.words import counted
from soft_prompt_explorer.analysis.figures import drawing as figures
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import is_prepared
from soft_prompt_explorer.analysis.prompts.starts import plain_verdict
from soft_prompt_explorer.analysis.prompts.verdicts import VERDICTS
from soft_prompt_explorer.app.charts.theme import VERDICT_MARKS, verdict_label
from soft_prompt_explorer.app.server import at_hand, read_here
from soft_prompt_explorer.app.server.jobs import JobQueue
from soft_prompt_explorer.app.server.text import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from streamlit.elements.lib.mutable_popover_container import PopoverContainer
    from streamlit.elements.lib.mutable_tab_container import TabContainer

_Read = TypeVar("_Read")

_FORMS = {
    "csv": ("CSV", "text/csv"),
    "parquet": ("Parquet", "application/vnd.apache.parquet"),
    "json": ("JSON", "application/json"),
    "md": ("Markdown", "text/markdown"),
}


@st.cache_resource
def job_queue() -> JobQueue:
    """The one queue of this server."""
    return JobQueue()


def refusal(error: InputError) -> None:
    """A refusal as a sentence."""
    st.error(plain(error.worded("page")), icon=":material/error:")


@contextmanager
def in_words() -> Iterator[None]:
    """Show refused input as a sentence where the person is, and leave the rest of the page out."""
    try:
        yield
    except InputError as error:
        refusal(error)
        st.stop()


@contextmanager
def on_its_own() -> Iterator[None]:
    """Show refused input as a sentence where the person is; the other parts of the page do not need this one."""
    try:
        yield
    except InputError as error:
        refusal(error)


def pick_examples(place, count: int, *, key: str = "examples", note: str = "") -> int:
    """How many held-out examples are asked."""
    what = f"The first so many held-out ones{'; ' if note else ''}{note}"
    return int(place.number_input("Examples", 10, 2000, count, step=10, key=key, bind="query-params", help=what))


def vocabulary(model: str) -> Vocabulary:
    """The vocabulary of a model; the first time it is read, with progress."""
    with progress() as report:
        return at_hand.vocabulary(model, report=report)


@contextmanager
def progress() -> Iterator[Report]:
    """A progress bar that appears once something reports and goes when the block ends."""
    place = st.empty()
    try:

        def report(share: float, doing: str) -> None:
            place.progress(min(max(share, 0.0), 1.0), text=plain(doing))

        yield report
    finally:
        place.empty()


def read_once(slot: str, asked: object, read: Callable[[], _Read]) -> _Read:
    """What `read` answers of a file of this session; again only when something else is asked for."""
    if st.session_state.get(slot, (None,))[0] != asked:
        with st.spinner("Reading"):
            st.session_state[slot] = (asked, read())
    return st.session_state[slot][1]


def tab_title(of_what: str) -> None:
    """What the browser's tab and its history call the page: what it is about comes first."""
    st.set_page_config(page_title=f"{of_what} · Soft Prompt Explorer")


def follow_link(name: str, choices: Mapping[str, object], default: object, *, key: str | None = None) -> None:
    """Before a widget with the key `linked-NAME` is drawn: it takes the value that the link names, also where the link was changed by another page or by going back.

    Parameters
    ----------
    choices : the widget's values, each by what links call it.
    default : its value where the link names none of them.
    key : of the widget, where another one of the page has that key: what is drawn by turns shares the link, and not the key.
    """
    asked, key = st.query_params.get(name), key or f"linked-{name}"
    if key not in st.session_state or asked != st.session_state.get(f"link-{name}"):
        st.session_state[key] = choices.get(asked, default) if asked is not None else default


def say_in_link(name: str, text: str | None) -> None:
    """After such a widget: the link names its value; not where that is None."""
    st.session_state[f"link-{name}"] = text
    if text is None:
        st.query_params.pop(name, None)
    elif st.query_params.get(name) != text:
        st.query_params[name] = text


def tabs(names: list[str]) -> Sequence[TabContainer]:
    """The parts of a page, one below each tab; the link names the one that is open. Streamlit's own way to keep a tab in the link is not taken: on the way back to a page
    it drops what the page that is left calls by the same name."""
    follow_link("tab", {name: name for name in names}, names[0])
    parts = st.tabs(names, key="linked-tab", on_change="rerun")
    say_in_link("tab", next((name for name, part in zip(names, parts, strict=True) if part.open and name != names[0]), None))
    return parts


def file_name(name: str) -> str:
    """What is called so, as a file's name."""
    return re.sub(r"[^\w.-]+", "-", name)


def downloads(label: str = "Download") -> PopoverContainer:
    """What the export buttons of a table or a figure stand behind: one button in their place."""
    return st.popover(label, icon=":material/download:")


def download_buttons(table: pd.DataFrame, name: str, *of: SoftPrompt | LoraAdapter, seed: int | None = None) -> None:
    """CSV, Parquet, JSON and Markdown of a table, made when clicked, and where it comes from: the same bytes as the command line's, but for the date and the command.

    Parameters
    ----------
    of : what it was made of; all that the page has read where none is named.
    seed : that the person chose for it.
    """
    made = read_here.made(*of, seed=seed)
    with st.container(horizontal=True):
        for form in export.WRITERS:
            label, mime = _FORMS[form]
            help_text = f"{counted(len(table), 'row')} as {label}"
            _download(label, partial(export.written, table, form, made), f"{file_name(name)}.{form}", mime, f"{name}-{form}", help_text)
        _download(
            "Provenance", made.as_file, file_name(name) + BESIDE, "application/json", f"{name}-provenance",
            "Version, models and files with their sha256, date: what Parquet and JSON hold within, for the others",
        )  # fmt: skip


def figure_buttons(draw: Callable[[], Figure], name: str, *of: SoftPrompt | LoraAdapter) -> None:
    """A figure for a paper as PDF and SVG, drawn when clicked: the same file as that of the command `figure`, where that draws it."""
    made = read_here.made(*of)
    with st.container(horizontal=True):
        for form, mime in figures.FORMS.items():
            content = partial(_drawn, draw, form, made)
            _download(form.upper(), content, f"{file_name(name)}.{form}", mime, f"{name}-{form}", f"The figure as {form.upper()}")


def _drawn(draw: Callable[[], Figure], form: str, made: Provenance) -> bytes:
    return figures.written(draw(), form, made)


def _download(label: str, content: Callable[[], bytes], file: str, mime: str, key: str, help_text: str) -> None:
    st.download_button(
        label, content, file_name=file, mime=mime, on_click="ignore", icon=":material/download:", key=f"download-{key}", help=help_text
    )


def verdict_column(verdicts: pd.Series, label: str = "verdict", *, pinned: bool = False):
    """The cells and the column of verdicts: each in words, with its shape and its colour."""
    cells = verdicts.map(lambda verdict: [verdict_label(verdict)])
    colours = {verdict_label(verdict): VERDICT_MARKS[plain_verdict(verdict)][0] for verdict in verdicts.unique()}
    return cells.to_numpy(), chip_column(label, colours, VERDICTS, pinned=pinned)


def chip_column(label: str, colours: dict[str, str], says: dict[str, str], *, width: Literal["medium"] | None = None, pinned: bool = False):
    """A column of chips.

    Parameters
    ----------
    colours : of each chip, by its words.
    says : what each means, in the column's help.
    """
    pale = [f"{colour}60" for colour in colours.values()]  # the words stay readable
    help_text = "  \n".join(f"**{name}**: {text}" for name, text in says.items())
    return st.column_config.MultiselectColumn(label, options=list(colours), color=pale, pinned=pinned, width=width, help=help_text)


def table_height(rows: int) -> int | Literal["content"]:
    """The height of a table that shows all its rows, up to sixteen of them, and scrolls beyond."""
    return "content" if rows <= 16 else 560


def provenance(prompts: list[SoftPrompt], model: str) -> None:
    """Where the figures of a page come from."""
    files = {
        f"{plain(prompt.name)}: {prompt.source.format}, {prompt.source.dtype}, sha256 {prompt.source.sha256[:12]}…"
        for prompt in prompts
        if prompt.source
    }
    shown = sorted(files)[:3]
    more = [f"{len(files) - 3} more files"] if len(files) > 3 else []
    st.caption(" · ".join([*shown, *more, f"vocabulary of {plain(model)}", "searches are exact"]))


def model_note() -> None:
    """Say so where the embedded model has still to be made ready."""
    if not is_prepared(EMBEDDED_MODEL):
        st.info(
            f"The first training unpacks {EMBEDDED_MODEL}, which takes about a minute; after that it loads in a second.",
            icon=":material/hourglass_top:",
        )
