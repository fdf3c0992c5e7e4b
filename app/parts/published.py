"""What papers published of the methods, drawn apart from what was measured here."""

import streamlit as st

from soft_prompt_explorer.analysis.core.words import listed
from soft_prompt_explorer.app.charts.methods import published_scores
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.trained_prompts.experiments.comparison import published

AXES = {"trainable": "trainable parameters", "total": "model size"}


def show_published() -> None:
    st.subheader("What papers published")
    table = published()
    metrics = {f"{row.metric} ({row.table})": row.metric for row in table.drop_duplicates("metric").itertuples()}
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    metric = left.selectbox("Figure", list(metrics), key="published", bind="query-params")
    rows = table[table["metric"] == metrics[metric]]
    several = len(rows["model"].unique()) > 1
    against = right.segmented_control(
        "Against",
        list(AXES) if several else ["trainable"],
        default="trainable",
        required=True,
        format_func=AXES.__getitem__,
        key="against",
        bind="query-params",
    )
    drawn = rows if against == "trainable" else rows[~rows["note"].str.startswith("set up as")]
    st.plotly_chart(
        published_scores(drawn, against),
        key=f"published-{against}",
        alt=f"{metric} of {listed(list(rows['method'].unique()))} as published, against {AXES[against]}.",
    )
    joined = "A dotted line joins the figures of one " + ("model." if against == "trainable" else "method.")
    spread = " Bars are the plus and minus that the paper prints." if rows["plus_minus"].notna().any() else ""
    st.caption(
        f"Open marks: nothing here was measured by this explorer, and models, tasks and training differ from the figures of *Measured here*. {rows['paper'].iloc[0]}, "
        f"{rows['table'].iloc[0]}. {joined}{spread}"
    )
    with st.expander("The published figures as a table", icon=":material/table_rows:"):
        show_table(
            rows.drop(columns=["metric"]),
            column_config={key: st.column_config.NumberColumn(format="localized") for key in ("total", "trainable")},
            alt=f"What {rows['paper'].iloc[0]} prints in {rows['table'].iloc[0]}, a row a figure.",
        )
        with widgets.downloads():
            widgets.download_buttons(table, "methods-published")
