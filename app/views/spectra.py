"""What a LoRA really uses of its ranks: spectra by layer, health, one module, another LoRA beside it, its base weights, and a smaller copy."""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from analysis.adapters import LoraAdapter
from analysis.adapters.run_file import read_description
from analysis.asking.scores import compare_lora
from analysis.behaviour.how_asked import how_asked
from analysis.core.errors import InputError
from analysis.core.progress import Report
from analysis.core.words import shown
from analysis.loras.base_weights import against_base
from analysis.loras.residual import residual_directions
from analysis.loras.spectra import COLUMNS, MEASURES, health, long_form, rank_pattern, spectra, summary
from analysis.loras.subspaces import against, subspace_similarity
from analysis.loras.truncation import check_can_be_copied, planned, truncate
from analysis.models.embedded import EMBEDDED_ALIASES, EMBEDDED_MODEL
from analysis.models.weights import load_model
from analysis.prompts.readings import LEVEL
from app.charts.spectra import angles_by_layer, layer_map, spectrum_lines, subspace_map
from app.parts import widgets
from app.server.background import computed
from trained_prompts.experiments.truncated import score_truncated
from trained_prompts.runs import store

BASE_MEASURES = ["relative_norm", "amplification", "intruders"]
MAGNITUDES = ["magnitude_change"]  # of weight-decomposed LoRAs only
FEW_RANKS = 16


def zipped(adapter: LoraAdapter, energy: float) -> bytes:
    """The truncated adapter's PEFT files in a zip."""
    with tempfile.TemporaryDirectory() as folder:
        truncate(adapter, energy, Path(folder) / "cut")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for path in sorted((Path(folder) / "cut").iterdir()):
                file.write(path, path.name)
        return buffer.getvalue()


def task_of(key: str) -> str | None:
    """The task that a run of this machine was trained on; None for a stranger's file."""
    if widgets.own_model(key) is None:
        return None
    return read_description(store.find(key))["config"]["task"]


def accuracy(adapter: LoraAdapter, key: str, energy: float) -> None:
    """The smaller copy on the LoRA's own task, beside the whole one and the bare model, once the person asks for it."""
    task, model = task_of(key), widgets.own_model(key)
    if task is None:
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
    if wanted not in asked:
        return

    asked = how_asked(store.adapter_path(key), task).task

    def scored(score: Callable[..., pd.DataFrame], report: Report, *what) -> pd.DataFrame:
        report(0.0, "loading the model")
        return score(*what, asked, language_model=load_model(model, report=report), limit=int(limit), report=report)

    of_examples = (adapter.source.sha256, model, task, asked.template, int(limit))
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
        show_scores(pd.concat([whole, copy], ignore_index=True).replace({"prompt": {"no prompt": "bare model"}}), adapter.name)


def show_scores(scores: pd.DataFrame, name: str) -> None:
    """The bare model, the whole LoRA and the smaller copy, a row each, and in words how their intervals lie."""
    bare, whole, copy = scores.itertuples(index=False)
    to_whole, to_bare = lies(copy, whole), lies(copy, bare)
    st.markdown(
        f"On {copy.n:,} held-out examples the smaller copy has {copy.measure} **{copy.score:.3f}** ({copy.low:.3f} to {copy.high:.3f}). Its 95 % interval "
        f"{to_whole} that of the whole LoRA ({whole.score:.3f}) and {f'{to_bare} ' if to_bare != to_whole else ''}that of the bare model ({bare.score:.3f})."
    )
    st.dataframe(
        scores.drop(columns=["task", "split"]),
        hide_index=True,
        column_config={key: st.column_config.NumberColumn(format="%.3f") for key in ("score", "low", "high", "loss")}
        | {"seconds": st.column_config.NumberColumn(format="%.0f")},
        alt="Held-out scores of the bare model, the whole LoRA and the smaller copy, with 95 % intervals.",
    )
    widgets.download_buttons(scores, f"{name}-smaller-scores")


def whole_ranks(figure: go.Figure, **most: int) -> go.Figure:
    """The figure with a tick a rank on each axis (x, y) that has few of them, where Plotly would put ticks in between."""
    return figure.update_layout(**{f"{axis}axis_dtick": 1 for axis, ranks in most.items() if ranks <= FEW_RANKS})


def lies(one, other) -> str:
    """How the interval of one score lies to that of another."""
    return "lies above" if one.low > other.high else "lies below" if one.high < other.low else "overlaps"


st.title("LoRA spectra")
st.markdown(
    "A LoRA of rank r need not use r ranks. What it learned stands in the singular values of its updates ΔW = s · B A, module by module."
)
keys = widgets.lora_choices()
if not keys:
    st.info("There is no LoRA at hand: open one on the Open page.", icon=":material/info:")
    st.stop()
asked = st.query_params.get("lora")
if asked is not None and asked not in map(widgets.prompt_label, keys):
    st.warning(f"The link asks for {widgets.plain(asked)}, which is not here. Pick another.", icon=":material/link_off:")
key = st.selectbox("LoRA", keys, format_func=widgets.labels_of(keys), key="lora", bind="query-params")
with widgets.in_words():
    adapter = widgets.load_lora(key)
    table = computed(("spectra", adapter.source.sha256), "the spectra", lambda report: spectra(adapter, report=report))
if table is None:
    st.stop()
trained = table[table["spectral_norm"] > 0]
found = health(adapter, table)

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
is_dora = "DoRA" in adapter.method
if is_dora:
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
    widgets.download_buttons(found, f"{adapter.name}-health")

st.subheader("By layer")
projections = list(dict.fromkeys(table["projection"]))
projection = st.segmented_control(
    "Projection", projections, default=projections[0], required=True, format_func=widgets.plain, key="projection", bind="query-params"
)
of_projection = trained[trained["projection"] == projection]
if not len(of_projection):
    st.info("No module of this projection was ever trained.", icon=":material/info:")
else:
    lines = long_form(of_projection)
    left, right = st.columns(2, gap="large")
    values, energies = (whole_ranks(spectrum_lines(lines, cumulative=which), x=lines["rank"].max()) for which in (False, True))
    left.plotly_chart(values, key="values", alt=f"Singular values of the {projection} modules, log scale.")
    right.plotly_chart(energies, key="energy", alt=f"Cumulative energy of the {projection} modules.")
    st.caption("Darker is nearer to the input.")

with widgets.in_words():
    beside = None
    base = widgets.own_model(key)
    if base is None and adapter.base_model in (None, *EMBEDDED_ALIASES):  # another model that a stranger's file names is not followed
        base = EMBEDDED_MODEL
    asked_for = st.toggle(
        f"Beside the weights of {widgets.plain(base or 'its model')}", key="base", bind="query-params", disabled=base is None,
        help="How large ΔW is beside W, how much it amplifies what W has little of, and intruder dimensions. For a file that names another model, use the command line's --base.",
    )  # fmt: skip
    if asked_for and base is not None and widgets.may_be_fetched(base, "the model"):
        beside = computed(
            ("base", adapter.source.sha256, base),
            "the comparison with the weights",
            lambda report: against_base(adapter, base, report=report),
        )
measured = table if beside is None else table.merge(beside, on="module")
measure = st.selectbox(
    "Measure",
    [*MEASURES, *(BASE_MEASURES + MAGNITUDES * is_dora if asked_for and base is not None else [])],
    index=MEASURES.index("effective_rank"),
    key="measure",
    bind="query-params",
)
measure = measure if measure in measured else "effective_rank"  # while the comparison is being computed
st.plotly_chart(layer_map(measured, measure), key="layers", alt=f"{measure} of every module by layer and projection.")
beside_first = [name for name in BASE_MEASURES + MAGNITUDES * is_dora if name in measured]
st.dataframe(
    measured,
    hide_index=True,
    height=300,
    column_order=[*COLUMNS[:3], *beside_first, *COLUMNS[3:-1]],
    alt="A module a row, with its measures.",
)
widgets.download_buttons(measured, f"{adapter.name}-spectra")
with st.expander("Summed up by layer and by projection", icon=":material/functions:"):
    for by in ("layer", "projection"):
        summed = summary(table, by)
        st.dataframe(summed, hide_index=True)
        widgets.download_buttons(summed, f"{adapter.name}-by-{by}")

st.subheader("What its directions say")
if base is None:
    st.info("The vocabulary of this LoRA's model is not at hand, so its directions cannot be read against words.", icon=":material/info:")
elif widgets.may_be_fetched(base, "the vocabulary"):
    said = None
    try:
        vocabulary = widgets.vocabulary(base)
        said = computed(
            ("directions", adapter.source.sha256, base),
            "the words near its directions",
            lambda report: residual_directions(adapter, vocabulary, report=report),
        )
    except InputError as error:  # the rest of the page does not need them
        st.info(widgets.plain(str(error)), icon=":material/info:")
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
            widgets.download_buttons(said, f"{adapter.name}-directions")
        st.caption(
            "The two leading singular vectors of each module, on the side of the residual stream; the layers' norms are left out of account."
        )

st.subheader("A smaller copy")
energy = st.slider("Share of each module's energy to keep", 0.50, 1.00, 0.95, 0.01, key="keep", bind="query-params")
if len(trained):
    whole = planned(table, energy).iloc[-1]
    st.markdown(
        f"**{whole['kept']:,} of {whole['rank']:,} ranks**, with a relative error of **{whole['relative_error']:.1%}** (Frobenius, all modules together)."
    )
    try:
        check_can_be_copied(adapter)
        refused = None
    except InputError as error:
        refused = str(error)
        st.info(widgets.plain(refused), icon=":material/info:")
    with st.container(horizontal=True):
        if refused is None:
            st.download_button(
                "PEFT files (zip)", data=lambda: zipped(adapter, energy), file_name=f"{adapter.name}-{energy:.0%}.zip", mime="application/zip",
                on_click="ignore", icon=":material/download:", key="truncated",
            )  # fmt: skip
        with st.popover("rank_pattern, to train again with as many ranks", icon=":material/content_copy:"):
            st.code(json.dumps(rank_pattern(table, energy), indent=1), language="json", height=300)
    if refused is None:
        accuracy(adapter, key, energy)

st.subheader("Beside another LoRA")
others = [other for other in keys if other != key]
other_key = st.selectbox(
    "The other", others, index=None, format_func=widgets.labels_of(others), key="other", bind="query-params", placeholder="pick one"
)
if other_key is not None:
    with widgets.in_words():
        other = widgets.load_lora(other_key)
        compared = computed(
            ("against", adapter.source.sha256, other.source.sha256), "the comparison", lambda report: against(adapter, other, report=report)
        )
    if compared is not None:
        both = compared[compared["in"] == "both"]
        st.markdown(
            f"**{len(both)} modules are in both**; the median cosine of their updates is {both['cosine'].median():.2f}, that of their output directions' angles "
            f"{both['angle_out'].median():.2f} where random directions have {both['angle_out_random'].median():.2f}, and of their input directions' {both['angle_in'].median():.2f} "
            f"(random: {both['angle_in_random'].median():.2f})."
        )
        left, right = st.columns(2, gap="large")
        left.markdown("**Output directions**")
        left.plotly_chart(angles_by_layer(compared, "out"), key="angles-out", alt="Principal angles of the output directions by layer.")
        right.markdown("**Input directions**")
        right.plotly_chart(angles_by_layer(compared, "in"), key="angles-in", alt="Principal angles of the input directions by layer.")
        st.caption(
            "Open marks are random directions. Input directions begin at the random initial values of A and hardly leave them: two LoRAs trained with the same seed share "
            "them whatever they learned. Output directions begin at nothing, so what they share was learned."
        )
        widgets.download_buttons(compared, f"{adapter.name}-{other.name}")
        common = both.loc[both["angle_out"].notna(), "module"].tolist()
        if common:
            module = st.selectbox("φ(i, j) of the module", common, key="module", bind="query-params")
            side = st.segmented_control("Directions", ["out", "in"], default="out", required=True, key="side", bind="query-params")
            phi = subspace_similarity(adapter.modules[module], other.modules[module], side=side)
            left, right = st.columns(2, gap="large")
            left.markdown("**These two**")
            of_these, of_random = (
                whole_ranks(subspace_map(phi, column), x=phi["j"].max(), y=phi["i"].max()) for column in ("phi", "phi_random")
            )
            left.plotly_chart(of_these, key="phi", alt=f"Subspace similarity of {module}.")
            right.markdown("**Two random updates**")
            right.plotly_chart(of_random, key="phi-random", alt="The same of random updates.")
            widgets.download_buttons(phi, f"{adapter.name}-{other.name}-phi")
st.caption(
    f"{widgets.plain(adapter.name)}: {adapter.source.format}, {adapter.source.dtype}, sha256 {adapter.source.sha256[:12]}… · ΔW is never formed"
)
