import hashlib

import pytest

from analysis.errors import InputError
from trained_prompts.tasks import TASKS, get_task, tasks_table


def digest(texts) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def test_sentiment_holds_all_8530_rotten_tomatoes_sentences_in_two_splits_without_overlap():
    train, held_out = TASKS["sentiment"].examples("train"), TASKS["sentiment"].examples("held-out")
    assert (len(train), len(held_out)) == (7464, 1066)
    assert not set(train["text"]) & set(held_out["text"])
    counts = (train["target"].value_counts() + held_out["target"].value_counts()).to_dict()
    assert counts == {" negative": 4265, " positive": 4265}


def test_the_sentiment_split_never_changes():
    assert digest(TASKS["sentiment"].examples("held-out")["text"]) == "d27466a7046959c9"


def test_capitals_are_right_and_split_over_all_sizes_of_country():
    train, held_out = TASKS["capitals"].examples("train"), TASKS["capitals"].examples("held-out")
    assert (len(train), len(held_out)) == (120, 60)
    answers = dict(zip([*train["text"], *held_out["text"]], [*train["target"], *held_out["target"]], strict=True))
    assert answers["Country: Japan\nCapital:"] == " Tokyo"
    assert answers["Country: France\nCapital:"] == " Paris"
    assert train["text"].iloc[0] == "Country: China\nCapital:"
    assert held_out["text"].iloc[0] == "Country: United States\nCapital:"


def test_the_capitals_split_never_changes():
    assert digest(TASKS["capitals"].examples("held-out")["text"]) == "7aa83c2035e228a0"


def test_every_task_stands_in_the_table_with_its_numbers_of_examples():
    table = tasks_table().set_index("task")
    assert list(table.index) == list(TASKS)
    assert table.loc["sentiment", ["train", "held_out"]].tolist() == [7464, 1066]


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(InputError, match="sentiment, capitals"):
        get_task("sentimant")
