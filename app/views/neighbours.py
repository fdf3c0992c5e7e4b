"""The nearest vocabulary words of each virtual token, beside what the token was initialised from."""

import pandas as pd
import streamlit as st

from analysis.neighbours import METRICS, neighbours
from analysis.readings import start_and_now
from app import charts, widgets

SCRIPTS = ["Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "CJK", "Han", "Hangul"]
METRIC_HELP = {
    "centred": "Cosine after the vocabulary's mean is taken off (the default: plain cosine mostly measures the common direction).",
    "cosine": "Plain cosine.",
    "csls": "Centred cosine, less how crowded the neighbourhoods of both are; the first time takes about half a minute.",
    "dot": "Dot product: favours long rows.",
    "euclidean": "Minus the distance: favours rows of the token's own length.",
}

st.title("Nearest words")
keys = widgets.prompt_choices()
if not keys:
    st.info("There is no prompt to read yet: train one on the Train page, or open a file on the Open page.", icon=":material/info:")
    st.stop()
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
    "Prompt", keys, index=keys.index(start) if start in keys else None, format_func=widgets.prompt_label, placeholder="pick a prompt"
)
if key is not None:  # named even where it is the first choice: the link means the same when there are more prompts
    st.session_state["last_prompt"] = st.query_params["prompt"] = key
metric = columns[1].selectbox(
    "Metric", METRICS, key="metric", bind="query-params", help="  \n".join(f"**{name}**: {text}" for name, text in METRIC_HELP.items())
)
top_k = columns[2].slider("Words for each token", 1, 50, 8, key="k", bind="query-params")
with st.expander("Filters and vocabulary", icon=":material/tune:"):
    first, second, third = st.columns(3, vertical_alignment="bottom")
    whole_words = first.toggle("Whole words only", key="whole", bind="query-params", help="Tokens that start a word and hold only letters.")
    exclude_special = first.toggle(
        "Leave out special tokens", key="nospecial", bind="query-params", help="Control tokens and rows that no text uses."
    )
    script = second.selectbox("Script", SCRIPTS, index=None, placeholder="any", key="script", bind="query-params")
    named_model = third.text_input(
        "Vocabulary of",
        placeholder="the prompt's own model",
        key="model",
        bind="query-params",
        help="smollm2-135m, a hub id, or a folder or .gguf file on this machine.",
    )

if key is None:
    st.info("Pick a prompt to read its nearest words.", icon=":material/info:")
    st.stop()
filters = {"whole_words": whole_words, "exclude_special": exclude_special, "script": script}
with widgets.in_words():
    prompt = widgets.load_prompt(key)
    prompt.check_is_embeddings()
    parts = {part.name: part for part in prompt.split()}
    if len(parts) > 1:
        prompt = parts[
            st.segmented_control(
                "This file holds several prompts", list(parts), default=next(iter(parts)), required=True, key=f"part-{key}"
            )
        ]
    model = widgets.model_for(key, prompt, named_model)
    vocabulary = widgets.vocabulary(model)
    with widgets.progress() as report:
        table = neighbours(prompt, vocabulary, metric=metric, top_k=top_k, **filters, report=report)
    tokens = start_and_now(prompt, vocabulary)

facts = st.columns(4)
facts[0].metric("Virtual tokens", len(prompt), help=f"{prompt.width} wide")
facts[1].metric(
    "Norm / vocabulary",
    f"{tokens['norm_ratio'].median():.1f} ×",
    help="Median norm of the virtual tokens over that of the vocabulary's rows: 1 × is as long as an ordinary word",
)
known = prompt.initial is not None
facts[2].metric(
    "Still nearest to their start",
    f"{int(tokens['echo'].sum())} of {len(tokens)}" if known else "unknown",
    help="By centred cosine, whatever metric is chosen",
)
facts[3].metric(
    "Drift from the start",
    f"{tokens['drift'].median() / vocabulary.median_norm:.1f} ×" if known else "unknown",
    help="Median distance from the initial value, in lengths of an ordinary word's row",
)

if not known:
    st.warning(
        "The initial values of this prompt are unknown. Its nearest words may be no more than what it was initialised from.",
        icon=":material/help:",
    )
elif tokens["echo"].any():
    st.warning(
        f"{int(tokens['echo'].sum())} of {len(tokens)} virtual tokens are still nearest to the word they were initialised from: "
        "their nearest words tell how the prompt started, not what it learned.",
        icon=":material/repeat:",
    )
else:
    st.info(
        "No virtual token is nearest to what it started from. That alone does not make a reading real: any random vector has nearest words too.",
        icon=":material/info:",
    )


def grid(table: pd.DataFrame, tokens: pd.DataFrame) -> pd.DataFrame:
    """A virtual token a row: where it started, how far it moved, and its nearest words with their scores."""
    cells = [f"{charts.shown(token)}  {score:.2f}" for token, score in zip(table["token"], table["score"], strict=True)]
    words = table.assign(cell=cells).pivot(index="position", columns="rank", values="cell").add_prefix("rank ")
    start = tokens.set_index("position")[["initial_token", "echo", "drift", "norm_ratio"]]
    start["initial_token"] = start["initial_token"].map(charts.shown, na_action="ignore")
    start["echo"] = start["echo"].map({True: "= start", False: "moved on"})
    return start.join(words)


st.subheader("A virtual token a row")
st.dataframe(
    grid(table, tokens),
    column_config={
        "position": st.column_config.NumberColumn("token", pinned=True),
        "initial_token": st.column_config.TextColumn("started from", help="The word nearest to the initial value", pinned=True),
        "echo": st.column_config.TextColumn("now", help="Whether the nearest word is still that of the start", pinned=True),
        "drift": st.column_config.NumberColumn(format="%.2f", help="Distance from the initial value"),
        "norm_ratio": st.column_config.NumberColumn("norm", format="%.2f ×", help="Norm over the vocabulary's median norm"),
    },
    height=widgets.table_height(len(prompt)),
    alt="For each virtual token the word it started from, how far it moved, and its nearest words with scores.",
)
st.caption("␣ marks the space that starts a word.")
widgets.download_buttons(table, f"{prompt.name}-neighbours-{metric}")

st.subheader("Heat map")
st.plotly_chart(
    charts.neighbours_heat_map(table), key="heat", alt=f"Scores of the {top_k} nearest words of {len(prompt)} virtual tokens, by {metric}."
)

st.subheader("One token")
position = st.select_slider("Virtual token", list(range(len(prompt))), key="token", bind="query-params") if len(prompt) > 1 else 0
rows = {"Near to now": table[table["position"] == position]}
if known:
    with widgets.in_words():
        rows["Started from"] = neighbours(prompt.at_start(), vocabulary, metric=metric, top_k=top_k, **filters).query(
            "position == @position"
        )
scores = pd.concat(rows.values())["score"]
span = (min(0.0, scores.min() * 1.05), max(0.0, scores.max() * 1.05))
for column, (title, words), colour in zip(st.columns(2, gap="large"), rows.items(), (charts.BLUE, charts.ORANGE), strict=False):
    with column:
        st.markdown(f"**{title}**")
        alt = ", ".join(f"{row.token.strip()} {row.score:.2f}" for row in words.itertuples())
        st.plotly_chart(charts.score_bars(words, span=span, colour=colour), key=title, alt=f"{title}: {alt}")
if not known:
    st.caption("This file does not hold the values that training started from.")

with st.expander("All rows", icon=":material/table_rows:"):
    st.dataframe(table, hide_index=True)
    st.dataframe(tokens, hide_index=True)
    widgets.download_buttons(tokens, f"{prompt.name}-tokens")
widgets.provenance([prompt], model)
