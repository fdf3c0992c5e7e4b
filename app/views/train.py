"""Train by one of five methods and watch it: the loss, the score, the time left, the virtual tokens as they move and what their words are worth."""

import streamlit as st

from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.training_settings import choose
from soft_prompt_explorer.app.parts.training_state import list_others, list_unfinished, watch

st.title("Train")
queue = widgets.job_queue()
settings, progress = st.columns([2, 5], gap="large")
with settings, widgets.in_words():
    limit = choose(queue)
with progress:
    job_id = st.query_params.get("job")
    jobs = queue.all()
    if job_id is None:
        job_id = next((job.id for job in reversed(jobs) if job.under_way), None)
    job = queue.get(job_id) if job_id is not None else None
    if job_id is None:
        st.info(
            "Press Train. The loss, the score, and the words that each virtual token is near to appear here as it goes.",
            icon=":material/play_arrow:",
        )
    elif job is None:
        st.warning(
            "This training is not known any more: the server was started again since. A run that was saved is in the Library; "
            "one that was broken off is below.",
            icon=":material/link_off:",
        )
    else:
        watch(queue, job)
    list_unfinished(queue, None if job is None else job.trained_as, limit)
    list_others([job for job in jobs if job.id != job_id])
