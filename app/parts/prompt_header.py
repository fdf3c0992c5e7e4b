"""The head of a prompt's page: which prompt, what it is, whether it works, what it does and whether its words say so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.asking.scores import risen_loss
from soft_prompt_explorer.analysis.behaviour import kept_lens, kept_translation
from soft_prompt_explorer.analysis.behaviour.beyond_chance import is_beyond_chance
from soft_prompt_explorer.analysis.behaviour.difference_lens import LEVEL
from soft_prompt_explorer.analysis.behaviour.translation import what_it_does
from soft_prompt_explorer.analysis.core.words import counted
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.server import at_hand

WORDS = 3  # that it pushes towards


def pick(keys: list[str], first: str, *, name: str, noun: str) -> str:
    """The title of a page, and the choice beside it: the one that a page is about: the link's, else the one that was looked at last; the rest of the page is left out until one is picked.

    Parameters
    ----------
    keys : of all that can be picked.
    first : the one to begin with, where it is there.
    name : of the link's parameter: `prompt` or `lora`.
    noun : what the person picks.
    """
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    heading = left.empty()
    with right:
        key = _picked(keys, first, name=name, noun=noun)
    heading.title(widgets.plain(choosing.prompt_label(key)), anchor=False)
    widgets.tab_title(choosing.prompt_label(key))
    return key


def _picked(keys: list[str], first: str, *, name: str, noun: str) -> str:
    asked, last = st.query_params.get(name), f"last_{name}"
    if asked is not None and asked not in keys:
        st.warning(
            f"The link asks for {widgets.plain(repr(asked))}, which is not here: a run that was deleted, or a file opened in another session. Pick another.",
            icon=":material/link_off:",
        )
    before = next(key for key in (st.session_state.get(last), first, keys[0]) if key in keys)
    widgets.follow_link(name, dict(zip(keys, keys, strict=True)), None if asked is not None else before)
    key = st.selectbox(
        f"Another {noun}", keys, index=None, format_func=choosing.labels_of(keys), placeholder=f"pick a {noun}", key=f"linked-{name}"
    )
    if key is None:
        st.info(f"Pick a {noun} to read it.", icon=":material/info:")
        st.stop()
    st.session_state[last] = key
    widgets.say_in_link(name, key)
    return key


def run_of(key: str) -> pd.Series | None:
    """The row of `store.list_runs` of a run of this machine; None of a file."""
    runs = at_hand.list_runs().set_index("name")
    return runs.loc[key] if key not in choosing.opened() and key in runs.index else None


def show_head(key: str, adapter: SoftPrompt | LoraAdapter) -> None:
    """What it is and, in three short sentences, what is known of it."""
    run = run_of(key)
    size = counted(len(adapter), "virtual token" if isinstance(adapter, SoftPrompt) else "module")
    facts = [size]
    if run is not None:
        facts = [
            f"task {widgets.plain(run['task'])}",
            *facts,
            f"{run['method']} of {widgets.plain(run['model'])}",
            f"{run['steps']:,.0f} steps, seed {run['seed']:.0f}",
        ]
    else:
        facts += [
            widgets.plain(adapter.read_from.format),
            f"trained on {widgets.plain(adapter.base_model)}" if adapter.base_model else "its model is not named",
        ]
    st.caption(" · ".join(facts))
    lines = [line for line in (None if run is None else works(run), does(adapter)) if line is not None]
    if lines:
        st.markdown("\n".join(f"- {line}" for line in lines))


def works(run: pd.Series) -> str | None:
    """Whether it does its task better than no prompt, from its row of `store.list_runs`."""
    scores = read_description(Path(run["path"]))["scores"]
    return gain(scores["no prompt"], scores["trained"]) if {"no prompt", "trained"} <= set(scores) else None


def gain(bare: Mapping, trained: Mapping) -> str:
    """Two held-out scores in a sentence, and one more where the loss rose. A gain or a harm counts as shown only where their 95 % intervals do not overlap, which is stricter than a
    paired test.

    Parameters
    ----------
    bare, trained : without it and with it: measure, score, low, high, n and loss.
    """
    shown = "It works" if trained["low"] > bare["high"] else "No gain is shown beyond the intervals"
    if trained["high"] < bare["low"]:
        shown = "It does harm"
    before, after = (f"{each['score']:.0%} ({each['low']:.0%} to {each['high']:.0%})" for each in (bare, trained))
    scores = f"**{shown}:** held-out {widgets.plain(trained['measure'])} {before} without it, {after} with it, n {trained['n']:,.0f}."
    worse = risen_loss(bare, trained)
    return scores if worse is None else f"{scores} {worse}"


def does(adapter: SoftPrompt | LoraAdapter) -> str | None:
    """What it does in the words that are kept with its run, in brief: the evidence stands below the first tab."""
    texts = kept_translation.kept_with(adapter)
    told = kept_lens.kept_with(adapter)
    if texts is None and told is None:
        return None
    label = "What it does" if texts is not None and what_it_does(texts) is not None else "What is seen of it"
    return f"**{label}:** {widgets.plain(in_brief(texts, told))}."


def in_brief(texts: pd.DataFrame | None, told: kept_lens.Told | None) -> str:
    """What it does, in a dozen words: the text that does most of it, else the words that it pushes the model towards.

    Parameters
    ----------
    texts : of `analysis.behaviour.translation.translate`.
    told : what the lens and the effect say.
    """
    said = None if texts is None else what_it_does(texts)
    if said is not None:
        verb = "does" if said["candidate"] == "1 example" else "do"
        return f"{said['candidate']} in its place {verb} {said['share']:.0%} of it; the best control {said['control_share']:.0%}"
    if told is None:
        return "no text that was tried says it"
    if not is_beyond_chance(told.effect).iloc[0]:
        return "it changes no more than chance does"
    beyond = told.last[told.last["q"] < LEVEL]
    beyond = beyond.assign(token=beyond["token"].str.strip()).drop_duplicates("token").head(WORDS)
    if not len(beyond):
        return "it changes more than chance, towards no word that stands out"
    return f"it pushes the model towards {', '.join(beyond['token'])}{_of_twin(beyond)}"


def _of_twin(beyond: pd.DataFrame) -> str:
    """Which of these words its twin is pushed towards as well: the form of the answers, which nobody knows of without a twin."""
    if beyond["twin_p"].isna().any():
        return "; no twin is at hand"
    shared = beyond.loc[beyond["twin_p"] < LEVEL, "token"]
    return "" if not len(shared) else "; its twin too" if len(shared) == len(beyond) else f"; its twin too towards {', '.join(shared)}"
