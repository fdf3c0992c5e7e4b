"""A LoRA's spectra: its health, its layers, its modules beside the model's weights, and what its directions say."""

import re

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.words import byte_count, shown
from soft_prompt_explorer.analysis.figures import charts as figures
from soft_prompt_explorer.analysis.loras.base_weights import against_base
from soft_prompt_explorer.analysis.loras.ranks import MEASURES, health, long_form, summary, uniform_rank
from soft_prompt_explorer.analysis.loras.residual import residual_directions
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_ALIASES, EMBEDDED_MODEL
from soft_prompt_explorer.analysis.prompts.verdicts import LEVEL
from soft_prompt_explorer.app.charts.columns import in_words
from soft_prompt_explorer.app.charts.spectra import layer_map, spectra_by_layer
from soft_prompt_explorer.app.parts import choosing, naming, widgets
from soft_prompt_explorer.app.parts.measures import below, of_columns, what_is
from soft_prompt_explorer.app.parts.tables import modules_in_words, show_table
from soft_prompt_explorer.app.server.background import computed

BASE_MEASURES = ["relative_norm", "amplification", "intruders"]
MAGNITUDES = ["magnitude_change"]  # of weight-decomposed LoRAs only
FIRST_MEASURE = "effective_rank"
RANKS_FIRST = ["rank", "effective_rank", "stable_rank", "rank_90", "rank_95", "spectral_norm", "frobenius_norm"]
FEW_RANKS = 16
ENERGY = 0.95
SHOWN = {"values": "Singular values", "energy": "Share of the energy"}
PROBLEMS = {
    "never trained": "No training",
    "rank-one spike": "One direction does nearly all",
    "dead ranks": "Ranks that do nothing",
}
IS_IT_BAD = {
    "never trained": "They change nothing and only take room. Where all are so, the file is one that was saved before training; else leave these modules out next time.",
    "rank-one spike": "This is no fault: many tasks need one direction a module. A smaller rank may do: *Smaller copy* scores it.",
    "dead ranks": "It does no harm and takes room. Keep the smaller copy, or train again with its `rank_pattern`.",
}


def show_size(adapter: LoraAdapter, table: pd.DataFrame) -> None:
    """How many ranks would do, in a sentence with the sizes before and after.

    Parameters
    ----------
    table : of `analysis.loras.ranks.spectra`.
    """
    rank, least = uniform_rank(table, ENERGY)
    highest = int(table["rank"].max())
    if rank == 0 or adapter.kind != "lora":
        return
    before, after = size(adapter, highest), size(adapter, rank)
    if rank < highest:
        st.markdown(
            f"#### Use rank {rank} instead of {highest}: {byte_count(after)} instead of {byte_count(before)}\n"
            f"Rank {rank} everywhere holds {ENERGY:.0%} of the energy of what it changes. Energy is not effect: *Smaller copy* scores it on the task."
        )
    else:
        st.markdown(
            f"#### It uses its ranks: no fewer than {highest} hold {ENERGY:.0%} of the energy\nIt has {byte_count(before)} of factors."
        )
    st.caption(f"All modules are counted together; the one that loses most keeps {least:.0%} of its own energy at rank {rank}.")


def size(adapter: LoraAdapter, rank: int) -> int:
    """Bytes of its two factors at that rank at most, in the numbers of its file."""
    bits = [
        min(rank, each.rank) * (each.out_features + each.in_features) * int(re.sub(r"\D*(\d+).*", r"\1", each.dtype))
        for each in adapter.modules.values()
    ]
    return sum(bits) // 8


def show_health(adapter: LoraAdapter, table: pd.DataFrame) -> None:
    """Figures of the whole LoRA; what was found in its modules, whether it is bad and what to do.

    Parameters
    ----------
    table : of `analysis.loras.ranks.spectra`.
    """
    trained, found = table[table["spectral_norm"] > 0], health(adapter, table)
    facts = st.columns(4)
    facts[0].metric("Modules", f"{len(table):,}", help=f"{len(table) - len(trained)} of them never trained")
    facts[1].metric("Rank", "–".join(map(str, sorted({table["rank"].min(), table["rank"].max()}))))
    facts[2].metric(
        "Ranks for 90 % of the energy",
        f"{trained['rank_90'].median():.0f}" if len(trained) else "none",
        help="The median of the trained modules",
    )
    facts[3].metric(
        "Effective rank",
        f"{trained['effective_rank'].median():.1f}" if len(trained) else "none",
        help="How many ranks its energy is spread over; the median of the trained modules",
    )
    what_is("Ranks at 90, 95 and 99 %", "Effective rank", "Stable rank", "Spike")
    if is_dora(adapter):
        st.warning(
            "This LoRA is weight-decomposed (DoRA): its update is not B A alone. What stands here is of B A; beside the base weights, magnitude_change tells of the rest.",
            icon=":material/info:",
        )
    st.subheader("Is it sound?")
    for sentence in health_in_words(found, len(table)):
        st.markdown(f"- {sentence}")
    for note in found.loc[found["problem"] == "as the file says", "says"]:
        st.caption(widgets.plain(note))
    with st.expander("Module by module", icon=":material/health_and_safety:"):
        names = modules_in_words(table["module"])
        show_table(
            found.assign(module=found["module"].map(lambda module: names.get(module, module))),
            alt="A row a module with a problem, and what it is.",
        )
        with widgets.downloads():
            widgets.download_buttons(found, f"{adapter.name}-health", adapter)


def health_in_words(found: pd.DataFrame, modules: int) -> list[str]:
    """What was found, whether it is bad, and what to do, a sentence or two each.

    Parameters
    ----------
    found : of `analysis.loras.ranks.health`.
    modules : how many there are.
    """
    counts = found["problem"].value_counts()
    said = [
        f"**{name} in {count:,} of {modules:,} modules.** {IS_IT_BAD[problem]}"
        for problem, name in PROBLEMS.items()
        if (count := counts.get(problem, 0))
    ]
    return said or ["**Yes.** Every module was trained, none is a single spike, and no rank is dead."]


def show_layers(table: pd.DataFrame) -> None:
    """The spectra of all modules, each a small profile."""
    st.subheader("Every module’s spectrum")
    trained = table[table["spectral_norm"] > 0]
    if not len(trained):
        st.info("No module was ever trained.", icon=":material/info:")
        return
    what = st.segmented_control(
        "Show", list(SHOWN), default="values", required=True, format_func=SHOWN.__getitem__, key="spectrum", bind="query-params"
    )
    alt = f"{SHOWN[what]} of each of {len(trained)} modules by rank; a row a projection ({', '.join(dict.fromkeys(trained['projection']))}), the layers side by side."
    st.html(spectra_by_layer(long_form(trained), cumulative=what == "energy", alt=alt))
    st.caption(
        f"Each small profile is one module, its ranks from 1 at the left to {trained['rank'].max()} at the right. "
        + (
            "A steep fall: a few ranks do the work. A flat one: all are used. All rows have one log scale, down to a thousandth of the largest."
            if what == "values"
            else "A profile that is at the top early needs few ranks."
        )
    )
    what_is("Ranks at 90, 95 and 99 %")


def base_of(adapter: LoraAdapter, key: str) -> str | None:
    """The model whose weights and vocabulary a LoRA is read beside: a run's own, or the embedded one; another that a stranger's file names is not followed."""
    base = choosing.own_model(key)
    return EMBEDDED_MODEL if base is None and adapter.base_model in (None, *EMBEDDED_ALIASES) else base


def compare_with_weights(adapter: LoraAdapter, base: str | None) -> tuple[bool, pd.DataFrame | None]:
    """Ask for the comparison with the model's weights; answers whether it is asked for, and the comparison once it is there."""
    beside = None
    asked_for = st.toggle(
        f"Beside the weights of {widgets.plain(base or 'its model')}", key="base", bind="query-params", disabled=base is None,
        help="How large ΔW is beside W, how much it amplifies what W has little of, and intruder dimensions. For a file that names another model, use the command line's `spectra`.",
    )  # fmt: skip
    if asked_for and base is not None and naming.may_be_fetched(base, "the model"):
        beside = computed(
            ("base", adapter.source.sha256, base),
            "the comparison with the weights",
            lambda report: against_base(adapter, base, report=report),
        )
    return asked_for and base is not None, beside


def show_modules(adapter: LoraAdapter, table: pd.DataFrame, beside: pd.DataFrame | None, asked_for: bool) -> None:
    """One measure of every module on a map, and all of them in tables.

    Parameters
    ----------
    beside : of `analysis.loras.base_weights.against_base`; None where it is not there yet, or not asked for.
    """
    magnitudes = MAGNITUDES * is_dora(adapter)
    measured = table if beside is None else table.merge(beside, on="module")
    measures = [*MEASURES, *(BASE_MEASURES + magnitudes if asked_for else [])]
    widgets.follow_link("measure", {name: name for name in measures}, FIRST_MEASURE)
    measure = st.selectbox("Measure", measures, format_func=in_words, key="linked-measure")
    widgets.say_in_link("measure", None if measure == FIRST_MEASURE else measure)
    measure = measure if measure in measured else FIRST_MEASURE  # while the comparison is being computed
    st.html(layer_map(measured, measure, alt=f"The {in_words(measure)} of every module by layer and projection."))
    beside_first = [name for name in BASE_MEASURES + magnitudes if name in measured]
    show_table(
        measured.assign(module=measured["module"].map(modules_in_words(measured["module"]))).drop(
            columns=["layer", "projection", "singular_values"]
        ),
        height=300,
        first=["module", *beside_first, *RANKS_FIRST],
        alt="A module a row, with its measures.",
    )
    with below(*of_columns([measure])):
        widgets.download_buttons(measured, f"{adapter.name}-spectra", adapter)
        if (table["spectral_norm"] > 0).any():
            widgets.figure_buttons(lambda: figures.spectrum(long_form(table).query("value > 0")), f"{adapter.name}-spectrum", adapter)
    with st.expander("Summed up by layer and by projection", icon=":material/functions:"):
        for by in ("layer", "projection"):
            summed = summary(table, by)
            show_table(summed, alt=f"A row a {by}: the medians of its modules' measures.")
            with widgets.downloads():
                widgets.download_buttons(summed, f"{adapter.name}-by-{by}", adapter)


def show_directions(adapter: LoraAdapter, base: str | None) -> None:
    """The words that the LoRA's directions in the residual stream are near to."""
    st.subheader("What its directions say")
    if base is None:
        st.info(
            "The vocabulary of this LoRA's model is not at hand, so its directions cannot be read against words.", icon=":material/info:"
        )
    elif naming.may_be_fetched(base, "the vocabulary"):
        said = None
        try:
            vocabulary = widgets.vocabulary(base)
            said = computed(
                ("directions", adapter.source.sha256, base),
                "the words near its directions",
                lambda report: residual_directions(adapter, vocabulary, report=report),
            )
        except InputError as error:  # the rest of the page does not need them
            st.info(widgets.plain(error.worded("page")), icon=":material/info:")
        if said is not None:
            near = said[said["q"] < LEVEL]
            line = f"{len(near)} of {len(said)} directions and opposites are nearer to a word than chance allows"
            if len(near):
                words = ", ".join(f"“{widgets.plain(token.strip())}”" for token in near.sort_values("p")["token"].drop_duplicates().head(8))
                st.success(f"{line}: {words}.", icon=":material/verified:")
            else:
                st.info(f"{line}: what this LoRA changes in the residual stream is no word.", icon=":material/blur_off:")
            with st.expander("Direction by direction", icon=":material/table_rows:"):
                show_table(
                    said.assign(token=said["token"].map(shown), module=said["module"].map(modules_in_words(said["module"]))).drop(
                        columns=["layer", "projection"]
                    ),
                    alt="A row a direction and its opposite: the word nearest to it, and whether that is luck.",
                )
                with widgets.downloads():
                    widgets.download_buttons(said, f"{adapter.name}-directions", adapter)
            st.caption(
                "The two leading singular vectors of each module, on the side of the residual stream; the layers' norms are left out of account."
            )


def is_dora(adapter: LoraAdapter) -> bool:
    return "DoRA" in adapter.method


def whole_ranks(figure: go.Figure, **most: int) -> go.Figure:
    """The figure with a tick a rank on each axis (x, y) that has few of them, where Plotly would put ticks in between."""
    return figure.update_layout(**{f"{axis}axis_dtick": 1 for axis, ranks in most.items() if ranks <= FEW_RANKS})
