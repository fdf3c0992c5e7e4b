import math
import string

import numpy as np
import pandas as pd
import pytest
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import bootstrap
from sklearn.metrics import f1_score

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.tasks.scoring import SCORINGS, calibration_bins, calibration_error, lower_cased, scores, with_typos


def predictions(pairs, **columns) -> pd.DataFrame:
    """A table from (target, answer) pairs."""
    return pd.DataFrame(pairs, columns=["target", "answer"]).assign(**columns)


def values(table: pd.DataFrame, scoring: str) -> dict[str, float]:
    scored = scores(table, scoring)
    assert list(scored.columns) == ["measure", "value", "low", "high", "n"]
    assert list(scored["measure"]) == list(SCORINGS[scoring])
    assert (scored["low"] <= scored["value"]).all() and (scored["value"] <= scored["high"]).all()
    for name, measure in SCORINGS[scoring].items():
        assert measure(table) == scored.set_index("measure").loc[name, "value"]
    return dict(zip(scored["measure"], scored["value"], strict=True))


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson 1927, written out: the proportions p with |successes/n − p| ≤ z √(p (1 − p) / n)."""
    z, share = 1.959963984540054, successes / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


def drawn_labels(classes: list[str], n: int, seed: int) -> pd.DataFrame:
    """Targets of uneven classes, and answers that are right in six cases of ten."""
    rng = np.random.default_rng(seed)
    target = rng.choice(classes, n, p=np.arange(1, len(classes) + 1) / sum(range(1, len(classes) + 1)))
    answer = np.where(rng.random(n) < 0.6, target, rng.choice(classes, n))
    return predictions(zip(target, answer, strict=True))


class TestAccuracyAndExactMatch:
    def test_spaces_around_do_not_count_and_everything_else_does(self):
        table = predictions([(" Paris", "Paris"), (" Paris", " Paris \n"), (" Paris", "paris"), (" Paris", "Paris."), (" Paris", "")])
        assert values(table, "exact match") == {"exact match": 0.4}
        assert values(table, "accuracy") == {"accuracy": 0.4}

    @pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 30), (813, 1066)])
    def test_the_interval_is_wilsons(self, right, n):
        row = scores(predictions([(" a", "a")] * right + [(" a", "b")] * (n - right)), "accuracy").iloc[0]
        assert (row["low"], row["high"]) == pytest.approx(wilson(right, n), abs=1e-12)
        assert (row["value"], row["n"]) == (right / n, n)


class TestRouge:
    PAIRS = (
        (" I would be grateful for your help.", "I would be very grateful for help"),
        (" The meeting has been postponed.", "postponed the meeting has been"),
        (" the the the cat", "the cat the"),
        (" Good morning.", ""),
        (" Good morning.", "  "),
        (" Running runs", "run ran"),
        (" It's 5 o'clock; café.", "Its 5 oclock cafe"),
    )

    def test_each_example_has_the_f1_of_rouge_score_itself(self):
        scorer = RougeScorer(["rougeL", "rouge1", "rouge2"], use_stemmer=False)
        for pair in self.PAIRS:
            own = values(predictions([pair]), "rouge")
            theirs = scorer.score(*pair)
            assert own["ROUGE-L"] == theirs["rougeL"].fmeasure
            assert own["ROUGE-1"] == theirs["rouge1"].fmeasure
            assert own["ROUGE-2"] == theirs["rouge2"].fmeasure

    def test_the_figure_is_their_mean_and_no_stemmer_is_used(self):
        # 1: one of two unigrams on each side, F1 1/2, the bigrams differ. 2: nothing, because runs and run are two words.
        assert values(predictions([(" a b", "a c"), (" runs", "run")]), "rouge") == {
            "ROUGE-L": 0.25,
            "ROUGE-1": 0.25,
            "ROUGE-2": 0.0,
            "exact match": 0.0,
        }


class TestMacroF1:
    def test_a_hand_calculation(self):
        # entailment: 2 right, 1 missed, 1 too many: F1 4/6. contradiction: 1 right, 1 too many: 2/3. neutral: never right: 0.
        pairs = [
            (" entailment", "entailment"),
            (" entailment", "entailment"),
            (" entailment", "contradiction"),
            (" contradiction", "contradiction"),
            (" neutral", "entailment"),
        ]
        assert values(predictions(pairs), "cb") == pytest.approx({"macro-F1": (4 / 6 + 2 / 3 + 0) / 3, "accuracy": 0.6})

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("classes", [["contradiction", "entailment", "neutral"], ["contradiction", "entailment"], ["entailment"]])
    def test_it_is_scikit_learns_also_where_a_class_is_missing(self, classes, seed):
        table = drawn_labels(classes, 17, seed)
        assert values(table, "cb")["macro-F1"] == pytest.approx(f1_score(table["target"], table["answer"], average="macro"), abs=1e-12)

    def test_an_empty_answer_is_a_class_of_its_own_as_in_scikit_learn(self):
        table = predictions([("entailment", "entailment"), ("neutral", "")])
        assert values(table, "cb")["macro-F1"] == pytest.approx(f1_score(table["target"], table["answer"], average="macro"), abs=1e-12)

    def test_the_interval_is_that_of_an_independent_bootstrap(self):
        table = drawn_labels(["contradiction", "entailment", "neutral"], 120, 0)

        target, answer = table["target"].to_numpy(dtype=object), table["answer"].to_numpy(dtype=object)

        def macro_f1(rows):
            both = [2 * np.sum((target[rows] == name) & (answer[rows] == name)) for name in set(target)]
            either = [np.sum(target[rows] == name) + np.sum(answer[rows] == name) for name in set(target)]
            return np.mean(np.divide(both, either))

        theirs = bootstrap(
            (np.arange(len(table)),), macro_f1, vectorized=False, n_resamples=1000, method="percentile", rng=np.random.default_rng(1)
        )
        row = scores(table, "cb").iloc[0]
        assert row["low"] == pytest.approx(theirs.confidence_interval.low, abs=0.02)
        assert row["high"] == pytest.approx(theirs.confidence_interval.high, abs=0.02)


class TestMultiRC:
    def test_f1_is_over_options_and_em_over_questions(self):
        # True positives 2, a true one missed 1, a false one taken 1: F1 = 4/6. Of three questions, the first and the third are without error.
        pairs = [("True", "True"), ("False", "False"), ("True", "False"), ("False", "True"), ("True", "True"), ("False", "False")]
        table = predictions(pairs, group=["0.0", "0.0", "0.1", "0.1", "1.0", "1.0"])
        assert values(table, "multirc") == pytest.approx({"F1a": 4 / 6, "EM": 2 / 3})
        assert scores(table, "multirc")["n"].tolist() == [6, 3]
        assert scores(table, "multirc").loc[1, ["low", "high"]].tolist() == pytest.approx(wilson(2, 3))

    def test_a_question_whose_rows_are_apart_is_still_one(self):
        table = predictions([("True", "True"), ("False", "False"), ("True", "False")], group=["a", "b", "a"])
        assert values(table, "multirc")["EM"] == 0.5

    def test_an_empty_answer_is_wrong_whatever_is_wanted(self):
        table = predictions([("True", ""), ("False", ""), ("True", "True")], group=["a", "b", "c"])
        assert values(table, "multirc") == pytest.approx({"F1a": 2 / 4, "EM": 1 / 3})

    def test_there_is_no_f1_without_a_true_option_wanted_or_given(self):
        assert values(predictions([("False", "False")], group=["a"]), "multirc") == {"F1a": 0.0, "EM": 1.0}

    def test_f1_is_scikit_learns(self):
        table = drawn_labels(["False", "True"], 200, 3).assign(group=np.arange(200) // 4)
        assert values(table, "multirc")["F1a"] == pytest.approx(f1_score(table["target"], table["answer"], pos_label="True"), abs=1e-12)

    def test_the_bootstrap_draws_whole_questions(self):
        # Ten questions of twenty equal options each: drawing options alone would give an interval less than half as wide.
        wanted = np.repeat(np.arange(10) % 2 == 0, 20)
        table = predictions([("True", str(right)) for right in wanted], group=np.repeat(np.arange(10), 20))
        row = scores(table, "multirc").iloc[0]
        # The share s of right questions gives F1 = 2 s / (1 + s); s has the percentiles of a binomial of ten draws: 0.2 and 0.8.
        assert (row["low"], row["high"]) == pytest.approx((0.4 / 1.2, 1.6 / 1.8))


class TestReCoRD:
    @pytest.mark.parametrize(
        ("answer", "answers", "f1", "em"),
        [
            ("the United Nations.", ("United Nations",), 1, 1),
            ("United", ("United Nations", "UN"), 2 / 3, 0),  # precision 1, recall 1/2
            ("un", ("United Nations", "U.N."), 1, 1),
            ("New York New", ("New York",), 4 / 5, 0),  # two of three, two of two: a repeated word counts once
            ("Smith", ("Smith Jones", "Jones Smith"), 2 / 3, 0),  # a tie
            ("", ("Paris",), 0, 0),
            ("", ("The",), 0, 1),  # SQuAD's script: both are empty after normalising, and share no word
            ("Paris", ("London",), 0, 0),
        ],
    )
    def test_the_likest_right_answer_counts(self, answer, answers, f1, em):
        table = predictions([(f" {answers[0]}", answer)], answers=[answers])
        assert values(table, "record") == pytest.approx({"F1": f1, "EM": em})

    def test_both_are_means_over_examples(self):
        table = predictions([("x", "x"), ("x y", "x"), ("z", "")], answers=[("x",), ("x y",), ("z",)])
        assert values(table, "record") == pytest.approx({"F1": (1 + 2 / 3 + 0) / 3, "EM": 1 / 3})


class TestWSC:
    @pytest.mark.parametrize(
        ("answer", "target", "named"),
        [
            ("The fuzzy bunny", "bunny", True),  # T5's own example
            ("bunny", "the fuzzy bunny", True),
            ("Bob", "Bob's hat", False),  # and this
            ("Bob's", "bob's hat", True),
            ("the city councilmen", "demonstrators", False),
            ("", "bunny", False),
            ("the", "bunny", False),
            ("bunny rabbit", "fuzzy bunny", False),
            ("fuzzy bunny", "bunny fuzzy", True),
        ],
    )
    def test_naming_the_span_says_that_the_pronoun_refers_to_it(self, answer, target, named):
        assert values(predictions([(f" {target}", f" {answer}")], refers=[True]), "wsc") == {"accuracy": float(named)}
        assert values(predictions([(f" {target}", answer)], refers=[False]), "wsc") == {"accuracy": float(not named)}


@pytest.mark.parametrize("scoring", SCORINGS)
def test_every_scoring_is_between_0_and_1_the_same_twice_and_refuses_an_empty_table(scoring):
    table = predictions(
        [("True", "True"), ("False", "True"), ("True", "")],
        group=["a", "a", "b"], answers=[("True",), ("False", "x"), ("True",)], refers=[True, False, True],
    )  # fmt: skip
    scored = scores(table, scoring)
    assert scored["low"].between(0, 1).all() and scored["high"].between(0, 1).all()
    pd.testing.assert_frame_equal(scored, scores(table, scoring))
    with pytest.raises(InputError, match="no predictions"):
        scores(table.head(0), scoring)
    for measure in SCORINGS[scoring].values():
        with pytest.raises(InputError, match="no predictions"):
            measure(table.head(0))


def test_an_unknown_scoring_lists_the_known_ones():
    with pytest.raises(InputError, match="'blue'; the scorings are accuracy, exact match, rouge"):
        scores(predictions([("a", "a")]), "blue")


class TestCalibration:
    def test_a_hand_calculation(self):
        # (0.5, 0.6]: 0.55 right, 0.6 wrong: confidence 0.575, accuracy 0.5. (0.9, 1]: 0.95 and 1 right: 0.975 against 1. (0.2, 0.3]: 0.3 wrong.
        probability, correct = [0.55, 0.6, 0.95, 1.0, 0.3], [True, False, True, True, False]
        assert calibration_error(probability, correct) == pytest.approx((2 * 0.075 + 2 * 0.025 + 1 * 0.3) / 5)

    def test_bins_hold_their_upper_edge_and_the_first_one_zero(self):
        edges = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
        bins = calibration_bins(edges, [True] * 11)
        assert bins["n"].tolist() == [2, 1, 1, 1, 1, 1, 1, 1, 1, 1]
        assert bins["bin"].tolist() == list(range(10))
        assert bins["high"].tolist() == edges[1:] and bins["low"].tolist() == edges[:-1]

    def test_an_empty_bin_has_no_confidence_and_adds_no_error(self):
        bins = calibration_bins([1.0], [True])
        assert bins["confidence"].isna().tolist() == [True] * 9 + [False]
        assert bins["accuracy"].isna().tolist() == [True] * 9 + [False]
        assert calibration_error([1.0], [True]) == 0.0

    def test_sure_and_always_wrong_is_the_worst(self):
        assert calibration_error(np.ones(4, dtype=np.float32), np.zeros(4)) == 1.0

    def test_it_equals_a_loop_over_intervals(self):
        rng = np.random.default_rng(0)
        probability, correct = rng.random(500), rng.random(500) < 0.7
        error = 0.0
        for m in range(1, 11):
            inside = [i for i in range(500) if (m - 1) / 10 < probability[i] <= m / 10]
            if inside:
                error += len(inside) / 500 * abs(np.mean(correct[inside]) - np.mean(probability[inside]))
        assert calibration_error(probability, correct) == pytest.approx(error)

    @pytest.mark.parametrize(
        ("probability", "correct", "reason"),
        [
            ([], [], "no predictions"),
            ([0.5], [True, False], "1 probabilities and 2 answers"),
            ([1.5], [True], "0 to 1"),
            ([math.nan], [True], "0 to 1"),
        ],
    )
    def test_what_is_no_probability_of_each_answer_is_refused(self, probability, correct, reason):
        with pytest.raises(InputError, match=reason):
            calibration_error(probability, correct)


# The keys that touch each key of a QWERTY keyboard.
KEYS = {
    "q": "wa", "w": "qeas", "e": "wrsd", "r": "etdf", "t": "ryfg", "y": "tugh", "u": "yihj", "i": "uojk", "o": "ipkl", "p": "ol",
    "a": "qwsz", "s": "awedzx", "d": "serfxc", "f": "drtgcv", "g": "ftyhvb", "h": "gyujbn", "j": "huiknm", "k": "jiolm", "l": "kop",
    "z": "asx", "x": "zsdc", "c": "xdfv", "v": "cfgb", "b": "vghn", "n": "bhjm", "m": "njk",
}  # fmt: skip


class TestPerturbations:
    def kind_of(self, word: str, typo: str) -> str | None:
        """Which kind of typo leads from a word of different letters to what was typed."""
        places = [i for i, (a, b) in enumerate(zip(word, typo, strict=False)) if a != b]
        if len(typo) == len(word) - 1:
            return "omission" if any(word[:i] + word[i + 1 :] == typo for i in range(len(word))) else None
        if len(typo) == len(word) + 1:
            return "doubling" if any(typo[i] == typo[i + 1] and typo[:i] + typo[i + 1 :] == word for i in range(len(word))) else None
        if len(places) == 1:
            return "slip" if typo[places[0]] in KEYS[word[places[0]]] else None
        i, j = places
        return "swap" if j == i + 1 and 1 <= i < len(word) - 2 and typo[i] + typo[j] == word[j] + word[i] else None

    def test_lower_casing(self):
        assert lower_cased("The CITY of Zürich ΑΒΓ\n") == "the city of zürich αβγ\n"

    def test_one_word_in_ten_gets_one_typo_of_four_kinds_equally_often(self):
        words = 20_000
        typed = with_typos(" ".join(["planet"] * words), np.random.default_rng(0)).split(" ")
        assert len(typed) == words
        kinds = pd.Series([self.kind_of("planet", word) for word in typed if word != "planet"])
        assert kinds.notna().all()
        assert 0.094 < len(kinds) / words < 0.106  # ± 3 standard deviations
        assert set(kinds) == {"swap", "omission", "doubling", "slip"}
        assert kinds.value_counts(normalize=True).between(0.21, 0.29).all()

    def test_every_key_slips_to_its_neighbours(self):
        rng = np.random.default_rng(1)
        seen = {}
        for letter in string.ascii_lowercase:
            typed = {word for _ in range(40) for word in with_typos(f"{letter * 6} " * 50, rng).split()}
            slips = {next(key for key in word if key != letter) for word in typed if len(word) == 6 and set(word) != {letter}}
            seen[letter] = slips
        assert seen == {letter: set(keys) for letter, keys in KEYS.items()}

    def test_short_words_numbers_and_everything_between_words_stay(self):
        text = "It is a big, bad  day — 12345 x_y\n\t100000! "
        assert all(with_typos(text, np.random.default_rng(seed)) == text for seed in range(50))

    def test_capitals_stay_capitals_and_other_alphabets_have_typos_too(self):
        typed = with_typos("PLANET " * 500 + "планета " * 500, np.random.default_rng(2))
        assert typed != "PLANET " * 500 + "планета " * 500
        assert not any(letter in string.ascii_lowercase for letter in typed)

    def test_the_same_state_gives_the_same_text(self):
        text = "several words that could have typos " * 20
        assert (
            with_typos(text, np.random.default_rng(5))
            == with_typos(text, np.random.default_rng(5))
            != with_typos(text, np.random.default_rng(6))
        )

    def test_an_empty_text_stays_empty(self):
        assert with_typos("", np.random.default_rng(0)) == lower_cased("") == ""
