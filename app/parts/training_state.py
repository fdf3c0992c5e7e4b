"""How far a training is, what can be done with it now, and the other trainings."""

from collections.abc import Callable
from contextlib import suppress

import streamlit as st

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.words import counted
from soft_prompt_explorer.analysis.prompts.starts import plain_verdict
from soft_prompt_explorer.app.pages import LORA, PROMPT, TRAIN
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.prompt_header import gain
from soft_prompt_explorer.app.parts.training_figures import draw_figures, loss_in_words, offer_exports, pick_beside
from soft_prompt_explorer.app.parts.training_settings import INITS, duration
from soft_prompt_explorer.app.server.background import session
from soft_prompt_explorer.app.server.jobs import JobQueue, Progress, config_of
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

STATE_ICONS = {
    "saved": ":material/check_circle:",
    "failed": ":material/error:",
    "stopped": ":material/stop_circle:",
    "queued": ":material/schedule:",
}
# Of a training that has ended, for a list; of one that is under way it is told how far it is.
STATES = {"saved": "saved", "failed": "failed", "stopped": "stopped, not saved"}


def watched_job(queue: JobQueue) -> tuple[str | None, Progress | None]:
    """The id of the training that the page shows, and the training itself where the server still has it; the link names it from now on.

    It is the one that the link names, else the one that this person watched last, whether it has ended since or not, else the newest that is under way.
    """
    job_id = st.query_params.get("job")
    if job_id is None:
        last = st.session_state.get("watched-job")
        job_id = last if last is not None and queue.get(last) is not None else None
    if job_id is None:
        job_id = next((job.id for job in queue.all() if job.under_way), None)
    job = None if job_id is None else queue.get(job_id)
    if job_id is not None and job is not None:
        st.session_state["watched-job"] = st.query_params["job"] = job_id
    return job_id, job


def watch(queue: JobQueue, job: Progress) -> None:
    """A training as it goes, and the exports of its tables once it has ended."""
    state, others = st.columns([3, 2], gap="large")
    with state:
        polled(queue, job, lambda job: draw_state(queue, job))
    with others:
        beside = pick_beside(queue, job)
    polled(queue, job, lambda job: draw_figures(job, beside))
    if not job.under_way:
        offer_exports(job, beside)


def polled(queue: JobQueue, job: Progress, draw: Callable[[Progress], None]) -> None:
    """Draw a job, again every second while it is under way."""
    job_id, running = job.id, job.under_way

    @st.fragment(run_every=1.0 if running else None)
    def drawn() -> None:
        job = queue.get(job_id)
        if job is None or (running and not job.under_way):
            st.rerun()  # the whole page, so that the polling ends
        draw(job)

    drawn()


def draw_state(queue: JobQueue, job: Progress) -> None:
    show_state(queue, job)
    if job.state in ("stopped", "failed"):
        offer_to_go_on(queue, job)
    st.markdown("\n".join(f"- {sentence}" for sentence in what_it_shows(job)))


def what_it_shows(job: Progress) -> list[str]:
    """What can be seen of a training so far, a sentence each: the score, the loss, and what its words are worth."""
    said = []
    if job.scores is not None:
        of = job.scores.set_index("prompt")
        bare, last = of.iloc[0], of.iloc[-1]
        said.append(gain(bare, last))
    if (loss := loss_in_words(job.losses)) is not None:
        said.append(loss)
    if job.words is not None:
        counts = job.words["verdict"].map(plain_verdict).value_counts()
        echoes, moved = int(counts.get("echo", 0)), int(counts.get("moved along a word", 0))
        if echoes:
            said.append(
                f"{echoes} of {counted(len(job.words), 'token')} {'is' if echoes == 1 else 'are'} still nearest to the word that training began with."
            )
        said.append(f"{moved or 'None'} of {len(job.words)} moved along a word beyond chance.")
    return said


def steps_in_words(done: int, of: int) -> str:
    """How far: `all 150 steps`, `40 of 150 steps`."""
    return f"all {of:,} steps" if done == of else f"{done:,} of {of:,} steps"


def settings_in_words(config: TrainingConfig) -> str:
    """The settings of a run on one line."""
    parts = [widgets.plain(config.task), config.method]
    if config.method == "lora":
        parts.append(f"rank {config.rank}")
    elif config.method != "full":
        parts.append(counted(config.tokens, "virtual token") + (f" from {INITS[config.init]}" if config.method != "p-tuning" else ""))
    if config.readable:
        parts.append(f"drawn to words (γ = {config.readable:g})")
    rate = "its own learning rate" if config.learning_rate is None else f"learning rate {config.learning_rate:g}"
    return " · ".join([*parts, rate, f"seed {config.seed}", widgets.plain(config.model)])


def show_state(queue: JobQueue, job: Progress) -> None:
    """What it is, how far it is, and what can be done with it now."""
    st.subheader(job.name)
    learned = f" · {job.trainable:,} parameters learn" if job.trainable else ""
    asked = ""
    with suppress(InputError):  # examples of one's own may be gone
        asked = f"  \nasked: {widgets.plain(job.config.asked_task().first_example())}"
    st.caption(settings_in_words(job.config) + learned + asked)
    done = steps_in_words(job.steps_done, job.config.steps)
    if job.state == "queued":
        ahead = queue.ahead_of(job.id)
        st.info(f"Waiting: {ahead} before this one." if ahead else "Starting.", icon=STATE_ICONS["queued"])
    elif job.under_way:
        left = job.seconds_left if job.state == "training" else None
        st.progress(
            min(job.share, 1.0),
            text=widgets.plain(job.doing) + (f", about {duration(left)} left, then the scores" if left is not None else ""),
        )
    elif job.state == "saved":
        early = f" It stopped early, after {done}." if job.steps_done < job.config.steps and job.config.patience else ""
        st.success(f"Saved as {job.saved_as}.{early}", icon=STATE_ICONS["saved"])
    elif job.state == "stopped":
        st.warning(f"Stopped after {done}; it is not among your runs yet.", icon=STATE_ICONS["stopped"])
    else:
        kept = f" What it had learned after {done} can be saved." if job.can_be_kept else ""
        st.error(widgets.plain(job.error or "") + kept, icon=STATE_ICONS["failed"])
    if job.under_way and st.button("Stop", icon=":material/stop:", key="stop"):
        queue.stop(job.id)
        st.rerun()
    if job.state == "saved":
        offer_to_read(job)


def offer_to_read(job: Progress) -> None:
    """The page that reads what this method makes."""
    if job.config.method in ("prompt-tuning", "p-tuning"):
        if st.button("Read it", type="primary", icon=PROMPT.icon, key="open"):
            st.switch_page(PROMPT.file, query_params={"prompt": job.name})
    elif job.config.method == "lora" and st.button("Read it", type="primary", icon=LORA.icon, key="open"):
        st.switch_page(LORA.file, query_params={"lora": job.name})


def offer_to_go_on(queue: JobQueue, job: Progress) -> None:
    """What a stopped or failed training has learned is not lost: it goes on, or is saved, under another name if need be."""
    try:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            if job.can_go_on and st.button("Resume", type="primary", icon=":material/play_arrow:", key="resume"):
                st.query_params["job"] = queue.resume(job.id)
                st.rerun()
            if job.can_be_kept:
                name = st.text_input("Save as", value=job.name, key=f"keep-name-{job.id}")
                if st.button(
                    "Save what it has learned", type="secondary" if job.can_go_on else "primary", icon=":material/save:", key="keep"
                ):
                    queue.keep(job.id, name.strip())
                    st.rerun()
            if (job.can_go_on or job.can_be_kept) and st.button("Discard", icon=":material/delete:", key="discard"):
                queue.discard(job.trained_as)
                st.query_params.pop("job", None)
                st.rerun()
    except InputError as error:
        widgets.refusal(error)
    if job.can_go_on:
        st.caption("It can be resumed later too, also when the server was started again.")


def list_unfinished(queue: JobQueue, limit: int) -> None:
    """The trainings that were broken off by the server's end, and can go on; those that this server still has are among the others."""
    table = queue.unfinished()
    table = table[~table["name"].isin([job.trained_as for job in queue.all()])]
    if not len(table):
        return
    st.markdown("**Unfinished trainings**")
    for row in table.itertuples():
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"{row.name}: {row.method} on {widgets.plain(row.task)}, {steps_in_words(row.steps, row.of_steps)}")
            try:
                if st.button("Resume", key=f"resume-{row.name}", icon=":material/play_arrow:"):
                    st.query_params["job"] = queue.submit(config_of(row.config), row.name, limit=limit, session=session())
                    st.rerun()
                if st.button("Discard", key=f"discard-{row.name}", icon=":material/delete:"):
                    queue.discard(row.name)
                    st.rerun()
            except InputError as error:
                widgets.refusal(error)


def list_others(others: list[Progress]) -> None:
    if others:
        st.markdown("**Other trainings**")
    for job in others:
        st.page_link(
            TRAIN.file,
            label=widgets.plain(f"{job.name}: {STATES.get(job.state, job.doing)}"),
            icon=STATE_ICONS.get(job.state, TRAIN.icon),
            query_params={"job": job.id},
        )
