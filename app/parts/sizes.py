"""Score against the size of the model, on *Learn*, under *Methods*: what was measured here, and beside it what a paper printed."""

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.core.words import listed
from soft_prompt_explorer.analysis.figures import charts as figures
from soft_prompt_explorer.app.charts.methods import published_scores, score_over_sizes
from soft_prompt_explorer.app.pages import FINDINGS, LEARN
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.trained_prompts.experiments import comparison, sizes

FOUND = "Does prompt tuning catch up with size?"  # the heading in docs/findings.md
PRINTED = "GLUE, average of eight tasks"  # the figure of `published` that tells most models of one kind


def show_sizes() -> None:
    st.subheader(FOUND)
    st.markdown(
        "Lester et al. 2021 found that prompt tuning falls short of full fine-tuning on small models and matches it on large ones. Here every way was tried on "
        "the same held-out examples of each model."
    )
    table = sizes.kept()
    told = sizes.summary(table)
    if not len(told):
        st.info("No figures are kept here: the command line's `sizes` makes them.", icon=":material/info:")
        return
    every = pd.concat([sizes.over_tasks(table), told], ignore_index=True)
    asked = st.segmented_control(
        "Task", list(dict.fromkeys(every["task"])), default=every["task"].iloc[0], required=True, key="of-task", bind="query-params"
    )
    rows = every[every["task"] == asked]
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Measured here**")
        drawn = rows[rows["score"].notna()]
        st.plotly_chart(
            score_over_sizes(drawn),
            key=f"sizes-{asked}",
            alt=f"Score and 95 % interval of {listed(list(drawn['way'].unique()))} on {listed(list(drawn['model'].unique()))}, by their parameters.",
        )
        lacking = rows[rows["score"].isna()]
        too_large = (
            f" {listed(list(lacking['way'].unique())).capitalize()} of {listed(list(lacking['model'].unique()))} did not fit into the memory."
            if len(lacking)
            else ""
        )
        measure = listed(list(drawn["measure"].dropna().unique()))
        with widgets.downloads():
            widgets.figure_buttons(lambda: figures.score_by_size({asked: drawn}, measure), f"score-against-size-{asked}")
        st.caption(
            f"{sizes.STEPS} steps of eight examples, LoRAs of rank {sizes.RANK}, prompts of ten virtual tokens. Bars are 95 % intervals of the examples, and say nothing of other seeds. Prompt tuning is the mean of "
            f"three seeds, of which open marks tell the lowest and the highest, and all others are of one. Each method has one learning rate for all models, that which it has on the smallest, which need not suit the others: *Findings* tells where it does not. Texts are chosen on training examples.{too_large} Size is not all that differs: the models were taught other things."
        )  # fmt: skip
        st.page_link(LEARN.file, label="What was found", icon=LEARN.icon, query_params={"tab": FINDINGS, "finding": FOUND})
    with right:
        st.markdown("**As a paper printed it**")
        published = comparison.published()
        printed = published[(published["metric"] == PRINTED) & published["method"].isin(["full fine-tuning", "LoRA"])]
        printed = printed[~printed["note"].str.startswith("set up as")]
        st.plotly_chart(
            published_scores(printed, "total"), key="sizes-published", alt=f"{PRINTED} of LoRA and full fine-tuning as printed, by model."
        )
        st.caption(
            f"Open marks: not measured here, of other models and tasks. {printed['paper'].iloc[0]}, {printed['table'].iloc[0]}. Lester et al. 2021 draw their curve (figure 1) and print no "
            "table of it, so it is not copied here."
        )
    with st.expander("The figures as a table", icon=":material/table_rows:"):
        show_table(
            told,
            alt="Score and interval of every way on every model and task.",
            first=("task", "model", "way", "score", "low", "high", "n", "seeds"),
        )
        with widgets.downloads():
            widgets.download_buttons(told, "score-against-size")
