"""What was found in the adapters that ship: docs/findings.md, a part at a time."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import streamlit as st

from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.tables import show_table

FINDINGS = Path(__file__).parents[2] / "docs" / "findings.md"  # in a clone and in an installed package alike
IN_SHORT = "In short"
_TABLE = re.compile(r"((?:^\|.*\n?)+)", re.MULTILINE)


@st.cache_data
def parts() -> dict[str, str]:
    """The text of each part by its heading; what stands before the first one, without its list of parts, is `IN_SHORT`. Links to other pages of docs/ are their words alone, and pictures are left out."""
    text = re.sub(r"<!--.*?-->\n?", "", FINDINGS.read_text(encoding="utf-8"))
    text = re.sub(r"^(?:- \[[^\]]*\]\(#|!\[).*\n", "", text, flags=re.MULTILINE)  # the list of parts, and pictures, which *Methods* draws
    text = re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text).replace("$", r"\$")
    first, *others = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return {IN_SHORT: first.split("\n", 1)[1].replace("In short:", "").strip()} | {
        name: part.strip() for name, part in zip(others[::2], others[1::2], strict=True)
    }


def table_of(rows: str) -> pd.DataFrame:
    """A table of Markdown, its cells as text."""
    cells = [[_plain(cell) for cell in row.strip().strip("|").split("|")] for row in rows.strip().splitlines()]
    names: list[str] = []
    for name in cells[0]:  # two columns may be called the same, as the one beside each tells of it
        names.append(name if name not in names else f"{name}, of {names[-1]}")
    return pd.DataFrame(cells[2:], columns=names)


def _plain(cell: str) -> str:
    return re.sub(r"\\([^\w\s])", r"\1", re.sub(r"[*`]", "", cell)).strip()


def show_findings() -> None:
    found = parts()
    widgets.follow_link("finding", {name: name for name in found}, IN_SHORT)
    picked = st.pills("What to read", list(found), required=True, key="linked-finding", label_visibility="collapsed")
    widgets.say_in_link("finding", None if picked == IN_SHORT else picked)
    for text in _TABLE.split(found[picked or IN_SHORT]):
        if not text.startswith("|"):
            st.markdown(text)
            continue
        table = table_of(text)
        columns = {name: st.column_config.TextColumn(name) for name in table}
        show_table(table, alt=f"{len(table)} rows with {', '.join(table)}.", column_config=columns, most=None, height="content")
