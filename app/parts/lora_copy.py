"""A smaller copy of a LoRA, and how well it still does."""

import json
from collections.abc import Callable

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.asking.scores import compare_lora
from soft_prompt_explorer.analysis.behaviour.templates import how_asked
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report
from soft_prompt_explorer.analysis.loras.ranks import rank_pattern
from soft_prompt_explorer.analysis.loras.truncation import check_can_be_copied, keeps_names, planned, truncate, zipped_copy
from soft_prompt_explorer.analysis.models.digests import note
from soft_prompt_explorer.analysis.models.names import resolve_model
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.tasks.task import Task
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.parts.lora_effect import show_effect
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.server.background import computed
from soft_prompt_explorer.trained_prompts.experiments.truncated import score_truncated
from soft_prompt_explorer.trained_prompts.runs import store


def show_smaller_copy(adapter: LoraAdapter, key: str, table: pd.DataFrame) -> None:
    """A copy with the leading ranks alone: how far off it is, its files, and how well it still does."""
    st.subheader("A smaller copy")
    energy = st.slider("Share of each module's energy to keep", 0.50, 1.00, 0.95, 0.01, key="keep", bind="query-params")
    if (table["spectral_norm"] > 0).any():
        whole = planned(table, energy, adapter).iloc[-1]
        st.markdown(
            f"**{whole['kept']:,} of {whole['rank']:,} ranks**, with a relative error of **{whole['relative_error']:.1%}** (Frobenius, all modules together)."
        )
        try:
            check_can_be_copied(adapter)
            refused = None
        except InputError as error:
            refused = error.worded("page")
            st.info(widgets.plain(refused), icon=":material/info:")
        with st.container(horizontal=True):
            if refused is None:
                st.download_button(
                    "Safetensors (zip)" if keeps_names(adapter) else "PEFT files (zip)", data=lambda: zipped_copy(lambda folder: truncate(adapter, energy, folder)), file_name=f"{adapter.name}-{energy:.0%}.zip", mime="application/zip",
                    on_click="ignore", icon=":material/download:", key="truncated",
                )  # fmt: skip
            with st.popover("rank_pattern, to train again with as many ranks", icon=":material/content_copy:"):
                st.code(json.dumps(rank_pattern(table, energy), indent=1), language="json", wrap_lines=True)
        if refused is None:
            accuracy(adapter, key, energy)


def accuracy(adapter: LoraAdapter, key: str, energy: float) -> None:
    """The smaller copy on the LoRA's own task, beside the whole one and the bare model, once the person asks for it."""
    task, model = task_of(key), choosing.own_model(key)
    if task is None or model is None:
        st.caption("How well it still does is told of LoRAs that were trained here: of others the task is not known.")
        return
    asked = st.session_state.setdefault("asked_accuracy", set())
    with st.container(horizontal=True, vertical_alignment="bottom"):
        limit = st.number_input(
            "Held-out examples", 10, 2000, 200, step=50, width=180, key="examples", bind="query-params",
            help="The first so many, or all where there are fewer. On two cores 200 sentences take about a minute for each of the three rows.",
        )  # fmt: skip
        wanted = (adapter.source.sha256, energy, int(limit))
        if st.button(f"Score it on the task {widgets.plain(task)}", key="score", disabled=wanted in asked, icon=":material/play_arrow:"):
            asked.add(wanted)
            st.rerun()
    how = how_asked(store.adapter_path(key), task).task
    if wanted in asked:
        _show_accuracy(adapter, key, how, model, energy, int(limit))
    show_effect(adapter, store.adapter_path(key), how, model, int(limit))


def _show_accuracy(adapter: LoraAdapter, key: str, asked: Task, model: str, energy: float, limit: int) -> None:
    def scored(score: Callable[..., pd.DataFrame], report: Report, *what) -> pd.DataFrame:
        report(0.0, "loading the model")
        return score(*what, asked, language_model=load_model(model, report=report), limit=limit, report=report)

    of_examples = (adapter.source.sha256, model, asked.name, asked.template, limit)
    try:
        whole = computed(
            ("whole", *of_examples),
            "the scores of the bare model and of the whole LoRA",
            lambda report: scored(compare_lora, report, store.adapter_path(key), adapter.name),
        )
        if whole is None:
            return
        copy = computed(
            ("copy", *of_examples, energy),
            "the scores of the smaller copy",
            lambda report: scored(score_truncated, report, adapter, energy),
        )
    except InputError as error:
        widgets.refusal(error)
        return
    if copy is not None:
        note(resolve_model(model))
        show_scores(pd.concat([whole, copy], ignore_index=True).replace({"prompt": {"no prompt": "bare model"}}), adapter)


def show_scores(scores: pd.DataFrame, adapter: LoraAdapter) -> None:
    """The bare model, the whole LoRA and the smaller copy, a row each, and in words how their intervals lie."""
    bare, whole, copy = scores.itertuples(index=False)
    to_whole, to_bare = lies(copy, whole), lies(copy, bare)
    st.markdown(
        f"On {copy.n:,} held-out examples the smaller copy has {copy.measure} **{copy.score:.3f}** ({copy.low:.3f} to {copy.high:.3f}). Its 95 % interval "
        f"{to_whole} that of the whole LoRA ({whole.score:.3f}) and {f'{to_bare} ' if to_bare != to_whole else ''}that of the bare model ({bare.score:.3f})."
    )
    show_table(
        scores.drop(columns=["task", "split"]),
        column_config={key: st.column_config.NumberColumn(format="%.3f") for key in ("score", "low", "high", "loss")}
        | {"seconds": st.column_config.NumberColumn(format="%.0f")},
        alt="Held-out scores of the bare model, the whole LoRA and the smaller copy, with 95 % intervals.",
    )
    with widgets.downloads():
        widgets.download_buttons(scores, f"{adapter.name}-smaller-scores", adapter)


def lies(one, other) -> str:
    """How the interval of one score lies to that of another."""
    return "lies above" if one.low > other.high else "lies below" if one.high < other.low else "overlaps"


def task_of(key: str) -> str | None:
    """The task that a run of this machine was trained on; None for a stranger's file."""
    if choosing.own_model(key) is None:
        return None
    return read_description(store.find(key))["config"]["task"]
