"""What this is, on one prompt that ships, and the three doors: read a prompt, read a LoRA, train one."""

import streamlit as st

from soft_prompt_explorer.app.pages import HERO, HERO_LORA, LEARN, LIBRARY, LORA, PROMPT, TRAIN
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.first_map import follow_click, show_first_map
from soft_prompt_explorer.app.parts.lesson import STEPS
from soft_prompt_explorer.app.parts.opened_file import drop_zone, show_opened

follow_click()
st.title("A soft prompt works. Can you read it?")
st.markdown("**See what a soft prompt or LoRA does, in words.**")
st.caption("Every figure was measured. Scores and shares stand beside a control.")

doors = st.columns(3, gap="medium")
with doors[0].container(border=True, height="stretch"):
    st.markdown("**Read a soft prompt**")
    st.page_link(PROMPT.file, label="One that ships: past tense", icon=PROMPT.icon, query_params={"prompt": HERO})
    st.page_link(LIBRARY.file, label="Choose another", icon=LIBRARY.icon)
    st.page_link(LEARN.file, label="Take the two-minute tour first", icon=":material/tour:", query_params={"step": "1"})
with doors[1].container(border=True, height="stretch"):
    st.markdown("**Read a LoRA**")
    st.page_link(LORA.file, label="One that ships: sentiment", icon=LORA.icon, query_params={"lora": HERO_LORA})
    st.page_link(LIBRARY.file, label="Choose another", icon=LIBRARY.icon, query_params={"kind": "LoRA"})
with doors[2].container(border=True, height="stretch"):
    st.markdown("**Train one and watch it**")
    st.page_link(TRAIN.file, label="Watch one learn", icon=TRAIN.icon)
show_first_map()
dropped = drop_zone("Or drop a prompt or a LoRA of yours anywhere in this box: a PEFT folder’s files, safetensors, .npy, a zip")
if dropped is not None:
    show_opened(*dropped)

st.subheader("The lesson on one page")
for i in range(0, len(STEPS), 2):
    for column, number in zip(st.columns(2, gap="medium"), range(i, i + 2), strict=True):
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{number + 1}. {STEPS[number].title}**")
            with widgets.on_its_own():
                STEPS[number].show()
