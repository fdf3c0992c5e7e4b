"""Which model a prompt is read against, and what may be fetched of it: nothing on the word of a link or of a stranger's file alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import streamlit as st

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import AdapterError, InputError, ModelError
from soft_prompt_explorer.analysis.core.words import listed
from soft_prompt_explorer.analysis.models import hub
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_ALIASES, EMBEDDED_MODEL, EMBEDDED_WIDTH
from soft_prompt_explorer.analysis.models.names import default_model, is_at_hand, is_hub_id
from soft_prompt_explorer.analysis.models.packaged import PACKAGED
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.server.allowed import may_be_linked
from soft_prompt_explorer.app.server.text import plain

HOW_TO_HAVE_MORE = listed([f"{name} is here after `make {packaged.target}`" for name, packaged in PACKAGED.items()]) + "."


def model_field(place, label: str, *, key: str, **options) -> str:
    """A field for the name of a model. A link may fill it in, so what stands there need not be what its person asked for: see `only_linked`."""

    def typed() -> None:
        asked_models().add(st.session_state[key].strip())

    return place.text_input(label, key=key, bind="query-params", on_change=typed, **options).strip()


def only_linked(model: str) -> bool:
    """Whether a model is named by a link alone that may not name it: nothing is fetched then, and nothing looked at."""
    return model not in asked_models() and not may_be_linked(model)


def ask_about_link(model: str) -> None:
    """Say what a link does not do by itself, in the same words whether there is such a model or not, and ask."""
    st.info(f"The link names the model {plain(model[:200])}. A link alone fetches nothing and opens no folder.", icon=":material/link_off:")
    if st.button("Use this model", key=f"use-{model}", icon=":material/check:"):
        asked_models().add(model)
        st.rerun()


def vocabulary_is_here(model: str) -> bool:
    """Whether a model's vocabulary is on this machine, so that nothing has to be asked."""
    return not is_hub_id(model) or model in (*EMBEDDED_ALIASES, *PACKAGED) or is_at_hand(model)


def may_be_fetched(model: str, what: str) -> bool:
    """Whether what `what` names of a model is on this machine, or its person asked for it to be fetched; else the page asks.

    Parameters
    ----------
    what : `the vocabulary` (tokenizer and input embeddings), or `the model` with all its weights.
    """
    if not is_hub_id(model) or model in (*EMBEDDED_ALIASES, *PACKAGED) or (what, model) in asked_fetches():
        return True
    if is_at_hand(model) if what == "the vocabulary" else hub.whole_snapshot(model) is not None:
        return True
    st.info(
        f"This asks for {what} of {plain(model)}, which is not on this machine. Fetching it asks the model hub for "
        f"{'that model’s tokenizer and input embeddings, and for nothing else' if what == 'the vocabulary' else 'all of that model’s weights'}.",
        icon=":material/cloud_download:",
    )
    if st.button(f"Fetch {what}", type="primary", key=f"fetch-{what}-{model}", icon=":material/cloud_download:"):
        asked_fetches().add((what, model))
        st.rerun()
    return False


def model_for(key: str, prompt: SoftPrompt, named: str | None = None, *, otherwise: Callable[[], None] = lambda: None) -> str:
    """The model whose vocabulary a prompt is read against: the one named on the page, a run's own, or the file's word, asking before anything is fetched.

    Where no model goes with a file, the page says why and asks for one, and its rest is left out.

    Parameters
    ----------
    otherwise : shows what the page has to show without a model.
    """
    if named:
        if only_linked(named):
            ask_about_link(named)
            otherwise()
            st.stop()
        return named
    if known := choosing.own_model(key):
        if not may_be_fetched(known, "the vocabulary"):
            otherwise()
            st.stop()
        return known
    if key in _models_named():
        model = _models_named()[key]
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"You named {plain(model)} as the model of {plain(prompt.name)}.")
            if st.button("Name another", key=f"another-model-{key}", type="tertiary", icon=":material/edit:"):
                del _models_named()[key]
                st.session_state.pop(f"model-of-{key}", None)  # else the field comes back filled in, and answers for itself
                st.rerun()
        return model
    if prompt.base_model is not None and not may_be_fetched(prompt.base_model, "the vocabulary"):
        _ask_for_model(key, prompt, otherwise)
    try:
        with widgets.progress() as report:
            model = default_model(prompt.base_model, prompt.width, report=report)
        if model == EMBEDDED_MODEL and prompt.is_embeddings:
            prompt.check_width(EMBEDDED_WIDTH, model)
        return model
    except (ModelError, AdapterError) as error:
        widgets.refusal(error)
        _ask_for_model(key, prompt, otherwise)


def about_words(prompt: SoftPrompt) -> str:
    """Whether a file's virtual tokens can be read as words on this machine, in a sentence or two; nothing is fetched for it."""
    if not prompt.is_embeddings:
        return "No word can be near to its rows, since they are no input embeddings. Its page shows their geometry."
    if prompt.base_model is not None and not vocabulary_is_here(prompt.base_model):
        return (
            f"Its words cannot be read yet: the vocabulary of {plain(prompt.base_model)} is not on this machine. "
            "Its page shows its geometry, and asks before it fetches anything."
        )
    try:
        model = default_model(prompt.base_model, prompt.width)
        prompt.check_width(widgets.vocabulary(model).width, model)
    except InputError:
        return f"Its words cannot be read yet: no vocabulary {prompt.width} wide is known to be its own. Its page shows its geometry, and asks for its model."
    return f"Its words can be read, against the vocabulary of {plain(model)}."


def said_model(key: str) -> str | None:
    """The model that a prompt says it was trained on, nothing fetched; None where it says none, or a path, which is not followed in a stranger's file."""
    try:
        known = _models_named().get(key) or choosing.own_model(key)
        said = known or choosing.load_prompt(key).base_model
    except InputError:
        return None
    if said in EMBEDDED_ALIASES:
        return EMBEDDED_MODEL
    return said if known or (said is not None and is_hub_id(said)) else None


def asked_models() -> set[str]:
    """The names of models that this person typed, or pressed a button to use; kept for the session."""
    return st.session_state.setdefault("asked_models", set())


def asked_fetches() -> set[tuple[str, str]]:
    """What this person asked to be fetched, and of which model; kept for the session."""
    return st.session_state.setdefault("asked_fetches", set())


def _models_named() -> dict[str, str]:
    """The models that this person named for files which do not say their own, by key; kept for the session."""
    return st.session_state.setdefault("models", {})


def _ask_for_model(key: str, prompt: SoftPrompt, otherwise: Callable[[], None]) -> NoReturn:
    """A field for the model that a file was trained on; the rest of the page is left out until it is named."""
    named = st.text_input(
        f"Model of {plain(prompt.name)}",
        key=f"model-of-{key}",
        placeholder="a hub id, a folder or a .gguf file",
        help=f"Whose vocabulary: {EMBEDDED_MODEL}, a hub id, or a folder or .gguf file on this machine.",
    ).strip()
    if named:
        _models_named()[key] = named
        st.rerun()
    otherwise()
    st.stop()
