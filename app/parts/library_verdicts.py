"""What is made of each prompt and LoRA in the Library, as chips: what its virtual tokens read as, and whether it has an effect. All of it ships or is kept with a run."""

from __future__ import annotations

import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.shipped import readings_of
from soft_prompt_explorer.analysis.prompts.starts import plain_verdict
from soft_prompt_explorer.analysis.prompts.verdicts import VERDICTS
from soft_prompt_explorer.app.charts.theme import EFFECT_MARKS, HAS_EFFECT, NO_EFFECT, VERDICT_MARKS, verdict_label
from soft_prompt_explorer.app.parts import choosing, widgets
from soft_prompt_explorer.app.server.background import computed

SAID = VERDICTS | {
    HAS_EFFECT: "it changes what the model says next on unrelated texts more than adapters that know nothing, or otherwise",
    NO_EFFECT: "it changes no more there than chance does",
}
APART = "; "


def verdicts_that_ship(prompts: list[SoftPrompt], vocabulary: Vocabulary) -> pd.DataFrame | None:
    """The readings of all prompts that ship, one under the other; None where they are not there yet."""
    return computed(
        ("verdicts of the gallery", vocabulary.model, choosing.content_of(prompts)),
        "the verdicts of all that ships",
        lambda report: pd.concat([readings_of(prompt, vocabulary, report=report) for prompt in prompts], ignore_index=True),
    )


def verdicts_of(table: pd.DataFrame) -> list[str]:
    """What is said of each row of the library's table: the verdicts of its virtual tokens, the most frequent first, then whether it has an effect.

    A prompt that does not ship has those of its tokens on its own page.
    """
    shipped = table.loc[(table["kind"] == "prompt") & (table["origin"] == "ships"), "key"]
    read = None
    with widgets.on_its_own():
        read = verdicts_that_ship([choosing.load_prompt(key) for key in shipped], widgets.vocabulary(EMBEDDED_MODEL))
    of = (
        {}
        if read is None
        else {name: rows["verdict"].map(plain_verdict).value_counts().index.tolist() for name, rows in read.groupby("prompt")}
    )
    ships = set(shipped)
    return [
        APART.join([*(of.get(row.name, []) if row.key in ships and row.kind == "prompt" else []), *([row.effect] if row.effect else [])])
        for row in table.itertuples(index=False)
    ]


def chips(verdicts: pd.Series):
    """The cells and the column of what `verdicts_of` says: each verdict in words, with its shape and its colour."""
    marks = {name: (f"{shape} {name}", colour) for name, (colour, shape) in EFFECT_MARKS.items()}
    marks |= {name: (verdict_label(name), colour) for name, (colour, _) in VERDICT_MARKS.items()}
    column = widgets.chip_column("verdict", dict(marks.values()), {marks[name][0]: text for name, text in SAID.items()}, width="medium")
    return verdicts.map(lambda said: [marks[name][0] for name in said.split(APART) if name]), column
