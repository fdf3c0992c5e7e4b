"""What an adapter pushes the model towards, layer by layer, and whether it does anything: looked at once, and kept in the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.adapters.run_file import in_store
from soft_prompt_explorer.analysis.behaviour import beyond_chance as effect
from soft_prompt_explorer.analysis.behaviour import difference_lens as lens
from soft_prompt_explorer.analysis.behaviour.lens_null import DRAWS, NO_PROMPT, look
from soft_prompt_explorer.analysis.behaviour.others import AtHand
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.strange_files import DAMAGED, read_table
from soft_prompt_explorer.analysis.core.words import listed
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary

WORDS, EFFECT = "lens.csv", "effect.csv"
NUMBERS = ["score", "z", "q", "specific_score", "twin_z", "twin_p"]
TEXTS = ["adapter", "path", "token", "against", "verdict"]
NAMED = 4  # words in the sentence


class Told(NamedTuple):
    """The rows of `lens` at every layer that is looked at, and the row of `effect`, of one adapter."""

    words: pd.DataFrame
    effect: pd.DataFrame

    @property
    def last(self) -> pd.DataFrame:
        """The words after the last layer."""
        return self.words[self.words["layer"] == self.words["layer"].max()]

    @property
    def sentence(self) -> str:
        """What the adapter pushes the model towards, and whether it does anything: the first that a page and a report say of it."""
        row = self.effect.iloc[0]
        done = effect.sentence(row)
        if not effect.is_beyond_chance(self.effect).iloc[0]:
            return done
        beyond = self.last[self.last["q"] < lens.LEVEL]
        if not len(beyond):
            return f"{done} It pushes towards no word that stands out."
        named = beyond.loc[~beyond["token"].str.strip().str.casefold().duplicated()].head(NAMED)  # each once, however it is written
        names = listed([f"“{token.strip()}”" for token in named["token"]])
        beside = ", compared with no prompt, since its start is not known" if beyond["against"].iloc[0] == NO_PROMPT else ""
        return f"It pushes the model towards {names}{beside}. {done} {_of_twin(named)}"


def _of_twin(named: pd.DataFrame) -> str:
    """Which of these words a twin is pushed towards as well."""
    if named["twin_p"].isna().any():
        return "A twin trained on shuffled answers may be pushed there too: that is the form of an answer."
    shared = named[named["twin_p"] < lens.LEVEL]
    if not len(shared):
        return "A twin trained on shuffled answers is not shown to be pushed there."
    if len(shared) == len(named):
        return "A twin trained on shuffled answers is pushed there too: that is the form of an answer, and not what was learned."
    words = listed([f"“{token.strip()}”" for token in shared["token"]])
    return f"A twin trained on shuffled answers is pushed towards {words} too: that is the form of an answer."


def tell(
    adapter: SoftPrompt | LoraAdapter,
    watch: Watch,
    vocabulary: Vocabulary,
    *,
    path: str = "",
    others: AtHand | None = None,
    draws: int = DRAWS,
    report: Report = no_report,
) -> Told:
    """Look at an adapter, at every layer. Errors as `lens_null.look`."""
    looked = look(adapter, watch, vocabulary, draws=draws, report=report)
    output = lens.output_rows(watch, looked.common)
    changes = None if others is None else others.beside(adapter).changes
    twins = lens.twin_changes(adapter, watch)
    tables = [lens.words_of(looked, watch, vocabulary, at, output, twins, others=changes) for at in range(len(watch.layers))]
    words = pd.concat(tables, ignore_index=True).assign(adapter=adapter.name, path=path)[lens.COLUMNS]
    return Told(words, pd.DataFrame([(adapter.name, path, *effect.effect_of(looked, output, vocabulary))], columns=effect.COLUMNS))


def write(told: Told, folder: Path) -> None:
    """Keep it in a run's folder, without the path, which is another one elsewhere."""
    from soft_prompt_explorer.analysis.core.export import WRITERS
    from soft_prompt_explorer.analysis.core.folders import write_whole

    for table, file in ((told.words, WORDS), (told.effect, EFFECT)):
        write_whole(folder / file, WRITERS["csv"](table.assign(path="").round(6)))


def kept_with(adapter: SoftPrompt | LoraAdapter) -> Told | None:
    """What is kept with the run that an adapter was read from, as it was read; None of anything else: what lies in another folder says what somebody put there."""
    folder = in_store(adapter.source.path) if adapter.source is not None else None
    return None if folder is None else read(folder)


def read(folder: Path) -> Told | None:
    """What is kept in a folder; None where there is nothing that can be read."""
    try:
        words, done = (
            read_table(
                folder / file, keep_default_na=False, na_values={column: [""] for column in NUMBERS}, dtype=dict.fromkeys(TEXTS, str)
            )
            for file in (WORDS, EFFECT)
        )
        if words.columns.tolist() != lens.COLUMNS or done.columns.tolist() != effect.COLUMNS or len(done) != 1 or not len(words):
            return None
        words = words.astype(dict.fromkeys(NUMBERS, "float64") | {"layer": "int64", "rank": "int64", "token_id": "int64"})
        layers = words.groupby("layer")
        of_each = layers["rank"].transform("size")
        if (
            (of_each != of_each[0]).any() or (words["rank"] != layers.cumcount()).any() or (words["against"] == "").any()
        ):  # rows are cut off
            return None
        return Told(words, done.astype(dict.fromkeys(effect.COLUMNS[2:8], "float64")))
    except DAMAGED:
        return None
