"""A LoRA beside another one: how alike the spaces are in which they change the model."""

from typing import get_args

import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.loras.subspaces import Side, against, subspace_similarity
from soft_prompt_explorer.app.charts.spectra import angles_by_layer, subspace_map
from soft_prompt_explorer.app.pages import LORA, RANKS
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.parts.lora_spectra import whole_ranks
from soft_prompt_explorer.app.parts.measures import below
from soft_prompt_explorer.app.parts.tables import modules_in_words
from soft_prompt_explorer.app.server.background import computed


def show_other(adapter: LoraAdapter, key: str, keys: list[str]) -> None:
    """The LoRA beside another one of these."""
    st.subheader("Beside another LoRA")
    others = [other for other in keys if other != key]
    other_key = st.selectbox(
        "The other", others, index=None, format_func=choosing.labels_of(others), key="other", bind="query-params", placeholder="pick one"
    )
    if other_key is not None:
        with widgets.in_words():
            other = choosing.load_lora(other_key)
            compared = computed(
                ("against", adapter.source.sha256, other.source.sha256),
                "the comparison",
                lambda report: against(adapter, other, report=report),
            )
        if compared is not None:
            both = compared[compared["in"] == "both"]
            st.markdown(
                f"**{len(both)} modules are in both**; the median cosine of their updates is {both['cosine'].median():.2f}, that of their output directions' angles "
                f"{both['angle_out'].median():.2f} where random directions have {both['angle_out_random'].median():.2f}, and of their input directions' {both['angle_in'].median():.2f} "
                f"(random: {both['angle_in_random'].median():.2f})."
            )
            left, right = st.columns(2, gap="large")
            left.markdown("**Output directions**")
            left.plotly_chart(angles_by_layer(compared, "out"), key="angles-out", alt="Principal angles of the output directions by layer.")
            right.markdown("**Input directions**")
            right.plotly_chart(angles_by_layer(compared, "in"), key="angles-in", alt="Principal angles of the input directions by layer.")
            st.caption(
                "Open marks are random directions. Input directions begin at the random initial values of A and hardly leave them: two LoRAs trained with the same seed share "
                "them whatever they learned. Output directions begin at nothing, so what they share was learned."
            )
            with below("Subspace similarity"):
                widgets.download_buttons(compared, f"{adapter.name}-{other.name}", adapter, other)
            st.page_link(
                LORA.file,
                label=f"Open {widgets.plain(choosing.prompt_label(other_key))}",
                icon=LORA.icon,
                query_params={"lora": other_key, "tab": RANKS},
            )
            common = both.loc[both["angle_out"].notna(), "module"].tolist()
            if common:
                widgets.follow_link("module", {module: module for module in common}, common[0])
                module = st.selectbox(
                    "φ(i, j) of the module", common, format_func=modules_in_words(common).__getitem__, key="linked-module"
                )
                widgets.say_in_link("module", None if module == common[0] else module)
                side = st.segmented_control("Directions", get_args(Side), default="out", required=True, key="side", bind="query-params")
                phi = subspace_similarity(adapter.modules[module], other.modules[module], side=side)
                left, right = st.columns(2, gap="large")
                left.markdown("**These two**")
                of_these, of_random = (
                    whole_ranks(subspace_map(phi, column), x=phi["j"].max(), y=phi["i"].max()) for column in ("phi", "phi_random")
                )
                left.plotly_chart(of_these, key="phi", alt=f"Subspace similarity of {module}.")
                right.markdown("**Two random updates**")
                right.plotly_chart(of_random, key="phi-random", alt="The same of random updates.")
                with below("Subspace similarity"):
                    widgets.download_buttons(phi, f"{adapter.name}-{other.name}-phi", adapter, other)
