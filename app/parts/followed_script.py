"""A training script of one's own, followed while it runs: what `ExplorerCallback` or `Recorder` has written so far."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters.recorded import Recorded, find_recorded, read_recorded
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import runs_folder
from soft_prompt_explorer.app.charts.training import followed_curve, loss_curve
from soft_prompt_explorer.app.pages import LIBRARY
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.measures import what_is
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.parts.training_figures import FIGURE_WIDTH, loss_in_words
from soft_prompt_explorer.app.parts.training_settings import duration
from soft_prompt_explorer.app.server.allowed import VARIABLE, allowed_folders

POLL_SECONDS = 2.0
QUIET_SECONDS = 60.0  # without a word, after which a script may have been stopped
CURVES = {"echo_share": "share of tokens that echo their start", "drift": "distance from the start, median"}
OF_TRAINER = """from soft_prompt_explorer import ExplorerCallback

trainer = Trainer(..., processing_class=tokenizer, callbacks=[ExplorerCallback({folder}, every=10)])"""
OF_A_LOOP = """from soft_prompt_explorer import Recorder

recorder = Recorder({folder}, model, tokenizer, every=10)  # before the first step
recorder.after_step(loss)  # after each step
recorder.end()"""


def show_followed() -> None:
    """The scripts whose record lies where the dashboard may look, and the one that is followed."""
    st.markdown(
        "Your script trains, and this page shows it live: its loss, how far its vectors have moved, and whether their words only echo the start."
    )

    @st.fragment(run_every=POLL_SECONDS)
    def polled() -> None:
        found = {_label(path): path for path in find_recorded(_folders())}
        if not found:
            _say_how()
            return
        widgets.follow_link("script", {label: label for label in found}, next(iter(found)))
        if st.session_state["linked-script"] not in found:
            st.session_state["linked-script"] = next(iter(found))
        label = st.selectbox("Script", list(found), key="linked-script")
        widgets.say_in_link("script", label)
        try:
            show_recorded(read_recorded(found[label]), label)
        except InputError as error:
            widgets.refusal(error)

    polled()
    st.caption(f"Looked for every {POLL_SECONDS:g} seconds in {widgets.plain(', '.join(map(str, _folders())))} and three levels down.")
    with st.expander("How a script is recorded", icon=":material/code:"):
        _show_code()


def show_recorded(recorded: Recorded, label: str) -> None:
    """One script: how far it is, its curves, and what its tokens are near to."""
    ago = max(0.0, time.time() - recorded.changed)
    facts = [fact for fact in (recorded.method, recorded.model) if fact]
    st.markdown(f"**{widgets.plain(label)}** · step {recorded.steps:,}" + "".join(f" · {widgets.plain(fact)}" for fact in facts))
    if recorded.ended:
        st.success("The script has ended.", icon=":material/check_circle:")
        _offer_to_read(recorded.folder)
    elif ago > QUIET_SECONDS:
        st.warning(f"Nothing was written for {duration(ago)}: the script may have been stopped.", icon=":material/pause_circle:")
    else:
        st.info("It is being recorded now.", icon=":material/sensors:")
    for sentence in what_it_shows(recorded):
        st.markdown(f"- {sentence}")
    with st.container(horizontal=True):
        if len(recorded.losses):
            with st.container(width=FIGURE_WIDTH):
                st.markdown("**Loss**")
                last = recorded.losses["loss"].iloc[-1]
                st.plotly_chart(loss_curve(recorded.losses, steps=recorded.steps), key="script-loss", alt=f"Loss by step; {last:.3f} now.")
        if len(recorded.looks):
            for column, title in CURVES.items():
                if recorded.looks[column].isna().all():  # the start is unknown
                    continue
                with st.container(width=FIGURE_WIDTH):
                    st.markdown(f"**{title[0].upper()}{title[1:]}**")
                    now = recorded.looks[column].iloc[-1]
                    st.plotly_chart(
                        followed_curve(recorded.looks, column, title, steps=recorded.steps), key=f"script-{column}", alt=f"{title} by step; {now:.2f} now."
                    )  # fmt: skip
    if len(recorded.looks):
        what_is("Echo and drift")
        words = words_now(recorded.looks)
        st.markdown(f"**Nearest words at step {recorded.looks['step'].iloc[-1]:,}**")
        show_table(words, height=widgets.table_height(len(words)), alt="For each virtual token the word it is near to.")


def what_it_shows(recorded: Recorded) -> list[str]:
    """What can be seen of the script so far, a sentence each."""
    said = []
    if (loss := loss_in_words(recorded.losses)) is not None:
        said.append(loss)
    if len(recorded.looks):
        last = recorded.looks.iloc[-1]
        if not math.isnan(last["echo_share"]):
            said.append(f"{last['echo_share']:.0%} of the tokens are still nearest to the word that they were nearest to at first.")
        if last["direction"]:
            said.append(f"All of them together moved towards: {widgets.plain(', '.join(last['direction'].split('·')))}.")
    return said


def words_now(looks: pd.DataFrame) -> pd.DataFrame:
    """token, near to: of the last look; and near to at the first look, where there are as many words."""
    first, last = (looks["words"].iloc[i].split("·") for i in (0, -1))
    table = pd.DataFrame({"token": range(len(last)), "near to now": last})
    if len(first) == len(last) and len(looks) > 1:
        table.insert(1, f"near to at step {looks['step'].iloc[0]:,}", first)
    return table


def _folders() -> list[Path]:
    """Where records are looked for: the runs folder, and those that whoever started the dashboard opened to it."""
    return list(dict.fromkeys([runs_folder().resolve(), *allowed_folders()]))


def _label(path: Path) -> str:
    """A folder as it is called on the page: from the folder that it was found in on."""
    within = next(folder for folder in _folders() if path.is_relative_to(folder))
    return path.name if path == within else str(path.relative_to(within))


def _say_how() -> None:
    st.info("No script is being recorded. Add these lines to yours, and it appears here by itself.", icon=":material/code:")
    _show_code()
    if not allowed_folders():
        st.caption(f"To record into a folder of yours, start the dashboard with it allowed: `{VARIABLE}=/my/trainings`.")


def _show_code() -> None:
    folder = repr(str(_folders()[-1] / "my-script"))
    trainer, loop = st.columns(2, gap="large")
    trainer.markdown("**With the Trainer of transformers**")
    trainer.code(OF_TRAINER.format(folder=folder), language="python", wrap_lines=True)
    loop.markdown("**With a loop of your own**")
    loop.code(OF_A_LOOP.format(folder=folder), language="python", wrap_lines=True)


def _offer_to_read(folder: Path) -> None:
    if any(folder.is_relative_to(allowed) for allowed in allowed_folders()):
        st.page_link(
            LIBRARY.file,
            label="Open what it learned",
            icon=":material/upload_file:",
            query_params={"tab": "Open a file", "path": str(folder)},
        )
