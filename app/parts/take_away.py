"""What is on the screen, to take elsewhere: as a command, as Python, as a report and as a citation."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import streamlit as st

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.core.provenance import Provenance
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.report.page import PromptReport, html, of_prompt
from soft_prompt_explorer.analysis.report.prompt_zip import bundle
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.prompt_header import run_of
from soft_prompt_explorer.app.server import read_here
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour
from soft_prompt_explorer.trained_prompts.runs import store

CITATION = """@software{{soft_prompt_explorer,
  title = {{Soft Prompt Explorer}},
  author = {{{{The Soft Prompt Explorer authors}}}},
  version = {{{version}}},
  year = {{2026}}
}}"""


class Place(NamedTuple):
    """An adapter's place as a shell is told it, and as Python."""

    shell: str
    python: str


def offer_prompt(key: str, prompt: SoftPrompt, vocabulary: Vocabulary) -> None:
    """The way out of a prompt's page."""
    made = read_here.made(prompt)  # asked here: the thread that makes the zip is of no session
    with st.popover("Take it elsewhere", icon=":material/ios_share:"):
        at = place_of(key, prompt)
        _in_code(
            [f"{command} {at.shell}" for command in ("readings", "lens", "effect", "translate")]
            + [f"report {at.shell} --out {widgets.file_name(prompt.name)}.html"],
            [f"prompt = spe.load_adapter({at.python})", f"spe.readings(prompt, spe.load_vocabulary({vocabulary.model!r}))"],
        )
        offer_report(prompt, vocabulary, lambda: of_prompt(prompt, vocabulary), key="report-of-words")
        st.download_button(
            "Everything (zip)",
            lambda: _everything(key, prompt, vocabulary, made),
            file_name=f"{widgets.file_name(prompt.name)}.zip",
            mime="application/zip",
            on_click="ignore",
            icon=":material/folder_zip:",
            key="everything",
            help="The report, and every table that there is of this prompt as CSV",
        )


def offer_report(prompt: SoftPrompt, vocabulary: Vocabulary, part: Callable[[], PromptReport], *, key: str) -> None:
    """A page to keep, to send and to print, made when it is asked for.

    Parameters
    ----------
    part : makes what it says of the prompt.
    """
    made = read_here.made(prompt)  # asked here: the thread that makes the report is of no session
    st.download_button(
        "Report (HTML)",
        lambda: html([part()], vocabulary, made=made).encode(),
        file_name=f"report-{widgets.file_name(prompt.name)}.html",
        mime="text/html",
        on_click="ignore",
        icon=":material/description:",
        key=key,
        help="Every token's reading, what it does, what it pushes towards and, where the model was asked, the verdict and the interventions on one page",
    )


def _everything(key: str, prompt: SoftPrompt, vocabulary: Vocabulary, made: Provenance) -> bytes:
    run = run_of(key)
    return bundle(
        prompt,
        vocabulary,
        made,
        behaviour=None if run is None else kept_behaviour.kept(key),
        card=None if run is None else store.read_card(key),
    )


def offer_lora(key: str, adapter: LoraAdapter) -> None:
    """The way out of a LoRA's page."""
    with st.popover("Take it elsewhere", icon=":material/ios_share:"):
        at = place_of(key, adapter)
        _in_code(
            [f"{command} {at.shell}" for command in ("spectra", "lens", "effect", "translate")],
            [f"lora = spe.load_adapter({at.python})", "spe.spectra(lora)"],
        )


def place_of(key: str, adapter: SoftPrompt | LoraAdapter) -> Place:
    """Where it lies, so that nothing is told of this machine's folders: what ships lies in a clone, a run of the person's own below their home where it is there, and of any other file
    only its person knows."""
    run = run_of(key)
    if run is not None and run["origin"] == "gallery":
        return Place(f"{GALLERY.parent.name}/{GALLERY.name}/{key}", f"spe.GALLERY / {key!r}")
    if run is not None and Path(run["path"]).is_relative_to(Path.home()):
        short = f"~/{Path(run['path']).relative_to(Path.home()).as_posix()}"
        return Place(f"~/{shlex.quote(short[2:])}", f"Path({short!r}).expanduser()")
    path = f"path/to/{widgets.file_name(adapter.name)}"
    return Place(shlex.quote(path), repr(path))


def _in_code(commands: list[str], lines: list[str]) -> None:
    st.markdown("**As commands**")
    st.code("\n".join(f"spe {command}" for command in commands), language="bash", wrap_lines=True)
    st.markdown("**As Python**")
    imports = ["from pathlib import Path", ""] if any("Path(" in line for line in lines) else []
    st.code("\n".join([*imports, "import soft_prompt_explorer as spe", "", *lines]), language="python", wrap_lines=True)
    st.markdown("**As a citation**")
    st.code(CITATION.format(version=version("soft-prompt-explorer")), language="bibtex", wrap_lines=True)
