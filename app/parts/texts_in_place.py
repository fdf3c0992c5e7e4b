"""What an adapter does, as a text that does it: the share of its behaviour that each text recovers in its place, beside controls."""

from __future__ import annotations

from collections.abc import Hashable

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.behaviour import kept_translation
from soft_prompt_explorer.analysis.behaviour.templates import Asked, as_trained, how_asked
from soft_prompt_explorer.analysis.behaviour.translation import best_text, copied, sentence, translate, what_it_does
from soft_prompt_explorer.analysis.behaviour.translation_candidates import inputs_of_task
from soft_prompt_explorer.analysis.figures import charts as figures
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.app.charts.translation import shares
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.behaviour_asking import asking_in_rows
from soft_prompt_explorer.app.parts.measures import below
from soft_prompt_explorer.app.parts.tables import show_table


def show_what_it_does(adapter: SoftPrompt | LoraAdapter, vocabulary: Vocabulary, content: Hashable, *, as_kept: bool) -> None:
    """The text that does what the adapter does; asked for with a button where it is not kept with the run.

    Parameters
    ----------
    content : tells the adapter from any other.
    as_kept : whether it is still as it was read.
    """
    st.subheader("What it does")
    table = kept_translation.kept_with(adapter) if as_kept else None
    if table is None:
        table = _translated(adapter, vocabulary, content)
    if table is None:
        return
    said, best = what_it_does(table), best_text(table)
    st.info(widgets.plain(sentence(table)), icon=":material/translate:" if said is not None else ":material/help:")
    if best is not None:
        with st.expander(
            "The text that does it" if said is not None else "The text that comes nearest",
            expanded=said is not None,
            icon=":material/article:",
        ):
            text = copied(best["text"])
            st.code(text, language=None, wrap_lines=True)
            st.download_button(
                "Text", text, file_name=f"{widgets.file_name(adapter.name)}.txt", on_click="ignore", icon=":material/download:", key="text",
                help="Exactly as it was scored, with the line's ends after it, which the copy button leaves out.",
            )  # fmt: skip
    _show_shares(table)
    st.caption(
        f"Each text stands in its place on the same {table['n'].iloc[0]} inputs, which nothing was chosen on. At 1 the model answers as with the adapter, at 0 as with "
        "nothing; what lies below −1 is drawn there. A text counts as what it does only where it recovers half, half of the answers are the same, and its whole interval lies beyond the dotted line, where the intervals of the controls "
        "end: examples of other tasks, shuffled answers, random words."
    )
    with st.expander("All texts", icon=":material/table_rows:"):
        show_table(table.drop(columns=["prompt", "path", "task"]), alt="A row a text: the share that it recovers, with its interval.")
    with below("Fidelity of a text"):
        widgets.download_buttons(table, f"{adapter.name}-translation", adapter)
        widgets.figure_buttons(lambda: figures.shares(table), f"{adapter.name}-translation", adapter)


def _show_shares(table: pd.DataFrame) -> None:
    told = table.sort_values("share", ascending=False).head(5)
    alt = "; ".join(f"{row.candidate} {row.share:.2f}" for row in told.itertuples())
    st.html(shares(table, alt=f"The share of what the adapter changes that each text recovers. The most: {alt}."))


def _translated(adapter: SoftPrompt | LoraAdapter, vocabulary: Vocabulary, content: Hashable) -> pd.DataFrame | None:
    asked = as_trained(adapter) or _picked(adapter)
    if asked is None:
        return None
    key = ("translation", vocabulary.model, content, asked.task.name, asked.task.template)
    wanted = st.session_state.setdefault("translations-wanted", set())
    if key not in wanted:
        st.markdown(
            f"The model answers inputs of *{widgets.plain(asked.task.name)}* with it, and then with texts in its place: about three minutes on two cores. The first texts "
            "are told within seconds, and it can be stopped."
        )
        if not st.button("Find texts that do it", icon=":material/translate:", key="translate"):
            return None
        wanted.add(key)

    def find(language_model, report, row_made) -> pd.DataFrame:
        return translate(adapter, language_model, vocabulary, inputs_of_task(asked.task), report=report, row_made=row_made)

    table = asking_in_rows(vocabulary.model, key, "texts that do it", find, _draw)
    if table is not None and (note := asked.note(adapter.name)) is not None:
        st.warning(widgets.plain(note), icon=":material/chat:")
    return table


def _picked(adapter: SoftPrompt | LoraAdapter) -> Asked | None:
    """The task that the person says it was trained on."""
    task = st.selectbox(
        "Trained on something like", list(TASKS), index=None, placeholder="pick a task", key="translate-task",
        help="The file does not say what it was trained on. For inputs of your own, without answers, use the command line's `translate`.",
    )  # fmt: skip
    return None if task is None else how_asked(adapter, task)


def _draw(rows: pd.DataFrame) -> None:
    if len(rows) > 1:
        _show_shares(rows)
