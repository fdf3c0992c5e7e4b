"""Which readings can be believed: how often each says what adapters of known truth have learned."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from soft_prompt_explorer.app.charts.readings import readings_compared
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.tables import show_table
from soft_prompt_explorer.trained_prompts.experiments.benchmark import kept_scores, summary


def show_compared_readings() -> None:
    table = _summary()
    st.header("Which readings can be believed", anchor="benchmark")
    st.markdown(
        "Each reading was asked about adapters of which it is known what they learned: ten tasks, and of every adapter a twin that was trained on shuffled answers. "
        "Left: how often the adapter's own task comes first of ten. Right: how often the reading tells the adapter from its twin, which learned the form of the "
        "answers alone. Dotted is chance. Hollow marks on the left are the twins: what the form of the answers comes to."
    )
    best = table.loc[table["identified"].idxmax()]
    st.plotly_chart(
        readings_compared(table), key="readings",
        alt=f"Each reading's share of tasks that it names, and of twins that it tells apart. The most are named by {best.reading}: {best.identified:.0%} of {best.n}.",
    )  # fmt: skip
    st.caption(
        "A translation is told the tasks: it asks whose examples do what the adapter does. All other readings score words, and know no task. The rule and the words "
        "were fixed before these adapters were trained; that the two lenses go together was not. To ask a reading of your own: python -m trained_prompts benchmark --reading my_module:my_function."
    )
    with st.expander("All figures", icon=":material/table_rows:"):
        show_table(table, alt="A row a reading and kind of adapter: how often it names the answers, and tells an adapter from its twin.")
    widgets.download_buttons(table, "benchmark-of-readings")


@st.cache_data(show_spinner=False)
def _summary() -> pd.DataFrame:
    """The answers of the readings that ship; a second of permutations."""
    return summary(kept_scores())
