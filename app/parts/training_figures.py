"""A training in figures: its loss, its score, its virtual tokens' words and verdicts, and where they are on the map."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.words import shown
from soft_prompt_explorer.analysis.figures import charts as figures
from soft_prompt_explorer.analysis.prompts.projection import landmarks, map_is_made, vocabulary_map
from soft_prompt_explorer.analysis.tasks.scoring import SCORINGS
from soft_prompt_explorer.app.charts.theme import verdict_label
from soft_prompt_explorer.app.charts.training import BESIDE_STYLES, loss_curve, validation_curve, verdict_counts
from soft_prompt_explorer.app.charts.vocabulary_map import learning_map
from soft_prompt_explorer.app.pages import ATLAS
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.parts.measures import what_is
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.app.server.jobs import JobQueue, Progress

FIGURE_WIDTH = 400  # pixels: three beside each other in a window of 1400, one below the other in a narrow one
FEW_STEPS = 10  # after which a loss that has not fallen is worth a word of advice
SIGNS = 20  # words written on the map
WORDS_DRAWN = 6_000  # of the map, behind the tokens that move on it: what is sent every second stays small


def draw_figures(job: Progress, beside: dict[str, pd.DataFrame]) -> None:
    """The figures side by side, as many as there is room for; before there is something in them, what will be."""
    looks, words = job.looks, job.words
    parts: list[Callable[[], None]] = [lambda: show_loss(job, beside)]
    if job.config.method in ("prompt-tuning", "p-tuning"):
        parts += [lambda: show_words(words), lambda: show_verdicts(job, looks, words)]
    if job.config.validate_every:
        parts.append(lambda: show_validation(job, beside))
    with st.container(horizontal=True):
        for part in parts:
            with st.container(width=FIGURE_WIDTH):
                part()
    if looks is not None:
        show_map(job, looks)
    show_scores(job)


def show_scores(job: Progress) -> None:
    if job.scores is None:
        return
    st.markdown("**Scores on held-out examples, with their 95 % intervals**")
    shown_scores = pd.DataFrame(
        {
            "asked with": job.scores["prompt"],
            job.scores["measure"].iloc[0]: [f"{row.score:.0%} ({row.low:.0%} to {row.high:.0%})" for row in job.scores.itertuples()],
            "examples": job.scores["n"],
            "loss": job.scores["loss"],
            "seconds": job.scores["seconds"],
        }
    )
    number = st.column_config.NumberColumn
    show_table(
        shown_scores,
        column_config={"loss": number(format="%.2f", help="Nats a token of the answers wanted"), "seconds": number(format="%.0f")},
        alt="Held-out scores without training, with the initial values of a prompt, and as trained.",
    )


def loss_in_words(losses: pd.DataFrame | None) -> str | None:
    """Whether a loss falls, from its first step, before which nothing was learned, to the mean of its last ten; None of fewer than two steps.

    A mean of the first steps would hide a run that fell apart within them: beside 9 even 4 would seem a fall, though training began at 3.
    """
    if losses is None or len(losses) < 2:
        return None
    first, now = losses["loss"].iloc[0], losses["loss"].tail(min(10, len(losses) // 2)).mean()
    said = f"The loss {'falls' if now < first else 'does not fall'}: {first:.2f} at first, {now:.2f} now."
    return said if now < first or len(losses) < FEW_STEPS else f"{said} A smaller learning rate may help."


def show_loss(job: Progress, beside: dict[str, pd.DataFrame]) -> None:
    st.markdown("**Loss**")
    losses = pd.DataFrame({"step": [], "loss": []}) if job.losses is None else job.losses
    now = (
        f"{losses['loss'].iloc[0]:.2f} at step 1, {losses['loss'].tail(10).mean():.2f} over the last ten of {job.steps_done} steps"
        if len(losses)
        else "no step yet"
    )
    st.plotly_chart(
        loss_curve(losses, steps=job.config.steps, beside=beside),
        key=f"loss-{job.id}",
        alt=f"Loss by step: {now}.{and_beside(beside)}",
    )


def show_validation(job: Progress, beside: dict[str, pd.DataFrame]) -> None:
    task = job.config.asked_task()
    measure = next(iter(SCORINGS[task.scored_by]))
    aside = len(task.for_training(watched=True)[1])
    st.markdown(f"**Score on {aside} training examples set aside**")
    losses = pd.DataFrame({"step": [], "validation": []}) if job.losses is None else job.losses
    scored = losses[losses["validation"].notna()]
    if not len(scored):
        st.caption(f"It appears after step {job.config.validate_every}.")
        return
    st.plotly_chart(
        validation_curve(losses, measure, steps=job.config.steps, beside=beside),
        key=f"validation-{job.id}",
        alt=f"{measure} on {aside} examples set aside: {scored['validation'].iloc[-1]:.3f} after step {scored['step'].iloc[-1]}.{and_beside(beside)}",
    )


def and_beside(beside: dict[str, pd.DataFrame]) -> str:
    return f" Beside it: {', '.join(beside)}." if beside else ""


def show_verdicts(job: Progress, looks: pd.DataFrame | None, words: pd.DataFrame | None) -> None:
    """The counts of the verdicts, of the last look in words."""
    if looks is None or words is None:
        st.markdown("**Verdicts**")
        st.caption("How many tokens moved along a word, and how many echo their start, appears here.")
        return
    counts = words["verdict"].value_counts()
    st.markdown(f"**Verdicts after step {words['step'].iloc[0]}**: " + " · ".join(f"{verdict_label(v)} {n}" for v, n in counts.items()))
    st.plotly_chart(
        verdict_counts(looks, steps=job.config.steps), key=f"verdicts-{job.id}", alt=f"Number of tokens of each verdict by step; now {counts.to_dict()}."
    )  # fmt: skip
    what_is("Verdict")
    if job.config.readable:
        st.caption(
            "These tokens are drawn to words: that they are near to some is how they are made, and no evidence that they learned them."
        )


def show_words(look: pd.DataFrame | None) -> None:
    """What the virtual tokens are near to, and whether that is worth anything."""
    if look is None:
        st.markdown("**Nearest words**")
        st.caption("The words that each virtual token is near to appear here.")
        return
    st.markdown(f"**Nearest words after step {look['step'].iloc[0]}**")
    words = look.set_index("position")[["initial_token", "nearest_token", "drift"]]
    for column in ("initial_token", "nearest_token"):
        words[column] = words[column].map(shown, na_action="ignore")
    cells, verdict = widgets.verdict_column(look["verdict"])
    words.insert(2, "verdict", cells)
    show_table(
        words,
        column_config={
            "_index": st.column_config.NumberColumn("token", width=50),
            "initial_token": st.column_config.TextColumn("started from"),
            "nearest_token": st.column_config.TextColumn("near to now"),
            "verdict": verdict,
            "drift": st.column_config.NumberColumn("moved", format="%.2f", help="Distance from the initial value"),
        },
        height=widgets.table_height(len(words)),
        alt="For each virtual token the word it started from, the word it is near to now, its verdict, and how far it has moved.",
    )


@st.cache_resource(max_entries=4, show_spinner=False)
def drawn_map(model: str) -> tuple[np.ndarray, pd.DataFrame]:
    """The places of some of a vocabulary's words, and the words to write among them, of a map that is made."""
    vocabulary = at_hand.vocabulary(model)
    on = vocabulary_map(vocabulary)
    return on.places[:: max(1, len(on.places) // WORDS_DRAWN)], landmarks(on, vocabulary, SIGNS)


def show_map(job: Progress, looks: pd.DataFrame) -> None:
    """The virtual tokens on the map of the vocabulary, if there is one."""
    placed = looks.dropna(subset=["x", "y"])
    if len(placed):
        words, signs = drawn_map(job.config.model)
        st.markdown("**On the map of the vocabulary**")
        st.plotly_chart(
            learning_map(placed, words, signs),
            key=f"map-{job.id}",
            config={"scrollZoom": True},
            alt=f"The {job.config.tokens} virtual tokens on the map of {job.config.model}'s words, with the way that each has come.",
        )
        st.caption("A token near no word stands amid the words that it is least far from.")
        what_is("UMAP map")
    elif not map_is_made(at_hand.vocabulary(job.config.model)):
        st.caption("The map of this vocabulary is not made yet. Once it is, the tokens can be watched on it:")
        st.page_link(ATLAS.file, label="Make the map on Atlas (half a minute)", icon=ATLAS.icon)


def pick_beside(queue: JobQueue, job: Progress) -> dict[str, pd.DataFrame]:
    """The losses of other trainings and runs that are to be drawn over this one's, by name."""
    jobs = {other.name: other for other in queue.all() if other.id != job.id and other.losses is not None and len(other.losses)}
    names = dict.fromkeys([*jobs, *reversed(at_hand.list_runs()["name"].tolist())])
    names.pop(job.saved_as, None)
    picked = st.multiselect(
        "Beside", list(names), key="beside", bind="query-params", placeholder="other trainings and runs, to draw over this one", max_selections=len(BESIDE_STYLES)
    )  # fmt: skip
    beside = {}
    for name in picked:
        try:
            beside[name] = jobs[name].losses if name in jobs else choosing.read_losses(name)
        except InputError as error:
            widgets.refusal(error)
    return beside


def offer_exports(job: Progress, beside: dict[str, pd.DataFrame]) -> None:
    """Every table of a training that has ended: a page that is drawn again would break a download off."""
    if job.losses is None or not len(job.losses):
        return
    losses = pd.concat([table.assign(run=name) for name, table in {job.name: job.losses, **beside}.items()], ignore_index=True)
    tables = {"losses": ("The losses, a row a step", losses[["run", *job.losses.columns]])}
    if job.looks is not None:
        tables["readings"] = ("The readings while it learned, a row a token", job.looks)
    if job.scores is not None:
        tables["scores"] = ("The held-out scores", job.scores)
    with widgets.downloads():
        for what, (title, table) in tables.items():
            st.markdown(title)
            widgets.download_buttons(table, f"{job.name}-{what}")
        st.markdown("The losses as a figure")
        widgets.figure_buttons(lambda: figures.losses(losses), f"{job.name}-losses")
