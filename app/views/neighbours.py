"""What the tokens of a prompt moved towards together, and each one's nearest words with a verdict: real, chance, or an echo of its start."""

from contextlib import suppress

import pandas as pd
import streamlit as st

from analysis.behaviour.of_task import judged
from analysis.core.errors import InputError
from analysis.core.words import shown
from analysis.models.typed_words import told, typed_words, word_ids
from analysis.prompts.direction import direction, points_beyond_twins
from analysis.prompts.neighbours import METRICS, neighbours
from analysis.prompts.null import null_of
from analysis.prompts.readings import LEVEL, VERDICTS, moved_along_a_word, readings, start_and_now
from analysis.prompts.starts import plain_verdict, recover_initial
from analysis.prompts.twins import twins_of
from analysis.tasks.shipped import TASKS
from app.charts.theme import BLUE, ORANGE, verdict_label
from app.charts.words import direction_bars, neighbours_heat_map, null_histogram, score_bars
from app.pages import BEHAVIOUR
from app.parts import widgets
from app.server.background import computed
from trained_prompts.experiments import kept_behaviour
from trained_prompts.runs import store

SCRIPTS = ["Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "CJK", "Han", "Hangul"]
METRIC_HELP = {
    "centred": "Cosine after the vocabulary's mean is taken off (the default: plain cosine mostly measures the common direction).",
    "cosine": "Plain cosine.",
    "csls": "Centred cosine, less how crowded the neighbourhoods of both are; the first time takes about half a minute.",
    "dot": "Dot product: favours long rows.",
    "euclidean": "Minus the distance: favours rows of the token's own length.",
}

st.title("Nearest words")
keys = widgets.prompt_keys()
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
    "Prompt", keys, index=keys.index(start) if start in keys else None, format_func=widgets.labels_of(keys), placeholder="pick a prompt"
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
    named_model = widgets.model_field(
        third,
        "Model",
        placeholder="the prompt's own model",
        key="model",
        help="Whose vocabulary: smollm2-135m, a hub id, or a folder or .gguf file on this machine.",
    )

if key is None:
    st.info("Pick a prompt to read its nearest words.", icon=":material/info:")
    st.stop()
filters = {"whole_words": whole_words, "exclude_special": exclude_special, "script": script}
with widgets.in_words():
    prompt = widgets.load_prompt(key)
    prompt.check_is_embeddings()
    model = widgets.model_for(key, prompt, named_model)
    vocabulary = widgets.vocabulary(model)
    parts = {part.name: part for part in widgets.started(prompt, vocabulary).split()}
    prompt = next(iter(parts.values()))
    if len(parts) > 1:
        prompt = parts[
            st.segmented_control(
                "This file holds several prompts",
                list(parts),
                default=next(iter(parts)),
                required=True,
                format_func=widgets.plain,
                key=f"part-{key}",
            )
        ]
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
        ("verdicts", vocabulary.model, widgets.content_of([prompt]), prompt.metadata.get("initial")),
        "the verdicts",
        lambda report: readings(prompt, vocabulary, report=report),
    )

known = prompt.initial is not None


def p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def show_direction() -> None:
    """What the displacements have in common, of this prompt or of all on its task: the first thing to know of a prompt."""
    runs = store.list_runs().set_index("name")["task"]
    task = runs.get(key)
    st.subheader("What the tokens moved towards, together")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        several = []
        if task is not None:
            several = [
                other for other in widgets.prompts_at_hand(vocabulary.model) if runs.get(other.name) == task and other.initial is not None
            ]
        which = "this prompt"
        if len(several) > 1:
            which = st.segmented_control(
                "Displacements of",
                ["this prompt", f"all {len(several)} of {task}"],
                default="this prompt",
                required=True,
                format_func=widgets.plain,
                key=f"of-{task}",
            )
        named = st.text_input(
            "Words to test", key="test", bind="query-params", placeholder=f"the answers of {task}" if task is not None else "for instance: positive, negative",
            help="With commas between them; a word that has to be several tokens is refused by name. Is their median rank on the direction lower than that of as many words drawn from the same tenths of the vocabulary?",
        )  # fmt: skip
    words = typed_words(named) or (TASKS[task].answer_words() if task in TASKS else [])
    chosen = several if which != "this prompt" else [prompt]
    with widgets.in_words():
        table = computed(
            ("direction", vocabulary.model, widgets.content_of(chosen), tuple(words)),
            "the shared direction",
            lambda report: direction(chosen, vocabulary, words=words, twins=twins_of(chosen), top_k=12, report=report),
        )
        tested = set(word_ids(vocabulary, words).tolist())
    if table is None:
        return
    first = table.iloc[0]
    whose = "This prompt's tokens" if which == "this prompt" else f"The tokens of {len(chosen)} prompts"
    whose_words = "tested words" if named else "task’s answer words"
    top = ", ".join(f"“{widgets.plain(token.strip())}”" for token in table["token"].head(4))
    said = f"{whose} moved together towards {top} and others (concentration {first['concentration']:.2f}). Any training does that, on shuffled answers too."
    if len(tested):
        said += f" {_words_said(first, whose_words, len(vocabulary))}"
    st.info(said, icon=":material/explore:")
    alt = "; ".join(f"{row.rank}: {row.token.strip()} {row.score:.2f}" for row in table.itertuples())
    st.plotly_chart(direction_bars(table, tested), key="direction", alt=f"Words by their cosine with the shared direction. {alt}")
    st.caption(
        f"{f'★ marks the tested words, {widgets.plain(told(vocabulary, words))}; the best ten of them are shown wherever they rank. ' if tested else ''}Single tokens hide this direction: each drifts along no word of its own. "
        "That a direction can be read does not mean that the model acts on it."
    )
    widgets.download_buttons(table, f"{prompt.name}-direction")


def _words_said(first: pd.Series, whose: str, size: int) -> str:
    """Whether the words are pointed at, and whether that is the task or the form of an answer, from a row of `direction`."""
    ranks = f"median rank {first['words_median_rank']:,.0f} of {size:,}, {p_text(first['words_p'])}"
    if not first["words_p"] < LEVEL:
        return f"It does not point at the {whose} ({ranks})."
    if not first["twins"]:
        return f"It points at the {whose} ({ranks}); that may be the form of an answer, for no twin trained on shuffled answers is at hand."
    twin = (
        f"{p_text(first['twin_words_p'])} on a twin trained on shuffled answers, {p_text(first['beyond_twin_p'])} without what they share"
    )
    if points_beyond_twins(first):
        return f"It points at the {whose} ({ranks}), and beyond what its twin says ({twin})."
    return f"It points at the {whose} ({ranks}) as the form of an answer: {twin}."


def show_behaviour() -> None:
    """What asking the model about the changed prompt came to, where that was done."""
    measured, task = kept_behaviour.kept(key), None
    if measured is not None:
        with suppress(InputError):  # examples of one's own may be gone
            task = kept_behaviour.task_of(key)
    if measured is not None and task is not None:
        verdict = computed(
            ("verdict", vocabulary.model, widgets.content_of([prompt]), measured["task"].iloc[0], int(measured["n"].iloc[0])),
            "the verdict",
            lambda report: judged(prompt, vocabulary, task, measured, report=report).verdict,
        )
        if verdict is not None:
            st.markdown(f"**{verdict.label.capitalize()}.** {widgets.plain(verdict.sentence)}")
    st.page_link(
        BEHAVIOUR.file,
        label="Does the reading explain the behaviour?" if measured is None else "The tests behind this sentence",
        icon=":material/science:",
        query_params={"prompt": key},
    )


def show_twins(verdicts: pd.DataFrame) -> None:
    """How many tokens moved along a word, of the prompt and of each twin."""
    counts = [f"{moved_along_a_word(verdicts).sum()} of {len(verdicts)}"]
    with widgets.in_words():
        for twin in twins_of([prompt]):
            read = computed(
                ("verdicts", vocabulary.model, widgets.content_of([twin]), "twin"),
                "the verdicts of its twin",
                lambda report, twin=twin: readings(twin, vocabulary, report=report),
            )
            if read is not None:
                counts.append(f"{moved_along_a_word(read).sum()} of {len(read)}")
    beside = (
        f"; of its twin trained on shuffled answers {', '.join(counts[1:])}"
        if counts[1:]
        else "; no twin trained on shuffled answers is at hand"
    )
    st.caption(f"Tokens that moved along a word beyond chance: {counts[0]}{beside}.")


with widgets.in_words():
    show_behaviour()
if known:
    show_direction()

st.subheader("Each token")
facts = st.columns(4)
facts[0].metric("Virtual tokens", len(prompt), help=f"{prompt.width} wide")
facts[1].metric(
    "Norm / vocabulary",
    f"{tokens['norm_ratio'].median():.1f} ×",
    help="Median norm of the virtual tokens over that of the vocabulary's rows: 1 × is as long as an ordinary word",
)
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
if verdicts is not None:
    counts = verdicts["verdict"].value_counts()
    st.markdown(
        "&emsp;".join(f"**{verdict_label(verdict)}: {count}** {VERDICTS[plain_verdict(verdict)]}" for verdict, count in counts.items())
    )

if verdicts is not None and known:
    show_twins(verdicts)

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


def grid(table: pd.DataFrame, tokens: pd.DataFrame) -> pd.DataFrame:
    """A virtual token a row: its verdict, where it started, how far it moved, and its nearest words with their scores."""
    cells = [f"{shown(token)}  {score:.2f}" for token, score in zip(table["token"], table["score"], strict=True)]
    words = table.assign(cell=cells).pivot(index="position", columns="rank", values="cell").add_prefix("rank ")
    start = tokens.set_index("position")[["initial_token", "drift", "norm_ratio"]]
    start["initial_token"] = start["initial_token"].map(shown, na_action="ignore")
    if verdicts is not None:
        start.insert(0, "verdict", verdict_cells)
    return start.join(words).reset_index()


def pick_row() -> None:
    rows = st.session_state[f"grid-{key}"]["selection"]["rows"]
    if rows:
        st.session_state["token"] = rows[0]


verdict_cells, verdict_column = (None, None) if verdicts is None else widgets.verdict_column(verdicts["verdict"], pinned=True)
st.dataframe(
    grid(table, tokens),
    hide_index=True,
    column_config={
        "position": st.column_config.NumberColumn("token", pinned=True),
        "verdict": verdict_column,
        "initial_token": st.column_config.TextColumn("started from", help="The word nearest to the initial value", pinned=True),
        "drift": st.column_config.NumberColumn(format="%.2f", help="Distance from the initial value"),
        "norm_ratio": st.column_config.NumberColumn("norm", format="%.2f ×", help="Norm over the vocabulary's median norm"),
    },
    key=f"grid-{key}",
    on_select=pick_row,
    selection_mode="single-row",
    height=widgets.table_height(len(prompt)),
    alt="For each virtual token its verdict, the word it started from, how far it moved, and its nearest words with scores.",
)
st.caption("Pick a row to see the evidence below. ␣ marks the space that starts a word.")
widgets.download_buttons(table, f"{prompt.name}-neighbours-{metric}")
if verdicts is not None:
    st.caption("The verdicts, with all their evidence:")
    widgets.download_buttons(verdicts, f"{prompt.name}-readings")

st.subheader("One token")
position = st.select_slider("Virtual token", list(range(len(prompt))), key="token", bind="query-params") if len(prompt) > 1 else 0


def show_evidence(row: pd.Series) -> None:
    left, right = st.columns([2, 3], gap="large")
    with left:
        verdict = plain_verdict(row["verdict"])
        st.markdown(f"### {verdict_label(row['verdict'])}\n{VERDICTS[verdict].capitalize()}.")
        word = widgets.plain(shown(row["nearest_token"]))
        lines = [
            f"**Chance.** Nearest to “{word}” at {row['score']:.2f}; {p_text(row['p_chance'])}, corrected for {len(prompt)} tokens {row['q_chance']:.3f}."
        ]
        if known:
            start = widgets.plain(shown(row["initial_token"]))
            lines.append(
                f"**Start.** It started at “{start}”"
                + (" and is still nearest to it" if row["echo"] else " and is nearest to another word now")
                + f"; drift {row['drift']:.2f}, where an ordinary word is {vocabulary.median_norm:.2f} long."
            )
            learned = widgets.plain(shown(row["delta_token"]))
            lines.append(
                f"**Learned direction.** It moved most nearly along “{learned}”; {p_text(row['p_learned'])}"
                + (", which is chance." if row["p_learned"] >= LEVEL else ", before the correction for the number of tokens.")
            )
        else:
            lines.append("**Start.** Unknown, so nothing can be said of echoes and of what was learned.")
        st.markdown("\n\n".join(lines))
    with right:
        null = null_of(vocabulary).drawn
        st.plotly_chart(
            null_histogram(null, row["score"], of=f"token {position}"),
            key="null",
            alt=f"Best scores of 1,000 random vectors, median {pd.Series(null).median():.2f}, with token {position}'s score of {row['score']:.2f}.",
        )


if verdicts is not None:
    show_evidence(verdicts.iloc[position])
rows = {"Near to now": table[table["position"] == position]}
if known:
    with widgets.in_words():
        rows["Started from"] = neighbours(prompt.at_start(), vocabulary, metric=metric, top_k=top_k, **filters).query(
            "position == @position"
        )
scores = pd.concat(rows.values())["score"]
span = (min(0.0, scores.min() * 1.05), max(0.0, scores.max() * 1.05))
for column, (title, words), colour in zip(st.columns(2, gap="large"), rows.items(), (BLUE, ORANGE), strict=False):
    with column:
        st.markdown(f"**{title}**")
        alt = ", ".join(f"{row.token.strip()} {row.score:.2f}" for row in words.itertuples())
        st.plotly_chart(score_bars(words, span=span, colour=colour), key=title, alt=f"{title}: {alt}")
if not known:
    st.caption("This file does not hold the values that training started from.")

st.subheader("Heat map")
st.plotly_chart(
    neighbours_heat_map(table), key="heat", alt=f"Scores of the {top_k} nearest words of {len(prompt)} virtual tokens, by {metric}."
)

with st.expander("All rows", icon=":material/table_rows:"):
    st.dataframe(table, hide_index=True)
    st.dataframe(tokens if verdicts is None else verdicts, hide_index=True)
widgets.provenance([prompt], model)
