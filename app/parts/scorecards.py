"""Scorecards on *Learn*, under *Methods*: many measures of one run, and how sure it is against how often it is right."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.asking import scores as evaluation
from soft_prompt_explorer.analysis.asking.in_front import Subject, bare, subject_of
from soft_prompt_explorer.analysis.behaviour.templates import how_asked
from soft_prompt_explorer.analysis.core.progress import Report, part
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.analysis.tasks.own_data import kept_tasks
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.app.charts.scores import reliability
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.app.server.background import computed

BARE = "no prompt"
OWN_TASK = "its own"


@contextmanager
def subject_of_run(run: pd.Series | None, language_model: LanguageModel) -> Iterator[Subject]:
    """The model as a run of the store leaves it; as it is where there is no run."""
    if run is not None and run["method"] == "full":
        yield bare(load_model(run["path"]))
        return
    what = None if run is None else Path(run["path"]) if run["method"] == "lora" else load_soft_prompt(run["path"])
    with subject_of(what, language_model) as subject:
        yield subject


def measure(cards: list[tuple[str, pd.Series | None, str, str]], limit: int, report: Report) -> list[pd.DataFrame]:
    """The scorecard and the bins of confidence of each (name, run, task, model), one under the other."""
    measured: list[tuple[pd.DataFrame, pd.DataFrame]] = []
    loaded: tuple[str, LanguageModel] | None = None
    for i, (name, run, task, model) in enumerate(cards):
        report_part = part(report, i, len(cards), name)
        if loaded is None or loaded[0] != model:
            loaded = (model, load_model(model, report=report_part))
        with subject_of_run(run, loaded[1]) as subject:
            measured.append(
                evaluation.scorecard_and_calibration(
                    name, subject, how_asked(None if run is None else Path(run["path"]), task).task, limit=limit, report=report_part
                )
            )
    return [pd.concat(tables, ignore_index=True) for tables in zip(*measured, strict=True)]


def cards_of(names: list[str], on: str, runs: pd.DataFrame) -> list[tuple[str, pd.Series | None, str, str]]:
    """What is to be measured: each run on its own task or on the one named, and the model as it is on all of these."""
    cards = [(name, run, run["task"] if on == OWN_TASK else on, run["model"]) for name in names if name != BARE for run in [runs.loc[name]]]
    if BARE in names:
        where = dict.fromkeys((task, model) for _, _, task, model in cards) or {
            (on if on != OWN_TASK else "sentiment", EMBEDDED_MODEL): None
        }
        cards = [*((BARE, None, task, model) for task, model in where), *cards]
    return sorted(cards, key=lambda card: (card[3], card[2]))  # a model is loaded once


def show_scorecards() -> None:
    st.subheader("Scorecards")
    st.markdown(
        "Many measures of one prompt or LoRA, and none left out, as HELM has it (Liang et al. 2023): the score, loss, calibration, what lower case and typing errors do, and speed."
    )
    runs = at_hand.list_runs().set_index("name", drop=False)
    left, middle, right = st.columns([3, 2, 1])
    names = left.multiselect(
        "Runs", [BARE, *runs.index], default=[BARE, *runs.index[:1]], key="runs", bind="query-params", placeholder="pick runs"
    )
    on = middle.selectbox("On the task", [OWN_TASK, *TASKS, *(own.name for own in kept_tasks())], key="on", bind="query-params")
    limit = widgets.pick_examples(right, 100, note="each is asked three times")
    if not names:
        st.info("Pick a run of the gallery or of your own.", icon=":material/info:")
        return
    if st.button("Measure", type="primary", icon=":material/straighten:", key="measure"):
        st.session_state["measured"] = (names, on, limit)
    if "measured" not in st.session_state:
        return
    names, on, limit = st.session_state["measured"]
    cards = cards_of([name for name in names if name == BARE or name in runs.index], on, runs)
    if cards:
        show_cards(cards, limit)


def show_cards(cards: list[tuple[str, pd.Series | None, str, str]], limit: int) -> None:
    of_what = tuple((name, None if run is None else run["created"], task, model) for name, run, task, model in cards)
    measured = computed(("scorecards", of_what, limit), "the scorecards", lambda report: measure(cards, limit, report), alone=True)
    if measured is None:
        return
    table, bins = measured
    wide = table.pivot_table(index=["prompt", "task", "n"], columns="measure", values="value", sort=False, aggfunc="first").reset_index()
    measures = list(dict.fromkeys(table["measure"]))
    show_table(
        wide[["prompt", "task", *measures, "n"]],
        column_config={"prompt": st.column_config.TextColumn(pinned=True)}
        | {name: st.column_config.NumberColumn(format="%.3f") for name in measures},
        height=widgets.table_height(len(wide)),
        alt=f"A row a run, a column a measure: {', '.join(measures)}.",
    )
    with widgets.downloads():
        widgets.download_buttons(table, "scorecards")
    st.caption(
        "The export has a row a measure, with its 95 % interval where there is one. High is good, but for loss, calibration error and seconds."
    )
    show_calibration(bins)


def show_calibration(bins: pd.DataFrame) -> None:
    st.markdown("**How sure it is, and how often it is right**")
    st.plotly_chart(reliability(bins), key="reliability", alt=f"Accuracy by confidence: {in_sentences(bins)}")
    with widgets.downloads():
        widgets.download_buttons(bins, "calibration")
    st.caption(
        "Answers are put into ten bins by the probability that the model gave them; each mark is a bin, the larger the more answers it has. On the dotted line the model is "
        "as often right as it is sure; below it, it is too sure of itself, above it, not sure enough. The calibration error is the mean distance from the line over the answers "
        "(Guo et al. 2017). A bin of few answers tells little: hover for how many. Nor does it tell which answers are wrong."
    )


def in_sentences(bins: pd.DataFrame) -> str:
    """The fullest bin of each run in words."""
    fullest = bins.loc[bins.groupby(["prompt", "task"], sort=False)["n"].idxmax()]
    parts = [
        f"{row.prompt} on {row.task}: of {row.n} answers given about {row.confidence:.0%}, {row.accuracy:.0%} are right"
        for row in fullest.itertuples()
    ]
    return "; ".join(parts) + "."
