"""Every way to adapt a model, on the same examples: what each gives and what it costs, measured here and as papers published it; scorecards of many measures."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import streamlit as st

from analysis.adapters import load_soft_prompt
from analysis.errors import InputError
from analysis.gemma import GEMMA_MODEL
from analysis.model_size import total_parameters
from analysis.models import EMBEDDED_MODEL, Report, is_at_hand, listed, load_model
from app import charts, widgets
from app.background import computed
from trained_prompts import comparison, evaluation, store
from trained_prompts.comparison import ComparisonConfig, beside_zero_shot, best_of_each_method, published, told_apart
from trained_prompts.own_data import kept_tasks
from trained_prompts.tasks import TASKS, get_task
from trained_prompts.trainer import MAX_STEPS

BARE = "no prompt"
OWN_TASK = "its own"
OTHER_MODEL = "another"
# Seconds a step of the five methods that learn, and an example of a row, on two cores: of sentences, and of the short inputs of the other tasks.
PACE = {"sentiment": (1.5, 0.05), "others": (0.7, 0.04)}
AXES = {"trainable": "trainable parameters", "total": "model size"}
MODEL_NOTES = {
    EMBEDDED_MODEL: f"{EMBEDDED_MODEL} was taught to follow instructions and is quantised to four bits",
    GEMMA_MODEL: f"{GEMMA_MODEL} is a base model in 4-bit K-quants",
}


@st.cache_resource
def under_way() -> dict[str, ComparisonConfig]:
    """The comparisons that were started on this server and are not done, by key: a page that is loaded again finds them."""
    return {}


@st.cache_resource
def turn() -> threading.Lock:
    """One measurement at a time: seconds and memory are among what is measured."""
    return threading.Lock()


@contextmanager
def in_turn(report: Report, lock: threading.Lock) -> Iterator[None]:
    while not lock.acquire(timeout=0.5):
        report(0.0, "waiting for another measurement to end")
    try:
        yield
    finally:
        lock.release()


def warn_of_link(key: str, options: list[str]) -> None:
    asked = st.query_params.get(key)
    if asked is not None and asked not in options:
        st.warning(f"The link asks for {widgets.plain(asked)}, of which there is no comparison here.", icon=":material/link_off:")


def pick(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of one comparison."""
    left, middle, right = st.columns(3)
    tasks = in_order(table["task"], list(TASKS))
    warn_of_link("task", tasks)
    task = left.selectbox("Task", tasks, key="task", bind="query-params")
    models = in_order(table.loc[table["task"] == task, "model"], [EMBEDDED_MODEL, GEMMA_MODEL])
    warn_of_link("model", models)
    model = middle.selectbox("Model", models, key="model", bind="query-params")
    found = table[(table["task"] == task) & (table["model"] == model)]
    labels = {f"{number}: {described(rows)}": number for number, rows in found.groupby("comparison", sort=False)}
    if len(labels) == 1:
        return found
    return found[found["comparison"] == labels[right.selectbox("Which", list(labels), key="which", bind="query-params")]]


def in_order(names: pd.Series, first: list[str]) -> list[str]:
    """The different names, those of a list first and in its order."""
    return sorted(dict.fromkeys(names), key=lambda name: first.index(name) if name in first else len(first))


def described(rows: pd.DataFrame) -> str:
    """What tells a comparison from another of the same task and model."""
    steps = rows["what"].str.extract(r"(\d+) steps", expand=False).dropna()
    parts = [f"{steps.iloc[0]} steps", f"seed {rows['seed'].max():.0f}"] if len(steps) else ["nothing trained yet"]
    return ", ".join([*parts, f"{rows['n'].iloc[0]:,} held-out examples", "ships" if rows["origin"].iloc[0] == "shipped" else "made here"])


def finding(rows: pd.DataFrame) -> str:
    """What the figures say: which rows lie beyond zero-shot's interval, and how far hand-written prompts differ."""
    bare = rows[rows["method"] == "zero-shot"].iloc[0]
    place = beside_zero_shot(rows)
    prompts = rows[rows["method"] == "prompt engineering"]
    sentences = []
    for where, words in (
        ("above", "Above zero-shot beyond the intervals"),
        ("below", "Below it beyond the intervals"),
        ("within", "Not told apart from it"),
    ):
        methods = [method for method in rows.loc[place == where, "method"].unique() if method not in ("zero-shot", "prompt engineering")]
        count = int((place[prompts.index] == where).sum())
        named = [*methods, *([f"prompt engineering in {count} of {len(prompts)} tries"] if count else [])]
        if named or where == "above":
            sentences.append(f"{words}: {listed(named) if named else 'nothing'}.")
    text = f"Zero-shot scores **{interval(bare)}**. **{sentences[0]}** {' '.join(sentences[1:])}"
    if len(prompts) > 1:
        best, worst = prompts.loc[prompts["score"].idxmax()], prompts.loc[prompts["score"].idxmin()]
        text += f"  \nThe best hand-written prompt scores {interval(best)}: {quoted(best['what'])}; the worst {interval(worst)}: {quoted(worst['what'])}."
    return text


def interval(row: pd.Series) -> str:
    return f"{row['score']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def quoted(prompt: str) -> str:
    return f"“{widgets.plain(one_line(prompt))}”"


def one_line(text: str) -> str:
    return text.replace("\n", " ⏎ ")


def show_table(rows: pd.DataFrame, key: str) -> None:
    shown = rows[
        ["method", "what", "score", "low", "high", "loss", "trainable", "seconds_training", "seconds_scoring", "peak_memory", "n", "seed"]
    ]
    number = st.column_config.NumberColumn
    st.dataframe(
        shown.assign(what=shown["what"].map(one_line), seed=shown["seed"].map(lambda seed: "" if pd.isna(seed) else f"{seed:.0f}")),
        key=key,
        hide_index=True,
        height="content",
        column_config={
            "method": st.column_config.TextColumn(pinned=True),
            "what": st.column_config.TextColumn("prompt, or settings", width="medium", help="⏎ is a new line"),
            "score": number(format="%.3f", help=f"{rows['measure'].iloc[0]} on held-out examples"),
            "low": number(format="%.3f", help="Where the 95 % interval begins"),
            "high": number(format="%.3f", help="Where the 95 % interval ends"),
            "loss": number(format="%.2f", help="Nats a token of the answers wanted"),
            "trainable": number(format="localized", help="Trainable parameters"),
            "seconds_training": number("training", format="%.0f s"),
            "seconds_scoring": number("scoring", format="%.0f s"),
            "peak_memory": number("peak memory", format="bytes", help="The most that the process held at once, the model with it"),
        },
        alt=f"The comparison, a row a method or prompt: {'; '.join(f'{row.method} {row.score:.3f}' for row in rows.itertuples())}.",
    )


def show_comparison(rows: pd.DataFrame) -> None:
    st.markdown(finding(rows))
    st.plotly_chart(charts.method_scores(rows), key="scores", alt=f"Score and interval of each row, zero-shot's as a band. {finding(rows)}")
    st.caption(
        f"Grey: the 95 % interval of zero-shot. {described(rows).capitalize()}. Intervals are of the examples alone: one seed, and another would give other figures too. "
        "The best of several prompts, picked on the same examples, flatters a little."
    )
    show_table(rows, "comparison")
    widgets.download_buttons(rows.drop(columns="comparison"), f"methods-{rows['task'].iloc[0]}-{rows['model'].iloc[0]}")


def show_pictures(rows: pd.DataFrame, table: pd.DataFrame) -> None:
    st.subheader("Score against size, measured here")
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Trainable parameters**")
        st.plotly_chart(charts.score_by_trainable(rows), key="trainable", alt="Score and interval against trainable parameters, log axis.")
        st.caption("Grey: the 95 % interval of zero-shot. Zero-shot and hand-written prompts train nothing.")
    with right:
        st.markdown("**Size of the model**")
        show_sizes(rows, table)


def show_sizes(rows: pd.DataFrame, table: pd.DataFrame) -> None:
    """The picked comparison beside those of the same task on other models."""
    task, model = rows["task"].iloc[0], rows["model"].iloc[0]
    others = table[(table["task"] == task) & (table["model"] != model)]
    latest = others[others["comparison"].isin(others.groupby("model")["comparison"].max())]
    both = [best_of_each_method(of_one) for _, of_one in pd.concat([rows, latest]).groupby("model", sort=False)]
    sized = pd.concat(both).assign(total=lambda all_rows: all_rows["model"].map(model_size))
    unknown = sized.loc[sized["total"].isna(), "model"].unique()
    sized = sized[sized["total"].notna()]
    if len(unknown):
        st.caption(f"Left out, as their weights are not on this machine to be counted: {widgets.plain(', '.join(unknown))}.")
    if len(sized["model"].unique()) < 2:
        st.info(f"This takes comparisons of {task} on two models or more: run one on another model below.", icon=":material/info:")
        return
    st.plotly_chart(
        charts.score_by_size(sized),
        key="sizes",
        alt=f"Score and interval of each method on {listed(list(sized['model'].unique()))}, by total parameters.",
    )
    counts = [f"{widgets.plain(name)}: {part['n'].iloc[0]:,} examples" for name, part in sized.groupby("model", sort=False)]
    notes = [MODEL_NOTES[name] for name in sized["model"].unique() if name in MODEL_NOTES]
    said = f" Size is not all that differs: {listed(notes)}." if notes else ""
    st.caption(f"{'; '.join(counts)}. Of hand-written prompts, the best of each model.{said}")


@st.cache_data(max_entries=64, show_spinner=False, ttl=60)
def model_size(model: str) -> int | None:
    return total_parameters(model)


def show_published() -> None:
    st.subheader("What papers published")
    table = published()
    metrics = {f"{row.metric} ({row.table})": row.metric for row in table.drop_duplicates("metric").itertuples()}
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    metric = left.selectbox("Figure", list(metrics), key="published", bind="query-params")
    rows = table[table["metric"] == metrics[metric]]
    several = len(rows["model"].unique()) > 1
    against = right.segmented_control(
        "Against",
        list(AXES) if several else ["trainable"],
        default="trainable",
        required=True,
        format_func=AXES.get,
        key="against",
        bind="query-params",
    )
    drawn = rows if against == "trainable" else rows[~rows["note"].str.startswith("set up as")]
    st.plotly_chart(
        charts.published_scores(drawn, against),
        key=f"published-{against}",
        alt=f"{metric} of {listed(list(rows['method'].unique()))} as published, against {AXES[against]}.",
    )
    joined = "A dotted line joins the figures of one " + ("model." if against == "trainable" else "method.")
    spread = " Bars are the plus and minus that the paper prints." if rows["plus_minus"].notna().any() else ""
    st.caption(
        f"Open marks: nothing here was measured by this explorer, and models, tasks and training differ from the figures above. {rows['paper'].iloc[0]}, "
        f"{rows['table'].iloc[0]}. {joined}{spread}"
    )
    with st.expander("The published figures as a table", icon=":material/table_rows:"):
        st.dataframe(
            rows.drop(columns=["metric"]),
            hide_index=True,
            column_config={key: st.column_config.NumberColumn(format="localized") for key in ("total", "trainable")},
            alt=f"What {rows['paper'].iloc[0]} prints in {rows['table'].iloc[0]}, a row a figure.",
        )
        widgets.download_buttons(table, "methods-published")


def minutes_needed(config: ComparisonConfig, n: int) -> int:
    """About how long a comparison takes on two cores."""
    step, example = PACE.get(config.task, PACE["others"])
    task = get_task(config.task)
    seconds = len(comparison.METHODS) * config.steps * step + rows_wanted(config) * n * example * (1 if task.labels else 1.5)
    return max(1, round(seconds * (2 if config.model != EMBEDDED_MODEL else 1) / 60))


def rows_wanted(config: ComparisonConfig) -> int:
    """Zero-shot, each hand-written prompt with no and with some examples, and the methods that learn."""
    return 1 + 2 * len(get_task(config.task).prompts) + len(comparison.METHODS)


def choose_model() -> str:
    models = [EMBEDDED_MODEL, *([GEMMA_MODEL] if is_at_hand(GEMMA_MODEL) else []), OTHER_MODEL]
    picked = st.selectbox("Model", models, key="new-model", bind="query-params", help=f"{GEMMA_MODEL} is here after `make gemma`.")
    if picked != OTHER_MODEL:
        return picked
    named = st.text_input("Other model", key="other", bind="query-params", placeholder="a hub id, a folder or a .gguf file").strip()
    return named or EMBEDDED_MODEL


def choose() -> ComparisonConfig:
    """The settings of a new comparison."""
    first, second, third, fourth, fifth = st.columns([2, 2, 1, 1, 1])
    task = first.selectbox("Task", [*TASKS, *(own.name for own in kept_tasks())], key="new-task", bind="query-params")
    with second:
        model = choose_model()
    steps = third.number_input(
        "Steps", 1, MAX_STEPS, 150, key="steps", bind="query-params", help="Of each method that learns, of eight examples each"
    )
    seed = fourth.number_input("Seed", 0, 2**31 - 1, 0, key="seed", bind="query-params")
    limit = fifth.number_input(
        "Held-out examples", 10, 100_000, 500, key="limit", bind="query-params", help="The first so many; all where there are fewer"
    )
    held_out = len(get_task(task).examples("held-out"))
    return ComparisonConfig(task=task, model=model, steps=int(steps), seed=int(seed), limit=int(limit) if limit < held_out else None)


def offer_to_run() -> None:
    st.subheader("Run a comparison")
    st.markdown(
        "Zero-shot, each hand-written prompt with no and with four examples, prompt tuning, p-tuning, prefix tuning, LoRA and full fine-tuning, on the same examples."
    )
    config = choose()
    n = config.limit or len(get_task(config.task).examples("held-out"))
    done, wanted = len(comparison.kept(config)), rows_wanted(config)
    if done >= wanted:
        st.success("This comparison is kept: it can be picked above.", icon=":material/check_circle:")
    elif config.key not in under_way():
        going_on = f" {done} of {wanted} rows are kept from before; it goes on from there." if done else ""
        st.caption(
            f"About {minutes_needed(config, n)} minutes for {wanted} rows on two cores without a GPU.{going_on} It can be stopped at any time: finished rows are kept. "
            "Training on another page meanwhile makes seconds and memory meaningless."
        )
        if st.button("Go on" if done else "Run", type="primary", icon=":material/play_arrow:", key="run"):
            under_way()[config.key] = config
            st.rerun()
    for started in list(under_way().values()):
        watch(started)


def watch(config: ComparisonConfig) -> None:
    """A comparison under way: its progress, and its rows as they are made."""
    lock = turn()

    def compute(report: Report) -> pd.DataFrame:
        with in_turn(report, lock):
            language_model = load_model(config.model, report=report)
            return comparison.compare(config, language_model=language_model, report=report)

    with st.container(border=True):
        st.markdown(f"**{widgets.plain(config.task)} on {widgets.plain(config.model)}**, {config.steps} steps, seed {config.seed}")
        try:
            table = computed(("comparison", config), f"the rows of {config.task}", compute)
        except InputError as error:
            del under_way()[config.key]
            widgets.refusal(error)
            return
        if table is not None:
            del under_way()[config.key]
            st.rerun()

        @st.fragment(run_every=3.0)
        def rows_so_far() -> None:
            made = comparison.kept(config)
            if len(made):
                show_table(made, f"so-far-{config.key}")
            st.caption("Rows appear here as they are made, and are kept: a comparison that was stopped goes on from them.")

        rows_so_far()


@contextmanager
def adapted_run(run: pd.Series | None, language_model) -> Iterator[evaluation.Adapted]:
    """The model as a run of the store leaves it; as it is where there is no run."""
    if run is None:
        yield evaluation.bare(language_model)
    elif run["method"] == "lora":
        from trained_prompts.lora import applied

        with evaluation.with_lora(language_model, applied(language_model[0], Path(run["path"]))) as subject:
            yield subject
    elif run["method"] == "full":
        yield evaluation.bare(load_model(run["path"]))
    else:
        yield evaluation.adapted(load_soft_prompt(run["path"]), language_model)


def measure(cards: list[tuple[str, pd.Series | None, str, str]], limit: int, report: Report) -> pd.DataFrame:
    """A scorecard of each (name, run, task, model), one under the other."""
    tables, loaded = [], (None, None)
    for i, (name, run, task, model) in enumerate(cards):

        def report_part(share: float, doing: str, i: int = i, name: str = name) -> None:
            report((i + share) / len(cards), f"{name}: {doing}")

        if loaded[0] != model:
            loaded = (model, load_model(model, report=report_part))
        with adapted_run(run, loaded[1]) as subject:
            tables.append(evaluation.scorecard(name, subject, get_task(task), limit=limit, report=report_part))
    return pd.concat(tables, ignore_index=True)


def cards_of(names: list[str], on: str, runs: pd.DataFrame) -> list[tuple[str, pd.Series | None, str, str]]:
    """What is to be measured: each run on its own task or on the one named, and the model as it is on all of these."""
    cards = [(name, run, run["task"] if on == OWN_TASK else on, run["model"]) for name in names if name != BARE for run in [runs.loc[name]]]
    if BARE in names:
        where = dict.fromkeys((task, model) for _, _, task, model in cards) or {
            (on if on != OWN_TASK else "sentiment", EMBEDDED_MODEL): None
        }
        cards = [*((BARE, None, task, model) for task, model in where), *cards]
    return sorted(cards, key=lambda card: (card[3], card[2]))  # a model is loaded once


def show_scorecards() -> None:
    st.subheader("Scorecards")
    st.markdown(
        "Many measures of one prompt or LoRA, and none left out, as HELM has it (Liang et al. 2023): the score, loss, calibration, what lower case and typing errors do, and speed."
    )
    runs = store.list_runs().set_index("name", drop=False)
    left, middle, right = st.columns([3, 2, 1])
    names = left.multiselect(
        "Runs", [BARE, *runs.index], default=[BARE, *runs.index[:1]], key="runs", bind="query-params", placeholder="pick runs"
    )
    on = middle.selectbox("On the task", [OWN_TASK, *TASKS, *(own.name for own in kept_tasks())], key="on", bind="query-params")
    limit = int(
        right.number_input(
            "Examples",
            10,
            2000,
            100,
            key="examples",
            bind="query-params",
            help="The first so many held-out ones; each is asked three times",
        )
    )
    if not names:
        st.info("Pick a run of the gallery or of your own.", icon=":material/info:")
        return
    if st.button("Measure", type="primary", icon=":material/straighten:", key="measure"):
        st.session_state["measured"] = (names, on, limit)
    if "measured" not in st.session_state:
        return
    names, on, limit = st.session_state["measured"]
    cards = cards_of([name for name in names if name == BARE or name in runs.index], on, runs)
    if cards:
        show_cards(cards, limit)


def show_cards(cards: list[tuple[str, pd.Series | None, str, str]], limit: int) -> None:
    lock = turn()

    def compute(report: Report) -> pd.DataFrame:
        with in_turn(report, lock):
            return measure(cards, limit, report)

    of_what = tuple((name, None if run is None else run["created"], task, model) for name, run, task, model in cards)
    with widgets.in_words():
        table = computed(("scorecards", of_what, limit), "the scorecards", compute)
    if table is None:
        return
    wide = table.pivot_table(index=["prompt", "task", "n"], columns="measure", values="value", sort=False, aggfunc="first").reset_index()
    measures = list(dict.fromkeys(table["measure"]))
    st.dataframe(
        wide[["prompt", "task", *measures, "n"]],
        hide_index=True,
        column_config={"prompt": st.column_config.TextColumn(pinned=True)}
        | {name: st.column_config.NumberColumn(format="%.3f") for name in measures},
        height=widgets.table_height(len(wide)),
        alt=f"A row a run, a column a measure: {', '.join(measures)}.",
    )
    widgets.download_buttons(table, "scorecards")
    st.caption(
        "The export has a row a measure, with its 95 % interval where there is one. High is good, but for loss, calibration error and seconds."
    )


st.title("Methods")
st.markdown("The same model and the same examples, adapted in every way: what each gives, and what it costs.")
with widgets.in_words():
    at_hand = told_apart(comparison.all_kept())
    if len(at_hand):
        picked = pick(at_hand)
        show_comparison(picked)
        show_pictures(picked, at_hand)
    else:
        st.info(
            "There is no comparison here yet: run one below, or `python -m trained_prompts compare --task sentiment`.",
            icon=":material/info:",
        )
    show_published()
    offer_to_run()
    show_scorecards()
