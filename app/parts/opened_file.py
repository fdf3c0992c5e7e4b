"""A file that was opened: what was checked, what is in it, and the way on."""

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.adapters.upload import label
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.report.inspection import modules, receipt, token_norms
from soft_prompt_explorer.app.charts import words as word_charts
from soft_prompt_explorer.app.pages import NEIGHBOURS
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.trained_prompts.runs import store


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
        widgets.download_buttons(table, f"{adapter.name}-modules", adapter)
    else:
        st.subheader("The length of its virtual tokens")
        st.plotly_chart(
            word_charts.token_norms(token_norms(adapter)), key="norms", alt=f"Euclidean norms of {len(adapter)} virtual tokens."
        )


def offer(key: str, adapter: SoftPrompt | LoraAdapter, files: list[tuple[str, bytes]] | None) -> None:
    """The way on: to its nearest words, and to the disk."""
    prompt = choosing.prompt_of(adapter)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = "Read its nearest words" if prompt is adapter else "Read the nearest words of its new words"
        if prompt is not None and prompt.is_embeddings and st.button(words, type="primary", icon=NEIGHBOURS.icon):
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


def show_kept(kept: pd.DataFrame) -> None:
    """The files that were kept on this machine, and the way to remove one."""
    st.subheader("Files that you kept")
    st.dataframe(kept, hide_index=True, alt="The files that were kept on this machine.")
    with st.popover("Remove one", icon=":material/delete:"):
        name = st.selectbox("Which", kept["name"], key="remove-which")
        if st.button("Remove it", key="remove"):
            with widgets.in_words():
                store.delete(name)
            st.rerun()
