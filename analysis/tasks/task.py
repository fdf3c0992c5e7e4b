"""What a prompt can be asked to do: examples with answers, and the text that they are asked with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pandas as pd

from soft_prompt_explorer.analysis.adapters.run_file import MAX_TEMPLATE
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.words import printable

SPLIT_SEED = 20260101
VALIDATION = 64  # training examples that are set aside where a run is watched while it learns
OWN_TEMPLATE = "{input}\nAnswer:"  # of examples that do not say how they are asked
EXAMPLE_SHOWN = 160  # characters of an input, where the first example is shown


@dataclass(frozen=True)
class Task:
    """A task as a person would describe it, and as the model sees it.

    Attributes
    ----------
    template : the text that the model reads, with `{input}` where the example goes; it ends right before the answer.
    labels : the answers to choose among, or None where the answer is free text. An answer starts with the space before it.
    load : returns all examples, a table with the columns input, target and split (`train` or `held-out`), and what else its scoring needs.
    prompts : hand-written templates to use in place of `template`, from the plainest to the most careful: what a person would try first.
    scoring : a key of `scoring.SCORINGS`; empty for accuracy with labels and exact match without.
    """

    name: str
    description: str
    template: str
    labels: tuple[str, ...] | None
    source: str
    load: Callable[[], pd.DataFrame]
    prompts: tuple[str, ...] = ()
    scoring: str = ""

    @property
    def scored_by(self) -> str:
        """The key of `scoring.SCORINGS` that this task is scored by."""
        return self.scoring or ("accuracy" if self.labels else "exact match")

    def examples(self, split: str, *, template: str | None = None) -> pd.DataFrame:
        """The examples of one split, in a fixed order that mixes the labels: text (the filled template), target, and what the scoring needs."""
        table = _loaded(self.load)
        table = table[table["split"] == split].reset_index(drop=True)
        texts = [(template or self.template).replace("{input}", text) for text in table["input"]]
        return table.drop(columns=["input", "split"]).assign(text=texts)

    def for_training(self, *, watched: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The examples to learn from, and those set aside to watch the learning with: none unless it is watched, and never a held-out one."""
        table = self.examples("train")
        aside = min(VALIDATION, len(table) // 5) if watched else 0
        return table.iloc[: len(table) - aside], table.iloc[len(table) - aside :]

    def asked_with(self, template: str) -> Task:
        """The same task, asked with another template.

        Raises
        ------
        InputError
            `{input}` does not stand in it exactly once.
        """
        return replace(self, template=checked_template(template))

    def first_example(self) -> str:
        """The first example as the model reads it and the answer that is wanted, on one line: `‘Thing: apple⏎Colour:’ → ‘ red’`. The first held-out one, if any is."""
        table = _loaded(self.load)
        first = table[table["split"] == "held-out"].head(1)
        row = (first if len(first) else table).iloc[0]
        given = row["input"] if len(row["input"]) <= EXAMPLE_SHOWN else f"{row['input'][:EXAMPLE_SHOWN]}…"
        return f"{in_one_line(self.template.replace('{input}', given))} → {in_one_line(row['target'])}"

    def answer_words(self) -> list[str]:
        """What a prompt of this task learns to answer with: the labels, or the different answers of the training examples."""
        return list(self.labels) if self.labels else self.examples("train")["target"].drop_duplicates().tolist()


def checked_template(template: str, what: str = "The template") -> str:
    """A template in which `{input}` stands exactly once; the two characters `\\n` in it are a new line.

    Parameters
    ----------
    what : begins the sentence that refuses it.

    Raises
    ------
    InputError
    """
    template = template.replace("\\n", "\n")
    if len(template) > MAX_TEMPLATE:
        raise InputError(f"{what} has {len(template):,} characters, and {MAX_TEMPLATE:,} are the most; shorten it.")
    if "\0" in template or any("\ud800" <= character <= "\udfff" for character in template):
        raise InputError(f"{what} holds a NUL or half a surrogate pair, which is no text; take it out.")
    if (count := template.count("{input}")) != 1:
        raise InputError(
            f"{what} holds {{input}} {'nowhere' if not count else f'{count} times'}; write it exactly once, where the example goes, "
            "as in 'Thing: {input}\\nColour:'."
        )
    return template


def in_one_line(text: str, most: int | None = None) -> str:
    """A text with its blanks and line ends to be seen: `‘Thing: apple⏎Colour:’`; cut after so many characters."""
    shown = printable(text.replace("\n", "⏎"))
    return f"‘{shown if most is None or len(shown) <= most else f'{shown[:most]}…'}’"


@cache
def _loaded(load: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    return load()
