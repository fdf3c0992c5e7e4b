"""Comparisons of methods that were measured here: one of them picked, what it says, and score against size."""

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.core.words import listed
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.packaged import GEMMA_MODEL
from soft_prompt_explorer.analysis.models.size import total_parameters
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.app.charts.methods import method_scores, score_by_size, score_by_trainable
from soft_prompt_explorer.app.pages import LIBRARY, TRAIN
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.comparisons import one_line, show_rows
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.trained_prompts.experiments import comparison
from soft_prompt_explorer.trained_prompts.experiments.comparison import beside_zero_shot, best_of_each_method, told_apart

MODEL_NOTES = {
    EMBEDDED_MODEL: f"{EMBEDDED_MODEL} was taught to follow instructions and is quantised to four bits",
    GEMMA_MODEL: f"{GEMMA_MODEL} is a base model in 4-bit K-quants",
}


def show_measured() -> None:
    for sentence in comparison.damaged():
        st.warning(widgets.plain(sentence), icon=":material/warning:")
    at_hand = told_apart(comparison.all_kept())
    if len(at_hand):
        picked = pick(at_hand)
        show_comparison(picked)
        against = st.expander("Score against size", icon=":material/scatter_plot:", key="against-size", on_change="rerun")
        if against.open:
            with against:
                show_pictures(picked, at_hand)
    else:
        st.info("There is no comparison here yet: run one in *Run one*.", icon=":material/info:")


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


def warn_of_link(key: str, options: list[str]) -> None:
    asked = st.query_params.get(key)
    if asked is not None and asked not in options:
        st.warning(f"The link asks for {widgets.plain(asked)}, of which there is no comparison here.", icon=":material/link_off:")


def in_order(names: pd.Series, first: list[str]) -> list[str]:
    """The different names, those of a list first and in its order."""
    return sorted(dict.fromkeys(names), key=lambda name: first.index(name) if name in first else len(first))


def described(rows: pd.DataFrame) -> str:
    """What tells a comparison from another of the same task and model."""
    steps = rows["what"].str.extract(r"(\d+) steps", expand=False).dropna()
    parts = [f"{steps.iloc[0]} steps", f"seed {rows['seed'].max():.0f}"] if len(steps) else ["nothing trained yet"]
    return ", ".join([*parts, f"{rows['n'].iloc[0]:,} held-out examples", "ships" if rows["origin"].iloc[0] == "shipped" else "made here"])


def show_comparison(rows: pd.DataFrame) -> None:
    st.markdown(finding(rows))
    st.html(method_scores(rows, alt=f"Score and interval of each row, zero-shot's as a band. {finding(rows)}"))
    st.caption(
        f"Grey: the 95 % interval of zero-shot. {described(rows).capitalize()}. Intervals are of the examples alone: one seed, and another would give other figures too. "
        "The best of several prompts, picked on the same examples, flatters a little."
    )
    show_rows(rows, "comparison")
    with widgets.downloads():
        widgets.download_buttons(rows.drop(columns="comparison"), f"methods-{rows['task'].iloc[0]}-{rows['model'].iloc[0]}")
    task = rows["task"].iloc[0]
    with st.container(horizontal=True):
        st.page_link(TRAIN.file, label="Train one on this task", icon=TRAIN.icon, query_params={"task": task})
        if task in set(at_hand.list_runs()["task"]):
            st.page_link(LIBRARY.file, label="Read what was trained on it", icon=LIBRARY.icon, query_params={"tasks": task})


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
        ("no score", "Without a score (diverged, or too long for the model)"),
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
    return f"{row['score']:.3f} ({row['low']:.3f} to {row['high']:.3f}, n {row['n']:,.0f})"


def quoted(prompt: str) -> str:
    return f"“{widgets.plain(one_line(prompt))}”"


def show_pictures(rows: pd.DataFrame, table: pd.DataFrame) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Trainable parameters**")
        st.plotly_chart(score_by_trainable(rows), key="trainable", alt="Score and interval against trainable parameters, log axis.")
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
        st.info(
            f"This takes comparisons of {widgets.plain(task)} on two models or more: run one on another model in *Run one*.",
            icon=":material/info:",
        )
        return
    st.plotly_chart(
        score_by_size(sized),
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
