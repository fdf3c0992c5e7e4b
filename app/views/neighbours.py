"""What a prompt pushes the model towards, what its tokens moved towards together, and each one's nearest words with a verdict: real, chance, or an echo of its start."""

import streamlit as st

from soft_prompt_explorer.analysis.prompts.search import neighbours
from soft_prompt_explorer.analysis.prompts.starts import recover_initial
from soft_prompt_explorer.analysis.prompts.verdicts import readings, start_and_now
from soft_prompt_explorer.app.charts.words import neighbours_heat_map
from soft_prompt_explorer.app.parts import choosing, naming, several, widgets
from soft_prompt_explorer.app.parts.prompt_on_page import PromptOnPage
from soft_prompt_explorer.app.parts.pushed_words import show_pushed
from soft_prompt_explorer.app.parts.task_direction import show_direction
from soft_prompt_explorer.app.parts.texts_in_place import show_what_it_does
from soft_prompt_explorer.app.parts.token_evidence import show_evidence, show_words_of
from soft_prompt_explorer.app.parts.token_readings import (
    pick_filters,
    pick_metric,
    pick_part,
    show_behaviour,
    show_counts,
    show_facts,
    show_grid,
    show_twins,
    warn_of_start,
)
from soft_prompt_explorer.app.server.background import computed

st.title("Nearest words")
keys = choosing.prompt_keys()
asked = st.query_params.get("prompt")
if asked is not None and asked not in keys:
    st.warning(
        f"The link asks for {widgets.plain(repr(asked))}, which is not here: a run that was deleted, or a file opened in another session. Pick another.",
        icon=":material/link_off:",
    )
before = st.session_state.get("last_prompt")
start = asked or (before if before in keys else keys[0])

columns = st.columns([3, 2, 2], vertical_alignment="bottom")
key = columns[0].selectbox(
    "Prompt", keys, index=keys.index(start) if start in keys else None, format_func=choosing.labels_of(keys), placeholder="pick a prompt"
)
if key is not None:  # named even where it is the first choice: the link means the same when there are more prompts
    st.session_state["last_prompt"] = st.query_params["prompt"] = key
metric = pick_metric(columns[1])
top_k = columns[2].slider("Words for each token", 1, 50, 8, key="k", bind="query-params")
filters, named_model = pick_filters()

if key is None:
    st.info("Pick a prompt to read its nearest words.", icon=":material/info:")
    st.stop()
with widgets.in_words():
    prompt = choosing.load_prompt(key)
    prompt.check_is_embeddings()
    model = naming.model_for(key, prompt, named_model)
    vocabulary = widgets.vocabulary(model)
    parts = {part.name: part for part in several.started(prompt, vocabulary).split()}
    prompt = pick_part(key, parts)
    with widgets.progress() as report:
        table = neighbours(prompt, vocabulary, metric=metric, top_k=top_k, **filters, report=report)
    if prompt.initial is None and st.toggle(
        "Take the nearest words for the initial values", key="recover", bind="query-params",
        help="The file does not hold the values that training started from. Where most tokens are nearer to a word than chance allows, these words may serve; what rests on them is marked “recovered”.",
    ):  # fmt: skip
        with widgets.progress() as report:
            prompt = recover_initial(prompt, vocabulary, report=report)
    tokens = start_and_now(prompt, vocabulary)
    verdicts = computed(
        ("verdicts", vocabulary.model, choosing.content_of([prompt]), prompt.metadata.get("initial")),
        "the verdicts",
        lambda report: readings(prompt, vocabulary, report=report),
    )

page = PromptOnPage(key, prompt, vocabulary)
as_kept = len(parts) == 1 and "initial" not in prompt.metadata
for show in (show_what_it_does, show_pushed):
    with widgets.on_its_own():
        show(prompt, vocabulary, page.content, as_kept=as_kept)
with widgets.in_words():
    show_behaviour(page)
if prompt.initial is not None:
    show_direction(page)

st.subheader("Each token")
show_facts(page, tokens)
if verdicts is not None:
    show_counts(verdicts)
    if prompt.initial is not None:
        show_twins(page, verdicts)
warn_of_start(page, tokens)
show_grid(page, table, tokens, verdicts, metric)

st.subheader("One token")
position = st.select_slider("Virtual token", list(range(len(prompt))), key="token", bind="query-params") if len(prompt) > 1 else 0
if verdicts is not None:
    show_evidence(page, position, verdicts.iloc[position])
show_words_of(page, position, table, metric=metric, top_k=top_k, filters=filters)

st.subheader("Heat map")
st.plotly_chart(
    neighbours_heat_map(table), key="heat", alt=f"Scores of the {top_k} nearest words of {len(prompt)} virtual tokens, by {metric}."
)
with st.expander("All rows", icon=":material/table_rows:"):
    st.dataframe(table, hide_index=True)
    st.dataframe(tokens if verdicts is None else verdicts, hide_index=True)
widgets.provenance([prompt], model)
