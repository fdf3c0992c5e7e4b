"""Prompt against prompt: two side by side, token by token, and every pair of many."""

import streamlit as st

from analysis.core.words import shown
from analysis.prompts.readings import readings
from analysis.prompts.similarity import MEASURES, chance, matched, matrix, remarkable, similarity, tree
from app.charts.similarity import against_chance, similarity_matrix
from app.parts import widgets
from app.server.background import computed

st.title("Compare")
st.markdown("Are two prompts alike, beyond what all vectors of a model have in common?")
prompts, vocabulary = widgets.pick_prompts("Prompts", at_least=2)
names = [prompt.name for prompt in prompts]
by_name = dict(zip(names, prompts, strict=True))
content = (vocabulary.model, widgets.content_of(prompts))
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
same = int(pairs["same_start"].sum()) if pairs["same_start"].notna().all() else None
z = row["z"]
if z != z:
    st.info("Of prompts of more than 250 tokens nothing is said of chance.", icon=":material/help:")
elif z <= level:
    start = f" {same} of {len(pairs)} matched tokens started from the same values, and z leaves that out." if same else ""
    st.info(
        f"z is {z:.1f}: no more alike than prompts that began and moved likewise{' may be' if len(table) == 1 else f', of which one of {len(table)} pairs may reach {level:.1f}'}.{start}",
        icon=":material/blur_off:",
    )
elif row["against"] != "starts":
    st.warning(
        f"z is {z:.1f}: more alike than chance, but where the tokens{' of one of them' if row['against'] == 'one start' else ''} started is unknown. "
        "A start in common may be all that there is.",
        icon=":material/repeat:",
    )
elif same:
    st.warning(
        f"z is {z:.1f}: more alike than chance, beyond the start that {same} of {len(pairs)} matched tokens share. Training moves tokens that began alike in like "
        "ways, whatever the task: more than half of the gallery's pairs of one start are beyond 1.96.",
        icon=":material/repeat:",
    )
else:
    st.success(f"z is {z:.1f}: more alike than chance, and no matched tokens started from the same values.", icon=":material/verified:")

with widgets.in_words():
    band = computed(
        ("chance", vocabulary.model, str(vocabulary.cache), len(a), len(b)),
        "what unrelated prompts score",
        lambda report: chance(len(a), len(b), vocabulary, report=report),
    )
    verdicts = computed(
        ("verdicts of two", vocabulary.model, widgets.content_of([a, b])),
        "the verdicts",
        lambda report: [readings(prompt, vocabulary, report=report) for prompt in (a, b)],
    )
left, right = st.columns([2, 3], gap="large")
with left:
    if band is not None:
        values = "; ".join(f"{name} {row[name]:.2f}" for name in band["measure"])
        st.plotly_chart(against_chance(row, band), key="band", alt=f"{values}, each beside the band of unrelated prompts.")
        st.caption(
            "Plain cosines; unrelated prompts have rows drawn like the words. Below the band: training has driven the tokens away from the direction "
            "that all words share."
        )
with right:
    listing = pairs.assign(
        nearest_a=pairs["nearest_a"].map(shown),
        nearest_b=pairs["nearest_b"].map(shown),
        same_start=pairs["same_start"].map({True: "same", False: "other"}),
    )
    order = ["position_a", "nearest_a", "cosine", "nearest_b", "position_b", "same_start"]
    columns = {}
    if verdicts is not None:
        for half, table_of in zip("ab", verdicts, strict=True):
            taken = table_of["verdict"].iloc[listing[f"position_{half}"]]
            listing[f"verdict_{half}"], columns[f"verdict_{half}"] = widgets.verdict_column(taken)
        order = ["position_a", "nearest_a", "verdict_a", "cosine", "nearest_b", "position_b", "verdict_b", "same_start"]
    st.dataframe(
        listing[order],
        hide_index=True,
        column_config=columns
        | {
            "position_a": st.column_config.NumberColumn("token", help=f"Of {widgets.plain(name_a)}"),
            "nearest_a": st.column_config.TextColumn("near to", help="The nearest word by centred cosine"),
            "cosine": st.column_config.ProgressColumn("cosine", format="%.2f", min_value=0.0, max_value=1.0),
            "nearest_b": st.column_config.TextColumn("near to"),
            "position_b": st.column_config.NumberColumn("token", help=f"Of {widgets.plain(name_b)}"),
            "same_start": st.column_config.TextColumn("start", help="Whether both started from the same values"),
        },
        height=widgets.table_height(len(pairs)),
        alt=f"The tokens of {name_a} and the tokens of {name_b} that they are matched with.",
    )
    widgets.download_buttons(pairs, f"{name_a}-{name_b}-matched")
widgets.provenance([a, b], vocabulary.model)
