"""What the pages share: the prompts that can be picked, the export buttons, the line that says where figures come from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pandas as pd
import streamlit as st

from analysis.adapters import LoraAdapter, SoftPrompt, distinct, load_soft_prompt
from analysis.adapters import load_lora as read_lora
from analysis.core import export
from analysis.core.errors import AdapterError, InputError, ModelError
from analysis.core.progress import Report
from analysis.models import hub
from analysis.models.embedded import EMBEDDED_ALIASES, EMBEDDED_MODEL, EMBEDDED_WIDTH
from analysis.models.gemma import GEMMA_MODEL
from analysis.models.names import default_model, is_at_hand, is_hub_id
from analysis.models.vocabulary import Vocabulary
from analysis.models.weights import is_prepared
from analysis.prompts.neighbours import LARGEST_VALUE
from analysis.prompts.readings import VERDICTS
from analysis.prompts.starts import names_start, plain_verdict, start_from_config
from app.charts.theme import VERDICT_MARKS, verdict_label
from app.server import at_hand
from app.server.allowed import may_be_linked
from app.server.jobs import JobQueue
from app.server.text import plain
from trained_prompts.runs import store

# The command line's options in a refusal, and what they are called on the pages.
OPTIONS = {"--model": "the field “Model”", "--init-text": "the text to start from"}
_FORMS = {
    "csv": ("CSV", "text/csv"),
    "parquet": ("Parquet", "application/vnd.apache.parquet"),
    "json": ("JSON", "application/json"),
    "md": ("Markdown", "text/markdown"),
}


@st.cache_resource
def job_queue() -> JobQueue:
    """The one queue of this server."""
    return JobQueue()


def refusal(error: InputError) -> None:
    """A refusal as a sentence, the command line's options by the names that they have on the page."""
    sentence = str(error)
    for option, words in OPTIONS.items():
        sentence = sentence.replace(option, words)
    st.error(plain(sentence), icon=":material/error:")


@contextmanager
def in_words() -> Iterator[None]:
    """Show refused input as a sentence where the person is, and leave the rest of the page out."""
    try:
        yield
    except InputError as error:
        refusal(error)
        st.stop()


def opened() -> dict[str, SoftPrompt | LoraAdapter]:
    """What this person opened from files, by key; kept for the session."""
    return st.session_state.setdefault("opened", {})


def open_adapter(adapter: SoftPrompt | LoraAdapter) -> str:
    """Keep what was read from a file for the session; answers the key that links use."""
    key = f"file-{adapter.source.sha256[:10]}"
    opened()[key] = adapter
    return key


def prompt_of(adapter: SoftPrompt | LoraAdapter) -> SoftPrompt | None:
    """The virtual tokens in what was opened: of a LoRA, the new words that came with it."""
    return adapter if isinstance(adapter, SoftPrompt) else adapter.textual_inversion


def prompt_choices() -> list[str]:
    """The keys of every prompt at hand: opened files first, then the person's kept files and runs, then the gallery."""
    return _choices([key for key, adapter in opened().items() if prompt_of(adapter) is not None], lora=False)


def lora_choices() -> list[str]:
    """The keys of every LoRA at hand, in the order of `prompt_choices`."""
    return _choices([key for key, adapter in opened().items() if isinstance(adapter, LoraAdapter)], lora=True)


def _choices(files: list[str], *, lora: bool) -> list[str]:
    runs, kept = at_hand.list_runs(), at_hand.list_kept()
    runs = runs[runs["method"].isin(["lora"] if lora else ["prompt-tuning", "p-tuning"])]
    kept = kept[(kept["kind"] == "lora") == lora]
    yours, shipped = runs[runs["origin"] == "yours"], runs[runs["origin"] == "gallery"]
    if lora:
        shipped = shipped.sort_values(["task", "rank"], ascending=[False, True])
    return [*files, *kept["name"], *yours.sort_values("created", ascending=False)["name"], *shipped["name"]]


def prompt_keys() -> list[str]:
    """`prompt_choices`; where there is none, what to do, and the rest of the page is left out."""
    keys = prompt_choices()
    if not keys:
        st.info("There is no prompt to read yet: train one on the Train page, or open a file on the Open page.", icon=":material/info:")
        st.stop()
    return keys


def note_left_out() -> None:
    """A quiet line on the person's own runs and files that no list holds, and why."""
    sentences = list(at_hand.left_out().values())
    if sentences:
        more = f" So it is with {len(sentences) - 1} more; `python -m trained_prompts list` names them." if len(sentences) > 1 else ""
        st.caption(f":material/report: Left out: {plain(sentences[0])}{more}")


def load_lora(key: str) -> LoraAdapter:
    if key in opened():
        return opened()[key]
    path = store.adapter_path(key)
    return _read_lora(str(path), path.stat().st_mtime_ns)


def prompt_label(key: str) -> str:
    return f"{opened()[key].name} (your file)" if key in opened() else key


def labels_of(keys: list[str]) -> Callable[[str], str]:
    """What the keys are called in a choice, looked up now: a widget may ask for it again where there is no session."""
    return {key: prompt_label(key) for key in keys}.__getitem__


def load_prompt(key: str) -> SoftPrompt:
    if key in opened():
        return prompt_of(opened()[key])
    path = store.adapter_path(key)
    return _read_run(str(path), path.stat().st_mtime_ns)


def own_model(key: str) -> str | None:
    """The model that a run of this machine says it was trained on; None for a stranger's file, whose word is not taken for a path."""
    return None if key in opened() else store.own_model(key)


def _models_named() -> dict[str, str]:
    """The models that this person named for files which do not say their own, by key; kept for the session."""
    return st.session_state.setdefault("models", {})


def asked_models() -> set[str]:
    """The names of models that this person typed, or pressed a button to use; kept for the session."""
    return st.session_state.setdefault("asked_models", set())


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


def may_be_fetched(model: str, what: str) -> bool:
    """Whether what `what` names of a model is on this machine, or its person asked for it to be fetched; else the page asks.

    Parameters
    ----------
    what : `the vocabulary` (tokenizer and input embeddings), or `the model` with all its weights.
    """
    if not is_hub_id(model) or model in (*EMBEDDED_ALIASES, GEMMA_MODEL) or (what, model) in asked_fetches():
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


def asked_fetches() -> set[tuple[str, str]]:
    """What this person asked to be fetched, and of which model; kept for the session."""
    return st.session_state.setdefault("asked_fetches", set())


def _ask_for_model(key: str, prompt: SoftPrompt) -> None:
    """A field for the model that a file was trained on; the rest of the page is left out until it is named."""
    named = st.text_input(
        f"Model of {plain(prompt.name)}",
        key=f"model-of-{key}",
        placeholder=f"{EMBEDDED_MODEL}, a hub id, or a folder or .gguf file on this machine",
    ).strip()
    if named:
        _models_named()[key] = named
        st.rerun()
    st.stop()


def model_for(key: str, prompt: SoftPrompt, named: str | None = None) -> str:
    """The model whose vocabulary a prompt is read against: the one named on the page, a run's own, or the file's word, asking before anything is fetched.

    Where no model goes with a file, the page says why and asks for one, and its rest is left out.
    """
    if named:
        if only_linked(named):
            ask_about_link(named)
            st.stop()
        return named
    if known := own_model(key):
        if not may_be_fetched(known, "the vocabulary"):
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
        _ask_for_model(key, prompt)
    try:
        with progress() as report:
            model = default_model(prompt.base_model, prompt.width, report=report)
        if model == EMBEDDED_MODEL and prompt.kind != "prefix":
            prompt.check_width(EMBEDDED_WIDTH, model)
        return model
    except (ModelError, AdapterError) as error:
        refusal(error)
        _ask_for_model(key, prompt)


def pick_prompts(label: str, *, at_least: int = 1) -> tuple[list[SoftPrompt], Vocabulary]:
    """Ask for prompts of one model, remembered in the link, and read them and its vocabulary; the rest of the page is left out where that fails.

    Of a file of several prompts each is one of its own. Names are made distinct.
    """
    keys = prompt_keys()
    missing = [
        label for label in st.query_params.get_all("prompts") if label and label not in map(prompt_label, keys)
    ]  # the link holds labels
    told = f"missing-{at_least}"  # the link loses the names at the next run, and the person has not read about them yet
    if missing:
        st.session_state[told] = missing
    if told in st.session_state:
        st.warning(
            f"The link asks for {plain(', '.join(st.session_state[told]))}, which is not here: a run that was deleted, or a file opened in another session.",
            icon=":material/link_off:",
        )
    shipped = [key for key in keys if key not in opened() and own_model(key) == EMBEDDED_MODEL]
    picked = st.multiselect(
        label, keys, default=shipped or keys[:1], format_func=labels_of(keys), key="prompts", bind="query-params", placeholder="pick prompts",
        on_change=lambda: st.session_state.pop(told, None),
    )  # fmt: skip
    if len(picked) < at_least:
        st.info(f"Pick {at_least} or more prompts of one model." if at_least > 1 else "Pick a prompt.", icon=":material/info:")
        st.stop()
    readable = _readable(picked)
    prompts: list[SoftPrompt] = []
    with in_words():
        models = {}
        for key, prompt in readable.items():
            models[model_for(key, prompt)] = prompt.name
            prompts.append(prompt)
        if len(models) > 1:
            named = "; ".join(f"{name} on {model}" for model, name in list(models.items())[:4])
            raise InputError(
                f"These prompts were trained on different models ({named}), whose spaces have nothing in common; pick those of one."
            )
        if len(prompts) < at_least:
            st.stop()
        of_model = vocabulary(next(iter(models)))
        fit = left_out_unless(prompts, lambda prompt: prompt.check_width(of_model.width, of_model.model))
        if len(fit) < at_least:
            st.stop()
        return distinct([part for prompt in fit for part in started(prompt, of_model).split()]), of_model


def _readable(keys: list[str]) -> dict[str, SoftPrompt]:
    """The prompts of these keys that can be read as words."""
    readable: dict[str, SoftPrompt] = {}

    def read(key: str) -> None:
        prompt = load_prompt(key)
        prompt.check_is_embeddings()
        readable[key] = prompt

    left_out_unless(keys, read)
    return readable


def left_out_unless(things: list, check: Callable) -> list:
    """The things that pass a check; of the others the page says why: one damaged file does not take the others with it."""
    passed, refused = [], []
    for thing in things:
        try:
            check(thing)
            passed.append(thing)
        except InputError as error:
            refused.append(str(error))
    if refused:
        more = f" So it is with {len(refused) - 1} more." if len(refused) > 1 else ""
        st.warning(f"Left out: {plain(refused[0])}{more}", icon=":material/report:")
    return passed


def pick_examples(place, count: int, *, key: str = "examples", note: str = "") -> int:
    """How many held-out examples are asked."""
    what = f"The first so many held-out ones{'; ' if note else ''}{note}"
    return int(place.number_input("Examples", 10, 2000, count, step=10, key=key, bind="query-params", help=what))


def prompts_at_hand(model: str) -> list[SoftPrompt]:
    """Every prompt of a model in the gallery, among the person's own and in the files opened; one that cannot be read is left out."""
    prompts: list[SoftPrompt] = []
    for key in prompt_choices():
        with suppress(InputError):
            if said_model(key) == model:
                prompts += [part for part in started(load_prompt(key), vocabulary(model)).split() if part.width == vocabulary(model).width]
    return distinct([prompt for prompt in prompts if prompt.kind != "prefix" and _is_near_words(prompt)])


def _is_near_words(prompt: SoftPrompt) -> bool:
    """Whether its values are such as a word can be near to; one damaged run takes no others with it."""
    return all((np.abs(rows) <= LARGEST_VALUE).all() for rows in (prompt.embeddings, prompt.initial) if rows is not None)


def of_this_session(prompts: list[SoftPrompt]) -> set[str]:
    """The names of those prompts that are in files opened in this session: they are in memory alone."""
    opened_prompts = [prompt for adapter in opened().values() if (prompt := prompt_of(adapter)) is not None]
    rows = {part.embeddings.tobytes() for prompt in opened_prompts for part in prompt.split()}
    return {prompt.name for prompt in prompts if prompt.embeddings.tobytes() in rows}


def started(prompt: SoftPrompt, read_against: Vocabulary) -> SoftPrompt:
    """The prompt with the start that its config names, where it names one and holds none; looked up once."""
    if prompt.initial is not None or not names_start(prompt):
        return prompt
    return _started(
        prompt.name, prompt.source.sha256, str(prompt.metadata), read_against.model, str(read_against.cache), prompt, read_against
    )


@st.cache_resource(max_entries=64, show_spinner=False)
def _started(name: str, sha256: str, config: str, model: str, cache: str, _prompt: SoftPrompt, _vocabulary: Vocabulary) -> SoftPrompt:
    return start_from_config(_prompt, _vocabulary)


def said_model(key: str) -> str | None:
    """The model that a prompt says it was trained on, nothing fetched; None where it says none, or a path, which is not followed in a stranger's file."""
    try:
        known = _models_named().get(key) or own_model(key)
        said = known or load_prompt(key).base_model
    except InputError:
        return None
    if said in EMBEDDED_ALIASES:
        return EMBEDDED_MODEL
    return said if known or (said is not None and is_hub_id(said)) else None


def content_of(prompts: list[SoftPrompt]) -> tuple:
    """What tells these prompts from any others, for the key of what is computed from them."""
    return tuple(
        (
            prompt.name,
            hashlib.sha256(prompt.embeddings.tobytes() + (b"" if prompt.initial is None else prompt.initial.tobytes())).hexdigest(),
        )
        for prompt in prompts
    )


@st.cache_resource(max_entries=64, show_spinner=False)
def _read_run(path: str, changed: int) -> SoftPrompt:
    return load_soft_prompt(path)


@st.cache_resource(max_entries=16, show_spinner=False)
def _read_lora(path: str, changed: int) -> LoraAdapter:
    return read_lora(path)


def vocabulary(model: str) -> Vocabulary:
    """The vocabulary of a model; the first time it is read, with progress."""
    with progress() as report:
        return at_hand.vocabulary(model, report=report)


@contextmanager
def progress() -> Iterator[Report]:
    """A progress bar that appears once something reports and goes when the block ends."""
    place = st.empty()
    try:
        yield lambda share, doing: place.progress(min(max(share, 0.0), 1.0), text=plain(doing))
    finally:
        place.empty()


def file_name(name: str) -> str:
    """What is called so, as a file's name."""
    return re.sub(r"[^\w.-]+", "-", name)


def download_buttons(table: pd.DataFrame, name: str) -> None:
    """CSV, Parquet, JSON and Markdown of a table, made when clicked: the same bytes as the command line's."""
    with st.container(horizontal=True):
        for form, writer in export.WRITERS.items():
            label, mime = _FORMS[form]
            st.download_button(
                label,
                data=lambda writer=writer: writer(table),
                file_name=f"{file_name(name)}.{form}",
                mime=mime,
                on_click="ignore",
                icon=":material/download:",
                key=f"download-{name}-{form}",
                help=f"{len(table):,} rows as {label}",
            )


def verdict_column(verdicts: pd.Series, label: str = "verdict", *, pinned: bool = False):
    """The cells and the column of verdicts: each in words, with its shape and its colour."""
    cells = verdicts.map(lambda verdict: [verdict_label(verdict)])
    labels = {
        verdict_label(verdict): VERDICT_MARKS[plain_verdict(verdict)][0] + "60" for verdict in verdicts.unique()
    }  # pale: the words stay readable
    column = st.column_config.MultiselectColumn(
        label, options=list(labels), color=list(labels.values()), pinned=pinned, help="  \n".join(f"**{name}**: {text}" for name, text in VERDICTS.items())
    )  # fmt: skip
    return cells.to_numpy(), column


def table_height(rows: int) -> int | str:
    """The height of a table that shows all its rows, up to sixteen of them, and scrolls beyond."""
    return "content" if rows <= 16 else 560


def provenance(prompts: list[SoftPrompt], model: str) -> None:
    """Where the figures of a page come from."""
    files = {
        f"{plain(prompt.name)}: {prompt.source.format}, {prompt.source.dtype}, sha256 {prompt.source.sha256[:12]}…"
        for prompt in prompts
        if prompt.source
    }
    shown = sorted(files)[:3]
    more = [f"{len(files) - 3} more files"] if len(files) > 3 else []
    st.caption(" · ".join([*shown, *more, f"vocabulary of {plain(model)}", "searches are exact"]))


def read_losses(name: str) -> pd.DataFrame:
    """`store.read_losses`, read once."""
    path = store.find(name)
    return _read_losses(name, str(path), path.stat().st_mtime_ns)


@st.cache_data(max_entries=64, show_spinner=False)
def _read_losses(name: str, path: str, changed: int) -> pd.DataFrame:
    return store.read_losses(name)


def model_note() -> None:
    """Say so where the embedded model has still to be made ready."""
    if not is_prepared(EMBEDDED_MODEL):
        st.info(
            f"The first training unpacks {EMBEDDED_MODEL}, which takes about a minute; after that it loads in a second.",
            icon=":material/hourglass_top:",
        )
