"""What the pages share: the prompts that can be picked, the export buttons, the line that says where figures come from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import streamlit as st

from analysis import export
from analysis.adapters import SoftPrompt, load_soft_prompt
from analysis.errors import InputError
from analysis.models import EMBEDDED_MODEL, Report, is_prepared
from analysis.vocabulary import Vocabulary, load_vocabulary
from app.jobs import JobQueue
from trained_prompts import store

_MIME = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet", "json": "application/json"}


@st.cache_resource
def job_queue() -> JobQueue:
    """The one queue of this server."""
    return JobQueue()


def plain(text: str) -> str:
    """Text of a stranger's (a file's name, a message about it) as text: no Markdown, no picture, no link."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~$:-])", r"\\\1", text)


def refusal(error: InputError) -> None:
    st.error(plain(str(error)), icon=":material/error:")


@contextmanager
def in_words() -> Iterator[None]:
    """Show refused input as a sentence where the person is, and leave the rest of the page out."""
    try:
        yield
    except InputError as error:
        refusal(error)
        st.stop()


def opened_prompts() -> dict[str, SoftPrompt]:
    """The prompts that this person opened from files, by key; kept for the session."""
    return st.session_state.setdefault("opened_prompts", {})


def open_prompt(prompt: SoftPrompt) -> str:
    """Keep an uploaded prompt for the session; answers the key that links use."""
    key = f"file-{prompt.source.sha256[:10]}"
    opened_prompts()[key] = prompt
    return key


def prompt_choices() -> list[str]:
    """The keys of every prompt at hand: opened files first, then the person's runs, then the gallery."""
    runs = store.list_runs()
    yours = runs[runs["origin"] == "yours"].sort_values("created", ascending=False)["name"]
    return [*opened_prompts(), *yours, *runs[runs["origin"] == "gallery"]["name"]]


def prompt_label(key: str) -> str:
    return f"{opened_prompts()[key].name} (your file)" if key in opened_prompts() else key


def load_prompt(key: str) -> SoftPrompt:
    if key in opened_prompts():
        return opened_prompts()[key]
    path = store.find(key)
    return _read_run(str(path), path.stat().st_mtime_ns)


def own_model(key: str) -> str | None:
    """The model that a run of this machine says it was trained on; None for a stranger's file, whose word is not taken for a path."""
    return None if key in opened_prompts() else store.read_description(store.find(key))["model"]["name"]


@st.cache_resource(max_entries=64, show_spinner=False)
def _read_run(path: str, changed: int) -> SoftPrompt:
    return load_soft_prompt(path)


def vocabulary(model: str) -> Vocabulary:
    """The vocabulary of a model; the first time it is read, with progress."""
    with progress() as report:
        return load_vocabulary(model, report=report)


@contextmanager
def progress() -> Iterator[Report]:
    """A progress bar that appears once something reports and goes when the block ends."""
    place = st.empty()
    try:
        yield lambda share, doing: place.progress(min(max(share, 0.0), 1.0), text=doing)
    finally:
        place.empty()


def download_buttons(table: pd.DataFrame, name: str) -> None:
    """CSV, Parquet and JSON of a table, made when clicked: the same bytes as the command line's."""
    file_name = re.sub(r"[^\w.-]+", "-", name)
    with st.container(horizontal=True):
        for form, writer in export.WRITERS.items():
            st.download_button(
                form.upper() if form != "parquet" else "Parquet",
                data=lambda writer=writer: writer(table),
                file_name=f"{file_name}.{form}",
                mime=_MIME[form],
                on_click="ignore",
                icon=":material/download:",
                key=f"download-{name}-{form}",
                help=f"{len(table):,} rows as {form}",
            )


def table_height(rows: int) -> int | str:
    """The height of a table that shows all its rows, up to sixteen of them, and scrolls beyond."""
    return "content" if rows <= 16 else 560


def provenance(prompt: SoftPrompt, model: str) -> None:
    """Where the figures of a page come from."""
    where = f"{prompt.source.format}, {prompt.source.dtype}, sha256 {prompt.source.sha256[:12]}…" if prompt.source else "made here"
    st.caption(f"{plain(prompt.name)}: {where} · vocabulary of {model} · searches are exact")


def model_note() -> None:
    """Say so where the embedded model has still to be made ready."""
    if not is_prepared(EMBEDDED_MODEL):
        st.info(
            f"The first training unpacks {EMBEDDED_MODEL}, which takes about a minute; after that it loads in a second.",
            icon=":material/hourglass_top:",
        )
