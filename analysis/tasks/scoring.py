"""What predictions are worth: measures with 95 % intervals, calibration, and the misspellings that robustness is measured under.

A table of predictions has one row an example: `target` (what was wanted), `answer` (what the model answered, nothing if it is empty), and for
some scorings `group` (the question that an answer option belongs to), `answers` (all right answers, a tuple) or `refers` (whether the target is
what the pronoun stands for). White space around a text is not compared.

To add a scoring, add its measures to `SCORINGS`, the primary one first.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.core.errors import InputError

RESAMPLES, SEED = 2_000, 20260101  # of the bootstrap
BINS = 10  # of confidence, for the calibration error
TYPO_RATE, TYPO_LETTERS = 0.1, 4  # how many of the words get a typo, and how long a word must be


@dataclass(frozen=True)
class Measure:
    """A figure between 0 and 1 that is computed from sums over units: over examples, or over questions of several examples each.

    Attributes
    ----------
    counts : from a table of predictions, (units, k) float64: what each unit adds to k sums.
    score : from sums of shape (..., k) to the figure, (...). The bootstrap resamples units, so it needs their counts only once.
    proportion : whether it is a share of the units, whose interval is Wilson's.
    """

    counts: Callable[[pd.DataFrame], np.ndarray]
    score: Callable[[np.ndarray], np.ndarray]
    proportion: bool = False

    def __call__(self, predictions: pd.DataFrame) -> float:
        """The figure of a table of predictions."""
        _refuse_empty(len(predictions))
        return float(self.score(self.counts(predictions).sum(axis=0)))


def scores(predictions: pd.DataFrame, scoring: str) -> pd.DataFrame:
    """Every measure of one scoring with its 95 % interval.

    Parameters
    ----------
    predictions : one row an example; see the head of this file for its columns.
    scoring : a key of `SCORINGS`.

    Returns
    -------
    One row a measure: measure, value, low, high (Wilson's interval for shares, else percentiles of 2,000 bootstrap resamples, of whole questions
    where there are any), n (examples; for MultiRC's EM, questions).
    """
    if scoring not in SCORINGS:
        raise InputError(f"No scoring is called {scoring!r}; the scorings are {', '.join(SCORINGS)}.")
    _refuse_empty(len(predictions))
    rows = []
    for name, measure in SCORINGS[scoring].items():
        counts = measure.counts(predictions)
        low, high = _wilson(counts) if measure.proportion else _bootstrap(counts, measure.score)
        n = len(counts) if measure.proportion else len(predictions)
        rows.append((name, float(measure.score(counts.sum(axis=0))), low, high, n))
    return pd.DataFrame(rows, columns=["measure", "value", "low", "high", "n"])


def correct(predictions: pd.DataFrame, scoring: str) -> np.ndarray:
    """(n,) whether each answer is right as the scoring sees it; where it scores no single answers (ROUGE-L, F1), whether it is the target."""
    for measure in SCORINGS[scoring].values():
        if measure.proportion and len(counts := measure.counts(predictions)) == len(predictions):
            return counts[:, 0] > 0
    return _matches(predictions)[:, 0] > 0


def calibration_error(probability: np.ndarray, correct: np.ndarray) -> float:
    """The expected calibration error: how far confidence is from accuracy, on average over the examples.

    Σ over bins of (n of the bin / n) · |accuracy − confidence| (Naeini et al. 2015; Guo et al. 2017, equation 5), 0 to 1.

    Parameters
    ----------
    probability : (n,) what the model gave the answer that it chose.
    correct : (n,) whether that answer was right.
    """
    bins = calibration_bins(probability, correct)
    gaps = (bins["accuracy"] - bins["confidence"]).abs().fillna(0.0)  # of an empty bin, none
    return float((gaps * bins["n"]).sum() / bins["n"].sum())


def calibration_bins(probability: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Confidence against accuracy in ten bins of equal width, each with its upper edge and without its lower one (Guo et al. 2017, section 2).

    Parameters are those of `calibration_error`.

    Returns
    -------
    Ten rows: bin, low, high (its edges), n, confidence (mean probability), accuracy; the last two are NaN in an empty bin.
    """
    probability, correct = np.asarray(probability, dtype=np.float64), np.asarray(correct, dtype=bool)
    _refuse_empty(len(probability))
    if probability.shape != correct.shape:
        raise InputError(f"There are {len(probability)} probabilities and {len(correct)} answers; give one probability for each answer.")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise InputError("A probability lies outside 0 to 1, or is no number; give the probability of each chosen answer.")
    edges = np.arange(BINS + 1) / BINS
    where = np.searchsorted(edges[1:-1], probability, side="left")  # a probability of 0 belongs to the first bin
    n = np.bincount(where, minlength=BINS)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = (np.bincount(where, weights=values, minlength=BINS) / n for values in (probability, correct))
    columns = {"bin": range(BINS), "low": edges[:-1], "high": edges[1:], "n": n, "confidence": confidence, "accuracy": accuracy}
    return pd.DataFrame(columns)


def lower_cased(text: str) -> str:
    """The text without capitals, one of HELM's invariance perturbations (Liang et al. 2022)."""
    return text.lower()


def with_typos(text: str, rng: np.random.Generator) -> str:
    """The text with typos, one of HELM's invariance perturbations: about one in ten of the words of four letters or more has one.

    A typo is one of, with equal chances: two inner neighbours swapped, a letter left out, a letter doubled, a neighbouring key of a QWERTY
    keyboard pressed. The same state of `rng` gives the same text.
    """

    def typed(word: re.Match) -> str:
        return _misspelt(word.group(), rng) if rng.random() < TYPO_RATE else word.group()

    return re.sub(rf"[^\W\d_]{{{TYPO_LETTERS},}}", typed, text)


def _refuse_empty(n: int) -> None:
    if n == 0:
        raise InputError("There are no predictions to score; evaluate on one example or more.")


# ---- intervals


def _wilson(counts: np.ndarray) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(round(counts[:, 0].sum()), len(counts)).proportion_ci(method="wilson")
    return interval.low, interval.high


def _bootstrap(counts: np.ndarray, score: Callable) -> tuple[float, float]:
    """The 2.5 and 97.5 % percentiles of the score when the units are drawn anew with replacement (Efron and Tibshirani 1993, section 13.3)."""
    rng = np.random.default_rng(SEED)
    sums = [counts[rng.integers(len(counts), size=len(counts))].sum(axis=0) for _ in range(RESAMPLES)]
    low, high = np.quantile(score(np.stack(sums)), [0.025, 0.975])
    return float(low), float(high)


# ---- measures: what a unit counts, and what the sums come to


def _stripped(texts: pd.Series) -> np.ndarray:
    return texts.str.strip().to_numpy(dtype=object)


def _with_ones(values) -> np.ndarray:
    """(units, 2): each unit's value, and 1, so that the sums hold the number of units."""
    values = np.asarray(values, dtype=np.float64)
    return np.column_stack([values, np.ones_like(values)])


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _f1(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """F1 from true positives and from false positives and negatives together; 0 where there are none of either, as scikit-learn has it."""
    return np.divide(2 * right, 2 * right + wrong, out=np.zeros_like(right), where=right + wrong > 0)


def _matches(predictions: pd.DataFrame) -> np.ndarray:
    return _with_ones(_stripped(predictions["answer"]) == _stripped(predictions["target"]))


def _rouge(kind: str) -> Measure:
    def counts(predictions: pd.DataFrame) -> np.ndarray:
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer([kind], use_stemmer=False)
        pairs = zip(predictions["target"], predictions["answer"], strict=True)
        return _with_ones([scorer.score(target, answer)[kind].fmeasure for target, answer in pairs])

    return Measure(counts, _mean)


def _class_counts(predictions: pd.DataFrame) -> np.ndarray:
    """(n, 2 C) for the C classes among targets and answers: true positives of each, then false positives and negatives of each."""
    target, answer = _stripped(predictions["target"])[:, None], _stripped(predictions["answer"])[:, None]
    classes = np.array(sorted({*target.flat, *answer.flat}), dtype=object)
    wanted, given = target == classes, answer == classes
    return np.hstack([wanted & given, wanted ^ given]).astype(np.float64)


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    """The mean F1 of the classes that occur among targets or answers, as `sklearn.metrics.f1_score(average="macro")`."""
    right, wrong = np.split(sums, 2, axis=-1)
    return _f1(right, wrong).sum(axis=-1) / (right + wrong > 0).sum(axis=-1)


def _question_counts(predictions: pd.DataFrame) -> np.ndarray:
    """(questions, 2): options that are true and called so, and options that are called wrong. Neither True nor False is wrong too."""
    target = _stripped(predictions["target"])
    wrong = _stripped(predictions["answer"]) != target
    question = pd.factorize(predictions["group"])[0]
    return np.column_stack([np.bincount(question, weights=values) for values in ((target == "True") & ~wrong, wrong)])


def _f1_over_options(sums: np.ndarray) -> np.ndarray:
    return _f1(sums[..., 0], sums[..., 1])


def _questions_without_error(predictions: pd.DataFrame) -> np.ndarray:
    return _with_ones(_question_counts(predictions)[:, 1] == 0)


def _best_of_answers(score: Callable[[str, str], float]) -> Callable[[pd.DataFrame], np.ndarray]:
    """The counts of a measure that compares each answer, normalised as SQuAD does it, with the right one that is likest to it."""

    def counts(predictions: pd.DataFrame) -> np.ndarray:
        pairs = zip(predictions["answer"].map(_normalised), predictions["answers"], strict=True)
        return _with_ones([max(score(answer, _normalised(right)) for right in rights) for answer, rights in pairs])

    return counts


def _normalised(text: str) -> str:
    """Lower case, without ASCII punctuation, articles and superfluous white space (Rajpurkar et al. 2016, the official evaluation)."""
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _shared_words(answer: str, right: str) -> float:
    """The F1 of the words of two texts, repeated words counted as often as they stand in both."""
    answer_words, right_words = answer.split(), right.split()
    shared = (Counter(answer_words) & Counter(right_words)).total()
    return 2 * shared / max(len(answer_words) + len(right_words), 1)


# fmt: off
_DETERMINERS = {  # t5/data/postprocessors.py
    "a", "an", "few", "her", "his", "each", "every", "many", "much", "my", "our", "some", "that", "the", "their", "these", "this", "those", "which",
    "whose", "your",
}
# fmt: on


def _referents(predictions: pd.DataFrame) -> np.ndarray:
    named = [_names(*pair) for pair in zip(predictions["answer"], predictions["target"], strict=True)]
    return _with_ones(np.array(named) == predictions["refers"].to_numpy(dtype=bool))


def _names(answer: str, target: str) -> bool:
    """Whether the answer names the target, as T5 decides it: without determiners and capitals, the words of one are all among the other's.

    "Bob" does not name "Bob's hat": where only one has an apostrophe, the two differ. An empty answer names nothing.
    """
    said, meant = ({word for word in text.lower().split() if word not in _DETERMINERS} for text in (answer, target))
    return bool(said and meant) and ("'" in answer) == ("'" in target) and (said <= meant or meant <= said)


_ACCURACY = Measure(_matches, _mean, proportion=True)

SCORINGS: dict[str, dict[str, Measure]] = {
    "accuracy": {"accuracy": _ACCURACY},
    "exact match": {"exact match": _ACCURACY},
    "rouge": {"ROUGE-L": _rouge("rougeL"), "ROUGE-1": _rouge("rouge1"), "ROUGE-2": _rouge("rouge2"), "exact match": _ACCURACY},
    "cb": {"macro-F1": Measure(_class_counts, _macro_f1), "accuracy": _ACCURACY},
    "multirc": {"F1a": Measure(_question_counts, _f1_over_options), "EM": Measure(_questions_without_error, _mean, proportion=True)},
    "record": {
        "F1": Measure(_best_of_answers(_shared_words), _mean),
        "EM": Measure(_best_of_answers(str.__eq__), _mean, proportion=True),
    },
    "wsc": {"accuracy": Measure(_referents, _mean, proportion=True)},
}


# ---- typos


def _swaps(word: str) -> list[str]:
    places = [i for i in range(1, len(word) - 2) if word[i] != word[i + 1]]
    return [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in places]


def _omissions(word: str) -> list[str]:
    return [word[:i] + word[i + 1 :] for i in range(len(word))]


def _doublings(word: str) -> list[str]:
    return [word[: i + 1] + word[i:] for i in range(len(word))]


def _slips(word: str) -> list[str]:
    """The word with one letter, of those that a QWERTY keyboard has, replaced by one of its neighbours, in the same case."""
    return [
        word[:i] + (key.upper() if letter.isupper() else key) + word[i + 1 :]
        for i, letter in enumerate(word)
        for key in _NEIGHBOURING_KEYS.get(letter.lower(), "")
    ]


def _misspelt(word: str, rng: np.random.Generator) -> str:
    kinds = [ways for ways in (_swaps(word), _omissions(word), _doublings(word), _slips(word)) if ways]
    ways = kinds[rng.integers(len(kinds))]
    return ways[rng.integers(len(ways))]


def _neighbouring_keys() -> dict[str, str]:
    rows = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    places = {key: (row, column) for row, keys in enumerate(rows) for column, key in enumerate(keys)}
    around = ((0, -1), (0, 1), (-1, 0), (-1, 1), (1, -1), (1, 0))  # each row stands half a key to the right of the one above it
    at = {place: key for key, place in places.items()}
    return {key: "".join(at.get((row + down, column + right), "") for down, right in around) for key, (row, column) in places.items()}


_NEIGHBOURING_KEYS = _neighbouring_keys()
