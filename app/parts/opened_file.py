"""A file of somebody else's: dropped on a page, what was checked of it, what is in it, and the way on."""

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt, load_adapter
from soft_prompt_explorer.analysis.adapters.upload import MAX_BYTES, label, load_uploaded
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.words import counted
from soft_prompt_explorer.analysis.report.inspection import modules, receipt, token_norms
from soft_prompt_explorer.app.charts import words as word_charts
from soft_prompt_explorer.app.pages import LORA, PROMPT
from soft_prompt_explorer.app.parts import choosing, naming, widgets
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.server.allowed import VARIABLE, allowed_folders, allowed_path
from soft_prompt_explorer.trained_prompts.runs import store

Files = list[tuple[str, bytes]]
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


def drop_zone(label: str) -> tuple[SoftPrompt | LoraAdapter, Files] | None:
    """Where a file is dropped: what is in it, with its bytes; None where there is none, or where it is refused, in a sentence."""
    chosen = st.file_uploader(
        label, accept_multiple_files=True, key="dropped",
        help=f"One file, all files of one adapter, or a zip, of up to {MAX_BYTES // 2**20} MB together. It is kept for this session, and on the disk only if you save it.",
    )  # fmt: skip
    if not chosen:
        return None
    files = [(file.name, file.getvalue()) for file in chosen]
    try:
        return widgets.read_once("upload_read", [file.file_id for file in chosen], lambda: load_uploaded(files)), files
    except InputError as error:
        widgets.refusal(error)
        return None


def pick_path() -> SoftPrompt | LoraAdapter | None:
    """What lies at a path of this machine, under the folders that were allowed."""
    folders = allowed_folders()
    if not folders:
        st.caption(
            f"To open files of this machine by their path, start the dashboard with the folders allowed: `{VARIABLE}=/my/adapters make app`."
        )
        return None
    text = st.text_input(
        "Or a path on this machine",
        key="path",
        bind="query-params",
        placeholder="a file or folder",
        help="In " + ", ".join(map(str, folders)),
    )
    if not text:
        return None
    try:
        path = allowed_path(text)
        return widgets.read_once("path_read", (path, path.stat().st_mtime_ns), lambda: load_adapter(path))
    except InputError as error:
        widgets.refusal(error)
        return None


def show_opened(adapter: SoftPrompt | LoraAdapter, files: Files | None) -> None:
    """What was opened: what it is, the way on, what was checked and what is in it.

    Parameters
    ----------
    files : where it was uploaded; it can be kept then.
    """
    shape = (
        counted(len(adapter), "module")
        if isinstance(adapter, LoraAdapter)
        else f"{counted(len(adapter), 'virtual token')}, {adapter.width} wide"
    )
    of_model = f" for {widgets.plain(adapter.base_model)}" if adapter.base_model else ""
    st.success(
        f"{widgets.plain(adapter.name)}: {KINDS[adapter.kind]}{of_model}, {shape}, {adapter.read_from.dtype}, {widgets.plain(adapter.read_from.format)}.",
        icon=":material/check_circle:",
    )
    prompt = choosing.prompt_of(adapter)
    if prompt is not None:
        st.markdown(naming.about_words(prompt))
    offer(choosing.open_adapter(adapter), adapter, files)
    left, right = st.columns(2, gap="large")
    with left:
        show_receipt(adapter, choosing.notes_of(adapter))
    with right:
        show_content(adapter)


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
        show_table(table, height=widgets.table_height(len(table)), alt="The modules that the LoRA changes, with rank and shape.")
        with widgets.downloads():
            widgets.download_buttons(table, f"{adapter.name}-modules", adapter)
    else:
        st.subheader("The length of its virtual tokens")
        st.plotly_chart(
            word_charts.token_norms(token_norms(adapter)), key="norms", alt=f"Euclidean norms of {len(adapter)} virtual tokens."
        )


def offer(key: str, adapter: SoftPrompt | LoraAdapter, files: Files | None) -> None:
    """The way on: to the page that reads it, and to the disk."""
    prompt = choosing.prompt_of(adapter)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if isinstance(adapter, LoraAdapter) and st.button("Read this LoRA", type="primary", icon=LORA.icon):
            st.switch_page(LORA.file, query_params={"lora": key})
        words = "Read this prompt" if prompt is adapter else "Read its new words"
        if prompt is not None and st.button(words, type="primary" if prompt is adapter else "secondary", icon=PROMPT.icon):
            st.switch_page(PROMPT.file, query_params={"prompt": key})
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


def show_kept(kept: pd.DataFrame) -> None:
    """The files that were kept on this machine, and the way to remove one."""
    st.subheader("Files that you kept")
    show_table(kept, alt="The files that were kept on this machine.")
    with st.popover("Remove one", icon=":material/delete:"):
        name = st.selectbox("Which", kept["name"], key="remove-which")
        if st.button("Remove it", key="remove"):
            with widgets.in_words():
                store.delete(name)
            st.rerun()
