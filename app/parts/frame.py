"""What stands around every page: the way to any prompt, LoRA and measure, the ways on, and the styles that pages share."""

from pathlib import Path

import streamlit as st

from soft_prompt_explorer.analysis.report.measures import MEASURES as ALL_MEASURES
from soft_prompt_explorer.app.pages import FILE, LEARN, LIBRARY, LORA, MEASURES, ONWARD, PROMPT, Page
from soft_prompt_explorer.app.parts import choosing
from soft_prompt_explorer.app.parts.tray import show_tray

# Where the keyboard is has one ring everywhere, 3 : 1 on a light and on a dark page; who wishes for less motion gets none of Streamlit's. Captions are less
# pale than Streamlit's (4 : 1), what is written on the accent and in code has colours that can be read, and code and tables wrap where they would scroll.
# Streamlit leaves 96 pixels above a page and 160 below it. What stands along an axis has the page's own text colour: Plotly's grey is 3.7 : 1. On a wide window the jump box stands in the line of the menu.
STYLES = """<style>
.stMainBlockContainer { padding-top: 4.5rem; padding-bottom: 4rem; max-width: 1400px; }
.st-key-frame { flex-wrap: wrap; }
.st-key-frame > :has([data-testid="stSelectbox"]) { flex: 1 1 12rem; }
.js-plotly-plot :is(.xaxislayer-above, .yaxislayer-above, .infolayer [class*="title"]) text { fill: currentColor !important; }
:focus-visible, label:has(input:focus-visible), :has(> :is(input, textarea):focus-visible) { outline: 3px solid #1A7DBD !important; outline-offset: 1px; }
:is(input, textarea):focus-visible { outline: none !important; }
[data-testid="stCaptionContainer"] { opacity: 0.78 !important; }
pre, pre code { white-space: pre-wrap !important; overflow-wrap: anywhere; }
[data-testid="stTable"] :is(div, td, th, p) { overflow: visible !important; overflow-wrap: anywhere !important; white-space: normal !important; }
[data-testid^="stBaseButton-primary"], [data-testid="stMultiSelect"] [data-tag] { color: light-dark(#FFFFFF, #171614) !important; }
.token { color: inherit !important; }
.token:is(.comment, .prolog) { color: light-dark(#5E5C5A, #A9A6A2) !important; }
.token:is(.keyword, .operator, .boolean) { color: light-dark(#0B5CAD, #7CB8F2) !important; }
.token:is(.string, .entry, .property) { color: light-dark(#1B6E43, #7FD1A0) !important; }
.token:is(.number, .constant) { color: light-dark(#8A4B00, #F0B26B) !important; }
.token:is(.function, .class-name, .builtin) { color: light-dark(#6F3FA0, #C9A7F0) !important; }
.st-key-browser { display: none; }
.formula { overflow-x: auto; }
.formula .katex-display, .formula .katex-display > .katex, .formula .katex-html { overflow: visible !important; }
@media (prefers-reduced-motion: reduce) {
  *, ::before, ::after { animation-duration: 1ms !important; animation-iteration-count: 1 !important; transition-duration: 1ms !important; scroll-behavior: auto !important; }
}
@media (min-width: 900px) {
  .st-key-frame > * { flex: 0 0 auto !important; width: auto !important; }
  .st-key-frame [data-testid="stSelectbox"] { width: 20rem; }
  .st-key-frame { position: fixed; top: 0.45rem; right: 4rem; z-index: 999991; width: auto; }
}
</style>"""

_browser = st.components.v2.component("soft_prompt_explorer_frame", js=Path(__file__).with_suffix(".js").read_text(encoding="utf-8"))


def places() -> dict[str, tuple[Page, dict[str, str]]]:
    """Everything that can be jumped to, by what it is called: its page, and what the link to it says."""
    prompts, loras = choosing.prompt_choices(), choosing.lora_choices()
    return (
        {choosing.prompt_label(key): (PROMPT, {"prompt": key}) for key in prompts}
        | {f"{choosing.prompt_label(key)} (LoRA)": (LORA, {"lora": key}) for key in loras}
        | {f"{measure.name}: what it is": (LEARN, {"tab": MEASURES, "group": measure.group}) for measure in ALL_MEASURES}
    )


def show_frame() -> None:
    """The jump box, and the way to a file of one's own."""
    st.html(STYLES)
    _browser(key="browser")
    with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center", key="frame"):
        show_tray()
        anywhere = places()
        st.selectbox(
            "Jump to",
            list(anywhere),
            index=None,
            placeholder="Jump to anything ( / )",
            label_visibility="collapsed",
            key="jump",
            on_change=_chosen,
        )
        st.page_link(LIBRARY.file, label="Open a file", icon=":material/upload_file:", query_params={"tab": FILE})
    chosen = st.session_state.pop("jump-to", None)
    if chosen is not None:
        page, query = anywhere[chosen]
        st.switch_page(page.file, query_params=query)


def show_onward(here: str) -> None:
    """Below a page, by its address: where to go from there."""
    with st.container(horizontal=True, key="onward"):
        for onward in ONWARD.get(here, ()):
            st.page_link(onward.to.file, label=onward.label, icon=onward.to.icon, query_params=onward.query)


def _chosen() -> None:
    """Take a choice out of the jump box: whoever comes back to a page is not sent away again."""
    st.session_state["jump-to"], st.session_state["jump"] = st.session_state["jump"], None
