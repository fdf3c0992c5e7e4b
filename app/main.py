"""Page registry and navigation. Start it with `make app`."""

from pathlib import Path

import streamlit as st

from app.server.background import begin_page

ICON = Path(__file__).parent / "favicon.svg"  # a name such as :material/explore: would have every browser ask a foreign host for it

st.set_page_config(page_title="Soft Prompt Explorer", page_icon=str(ICON), layout="wide")
begin_page()

pages = [
    st.Page("views/gallery.py", title="Gallery", icon=":material/grid_view:", default=True),
    st.Page("views/open.py", title="Open", icon=":material/folder_open:"),
    st.Page("views/neighbours.py", title="Neighbours", icon=":material/hub:"),
    st.Page("views/clusters.py", title="Clusters", icon=":material/scatter_plot:"),
    st.Page("views/compare.py", title="Compare", icon=":material/compare:"),
    st.Page("views/search.py", title="Search", icon=":material/search:"),
    st.Page("views/spectra.py", title="LoRA spectra", icon=":material/equalizer:"),
    st.Page("views/behaviour.py", title="Behaviour", icon=":material/science:"),
    st.Page("views/train.py", title="Train", icon=":material/model_training:"),
    st.Page("views/methods.py", title="Methods", icon=":material/balance:"),
    st.Page("views/measures.py", title="Measures", icon=":material/menu_book:"),
]
st.navigation(pages, position="top").run()
