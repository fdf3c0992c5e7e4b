"""Which virtual tokens, in whose prompts, resemble this one, or this word."""

import streamlit as st

from analysis.direction import word_ids
from analysis.models import is_at_hand
from analysis.readings import LEVEL
from analysis.token_index import token_index
from app import charts, widgets
from app.background import computed

SHOWN = 20

st.title("Search")
st.markdown(
    "Which virtual tokens, in whose prompts, resemble a word, or a virtual token? Every prompt at hand is searched: the gallery, your runs, your files."
)
keys = widgets.prompt_keys()
asked = st.segmented_control("Resembling", ["a word", "a virtual token"], default="a word", required=True, key="by", bind="query-params")
with widgets.in_words():
    if asked == "a word":
        left, right = st.columns(2)
        word = left.text_input("Word", value="positive", key="word", bind="query-params")
        models = [model for model in dict.fromkeys(map(widgets.said_model, keys)) if model is not None and is_at_hand(model)]
        model = right.selectbox("In prompts of", models, key="model", bind="query-params") if len(models) > 1 else next(iter(models), None)
        if model is None or not word.strip():
            st.info("Type a word.", icon=":material/info:")
            st.stop()
        vocabulary = widgets.vocabulary(model)
        token_id = int(word_ids(vocabulary, [word])[0])
        vector, name = vocabulary.embeddings[token_id], f"the word {charts.shown(vocabulary.tokens[token_id])!r}"
        itself = None
    else:
        left, right = st.columns(2)
        key = left.selectbox("Prompt", keys, format_func=widgets.labels_of(keys), key="prompt", bind="query-params")
        prompt = widgets.load_prompt(key)
        prompt.check_is_embeddings()
        prompt = prompt.split()[0]
        vocabulary = widgets.vocabulary(widgets.model_for(key, prompt))
        position = right.number_input("Virtual token", 0, len(prompt) - 1, 0, key="token", bind="query-params")
        vector, name, itself = prompt.embeddings[position], f"virtual token {position} of {prompt.name}", (prompt.name, position)
    prompts = widgets.prompts_at_hand(vocabulary.model)
    in_memory = widgets.of_this_session(prompts)
    index = computed(
        ("index", vocabulary.model, str(vocabulary.cache), widgets.content_of(prompts)),
        "the index of every virtual token at hand",
        lambda report: token_index(prompts, vocabulary, in_memory=in_memory, report=report),
    )
if index is None:
    st.stop()
found = index.search(vector, top_k=SHOWN + 1)
if itself is not None:
    found = found[(found["prompt"] != itself[0]) | (found["position"] != itself[1])]
found = found.head(SHOWN).assign(rank=lambda table: range(len(table)))
if not len(found):
    st.info("There is no other virtual token of this model at hand.", icon=":material/info:")
    st.stop()
alike = int((found["p_chance"] < LEVEL).sum())
best = found.iloc[0]
if alike:
    st.success(
        f"Nearer to {widgets.plain(name)} than chance allows: {alike} of the {len(found)} nearest virtual tokens. The nearest is token "
        f"{best['position']} of {widgets.plain(best['prompt'])}, at {best['score']:.2f}.",
        icon=":material/verified:",
    )
else:
    st.info(
        f"No virtual token at hand is nearer to {widgets.plain(name)} than random vectors are to theirs: the best score is {best['score']:.2f} (p {best['p_chance']:.2f}).",
        icon=":material/blur_off:",
    )
st.dataframe(
    found.assign(nearest_token=found["nearest_token"].map(charts.shown)),
    hide_index=True,
    column_config={
        "position": st.column_config.NumberColumn("token"),
        "score": st.column_config.ProgressColumn("score", format="%.2f", min_value=0.0, max_value=1.0, help="Centred cosine"),
        "p_chance": st.column_config.NumberColumn(
            "p (chance)",
            format="%.3f",
            help="Share of 1,000 random vectors whose best score among all tokens at hand is as high; not corrected for the number of rows",
        ),
        "nearest_token": st.column_config.TextColumn("near to", help="The token's own nearest word"),
    },
    height=widgets.table_height(len(found)),
    alt=f"The virtual tokens most like {name}.",
)
widgets.download_buttons(found, f"like-{name}")
how = "each is compared" if index.exact else f"an inverted file; it finds {index.recall:.0%} of the true ten nearest"
st.caption(
    f"{len(index):,} virtual tokens of {index.tokens['prompt'].nunique()} prompts of {vocabulary.model}: {how}. A token may resemble a word or another token only because it started there."
)
