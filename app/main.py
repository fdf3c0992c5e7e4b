"""The dashboard's navigation. Start it with `make app`."""

from pathlib import Path

import streamlit as st

from soft_prompt_explorer.analysis.core.remedies import speaking
from soft_prompt_explorer.app.pages import GALLERY, PAGES
from soft_prompt_explorer.app.server import read_here
from soft_prompt_explorer.app.server.background import begin_page

ICON = Path(__file__).parent / "favicon.svg"  # a name such as :material/explore: would have every browser ask a foreign host for it

st.set_page_config(page_title="Soft Prompt Explorer", page_icon=str(ICON), layout="wide")
begin_page()
read_here.begin()

pages = [st.Page(page.file, title=page.title, icon=page.icon, url_path=page.url_path, default=page is GALLERY) for page in PAGES]
with speaking("page"):
    st.navigation(pages, position="top").run()
