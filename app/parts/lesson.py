"""The lesson, on a prompt that ships: it works, its words are an echo, and what does say what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.behaviour import kept_lens, kept_translation
from soft_prompt_explorer.analysis.behaviour.difference_lens import LEVEL
from soft_prompt_explorer.analysis.behaviour.translation import best_text, copied
from soft_prompt_explorer.analysis.core.words import shown
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.prompts.shipped import readings_of
from soft_prompt_explorer.analysis.prompts.verdicts import SHAPES
from soft_prompt_explorer.app.pages import BEHAVIOUR, HERO, PROMPT, TOKENS
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.parts.bars import show_bars
from soft_prompt_explorer.app.parts.measures import what_is
from soft_prompt_explorer.app.parts.prompt_header import run_of
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour

LENS_WORDS = 6


def show_it_works() -> None:
    """What the prompt is, and the scores without it and with it."""
    run = run_of(HERO)
    assert run is not None  # it ships
    st.markdown(
        f"{run['tokens']:.0f} learned vectors stand before a frozen model. Nothing else of the model changes. Its task: write the past tense of a verb."
    )
    within = f"{run['score']:.0%} ({run['low']:.0%} to {run['high']:.0%}, n {run['n']:,.0f})"
    show_bars(
        pd.DataFrame(
            [
                {"label": "no prompt", "share": run["no_prompt"], "says": f"{run['no_prompt']:.0%} right", "yes": False},
                {"label": "where it started", "share": run["start"], "says": f"{run['start']:.0%}", "yes": False},
                {"label": "as trained", "share": run["score"], "says": within, "yes": True},
            ]
        )
    )


def show_near() -> None:
    """The nearest word of each virtual token."""
    tokens = readings_of(choosing.load_prompt(HERO), widgets.vocabulary(EMBEDDED_MODEL))
    st.markdown("The usual way to read it: name the word nearest to each vector.")
    st.markdown(" ".join(f":gray-badge[{widgets.plain(shown(word))}]" for word in tokens["nearest_token"]))
    st.markdown("Is that a hidden message about verbs? Look where each vector started.")


def show_echo() -> None:
    """The same words beside those that training began with, and the verdicts of all that ships."""
    tokens = readings_of(choosing.load_prompt(HERO), widgets.vocabulary(EMBEDDED_MODEL))
    echoes = int(tokens["echo"].sum())
    st.markdown(
        f"{echoes} of {len(tokens)} are the very words that training began with. The list is an **echo**: it tells of the start and not of the task."
    )
    st.markdown(
        " ".join(
            f":{'orange' if row.echo else 'gray'}-badge[{SHAPES['echo'] + ' ' if row.echo else ''}{widgets.plain(shown(row.nearest_token))} ← {widgets.plain(shown(row.initial_token))}]"
            for row in tokens.itertuples()
        )
    )


def show_lens() -> None:
    """What it pushes the model towards on unrelated text."""
    told = kept_lens.kept_with(choosing.load_prompt(HERO))
    st.markdown(
        "Another way: let the model read texts that have nothing to do with verbs, with the prompt and without. Which next words become likelier?"
    )
    if told is None:
        st.caption("It has not been looked at on this machine: `make gallery` does so.")
        return
    words = told.last.head(LENS_WORDS)
    show_bars(
        pd.DataFrame(
            [
                {
                    "label": row.token.strip(),
                    "share": row.z / words["z"].max(),
                    "says": f"{'★ ' if row.q < LEVEL else ''}z {row.z:.0f}{', its twin too' if row.twin_p < LEVEL else ''}",
                    "yes": row.q < LEVEL,
                }
                for row in words.itertuples()
            ]
        )
    )
    st.caption(
        "Read them: what do they have in common? ★ marks what adapters that know nothing do not do. A twin was trained on shuffled answers: what it is pushed towards too is the form of the answers. The lens does not always say so much; *Learn* tells how often it does."
    )


def show_text() -> None:
    """The text that does what it does."""
    table = kept_translation.kept_with(choosing.load_prompt(HERO))
    st.markdown("What says what it does is a text that **does the same in its place**. Here: examples of the task.")
    best = None if table is None else best_text(table)
    if table is None or best is None:
        st.caption("It has not been put into words on this machine: `make gallery` does so.")
        return
    show_bars(
        pd.DataFrame(
            [
                {"label": best["candidate"], "share": best["share"], "says": f"{best['share']:.0%} of its effect", "yes": True},
                {
                    "label": "best control",
                    "share": table["control_share"].max(),
                    "says": f"{table['control_share'].max():.0%}, the form of the answers",
                    "yes": False,
                },
            ]
        )
    )
    st.code(copied(best["text"]), language=None, wrap_lines=True)


def show_direction_out() -> None:
    """What taking the prompt's one direction out does, and what it does alone."""
    table = kept_behaviour.kept(HERO)
    st.markdown(
        "What training added to the ten vectors has a part in common: a fifth of it points one way. That direction names no word of the task. Does it do the work?"
    )
    if table is None:
        return
    names = {
        "whole prompt": "the whole prompt", "task direction alone": "that direction alone", "task direction out": "all but it",
        "random direction alone": "a random one alone", "no prompt": "no prompt",
    }  # fmt: skip
    rows = table[table["intervention"].isin(names)].drop_duplicates("intervention").set_index("intervention")
    show_bars(
        pd.DataFrame(
            [
                {
                    "label": label,
                    "share": rows.loc[name, "score"],
                    "says": f"{rows.loc[name, 'score']:.0%}",
                    "yes": name == "task direction alone",
                }
                for name, label in names.items()
                if name in rows.index
            ]
        )
    )
    st.caption(
        f"Alone it does most of the work; yet without it the rest does as much. Each bar is of the same {table['n'].iloc[0]} held-out verbs."
    )


@dataclass(frozen=True)
class Step:
    """One step of the lesson: what it says, which part of the prompt's page goes on from there, and the measure that it rests on."""

    title: str
    show: Callable[[], None]
    tab: str | None = None
    measure: str | None = None


STEPS = (
    Step("It works", show_it_works),
    Step("What its vectors are near to", show_near, TOKENS, "Centred cosine"),
    Step("The echo", show_echo, TOKENS, "Echo and drift"),
    Step("What it pushes towards", show_lens, measure="Difference lens"),
    Step("The text that does it", show_text, measure="Fidelity of a text"),
    Step("A direction taken out", show_direction_out, BEHAVIOUR, "Task direction out, and alone"),
)


def show_lesson() -> None:
    """The steps, one at a time; the link says which."""
    st.markdown("Two minutes on one soft prompt that ships. Each step can be sent as a link.")
    names = [str(number) for number in range(1, len(STEPS) + 1)]
    widgets.follow_link("step", {name: name for name in names}, "1")
    number = int(st.segmented_control("Step", names, required=True, key="linked-step", label_visibility="collapsed") or names[0])
    widgets.say_in_link("step", str(number) if number > 1 else None)
    step = STEPS[number - 1]
    with st.container(border=True):
        st.subheader(f"{number}. {step.title}")
        with widgets.on_its_own():
            step.show()
        if step.measure is not None:
            what_is(step.measure)

    def go(to: int) -> None:
        st.session_state["linked-step"] = str(to)

    with st.container(horizontal=True):
        st.button("Back", on_click=go, args=(number - 1,), disabled=number == 1, icon=":material/arrow_back:", key="back")
        st.button(
            "Next",
            on_click=go,
            args=(number + 1,),
            disabled=number == len(STEPS),
            icon=":material/arrow_forward:",
            key="next",
            type="primary" if number < len(STEPS) else "secondary",  # what a primary one says is not seen while it cannot be pressed
        )
        query = {"prompt": HERO} | ({} if step.tab is None else {"tab": step.tab})
        st.page_link(PROMPT.file, label="See it on the prompt’s page", icon=PROMPT.icon, query_params=query)
