"""What an adapter pushes the model towards on texts that have nothing to do with its task, and whether it does anything at all."""

from __future__ import annotations

from collections.abc import Hashable

import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.behaviour.kept_lens import Told, kept_with, tell
from soft_prompt_explorer.analysis.behaviour.lens_null import DRAWS
from soft_prompt_explorer.analysis.behaviour.others import changes_at_hand
from soft_prompt_explorer.analysis.behaviour.unrelated import TEXTS, Watch
from soft_prompt_explorer.analysis.figures import charts as figures
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.app.charts.lens import pushed_words, words_by_layer
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.behaviour_asking import asking
from soft_prompt_explorer.app.parts.measures import below
from soft_prompt_explorer.app.parts.tables import show_table


def show_pushed(adapter: SoftPrompt | LoraAdapter, vocabulary: Vocabulary, content: Hashable, *, as_kept: bool) -> None:
    """The lens's words and the effect; asked for with a button where they are not kept with the run.

    Parameters
    ----------
    content : tells the adapter from any other.
    as_kept : whether it is still as it was read, with the same initial values.
    """
    st.subheader("What it pushes the model towards")
    told = kept_with(adapter) if as_kept else None
    if told is None:
        told = _looked_at(adapter, vocabulary, content)
    if told is None:
        return
    last = told.last
    st.info(widgets.plain(told.sentence), icon=":material/trending_up:")
    alt = "; ".join(f"{row.token.strip()} {row.z:.1f}" for row in last.head(8).itertuples())
    st.html(pushed_words(last, alt=f"Words by how far the adapter pushes the model towards them. {alt}"))
    st.caption(
        f"The model reads {len(TEXTS)} short texts that have nothing to do with any task, with and without it. The bars say how far its next word moves towards "
        f"each word, beside {DRAWS} adapters of the same size that know nothing; ★ marks what stands out from them (q < 0.05)."
        + (" ◇ is its twin: what that is pushed towards as well is the form of the answers." if last["twin_z"].notna().any() else "")
    )
    layers = st.expander("Layer by layer", icon=":material/stacks:", on_change="rerun")
    if layers.open:
        with layers:
            st.plotly_chart(words_by_layer(told.words), key="lens-layers", alt="The strongest words after each layer.")
            first = ["layer", "rank", "token", "z", "q", "twin_z", "twin_p", "score"]
            show_table(told.words.drop(columns=["adapter", "path"]), first=first, alt="A row a word of a layer, with what it rests on.")
    with below("Difference lens", "Effect"):
        widgets.download_buttons(told.words, f"{adapter.name}-lens", adapter)
        widgets.figure_buttons(lambda: figures.lens(told.words), f"{adapter.name}-pushed", adapter)
        st.markdown("Layer by layer")
        widgets.figure_buttons(lambda: figures.lens_by_layer(told.words), f"{adapter.name}-layers", adapter)


def _looked_at(adapter: SoftPrompt | LoraAdapter, vocabulary: Vocabulary, content: Hashable) -> Told | None:
    key = ("lens", vocabulary.model, content)
    wanted = st.session_state.setdefault("lens-wanted", set())
    if key not in wanted:
        st.markdown(
            f"The model is asked with and without it, and with {DRAWS} adapters or twice as many of the same size that know nothing: a minute or two."
        )
        if not st.button("Look at the model", icon=":material/visibility:", key="look"):
            return None
        wanted.add(key)
    return asking(vocabulary.model, key, "what it pushes towards", lambda model, report: _tell(adapter, Watch(model), vocabulary, report))


def _tell(adapter: SoftPrompt | LoraAdapter, watch: Watch, vocabulary: Vocabulary, report) -> Told:
    return tell(adapter, watch, vocabulary, others=changes_at_hand(watch, vocabulary, report=report), report=report)
