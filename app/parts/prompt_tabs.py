"""The parts of a prompt's page, one below each tab."""

from __future__ import annotations

import streamlit as st

from soft_prompt_explorer.analysis.prompts.metrics import METRICS
from soft_prompt_explorer.analysis.prompts.shipped import readings_of
from soft_prompt_explorer.analysis.prompts.verdicts import start_and_now
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.app.charts.words import neighbours_heat_map
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.parts.asked_prompt import pick_task
from soft_prompt_explorer.app.parts.behaviour_answers import show_answers
from soft_prompt_explorer.app.parts.behaviour_asking import measured, table_at_hand
from soft_prompt_explorer.app.parts.behaviour_inside import show_inside
from soft_prompt_explorer.app.parts.behaviour_interventions import show_interventions, show_verdict
from soft_prompt_explorer.app.parts.behaviour_token import show_token
from soft_prompt_explorer.app.parts.behaviour_words import show_words
from soft_prompt_explorer.app.parts.measures import what_is
from soft_prompt_explorer.app.parts.on_the_map import show_ways_to_map
from soft_prompt_explorer.app.parts.prompt_on_page import PromptOnPage
from soft_prompt_explorer.app.parts.pushed_words import show_pushed
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.parts.task_direction import show_direction
from soft_prompt_explorer.app.parts.texts_in_place import show_what_it_does
from soft_prompt_explorer.app.parts.token_evidence import near_words, show_evidence, show_words_of
from soft_prompt_explorer.app.parts.token_readings import (
    follow_token,
    pick_filters,
    pick_metric,
    pick_token,
    say_token,
    show_behaviour,
    show_facts,
    show_grid,
    show_twins,
    warn_of_start,
)
from soft_prompt_explorer.app.server.background import computed

VIEWS = ["Interventions", "One token", "Inside", "In words"]


def show_does(page: PromptOnPage, *, as_kept: bool) -> None:
    """The text that does what it does, and what it pushes the model towards."""
    for show in (show_what_it_does, show_pushed):
        with widgets.on_its_own():
            show(page.prompt, page.vocabulary, page.content, as_kept=as_kept)
    with widgets.on_its_own():
        show_behaviour(page)


def show_tokens(page: PromptOnPage) -> None:
    """The virtual tokens as a strip, the evidence for the one that is picked, what they moved towards together, and all of them as a table."""
    prompt, vocabulary = page.prompt, page.vocabulary
    with widgets.in_words():
        verdicts = computed(
            ("verdicts", vocabulary.model, choosing.content_of([prompt]), prompt.metadata.get("initial")),
            "the verdicts",
            lambda report: readings_of(prompt, vocabulary, report=report),
        )
        tokens = start_and_now(prompt, vocabulary) if verdicts is None else verdicts
    warn_of_start(page, tokens)
    position = pick_token(page, tokens, verdicts)
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.popover("Settings", icon=":material/tune:"):
            metric = pick_metric(st)
            top_k = st.slider("Words for each token", 1, 50, 8, key="k", bind="query-params")
            filters = pick_filters()
        show_ways_to_map(page, position)
    with widgets.in_words():
        table = near_words(prompt, vocabulary, metric, top_k, filters)
    if verdicts is not None:
        show_evidence(page, position, verdicts.iloc[position])
    if table is not None:
        show_words_of(page, position, table, metric=metric, top_k=top_k, filters=filters)
    if prompt.initial is not None:
        show_direction(page)
    st.subheader("All tokens")
    show_facts(page, tokens)
    if verdicts is not None and prompt.initial is not None:
        show_twins(page, verdicts)
    if table is None:
        return
    show_grid(page, table, tokens, verdicts, metric)
    more = st.expander("Heat map and all rows", icon=":material/table_rows:", on_change="rerun")
    if not more.open:
        return
    with more:
        st.plotly_chart(
            neighbours_heat_map(table), key="heat", alt=f"Scores of the {top_k} nearest words of {len(prompt)} virtual tokens, by {metric}."
        )
        what_is(METRICS[metric].title)
        show_table(table, alt="A row a virtual token and word: its rank and its score.")
        show_table(tokens if verdicts is None else verdicts, alt="A row a virtual token: its verdict, and what it rests on.")


def show_behaviour_tests(page: PromptOnPage) -> None:
    """What changing the prompt does, what is known of one token, what the model makes of it inside, and whether it can say it."""
    with widgets.in_words():
        asked = pick_task(page)
    view = st.segmented_control(
        "What to see", VIEWS, default=VIEWS[0], required=True, key="view", bind="query-params", label_visibility="collapsed"
    )
    made = table_at_hand(asked) if view != "Interventions" else measured(asked)
    if made is not None:
        show_verdict(asked, made)
    if view == "Interventions" and made is not None:
        show_interventions(asked, made)
    elif view == "One token":
        position = int(st.number_input("Virtual token", 0, follow_token(page, "token-number")[-1], key="token-number"))
        say_token(position)
        show_token(asked, position, made)
    elif view == "Inside":
        show_inside(asked)
    elif view == "In words":
        show_words(asked, {each.name: each for each in [*TASKS.values(), asked.task]})


def show_try(page: PromptOnPage) -> None:
    """Answers to an input of one's own, with the prompt and with what stands in its place."""
    with widgets.in_words():
        asked = pick_task(page)
    show_answers(asked)
