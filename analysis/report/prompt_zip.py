"""All that is known of a prompt as one zip: its tables, and the report that draws them."""

from __future__ import annotations

import io
import zipfile

import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.behaviour import kept_lens, kept_translation
from soft_prompt_explorer.analysis.core.export import WRITERS
from soft_prompt_explorer.analysis.core.provenance import Provenance
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.geometry import cosines_within
from soft_prompt_explorer.analysis.prompts.search import neighbours
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.analysis.report.page import html, of_prompt


def bundle(
    prompt: SoftPrompt, vocabulary: Vocabulary, made: Provenance, *, behaviour: pd.DataFrame | None = None, card: str | None = None
) -> bytes:
    """A zip of a prompt's report and tables: report.html, neighbours.csv, readings.csv, cosines.csv and, where they are kept with its run, lens.csv, effect.csv and
    translation.csv; and provenance.json, where all of them come from.

    Parameters
    ----------
    made : where they come from.
    behaviour : of `analysis.behaviour.of_task.behave`, where it was measured: behaviour.csv.
    card : the text of the run's card: README.md.

    Raises
    ------
    InputError
        The prompt is not as wide as the vocabulary, or its rows are no input embeddings.
    """
    tables = {
        "neighbours": neighbours(prompt, vocabulary),
        "readings": readings(prompt, vocabulary),
        "cosines": cosines_within(prompt),
        "translation": kept_translation.kept_with(prompt),
        "behaviour": behaviour,
    }
    told = kept_lens.kept_with(prompt)
    if told is not None:
        tables |= {"lens": told.words, "effect": told.effect}
    files = {f"{name}.csv": WRITERS["csv"](table) for name, table in tables.items() if table is not None}
    files["report.html"] = html([of_prompt(prompt, vocabulary)], vocabulary, made=made).encode()
    files["provenance.json"] = made.as_file()
    if card is not None:
        files["README.md"] = card.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name), files[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
