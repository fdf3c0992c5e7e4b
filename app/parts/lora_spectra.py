"""A LoRA's spectra: its health, its layers, its modules beside the model's weights, and what its directions say."""

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.words import shown
from soft_prompt_explorer.analysis.figures import charts as figures
from soft_prompt_explorer.analysis.loras.base_weights import against_base
from soft_prompt_explorer.analysis.loras.ranks import COLUMNS, MEASURES, health, long_form, summary
from soft_prompt_explorer.analysis.loras.residual import residual_directions
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_ALIASES, EMBEDDED_MODEL
from soft_prompt_explorer.analysis.prompts.verdicts import LEVEL
from soft_prompt_explorer.app.charts.spectra import layer_map, spectrum_lines
from soft_prompt_explorer.app.parts import choosing, naming, widgets
from soft_prompt_explorer.app.server.background import computed

BASE_MEASURES = ["relative_norm", "amplification", "intruders"]
MAGNITUDES = ["magnitude_change"]  # of weight-decomposed LoRAs only
FEW_RANKS = 16


def show_health(adapter: LoraAdapter, table: pd.DataFrame) -> None:
    """Four figures of the whole LoRA, and what is wrong with its modules.

    Parameters
    ----------
    table : of `analysis.loras.ranks.spectra`.
    """
    trained, found = table[table["spectral_norm"] > 0], health(adapter, table)
    facts = st.columns(4)
    facts[0].metric("Modules", len(table), help=f"{len(table) - len(trained)} of them never trained")
    facts[1].metric("Rank", "–".join(map(str, sorted({table["rank"].min(), table["rank"].max()}))))
    facts[2].metric(
        "Ranks for 90 % of the energy",
        f"{trained['rank_90'].median():.0f}" if len(trained) else "none",
        help="The median of the trained modules",
    )
    facts[3].metric(
        "Effective rank",
        f"{trained['effective_rank'].median():.1f}" if len(trained) else "none",
        help="exp of the spectrum's entropy (Roy & Vetterli 2007); the median",
    )
    if is_dora(adapter):
        st.warning(
            "This LoRA is weight-decomposed (DoRA): its update is not B A alone. What stands here is of B A; beside the base weights, magnitude_change tells of the rest.",
            icon=":material/info:",
        )
    problems = found[found["problem"] != "as the file says"]
    if len(problems):
        counts = "; ".join(f"{problem}: {count} of {len(table)} modules" for problem, count in problems["problem"].value_counts().items())
        st.warning(f"{counts}.", icon=":material/health_and_safety:")
    else:
        st.success("Every module was trained, none is a single spike, and no rank is dead.", icon=":material/health_and_safety:")
    for note in found.loc[found["problem"] == "as the file says", "says"]:
        st.caption(widgets.plain(note))
    with st.expander("Health, module by module", icon=":material/health_and_safety:"):
        st.dataframe(found, hide_index=True)
        widgets.download_buttons(found, f"{adapter.name}-health", adapter)


def show_layers(table: pd.DataFrame) -> None:
    """The spectra of one projection's modules, by layer."""
    st.subheader("By layer")
    projections = list(dict.fromkeys(table["projection"]))
    projection = st.segmented_control(
        "Projection", projections, default=projections[0], required=True, format_func=widgets.plain, key="projection", bind="query-params"
    )
    of_projection = table[(table["spectral_norm"] > 0) & (table["projection"] == projection)]
    if not len(of_projection):
        st.info("No module of this projection was ever trained.", icon=":material/info:")
    else:
        lines = long_form(of_projection)
        left, right = st.columns(2, gap="large")
        values, energies = (whole_ranks(spectrum_lines(lines, cumulative=which), x=lines["rank"].max()) for which in (False, True))
        left.plotly_chart(values, key="values", alt=f"Singular values of the {projection} modules, log scale.")
        right.plotly_chart(energies, key="energy", alt=f"Cumulative energy of the {projection} modules.")
        st.caption("Darker is nearer to the input.")


def base_of(adapter: LoraAdapter, key: str) -> str | None:
    """The model whose weights and vocabulary a LoRA is read beside: a run's own, or the embedded one; another that a stranger's file names is not followed."""
    base = choosing.own_model(key)
    return EMBEDDED_MODEL if base is None and adapter.base_model in (None, *EMBEDDED_ALIASES) else base


def compare_with_weights(adapter: LoraAdapter, base: str | None) -> tuple[bool, pd.DataFrame | None]:
    """Ask for the comparison with the model's weights; answers whether it is asked for, and the comparison once it is there."""
    beside = None
    asked_for = st.toggle(
        f"Beside the weights of {widgets.plain(base or 'its model')}", key="base", bind="query-params", disabled=base is None,
        help="How large ΔW is beside W, how much it amplifies what W has little of, and intruder dimensions. For a file that names another model, use the command line's --base.",
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
    measure = st.selectbox(
        "Measure",
        [*MEASURES, *(BASE_MEASURES + magnitudes if asked_for else [])],
        index=MEASURES.index("effective_rank"),
        key="measure",
        bind="query-params",
    )
    measure = measure if measure in measured else "effective_rank"  # while the comparison is being computed
    st.plotly_chart(layer_map(measured, measure), key="layers", alt=f"{measure} of every module by layer and projection.")
    beside_first = [name for name in BASE_MEASURES + magnitudes if name in measured]
    st.dataframe(
        measured,
        hide_index=True,
        height=300,
        column_order=[*COLUMNS[:3], *beside_first, *COLUMNS[3:-1]],
        alt="A module a row, with its measures.",
    )
    widgets.download_buttons(measured, f"{adapter.name}-spectra", adapter)
    if (table["spectral_norm"] > 0).any():
        widgets.figure_buttons(lambda: figures.spectrum(long_form(table).query("value > 0")), f"{adapter.name}-spectrum", adapter)
    with st.expander("Summed up by layer and by projection", icon=":material/functions:"):
        for by in ("layer", "projection"):
            summed = summary(table, by)
            st.dataframe(summed, hide_index=True)
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
                st.dataframe(said.assign(token=said["token"].map(shown)), hide_index=True)
                widgets.download_buttons(said, f"{adapter.name}-directions", adapter)
            st.caption(
                "The two leading singular vectors of each module, on the side of the residual stream; the layers' norms are left out of account."
            )


def is_dora(adapter: LoraAdapter) -> bool:
    return "DoRA" in adapter.method


def whole_ranks(figure: go.Figure, **most: int) -> go.Figure:
    """The figure with a tick a rank on each axis (x, y) that has few of them, where Plotly would put ticks in between."""
    return figure.update_layout(**{f"{axis}axis_dtick": 1 for axis, ranks in most.items() if ranks <= FEW_RANKS})
