"""The battery goes on: what tokens share, what a prompt says beyond its twin, and p-values that are no smaller than chance makes them at any level.

As in `test_battery.py`, each is asked about 1,000 draws that know nothing on each of three vocabularies, and at 0.05 may say something of at most 7 %.
"""

from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.directions import WordsTest, points_beyond_twins, task_direction
from soft_prompt_explorer.analysis.prompts.null import null_of, p_values, read_words
from soft_prompt_explorer.analysis.prompts.search import unit_rows
from soft_prompt_explorer.analysis.prompts.twins import twins_of
from tests.support.made_prompts import prompt_of
from tests.support.nulls import DIRECTIONS, DRAWS, LEVEL, MOST, Draws, few_words_of, starts, word_sets

pytestmark = pytest.mark.slow
OWN = ("uniform", "N(0, Σ)")  # the draws that the tests themselves compare with


@pytest.fixture(scope="module")
def vocabulary(each_vocabulary) -> Vocabulary:
    return each_vocabulary


# --- What tokens share ---


def concentration_p(tokens: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Of prompts whose tokens moved so, (prompts, tokens, d). A few words stand for the vocabulary: concentration asks none of them."""
    few, start = few_words_of(vocabulary), np.zeros(tokens.shape[1:], dtype=np.float32)
    return np.array([task_direction([prompt_of(each, start)], few).concentration_p for each in tokens])


@pytest.mark.parametrize("null", [name for name in DIRECTIONS if name != "from words to frequent words"])
def test_tokens_that_moved_each_for_itself_share_no_direction(vocabulary, null):
    """1,000 prompts of ten tokens, each of which went its own way, as far as it liked. Those that go to frequent words do have a way in common."""
    draws = Draws(vocabulary, seed=73)
    tokens = np.stack([DIRECTIONS[null](draws) for _ in range(10)], axis=1) * draws.rng.uniform(0.1, 10, (DRAWS, 10, 1))
    assert (concentration_p(tokens, vocabulary) <= LEVEL).mean() <= MOST


def test_what_moved_together_is_found_whether_or_not_it_knows_a_word(vocabulary):
    """A shared direction of half a token's own: it says how a prompt was trained, and nothing of words."""
    draws = Draws(vocabulary, seed=79)
    tokens = draws.uniform(2_000).reshape(200, 10, -1) + 0.5 * draws.uniform(200)[:, None]
    assert (concentration_p(tokens, vocabulary) <= LEVEL).mean() >= (0.9 if vocabulary.width > 100 else 0.6)


# --- What a prompt says beyond its twin ---


def beyond(test: WordsTest, ids: np.ndarray, mine: np.ndarray, twins: np.ndarray) -> tuple[float, float]:
    """Of pairs of a direction and its one twin's, (n, d) both: the shares of which `beyond_twin_p` is at most 0.05, and which are told to point beyond the twin."""
    words_p, twin_p = test.p(mine, ids), test.p(twins, ids)
    beyond_p = test.p(mine - twins, ids)
    told = [
        points_beyond_twins(SimpleNamespace(twins=1, words_p=p, twin_words_p=twin, beyond_twin_p=left))
        for p, twin, left in zip(words_p, twin_p, beyond_p, strict=True)
    ]
    return float((beyond_p <= LEVEL).mean()), float(np.mean(told))


def pairs(vocabulary: Vocabulary, null: str, shared: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """1,000 pairs of twins' directions, each of length 1 and its own, and what they share added to both."""
    return unit_rows(DIRECTIONS[null](Draws(vocabulary, seed=83))) + shared, unit_rows(
        DIRECTIONS[null](Draws(vocabulary, seed=89))
    ) + shared


@pytest.mark.parametrize("null", DIRECTIONS)
def test_of_twins_that_know_nothing_none_points_beyond_the_other(vocabulary, words_test, null):
    """Twins that have nothing in common, and twins that went the same way, which has nothing to do with words."""
    found = {}
    for name, ids in word_sets(vocabulary).items():
        found[name, "apart"] = beyond(words_test, ids, *pairs(vocabulary, null))
        same = 1.5 * unit_rows(DIRECTIONS[null](Draws(vocabulary, seed=97)))
        found[name, "the same way"] = beyond(words_test, ids, *pairs(vocabulary, null, same))
    assert max(max(each) for each in found.values()) <= MOST, found


def format_only(vocabulary: Vocabulary, test: WordsTest, strength: float) -> dict[tuple[str, str], tuple[float, float]]:
    """Twins that both went towards the words, as the form of an answer: what `beyond` says of them."""
    return {
        (null, name): beyond(test, ids, *pairs(vocabulary, null, strength * unit_rows(test.words(ids))))
        for null in OWN
        for name, ids in word_sets(vocabulary).items()
    }


def test_of_twins_that_clearly_point_at_the_words_both_none_points_beyond_the_other(vocabulary, words_test):
    found = format_only(vocabulary, words_test, 2.0)
    assert max(max(each) for each in found.values()) <= MOST, found


def test_of_twins_that_point_at_the_words_faintly_none_points_beyond_the_other(vocabulary, words_test):
    """The strengths are those at which the words of one or another task are found about half of the time, so that often one of two is found and the other missed."""
    for strength in (0.1, 0.15, 0.3, 0.5):
        found = format_only(vocabulary, words_test, strength)
        assert max(told for _, told in found.values()) <= MOST, found


def test_a_made_pair_is_judged_as_a_prompt_and_its_twin_are(vocabulary, words_test):
    """So that what stands above is told of `task_direction` too."""
    mine, twins = pairs(vocabulary, "N(0, Σ)", 0.3 * unit_rows(words_test.words(np.array([500, 700]))))
    start = np.zeros((3, vocabulary.width), dtype=np.float32)
    for one, other in zip(mine[:5], twins[:5], strict=True):
        prompt, twin = (prompt_of(np.tile(each, (3, 1)), start) for each in (one, other))
        found = task_direction([prompt], vocabulary, words=[vocabulary.tokens[500], vocabulary.tokens[700]], twins=[twin])
        directly = [words_test.p(each, found.word_ids)[0] for each in (one, other, unit_rows(one[None])[0] - unit_rows(other[None])[0])]
        assert [found.words_p, found.twin_words_p, found.beyond_twin_p] == pytest.approx(directly, abs=0.003)


def test_of_shipped_twins_that_are_compared_with_each_other_none_points_beyond_the_other(embedded_vocabulary):
    """Both were trained on shuffled answers, so neither knows its task: twenty pairs, on the words of their own task."""
    from soft_prompt_explorer.analysis.tasks.shipped import TASKS
    from soft_prompt_explorer.trained_prompts.runs import store

    found = []
    for run in store.list_runs().query("origin == 'gallery' and method == 'prompt-tuning'").itertuples():
        words = TASKS[run.task].answer_words()[:1_000]
        for one, other in permutations(twins_of([load_soft_prompt(store.adapter_path(run.name))]), 2):
            found.append(task_direction([one], embedded_vocabulary, words=words, twins=[other]))
    pointing = [each for each in found if each.words_p < LEVEL]
    assert (len(found), len(pointing)) == (20, 8)
    assert sum(each.beyond_twin_p < LEVEL for each in found) <= 2
    assert not any(points_beyond_twins(each) for each in found)


# --- At every level, and not at 0.05 alone ---


def above(p: np.ndarray) -> float:
    """By how much more p-values are below any level than that level allows, at most (Kolmogorov and Smirnov, one-sided)."""
    p = np.sort(p)
    return float((np.searchsorted(p, p, side="right") / len(p) - p).max())


def apart(p: np.ndarray) -> float:
    """The same, two-sided: how far p-values are from uniform."""
    return max(above(p), above(1 - p + 1 / (1 + DRAWS)))


def allowed(tests: int, *, sides: int) -> float:
    """What `above` or `apart` reach once in twenty times in any of so many tests, of 1,000 uniform p-values from 1,000 draws each (Bonferroni)."""
    return float(np.sqrt(-np.log(LEVEL / (sides * tests)) / 2) * np.sqrt(2 / DRAWS))


@pytest.mark.parametrize("null", OWN)
def test_p_of_words_is_at_no_level_smaller_than_chance_makes_it(vocabulary, words_test, null):
    """And each of its four parts is uniform against draws of its own kind; the largest of them, which is told, is larger than that."""
    directions, sets = DIRECTIONS[null](Draws(vocabulary, seed=101)), word_sets(vocabulary)
    found = {name: above(words_test.p(directions, ids)) for name, ids in sets.items()}
    assert max(found.values()) <= allowed(len(sets), sides=1), found
    own = OWN.index(null) == 0  # of the two draws of a part, N(0, Σ) comes first
    parts = {
        (name, number): apart(p_values(np.sort(nulls[own] @ test_words), unit_rows(view(directions)) @ test_words))
        for name, ids in sets.items()
        for test_words in [words_test.words(ids)]
        for number, (view, nulls) in enumerate(zip(words_test._views, words_test._null_units, strict=True))
    }
    assert max(parts.values()) <= allowed(len(parts), sides=2), parts


@pytest.mark.parametrize("kind", ["words", "random"])
@pytest.mark.parametrize("null", OWN)
def test_p_of_a_word_read_is_at_no_level_smaller_than_chance_makes_it(vocabulary, null, kind):
    """Against the draws from N(0, Σ), which stand out the most, it is uniform. Twelve such questions are asked, six of them two-sided, of three vocabularies."""
    draws = Draws(vocabulary, seed=103)
    begin = starts(vocabulary, draws.rng, kind)
    _, p = read_words(3 * vocabulary.median_norm * DIRECTIONS[null](draws), vocabulary, null_of(vocabulary), but=begin)
    assert above(p) <= allowed(12, sides=1)
    if null == "N(0, Σ)":
        assert apart(p) <= allowed(6, sides=2)
