"""The prompts and LoRAs at hand: which can be picked, what they are called, and how they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt, load_soft_prompt
from soft_prompt_explorer.analysis.adapters import load_lora as read_lora
from soft_prompt_explorer.analysis.report.inspection import notes_on
from soft_prompt_explorer.app.server import at_hand, read_here
from soft_prompt_explorer.app.server.text import plain
from soft_prompt_explorer.trained_prompts.runs import store

TOLD = 20  # sentences on what no list holds, the first of them on the page itself


def opened() -> dict[str, SoftPrompt | LoraAdapter]:
    """What this person opened from files, by key; kept for the session."""
    return st.session_state.setdefault("opened", {})


def open_adapter(adapter: SoftPrompt | LoraAdapter) -> str:
    """Keep what was read from a file for the session; answers the key that links use."""
    key = f"file-{adapter.read_from.sha256[:10]}"
    opened()[key] = adapter
    return key


def prompt_of(adapter: SoftPrompt | LoraAdapter) -> SoftPrompt | None:
    """The virtual tokens in what was opened: of a LoRA, the new words that came with it."""
    return adapter if isinstance(adapter, SoftPrompt) else adapter.textual_inversion


def prompt_choices() -> list[str]:
    """The keys of every prompt at hand: opened files first, then the person's kept files and runs, then the gallery."""
    return _choices([key for key, adapter in opened().items() if prompt_of(adapter) is not None], lora=False)


def lora_choices() -> list[str]:
    """The keys of every LoRA at hand, in the order of `prompt_choices`."""
    return _choices([key for key, adapter in opened().items() if isinstance(adapter, LoraAdapter)], lora=True)


def _choices(files: list[str], *, lora: bool) -> list[str]:
    runs, kept = at_hand.list_runs(), at_hand.list_kept()
    runs = runs[runs["method"].isin(["lora"] if lora else ["prompt-tuning", "p-tuning"])]
    kept = kept[kept["kind"].isin(("lora", "delta")) == lora]
    yours, shipped = runs[runs["origin"] == "yours"], runs[runs["origin"] == "gallery"]
    if lora:
        shipped = shipped.sort_values(["task", "rank"], ascending=[False, True])
    return [*files, *kept["name"], *yours.sort_values("created", ascending=False)["name"], *shipped["name"]]


def prompt_keys() -> list[str]:
    """`prompt_choices`; where there is none, what to do, and the rest of the page is left out."""
    keys = prompt_choices()
    if not keys:
        st.info("There is no prompt to read yet: train one on the Train page, or open a file in the Library.", icon=":material/info:")
        st.stop()
    return keys


def note_left_out() -> None:
    """A quiet line on the person's own runs and files that no list holds, and why."""
    sentences = list(at_hand.left_out().values())
    if sentences:
        more = f" So it is with {len(sentences) - 1} more." if len(sentences) > 1 else ""
        st.caption(f":material/report: Left out: {plain(sentences[0])}{more}", help="\n\n".join(map(plain, sentences[1:TOLD])) or None)


def prompt_label(key: str) -> str:
    return f"{opened()[key].name} (your file)" if key in opened() else key


def labels_of(keys: list[str]) -> Callable[[str], str]:
    """What the keys are called in a choice, looked up now: a widget may ask for it again where there is no session."""
    return {key: prompt_label(key) for key in keys}.__getitem__


def load_prompt(key: str) -> SoftPrompt:
    if key in opened():
        prompt = prompt_of(opened()[key])
        assert prompt is not None  # of `prompt_choices`
    else:
        path = store.adapter_path(key)
        prompt = _read_run(str(path), key, path.stat().st_mtime_ns)
    read_here.adapter(prompt)
    return prompt


def load_lora(key: str) -> LoraAdapter:
    if key in opened():
        adapter = opened()[key]
        assert isinstance(adapter, LoraAdapter)  # of `lora_choices`
    else:
        path = store.adapter_path(key)
        adapter = _read_lora(str(path), key, path.stat().st_mtime_ns)
    read_here.adapter(adapter)
    return adapter


def notes_of(adapter: SoftPrompt | LoraAdapter) -> list[str]:
    """What is to be known of an adapter, for which all of a LoRA is read: once a session."""
    known = st.session_state.setdefault("notes", {})
    sha256 = adapter.read_from.sha256
    if sha256 not in known:
        known[sha256] = notes_on(adapter)
    return known[sha256]


def own_model(key: str) -> str | None:
    """The model that a run of this machine says it was trained on; None for a stranger's file, whose word is not taken for a path."""
    return None if key in opened() else store.own_model(key)


def read_losses(name: str) -> pd.DataFrame:
    """`store.read_losses`, read once."""
    path = store.find(name)
    return _read_losses(name, str(path), path.stat().st_mtime_ns)


def content_of(prompts: list[SoftPrompt]) -> tuple:
    """What tells these prompts from any others, for the key of what is computed from them."""
    return tuple(
        (
            prompt.name,
            hashlib.sha256(prompt.embeddings.tobytes() + (b"" if prompt.initial is None else prompt.initial.tobytes())).hexdigest(),
        )
        for prompt in prompts
    )


@st.cache_resource(max_entries=64, show_spinner=False)
def _read_run(path: str, name: str, changed: int) -> SoftPrompt:
    return load_soft_prompt(path, name=name)


@st.cache_resource(max_entries=16, show_spinner=False)
def _read_lora(path: str, name: str, changed: int) -> LoraAdapter:
    return read_lora(path, name=name)


@st.cache_data(max_entries=64, show_spinner=False)
def _read_losses(name: str, path: str, changed: int) -> pd.DataFrame:
    return store.read_losses(name)
