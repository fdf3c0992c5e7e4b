"""Answers to one input, side by side: with the prompt, with what stands in its place, and without."""

import streamlit as st

from soft_prompt_explorer.analysis.behaviour.of_task import side_by_side
from soft_prompt_explorer.analysis.core.words import shown
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.behaviour_asking import asking
from soft_prompt_explorer.app.parts.prompt_on_page import AskedPrompt
from soft_prompt_explorer.app.parts.tables import show_table


def show_answers(asked: AskedPrompt) -> None:
    prompt, vocabulary, task = asked.prompt, asked.vocabulary, asked.task
    before, _, after = task.template.partition("{input}")
    examples = task.examples("held-out").head(50)
    inputs = [text[len(before) : len(text) - len(after)] for text in examples["text"]]
    given = st.text_input(
        "Input", value=inputs[0], key=f"input-{task.name}", max_chars=2000, help="Any input of the task; the template is put around it."
    ).strip()
    if not given:
        st.info("Type an input.", icon=":material/info:")
        return
    with widgets.in_words():
        table = asking(
            vocabulary.model,
            ("answers", *asked.asked_content, given),
            "the answers",
            lambda language_model, report: side_by_side(prompt, vocabulary, task, given, language_model),
        )
    if table is None:
        return
    ways = table.drop_duplicates("way")
    for i in range(0, len(ways), 4):
        for column, (way, rows) in zip(st.columns(4, gap="medium"), list(table.groupby("way", sort=False))[i : i + 4], strict=False):
            with column.container(border=True):
                st.markdown(f"**{widgets.plain(way)}**")
                st.caption(widgets.plain(rows["reads"].iloc[0]).replace("\n", "  \n"))
                st.markdown(f"→ {widgets.plain(rows['answer'].iloc[0]) or '(nothing)'}")
                show_table(
                    rows[["token", "probability"]].assign(token=rows["token"].map(shown)),
                    column_config={"probability": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1)},
                    alt=f"The likeliest first tokens of {way}: {', '.join(rows['token'].str.strip())}.",
                )
    how = "The answers are written greedily up to the end of the line; the bars are the probabilities of the first token."
    if task.labels:
        how += f" To be scored, the model chooses among {', '.join(label.strip() for label in task.labels)} instead."
    wanted = dict(zip(inputs, examples["target"], strict=True)).get(given)
    if wanted is None:
        st.caption(how)
    else:
        st.caption(
            f"The answer wanted: “{widgets.plain(wanted.strip())}”. Greedy writing up to the end of the line; the bars are the probabilities of its first token."
        )
    with widgets.downloads():
        widgets.download_buttons(table, f"answers-{prompt.name}", prompt)
