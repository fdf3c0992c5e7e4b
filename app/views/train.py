"""Train by one of five methods and watch it, or follow a script of one's own: the loss, the score, the virtual tokens as they move and what their words are worth."""

import streamlit as st

from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.followed_script import show_followed
from soft_prompt_explorer.app.parts.training_presets import show_presets
from soft_prompt_explorer.app.parts.training_settings import choose
from soft_prompt_explorer.app.parts.training_state import list_others, list_unfinished, watch, watched_job

IN_LINK = (
    "task",
    "method",
    "steps",
    "tokens",
    "init",
    "rank",
    "model",
    "limit",
    "seed",
)  # a link that names one of these shows the settings


def show_training() -> None:
    """The training that is watched, or the ways to begin one."""
    queue = widgets.job_queue()
    job_id, job = watched_job(queue)
    if job is None:
        st.markdown(
            "A soft prompt can work while its words say nothing of the task. Watching one learn shows why: see what moves, and what stays."
        )
    if job_id is not None and job is None:
        st.warning(
            "This training is not known any more: the server was started again since. A run that was saved is in the Library; "
            "one that was broken off is below.",
            icon=":material/link_off:",
        )
    if job is not None:
        watch(queue, job)
        with st.expander("Train another", icon=":material/add:"), widgets.in_words():
            show_presets(queue)
            limit = choose(queue)
    else:
        show_presets(queue)
        asked = any(name in st.query_params for name in IN_LINK)
        with st.expander("Choose everything yourself", icon=":material/tune:", expanded=asked), widgets.in_words():
            limit = choose(queue)
    list_unfinished(queue, limit)
    list_others([other for other in queue.all() if job is None or other.id != job.id])


st.title("Train")
here, script = widgets.tabs(["Train here", "Follow a script of yours"])
with here:
    if here.open:
        show_training()
with script:
    if script.open:
        show_followed()
