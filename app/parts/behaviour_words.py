"""Verbalisation: whether the model can say what a prompt asks for."""

import numpy as np
import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.behaviour.verbalisation import by_task, says, verbalise
from soft_prompt_explorer.analysis.core.progress import Report, part
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.analysis.tasks.task import Task
from soft_prompt_explorer.app.charts import behaviour as behaviour_charts
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.behaviour_asking import asking
from soft_prompt_explorer.app.parts.measures import below
from soft_prompt_explorer.app.parts.prompt_on_page import AskedPrompt
from soft_prompt_explorer.app.parts.tables import show_table


def show_words(asked: AskedPrompt, all_tasks: dict[str, Task]) -> None:
    """What the model writes where the prompt's states stand for words, beside the descriptions of all tasks."""
    prompt, task, content = asked.prompt, asked.task, asked.asked_content
    st.markdown(
        "The hidden states of the prompt are put in the place of words in another text, which lists tasks and what they ask for, and the model goes on writing "
        "(Patchscopes, Ghandeharioun et al. 2024; InSPEcT, Ramati et al. 2024). If it can say what the prompt asks for, it should write something like the task's "
        "description, and more like it than like those of other tasks."
    )
    if st.session_state.get("verbalise") != content:
        if not st.button("Let the model write", type="primary", icon=":material/play_arrow:", key="write"):
            st.caption("About two minutes on two cores.")
            return
        st.session_state["verbalise"] = content
    descriptions = {name: each.description for name, each in all_tasks.items()}
    if task.name not in TASKS:
        described = st.text_input(
            "The task in words", key=f"description-{task.name}", placeholder="for instance: Say whether a number is even or odd."
        ).strip()
        if not described:
            st.info("Say in words what the task asks for: what the model writes is compared with that.", icon=":material/info:")
            return
        descriptions[task.name] = described
    answers = {name: each.answer_words() for name, each in all_tasks.items()}
    start = prompt.initial if prompt.initial is not None else random_words(asked.vocabulary, len(prompt))

    def ask(language_model, report: Report) -> tuple[pd.DataFrame, pd.DataFrame]:
        own, of_start = (
            verbalise(rows, language_model, task.name, descriptions, answers, report=part(report, i, 2))
            for i, rows in enumerate((prompt.embeddings, start))
        )
        return own, of_start

    with widgets.in_words():
        written = asking(asked.vocabulary.model, ("verbalise", *content, descriptions[task.name]), "what the model writes", ask)
    if written is None:
        return
    table, baseline = written
    st.markdown(f"**{widgets.plain(says(table, baseline, task.name, descriptions))}**")
    st.caption(f"Compared with what it writes of {'the initial values' if prompt.initial is not None else 'as many random words'}.")
    st.plotly_chart(
        behaviour_charts.verbalisation(table),
        key="verbalisation",
        alt="ROUGE-1 with the own description less that with others, by source and target layer.",
    )
    st.caption(
        f"The task: “{widgets.plain(task.description)}” Purple and orange are told apart by the numbers on the bar; point at a cell to read what was written. The best cell of so many is "
        "high by chance too: only the mean over all cells is tested."
    )
    left, right = st.columns([2, 1], gap="large")
    with left:
        show_table(
            table.assign(beyond=table["rouge_1"] - table["rouge_1_others"]).sort_values("beyond", ascending=False),
            height=320,
            column_config={column: st.column_config.NumberColumn(format="%.3f") for column in (*table.columns[3:], "beyond")},
            alt="What was written for each pair of layers, the likest to the description first.",
        )
    means = by_task(table, baseline, descriptions).rename_axis("description of").reset_index()
    with right:
        show_table(
            means, height=320, column_config={"rouge_1": st.column_config.NumberColumn("ROUGE-1 beyond the start", format="%.3f")},
            alt=f"The mean ROUGE-1 with each task's description, less that of the start; the highest is {means['description of'].iloc[0]}.",
        )  # fmt: skip
    with below("Verbalisation"):
        widgets.download_buttons(table, f"verbalisation-{prompt.name}", prompt)


def random_words(vocabulary: Vocabulary, count: int) -> np.ndarray:
    """As many rows of the vocabulary, the same each time."""
    return vocabulary.embeddings[np.random.default_rng(0).choice(len(vocabulary), size=count, replace=False)].astype(np.float32)
