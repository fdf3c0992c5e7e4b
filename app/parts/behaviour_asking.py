"""Asking the model about a changed prompt: what was measured before, and what is measured now, row by row."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.behaviour.of_task import behave, examples_of
from soft_prompt_explorer.analysis.behaviour.resampling import Answers
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.app.charts import behaviour as behaviour_charts
from soft_prompt_explorer.app.parts import naming, widgets
from soft_prompt_explorer.app.parts.prompt_on_page import AskedPrompt
from soft_prompt_explorer.app.server.background import computed, found
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour

PACE = {"sentiment": 0.05, "others": 0.03}  # seconds an example, on two cores
PROMPTS = 70  # that differ, of ten tokens: the interventions with their draws
_Result = TypeVar("_Result")


def table_at_hand(asked: AskedPrompt) -> pd.DataFrame | None:
    """The table of interventions, kept or made on this server; None where there is none."""
    table = kept_table(asked)
    return found(("behaviour", *asked.asked_content, asked.n)) if table is None else table


def measured(asked: AskedPrompt) -> pd.DataFrame | None:
    """The table of interventions: kept, just made, or made now if the person asks for it; None where it is not there yet."""
    table = table_at_hand(asked)
    if table is not None:
        return table
    prompt, vocabulary, task, n = asked.prompt, asked.vocabulary, asked.task, asked.n
    wanted = (*asked.asked_content, n)
    if st.session_state.get("behaviour") != wanted:
        minutes = max(1, round(PROMPTS * len(prompt) / 10 * n * PACE.get(task.name, PACE["others"]) / 60))
        st.info(
            f"This prompt has not been tested on {n} examples of {widgets.plain(task.name)}. It takes about {minutes} minute{'s' if minutes > 1 else ''} on two cores; "
            "rows appear as they are made, and it can be stopped.",
            icon=":material/info:",
        )
        if not st.button("Ask the model", type="primary", icon=":material/play_arrow:", key="ask"):
            return None
        st.session_state["behaviour"] = wanted
    answers = _answers(wanted)

    def ask(language_model, report: Report, row_made: Callable[[pd.DataFrame], None]) -> pd.DataFrame:
        examples = examples_of(task, language_model, limit=n)
        made = behave(prompt, vocabulary, examples, task, asked=answers, report=report, row_made=row_made)
        answers.clear()
        before = kept_behaviour.kept(asked.key) if asked.as_trained and asked.yours else made
        if before is None or before["n"].iloc[0] < n:
            with suppress(InputError):  # the disk may be full; the page has the table
                kept_behaviour.keep(asked.key, made)
        return made

    with widgets.in_words():
        return asking_in_rows(vocabulary.model, ("behaviour", *wanted), "the interventions", ask, _draw)


def kept_table(asked: AskedPrompt) -> pd.DataFrame | None:
    """What was measured before and kept with the run, where it is of this task and of as many examples."""
    if not asked.as_trained:
        return None
    table = kept_behaviour.kept(asked.key)
    return table if table is not None and table["task"].iloc[0] == asked.task.name and table["n"].iloc[0] == asked.n else None


def asking(model: str, key: tuple, what: str, ask: Callable[[LanguageModel, Report], _Result]) -> _Result | None:
    """`computed`, with the language model at hand: `ask(language_model, report)`, one at a time; None as well where the model has first to be fetched."""
    if not naming.may_be_fetched(model, "the model"):
        return None

    def compute(report: Report) -> _Result:
        report(0.0, "loading the model")
        return ask(_loaded(model), report)

    return computed(key, what, compute, alone=True)


def asking_in_rows(
    model: str,
    key: tuple,
    what: str,
    ask: Callable[[LanguageModel, Report, Callable[[pd.DataFrame], None]], pd.DataFrame],
    draw: Callable[[pd.DataFrame], None],
) -> pd.DataFrame | None:
    """`asking` for a table that grows: `ask(language_model, report, row_made)`; the rows that are there so far are drawn every two seconds."""
    so_far = _so_far()

    def whole(language_model: LanguageModel, report: Report) -> pd.DataFrame:
        try:
            return ask(language_model, report, lambda rows: so_far.__setitem__(key, rows))
        finally:
            so_far.pop(key, None)

    table = asking(model, key, what, whole)
    if table is None:

        @st.fragment(run_every=2.0)
        def rows_so_far() -> None:
            rows = so_far.get(key)
            if rows is not None:
                draw(rows)

        rows_so_far()
    return table


def _draw(rows: pd.DataFrame) -> None:
    st.markdown(
        f"The whole prompt: {rows['measure'].iloc[0]} **{rows['score'].iloc[0]:.3f}**, loss {rows['loss'].iloc[0]:.3f} on {rows['n'].iloc[0]} examples."
    )
    if len(rows) > 1:
        st.html(behaviour_charts.changes(rows, "score", alt=f"{len(rows)} interventions so far, each with the change of the score."))


@st.cache_resource(max_entries=1, show_spinner=False)
def _loaded(model: str) -> LanguageModel:
    return load_model(model)


@st.cache_resource
def _so_far() -> dict[tuple, pd.DataFrame]:
    """The rows so far, of tables that are under way."""
    return {}


@st.cache_resource(max_entries=16, show_spinner=False)
def _answers(wanted: tuple) -> dict[str, Answers]:
    """What the model answered to changed prompts so far: a computation that was stopped goes on from there."""
    return {}
