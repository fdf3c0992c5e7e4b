"""The settings of a training, what it will take, and the button that queues it."""

import re
from typing import get_args

import streamlit as st

from soft_prompt_explorer.analysis.adapters.run_file import MAX_RANK, MAX_STEPS, MAX_TOKENS, Method
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.computing import Dtype
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.names import packaged_here
from soft_prompt_explorer.analysis.models.packaged import PACKAGED
from soft_prompt_explorer.analysis.tasks import own_data
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.analysis.tasks.task import Task
from soft_prompt_explorer.app.parts import naming, widgets
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.app.server.background import session
from soft_prompt_explorer.app.server.jobs import JobQueue
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.estimates import estimate, trainable_parameters
from soft_prompt_explorer.trained_prompts.runs.recording import unfinished
from soft_prompt_explorer.trained_prompts.training.config import LEARNING_RATES, WORD_LENGTHS_A_STEP, TrainingConfig
from soft_prompt_explorer.trained_prompts.training.memory import check_fits

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
OTHER_MODEL = "another"


def choose(queue: JobQueue) -> int:
    """The settings of a run, what it will take, and the button that queues it; answers the number of held-out examples to score on."""
    of_task, of_method, of_run = st.columns(3, gap="large")
    with of_task:
        task = choose_task()
        offer_upload()
    with of_method:
        method = st.selectbox("Method", list(METHODS), key="method", bind="query-params")
        st.caption(METHODS[method])
        settings = method_settings(method, task)
    with of_run:
        steps = st.number_input("Steps", 1, MAX_STEPS, 60, key="steps", bind="query-params", help="Eight examples a step.")
        with st.expander("More settings", icon=":material/tune:"):
            settings |= more_settings(method)
            limit = st.number_input(
                "Held-out examples to score on", 10, 2000, 100, key="limit", bind="query-params",
                help="Scored without training, with the initial values of a prompt, and as trained; more take longer and give a narrower interval.",
            )  # fmt: skip
        config = TrainingConfig(task=task.name, method=method, steps=int(steps), **settings)
        suggested = free_name(queue, f"my-{task.name}-{config.init.split('-')[0] if method == 'prompt-tuning' else method}")
        name = choose_name(suggested)
        what_it_takes(config, int(limit))
        if st.button("Train", type="primary", icon=":material/play_arrow:"):
            begin(queue, config, name, int(limit))
    return int(limit)


def choose_name(suggested: str) -> str:
    """What the run is to be called; of several words one is made."""
    typed = st.text_input("Name", placeholder=suggested, key="name", help="The run is kept under this name.").strip()
    name = store.name_like(typed) if re.search(r"\s", typed) else typed or suggested
    if name not in (typed, suggested):
        st.caption(f"It will be called {widgets.plain(name)}.")
    return name


def begin(queue: JobQueue, config: TrainingConfig, name: str, limit: int) -> None:
    """Queue a run and go on to watch it, or say why not."""
    try:
        st.query_params["job"] = queue.submit(config, name, limit=limit, session=session())
    except InputError as error:
        widgets.refusal(error)
    else:
        st.toast(f"{name} begins: watch it at the top of the page.", icon=":material/play_arrow:")
        st.rerun()


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
    if refused is not None:
        widgets.refusal(refused)
    with st.expander("Your own examples", icon=":material/upload_file:"):
        st.file_uploader(
            "CSV or JSON lines with the columns input and target", key="upload", on_change=take_upload, max_upload_size=own_data.MAX_BYTES // 10**6
        )  # fmt: skip
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
    settings: dict = {"tokens": int(st.number_input("Virtual tokens", 1, MAX_TOKENS, 10, key="tokens", bind="query-params"))}
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
    usual, of_words = LEARNING_RATES[method], method == "prompt-tuning"
    settings["learning_rate"] = first.number_input(
        "Learning rate", 1e-7, 100.0, None if of_words else usual, step=usual / 5, format="%g", key=f"rate-{method}", bind="query-params",
        placeholder=f"≤ {usual:g}" if of_words else None,
        help="Falls linearly to zero." + (f" Left empty, a step moves a value by about {WORD_LENGTHS_A_STEP:g} of what is usual in the model's words, and by {usual:g} at most." if of_words else ""),
    )  # fmt: skip
    settings["seed"] = int(
        second.number_input(
            "Seed", 0, 2**31 - 1, 0, key="seed", bind="query-params", help="Determines the initial values and the order of the examples."
        )
    )
    return settings | watching(method) | {"model": choose_model()} | computing()


def lora_settings() -> dict:
    targets = st.text_input(
        "Modules to change in every layer",
        key="targets",
        bind="query-params",
        placeholder="PEFT's for the model's family",
        help="Names with commas between them; all-linear changes all but the head.",
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
    here = [EMBEDDED_MODEL, *packaged_here()]
    picked = st.selectbox("Model", [*here, OTHER_MODEL], key="model", bind="query-params", help=naming.HOW_TO_HAVE_MORE)
    if picked != OTHER_MODEL:
        return picked
    return naming.model_field(st, "Other model", key="other", placeholder="a hub id, a folder or a .gguf file") or EMBEDDED_MODEL


def computing() -> dict:
    numbers, where = st.columns(2)
    dtype = numbers.selectbox(
        "Numbers", get_args(Dtype), key="dtype", bind="query-params",
        help="What the frozen model computes in. auto is float32, and bfloat16 for a model of more than 500 million parameters where the device has it in hardware.",
    )  # fmt: skip
    device = where.text_input(
        "Device", key="device", bind="query-params", placeholder="the best here", help="cpu, cuda, cuda:1, mps."
    ).strip()
    return {"dtype": dtype, "device": device or None}


def free_name(queue: JobQueue, stem: str) -> str:
    """A name that begins so and is not taken yet."""
    taken = {*at_hand.list_runs()["name"], *unfinished()["name"], *(job.name for job in queue.all())}
    return next(name for i in range(1, 10_000) if (name := f"{stem[:50]}-{i}") not in taken)


def what_it_takes(config: TrainingConfig, limit: int) -> None:
    """Time, memory and parameters, before the start; of a model that a link alone names, nothing."""
    if config.model not in (EMBEDDED_MODEL, *PACKAGED) and naming.only_linked(config.model):
        naming.ask_about_link(config.model)
        return
    try:
        check_fits(config)
        st.markdown(" ".join(said_of(config, limit)))
    except InputError as error:
        widgets.refusal(error)


def said_of(config: TrainingConfig, limit: int) -> list[str]:
    """The same in sentences. Errors as `estimate`."""
    taken, learned, sentences = estimate(config, limit=limit, runs=at_hand.list_runs()), trainable_parameters(config), []
    if taken is None:
        sentences.append("How long it takes is not known before the model is at hand.")
    else:
        sentences.append(f"An estimate: **about {duration(taken.seconds)} and {taken.memory / 1e9:.1f} GB of memory**, from {taken.basis}.")
    if taken is not None and taken.computed_in[0] != "float32":
        sentences.append(f"The model computes in {taken.computed_in[0]}.")
    if learned is not None:
        sentences.append(f"{learned:,} parameters learn.")
    return sentences


def duration(seconds: float) -> str:
    """About how long, in words."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
