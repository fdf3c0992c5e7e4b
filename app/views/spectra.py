"""What a LoRA pushes the model towards, and what it really uses of its ranks: spectra by layer, health, one module, another LoRA beside it, its base weights, and a smaller copy."""

import streamlit as st

from soft_prompt_explorer.analysis.loras.ranks import spectra
from soft_prompt_explorer.analysis.loras.weights import with_base
from soft_prompt_explorer.app.parts import choosing, naming, widgets
from soft_prompt_explorer.app.parts.lora_beside import show_other
from soft_prompt_explorer.app.parts.lora_copy import show_smaller_copy
from soft_prompt_explorer.app.parts.lora_spectra import (
    base_of,
    compare_with_weights,
    show_directions,
    show_health,
    show_layers,
    show_modules,
)
from soft_prompt_explorer.app.parts.pushed_words import show_pushed
from soft_prompt_explorer.app.parts.texts_in_place import show_what_it_does
from soft_prompt_explorer.app.server.background import computed

st.title("LoRA spectra")
st.markdown(
    "A LoRA of rank r need not use r ranks. What it learned stands in the singular values of its updates ΔW = s · B A, module by module."
)
keys = choosing.lora_choices()
if not keys:
    st.info("There is no LoRA at hand: open one on the Open page.", icon=":material/info:")
    st.stop()
asked = st.query_params.get("lora")
if asked is not None and asked not in map(choosing.prompt_label, keys):
    st.warning(f"The link asks for {widgets.plain(asked)}, which is not here. Pick another.", icon=":material/link_off:")
key = st.selectbox("LoRA", keys, format_func=choosing.labels_of(keys), key="lora", bind="query-params")
with widgets.in_words():
    adapter = choosing.load_lora(key)
    base = base_of(adapter, key)
    if adapter.needs_weights and base is not None and naming.may_be_fetched(base, "the model"):
        adapter = with_base(adapter, base)
    table = computed(("spectra", adapter.source.sha256), "the spectra", lambda report: spectra(adapter, report=report))
if table is None:
    st.stop()

if base is not None and naming.vocabulary_is_here(base):
    for show in (show_what_it_does, show_pushed):
        with widgets.on_its_own():
            show(adapter, widgets.vocabulary(base), adapter.source.sha256, as_kept=True)
show_health(adapter, table)
show_layers(table)
with widgets.in_words():
    asked_for, beside = compare_with_weights(adapter, base)
show_modules(adapter, table, beside, asked_for)
show_directions(adapter, base)
show_smaller_copy(adapter, key, table)
show_other(adapter, key, keys)
st.caption(
    f"{widgets.plain(adapter.name)}: {adapter.source.format}, {adapter.source.dtype}, sha256 {adapter.source.sha256[:12]}… · "
    + ("ΔW is never formed" if adapter.kind == "lora" else f"ΔW of {widgets.plain(adapter.method)}, as its tensors make it")
)
