"""Does the reading explain the behaviour? A prompt changed in every way, what the model makes of it inside, whether it can say it, and answers side by side."""

import streamlit as st

from soft_prompt_explorer.analysis.behaviour.templates import how_asked
from soft_prompt_explorer.analysis.tasks.own_data import kept_tasks
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.app.parts import choosing, naming, several, widgets
from soft_prompt_explorer.app.parts.behaviour_answers import show_answers
from soft_prompt_explorer.app.parts.behaviour_asking import measured, table_at_hand
from soft_prompt_explorer.app.parts.behaviour_inside import show_inside
from soft_prompt_explorer.app.parts.behaviour_interventions import show_interventions, show_verdict
from soft_prompt_explorer.app.parts.behaviour_token import show_token
from soft_prompt_explorer.app.parts.behaviour_words import show_words
from soft_prompt_explorer.app.parts.prompt_on_page import AskedPrompt
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour

VIEWS = ["Interventions", "One token", "Inside", "In words", "Answers"]

st.title("Behaviour")
keys = choosing.prompt_keys()
asked_for = st.query_params.get("prompt")
if asked_for is not None and asked_for not in map(choosing.prompt_label, keys):
    st.warning(f"The link asks for {widgets.plain(repr(asked_for))}, which is not here. Pick another.", icon=":material/link_off:")
left, middle, right = st.columns([3, 2, 1], vertical_alignment="bottom")
key = left.selectbox("Prompt", keys, format_func=choosing.labels_of(keys), key="prompt", bind="query-params")
runs = at_hand.list_runs().set_index("name")
tasks = [*TASKS, *(task.name for task in kept_tasks())]
own_task = runs["task"].get(key)
tasks = [own_task, *(name for name in tasks if name != own_task)] if own_task is not None else tasks
task_name = middle.selectbox(
    "Asked on the task", tasks, index=0 if own_task is not None else None, key=f"task-of-{key}", bind="query-params", placeholder="pick its task",
    help="A run's own task is the first." if own_task is not None else "The file does not say which task it was trained on.",
)  # fmt: skip
limit = widgets.pick_examples(right, 200)
with widgets.in_words():
    prompt = choosing.load_prompt(key)
    prompt.check_is_embeddings()
    prompt.check_is_one()
    vocabulary = widgets.vocabulary(naming.model_for(key, prompt))
    prompt.check_width(vocabulary.width, vocabulary.model)
    prompt.check_is_causal()
    prompt = several.started(prompt, vocabulary)
    if task_name is None:
        st.info("Pick the task that the prompt was trained on: the model is asked its held-out examples.", icon=":material/info:")
        st.stop()
    how = how_asked(prompt if key in runs.index else None, task_name)
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
    task, available = how.task, len(how.task.examples("held-out"))
if not available:
    st.info(f"{widgets.plain(task.name)} has no held-out examples to ask the model about.", icon=":material/info:")
    st.stop()
yours = key in runs.index and runs.loc[key, "origin"] == "yours"
asked = AskedPrompt(key, prompt, vocabulary, how, limit=limit, available=available, as_trained=as_trained, yours=yours)

view = st.segmented_control(
    "What to see", VIEWS, default=VIEWS[0], required=True, key="view", bind="query-params", label_visibility="collapsed"
)
made = table_at_hand(asked) if view != "Interventions" else measured(asked)
if made is not None:
    show_verdict(asked, made)
if view == "Interventions" and made is not None:
    show_interventions(asked, made)
elif view == "One token":
    position = int(st.number_input("Virtual token", 0, len(prompt) - 1, 0, key="token", bind="query-params"))
    show_token(asked, position, made)
elif view == "Inside":
    show_inside(asked)
elif view == "In words":
    show_words(asked, {each.name: each for each in [*TASKS.values(), task]})
elif view == "Answers":
    show_answers(asked)
widgets.provenance([prompt], vocabulary.model)
