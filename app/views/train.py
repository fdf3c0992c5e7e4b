"""Train by one of five methods and watch it: the loss, the score, the time left, the virtual tokens as they move and what their words are worth."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pandas as pd
import streamlit as st

from analysis.adapters.run_file import MAX_RANK, MAX_STEPS, MAX_TOKENS, Method
from analysis.core.errors import InputError
from analysis.core.words import shown
from analysis.models.embedded import EMBEDDED_MODEL
from analysis.models.gemma import GEMMA_MODEL
from analysis.models.names import is_at_hand
from analysis.models.vocabulary import load_vocabulary
from analysis.prompts.projection import landmarks, map_is_made, vocabulary_map
from analysis.tasks import own_data
from analysis.tasks.finding import get_task
from analysis.tasks.scoring import SCORINGS
from analysis.tasks.shipped import TASKS
from analysis.tasks.task import Task
from app.charts.theme import verdict_label
from app.charts.training import BESIDE_STYLES, loss_curve, validation_curve, verdict_counts
from app.charts.vocabulary_map import learning_map
from app.pages import CLUSTERS, NEIGHBOURS, SPECTRA, TRAIN
from app.parts import widgets
from app.server.background import session
from app.server.estimates import estimate, trainable_parameters
from app.server.jobs import Progress, config_of
from trained_prompts.runs import store
from trained_prompts.runs.recording import unfinished
from trained_prompts.training.config import LEARNING_RATES, TrainingConfig

METHODS: dict[Method, str] = {
    "prompt-tuning": "A few vectors in front of the input learn; the model is frozen.",
    "p-tuning": "The same vectors, made by a small network while they learn.",
    "prefix-tuning": "Keys and values in front of every layer's own learn; they are no words.",
    "lora": "Two thin factors beside some of the weights learn.",
    "full": "Every weight of a copy of the model learns: the most memory, and the run kept is a whole model.",
}
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
OTHER_MODEL = "another"
FIGURE_WIDTH = 415  # pixels: two beside each other in a window of 1400, one below the other in a narrow one
SIGNS = 20  # words written on the map
WORDS_DRAWN = 6_000  # of the map, behind the tokens that move on it: what is sent every second stays small
queue = widgets.job_queue()


# --- The settings ----------------------------------------------------------------------------------------------------


def choose_task() -> Task:
    """The task, one of those that ship or of the person's own."""
    names = [*TASKS, *(task.name for task in own_data.kept_tasks())]
    task = get_task(st.selectbox("Task", names, key="task", bind="query-params"))
    if task.name not in TASKS:
        task = choose_template(task)
    examples = task.examples("train")
    example = examples.loc[examples["text"].head(100).str.len().idxmin()]
    st.caption(f"{widgets.plain(task.description)} {len(examples):,} examples to train on, for instance:")
    st.code(f"{example['text']}{example['target']}", language=None, wrap_lines=True)
    return task


def choose_template(task: Task) -> Task:
    """The task as the person wants it asked; what is typed is kept with the examples."""
    written = st.text_area(
        "How they are asked", value=task.template, height="content", key=f"template-{task.name}",
        help="The text that the model reads, with {input} in it exactly once; the answer comes right after it. It is kept with the examples; a run goes on being asked as "
        "it was trained.",
    )  # fmt: skip
    if written == task.template:
        return task
    try:
        return own_data.keep_template(task.name, written)
    except InputError as error:
        widgets.refusal(error)
        return task


def take_upload() -> None:
    """Check and keep what was uploaded, and pick it; what is wrong with it is said below."""
    st.session_state.pop("upload-refused", None)
    uploaded = st.session_state["upload"]
    if uploaded is not None:
        try:
            st.session_state["task"] = own_data.task_from_file(own_data.keep_uploaded(uploaded.name, uploaded.getvalue())).name
        except InputError as error:
            st.session_state["upload-refused"] = error


def offer_upload() -> None:
    refused = st.session_state.get("upload-refused")
    with st.expander("Your own examples", icon=":material/upload_file:", expanded=refused is not None):
        st.file_uploader(
            "CSV or JSON lines with the columns input and target", key="upload", on_change=take_upload, max_upload_size=own_data.MAX_BYTES // 10**6
        )  # fmt: skip
        if refused is not None:
            widgets.refusal(refused)
        st.caption(
            f"{own_data.MIN_ROWS} examples or more. Some are held out to score on, unless a column split says which; a column template may say how they are asked. They stay "
            "on this machine."
        )


def method_settings(method: Method, task: Task) -> dict:
    """What only this method has, the settings that most people change."""
    if method == "full":
        return {}
    if method == "lora":
        rank = st.number_input("Rank", 1, MAX_RANK, 8, key="rank", bind="query-params", help="The width of the two factors.")
        return {"rank": int(rank)}
    settings = {"tokens": int(st.number_input("Virtual tokens", 1, MAX_TOKENS, 10, key="tokens", bind="query-params"))}
    if method == "p-tuning":
        return settings
    settings["init"] = st.selectbox(
        "Start from", list(INITS), key="init", bind="query-params", help="  \n".join(f"**{key}**: {text}" for key, text in INITS.items())
    )
    if settings["init"] == "text":
        settings["init_text"] = st.text_input("Text to start from", value=task.description, key="text")
    return settings


def more_settings(method: Method) -> dict:
    """The settings that have sensible values for most people."""
    settings: dict = {}
    if method == "prompt-tuning":
        settings["readable"] = st.number_input(
            "Draw to words (γ)", 0.0, 1000.0, 0.0, step=0.1, format="%g", key="readable", bind="query-params",
            help="0 does not. Above it, the model sees each virtual token nearer to a word while it learns. That a token ends near a word is then how it "
            "was made, and no evidence that it learned that word.",
        )  # fmt: skip
    if method == "lora":
        settings |= lora_settings()
    first, second = st.columns(2)
    default = LEARNING_RATES[method]
    settings["learning_rate"] = first.number_input(
        "Learning rate", 1e-7, 100.0, default, step=default / 5, format="%g", key=f"rate-{method}", bind="query-params", help="Falls linearly to zero."
    )  # fmt: skip
    settings["seed"] = int(
        second.number_input(
            "Seed", 0, 2**31 - 1, 0, key="seed", bind="query-params", help="Determines the initial values and the order of the examples."
        )
    )
    return settings | watching(method) | {"model": choose_model()}


def lora_settings() -> dict:
    targets = st.text_input(
        "Modules to change in every layer",
        value="q_proj, v_proj",
        key="targets",
        bind="query-params",
        help="Names with commas between them.",
    )
    alpha = st.number_input(
        "Alpha", 0.1, None, None, key="alpha", bind="query-params", placeholder="twice the rank", help="The update is scaled by alpha/rank."
    )
    rslora = st.toggle("Scale by alpha/√rank (rsLoRA)", key="rslora", bind="query-params")
    return {"targets": tuple(name.strip() for name in targets.split(",") if name.strip()), "alpha": alpha, "rslora": rslora}


def watching(method: Method) -> dict:
    first, second = st.columns(2)
    every = first.number_input(
        "Score every … steps", 0, MAX_STEPS, 20, key="every", bind="query-params",
        help="While it learns, on up to 64 training examples that are set aside for it. 0 does not, and trains on all.",
    )  # fmt: skip
    patience = second.number_input(
        "Stop early after", 0, 1000, 0, key="patience", bind="query-params", disabled=not every or method == "full",
        help="So many scores in a row without a better one; the best state is kept. 0 goes on to the end. A whole model cannot go back to its best state.",
    )  # fmt: skip
    can_stop = every and method != "full"
    return {"validate_every": int(every) or None, "patience": int(patience) or None if can_stop else None}


def choose_model() -> str:
    at_hand = [EMBEDDED_MODEL, *([GEMMA_MODEL] if is_at_hand(GEMMA_MODEL) else [])]
    picked = st.selectbox(
        "Model", [*at_hand, OTHER_MODEL], key="model", bind="query-params", help=f"{GEMMA_MODEL} is here after `make gemma`."
    )
    if picked != OTHER_MODEL:
        return picked
    return widgets.model_field(st, "Other model", key="other", placeholder="a hub id, a folder or a .gguf file") or EMBEDDED_MODEL


def free_name(stem: str) -> str:
    """A name that is not taken yet."""
    taken = {*store.list_runs()["name"], *unfinished()["name"], *(job.name for job in queue.all())}
    return next(name for i in range(1, 10_000) if (name := f"my-{stem[:50]}-{i}") not in taken)


def choose() -> None:
    """The settings of a run, what it will take, and the button that queues it."""
    task = choose_task()
    offer_upload()
    method = st.selectbox("Method", list(METHODS), key="method", bind="query-params")
    st.caption(METHODS[method])
    settings = method_settings(method, task)
    steps = st.number_input("Steps", 1, MAX_STEPS, 60, key="steps", bind="query-params", help="Eight examples a step.")
    with st.expander("More settings", icon=":material/tune:"):
        settings |= more_settings(method)
        limit = st.number_input(
            "Held-out examples to score on", 10, 2000, 100, key="limit", bind="query-params",
            help="Scored without training, with the initial values of a prompt, and as trained; more take longer and give a narrower interval.",
        )  # fmt: skip
    config = TrainingConfig(task=task.name, method=method, steps=int(steps), **settings)
    suggested = free_name(f"{task.name}-{config.init.split('-')[0] if method == 'prompt-tuning' else method}")
    name = st.text_input("Name", placeholder=suggested, key="name", help="The run is kept under this name.")
    what_it_takes(config, int(limit))
    if st.button("Train", type="primary", icon=":material/play_arrow:"):
        try:
            st.query_params["job"] = queue.submit(config, name.strip() or suggested, limit=int(limit), session=session())
        except InputError as error:
            widgets.refusal(error)
        else:
            st.rerun()
    widgets.model_note()


def what_it_takes(config: TrainingConfig, limit: int) -> None:
    """Time, memory and parameters, before the start; of a model that a link alone names, nothing."""
    if config.model not in (EMBEDDED_MODEL, GEMMA_MODEL) and widgets.only_linked(config.model):
        widgets.ask_about_link(config.model)
        return
    taken = estimate(config, limit=limit)
    learned = trainable_parameters(config)
    sentences = [
        f"An estimate: **about {duration(taken.seconds)} and {taken.memory / 1e9:.1f} GB of memory**, from {taken.basis}."
        if taken is not None
        else "How long it takes is not known before the model is at hand."
    ]
    if learned is not None:
        sentences.append(f"{learned:,} parameters learn.")
    st.markdown(" ".join(sentences))


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# --- The training ----------------------------------------------------------------------------------------------------


def in_words(config: TrainingConfig) -> str:
    """The settings of a run on one line."""
    parts = [widgets.plain(config.task), config.method]
    if config.method == "lora":
        parts.append(f"rank {config.rank}")
    elif config.method != "full":
        parts.append(f"{config.tokens} virtual tokens" + (f" from {INITS[config.init]}" if config.method != "p-tuning" else ""))
    if config.readable:
        parts.append(f"drawn to words (γ = {config.readable:g})")
    return " · ".join([*parts, f"learning rate {config.learning_rate:g}", f"seed {config.seed}", widgets.plain(config.model)])


def show_state(job: Progress) -> None:
    """What it is, how far it is, and what can be done with it now."""
    st.subheader(job.name)
    learned = f" · {job.trainable:,} parameters learn" if job.trainable else ""
    st.caption(in_words(job.config) + learned)
    with suppress(InputError):  # examples of one's own may be gone
        st.caption(widgets.plain(f"asked: {job.config.asked_task().first_example()}"))
    done = f"{job.steps_done:,} of {job.config.steps:,} steps"
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
        st.error(widgets.plain(job.error) + kept, icon=STATE_ICONS["failed"])
    if job.under_way and st.button("Stop", icon=":material/stop:", key="stop"):
        queue.stop(job.id)
        st.rerun()
    if job.state == "saved":
        offer_to_read(job)


def offer_to_read(job: Progress) -> None:
    """The page that reads what this method makes."""
    if job.config.method in ("prompt-tuning", "p-tuning"):
        if st.button("Read its nearest words", type="primary", icon=":material/hub:", key="open"):
            st.switch_page(NEIGHBOURS.file, query_params={"prompt": job.saved_as})
    elif job.config.method == "lora" and st.button("See its ranks", type="primary", icon=":material/equalizer:", key="open"):
        st.switch_page(SPECTRA.file, query_params={"lora": job.saved_as})


def offer_to_go_on(job: Progress) -> None:
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


def show_scores(job: Progress) -> None:
    if job.scores is None:
        return
    st.dataframe(
        job.scores.drop(columns=["task", "split"]),
        hide_index=True,
        column_config={key: st.column_config.NumberColumn(format="%.3f") for key in ("score", "low", "high", "loss")}
        | {"seconds": st.column_config.NumberColumn(format="%.1f")},
        alt="Held-out scores without training, with the initial values of a prompt, and as trained.",
    )
    st.caption("Scores on held-out examples, with their 95 % intervals.")


def show_loss(job: Progress, beside: dict[str, pd.DataFrame]) -> None:
    last = job.losses["loss"].tail(10).mean()
    st.markdown("**Loss**")
    st.plotly_chart(
        loss_curve(job.losses, steps=job.config.steps, beside=beside),
        key=f"loss-{job.id}",
        alt=f"Loss by step: {job.losses['loss'].iloc[0]:.2f} at step 1, {last:.2f} over the last ten of {job.steps_done} steps.{and_beside(beside)}",
    )


def show_validation(job: Progress, beside: dict[str, pd.DataFrame]) -> None:
    scored = job.losses[job.losses["validation"].notna()]
    if not len(scored):
        return
    task = job.config.asked_task()
    measure = next(iter(SCORINGS[task.scored_by]))
    aside = len(task.for_training(watched=True)[1])
    st.markdown(f"**Score on {aside} training examples set aside**")
    st.plotly_chart(
        validation_curve(job.losses, measure, steps=job.config.steps, beside=beside),
        key=f"validation-{job.id}",
        alt=f"{measure} on {aside} examples set aside: {scored['validation'].iloc[-1]:.3f} after step {scored['step'].iloc[-1]}.{and_beside(beside)}",
    )


def and_beside(beside: dict[str, pd.DataFrame]) -> str:
    return f" Beside it: {', '.join(beside)}." if beside else ""


def show_verdicts(job: Progress) -> None:
    counts = job.words["verdict"].value_counts()
    st.markdown(f"**Verdicts after step {job.words['step'].iloc[0]}**: " + " · ".join(f"{verdict_label(v)} {n}" for v, n in counts.items()))
    st.plotly_chart(
        verdict_counts(job.looks, steps=job.config.steps), key=f"verdicts-{job.id}", alt=f"Number of tokens of each verdict by step; now {counts.to_dict()}."
    )  # fmt: skip
    if job.config.readable:
        st.caption(
            "These tokens are drawn to words: that they are near to some is how they are made, and no evidence that they learned them."
        )


def show_words(job: Progress) -> None:
    """What the virtual tokens are near to, and whether that is worth anything."""
    st.markdown(f"**Nearest words after step {job.words['step'].iloc[0]}**")
    words = job.words.set_index("position")[["initial_token", "nearest_token", "drift"]]
    for column in ("initial_token", "nearest_token"):
        words[column] = words[column].map(shown, na_action="ignore")
    cells, verdict = widgets.verdict_column(job.words["verdict"])
    words.insert(2, "verdict", cells)
    st.dataframe(
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
    vocabulary = load_vocabulary(model)
    on = vocabulary_map(vocabulary)
    return on.places[:: max(1, len(on.places) // WORDS_DRAWN)], landmarks(on, vocabulary, SIGNS)


def show_map(job: Progress) -> None:
    """The virtual tokens on the map of the vocabulary, if there is one."""
    placed = job.looks.dropna(subset=["x", "y"])
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
    elif not map_is_made(load_vocabulary(job.config.model)):
        st.caption("The map of this vocabulary is not made yet. Once it is, the tokens can be watched on it:")
        st.page_link(CLUSTERS.file, label="Make the map on Clusters (half a minute)", icon=":material/scatter_plot:")


def pick_beside(job: Progress) -> dict[str, pd.DataFrame]:
    """The losses of other trainings and runs that are to be drawn over this one's, by name."""
    jobs = {other.name: other for other in queue.all() if other.id != job.id and other.losses is not None and len(other.losses)}
    names = dict.fromkeys([*jobs, *reversed(store.list_runs()["name"].tolist())])
    names.pop(job.saved_as, None)
    picked = st.multiselect(
        "Beside", list(names), key="beside", bind="query-params", placeholder="other trainings and runs, to draw over this one", max_selections=len(BESIDE_STYLES)
    )  # fmt: skip
    beside = {}
    for name in picked:
        try:
            beside[name] = jobs[name].losses if name in jobs else widgets.read_losses(name)
        except InputError as error:
            widgets.refusal(error)
    return beside


def draw_state(job: Progress) -> None:
    show_state(job)
    if job.state in ("stopped", "failed"):
        offer_to_go_on(job)
    show_scores(job)


def draw_figures(job: Progress, beside: dict[str, pd.DataFrame]) -> None:
    """The figures side by side, as many as there is room for."""
    parts: list[Callable[[], None]] = []
    if job.losses is not None and len(job.losses):
        parts += [lambda: show_loss(job, beside), lambda: show_validation(job, beside)]
    if job.looks is not None:
        parts += [lambda: show_words(job), lambda: show_verdicts(job)]
    with st.container(horizontal=True):
        for part in parts:
            with st.container(width=FIGURE_WIDTH):
                part()
    if job.looks is not None:
        show_map(job)


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
    for what, (title, table) in tables.items():
        st.caption(title)
        widgets.download_buttons(table, f"{job.name}-{what}")


def polled(job_id: str, running: bool, draw: Callable[[Progress], None]) -> None:
    """Draw a job, again every second while it is under way."""

    @st.fragment(run_every=1.0 if running else None)
    def drawn() -> None:
        job = queue.get(job_id)
        if job is None or (running and not job.under_way):
            st.rerun()  # the whole page, so that the polling ends
        draw(job)

    drawn()


def watch(job: Progress) -> None:
    polled(job.id, job.under_way, draw_state)
    beside = pick_beside(job)
    polled(job.id, job.under_way, lambda job: draw_figures(job, beside))
    if not job.under_way:
        offer_exports(job, beside)


def list_unfinished(shown: str | None) -> None:
    """The trainings that were broken off, also by the server's end, and can go on."""
    table = queue.unfinished()
    table = table[table["name"] != shown]
    if not len(table):
        return
    st.markdown("**Unfinished trainings**")
    for row in table.itertuples():
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"{row.name}: {row.method} on {widgets.plain(row.task)}, step {row.steps:,} of {row.of_steps:,}")
            try:
                if st.button("Resume", key=f"resume-{row.name}", icon=":material/play_arrow:"):
                    st.query_params["job"] = queue.submit(
                        config_of(row.config), row.name, limit=int(st.session_state["limit"]), session=session()
                    )
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
            label=widgets.plain(f"{job.name}: {job.doing if job.state != 'failed' else 'failed'}"),
            icon=STATE_ICONS.get(job.state, ":material/model_training:"),
            query_params={"job": job.id},
        )


st.title("Train")
settings, progress = st.columns([2, 5], gap="large")
with settings, widgets.in_words():
    choose()
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
            "This training is not known any more: the server was started again since. A run that was saved is in the Gallery; "
            "one that was broken off is below.",
            icon=":material/link_off:",
        )
    else:
        watch(job)
    list_unfinished(None if job is None else job.trained_as)
    list_others([job for job in jobs if job.id != job_id])
