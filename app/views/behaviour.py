"""Does the reading explain the behaviour? A prompt changed in every way, what the model makes of it inside, whether it can say it, and answers side by side."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from analysis.adapters import SoftPrompt
from analysis.behaviour.how_asked import how_asked
from analysis.behaviour.inside import attention, logit_lens
from analysis.behaviour.interventions import INTERVENTIONS, WHOLE, row_label
from analysis.behaviour.of_task import behave, examples_of, judged, side_by_side
from analysis.behaviour.resampling import Answers
from analysis.behaviour.verbalisation import by_task, says, verbalise
from analysis.behaviour.verdict import FORMAT, OTHERWISE, READABLE_AND_CAUSAL, TOO_FEW, WORSE
from analysis.core.errors import InputError
from analysis.core.progress import Report
from analysis.core.words import shown
from analysis.models.weights import load_model
from analysis.prompts.clusters import find_clusters, is_echo, is_real
from analysis.prompts.neighbours import neighbours
from analysis.prompts.readings import readings
from analysis.report.report import html, of_prompt
from analysis.tasks.own_data import kept_tasks
from analysis.tasks.shipped import TASKS
from analysis.tasks.task import Task
from app.charts import behaviour as behaviour_charts
from app.charts.theme import verdict_label
from app.charts.words import score_bars
from app.pages import CLUSTERS, NEIGHBOURS
from app.parts import widgets
from app.server.background import computed, found
from trained_prompts.experiments import kept_behaviour
from trained_prompts.runs import store

VIEWS = ["Interventions", "One token", "Inside", "In words", "Answers"]
PACE = {"sentiment": 0.05, "others": 0.03}  # seconds an example, on two cores
PROMPTS = 70  # that differ, of ten tokens: the interventions with their draws
ATTENDED = 16  # examples whose attention is averaged
ICONS = {
    READABLE_AND_CAUSAL: ":material/verified:",
    OTHERWISE: ":material/call_split:",
    "readable, not causal": ":material/visibility:",
    "causal, not readable": ":material/bolt:",
    "neither readable nor causal": ":material/blur_off:",
    FORMAT: ":material/format_shapes:",
    TOO_FEW: ":material/hourglass_empty:",
    WORSE: ":material/trending_down:",
}


@st.cache_resource(max_entries=1, show_spinner=False)
def _loaded(model: str) -> tuple:
    return load_model(model)


@st.cache_resource
def _so_far() -> dict[tuple, pd.DataFrame]:
    """The rows of interventions that are under way."""
    return {}


@st.cache_resource(max_entries=16, show_spinner=False)
def _answers(wanted: tuple) -> dict[str, Answers]:
    """What the model answered to changed prompts so far: a computation that was stopped goes on from there."""
    return {}


def asking(key: tuple, what: str, ask):
    """`computed`, with the language model at hand: `ask(language_model, report)`, one at a time; None as well where the model has first to be fetched."""
    model = vocabulary.model
    if not widgets.may_be_fetched(model, "the model"):
        return None

    def compute(report: Report):
        report(0.0, "loading the model")
        return ask(_loaded(model), report)

    return computed(key, what, compute, alone=True)


st.title("Behaviour")
keys = widgets.prompt_keys()
asked_for = st.query_params.get("prompt")
if asked_for is not None and asked_for not in map(widgets.prompt_label, keys):
    st.warning(f"The link asks for {widgets.plain(repr(asked_for))}, which is not here. Pick another.", icon=":material/link_off:")
left, middle, right = st.columns([3, 2, 1], vertical_alignment="bottom")
key = left.selectbox("Prompt", keys, format_func=widgets.labels_of(keys), key="prompt", bind="query-params")
runs = store.list_runs().set_index("name")
tasks = [*TASKS, *(task.name for task in kept_tasks())]
own_task = runs["task"].get(key)
tasks = [own_task, *(name for name in tasks if name != own_task)] if own_task is not None else tasks
task_name = middle.selectbox(
    "Asked on the task", tasks, index=0 if own_task is not None else None, key=f"task-of-{key}", bind="query-params", placeholder="pick its task",
    help="A run's own task is the first." if own_task is not None else "The file does not say which task it was trained on.",
)  # fmt: skip
limit = widgets.pick_examples(right, 200)
with widgets.in_words():
    prompt = widgets.load_prompt(key)
    prompt.check_is_embeddings()
    prompt.check_is_one()
    vocabulary = widgets.vocabulary(widgets.model_for(key, prompt))
    prompt.check_width(vocabulary.width, vocabulary.model)
    prompt.check_is_causal()
    prompt = widgets.started(prompt, vocabulary)
    if task_name is None:
        st.info("Pick the task that the prompt was trained on: the model is asked its held-out examples.", icon=":material/info:")
        st.stop()
    how = how_asked(prompt if key in runs.index else None, task_name)
    as_trained = how.known and own_task is not None and kept_behaviour.task_of(key).name == how.task.name
    with st.expander("How it is asked", icon=":material/chat:", expanded=not how.known):
        written = st.text_area(
            "Template", value=how.task.template, height="content", key=f"template-{key}-{task_name}",
            help="The text that the model reads, with {input} where the example goes; the answer comes right after it.",
        )  # fmt: skip
        if written != how.task.template:
            how = how_asked(None, task_name, written)
            as_trained = False
        st.caption(f"The first example, {widgets.plain(how.example())}")
    task = how.task
    available = len(task.examples("held-out"))
if not available:
    st.info(f"{widgets.plain(task.name)} has no held-out examples to ask the model about.", icon=":material/info:")
    st.stop()
n = min(limit, available)
content = (vocabulary.model, widgets.content_of([prompt]), task.name, task.template)


def kept_table() -> pd.DataFrame | None:
    """What was measured before and kept with the run, where it is of this task and of as many examples."""
    if not as_trained:
        return None
    table = kept_behaviour.kept(key)
    return table if table is not None and table["task"].iloc[0] == task.name and table["n"].iloc[0] == n else None


def at_hand() -> pd.DataFrame | None:
    """The table of interventions, kept or made on this server; None where there is none."""
    table = kept_table()
    return found(("behaviour", *content, n)) if table is None else table


def measured() -> pd.DataFrame | None:
    """The table of interventions: kept, just made, or made now if the person asks for it; None where it is not there yet."""
    table = at_hand()
    if table is not None:
        return table
    wanted = (*content, n)
    if st.session_state.get("behaviour") != wanted:
        minutes = max(1, round(PROMPTS * len(prompt) / 10 * n * PACE.get(task.name, PACE["others"]) / 60))
        st.info(
            f"This prompt has not been tested on {n} examples of {widgets.plain(task.name)}. It takes about {minutes} minute{'s' if minutes > 1 else ''} on two cores; "
            "rows appear as they are made, and it can be stopped.",
            icon=":material/info:",
        )
        if not st.button("Ask the model", type="primary", icon=":material/play_arrow:", key="ask"):
            return None
        st.session_state["behaviour"] = wanted
    so_far, answers = _so_far(), _answers(wanted)

    def ask(language_model, report: Report) -> pd.DataFrame:
        examples = examples_of(task, language_model, limit=n)
        try:
            made = behave(
                prompt, vocabulary, examples, task, asked=answers, report=report, row_made=lambda rows: so_far.__setitem__(wanted, rows)
            )
        finally:
            so_far.pop(wanted, None)
        answers.clear()
        before = kept_behaviour.kept(key) if as_trained and runs.loc[key, "origin"] == "yours" else made
        if before is None or before["n"].iloc[0] < n:
            with suppress(InputError):  # the disk may be full; the page has the table
                kept_behaviour.keep(key, made)
        return made

    with widgets.in_words():
        table = asking(("behaviour", *wanted), "the interventions", ask)
    if table is None:
        watch(wanted)
    return table


def watch(wanted: tuple) -> None:
    @st.fragment(run_every=2.0)
    def rows_so_far() -> None:
        rows = _so_far().get(wanted)
        if rows is None:
            return
        st.markdown(
            f"The whole prompt: {rows['measure'].iloc[0]} **{rows['score'].iloc[0]:.3f}**, loss {rows['loss'].iloc[0]:.3f} on {rows['n'].iloc[0]} examples."
        )
        if len(rows) > 1:
            st.plotly_chart(
                behaviour_charts.changes(rows, "score"),
                key="so-far",
                alt=f"{len(rows)} interventions so far, each with the change of the score.",
            )

    rows_so_far()


def show_verdict(table: pd.DataFrame) -> None:
    with widgets.in_words():
        verdict = computed(
            ("verdict", *content, n),
            "the verdict",
            lambda report: judged(prompt, vocabulary, task, table, report=report).verdict,
        )
    if verdict is None:
        return
    if (note := how.note(prompt.name)) is not None:
        st.warning(widgets.plain(note.replace("give its own with --template '…{input}…'", "type its own above")), icon=":material/chat:")
    said = how.said(verdict)
    with st.container(border=True):
        st.markdown(f"{ICONS[verdict.label]} **{widgets.plain(said.label[0].upper() + said.label[1:])}**  \n{widgets.plain(said.sentence)}")
        st.caption(
            "“Causal” is said of what was taken out or put in. A direction is causal where taking it out lowers the score, or where it alone raises the initial values above no prompt, "
            "and where it does so more than other directions of the same size: the prompt's own, those of other tasks and random ones. Its words are causal only where the part of it "
            "that they span does so too. What a twin trained on shuffled answers does as well is the form of an answer. The claims about one prompt are corrected for one another."
        )


def offer_report(table: pd.DataFrame) -> None:
    """All that is known of the prompt as a page to keep and to send, made when it is asked for."""

    def report() -> bytes:
        return html(
            [of_prompt(prompt, vocabulary, **how.of_report(judged(prompt, vocabulary, task, table), prompt.name))], vocabulary
        ).encode()

    st.download_button(
        "Report (HTML)",
        report,
        file_name=f"report-{widgets.file_name(prompt.name)}.html",
        mime="text/html",
        on_click="ignore",
        icon=":material/description:",
        key="report",
        help="The verdict, every token's reading and the interventions on one page, to keep, to send and to print",
    )


def show_interventions(table: pd.DataFrame) -> None:
    rows = table.drop_duplicates("intervention").set_index("intervention")
    first = st.columns(4)
    measure = table["measure"].iloc[0]
    for column, (name, label) in zip(
        first,
        (("whole prompt", "the prompt"), ("no prompt", "no prompt"), ("initial values", "its start"), ("nearest words", "its words")),
        strict=True,
    ):
        if name in rows.index:
            column.metric(f"{widgets.plain(measure)}: {label}", f"{rows.loc[name, 'score']:.3f}")
    st.caption(
        f"Each on the same {rows['n'].iloc[0]:,} held-out examples; the scores of the Gallery are of all, or of as many as are told there."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        what = st.segmented_control("Change of", ["score", "loss"], default="score", required=True, key="what", bind="query-params")
        tokens = st.toggle("Each token too", key="tokens", bind="query-params")
    shown = table if tokens else table[table["position"].isna()]
    strongest = table.loc[(table["intervention"] != WHOLE)].sort_values(f"{what}_change", key=abs, ascending=False).iloc[0]
    st.plotly_chart(
        behaviour_charts.changes(shown, what),
        key=f"changes-{what}-{tokens}",
        alt=f"The change of the {what} with its 95 % interval, an intervention a row; the largest is {row_label(strongest)}, {strongest[f'{what}_change']:+.3f}.",
    )
    st.caption(
        "Dotted: the whole prompt. Each interval is a paired bootstrap: the same examples with and without the change. Grey crosses are the control of the row above them: "
        "the same amount along random directions, over several draws. What crosses the line has not been shown to do anything."
    )
    with st.expander("What each row changes", icon=":material/help:"):
        st.markdown("\n".join(f"- **{name}**: {text}" for name, text in INTERVENTIONS.items() if name in rows.index))
    offer_report(table)
    number = st.column_config.NumberColumn
    st.dataframe(
        table.drop(columns=["prompt", "task", "measure", "n"]),
        key="table",
        hide_index=True,
        height=widgets.table_height(len(table)),
        column_config={"intervention": st.column_config.TextColumn(pinned=True)}
        | {column: number(format="%.3f") for column in table.columns if column.startswith(("loss", "score"))},
        alt=f"The {len(table)} interventions, a row each.",
    )
    widgets.download_buttons(table, f"behaviour-{prompt.name}")


def pick_token() -> int:
    return int(st.number_input("Virtual token", 0, len(prompt) - 1, 0, key="token", bind="query-params"))


def lens_table() -> pd.DataFrame | None:
    return asking(
        ("lens", *content), "the logit lens", lambda language_model, report: logit_lens(prompt.embeddings, language_model, vocabulary)
    )


def attention_table() -> pd.DataFrame | None:
    texts = task.examples("held-out")["text"].head(ATTENDED).tolist()
    return asking(
        ("attention", *content),
        "the attention",
        lambda language_model, report: attention(prompt.embeddings, language_model, texts, report=report),
    )


def show_token(table: pd.DataFrame | None) -> None:
    """Everything that is known of one virtual token."""
    position = pick_token()
    left, right = st.columns(2, gap="large")
    with left, widgets.in_words():
        st.markdown("**Nearest words**")
        with widgets.progress() as report:
            words = neighbours(one(position), vocabulary, top_k=8, report=report)
        st.plotly_chart(
            score_bars(words, span=(0.0, float(words["score"].max()))),
            key=f"words-{position}",
            alt=f"The words nearest to virtual token {position}: {', '.join(words['token'].str.strip())}.",
        )
        widgets.download_buttons(words, f"neighbours-{prompt.name}-{position}")
    with right, widgets.in_words():
        st.markdown("**Its reading**")
        read = computed(("verdicts", *content[:2], None), "the verdicts", lambda report: readings(prompt, vocabulary, report=report))
        if read is not None:
            row = read.iloc[position]
            st.markdown(f"{verdict_label(row['verdict'])}  \n{read_in_words(row)}")
        show_cluster(position)
        st.markdown("**What changing it does**")
        if table is None:
            st.caption("Ask the model under *Interventions*, and this shows what dropping and replacing the token does.")
        else:
            rows = table[table["position"] == position]
            st.plotly_chart(
                behaviour_charts.changes(rows, "loss"),
                key=f"token-{position}",
                alt="; ".join(f"{row.intervention}: loss {row.loss_change:+.3f}" for row in rows.itertuples()),
            )
    with widgets.in_words():
        lens = lens_table()
        paid = attention_table()
    if lens is not None:
        st.markdown("**What the model would say next at its place, after each layer**")
        of_token = lens[lens["position"] == position].assign(token=lambda rows: rows["token"].map(shown))
        wide = of_token.pivot(index="layer", columns="rank", values="token").rename(columns=lambda rank: f"rank {rank}").reset_index()
        wide["norm"] = of_token.drop_duplicates("layer")["norm"].to_numpy()
        st.dataframe(
            wide,
            hide_index=True,
            height=280,
            column_config={"norm": st.column_config.NumberColumn(format="%.1f")},
            alt="A row a layer: the three likeliest next words, and the norm.",
        )
    if paid is not None:
        st.markdown("**How much the answer attends to it, by layer and head**")
        mean = paid.loc[paid["position"] == position, "attention"].mean()
        st.plotly_chart(
            behaviour_charts.attention_by_head(paid, position),
            key=f"heads-{position}",
            alt=f"Attention to virtual token {position}; {mean:.1%} on average.",
        )
    links = st.columns(2)
    links[0].page_link(
        NEIGHBOURS.file,
        label="All its neighbours and the evidence for its verdict",
        icon=":material/hub:",
        query_params={"prompt": key},
    )
    links[1].page_link(CLUSTERS.file, label="Its cluster among all prompts", icon=":material/scatter_plot:")


def show_cluster(position: int) -> None:
    """The cluster that the token is in, among all prompts at hand, and whether that cluster can be believed."""
    others = [other for other in widgets.prompts_at_hand(vocabulary.model) if other.name != prompt.name]
    everyone = [prompt, *others]
    clustering = computed(
        ("clusters with", vocabulary.model, widgets.content_of(everyone)),
        "the clusters",
        lambda report: find_clusters(everyone, vocabulary, report=report),
    )
    if clustering is None:
        return
    number = clustering.members["cluster"].iloc[position]  # the prompt's own tokens come first
    if number < 0:
        st.markdown(f"**Its cluster**  \nNone: it is in no cluster among the {len(clustering.members)} virtual tokens at hand.")
        return
    row = clustering.clusters.set_index("cluster", drop=False).loc[[number]]
    believed = "stable and tighter than chance" if is_real(row).iloc[0] else "not to be believed: chance makes such clusters too"
    echo = ", and most of it started from the same words" if is_echo(row).fillna(False).iloc[0] else ""
    echo = ", but what its tokens started from is unknown" if pd.isna(row["shared_start"].iloc[0]) else echo
    of = row.iloc[0]
    st.markdown(
        f"**Its cluster**  \n“{widgets.plain(of['label'])}”, {of['size']} tokens of {of['prompts']} prompts: {believed}{echo} "
        f"(stability {of['stability']:.2f}, tightness p {of['tightness_p']:.2f})."
    )


def random_words(count: int) -> np.ndarray:
    """As many rows of the vocabulary, the same each time."""
    return vocabulary.embeddings[np.random.default_rng(0).choice(len(vocabulary), size=count, replace=False)].astype(np.float32)


def one(position: int) -> SoftPrompt:
    initial = None if prompt.initial is None else prompt.initial[[position]]
    return replace(prompt, embeddings=prompt.embeddings[[position]], initial=initial)


def read_in_words(row: pd.Series) -> str:
    text = f"Nearest to “{widgets.plain(shown(row['nearest_token']))}” (score {row['score']:.2f}, p of chance {row['p_chance']:.3f}). Its norm is {row['norm_ratio']:.2f} times the vocabulary's median."
    if pd.notna(row["initial_token"]):
        text += f" It started at “{widgets.plain(shown(row['initial_token']))}” and drifted by {row['drift']:.2f}"
        text += (
            f"; the drift is nearest to “{widgets.plain(shown(row['delta_token']))}” (p {row['p_learned']:.3f})."
            if pd.notna(row["delta_token"])
            else "."
        )
    return text


def show_inside() -> None:
    with widgets.in_words():
        lens = lens_table()
        paid = attention_table()
    if lens is not None:
        st.subheader("The logit lens")
        st.plotly_chart(behaviour_charts.lens(lens), key="lens", alt="The likeliest next word at each virtual position after each layer.")
        st.caption(
            "What the model would say next at each virtual position if it ended after that layer (the logit lens). Row 0 is the virtual token itself; early layers are not made to be read "
            "this way. A virtual token never sees the input, so this is the same for every example."
        )
        widgets.download_buttons(lens, f"lens-{prompt.name}")
        st.subheader("The residual stream's norm")
        longest = lens.loc[lens["norm"].idxmax()]
        st.plotly_chart(
            behaviour_charts.stream_norms(lens),
            key="norms",
            alt=f"Norms by virtual token and layer; the largest is {longest['norm']:.0f}, at token {longest['position']}.",
        )
        st.caption(
            "The first position of a text often grows huge and draws attention that says nothing of its content (an attention sink; Xiao et al. 2024)."
        )
    if paid is not None:
        st.subheader("Attention of the answer to the prompt")
        share = paid[paid["position"].notna()].groupby(["layer", "head"])["attention"].sum().mean()
        st.plotly_chart(
            behaviour_charts.attention_by_layer(paid),
            key="attention",
            alt=f"Attention by virtual token and layer, mean over heads; the prompt gets {share:.0%} in all.",
        )
        st.caption(
            f"From the position that predicts the answer, over {min(ATTENDED, available)} held-out examples. Attention is no explanation by itself: see *Interventions*."
        )
        widgets.download_buttons(paid, f"attention-{prompt.name}")


def show_words(all_tasks: dict[str, Task]) -> None:
    """Verbalisation: what the model writes where the prompt's states stand for words."""
    st.markdown(
        "The hidden states of the prompt are put in the place of words in another text, which lists tasks and what they ask for, and the model goes on writing "
        "(Patchscopes, Ghandeharioun et al. 2024; InSPEcT, Ramati et al. 2024). If it can say what the prompt asks for, it should write something like the task's "
        "description, and more like it than like those of other tasks."
    )
    if st.session_state.get("verbalise") != content:
        if not st.button("Let the model write", type="primary", icon=":material/play_arrow:", key="write"):
            st.caption("About two minutes on two cores.")
            return
        st.session_state["verbalise"] = content
    descriptions = {name: each.description for name, each in all_tasks.items()}
    if task.name not in TASKS:
        described = st.text_input(
            "The task in words", key=f"description-{task.name}", placeholder="for instance: Say whether a number is even or odd."
        ).strip()
        if not described:
            st.info("Say in words what the task asks for: what the model writes is compared with that.", icon=":material/info:")
            return
        descriptions[task.name] = described
    answers = {name: each.answer_words() for name, each in all_tasks.items()}
    start = prompt.initial if prompt.initial is not None else random_words(len(prompt))

    def ask(language_model, report: Report) -> tuple[pd.DataFrame, pd.DataFrame]:
        halves = (
            (prompt.embeddings, lambda share, doing: report(share / 2, doing)),
            (start, lambda share, doing: report(0.5 + share / 2, doing)),
        )
        return tuple(verbalise(rows, language_model, task.name, descriptions, answers, report=half) for rows, half in halves)

    with widgets.in_words():
        written = asking(("verbalise", *content, descriptions[task.name]), "what the model writes", ask)
    if written is None:
        return
    table, baseline = written
    st.markdown(f"**{widgets.plain(says(table, baseline, task.name, descriptions))}**")
    st.caption(f"Compared with what it writes of {'the initial values' if prompt.initial is not None else 'as many random words'}.")
    st.plotly_chart(
        behaviour_charts.verbalisation(table),
        key="verbalisation",
        alt="ROUGE-1 with the own description less that with others, by source and target layer.",
    )
    st.caption(
        f"The task: “{widgets.plain(task.description)}” Purple and orange are told apart by the numbers on the bar; point at a cell to read what was written. The best cell of so many is "
        "high by chance too: only the mean over all cells is tested."
    )
    left, right = st.columns([2, 1], gap="large")
    left.dataframe(
        table.assign(beyond=table["rouge_1"] - table["rouge_1_others"]).sort_values("beyond", ascending=False),
        hide_index=True,
        height=320,
        column_config={column: st.column_config.NumberColumn(format="%.3f") for column in (*table.columns[3:], "beyond")},
        alt="What was written for each pair of layers, the likest to the description first.",
    )
    means = by_task(table, baseline, descriptions).rename_axis("description of").reset_index()
    right.dataframe(
        means, hide_index=True, height=320, column_config={"rouge_1": st.column_config.NumberColumn("ROUGE-1 beyond the start", format="%.3f")},
        alt=f"The mean ROUGE-1 with each task's description, less that of the start; the highest is {means['description of'].iloc[0]}.",
    )  # fmt: skip
    widgets.download_buttons(table, f"verbalisation-{prompt.name}")


def show_answers() -> None:
    before, _, after = task.template.partition("{input}")
    examples = task.examples("held-out").head(50)
    inputs = [text[len(before) : len(text) - len(after)] for text in examples["text"]]
    given = st.text_input(
        "Input", value=inputs[0], key=f"input-{task.name}", max_chars=2000, help="Any input of the task; the template is put around it."
    ).strip()
    if not given:
        st.info("Type an input.", icon=":material/info:")
        return
    with widgets.in_words():
        table = asking(
            ("answers", *content, given),
            "the answers",
            lambda language_model, report: side_by_side(prompt, vocabulary, task, given, language_model),
        )
    if table is None:
        return
    ways = table.drop_duplicates("way")
    for i in range(0, len(ways), 4):
        for column, (way, rows) in zip(st.columns(4, gap="medium"), list(table.groupby("way", sort=False))[i : i + 4], strict=False):
            with column.container(border=True):
                st.markdown(f"**{widgets.plain(way)}**")
                st.caption(widgets.plain(rows["reads"].iloc[0]).replace("\n", "  \n"))
                st.markdown(f"→ {widgets.plain(rows['answer'].iloc[0]) or '(nothing)'}")
                st.dataframe(
                    rows[["token", "probability"]].assign(token=rows["token"].map(shown)),
                    hide_index=True,
                    column_config={"probability": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1)},
                    alt=f"The likeliest first tokens of {way}: {', '.join(rows['token'].str.strip())}.",
                )
    how = "The answers are written greedily up to the end of the line; the bars are the probabilities of the first token."
    if task.labels:
        how += f" To be scored, the model chooses among {', '.join(label.strip() for label in task.labels)} instead."
    wanted = dict(zip(inputs, examples["target"], strict=True)).get(given)
    if wanted is None:
        st.caption(how)
    else:
        st.caption(
            f"The answer wanted: “{widgets.plain(wanted.strip())}”. Greedy writing up to the end of the line; the bars are the probabilities of its first token."
        )
    widgets.download_buttons(table, f"answers-{prompt.name}")


view = st.segmented_control(
    "What to see", VIEWS, default=VIEWS[0], required=True, key="view", bind="query-params", label_visibility="collapsed"
)
made = at_hand() if view != "Interventions" else measured()
if made is not None:
    show_verdict(made)
if view == "Interventions" and made is not None:
    show_interventions(made)
elif view == "One token":
    show_token(made)
elif view == "Inside":
    show_inside()
elif view == "In words":
    show_words({each.name: each for each in [*TASKS.values(), task]})
elif view == "Answers":
    show_answers()
widgets.provenance([prompt], vocabulary.model)
