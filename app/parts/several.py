"""Several prompts of one model: picked by the person, or all that are at hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import streamlit as st

from soft_prompt_explorer.analysis.adapters import SoftPrompt, distinct
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.search import LARGEST_VALUE
from soft_prompt_explorer.analysis.prompts.starts import names_start, start_from_config
from soft_prompt_explorer.app.pages import PROMPT, TOKENS
from soft_prompt_explorer.app.parts import choosing, naming, widgets
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.app.server.text import plain


def pick_prompts(label: str, *, of_task: str) -> tuple[list[SoftPrompt], Vocabulary]:
    """Ask for prompts of one model, remembered in the link, and read them and its vocabulary; the rest of the page is left out where that fails.

    Of a file of several prompts each is one of its own. Names are made distinct. At first those of one task that ship are picked.
    """
    keys = choosing.prompt_keys()
    missing = [
        label for label in st.query_params.get_all("prompts") if label and label not in map(choosing.prompt_label, keys)
    ]  # the link holds labels
    told = "missing-prompts"  # the link loses the names at the next run, and the person has not read about them yet
    if missing:
        st.session_state[told] = missing
    if told in st.session_state:
        st.warning(
            f"The link asks for {plain(', '.join(st.session_state[told]))}, which is not here: a run that was deleted, or a file opened in another session.",
            icon=":material/link_off:",
        )
    tasks = at_hand.list_runs().set_index("name")["task"]
    shipped = [
        key for key in keys if key not in choosing.opened() and choosing.own_model(key) == EMBEDDED_MODEL and tasks.get(key) == of_task
    ]
    picked = st.multiselect(
        label, keys, default=shipped or keys[:1], format_func=choosing.labels_of(keys), key="prompts", bind="query-params", placeholder="pick prompts", wrap=True,
        on_change=lambda: st.session_state.pop(told, None),
    )  # fmt: skip
    if not picked:
        st.info("Pick a prompt.", icon=":material/info:")
        st.stop()
    readable = _readable(picked)
    prompts: list[SoftPrompt] = []
    with widgets.in_words():
        models = {}
        for key, prompt in readable.items():
            models[naming.model_for(key, prompt)] = prompt.name
            prompts.append(prompt)
        if len(models) > 1:
            named = "; ".join(f"{name} on {model}" for model, name in list(models.items())[:4])
            raise InputError(
                f"These prompts were trained on different models ({named}), whose spaces have nothing in common; pick those of one."
            )
        if not prompts:
            st.stop()
        of_model = widgets.vocabulary(next(iter(models)))
        fit = left_out_unless(prompts, lambda prompt: prompt.check_width(of_model.width, of_model.model))
        if not fit:
            st.stop()
        return distinct([part for prompt in fit for part in started(prompt, of_model).split()]), of_model


def prompts_at_hand(vocabulary: Vocabulary) -> list[SoftPrompt]:
    """Every prompt of a vocabulary's model in the gallery, among the person's own and in the files opened; one that cannot be read is left out."""
    prompts: list[SoftPrompt] = []
    for key in choosing.prompt_choices():
        with suppress(InputError):
            if naming.said_model(key) == vocabulary.model:
                parts = started(choosing.load_prompt(key), vocabulary).split()
                prompts += [part for part in parts if part.width == vocabulary.width]
    return distinct([prompt for prompt in prompts if prompt.is_embeddings and _is_near_words(prompt)])


def keys_by_name(prompts: list[SoftPrompt], keys: list[str]) -> dict[str, str]:
    """Which of these keys opens each of these prompts, by the name that tables call it by. Of a file of several prompts the page opens the first, so the others have none."""
    of_rows: dict[bytes, str] = {}
    for key in keys:
        with suppress(InputError):
            of_rows.setdefault(choosing.load_prompt(key).split()[0].embeddings.tobytes(), key)
    return {prompt.name: of_rows[rows] for prompt in prompts if (rows := prompt.embeddings.tobytes()) in of_rows}


def link_to_prompt(name: str, keys: dict[str, str], **said: str) -> None:
    """A link to the tokens of a prompt of `keys_by_name`; none where it has no key.

    Parameters
    ----------
    said : what the link says beside.
    """
    if name in keys:
        query = {"prompt": keys[name], "tab": TOKENS, **said}
        st.page_link(PROMPT.file, label=f"Open {plain(name)}", icon=PROMPT.icon, query_params=query)


def of_this_session(prompts: list[SoftPrompt]) -> set[str]:
    """The names of those prompts that are in files opened in this session: they are in memory alone."""
    opened_prompts = [prompt for adapter in choosing.opened().values() if (prompt := choosing.prompt_of(adapter)) is not None]
    rows = {part.embeddings.tobytes() for prompt in opened_prompts for part in prompt.split()}
    return {prompt.name for prompt in prompts if prompt.embeddings.tobytes() in rows}


def started(prompt: SoftPrompt, read_against: Vocabulary) -> SoftPrompt:
    """The prompt with the start that its config names, where it names one and holds none; looked up once."""
    if prompt.initial is not None or not names_start(prompt):
        return prompt
    return _started(
        prompt.name, prompt.read_from.sha256, str(prompt.metadata), read_against.model, str(read_against.cache), prompt, read_against
    )


def left_out_unless(things: list, check: Callable) -> list:
    """The things that pass a check; of the others the page says why: one damaged file does not take the others with it."""
    passed, refused = [], []
    for thing in things:
        try:
            check(thing)
            passed.append(thing)
        except InputError as error:
            refused.append(error.worded("page"))
    if refused:
        more = f" So it is with {len(refused) - 1} more." if len(refused) > 1 else ""
        st.warning(f"Left out: {plain(refused[0])}{more}", icon=":material/report:")
    return passed


def _readable(keys: list[str]) -> dict[str, SoftPrompt]:
    """The prompts of these keys that can be read as words."""
    readable: dict[str, SoftPrompt] = {}

    def read(key: str) -> None:
        prompt = choosing.load_prompt(key)
        prompt.check_is_embeddings()
        readable[key] = prompt

    left_out_unless(keys, read)
    return readable


def _is_near_words(prompt: SoftPrompt) -> bool:
    """Whether its values are such as a word can be near to; one damaged run takes no others with it."""
    return all((np.abs(rows) <= LARGEST_VALUE).all() for rows in (prompt.embeddings, prompt.initial) if rows is not None)


@st.cache_resource(max_entries=64, show_spinner=False)
def _started(name: str, sha256: str, config: str, model: str, cache: str, _prompt: SoftPrompt, _vocabulary: Vocabulary) -> SoftPrompt:
    return start_from_config(_prompt, _vocabulary)
