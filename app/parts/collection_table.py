"""The adapters of a collection as tables: all of them, those that are alike, and the files that were refused."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.core.words import counted
from soft_prompt_explorer.analysis.prompts.verdicts import VERDICTS
from soft_prompt_explorer.analysis.report.batch_folder import Alike
from soft_prompt_explorer.app.charts.theme import shortened, verdict_label
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.chosen import Chosen
from soft_prompt_explorer.app.parts.tables import show_table

FEW = 8  # columns before a person asks for more
NAMED = 4  # of a group, in its row
LETTERS = 200  # of a stranger's text in a cell


class Column(NamedTuple):
    """A column in words: what it says, the record of its measure where there is one, and how its numbers are written."""

    words: str
    says: str = ""
    measure: str | None = None
    form: str | None = None


_ITSELF = "itself counted: 1 is alone"
COLUMNS = {  # in the order in which they are shown, as far as they hold anything
    "name": Column("adapter", "The end of its path that tells it from the others"),
    "kind": Column("kind"),
    "base_model": Column("base model", "As its file says"),
    "words": Column("words it pushes towards", "Those beyond chance, the strongest first", "Difference lens"),
    "verdict": Column("most frequent verdict", "Of its virtual tokens", "Verdict"),
    "effective_rank": Column("effective rank", "Of a LoRA the median over its modules; of a prompt that of its rows", "Effective rank", "%.2f"),
    "rank": Column("rank", "The median over its modules", None, "%g"),
    "spectral_norm": Column("largest singular value", "Of what it adds to a weight: the median over its modules", None, "%.3g"),
    "near_copies": Column("near copies", f"Files of other bytes that change the same directions, {_ITSELF}", "Near copies and shared starts"),
    "norm_median": Column("length of its tokens", "The median over its virtual tokens", None, "%.3g"),
    "virtual_tokens": Column("virtual tokens"),
    **{name: Column(f"tokens: {name}", f"How many of its virtual tokens are so: {says}", "Verdict") for name, says in VERDICTS.items()},
    "same_start": Column("same start", f"Adapters that began from its A and are no near copies, {_ITSELF}", "Near copies and shared starts"),
    "modules": Column("modules", "How many it changes"),
    "rank_90": Column("ranks for 90 % of the energy", "The median over its modules", "Ranks at 90, 95 and 99 %", "%g"),
    "findings": Column("findings", "What the check of its health found: spikes, dead ranks, modules that were never trained"),
    "copies": Column("files of its bytes", f"By their sha256, {_ITSELF}"),
    "method": Column("method"),
    "format": Column("format"),
    "near_copy_of": Column("near copy of", "The first that changes the same directions"),
    "same_start_as": Column("starts as", "The first that began from the same A"),
    "notes": Column("notes"),
    "path": Column("path"),
    "sha256": Column("sha256"),
}  # fmt: skip
FIGURES = 6  # of these are no counts of something
NUMBERS = [
    *("effective_rank", "spectral_norm", "norm_median", "rank", "rank_90", "virtual_tokens"),
    *(*VERDICTS, "modules", "findings", "near_copies", "same_start", "copies"),
]
ALIKE: dict[Alike, tuple[str, str]] = {
    "copies": ("Files of the same bytes", "Each is a copy of the first, by its sha256."),
    "near_copies": ("Near copies", "Other bytes that change the same modules in the same directions: another epoch, another number format, an adapter trained on a little."),
    "same_start": ("Shared starts", "Different adapters whose A spans the same space: A begins at random and hardly moves, so this is the same seed, or one adapter trained on. Near copies of them stand with them."),
}  # fmt: skip


def show_adapters(shown: pd.DataFrame, left: np.ndarray, chosen: Chosen, of_what: str) -> list[int]:
    """A row an adapter, the selected ones first and ticked; answers the numbers of those.

    Parameters
    ----------
    shown : the table as it is on the page, by number.
    left : the numbers of those that the filters leave.
    """
    within = set(left.tolist())
    selected = [i for i in chosen.numbers(len(shown)) if i in within]
    many = f"{len(left):,} of {len(shown):,}" if len(left) < len(shown) else f"All {len(left):,}"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{len(selected):,} selected** of {len(left):,} adapters" if selected else f"**{many} adapters**", width="content")
        if selected:
            st.button("Clear the selection", icon=":material/deselect:", type="tertiary", on_click=lambda: chosen.choose([], by=""))
        more = st.toggle("More columns", key="more", bind="query-params")
    key = f"adapters-{of_what}-{chosen.turn('table')}-{hash(left.tobytes())}"
    order = _order(key, selected, left)

    def picked() -> None:
        chosen.choose([order[row] for row in st.session_state[key]["selection"]["rows"]], by="table")

    ticked = set(selected)
    told = [name for name in COLUMNS if name in shown and shown[name].notna().any()]
    columns = told if more else told[:FEW]
    rows = shown[columns].iloc[order]
    show_table(
        rows.assign(verdict=rows["verdict"].map(verdict_label, na_action="ignore")) if "verdict" in rows else rows,
        on_select=picked,
        selection_mode="multi-row",
        selection_default={"selection": {"rows": [row for row, i in enumerate(order) if i in ticked]}},
        key=key,
        column_config={name: _configured(name, shown[name]) for name in columns},
        height=widgets.table_height(len(order)),
        most=None,
        alt=f"{len(order):,} adapters with {', '.join(COLUMNS[name].words for name in columns[1:])}; a ticked row is selected on the map.",
    )
    if selected and not chosen.fits_link:
        st.caption("So many are selected that the link does not hold them; they stay as long as this page is open.")
    return selected


def _order(key: str, selected: list[int], left: np.ndarray) -> list[int]:
    """The selected ones first; while a person ticks rows, they stay where they are."""
    kept = st.session_state.setdefault("order-of-adapters", {})
    if key not in kept:
        ticked = set(selected)
        kept.clear()
        kept[key] = [*selected, *(i for i in left.tolist() if i not in ticked)]
    return kept[key]


def _configured(name: str, values: pd.Series):
    column = COLUMNS[name]
    if pd.api.types.is_numeric_dtype(values):
        return st.column_config.NumberColumn(column.words, help=column.says or None, format=column.form)
    return st.column_config.TextColumn(
        column.words, help=column.says or None, pinned=name == "name", width="medium" if name == "name" else None
    )


def on_page(table: pd.DataFrame, names: list[str], kinds: dict[str, str]) -> pd.DataFrame:
    """The table of `analysis.report.batch_folder` as the page shows it: names and kinds in words, long text cut, paths of others as their names."""
    of_path = dict(zip(table["path"], names, strict=True))
    shown = table.assign(
        name=names,
        kind=table["kind"].map(lambda kind: kinds.get(kind, kind), na_action="ignore"),
        near_copy_of=table["near_copy_of"].map(of_path),
        same_start_as=table["same_start_as"].map(of_path),
    )
    texts = ["name", *table.select_dtypes(include="object").columns]
    cut = {name: shown[name].map(lambda text: shortened(str(text), LETTERS), na_action="ignore").astype(object) for name in texts}
    return shown.assign(**cut)


def show_alike(by: Alike, members: pd.DataFrame, names: pd.Series, chosen: Chosen, of_what: str) -> None:
    """A row a group of adapters that are alike, folded; a ticked one selects its adapters.

    Parameters
    ----------
    members : of `analysis.report.batch_folder.groups`.
    names : of all adapters, by number.
    """
    if not len(members):
        return
    title, says = ALIKE[by]
    numbers = [rows.index.to_numpy() for _, rows in members.groupby("group")]
    many = counted(len(numbers), "group")
    with st.expander(f"{title}: {len(members):,} adapters in {many}", icon=":material/content_copy:"):
        st.caption(f"{says} Tick a group to select its adapters above.")
        key = f"{by}-{of_what}-{chosen.turn(by)}"

        def picked() -> None:
            rows = st.session_state[key]["selection"]["rows"]
            chosen.choose([int(i) for row in rows for i in numbers[row]], by=by)

        show_table(
            pd.DataFrame(
                {
                    "first": [names[each[0]] for each in numbers],
                    "adapters": [len(each) for each in numbers],
                    "others": [_listed([names[i] for i in each[1:]]) for each in numbers],
                }
            ),
            on_select=picked,
            selection_mode="multi-row",
            key=key,
            height=widgets.table_height(len(numbers)),
            column_config={"first": st.column_config.TextColumn("the first", pinned=True, width="medium"), "adapters": st.column_config.NumberColumn(width="small"), "others": st.column_config.TextColumn("the others", width="large")},
            alt=f"{title}: the first of each group, how many there are, and the others.",
        )  # fmt: skip
        with widgets.downloads():
            widgets.download_buttons(members, by.replace("_", "-"))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{', '.join(shortened(name, LETTERS // NAMED) for name in names[:NAMED])}{more}"


def show_refused(refused: pd.DataFrame) -> None:
    """The files that the batch refused, folded."""
    if len(refused):
        with st.expander(f"Refused: {counted(len(refused), 'file')}", icon=":material/block:"):
            show_table(
                refused,
                height=widgets.table_height(len(refused)),
                column_config={"why": st.column_config.TextColumn(width="large")},
                alt="The files that were refused, and why.",
            )
            with widgets.downloads():
                widgets.download_buttons(refused, "refused")
