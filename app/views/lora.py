"""One LoRA: what it does, what it really uses of its ranks, a smaller copy, another beside it, and how it was made."""

import streamlit as st

from soft_prompt_explorer.analysis.loras.ranks import spectra
from soft_prompt_explorer.analysis.loras.weights import with_base
from soft_prompt_explorer.app.pages import BESIDE, DOES, FILE, HERO_LORA, LIBRARY, MADE, RANKS, SMALLER
from soft_prompt_explorer.app.parts import choosing, naming, prompt_header, widgets
from soft_prompt_explorer.app.parts.how_made import show_made
from soft_prompt_explorer.app.parts.lora_beside import show_other
from soft_prompt_explorer.app.parts.lora_copy import show_smaller_copy
from soft_prompt_explorer.app.parts.lora_spectra import (
    base_of,
    compare_with_weights,
    show_directions,
    show_health,
    show_layers,
    show_modules,
    show_size,
)
from soft_prompt_explorer.app.parts.pushed_words import show_pushed
from soft_prompt_explorer.app.parts.take_away import offer_lora
from soft_prompt_explorer.app.parts.texts_in_place import show_what_it_does
from soft_prompt_explorer.app.server.background import computed

keys = choosing.lora_choices()
if not keys:
    st.title("LoRA")
    st.info("There is no LoRA at hand: open one in the Library.", icon=":material/info:")
    st.page_link(LIBRARY.file, label="Open a file", icon=":material/upload_file:", query_params={"tab": FILE})
    st.stop()
key = prompt_header.pick(keys, HERO_LORA, name="lora", noun="LoRA")
with widgets.in_words():
    adapter = choosing.load_lora(key)
    prompt_header.show_head(key, adapter)
    offer_lora(key, adapter)
    base = base_of(adapter, key)
    if adapter.needs_weights and base is not None and naming.may_be_fetched(base, "the model"):
        adapter = with_base(adapter, base)

does, ranks, smaller, beside, made = widgets.tabs([DOES, RANKS, SMALLER, BESIDE, MADE])
with does:
    if does.open:
        if base is not None and naming.vocabulary_is_here(base):
            for show in (show_what_it_does, show_pushed):
                with widgets.on_its_own():
                    show(adapter, widgets.vocabulary(base), adapter.read_from.sha256, as_kept=True)
        else:
            st.info(
                "What it does is found by asking its model, which is not on this machine. *Ranks* needs no model.", icon=":material/info:"
            )
if ranks.open or smaller.open or beside.open:
    with widgets.in_words():
        table = computed(("spectra", adapter.read_from.sha256), "the spectra", lambda report: spectra(adapter, report=report))
    if table is None:
        st.stop()
    with ranks:
        if ranks.open:
            show_size(adapter, table)
            show_health(adapter, table)
            show_layers(table)
            with widgets.in_words():
                asked_for, weights = compare_with_weights(adapter, base)
            show_modules(adapter, table, weights, asked_for)
            show_directions(adapter, base)
    with smaller:
        if smaller.open:
            show_smaller_copy(adapter, key, table)
    with beside:
        if beside.open:
            show_other(adapter, key, keys)
with made:
    if made.open:
        show_made(key, adapter)
st.caption("ΔW is never formed" if adapter.kind == "lora" else f"ΔW of {widgets.plain(adapter.method)}, as its tensors make it")
