"""Every way to adapt a model, on the same examples: what each gives and what it costs, measured here and as papers published it."""

import streamlit as st

from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.comparisons import offer_to_run
from soft_prompt_explorer.app.parts.measured_methods import show_measured
from soft_prompt_explorer.app.parts.published import show_published
from soft_prompt_explorer.app.parts.scorecards import show_scorecards
from soft_prompt_explorer.app.parts.trades import show_trade

st.title("Methods")
st.markdown("The same model and the same examples, adapted in every way: what each gives, and what it costs.")
for show in (show_measured, show_published, offer_to_run, show_trade, show_scorecards):
    with widgets.on_its_own():
        show()
