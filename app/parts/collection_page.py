"""A folder that `spe batch` wrote: its adapters as a map and a table, which select each other, and the way to a single one."""

from __future__ import annotations

import hashlib
import shlex
from functools import partial, reduce
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt, load_adapter
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import file_state
from soft_prompt_explorer.analysis.core.progress import Report
from soft_prompt_explorer.analysis.core.remedies import BATCHED
from soft_prompt_explorer.analysis.report.batch_folder import Alike, collection, groups, refused, short_names
from soft_prompt_explorer.app.charts.collection import NO_VERDICT, collection_map, few_groups
from soft_prompt_explorer.app.charts.theme import shortened
from soft_prompt_explorer.app.pages import LORA, PROMPT
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.parts.chosen import Chosen, chosen_tokens
from soft_prompt_explorer.app.parts.collection_table import (
    ALIKE,
    COLUMNS,
    FIGURES,
    NUMBERS,
    on_page,
    show_adapters,
    show_alike,
    show_refused,
)
from soft_prompt_explorer.app.parts.measures import what_is
from soft_prompt_explorer.app.parts.opened_file import KINDS
from soft_prompt_explorer.app.server import read_here
from soft_prompt_explorer.app.server.allowed import allowed_folders, allowed_path, folders_and_runs
from soft_prompt_explorer.app.server.background import computed

MANIFEST, REFUSED = "manifest.parquet", "refused.parquet"
UNKNOWN = "unknown"
GROUPED_BY = {
    "kind": UNKNOWN,
    "base_model": UNKNOWN,
    "verdict": NO_VERDICT,
}  # what colour and shape may tell, and what is said where it is missing
SEARCHED = ["path", "base_model", "method", "format", "words", "notes"]
LETTERS = 40  # of a kind
BUTTONS = 3  # of selected adapters
MOST_DOTS = 50_000  # a browser sends a few hundred bytes for each that is selected, and a connection takes 25 MB
LOCAL = "file://"


class Opened(NamedTuple):
    """A collection as it was read.

    Attributes
    ----------
    table, refused : of `analysis.report.batch_folder`.
    shown : the table as the page shows it, by number.
    text : of each adapter, to search in.
    alike : the groups by what makes them alike.
    sha256 : of the manifest.
    """

    table: pd.DataFrame
    refused: pd.DataFrame
    shown: pd.DataFrame
    text: pd.Series
    alike: dict[Alike, pd.DataFrame]
    sha256: str


@st.fragment
def show_collection() -> None:
    """The tab: the folder that is asked for, and what is in it; a click redraws this alone."""
    with widgets.in_words():
        folder = _pick_folder()
        if folder is None:
            return
        state = tuple(file_state(folder / name) for name in (MANIFEST, REFUSED))  # a batch writes them last
        opened = computed(("collection", str(folder), state), "the collection", partial(_read, folder))
    if opened is None:
        return
    read_here.file(MANIFEST, opened.sha256)
    _say_counts(opened)
    if not len(opened.table):
        st.info("No adapter of this batch could be read; below stands why.", icon=":material/info:")
        show_refused(opened.refused)
        return
    of_what = hashlib.sha256(repr((folder, state)).encode()).hexdigest()[:10]
    chosen = chosen_tokens("adapters", of_what)
    left = _pick_filters(opened)
    if len(left):
        _show_map(opened, left, chosen, of_what)
        selected = show_adapters(opened.shown, left, chosen, of_what)
        _offer(opened, selected, left)
    else:
        st.info("No adapter is like that. Take a filter away.", icon=":material/filter_alt_off:")
    for by in ALIKE:
        show_alike(by, opened.alike[by], opened.shown["name"], chosen, of_what)
    show_refused(opened.refused)


def _pick_folder() -> Path | None:
    """The folder that the person or the link names, or that was looked at last; where there is none, what to run."""
    if "collection" not in st.session_state and "collection" not in st.query_params and "last-collection" in st.session_state:
        st.session_state["collection"] = st.session_state["last-collection"]
    folders = folders_and_runs()
    text = st.text_input(
        "Folder of a batch", key="collection", bind="query-params", placeholder="collection",
        help="Its path, whole or from one of these folders on: " + ", ".join(widgets.plain(str(folder)) for folder in folders),
    ).strip()  # fmt: skip
    st.session_state["last-collection"] = text
    if not text:
        place = (allowed_folders() or folders)[0] / "collection"
        st.markdown("Thousands of adapters as one map and one table. Read them once, in a terminal:")
        st.code(f"spe batch 'path/to/adapters/*' --out {shlex.quote(str(place))}", language="bash", wrap_lines=True)
        st.markdown(
            "Then type `collection` above. The folder may be anywhere below those that the dashboard may read; so may the adapters, to be opened one by one."
        )
        return None
    path = allowed_path(text, folders)
    if not path.is_dir():
        raise InputError(f"{path} is a file; name a folder", remedy=BATCHED)
    return path


def _read(folder: Path, report: Report) -> Opened:
    """All that the page needs of the folder, so that a click reads nothing again."""
    table = collection(folder, report=lambda share, doing: report(0.9 * share, doing))
    report(0.9, "what was refused")
    left_out = refused(folder)
    report(0.95, "names")
    shown = on_page(table, short_names(table["path"].tolist()), KINDS)
    searched = (table[name].fillna("").astype(str) for name in SEARCHED)
    text = reduce(lambda before, more: before + "\n" + more, searched).str.casefold()
    with (folder / MANIFEST).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Opened(table, left_out, shown, text, {by: groups(table, by) for by in ALIKE}, digest)


def _say_counts(opened: Opened) -> None:
    table = opened.table
    few, _ = few_groups(opened.shown["kind"].fillna(UNKNOWN))
    kinds = ", ".join(f"{widgets.plain(shortened(kind, LETTERS))} {count:,}" for kind, count in few.value_counts().items())
    said = [
        f"**{len(table):,} adapter{'' if len(table) == 1 else 's'}**" + (f" ({kinds})" if kinds else ""),
        f"refused {len(opened.refused):,}",
        f"same bytes as another {int(table.loc[table['sha256'].notna(), 'sha256'].duplicated().sum()):,}",
    ]
    if table["near_copies"].notna().any():
        said.append(f"near copies of another {int(table['near_copy_of'].notna().sum()):,}")
        said.append(f"shared starts {opened.alike['same_start']['group'].nunique():,}")
    st.markdown(" · ".join(said))


def _pick_filters(opened: Opened) -> np.ndarray:
    """The numbers of the adapters that are left."""
    shown = opened.shown
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.text_input(
            "Search", key="named", bind="query-params", placeholder="a path, a word, a note"
        ).strip().casefold()  # fmt: skip
        keep = opened.text.str.contains(wanted, regex=False) if wanted else pd.Series(True, index=shown.index)
        for name, missing in GROUPED_BY.items():
            values = shown[name].fillna(missing)
            options = values.value_counts().index.tolist()
            if len(options) > 1:
                words = COLUMNS[name].words.capitalize()
                ticked = st.multiselect(words, options, key=f"of-{name}", bind="query-params", placeholder="any")
                keep &= values.isin(ticked) if ticked else True
    return np.flatnonzero(keep)


def _show_map(opened: Opened, left: np.ndarray, chosen: Chosen, of_what: str) -> None:
    """A dot an adapter; a lasso or a box selects."""
    shown = opened.shown
    numbers = [name for name in NUMBERS if shown[name].notna().any()]
    told = [name for name in GROUPED_BY if shown[name].notna().any()]
    x_first, y_first = _first_axes(shown, numbers)
    at_first = shown.dropna(subset=[x_first, y_first])
    several = [name for name in told if len(at_first[name].unique()) > 1]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        x = st.selectbox("Across", numbers, index=numbers.index(x_first), format_func=_words, key="across", bind="query-params")
        y = st.selectbox("Up", numbers, index=numbers.index(y_first), format_func=_words, key="up", bind="query-params")
        by = st.segmented_control(
            "Colour and shape", told, default=(several or told)[0], required=True, format_func=_words, key="marks", bind="query-params"
        ) if told else "kind"  # fmt: skip
        alike = ["near_copies"] if "near_copies" in numbers else []
        measures = dict.fromkeys(measure for name in (x, y, by, *alike) if (measure := COLUMNS[name].measure))
        if measures:
            what_is(*measures)
    group, order = few_groups(shown[by].fillna(GROUPED_BY[by]))
    dots = pd.DataFrame(
        {"number": shown.index, "name": shown["name"], "group": group, "x": shown[x].astype("float64"), "y": shown[y].astype("float64")}
    ).iloc[left]
    known = dots.dropna(subset=["x", "y"])
    placed = known.head(MOST_DOTS)
    key = f"map-{hash((of_what, chosen.turn('map'), x, y, by, left.tobytes()))}"
    kept = st.session_state.setdefault("drawn-adapters", {})
    if key not in kept:  # a figure that changes while a person selects on it would lose the selection
        kept.clear()
        kept[key] = chosen.numbers(len(shown)) or None

    def picked() -> None:
        chosen.choose([int(point["customdata"]) for point in st.session_state[key]["selection"]["points"]], by="map")

    state = st.plotly_chart(
        collection_map(placed, _words(x), _words(y), order, selected=kept[key]),
        key=key,
        on_select=picked,
        config={"displaylogo": False},
        alt=f"{len(placed):,} adapters: {_words(x)} across, {_words(y)} up, by {_words(by)}.",
    )
    said = ["Draw around dots to select them, here and in the table below; a double click takes it back."]
    if state["selection"]["lasso"] + state["selection"]["box"] and not state["selection"]["points"]:
        said = ["No dot lies in there, so nothing is selected."]
    if len(known) < len(dots):
        said.append(f"{len(dots) - len(known):,} without one of the two figures stand in the table alone.")
    if len(placed) < len(known):
        said.append(f"The first {len(placed):,} of {len(known):,} are drawn; filter to see others.")
    st.caption(" ".join(said))


def _first_axes(shown: pd.DataFrame, numbers: list[str]) -> tuple[str, str]:
    """The two figures to begin with: of those that are no counts and tell adapters apart, the two that most of them have."""
    told = [name for name in numbers[:FIGURES] if len(shown[name].dropna().unique()) > 1] or numbers
    y, x = (sorted(told, key=lambda name: -shown[name].notna().sum()) * 2)[:2]
    return x, y


def _words(name: str) -> str:
    return COLUMNS[name].words


def _offer(opened: Opened, selected: list[int], left: np.ndarray) -> None:
    """What can be done with the selected ones: open them one by one, take them away."""
    with st.container(horizontal=True, vertical_alignment="center"):
        asked = [
            number
            for number in selected[:BUTTONS]
            if st.button(
                f"Open {widgets.plain(opened.shown['name'][number])}", key=f"open-{number}",
                type="primary" if len(selected) == 1 else "secondary", icon=":material/open_in_new:",
            )
        ]  # fmt: skip
        with widgets.downloads():
            st.markdown("The selected adapters" if selected else "The adapters that the filters leave")
            widgets.download_buttons(opened.table.iloc[selected or left], "collection")
    if not selected:
        st.caption("Tick a row to mark its dot and to open it.")
    for number in asked:
        with widgets.on_its_own(), st.spinner("Reading"):
            _go_to(adapter_at(opened.table["path"][number], opened.table["sha256"][number]))


def adapter_at(path: str, sha256: str | None) -> SoftPrompt | LoraAdapter:
    """The adapter that a manifest tells of, as it was when the batch read it.

    Raises
    ------
    InputError
        It is not on this machine, not below the folders that may be read, cannot be read any more, or has changed since.
    """
    if not path.startswith(LOCAL):
        raise InputError(f"{path[:200]} is not on this machine; fetch it into a folder that the dashboard may read, and open it there.")
    adapter = load_adapter(allowed_path(path.removeprefix(LOCAL), folders_and_runs()))
    found = adapter.read_from.sha256
    if found != sha256:
        raise InputError(
            f"{path.removeprefix(LOCAL)} is not what the batch read: its sha256 is {found[:12]}…, in the manifest {str(sha256)[:12]}…; run the batch again."
        )
    return adapter


def _go_to(adapter: SoftPrompt | LoraAdapter) -> NoReturn:
    page, name = (LORA, "lora") if isinstance(adapter, LoraAdapter) else (PROMPT, "prompt")
    st.switch_page(page.file, query_params={name: choosing.open_adapter(adapter)})
