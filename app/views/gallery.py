"""Every prompt found, and the way to open one's own."""

import streamlit as st

from soft_prompt_explorer.app.charts.scores import score_gains
from soft_prompt_explorer.app.pages import NEIGHBOURS, OPEN
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.trained_prompts.runs import store

st.title("Soft prompts")
st.markdown(
    "A soft prompt is a handful of learned vectors in front of a frozen language model. "
    "Pick one to see which words its virtual tokens are near to, and whether that says anything about what was learned."
)

with widgets.in_words():
    runs = at_hand.list_runs()

left, right = st.columns([3, 2], gap="large")
with left:
    st.subheader("Pick one")
    keys = choosing.prompt_choices()
    if not keys:
        st.info("There is no prompt here yet: train one on the Train page, or open a file.", icon=":material/info:")
    else:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            picked = st.selectbox("Prompt", keys, format_func=choosing.labels_of(keys), key="pick")
            if st.button("Read its nearest words", type="primary", icon=NEIGHBOURS.icon):
                st.switch_page(NEIGHBOURS.file, query_params={"prompt": picked})
        mine = runs[(runs["name"] == picked) & (runs["origin"] == "yours")]
        if picked in choosing.opened():
            prompt = choosing.load_prompt(picked)
            st.caption(
                f"{len(prompt)} virtual tokens, {prompt.width} wide, {widgets.plain(prompt.read_from.format)}; kept until this page is closed."
            )
        elif (runs["name"] == picked).any():
            with st.expander("How it was made and how it did", icon=":material/receipt_long:"):
                with widgets.in_words():
                    st.markdown(store.read_card(picked).replace("# ", "#### ", 1))
                if len(mine):
                    with st.popover("Delete this run", icon=":material/delete:"):
                        st.write("Its files are removed from this machine.")
                        if st.button("Delete it", key="delete"):
                            with widgets.in_words():
                                store.delete(picked)
                            st.rerun()
    choosing.note_left_out()
with right:
    st.subheader("Or open one of your own")
    st.write("A file, a folder or a zip from PEFT, NumPy, PyTorch and others. You see what was checked before anything is read from it.")
    if st.button("Open a file", icon=OPEN.icon):
        st.switch_page(OPEN.file)

if len(runs):
    st.subheader("Held-out scores, without and with each")
    described = runs[runs["score"].notna()]
    alt = "; ".join(f"{row.name}: {row.no_prompt:.0%} without, {row.score:.0%} with, n {row.n:,.0f}" for row in described.itertuples())
    st.plotly_chart(score_gains(runs), key="scores", alt=f"Held-out scores. {alt}.")
    st.dataframe(
        runs.drop(columns=["path", "low", "high"]).set_index("name"),
        column_config={
            "no_prompt": st.column_config.NumberColumn("no prompt", format="%.3f", help="Held-out score of the bare model"),
            "start": st.column_config.NumberColumn("start", format="%.3f", help="Held-out score with the initial values, before training"),
            "score": st.column_config.NumberColumn("with it", format="%.3f", help="Held-out score as trained, by the measure beside it"),
            "n": st.column_config.NumberColumn("n", help="Held-out examples"),
            "norm_ratio": st.column_config.NumberColumn(
                "norm / vocabulary", format="%.2f ×", help="Median norm of the virtual tokens over the vocabulary's"
            ),
            "created": st.column_config.TextColumn("made (UTC)"),
        },
        alt="The same figures as a table, with each run's settings.",
    )
    widgets.download_buttons(runs.drop(columns="path"), "prompts")
