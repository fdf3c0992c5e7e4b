"""Prompt against prompt: two side by side, token by token, and every pair of many."""

import streamlit as st

from soft_prompt_explorer.analysis.prompts.likeness import MEASURES, chance, matched, matrix, remarkable, similarity, tree
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.app.charts.similarity import similarity_matrix
from soft_prompt_explorer.app.parts import choosing, several, widgets
from soft_prompt_explorer.app.parts.two_prompts import say_how_alike, show_beside_chance, show_pairs
from soft_prompt_explorer.app.server.background import computed

st.title("Compare")
st.markdown("Are two prompts alike, beyond what all vectors of a model have in common?")
prompts, vocabulary = several.pick_prompts("Prompts", at_least=2)
names = [prompt.name for prompt in prompts]
by_name = dict(zip(names, prompts, strict=True))
content = (vocabulary.model, choosing.content_of(prompts))
with widgets.in_words():
    table = computed(("similarity", content), "the similarities", lambda report: similarity(prompts, vocabulary, report=report))
if table is None:
    st.stop()
level = remarkable(len(table))

if len(prompts) > 2:
    st.subheader("Every pair")
    measure = st.segmented_control("Measure", MEASURES, default="z", required=True, key="measure", bind="query-params")
    st.plotly_chart(
        similarity_matrix(matrix(table, measure, names), tree(table, names), measure),
        key=f"matrix-{measure}",
        alt=f"{measure} of every pair of {len(prompts)} prompts; the most alike by it are {' and '.join(table.loc[table[measure].idxmax(), ['prompt_a', 'prompt_b']]) if table[measure].notna().any() else 'unknown'}.",
    )
    st.caption(
        "The tree joins prompts by matched cosine. Only z takes chance into account, beside prompts that began and moved likewise and have nothing else in common: "
        f"one of two unrelated prompts is beyond 1.96 once in twenty times at most, and one of these {len(table)} pairs beyond {level:.1f}. "
        "The other five are high for unrelated prompts too: the band below shows how high."
    )
widgets.download_buttons(table, "similarity")

st.subheader("Two side by side")
best = table.loc[table["z"].idxmax()] if table["z"].notna().any() else table.iloc[0]
left, right = st.columns(2)
name_a = left.selectbox("One", names, index=names.index(best["prompt_a"]), key="a", bind="query-params")
others = [name for name in names if name != name_a]
name_b = right.selectbox(
    "The other", others, index=others.index(best["prompt_b"]) if best["prompt_b"] in others else 0, key="b", bind="query-params"
)
a, b = by_name[name_a], by_name[name_b]
row = table[table["prompt_a"].isin([name_a, name_b]) & table["prompt_b"].isin([name_a, name_b])].iloc[0]
pairs = matched(a, b, vocabulary)
say_how_alike(row, pairs, len(table))

with widgets.in_words():
    band = computed(
        ("chance", vocabulary.model, str(vocabulary.cache), len(a), len(b)),
        "what unrelated prompts score",
        lambda report: chance(len(a), len(b), vocabulary, report=report),
    )
    verdicts = computed(
        ("verdicts of two", vocabulary.model, choosing.content_of([a, b])),
        "the verdicts",
        lambda report: [readings(prompt, vocabulary, report=report) for prompt in (a, b)],
    )
left, right = st.columns([2, 3], gap="large")
with left:
    if band is not None:
        show_beside_chance(row, band)
with right:
    show_pairs(pairs, (name_a, name_b), verdicts)
widgets.provenance([a, b], vocabulary.model)
