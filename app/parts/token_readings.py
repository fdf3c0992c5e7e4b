"""The tokens of a prompt as they are read: what is known of all, and a table of each."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.behaviour.of_task import judged
from soft_prompt_explorer.analysis.behaviour.verdict import LABELS
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report
from soft_prompt_explorer.analysis.core.words import counted, shown
from soft_prompt_explorer.analysis.figures import charts as figures
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.metrics import METRICS, MetricName
from soft_prompt_explorer.analysis.prompts.shipped import readings_of
from soft_prompt_explorer.analysis.prompts.starts import plain_verdict
from soft_prompt_explorer.analysis.prompts.twins import twins_of
from soft_prompt_explorer.analysis.prompts.verdicts import VERDICTS, moved_along_a_word
from soft_prompt_explorer.app.charts.theme import mark_of, shortened
from soft_prompt_explorer.app.pages import BEHAVIOUR, PROMPT
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.parts.measures import below
from soft_prompt_explorer.app.parts.prompt_on_page import PromptOnPage
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.server.background import computed
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour

SCRIPTS = ["Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "CJK", "Han", "Hangul"]


def pick_metric(place) -> MetricName:
    """By which metric words are near, with what each of them says."""
    says = "  \n".join(f"**{name}**: {each.says}" for name, each in METRICS.items())
    return place.selectbox("Metric", list(METRICS), key="metric", bind="query-params", help=says)


def pick_filters() -> dict[str, Any]:
    """Which words may be named, as `search.neighbours` takes it."""
    whole_words = st.toggle("Whole words only", key="whole", bind="query-params", help="Tokens that start a word and hold only letters.")
    exclude_special = st.toggle(
        "Leave out special tokens", key="nospecial", bind="query-params", help="Control tokens and rows that no text uses."
    )
    script = st.selectbox("Script", SCRIPTS, index=None, placeholder="any", key="script", bind="query-params")
    return {"whole_words": whole_words, "exclude_special": exclude_special, "script": script}


def pick_token(page: PromptOnPage, tokens: pd.DataFrame, verdicts: pd.DataFrame | None) -> int:
    """The prompt as a strip of its virtual tokens, each with its nearest word and the shape of its verdict; answers the one that is picked.

    Parameters
    ----------
    tokens : of `analysis.prompts.verdicts.start_and_now`.
    verdicts : of `analysis.prompts.verdicts.readings`; None while they are being computed.
    """
    positions = follow_token(page, "linked-token")
    marks = [""] * len(positions) if verdicts is None else [mark_of(verdict) + " " for verdict in verdicts["verdict"]]
    labels = [
        f"{mark}{position} {widgets.plain(shortened(shown(word), 14))}"
        for position, mark, word in zip(positions, marks, tokens["nearest_token"], strict=True)
    ]
    picked = st.pills(
        "Virtual tokens", positions, required=True, format_func=labels.__getitem__, key="linked-token", label_visibility="collapsed"
    )
    if verdicts is not None:
        counts = verdicts["verdict"].value_counts()
        st.caption(
            "  \n".join(
                f"{mark_of(verdict)} **{count} {verdict}**: {VERDICTS[plain_verdict(verdict)]}." for verdict, count in counts.items()
            )
        )
    say_token(picked or 0)
    return picked or 0


def follow_token(page: PromptOnPage, key: str) -> list[int]:
    """Before a widget with this key is drawn: it takes the token that the link names, or that was picked below another tab; answers what can be picked."""
    positions = list(range(len(page.prompt)))
    widgets.follow_link("token", {str(position): position for position in positions}, 0, key=key)
    return positions


def say_token(position: int) -> None:
    """After such a widget: the link names the token, but for the first, where it names none yet."""
    widgets.say_in_link("token", str(position) if position or "token" in st.query_params else None)


def pick_part(key: str, parts: dict[str, SoftPrompt]) -> SoftPrompt:
    """One of the prompts of a file, by name: the person's choice where there are several."""
    first = next(iter(parts))
    if len(parts) == 1:
        return parts[first]
    return parts[
        st.segmented_control(
            "This file holds several prompts", list(parts), default=first, required=True, format_func=widgets.plain, key=f"part-{key}"
        )
    ]


def show_behaviour(page: PromptOnPage) -> None:
    """What asking the model about the changed prompt came to, where that was done."""
    key, prompt, vocabulary = page.key, page.prompt, page.vocabulary
    measured, task = kept_behaviour.kept(key), None
    if measured is not None:
        with suppress(InputError):  # examples of one's own may be gone
            task = kept_behaviour.task_of(key)
    if measured is not None and task is not None:
        verdict = computed(
            ("verdict", vocabulary.model, choosing.content_of([prompt]), measured["task"].iloc[0], int(measured["n"].iloc[0])),
            "the verdict",
            lambda report: judged(prompt, vocabulary, task, measured, report=report).verdict,
        )
        if verdict is not None:
            st.subheader("Does its reading explain that?")
            st.markdown(f"**{verdict.label[0].upper()}{verdict.label[1:]}:** {LABELS[verdict.label]}.")
    st.page_link(
        PROMPT.file,
        label="Does the reading explain the behaviour?" if measured is None else "The evidence for this",
        icon=":material/science:",
        query_params={"prompt": key, "tab": BEHAVIOUR},
    )


def _reading(prompt: SoftPrompt, vocabulary: Vocabulary) -> Callable[[Report], pd.DataFrame]:
    return lambda report: readings_of(prompt, vocabulary, report=report)


def show_twins(page: PromptOnPage, verdicts: pd.DataFrame) -> None:
    """How many tokens moved along a word, of the prompt and of each twin."""
    prompt, vocabulary = page.prompt, page.vocabulary
    counts = [f"{moved_along_a_word(verdicts).sum()} of {len(verdicts)}"]
    with widgets.in_words():
        for twin in twins_of([prompt]):
            read = computed(
                ("verdicts", vocabulary.model, choosing.content_of([twin]), "twin"),
                "the verdicts of its twin",
                _reading(twin, vocabulary),
            )
            if read is not None:
                counts.append(f"{moved_along_a_word(read).sum()} of {len(read)}")
    twins = "its twin" if len(counts) == 2 else f"its {len(counts) - 1} twins"
    beside = (
        f"; of {twins} trained on shuffled answers {' and '.join(counts[1:])}"
        if counts[1:]
        else "; no twin trained on shuffled answers is at hand"
    )
    st.caption(f"Tokens that moved along a word beyond chance: {counts[0]}{beside}.")


def show_facts(page: PromptOnPage, tokens: pd.DataFrame) -> None:
    """Four figures of the whole prompt.

    Parameters
    ----------
    tokens : of `analysis.prompts.verdicts.start_and_now`.
    """
    prompt, known = page.prompt, page.prompt.initial is not None
    facts = st.columns(4)
    facts[0].metric("Virtual tokens", len(prompt), help=f"{prompt.width} wide")
    facts[1].metric(
        "Norm / vocabulary",
        f"{tokens['norm_ratio'].median():.1f} ×",
        help="Median norm of the virtual tokens over that of the vocabulary's rows: 1 × is as long as an ordinary word",
    )
    facts[2].metric(
        "Still nearest to their start",
        f"{int(tokens['echo'].sum())} of {len(tokens)}" if known else "unknown",
        help="By centred cosine, whatever metric is chosen",
    )
    facts[3].metric(
        "Drift from the start",
        f"{tokens['drift'].median() / page.vocabulary.median_norm:.1f} ×" if known else "unknown",
        help="Median distance from the initial value, in lengths of an ordinary word's row",
    )


def warn_of_start(page: PromptOnPage, tokens: pd.DataFrame) -> None:
    """Say so where the nearest words may tell of the start alone."""
    known = page.prompt.initial is not None
    if not known:
        st.warning(
            "The initial values of this prompt are unknown. Its nearest words may be no more than what it was initialised from.",
            icon=":material/help:",
        )
    elif tokens["echo"].any():
        echoes = int(tokens["echo"].sum())
        are, they, their = ("is", "it was", "its") if echoes == 1 else ("are", "they were", "their")
        st.warning(
            f"{echoes} of {counted(len(tokens), 'virtual token')} {are} still nearest to the word {they} initialised from: "
            f"{their} nearest words tell how the prompt started, not what it learned.",
            icon=":material/repeat:",
        )


def show_grid(page: PromptOnPage, table: pd.DataFrame, tokens: pd.DataFrame, verdicts: pd.DataFrame | None, metric: MetricName) -> None:
    """A row a virtual token, to pick one from; its exports below.

    Parameters
    ----------
    table : of `analysis.prompts.search.neighbours`.
    tokens : of `analysis.prompts.verdicts.start_and_now`.
    verdicts : of `analysis.prompts.verdicts.readings`; None while they are being computed.
    """
    prompt, key = page.prompt, page.key

    def pick_row() -> None:
        rows = st.session_state[f"grid-{key}"]["selection"]["rows"]
        if rows:
            st.session_state["linked-token"] = rows[0]

    verdict_cells, verdict_column = (None, None) if verdicts is None else widgets.verdict_column(verdicts["verdict"], pinned=True)
    show_table(
        grid(table, tokens, verdict_cells),
        column_config={
            "position": st.column_config.NumberColumn("token", pinned=True),
            "verdict": verdict_column,
            "initial_token": st.column_config.TextColumn("started from", help="The word nearest to the initial value", pinned=True),
            "drift": st.column_config.NumberColumn(format="%.2f", help="Distance from the initial value"),
            "norm_ratio": st.column_config.NumberColumn("norm", format="%.2f ×", help="Norm over the vocabulary's median norm"),
        },
        key=f"grid-{key}",
        on_select=pick_row,
        selection_mode="single-row",
        height=widgets.table_height(len(prompt)),
        alt="For each virtual token its verdict, the word it started from, how far it moved, and its nearest words with scores.",
    )
    st.caption("Pick a row to see its evidence above. ␣ marks the space that starts a word.")
    with below("Verdict", "Norm ratio", "Echo and drift", METRICS[metric].title):
        st.markdown("The nearest words")
        widgets.download_buttons(table, f"{prompt.name}-neighbours-{metric}", prompt)
        if verdicts is not None:
            st.markdown("The verdicts, with all their evidence")
            widgets.download_buttons(verdicts, f"{prompt.name}-readings", prompt)
            widgets.figure_buttons(lambda: figures.verdicts(verdicts), f"{prompt.name}-verdicts", prompt)


def grid(table: pd.DataFrame, tokens: pd.DataFrame, verdict_cells: np.ndarray | None) -> pd.DataFrame:
    """A virtual token a row: its verdict, where it started, how far it moved, and its nearest words with their scores."""
    cells = [f"{shown(token)}  {score:.2f}" for token, score in zip(table["token"], table["score"], strict=True)]
    words = table.assign(cell=cells).pivot(index="position", columns="rank", values="cell").add_prefix("rank ")
    start = tokens.set_index("position")[["initial_token", "drift", "norm_ratio"]]
    start["initial_token"] = start["initial_token"].map(shown, na_action="ignore")
    if verdict_cells is not None:
        start.insert(0, "verdict", verdict_cells)
    return start.join(words).reset_index()
