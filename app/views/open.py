"""A file of somebody else's: what is in it, what was checked, and the way to the pages that read it."""

import os
from collections.abc import Callable

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt, load_adapter
from soft_prompt_explorer.analysis.adapters.upload import MAX_BYTES, load_uploaded
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import runs_folder
from soft_prompt_explorer.analysis.report.inspection import notes_on
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.parts.opened_file import offer, show_content, show_kept, show_receipt
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.app.server.allowed import VARIABLE, allowed_folders, allowed_path

FORMATS = (
    "PEFT folders (prompt tuning, p-tuning, multitask, prefix, LoRA), `.npy`, safetensors, files of `torch.save`, textual inversion, "
    "LoRA of kohya, diffusers and cloneofsimo, KoboldAI's zips, and a zip of any of these."
)
KINDS = {
    "soft_prompt": "Soft prompt",
    "lora": "LoRA",
    "prefix": "Prefix",
    "textual_inversion": "Textual inversion",
    "delta": "Change of weights",
    "adaption_prompt": "LLaMA-Adapter",
    "queries": "Queries of a Q-Former",
}

st.title("Open a file")
st.markdown(f"{FORMATS} A file is only parsed, never run: a pickle that holds more than tensors is refused.")


def read_once(slot: str, asked: object, read: Callable[[], SoftPrompt | LoraAdapter]) -> tuple[SoftPrompt | LoraAdapter, list[str]]:
    """What `read` answers and the notes on it, for which all of a LoRA is read: again only when something else is asked for."""
    if st.session_state.get(slot, (None,))[0] != asked:
        with st.spinner("Reading"):
            adapter = read()
            st.session_state[slot] = (asked, adapter, notes_on(adapter))
    return st.session_state[slot][1:]


def choose_files() -> list[UploadedFile]:
    """What the person dropped here."""
    return st.file_uploader(
        f"A file, all files of one adapter, or a zip; up to {MAX_BYTES // 2**20} MB",
        accept_multiple_files=True,
        help="It is kept for this session, and on the disk only if you save it.",
    )


def choose_path() -> str | None:
    """A path of this machine, under the folders that were allowed."""
    folders = allowed_folders()
    if not folders:
        st.caption(
            f"To open files of this machine by their path, start the dashboard with the folders allowed: `{VARIABLE}=/my/adapters make app`."
        )
        return None
    return st.text_input(
        "Or a path on this machine",
        key="path",
        bind="query-params",
        placeholder="a file or folder",
        help="In " + ", ".join(map(str, folders)),
    )


left, right = st.columns([3, 2], gap="large")
with left:
    chosen = choose_files()
with right:
    text = choose_path()
files = [(file.name, file.getvalue()) for file in chosen]
read = None
try:
    if chosen:
        read = read_once("upload_read", [file.file_id for file in chosen], lambda: load_uploaded(files))
    elif text:
        path = allowed_path(text)
        read = read_once("path_read", (path, path.stat().st_mtime_ns), lambda: load_adapter(path))
except InputError as error:
    widgets.refusal(error)

if read is not None:
    adapter, notes = read
    key = choosing.open_adapter(adapter)
    shape = f"{len(adapter)} modules" if isinstance(adapter, LoraAdapter) else f"{len(adapter)} virtual tokens, {adapter.width} wide"
    st.success(
        f"{widgets.plain(adapter.name)}: {KINDS[adapter.kind]}, {shape}, {adapter.read_from.dtype}, {widgets.plain(adapter.read_from.format)}.",
        icon=":material/check_circle:",
    )
    offer(key, adapter, files or None)
    for column, show in zip(
        st.columns([1, 1], gap="large"), (lambda: show_receipt(adapter, notes), lambda: show_content(adapter)), strict=True
    ):
        with column:
            show()

kept = at_hand.list_kept()
if len(kept):
    show_kept(kept)
elif read is None:
    st.info(f"Nothing is open. Your runs and kept files live in {widgets.plain(os.fspath(runs_folder()))}.", icon=":material/info:")
