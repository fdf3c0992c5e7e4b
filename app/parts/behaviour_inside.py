"""What the model makes of a prompt inside: the logit lens, the residual stream and the attention of the answer."""

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.behaviour.inside import attention, logit_lens
from soft_prompt_explorer.app.charts import behaviour as behaviour_charts
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.behaviour_asking import asking
from soft_prompt_explorer.app.parts.measures import below
from soft_prompt_explorer.app.parts.prompt_on_page import AskedPrompt

ATTENDED = 16  # examples whose attention is averaged


def lens_table(asked: AskedPrompt) -> pd.DataFrame | None:
    return asking(
        asked.vocabulary.model,
        ("lens", *asked.asked_content),
        "the logit lens",
        lambda language_model, report: logit_lens(asked.prompt.embeddings, language_model, asked.vocabulary),
    )


def attention_table(asked: AskedPrompt) -> pd.DataFrame | None:
    texts = asked.task.examples("held-out")["text"].head(ATTENDED).tolist()
    return asking(
        asked.vocabulary.model,
        ("attention", *asked.asked_content),
        "the attention",
        lambda language_model, report: attention(asked.prompt.embeddings, language_model, texts, report=report),
    )


def show_inside(asked: AskedPrompt) -> None:
    with widgets.in_words():
        lens = lens_table(asked)
        paid = attention_table(asked)
    if lens is not None:
        st.subheader("The logit lens")
        st.plotly_chart(behaviour_charts.lens(lens), key="lens", alt="The likeliest next word at each virtual position after each layer.")
        st.caption(
            "What the model would say next at each virtual position if it ended after that layer (the logit lens). Row 0 is the virtual token itself; early layers are not made to be read "
            "this way. A virtual token never sees the input, so this is the same for every example."
        )
        with below("Logit lens"):
            widgets.download_buttons(lens, f"lens-{asked.prompt.name}", asked.prompt)
        st.subheader("The residual stream's norm")
        longest = lens.loc[lens["norm"].idxmax()]
        st.plotly_chart(
            behaviour_charts.stream_norms(lens),
            key="norms",
            alt=f"Norms by virtual token and layer; the largest is {longest['norm']:.0f}, at token {longest['position']}.",
        )
        st.caption(
            "The first position of a text often grows huge and draws attention that says nothing of its content (an attention sink; Xiao et al. 2024)."
        )
    if paid is not None:
        st.subheader("Attention of the answer to the prompt")
        share = paid[paid["position"].notna()].groupby(["layer", "head"])["attention"].sum().mean()
        st.plotly_chart(
            behaviour_charts.attention_by_layer(paid),
            key="attention",
            alt=f"Attention by virtual token and layer, mean over heads; the prompt gets {share:.0%} in all.",
        )
        st.caption(
            f"From the position that predicts the answer, over {min(ATTENDED, asked.available)} held-out examples. Attention is no explanation by itself: see *Interventions*."
        )
        with below("Attention of the answer"):
            widgets.download_buttons(paid, f"attention-{asked.prompt.name}", asked.prompt)
