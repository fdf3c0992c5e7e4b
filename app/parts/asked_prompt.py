"""Which task a prompt is asked on, with which template and how many examples."""

from __future__ import annotations

import streamlit as st

from soft_prompt_explorer.analysis.behaviour.templates import how_asked
from soft_prompt_explorer.analysis.tasks.own_data import kept_tasks
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.prompt_header import run_of
from soft_prompt_explorer.app.parts.prompt_on_page import AskedPrompt, PromptOnPage
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour


def pick_task(page: PromptOnPage) -> AskedPrompt:
    """The prompt as the person wants the model to be asked about it; the rest of the page is left out where that is not known yet."""
    key, prompt, vocabulary = page.key, page.prompt, page.vocabulary
    prompt.check_is_one()
    prompt.check_width(vocabulary.width, vocabulary.model)
    prompt.check_is_causal()
    run = run_of(key)
    tasks = [*TASKS, *(task.name for task in kept_tasks())]
    own_task = None if run is None else run["task"]
    tasks = [own_task, *(name for name in tasks if name != own_task)] if own_task is not None else tasks
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    task_name = left.selectbox(
        "Asked on the task", tasks, index=0 if own_task is not None else None, key=f"task-of-{key}", bind="query-params", placeholder="pick its task",
        help="A run's own task is the first." if own_task is not None else "The file does not say which task it was trained on.",
    )  # fmt: skip
    limit = widgets.pick_examples(right, 200)
    if task_name is None:
        st.info("Pick the task that the prompt was trained on: the model is asked its held-out examples.", icon=":material/info:")
        st.stop()
    how = how_asked(None if run is None else prompt, task_name)
    as_trained = how.known and own_task is not None and kept_behaviour.task_of(key).name == how.task.name
    with st.expander("How it is asked", icon=":material/chat:", expanded=not how.known):
        written = st.text_area(
            "Template", value=how.task.template, height="content", key=f"template-{key}-{task_name}",
            help="The text that the model reads, with {input} where the example goes; the answer comes right after it.",
        )  # fmt: skip
        if written != how.task.template:
            how = how_asked(None, task_name, written)
            as_trained = False
        st.caption(f"The first example, {widgets.plain(how.example())}")
    available = len(how.task.examples("held-out"))
    if not available:
        st.info(f"{widgets.plain(how.task.name)} has no held-out examples to ask the model about.", icon=":material/info:")
        st.stop()
    yours = run is not None and run["origin"] == "yours"
    return AskedPrompt(key, prompt, vocabulary, how, limit=limit, available=available, as_trained=as_trained, yours=yours)
