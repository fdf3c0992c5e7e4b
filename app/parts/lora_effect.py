"""A LoRA's singular directions by their effect on its own task, beside their energy; a smaller copy by it, and the score at half the ranks."""

import json
from functools import partial
from pathlib import Path

import pandas as pd
import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.asking.sensitivity import EXAMPLES, effects, fewest_by_effect
from soft_prompt_explorer.analysis.core.progress import Report
from soft_prompt_explorer.analysis.loras.truncation import keep_directions, zipped_copy
from soft_prompt_explorer.analysis.models.digests import note
from soft_prompt_explorer.analysis.models.names import resolve_model
from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.tasks.task import Task
from soft_prompt_explorer.app.charts.spectra import energy_and_effect
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.measures import below
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.app.server.background import computed
from soft_prompt_explorer.trained_prompts.experiments.truncated import at_a_share


def show_effect(adapter: LoraAdapter, folder: Path, task: Task, model: str, limit: int) -> None:
    """Energy beside effect once the person asks for it, `rank_pattern` and the files by effect, and the score at half the ranks.

    Parameters
    ----------
    folder : of PEFT, which the LoRA was read from.
    limit : how many held-out examples are scored.
    """
    st.markdown("**By its effect instead of its energy**")
    content = (adapter.source.sha256, model, task.name, task.template)
    if not _asked(("effect", *content), f"Measure the effect of each direction on {widgets.plain(task.name)}", "measure-effect"):
        st.caption(
            f"Energy says how large a direction is, effect how far the loss depends on it: one backward pass over {EXAMPLES} training examples, less than a minute."
        )
        return

    def measure(report: Report) -> pd.DataFrame:
        report(0.0, "loading the model")
        return effects(adapter, task, language_model=load_model(model, report=report), report=report)

    with widgets.in_words():
        measured = computed(("effect", *content), "the effect of each direction", measure)
    if measured is None:
        return
    note(resolve_model(model))
    agreement = measured[["energy", "effect"]].corr("spearman").iloc[0, 1]
    st.plotly_chart(
        energy_and_effect(measured), key="energy-and-effect", alt=f"Each direction's energy and effect; rank correlation {agreement:.2f}."
    )
    st.caption(
        f"Each mark is a singular direction of a module. Effect: about how far an example's loss rises without it (½ the mean square of its gradients over {EXAMPLES} training examples). "
        f"Rank correlation of the two: {agreement:.2f}."
    )
    with below("Effect of a direction"):
        widgets.download_buttons(measured, f"{adapter.name}-effects", adapter)
    share = st.slider("Share of the effect to keep", 0.50, 1.00, 0.95, 0.01, key="keep-effect", bind="query-params")
    kept = fewest_by_effect(measured, share)
    counts = {module: len(numbers) for module, numbers in kept.items()}
    st.markdown(f"**{sum(counts.values()):,} of {len(measured):,} ranks** hold {share:.0%} of the effect, of all modules together.")
    with st.container(horizontal=True):
        st.download_button(
            "PEFT files by effect (zip)", data=partial(zipped_copy, lambda place: keep_directions(adapter, kept, place)),
            file_name=f"{adapter.name}-effect-{share:.0%}.zip", mime="application/zip", on_click="ignore", icon=":material/download:", key="truncated-by-effect",
        )  # fmt: skip
        with st.popover("rank_pattern by effect", icon=":material/content_copy:"):
            st.code(json.dumps(counts, indent=1), language="json", wrap_lines=True)
    if _asked(("half", *content, limit), "Score it at half the ranks", "score-half"):

        def score(report: Report) -> pd.DataFrame:
            report(0.0, "loading the model")
            language_model = load_model(model, report=report)
            return at_a_share(adapter, folder, task, language_model=language_model, measured=measured, limit=limit, report=report)

        with widgets.in_words():
            scores = computed(("half", *content, limit), "the scores at half the ranks", score)
        if scores is not None:
            _show_scores(scores, adapter)


def _show_scores(scores: pd.DataFrame, adapter: LoraAdapter) -> None:
    row = scores.set_index("kept_by")
    said = ", ".join(f"{row.loc[way, 'score']:.3f} by {way}" for way in ("effect", "energy", "energy in each module"))
    at_random = row[row.index.str.startswith("random")]["score"]
    st.markdown(
        f"At half the ranks: {said}, {at_random.min():.3f} to {at_random.max():.3f} at random; whole {row.loc['everything', 'score']:.3f}, bare model "
        f"{row.loc['nothing kept', 'score']:.3f} ({row['measure'].iloc[0]}, n = {row['n'].iloc[0]:,}). Ways whose intervals overlap are not shown to differ."
    )
    number = st.column_config.NumberColumn
    show_table(
        scores.drop(columns=["adapter", "task"]),
        column_config={key: number(format="%.3f") for key in ("score", "low", "high", "loss", "energy_kept", "effect_kept")},
        alt="Held-out scores of the copies with half the ranks, by what was kept.",
    )
    with widgets.downloads():
        widgets.download_buttons(scores, f"{adapter.name}-half", adapter)


def _asked(wanted: tuple, label: str, key: str) -> bool:
    """Whether the person asked for it; the button stays, pressed."""
    asked = st.session_state.setdefault("asked_effect", set())
    if st.button(label, key=key, disabled=wanted in asked, icon=":material/play_arrow:"):
        asked.add(wanted)
        st.rerun()
    return wanted in asked
