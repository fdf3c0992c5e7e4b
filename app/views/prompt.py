"""One prompt: what it does, its virtual tokens, whether the reading explains the behaviour, its answers, and how it was made."""

from typing import NoReturn

import streamlit as st

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.prompts.starts import recover_initial
from soft_prompt_explorer.app.pages import BEHAVIOUR, DOES, HERO, MADE, TOKENS, TRY
from soft_prompt_explorer.app.parts import choosing, naming, prompt_header, several, widgets
from soft_prompt_explorer.app.parts.geometry import show_geometry
from soft_prompt_explorer.app.parts.how_made import show_made
from soft_prompt_explorer.app.parts.prompt_on_page import PromptOnPage
from soft_prompt_explorer.app.parts.prompt_tabs import show_behaviour_tests, show_does, show_tokens, show_try
from soft_prompt_explorer.app.parts.take_away import offer_prompt
from soft_prompt_explorer.app.parts.token_readings import pick_part


def show_without_words(key: str, prompt: SoftPrompt) -> NoReturn:
    """All that can be said of rows that no word can be near to."""
    with widgets.on_its_own():
        prompt.check_is_embeddings()
    show_geometry(prompt)
    show_made(key, prompt)
    st.stop()


keys = choosing.prompt_keys()
key = prompt_header.pick(keys, HERO, name="prompt", noun="prompt")

with widgets.in_words():
    prompt = choosing.load_prompt(key)
    prompt_header.show_head(key, prompt)
    if not prompt.is_embeddings:
        show_without_words(key, prompt)
    actions = st.container(horizontal=True)
    with actions.popover("Read against another model", icon=":material/menu_book:"):
        named_model = naming.model_field(
            st, "Model", placeholder="the prompt's own model", key="model",
            help="Whose vocabulary: smollm2-135m, a hub id, or a folder or .gguf file on this machine.",
        )  # fmt: skip
    vocabulary = widgets.vocabulary(naming.model_for(key, prompt, named_model, otherwise=lambda: show_geometry(prompt)))
    parts = {part.name: part for part in several.started(prompt, vocabulary).split()}
    prompt = pick_part(key, parts)
    if prompt.initial is None and st.toggle(
        "Take the nearest words for the initial values", key="recover", bind="query-params",
        help="The file does not hold the values that training started from. Where most tokens are nearer to a word than chance allows, these words may serve; what rests on them is marked “recovered”.",
    ):  # fmt: skip
        with widgets.progress() as report:
            prompt = recover_initial(prompt, vocabulary, report=report)
    with actions:
        offer_prompt(key, prompt, vocabulary)

page = PromptOnPage(key, prompt, vocabulary)
does, tokens, behaviour, answers, made = widgets.tabs([DOES, TOKENS, BEHAVIOUR, TRY, MADE])
with does:
    if does.open:
        show_does(page, as_kept=len(parts) == 1 and "initial" not in prompt.metadata)
with tokens:
    if tokens.open:
        show_tokens(page)
with behaviour:
    if behaviour.open:
        show_behaviour_tests(page)
with answers:
    if answers.open:
        show_try(page)
with made:
    if made.open:
        show_made(key, prompt)
widgets.provenance([prompt], vocabulary.model)
