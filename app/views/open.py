"""A file of somebody else's: what is in it, what was checked, and the way to the pages that read it."""

import os
from collections.abc import Callable

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from analysis.adapters import LoraAdapter, SoftPrompt, load_adapter
from analysis.adapters.upload import MAX_BYTES, label, load_uploaded
from analysis.core.errors import InputError
from analysis.core.folders import runs_folder
from analysis.report.inspection import modules, notes_on, receipt, token_norms
from app.charts import words as word_charts
from app.pages import NEIGHBOURS
from app.parts import widgets
from app.server.allowed import VARIABLE, allowed_folders, allowed_path
from trained_prompts.runs import store

FORMATS = (
    "PEFT folders (prompt tuning, p-tuning, multitask, prefix, LoRA), `.npy`, safetensors, files of `torch.save`, textual inversion, "
    "LoRA of kohya, diffusers and cloneofsimo, KoboldAI's zips, and a zip of any of these."
)
KINDS = {"soft_prompt": "Soft prompt", "lora": "LoRA", "prefix": "Prefix", "textual_inversion": "Textual inversion"}

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


def show_receipt(adapter: SoftPrompt | LoraAdapter, notes: list[str]) -> None:
    st.subheader("What was checked")
    table = receipt(adapter)
    st.table(table.assign(found=table["found"].map(widgets.plain)).set_index("check"))  # its cells wrap, and take text for Markdown
    if notes:
        st.subheader("What to know about it")
        st.markdown("\n".join(f"- {widgets.plain(note)}" for note in notes))


def show_content(adapter: SoftPrompt | LoraAdapter) -> None:
    if isinstance(adapter, LoraAdapter):
        st.subheader("Its modules")
        table = modules(adapter)
        st.dataframe(
            table, hide_index=True, height=widgets.table_height(len(table)), alt="The modules that the LoRA changes, with rank and shape."
        )
        widgets.download_buttons(table, f"{adapter.name}-modules")
    else:
        st.subheader("The length of its virtual tokens")
        st.plotly_chart(
            word_charts.token_norms(token_norms(adapter)), key="norms", alt=f"Euclidean norms of {len(adapter)} virtual tokens."
        )


def offer(key: str, adapter: SoftPrompt | LoraAdapter, files: list[tuple[str, bytes]] | None) -> None:
    """The way on: to its nearest words, and to the disk."""
    prompt = widgets.prompt_of(adapter)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = "Read its nearest words" if prompt is adapter else "Read the nearest words of its new words"
        if prompt is not None and prompt.kind != "prefix" and st.button(words, type="primary", icon=":material/hub:"):
            st.switch_page(NEIGHBOURS.file, query_params={"prompt": key})
        if files is None:
            return
        with st.popover("Keep it", icon=":material/save:"):
            st.write("Its bytes are kept on this machine, in your own folder of runs, under a name that you choose.")
            name = st.text_input("Name", value=store.name_like(label(files[0][0])), key="keep-name")
            if st.button("Keep", key="keep"):
                try:
                    store.keep(files, name)
                except InputError as error:
                    widgets.refusal(error)
                else:
                    st.success(f"Kept as {widgets.plain(name)}.", icon=":material/check_circle:")


left, right = st.columns([3, 2], gap="large")
with left:
    chosen = choose_files()
with right:
    text = choose_path()
adapter, files = None, None
try:
    if chosen:
        files = [(file.name, file.getvalue()) for file in chosen]
        adapter, notes = read_once("upload_read", [file.file_id for file in chosen], lambda: load_uploaded(files))
    elif text:
        path = allowed_path(text)
        adapter, notes = read_once("path_read", (path, path.stat().st_mtime_ns), lambda: load_adapter(path))
except InputError as error:
    widgets.refusal(error)

if adapter is not None:
    key = widgets.open_adapter(adapter)
    shape = f"{len(adapter)} modules" if isinstance(adapter, LoraAdapter) else f"{len(adapter)} virtual tokens, {adapter.width} wide"
    st.success(
        f"{widgets.plain(adapter.name)}: {KINDS[adapter.kind]}, {shape}, {adapter.source.dtype}, {widgets.plain(adapter.source.format)}.",
        icon=":material/check_circle:",
    )
    offer(key, adapter, files)
    for column, show in zip(
        st.columns([1, 1], gap="large"), (lambda: show_receipt(adapter, notes), lambda: show_content(adapter)), strict=True
    ):
        with column:
            show()

kept = store.list_kept()
if len(kept):
    st.subheader("Files that you kept")
    st.dataframe(kept, hide_index=True, alt="The files that were kept on this machine.")
    with st.popover("Remove one", icon=":material/delete:"):
        name = st.selectbox("Which", kept["name"], key="remove-which")
        if st.button("Remove it", key="remove"):
            with widgets.in_words():
                store.delete(name)
            st.rerun()
elif adapter is None:
    st.info(f"Nothing is open. Your runs and kept files live in {widgets.plain(os.fspath(runs_folder()))}.", icon=":material/info:")
