"""Which virtual tokens, in whose prompts, resemble this one, or this word, more than chance allows."""

import streamlit as st

from soft_prompt_explorer.analysis.core.words import listed, shown
from soft_prompt_explorer.analysis.models.names import is_at_hand
from soft_prompt_explorer.analysis.models.words import forms
from soft_prompt_explorer.analysis.prompts.over_prompts import token_index
from soft_prompt_explorer.analysis.prompts.verdicts import LEVEL
from soft_prompt_explorer.app.parts import choosing, naming, several, widgets
from soft_prompt_explorer.app.server.background import computed

SHOWN = 20

st.title("Search")
st.markdown(
    "Which virtual tokens, in whose prompts, resemble a word, or a virtual token? Every prompt at hand is searched: the gallery, your runs, your files."
)
keys = choosing.prompt_keys()
asked = st.segmented_control("Resembling", ["a word", "a virtual token"], default="a word", required=True, key="by", bind="query-params")
with widgets.in_words():
    if asked == "a word":
        left, right = st.columns(2)
        word = left.text_input("Word", value="positive", key="word", bind="query-params")
        models = [model for model in dict.fromkeys(map(naming.said_model, keys)) if model is not None and is_at_hand(model)]
        model = right.selectbox("In prompts of", models, key="model", bind="query-params") if len(models) > 1 else next(iter(models), None)
        if model is None or not word.strip():
            st.info("Type a word.", icon=":material/info:")
            st.stop()
        vocabulary = widgets.vocabulary(model)
        wanted = forms(vocabulary, word)
        said = [repr(vocabulary.tokens[i]) for i in wanted]
        name = f"the word {word.strip()!r}"
        st.caption(
            widgets.plain(
                f"Searched as {listed(said)}, {'with a space before it and without' if len(said) == 2 else 'the one form that is a token'}."
            )
        )
    else:
        left, right = st.columns(2)
        key = left.selectbox("Prompt", keys, format_func=choosing.labels_of(keys), key="prompt", bind="query-params")
        prompt = choosing.load_prompt(key)
        prompt.check_is_embeddings()
        prompt = prompt.split()[0]
        vocabulary = widgets.vocabulary(naming.model_for(key, prompt))
        position = right.number_input("Virtual token", 0, len(prompt) - 1, 0, key="token", bind="query-params")
        name = f"virtual token {position} of {prompt.name}"
    prompts = several.prompts_at_hand(vocabulary.model)
    in_memory = several.of_this_session(prompts)
    index = computed(
        ("index", vocabulary.model, str(vocabulary.cache), choosing.content_of(prompts)),
        "the index of every virtual token at hand",
        lambda report: token_index(prompts, vocabulary, in_memory=in_memory, report=report),
    )
if index is None:
    st.stop()
found = (
    index.search_word(wanted, SHOWN)
    if asked == "a word"
    else index.search(prompt.embeddings[position], SHOWN, itself=(prompt.name, position))
)
if not len(found):
    st.info("There is no other virtual token of this model at hand.", icon=":material/info:")
    st.stop()
likened = "words of like frequency" if asked == "a word" else "vectors drawn like the virtual tokens at hand"
alike = found[found["q_chance"] < LEVEL]
best = found.iloc[0]
began = int(alike["started_there"].fillna(False).sum())
echoes = f" {began} of them started there: an echo of how training began, and not what it learned." if began else ""
if len(alike):
    st.info(
        f"{len(alike)} of the {len(found)} tokens below resemble {widgets.plain(name)} more than they resemble {likened} (corrected for all {len(index):,} tokens). "
        f"The first is token {best['position']} of {widgets.plain(best['prompt'])}, at {best['score']:.2f}.{echoes}",
        icon=":material/search:",
    )
else:
    st.info(
        f"No virtual token at hand resembles {widgets.plain(name)} more than it resembles {likened}: the first below scores {best['score']:.2f}, and one case of chance in "
        f"{1 / best['q_chance']:.0f} has a token that stands out as much.",
        icon=":material/blur_off:",
    )
st.dataframe(
    found.assign(
        nearest_token=found["nearest_token"].map(shown),
        form=found["form"].map(shown),
        started_there=found["started_there"].map({True: "started there", False: ""}).fillna("unknown"),
    ).drop(columns=[] if asked == "a word" else "form"),
    hide_index=True,
    column_config={
        "position": st.column_config.NumberColumn("token"),
        "score": st.column_config.ProgressColumn("score", format="%.2f", min_value=0.0, max_value=1.0, help="Centred cosine"),
        "p_chance": st.column_config.NumberColumn(
            "p (this token)",
            format="%.3f",
            help=f"Share of {likened} that resemble this token as much; not corrected for the number of tokens",
        ),
        "nearest_token": st.column_config.TextColumn("near to", help="The token's own nearest word"),
        "q_chance": st.column_config.NumberColumn(
            "q (all tokens)", format="%.3f", help=f"Share of {likened} for which any token at hand stands out as much"
        ),
        "form": st.column_config.TextColumn("as", help="The form of the word that the token is nearest to"),
        "z": st.column_config.NumberColumn(
            format="%.1f", help=f"The score less the token's mean score with {likened}, in their standard deviations"
        ),
        "started_there": st.column_config.TextColumn("start", help="Whether the token started from the word: then the likeness is an echo"),
    },
    height=widgets.table_height(len(found)),
    alt=f"The virtual tokens most like {name}.",
)
widgets.download_buttons(found, f"like-{name}")
how = "each is compared" if index.exact else f"an inverted file; it finds {index.recall:.0%} of the true ten nearest"
st.caption(
    f"{len(index):,} virtual tokens of {index.tokens['prompt'].nunique()} prompts of {vocabulary.model}: {how}. The order is that of z and not of the score: some tokens resemble "
    "every word a little. A token may resemble a word or another token only because it started there."
)
