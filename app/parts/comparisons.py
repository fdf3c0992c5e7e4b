"""Comparisons on *Learn*, under *Methods*: their table, the settings of a new one, and those under way."""

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters.run_file import MAX_STEPS
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.names import packaged_here
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.own_data import kept_tasks
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.app.parts import naming, widgets
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.server.background import computed
from soft_prompt_explorer.trained_prompts.experiments import comparison
from soft_prompt_explorer.trained_prompts.experiments.comparison import ComparisonConfig

OTHER_MODEL = "another"
# Seconds a step of the five methods that learn, and an example of a row, on two cores: of sentences, and of the short inputs of the other tasks.
PACE = {"sentiment": (1.5, 0.05), "others": (0.7, 0.04)}


@st.cache_resource
def under_way() -> dict[str, ComparisonConfig]:
    """The comparisons that were started on this server and are not done, by key: a page that is loaded again finds them."""
    return {}


def one_line(text: str) -> str:
    return text.replace("\n", " ⏎ ")


def show_rows(rows: pd.DataFrame, key: str) -> None:
    shown = rows[
        ["method", "what", "score", "low", "high", "loss", "trainable", "seconds_training", "seconds_scoring", "peak_memory", "n", "seed"]
    ]
    number = st.column_config.NumberColumn
    show_table(
        shown.assign(what=shown["what"].map(one_line), seed=shown["seed"].map(lambda seed: "" if pd.isna(seed) else f"{seed:.0f}")),
        key=key,
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
        alt=f"The comparison, a row a method or prompt: {'; '.join(f'{row.method} {row.score:.3f}, n {row.n:,.0f}' if row.n else f'{row.method} without a score' for row in rows.itertuples())}.",
    )


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
    models = [EMBEDDED_MODEL, *packaged_here(), OTHER_MODEL]
    picked = st.selectbox("Model", models, key="new-model", bind="query-params", help=naming.HOW_TO_HAVE_MORE)
    if picked != OTHER_MODEL:
        return picked
    return naming.model_field(st, "Other model", key="other", placeholder="a hub id, a folder or a .gguf file") or EMBEDDED_MODEL


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
        st.success("This comparison is kept: it can be picked in *Measured here*.", icon=":material/check_circle:")
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

    def compute(report: Report) -> pd.DataFrame:
        language_model = load_model(config.model, report=report)
        return comparison.compare(config, language_model=language_model, report=report)

    with st.container(border=True):
        st.markdown(f"**{widgets.plain(config.task)} on {widgets.plain(config.model)}**, {config.steps} steps, seed {config.seed}")
        try:
            table = computed(("comparison", config), f"the rows of {config.task}", compute, alone=True)
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
                show_rows(made, f"so-far-{config.key}")
            st.caption("Rows appear here as they are made, and are kept: a comparison that was stopped goes on from them.")

        rows_so_far()
