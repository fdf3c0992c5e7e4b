"""Train a soft prompt and watch it: the loss, the time left, the nearest words as they change."""

import streamlit as st

from analysis.errors import InputError
from app import charts, widgets
from app.jobs import Progress
from trained_prompts import store
from trained_prompts.tasks import TASKS
from trained_prompts.trainer import MAX_STEPS, MAX_TOKENS, TrainingConfig

INITS = {
    "sample-vocab": "rows of frequent words",
    "text": "the words of a text",
    "random": "random numbers",
}
STATE_ICONS = {
    "saved": ":material/check_circle:",
    "failed": ":material/error:",
    "stopped": ":material/stop_circle:",
    "queued": ":material/schedule:",
}
queue = widgets.job_queue()


def free_name(task: str, init: str) -> str:
    """A name that is not taken yet."""
    taken = {*store.list_runs()["name"], *(job.name for job in queue.all())}
    stem = f"{task}-{init.split('-')[0]}"
    return next(name for i in range(1, 10_000) if (name := f"my-{stem}-{i}") not in taken)


def choose() -> None:
    """The settings of a run, and the button that queues it."""
    task = TASKS[st.selectbox("Task", list(TASKS), key="task", bind="query-params")]
    examples = task.examples("train")
    example = examples.loc[examples["text"].head(100).str.len().idxmin()]
    st.caption(f"{task.description} {len(examples):,} examples to train on, for instance:")
    st.code(f"{example['text']}{example['target']}", language=None, wrap_lines=True)
    init = st.selectbox(
        "Start from", list(INITS), key="init", bind="query-params", help="  \n".join(f"**{key}**: {text}" for key, text in INITS.items())
    )
    init_text = st.text_input("Text to start from", value=task.description, key="text") if init == "text" else None
    first, second = st.columns(2)
    tokens = first.number_input("Virtual tokens", 1, MAX_TOKENS, 10, key="tokens", bind="query-params")
    steps = second.number_input(
        "Steps", 1, MAX_STEPS, 60, key="steps", bind="query-params", help="Eight examples a step; a second or two each on two cores."
    )
    rate = first.number_input(
        "Learning rate", 0.0001, 10.0, 0.05, step=0.01, format="%.4f", key="rate", bind="query-params", help="Falls linearly to zero."
    )
    seed = second.number_input(
        "Seed", 0, 2**31 - 1, 0, key="seed", bind="query-params", help="Determines the initial values and the order of the examples."
    )
    limit = st.number_input(
        "Held-out examples to score on",
        10,
        2000,
        100,
        key="limit",
        help="Scored without a prompt, with the initial values and with the trained ones; more take longer and give a narrower interval.",
    )
    name = st.text_input("Name", placeholder=free_name(task.name, init), key="name", help="The run is kept under this name.")
    if st.button("Train", type="primary", icon=":material/play_arrow:"):
        try:
            config = TrainingConfig(
                task=task.name,
                tokens=int(tokens),
                init=init,
                init_text=init_text,
                steps=int(steps),
                learning_rate=float(rate),
                seed=int(seed),
            )
            st.query_params["job"] = queue.submit(config, name.strip() or free_name(task.name, init), limit=int(limit))
        except InputError as error:
            widgets.refusal(error)
        else:
            st.rerun()
    widgets.model_note()


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def show_state(job: Progress) -> None:
    config = job.config
    st.subheader(job.name)
    st.caption(
        f"{config.task} · {config.tokens} virtual tokens from {INITS[config.init]} · learning rate {config.learning_rate:g} · seed {config.seed}"
    )
    if job.state == "queued":
        ahead = queue.ahead_of(job.id)
        st.info(f"Waiting: {ahead} before this one." if ahead else "Starting.", icon=STATE_ICONS["queued"])
    elif job.under_way:
        left = job.seconds_left if job.state == "training" else None
        st.progress(
            min(job.share, 1.0), text=f"{job.doing}" + (f", about {minutes(left)} left, then the scores" if left is not None else "")
        )
    elif job.state == "saved":
        st.success(f"Saved as {job.saved_as}.", icon=STATE_ICONS["saved"])
    elif job.state == "stopped":
        st.warning(f"Stopped after {job.steps_done} of {config.steps} steps; nothing is saved yet.", icon=STATE_ICONS["stopped"])
    else:
        st.error(widgets.plain(job.error), icon=STATE_ICONS["failed"])
    with st.container(horizontal=True):
        if job.under_way and st.button("Stop", icon=":material/stop:", key="stop"):
            queue.stop(job.id)
            st.rerun()
        if job.state == "saved" and st.button("Read its nearest words", type="primary", icon=":material/hub:", key="open"):
            st.switch_page("views/neighbours.py", query_params={"prompt": job.saved_as})


def offer_to_keep(job: Progress) -> None:
    """What a stopped or failed training has learned is not lost: it can be saved, under another name if need be."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input("Save as", value=job.name, key=f"keep-name-{job.id}")
        if st.button("Save what it has learned", type="primary", icon=":material/save:", key="keep"):
            try:
                queue.keep(job.id, name.strip())
            except InputError as error:
                widgets.refusal(error)
            else:
                st.rerun()


def show_curve(job: Progress) -> None:
    if job.losses is not None and len(job.losses):
        last = job.losses["loss"].tail(10).mean()
        st.plotly_chart(
            charts.loss_curve(job.losses, steps=job.config.steps),
            key=f"loss-{job.id}",
            alt=f"Loss by step: {job.losses['loss'].iloc[0]:.2f} at step 1, {last:.2f} over the last ten of {job.steps_done} steps.",
        )
    if job.scores is not None:
        st.dataframe(
            job.scores.drop(columns=["task", "split"]),
            hide_index=True,
            column_config={key: st.column_config.NumberColumn(format="%.3f") for key in ("score", "low", "high", "loss")},
            alt="Held-out scores without a prompt, with the initial values and with the trained prompt.",
        )
        st.caption("Held-out scores with their 95 % intervals.")
        widgets.download_buttons(job.scores, f"{job.name}-scores")


def show_words(job: Progress) -> None:
    if job.words is None:
        return
    st.markdown(f"**Nearest words after step {job.words_step}**")
    words = job.words.set_index("position")[["initial_token", "nearest_token", "score", "drift"]]
    for column in ("initial_token", "nearest_token"):
        words[column] = words[column].map(charts.shown, na_action="ignore")
    st.dataframe(
        words,
        column_config={
            "initial_token": st.column_config.TextColumn("started from"),
            "nearest_token": st.column_config.TextColumn("near to now"),
            "score": st.column_config.NumberColumn(format="%.2f", help="Centred cosine with the nearest word"),
            "drift": st.column_config.ProgressColumn(
                "moved",
                format="%.2f",
                min_value=0.0,
                max_value=float(max(10.0, words["drift"].max())),
                help="Distance from the initial value",
            ),
        },
        height=widgets.table_height(len(words)),
        alt="For each virtual token the word it started from, the word it is near to now, and how far it has moved.",
    )


def watch(job_id: str) -> None:
    """Draw a job, again every second while it is under way."""
    running = queue.get(job_id).under_way

    @st.fragment(run_every=1.0 if running else None)
    def drawn() -> None:
        job = queue.get(job_id)
        if job is None or (running and not job.under_way):
            st.rerun()  # the whole page, so that the polling ends
        show_state(job)
        if job.can_be_kept:
            offer_to_keep(job)
        curve, words = st.columns([3, 2], gap="medium")
        with curve:
            show_curve(job)
        with words:
            show_words(job)

    drawn()
    job = queue.get(job_id)
    if job is not None and not job.under_way and job.words is not None and job.steps_done:
        losses, words = st.columns([3, 2], gap="medium")
        with losses:
            st.caption("The losses, a row a step")
            widgets.download_buttons(job.losses, f"{job.name}-losses")
        with words:
            st.caption("The nearest words, a row a token")
            widgets.download_buttons(job.words, f"{job.name}-words")


st.title("Train a soft prompt")
settings, progress = st.columns([2, 5], gap="large")
with settings, widgets.in_words():
    choose()
with progress:
    job_id = st.query_params.get("job")
    jobs = queue.all()
    if job_id is None:
        job_id = next((job.id for job in reversed(jobs) if job.under_way), None)
    if job_id is None:
        st.info(
            "Press Train. The frozen model is not changed; only the virtual tokens learn. "
            "The loss, and the words that each token is near to, appear here as it goes.",
            icon=":material/play_arrow:",
        )
    elif queue.get(job_id) is None:
        st.warning(
            "This training is not known any more: the server was started again since. A run that was saved is in the Gallery.",
            icon=":material/link_off:",
        )
    else:
        watch(job_id)
    others = [job for job in jobs if job.id != job_id]
    if others:
        st.markdown("**Other trainings**")
        for job in others:
            st.page_link(
                "views/train.py",
                label=f"{job.name}: {job.doing if job.state != 'failed' else 'failed'}",
                icon=STATE_ICONS.get(job.state, ":material/model_training:"),
                query_params={"job": job.id},
            )
