"""What the page of a session has read, for the provenance of what is taken from it; it begins anew where a page is drawn anew."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.core import provenance

_KEY = "read-here"
COMMAND = "dashboard"


def begin() -> None:
    """A page begins to be drawn: nothing was read for it yet."""
    st.session_state[_KEY] = provenance.Log()
    provenance.keep(_of_session)


def adapter(read: SoftPrompt | LoraAdapter) -> None:
    """Say that the page reads this adapter, which may have been at hand before."""
    if read.source is not None:
        provenance.file_read(read.source.path.name, read.source.sha256)


def file(name: str, sha256: str) -> None:
    """Say that the page shows what this file holds, which may have been read before."""
    provenance.file_read(name, sha256)


def made(*of: SoftPrompt | LoraAdapter, seed: int | None = None) -> provenance.Provenance:
    """The provenance of what is taken from the page: made of these adapters, or of all that the page has read where none is named; and of the models that it has read."""
    everything = provenance.made_by(COMMAND, seed=seed)
    files = dict.fromkeys((each.source.path.name, each.source.sha256) for each in of if each.source is not None)
    return replace(everything, files=tuple(files)) if of else everything


def _of_session() -> provenance.Log | None:
    return None if get_script_run_ctx(suppress_warning=True) is None else st.session_state.get(_KEY)
