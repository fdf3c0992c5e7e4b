"""What readability costs, on *Learn*, under *Methods*: prompts drawn to words ever more strongly, and the words in their place."""

import json
import math
from pathlib import Path

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.behaviour.templates import how_asked, together
from soft_prompt_explorer.analysis.core.progress import Report
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.app.charts.scores import readability_trade
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.measures import below
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.app.server.background import computed
from soft_prompt_explorer.trained_prompts.experiments.trades import trade

AGAINST = {"cosine": "cosine with the nearest word", "near": "tokens beyond chance"}


def show_trade() -> None:
    st.subheader("What readability costs")
    st.markdown(
        "Prompts that training drew to words, with a stronger and stronger pull γ: how they score, and how the words themselves score in place of the vectors."
    )
    runs = at_hand.list_runs()
    several = [(label, rows) for label, rows in labelled(runs[runs["method"] == "prompt-tuning"]) if len(rows["readable"].unique()) > 1]
    of_place = dict(sorted(several, key=lambda place: -place[1]["readable"].nunique()))  # the one with the most to see first
    if not of_place:
        st.info("This takes two runs of prompt tuning on one task that differ in γ: train them on the Train page.", icon=":material/info:")
        return
    warn_of_link("trade", list(of_place), "task")
    left, middle, right = st.columns([1, 3, 1])
    place = left.selectbox("Task", list(of_place), key="trade", bind="query-params")
    picked = of_place[place].sort_values("readable", kind="stable")
    picked = picked.assign(family=[settings_but_readable(path) for path in picked["path"]]).set_index("name", drop=False)
    of_task = f"trade-runs-{place}"  # a choice of its own for each task
    warn_of_link(of_task, list(picked["name"]), "run")
    names = middle.multiselect(
        "Runs", list(picked["name"]), default=largest_family(picked), key=of_task, bind="query-params", placeholder="pick runs",
        help="Those of one seed and start, which differ in nothing but γ, can be compared.",
    )  # fmt: skip
    limit = widgets.pick_examples(right, 100, key="trade-examples", note="asked twice of each run")
    if len(names) < 2:
        st.info("Pick two runs or more.", icon=":material/info:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        asked = st.button("Measure", type="primary", icon=":material/straighten:", key="measure-trade")
        against = st.segmented_control(
            "Readability",
            list(AGAINST),
            default="cosine",
            required=True,
            format_func=AGAINST.__getitem__,
            key="trade-against",
            bind="query-params",
        )
    if asked:
        st.session_state["traded"] = (sorted(names), limit)
    if st.session_state.get("traded") == (sorted(names), limit):
        show_scores(picked.loc[[name for name in picked["name"] if name in names]], limit, against)


def labelled(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The runs of each task and model; the label names the model where it is not the embedded one."""
    groups = runs.groupby(["task", "model"], sort=False)
    return [(task if model == EMBEDDED_MODEL else f"{task} on {model}", rows) for (task, model), rows in groups]


def settings_but_readable(path: str) -> str:
    config = read_description(Path(path))["config"]
    return json.dumps({name: value for name, value in config.items() if name != "readable"}, sort_keys=True)


def largest_family(runs: pd.DataFrame) -> list[str]:
    """The names of the runs that differ in γ alone, of the settings with the most values of it."""
    values = runs.groupby("family", sort=False)["readable"].nunique()
    return runs.loc[runs["family"] == values.idxmax(), "name"].tolist()


def warn_of_link(key: str, options: list[str], what: str) -> None:
    missing = [asked for asked in st.query_params.get_all(key) if asked not in options]
    if missing:
        st.warning(f"The link asks for {widgets.plain(', '.join(missing))}; there is no such {what} here.", icon=":material/link_off:")


def show_scores(runs: pd.DataFrame, limit: int, against: str) -> None:
    """The trade of these runs, which are of one task and model."""
    task, model = runs["task"].iloc[0], runs["model"].iloc[0]

    def compute(report: Report) -> pd.DataFrame:
        vocabulary, language_model = at_hand.vocabulary(model, report=report), load_model(model, report=report)
        prompts = [load_soft_prompt(path) for path in runs["path"]]
        asked = together([how_asked(prompt, task) for prompt in prompts])
        return trade(prompts, asked.task, vocabulary, language_model=language_model, limit=limit, report=report)

    table = computed(("trade", tuple(runs["path"]), tuple(runs["created"]), limit), "the scores of vectors and words", compute, alone=True)
    if table is None:
        return
    said = summed_up(table)
    st.markdown(said)
    drawn = table.assign(family=pd.factorize(table["prompt"].map(runs["family"]))[0])
    st.plotly_chart(
        readability_trade(drawn, against),
        key=f"trade-{against}",
        alt=f"Score of vectors and of words by {AGAINST[against]}. {said}",
    )
    st.caption(
        "Grey: the 95 % interval of the model without a prompt. Each prompt is two marks with its γ beside them; a line joins those that differ in γ alone, in its order. "
        "Intervals are of the examples alone: another seed would give other prompts. Nearness to a word is no reading: a vector can be drawn next to any word at little "
        "loss, and the words need not do what the vectors do (Khashabi et al. 2022)."
    )
    show_table(
        table[
            ["prompt", "readable", "near", "score", "low", "high", "words_score", "words", "words_low", "words_high", "cosine", "n"]
        ].assign(readable=table["readable"].map(gamma)),
        column_config={
            "prompt": st.column_config.TextColumn(pinned=True),
            "readable": st.column_config.Column("γ"),
            "near": st.column_config.NumberColumn(
                format="percent",
                help="Share of the tokens that are nearer to a word than chance allows, and not the word they started from",
            ),
            "words": st.column_config.TextColumn("ended at the words", width="large"),
        }
        | {
            name: st.column_config.NumberColumn(name.replace("_", " "), format="%.3f")
            for name in ("cosine", "score", "low", "high", "words_score", "words_low", "words_high")
        },
        alt=f"The trade, a row a prompt, with the words that it ended at. {said}",
    )
    with below("Nearest words in place of the tokens", "Centred cosine"):
        widgets.download_buttons(table, f"trade-{task}")


def gamma(readable: float) -> str:
    return "∞" if math.isinf(readable) else f"{readable:g}"


def summed_up(table: pd.DataFrame) -> str:
    """What the figures say: how far vectors, words and the model without a prompt lie apart."""
    first = table.iloc[0]
    above = int((table["words_low"] > first["no_prompt_high"]).sum())
    return (
        f"On {span(table['n'], '{:,.0f}')} held-out examples each, the vectors score **{span(table['score'])}**, the words in their place **{span(table['words_score'])}**; without any prompt the model scores "
        f"**{first['no_prompt']:.2f}** ({first['no_prompt_low']:.2f} to {first['no_prompt_high']:.2f}). "
        f"The words do better than no prompt, beyond the intervals, in {above or 'none'} of the {len(table)}."
    )


def span(values: pd.Series, written: str = "{:.2f}") -> str:
    low, high = written.format(values.min()), written.format(values.max())
    return low if low == high else f"{low} to {high}"
