"""Every prompt and LoRA at hand, and the way to open one's own."""

import streamlit as st

from soft_prompt_explorer.app.charts.scores import score_gains
from soft_prompt_explorer.app.pages import COLLECTION, FILE
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.collection_page import show_collection
from soft_prompt_explorer.app.parts.library_table import show_library
from soft_prompt_explorer.app.parts.opened_file import FORMATS, drop_zone, pick_path, show_kept, show_opened
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.server import at_hand

st.title("Library")
listed, file, collection, scores = widgets.tabs(["Prompts and LoRAs", FILE, COLLECTION, "Scores"])
with listed:
    if listed.open:
        with widgets.in_words():
            show_library()
with file:
    if file.open:
        st.markdown(f"{FORMATS} A file is only parsed, never run: a pickle that holds more than tensors is refused.")
        left, right = st.columns([3, 2], gap="large")
        with left:
            dropped = drop_zone("Drop a file, all files of one adapter, or a zip")
        with right:
            at_path = pick_path()
        if dropped is not None:
            show_opened(*dropped)
        elif at_path is not None:
            show_opened(at_path, None)
        kept = at_hand.list_kept()
        if len(kept):
            show_kept(kept)
with collection:
    if collection.open:
        show_collection()
with scores:
    if scores.open:
        runs = at_hand.list_runs()
        described = runs[runs["score"].notna()]
        st.markdown("Held-out scores, without and with each.")
        alt = "; ".join(f"{row.name}: {row.no_prompt:.0%} without, {row.score:.0%} with, n {row.n:,.0f}" for row in described.itertuples())
        st.plotly_chart(score_gains(runs), key="scores", alt=f"Held-out scores. {alt}.")
        show_table(
            runs.drop(columns=["path"]),
            height=widgets.table_height(len(runs)),
            alt="The same figures as a table, with each run's settings.",
        )
        with widgets.downloads():
            widgets.download_buttons(runs.drop(columns="path"), "prompts")
