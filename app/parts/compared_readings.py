"""Which readings can be believed: how often each says what adapters of known truth have learned."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from soft_prompt_explorer.app.charts.readings import readings_compared
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.measures import below
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.trained_prompts.experiments.benchmark import kept_scores, summary


def show_compared_readings() -> None:
    table = _summary()
    st.header("Which readings can be believed", anchor="benchmark")
    st.markdown(
        "Each reading was asked about adapters of which it is known what they learned: ten tasks, and of every adapter a twin that was trained on shuffled answers. "
        "Dotted is chance."
    )
    best = table.loc[table["identified"].idxmax()]
    named, apart = st.columns(2, gap="large")
    with named:
        st.markdown("**The adapter's own task comes first of ten.** Hollow marks are the twins: what the form of the answers comes to.")
        alt = f"Each reading's share of tasks that it names. The most are named by {best.reading}: {best.identified:.0%} of {best.n}."
        st.html(readings_compared(table, "named", alt=alt))
    with apart:
        st.markdown("**The adapter is told from its twin,** which learned the form of the answers alone.")
        st.html(readings_compared(table, "told apart", alt="How often each reading tells an adapter from its twin."))
    st.caption(
        "A translation is told the tasks: it asks whose examples do what the adapter does. All other readings score words, and know no task. The rule and the words "
        "were fixed before these adapters were trained; that the two lenses go together was not. The command line's `benchmark` asks a reading of your own."
    )
    with st.expander("All figures", icon=":material/table_rows:"):
        first = ["reading", "adapters", "n", "identified", "twins_named", "p", "function", "false_alarms"]
        show_table(
            table,
            first=first,
            alt="A row a reading and kind of adapter: how often it names the answers, and tells an adapter from its twin.",
        )
    with below(
        "Centred cosine", "Concentration", "Logit lens", "Contextual neighbours", "Difference lens", "Verbalisation", "Fidelity of a text"
    ):
        widgets.download_buttons(table, "benchmark-of-readings")


@st.cache_data(show_spinner=False)
def _summary() -> pd.DataFrame:
    """The answers of the readings that ship; a second of permutations."""
    return summary(kept_scores())
