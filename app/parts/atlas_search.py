"""The search box on the map: which virtual tokens, in whose prompts, resemble a word, or a virtual token, more than chance allows."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.core.words import listed, shown
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.words import forms
from soft_prompt_explorer.analysis.prompts.over_prompts import TokenIndex, token_index
from soft_prompt_explorer.analysis.prompts.verdicts import LEVEL
from soft_prompt_explorer.app.pages import PROMPT, TOKENS
from soft_prompt_explorer.app.parts import choosing, naming, several, widgets
from soft_prompt_explorer.app.parts.chosen import Chosen
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.server.background import computed

SHOWN = 20
A_WORD, A_TOKEN = "a word", "a virtual token"


class Asked(NamedTuple):
    """What is searched for.

    Attributes
    ----------
    name : in words.
    wanted : the token ids of a word's forms; none where a virtual token is searched for.
    itself : the prompt's key and the position of the virtual token.
    """

    name: str
    wanted: list[int]
    itself: tuple[str, int] | None


def search_box(vocabulary: Vocabulary) -> Asked | None:
    """A word to search for, or a virtual token; None while there is none."""
    by = st.session_state.get("by", st.query_params.get("by", A_WORD))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if by == A_TOKEN:
            keys = choosing.prompt_keys()
            key = st.selectbox("Like a token of", keys, format_func=choosing.labels_of(keys), key="prompt", bind="query-params")
            part = choosing.load_prompt(key).split()[0]
            position = st.number_input("Token", 0, len(part) - 1, 0, key="token", bind="query-params", width=110)
        else:
            word = st.text_input(
                "Search for tokens like a word", key="word", bind="query-params", placeholder="a word, such as river"
            ).strip()
        with st.popover("By", help="Search by a word, or by a virtual token"):
            st.segmented_control("Search for tokens like", [A_WORD, A_TOKEN], default=A_WORD, required=True, key="by", bind="query-params")
    if by == A_TOKEN:
        return Asked(f"virtual token {position} of {part.name}", [], (key, int(position)))
    if not word:
        return None
    wanted = forms(vocabulary, word)
    said = [repr(vocabulary.tokens[i]) for i in wanted]
    how = "with a space before it and without" if len(said) == 2 else "the one form that is a token"
    st.caption(widgets.plain(f"Searched as {listed(said)}, {how}."))
    return Asked(f"the word {word!r}", wanted, None)


def show_found(asked: Asked, vocabulary: Vocabulary, tokens: pd.DataFrame, chosen: Chosen) -> None:
    """The tokens at hand that resemble it most, how far beyond chance, and those of them that are on the map to be selected there.

    Parameters
    ----------
    tokens : those on the map: prompt and position.
    """
    prompts = several.prompts_at_hand(vocabulary)
    in_memory = several.of_this_session(prompts)  # asked here: the thread that computes is of no session
    index = computed(
        ("index", vocabulary.model, str(vocabulary.cache), choosing.content_of(prompts)),
        "the index of every virtual token at hand",
        lambda report: token_index(prompts, vocabulary, in_memory=in_memory, report=report),
    )
    if index is None:
        return
    found = _searched(asked, index, vocabulary)
    if not len(found):
        st.info("There is no other virtual token of this model at hand.", icon=":material/info:")
        return
    _say(asked, found, len(index))
    here = tokens.reset_index().set_index(["prompt", "position"])["index"]
    places = [here.get((row.prompt, row.position)) for row in found.itertuples()]
    on_map = sorted(int(i) for i in places if i is not None)
    if on_map and st.button(f"Select the {len(on_map)} that are on the map", icon=":material/my_location:", key="select-found"):
        chosen.choose(on_map, by="search")
        st.rerun(scope="fragment")
    keys = several.keys_by_name(prompts, choosing.prompt_choices())
    with st.container(key="found"):
        _show(asked, found)
    if opened := st.session_state.get("open-found"):
        hit = found.iloc[opened["row"]]
        if hit["prompt"] in keys:
            st.switch_page(PROMPT.file, query_params={"prompt": keys[hit["prompt"]], "tab": TOKENS, "token": str(hit["position"])})
    st.caption("Click a prompt to open it at that token.")
    how = "each is compared" if index.exact else f"an inverted file, which finds {index.recall:.0%} of the true ten nearest"
    st.caption(
        f"{len(index):,} virtual tokens of {index.tokens['prompt'].nunique()} prompts: {how}. Ordered by z and not by score: some tokens resemble every word a little.",
        help="A token may resemble a word or another token only because it started there.",
    )


def _searched(asked: Asked, index: TokenIndex, vocabulary: Vocabulary) -> pd.DataFrame:
    if asked.itself is None:
        return index.search_word(asked.wanted, SHOWN)
    key, position = asked.itself
    prompt = choosing.load_prompt(key)
    prompt.check_is_embeddings()
    prompt = prompt.split()[0]
    if (
        naming.said_model(key) or naming.model_for(key, prompt)
    ) != vocabulary.model:  # what a run says is enough: nothing is fetched for it
        st.info(
            f"That prompt is of another model than those on the map, which is of {widgets.plain(vocabulary.model)}.", icon=":material/info:"
        )
        return pd.DataFrame()
    return index.search(prompt.embeddings[position], SHOWN, itself=(prompt.name, position))


def _say(asked: Asked, found: pd.DataFrame, count: int) -> None:
    """How many of them resemble it beyond chance, and how many only because they began there."""
    likened = "words of like frequency" if asked.itself is None else "vectors drawn like the virtual tokens at hand"
    alike, best = found[found["q_chance"] < LEVEL], found.iloc[0]
    name = widgets.plain(asked.name)
    if len(alike):
        began = int(alike["started_there"].fillna(False).sum())
        echoes = f" {began} of them started there: an echo of how training began." if began else ""
        st.info(
            f"{len(alike)} of the {len(found)} below resemble {name} more than {likened} (corrected for all {count:,} tokens).{echoes}",
            icon=":material/search:",
        )
    else:
        st.info(
            f"No token at hand resembles {name} more than {likened}: in one case of chance in {1 / best['q_chance']:.0f} one stands out as much.",
            icon=":material/blur_off:",
        )


def _show(asked: Asked, found: pd.DataFrame) -> None:
    """The table of what was found; a press on a prompt in it opens that prompt."""
    likened = "words of like frequency" if asked.itself is None else "vectors drawn like the virtual tokens at hand"
    listing = found.assign(
        nearest_token=found["nearest_token"].map(shown),
        form=found["form"].map(shown),
        started_there=found["started_there"].map({True: "started there", False: ""}).fillna("unknown"),
    )
    order = ["prompt", "position", "score", "q_chance", "started_there", "nearest_token", "z", "p_chance", "form"]
    show_table(
        listing[[name for name in order if asked.itself is None or name != "form"]],
        column_config={
            "position": st.column_config.NumberColumn("token"),
            "score": st.column_config.ProgressColumn("score", format="%.2f", min_value=0.0, max_value=1.0, help="Centred cosine"),
            "q_chance": st.column_config.NumberColumn(
                "q (all tokens)", help=f"Share of {likened} for which any token at hand stands out as much"
            ),
            "started_there": st.column_config.TextColumn(
                "start", help="Whether the token started from the word: then the likeness is an echo"
            ),
            "nearest_token": st.column_config.TextColumn("near to", help="The token's own nearest word"),
            "z": st.column_config.NumberColumn(
                format="%.1f", help=f"The score less the token's mean score with {likened}, in their standard deviations"
            ),
            "p_chance": st.column_config.NumberColumn(
                "p (this token)",
                help=f"Share of {likened} that resemble this token as much; not corrected for the number of tokens",
            ),
            "form": st.column_config.TextColumn("as", help="The form of the word that the token is nearest to"),
        },
        height=240,
        button=("prompt", "open-found"),
        alt=f"The virtual tokens most like {asked.name}.",
    )
    with widgets.downloads("Download what was found"):
        widgets.download_buttons(found, f"like-{asked.name}")
