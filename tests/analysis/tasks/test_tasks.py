import hashlib
import json
import re

import pandas as pd
import pytest

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.tasks.finding import get_task, tasks_table
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.analysis.tasks.task import VALIDATION
from tests.support.places import REPOSITORY

# Examples to learn from and held out, and digests of the held-out texts and of all texts with their answers: a split never changes.
SPLITS = {
    "sentiment": (7464, 1066, "d27466a7046959c9", "5177683958582b05"),
    "capitals": (140, 70, "386683cad0fe2c7f", "084b025f1dc1f13a"),
    "antonyms": (174, 86, "05de7e744513df46", "d160d54e0d29ed08"),
    "plural": (200, 100, "2b9837de47d2a7ab", "b3afa63537df622c"),
    "past-tense": (200, 100, "ca48e1f9d2cd9120", "988782d8466c3316"),
    "number-words": (200, 100, "5ad21359a0816238", "cd0ba936b62f19b4"),
    "number-words-french": (200, 100, "9bb8ba217c506e5b", "61d4ccec537e1b8c"),
    "first-letter": (398, 198, "08dab89274201687", "229f9bb8a40c248f"),
    "topic": (176, 88, "9a8dcea4c17d4f8f", "f2d6dc41033ab922"),
    "formal": (160, 80, "539830f8f6bbf31f", "d321a72b1b23e366"),
}
SUPERGLUE = REPOSITORY.parent / "shared" / "superglue"


def digest(texts) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def answers_of(name: str) -> dict[str, str]:
    """Every input of a task, learned from or held out, with its answer."""
    task = TASKS[name]
    table = pd.concat([task.examples(split, template="{input}") for split in ("train", "held-out")])
    return dict(zip(table["text"], table["target"].str.strip(), strict=True))


def test_ten_tasks_are_there_in_a_fixed_order():
    assert list(TASKS) == list(SPLITS)


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_has_200_examples_or_more_none_in_both_parts_and_never_changes(name):
    train, held_out = TASKS[name].examples("train"), TASKS[name].examples("held-out")
    everything = pd.concat([train, held_out])
    assert len(everything) >= 200
    assert (len(train), len(held_out), digest(held_out["text"]), digest(everything["text"] + everything["target"])) == SPLITS[name]
    assert not set(train["text"]) & set(held_out["text"])
    assert not everything["text"].duplicated().any()


@pytest.mark.parametrize("name", SPLITS)
def test_no_input_differs_from_another_only_by_its_capitals_and_spaces(name):
    """What a model has learned from would otherwise be held out all but word for word."""
    inputs = pd.concat([TASKS[name].examples(split, template="{input}") for split in ("train", "held-out")])["text"]
    assert not inputs.str.lower().str.split().str.join(" ").duplicated().any()


@pytest.mark.parametrize("name", SPLITS)
def test_a_task_is_described_in_words_and_every_answer_can_be_given(name):
    task = TASKS[name]
    assert re.fullmatch(r"[A-Z].+\.", task.description)
    assert 3 <= len(task.prompts) <= 6 and task.template not in task.prompts
    for template in (task.template, *task.prompts):
        assert "{input}" in template and template == template.strip()
    for split in ("train", "held-out"):
        table = task.examples(split)
        assert table["target"].str.fullmatch(r" \S(.*\S)?").all(), "an answer is one line and starts with the space before it"
        assert not table["text"].str.contains(r"\{input\}").any()
        if task.labels:
            assert set(table["target"]) == set(task.labels)
            assert table["target"].value_counts(normalize=True).min() > 0.5 / len(task.labels)


def test_sentiment_holds_all_8530_rotten_tomatoes_sentences_half_of_them_positive():
    train, held_out = TASKS["sentiment"].examples("train"), TASKS["sentiment"].examples("held-out")
    counts = (train["target"].value_counts() + held_out["target"].value_counts()).to_dict()
    assert counts == {" negative": 4265, " positive": 4265}


def test_capitals_are_right_and_split_over_all_sizes_of_country():
    train, held_out = TASKS["capitals"].examples("train"), TASKS["capitals"].examples("held-out")
    answers = answers_of("capitals")
    assert len(answers) == 210
    known = {"Japan": "Tokyo", "France": "Paris", "Australia": "Canberra", "Kazakhstan": "Astana", "Brazil": "Brasilia", "Canada": "Ottawa"}
    assert {country: answers[country] for country in known} == known
    assert "Nur-Sultan" not in answers.values()
    assert train["text"].iloc[0] == "Country: China\nCapital:"
    assert held_out["text"].iloc[0] == "Country: United States\nCapital:"


# Where inflect 7.6.0 and lemminflect 0.2.3 themselves are wrong, or know another form only.
PLURALS_INFLECT_DOES_NOT_KNOW = {
    "thief": "thieves", "stepchild": "stepchildren", "grandchild": "grandchildren", "schoolchild": "schoolchildren", "gentleman": "gentlemen",
    "radius": "radii", "cactus": "cacti", "fungus": "fungi", "larva": "larvae", "mitochondrion": "mitochondria", "bison": "bison",
    "crossroads": "crossroads", "passerby": "passersby",
}  # fmt: skip
PASTS_LEMMINFLECT_DOES_NOT_KNOW = {"mimic": "mimicked"}


def test_plurals_are_those_of_inflect():
    import inflect

    engine = inflect.engine()
    answers = answers_of("plural")
    assert {noun: plural for noun, plural in answers.items() if engine.plural_noun(noun) != plural} == PLURALS_INFLECT_DOES_NOT_KNOW
    assert (answers["mouse"], answers["city"], answers["sheep"]) == ("mice", "cities", "sheep")


def test_past_tenses_are_those_of_lemminflect():
    from lemminflect import getInflection

    answers = answers_of("past-tense")
    differ = {verb: past for verb, past in answers.items() if past not in getInflection(verb, tag="VBD")}
    assert differ == PASTS_LEMMINFLECT_DOES_NOT_KNOW
    assert (answers["go"], answers["bring"], answers["stop"]) == ("went", "brought", "stopped")


ENGLISH = {
    0: "zero", 13: "thirteen", 20: "twenty", 21: "twenty-one", 40: "forty", 100: "one hundred", 101: "one hundred and one",
    342: "three hundred and forty-two", 999: "nine hundred and ninety-nine",
}  # fmt: skip
FRENCH = {
    16: "seize", 21: "vingt et un", 71: "soixante et onze", 80: "quatre-vingts", 81: "quatre-vingt-un", 99: "quatre-vingt-dix-neuf",
    200: "deux cents", 201: "deux cent un", 999: "neuf cent quatre-vingt-dix-neuf",
}  # fmt: skip


def english(number: int) -> str:
    """A number under 1,000 in British English words."""
    small = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ]
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    if number < 20:
        return small[number]
    if number < 100:
        return tens[number // 10 - 2] + (f"-{small[number % 10]}" if number % 10 else "")
    return f"{small[number // 100]} hundred" + (f" and {english(number % 100)}" if number % 100 else "")


def french(number: int) -> str:
    """A number under 1,000 in French words, in the spelling before 1990: "et" without hyphens, s after a whole vingt or cent."""
    small = [
        "zéro",
        "un",
        "deux",
        "trois",
        "quatre",
        "cinq",
        "six",
        "sept",
        "huit",
        "neuf",
        "dix",
        "onze",
        "douze",
        "treize",
        "quatorze",
        "quinze",
        "seize",
        "dix-sept",
        "dix-huit",
        "dix-neuf",
    ]
    tens = {20: "vingt", 30: "trente", 40: "quarante", 50: "cinquante", 60: "soixante"}
    if number < 20:
        return small[number]
    if number < 100:
        base = 80 if number >= 80 else 60 if number >= 60 else number // 10 * 10
        rest, stem = number - base, "quatre-vingt" if base == 80 else tens[base]
        if not rest:
            return stem + ("s" if base == 80 else "")
        return f"{stem} et {french(rest)}" if rest in (1, 11) and base != 80 else f"{stem}-{french(rest)}"
    hundreds, rest = divmod(number, 100)
    cent = "cent" if hundreds == 1 else f"{small[hundreds]} cent"
    return f"{cent} {french(rest)}" if rest else cent + ("s" if hundreds > 1 else "")


@pytest.mark.parametrize(("name", "by_hand", "spelt"), [("number-words", ENGLISH, english), ("number-words-french", FRENCH, french)])
def test_numbers_are_written_as_a_person_writes_them(name, by_hand, spelt):
    assert {number: spelt(number) for number in by_hand} == by_hand
    answers = answers_of(name)
    assert len(answers) == 300
    assert {number: words for number, words in answers.items() if words != spelt(int(number))} == {}


def test_a_first_letter_is_the_words_own():
    answers = answers_of("first-letter")
    assert all(word.startswith(letter) and len(letter) == 1 for word, letter in answers.items())
    assert set(answers) == set(answers_of("plural")) | set(answers_of("past-tense"))


def test_antonyms_contradict_nobody():
    """Where a word is the opposite of two, both are given as they stand; no word is its own opposite, and none has two answers."""
    answers = answers_of("antonyms")
    assert not [word for word, opposite in answers.items() if word == opposite]
    known = {"good": "bad", "hot": "cold", "empty": "full"}
    assert {word: answers[word] for word in known if word in answers} == {word: known[word] for word in known if word in answers}
    assert set(known) & set(answers)


def test_formal_rewriting_is_scored_by_rouge_and_changes_every_sentence():
    assert TASKS["formal"].scored_by == "rouge"
    answers = answers_of("formal")
    assert not [informal for informal, formal in answers.items() if informal == formal]
    contracted = [
        formal for formal in answers.values() if re.search(r"\b(can't|won't|don't|I'm|it's|you're|gonna|wanna|isn't|didn't)\b", formal)
    ]
    assert contracted == []


def test_examples_set_aside_to_watch_by_are_the_last_to_learn_from_and_few():
    for task in TASKS.values():
        train = task.examples("train")
        learned, watched = task.for_training(watched=True)
        assert len(watched) == min(VALIDATION, len(train) // 5)
        pd.testing.assert_frame_equal(pd.concat([learned, watched]), train)
        whole, none = task.for_training(watched=False)
        pd.testing.assert_frame_equal(whole, train)
        assert none.empty


def test_every_task_stands_in_the_table_with_its_numbers_of_examples(own_runs):
    table = tasks_table().set_index("task")
    assert list(table.index) == list(TASKS)
    assert table[["train", "held_out"]].to_numpy().tolist() == [list(split[:2]) for split in SPLITS.values()]
    assert table.loc[["sentiment", "antonyms", "formal"], "scoring"].tolist() == ["accuracy", "exact match", "rouge"]
    assert table.loc["topic", "labels"] == "sports / science / business / politics / music / food"
    assert (table["source"] != "").all() and (table["prompts"] >= 3).all()


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(InputError, match="sentiment, capitals"):
        get_task("sentimant")


def test_a_file_is_a_task_by_its_path_and_a_superglue_folder_by_its(tmp_path, monkeypatch):
    lines = [json.dumps({"input": f"text {i}", "target": ("yes", "no")[i % 2]}) for i in range(30)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "mine.jsonl", "mine.jsonl", "./mine.jsonl"):
        task = get_task(str(path))
        assert task.labels == (" no", " yes") and task.name == "own-mine"
    with pytest.raises(InputError, match="No task is called"):
        get_task(str(tmp_path / "other.jsonl"))
    with pytest.raises(InputError, match="No task is called"):
        get_task("x" * 5000)
    with pytest.raises(InputError):
        get_task(str(tmp_path))  # a folder that holds no task of SuperGLUE


@pytest.mark.skipif(not SUPERGLUE.is_dir(), reason=f"the examples of {SUPERGLUE} are not at hand")
@pytest.mark.parametrize("name", ["BoolQ", "CB", "COPA", "RTE", "WiC"])
def test_a_folder_of_superglue_is_a_task_by_its_path(name):
    task = get_task(str(SUPERGLUE / name))
    examples = [len(task.examples(split)) for split in ("train", "held-out")]
    assert min(examples) > 0
    assert sum(examples) <= sum(len(path.read_text().splitlines()) for path in (SUPERGLUE / name).glob("*.jsonl"))
