"""Every prompt and LoRA at hand as one table: to sort, to filter, to open, and two to compare."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.behaviour import kept_lens, kept_translation
from soft_prompt_explorer.analysis.behaviour.beyond_chance import is_beyond_chance
from soft_prompt_explorer.analysis.core.folders import file_state
from soft_prompt_explorer.analysis.core.words import counted
from soft_prompt_explorer.app.charts.theme import HAS_EFFECT, NO_EFFECT
from soft_prompt_explorer.app.pages import ATLAS, BESIDE, COMPARE, LORA, PROMPT
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.parts.library_verdicts import APART, SAID, chips, verdicts_of
from soft_prompt_explorer.app.parts.measures import below
from soft_prompt_explorer.app.parts.prompt_header import in_brief
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.server import at_hand

KINDS = ("prompt", "LoRA")
ORIGINS = {"gallery": "ships", "yours": "yours", "file": "opened"}


def everything() -> pd.DataFrame:
    """A row an adapter: key, name, kind, task, no_prompt, score, effect, does, size, model, origin."""
    runs = at_hand.list_runs().set_index("name")
    rows = []
    for kind, keys in zip(KINDS, (choosing.prompt_choices(), choosing.lora_choices()), strict=True):
        for key in keys:
            run = None if key in choosing.opened() or key not in runs.index else runs.loc[key]
            size, effect, does = None, "", None
            if run is not None:
                size = f"rank {run['rank']:.0f}" if kind == "LoRA" else counted(int(run["tokens"]), "token")
                effect, does = _said(Path(run["path"]))
            rows.append(
                {
                    "key": key,
                    "name": choosing.prompt_label(key),
                    "kind": kind,
                    "task": None if run is None else run["task"],
                    "no_prompt": None if run is None else run["no_prompt"],
                    "score": None if run is None else run["score"],
                    "effect": effect,
                    "does": does,
                    "size": size,
                    "model": None if run is None else run["model"],
                    "origin": ORIGINS["file" if run is None else run["origin"]],
                }
            )
    return pd.DataFrame(rows, columns=["key", "name", "kind", "task", "no_prompt", "score", "effect", "does", "size", "model", "origin"])


def show_library() -> None:
    """The table with its filters, and what can be done with the rows that are ticked."""
    table = everything()
    table.insert(table.columns.get_loc("effect"), "verdict", verdicts_of(table))
    table = table.drop(columns="effect")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.text_input("Search", key="search", bind="query-params", placeholder="a word").strip().casefold()
        kind = st.segmented_control("Kind", KINDS, key="kind", bind="query-params")
        origin = st.segmented_control("Whose", sorted(table["origin"].unique()), key="origin", bind="query-params")
        tasks = st.multiselect("Task", sorted(table["task"].dropna().unique()), key="tasks", bind="query-params", placeholder="any task")
        verdict = st.multiselect("Verdict", list(SAID), key="verdict", bind="query-params", placeholder="any verdict")
    text = table.drop(columns=["no_prompt", "score"]).fillna("").astype(str).agg(" ".join, axis=1).str.casefold()
    keep = (
        text.str.contains(wanted, regex=False) & (table["kind"] == kind if kind else True) & (table["origin"] == origin if origin else True)
    )
    keep &= table["task"].isin(tasks) if tasks else True
    keep &= table["verdict"].map(lambda said: any(name in said.split(APART) for name in verdict)) if verdict else True
    table = table[keep].reset_index(drop=True)
    if not len(table):
        st.info("Nothing here is like that. Take a filter away, open a file, or train a prompt.", icon=":material/filter_alt_off:")
        return
    cells, column = chips(table["verdict"])
    state = show_table(
        table.drop(columns="key").assign(no_prompt=100 * table["no_prompt"], score=100 * table["score"], verdict=cells),
        key=f"library-{wanted}-{kind}-{origin}-{tasks}-{verdict}",
        on_select="rerun",
        selection_mode="multi-row",
        button=("name", "open-adapter"),
        height=min(620, 38 + 35 * len(table)),
        column_config={
            "name": st.column_config.TextColumn("name", pinned=True, width="medium"),
            "no_prompt": st.column_config.ProgressColumn("without", format="%.0f %%", min_value=0, max_value=100, width="small", help="Held-out score of the bare model"),
            "score": st.column_config.ProgressColumn("with it", format="%.0f %%", min_value=0, max_value=100, width="small", help="Held-out score as trained"),
            "verdict": column,
            "does": st.column_config.TextColumn(
                "in words", width="large",
                help="The text that does most of what it does, with the share that it recovers; where no text is said to, the words that it pushes the model towards.",
            ),
        },
        alt=f"{len(table)} prompts and LoRAs with their task, their score without and with them, their verdicts, and what they do.",
    )  # fmt: skip
    if opened := st.session_state.get("open-adapter"):
        _read(table.iloc[opened["row"]])
    _offer(table.iloc[state["selection"]["rows"]])
    choosing.note_left_out()
    with below("Fidelity of a text", "Difference lens"):
        widgets.download_buttons(table.drop(columns="key"), "library")


def _read(row: pd.Series) -> NoReturn:
    """Go to the page of an adapter."""
    page, name = (LORA, "lora") if row["kind"] == "LoRA" else (PROMPT, "prompt")
    st.switch_page(page.file, query_params={name: row["key"]})


def _offer(ticked: pd.DataFrame) -> None:
    """What can be done with the rows that are ticked."""
    if not len(ticked):
        st.caption(
            "Click a name to read it. Tick two or more prompts, or two LoRAs, to compare them.",
            help="With keys: arrows walk through the table, Shift and Space tick a row. What is ticked can be read below the table.",
        )
        return
    kinds = set(ticked["kind"])
    if len(kinds) > 1:
        st.caption(
            "A prompt and a LoRA change different things, so they are not compared here. Read each on its page, or tick several of one kind."
        )
    elif len(ticked) > 2 and kinds == {"LoRA"}:
        st.caption("Two LoRAs are compared at a time.")
    with st.container(horizontal=True, vertical_alignment="center"):
        for _, row in ticked.head(3).iterrows():
            if st.button(
                f"Read {row['name']}",
                key=f"read-{row['kind']}-{row['key']}",
                type="primary" if len(ticked) == 1 else "secondary",
                icon=PROMPT.icon,
            ):
                _read(row)
        if len(ticked) > 1 and kinds == {"prompt"} and st.button("Compare them", type="primary", icon=":material/compare:"):
            st.switch_page(ATLAS.file, query_params={"tab": COMPARE, "prompts": ticked["name"].tolist()})
        if len(ticked) == 2 and kinds == {"LoRA"} and st.button("Compare them", type="primary", icon=":material/compare:"):
            st.switch_page(LORA.file, query_params={"lora": ticked["key"].iloc[0], "other": ticked["key"].iloc[1], "tab": BESIDE})


def _said(folder: Path) -> tuple[str, str]:
    files = (kept_translation.FILE, kept_lens.WORDS, kept_lens.EFFECT)
    return _read_kept(str(folder), tuple(file_state(folder / name) for name in files))


@st.cache_data(max_entries=2000, show_spinner=False)
def _read_kept(folder: str, state: tuple) -> tuple[str, str]:
    """What is kept with a run: whether it has an effect, and what it does in a few words."""
    texts, told = kept_translation.read(Path(folder)), kept_lens.read(Path(folder))
    effect = "" if told is None else HAS_EFFECT if is_beyond_chance(told.effect).iloc[0] else NO_EFFECT
    return effect, "" if texts is None and told is None else in_brief(texts, told)
