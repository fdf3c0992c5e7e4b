"""What changing a prompt does: the verdict, every intervention, and the report to keep."""

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.behaviour.changes import INTERVENTIONS, WHOLE, row_label
from soft_prompt_explorer.analysis.behaviour.of_task import judged
from soft_prompt_explorer.analysis.behaviour.verdict import FORMAT, LABELS, OTHERWISE, READABLE_AND_CAUSAL, TOO_FEW, WORSE
from soft_prompt_explorer.analysis.figures import charts as figures
from soft_prompt_explorer.analysis.report.page import of_prompt
from soft_prompt_explorer.app.charts import behaviour as behaviour_charts
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.measures import what_is
from soft_prompt_explorer.app.parts.prompt_on_page import AskedPrompt
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.parts.take_away import offer_report
from soft_prompt_explorer.app.server.background import computed

ICONS = {
    READABLE_AND_CAUSAL: ":material/verified:",
    OTHERWISE: ":material/call_split:",
    "readable, not causal": ":material/visibility:",
    "causal, not readable": ":material/bolt:",
    "neither readable nor causal": ":material/blur_off:",
    FORMAT: ":material/format_shapes:",
    TOO_FEW: ":material/hourglass_empty:",
    WORSE: ":material/trending_down:",
}


def show_verdict(asked: AskedPrompt, table: pd.DataFrame) -> None:
    prompt, vocabulary, task, how = asked.prompt, asked.vocabulary, asked.task, asked.how
    with widgets.in_words():
        verdict = computed(
            ("verdict", *asked.asked_content, asked.n),
            "the verdict",
            lambda report: judged(prompt, vocabulary, task, table, report=report).verdict,
        )
    if verdict is None:
        return
    if (note := how.note(prompt.name)) is not None:
        st.warning(widgets.plain(note), icon=":material/chat:")
    said = how.said(verdict)
    st.markdown(
        f"{ICONS[verdict.label]} **{widgets.plain(said.label[0].upper() + said.label[1:])}:** {widgets.plain(LABELS[verdict.label])}."
    )
    with st.expander("The evidence for this", icon=":material/rule:"):
        st.markdown(widgets.plain(said.sentence).replace("; ", ";  \n"))
        st.caption(
            "“Causal” is said of what was taken out or put in. A direction is causal where taking it out lowers the score, or where it alone raises the initial values above no prompt, "
            "and where it does so more than other directions of the same size: the prompt's own, those of other tasks and random ones. Its words are causal only where the part of it "
            "that they span does so too. What a twin trained on shuffled answers does as well is the form of an answer. The claims about one prompt are corrected for one another."
        )


def show_interventions(asked: AskedPrompt, table: pd.DataFrame) -> None:
    rows = table.drop_duplicates("intervention").set_index("intervention")
    first = st.columns(4)
    measure = table["measure"].iloc[0]
    for column, (name, label) in zip(
        first,
        (("whole prompt", "the prompt"), ("no prompt", "no prompt"), ("initial values", "its start"), ("nearest words", "its words")),
        strict=True,
    ):
        if name in rows.index:
            row = rows.loc[name]
            column.metric(
                f"{widgets.plain(measure)}: {label}",
                f"{row['score']:.3f}",
                f"{row['score_low']:.3f} to {row['score_high']:.3f}",
                delta_color="off",
                delta_arrow="off",
            )
    st.caption(
        f"With 95 % intervals, each on the same {rows['n'].iloc[0]:,} held-out examples; the scores in the Library are of all, or of as many as are told there."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        what = st.segmented_control("Change of", ["score", "loss"], default="score", required=True, key="what", bind="query-params")
        tokens = st.toggle("Each token too", key="tokens", bind="query-params")
    shown = table if tokens else table[table["position"].isna()]
    strongest = table.loc[(table["intervention"] != WHOLE)].sort_values(f"{what}_change", key=abs, ascending=False).iloc[0]
    alt = f"The change of the {what} with its 95 % interval, an intervention a row; the largest is {row_label(strongest)}, {strongest[f'{what}_change']:+.3f}."
    st.html(behaviour_charts.changes(shown, what, alt=alt))
    st.caption(
        "Dotted: the whole prompt. Each interval is a paired bootstrap: the same examples with and without the change. Grey crosses are the control of the row above them: "
        "the same amount along random directions, over several draws. What crosses the line has not been shown to do anything."
    )
    what_is(
        "Change under an intervention", "Task direction out, and alone", "The words' part of the direction", "Nearest words in place of the tokens",
        "Correction for many claims",
    )  # fmt: skip
    with st.expander("What each row changes", icon=":material/help:"):
        st.markdown("\n".join(f"- **{name}**: {each.says}" for name, each in INTERVENTIONS.items() if name in rows.index))
    prompt, vocabulary = asked.prompt, asked.vocabulary
    offer_report(
        prompt,
        vocabulary,
        lambda: of_prompt(prompt, vocabulary, **asked.how.of_report(judged(prompt, vocabulary, asked.task, table), prompt.name)),
        key="report",
    )
    number = st.column_config.NumberColumn
    show_table(
        table.drop(columns=["prompt", "task", "measure", "n"]),
        key="table",
        first=["intervention", "position", "score", "score_change", "score_change_low", "score_change_high", "loss", "loss_change"],
        height=widgets.table_height(len(table)),
        column_config={"intervention": st.column_config.TextColumn(pinned=True)}
        | {column: number(format="%.3f") for column in table.columns if column.startswith(("loss", "score"))},
        alt=f"The {len(table)} interventions, a row each.",
    )
    with widgets.downloads():
        widgets.download_buttons(table, f"behaviour-{asked.prompt.name}", asked.prompt)
        widgets.figure_buttons(lambda: figures.interventions(table), f"interventions-{asked.prompt.name}", asked.prompt)
