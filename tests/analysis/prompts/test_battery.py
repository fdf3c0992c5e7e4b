"""One battery for every test that says something of a prompt: it errs as often as it says, and finds what was planted.

Each test is asked about 1,000 draws that know nothing, of nulls that it is built on and of harder ones that it is not: at 0.05 it may say something of
at most 7 %. The tests of the first version are asked the same questions beside them, and stand here so that everybody sees why they were replaced.
"""

import numpy as np
import pytest

from soft_prompt_explorer.analysis.core.discoveries import q_values
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.words import word_ids
from soft_prompt_explorer.analysis.prompts.directions import WordsTest, task_direction, unit_displacements
from soft_prompt_explorer.analysis.prompts.null import null_of, p_as_word, read_words
from soft_prompt_explorer.analysis.prompts.search import nearest, unit_rows
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from tests.support.first_version import old_verdicts, old_words_p
from tests.support.made_prompts import WORDS, drifted, made_vocabulary, prompt_of
from tests.support.nulls import DIRECTIONS, DRAWS, LEVEL, MOST, Draws, starts, word_sets


@pytest.fixture(scope="module")
def vocabulary(each_vocabulary) -> Vocabulary:
    return each_vocabulary


# --- The words test ---


@pytest.mark.slow
@pytest.mark.parametrize("null", DIRECTIONS)
def test_the_words_test_holds_its_level(vocabulary, words_test, null):
    directions = DIRECTIONS[null](Draws(vocabulary))
    shares = {name: float((words_test.p(directions, ids) <= LEVEL).mean()) for name, ids in word_sets(vocabulary).items()}
    assert max(shares.values()) <= MOST, shares


@pytest.mark.slow
def test_the_words_test_finds_what_was_planted(vocabulary, words_test):
    """Ten tokens whose displacements hold a tenth of the words' direction, the rest noise: in 7 of 10 at least, and of most word sets nearly always.

    In the made-up vocabularies, 64 wide, noise hides so little: there it is three tenths.
    """
    draws = Draws(vocabulary, seed=37)
    share = 0.1 if vocabulary.width > 100 else 0.3
    shares = {}
    for name, ids in word_sets(vocabulary).items():
        planted = unit_rows(words_test.words(ids))
        tokens = unit_rows(np.sqrt(1 - share**2) * draws.like_words(2_000) + share * planted)
        shares[name] = float((words_test.p(tokens.reshape(200, 10, -1).mean(axis=1), ids) <= LEVEL).mean())
    assert min(shares.values()) >= 0.7, shares


@pytest.mark.slow
def test_the_test_of_the_first_version_found_tasks_in_directions_that_know_nothing(embedded_vocabulary):
    draws = Draws(embedded_vocabulary).like_words(60)
    sets = word_sets(embedded_vocabulary)
    shares = {
        name: np.mean([old_words_p(each, sets[name], embedded_vocabulary, 200) <= LEVEL for each in draws])
        for name in ("plural", "antonyms")
    }
    assert min(shares.values()) > 0.12  # four standard errors above 0.05 are 0.16; measured 0.24 and 0.42 over many draws


@pytest.mark.slow
def test_that_test_passed_the_tests_of_its_time_which_were_too_easy(embedded_vocabulary):
    """Three words that have nothing to do with one another, isotropic noise and twenty seeds: nothing in noise, and what was planted in all, as it then was asked.

    Of the same noise, three words that resemble one another, and more draws, it tells more than it may.
    """
    ids = word_ids(embedded_vocabulary, WORDS)
    found = {}
    for planted in (0.0, 0.15):
        prompts = [drifted(embedded_vocabulary, seed, planted=planted) for seed in range(20)]
        directions = [unit_displacements([prompt], embedded_vocabulary).mean(axis=0) for prompt in prompts]
        found[planted] = sum(old_words_p(each, ids, embedded_vocabulary) < LEVEL for each in directions)
    assert found[0.0] <= 1 and found[0.15] >= 19, found
    alike = word_sets(embedded_vocabulary)["antonyms"]
    directions = Draws(embedded_vocabulary).uniform(60)
    assert np.mean([old_words_p(each, alike, embedded_vocabulary, 200) <= LEVEL for each in directions]) > 0.16


@pytest.mark.slow
def test_prompts_of_the_gallery_do_not_point_at_the_words_of_other_tasks(embedded_vocabulary):
    """Of the eight other tasks (formal has no answer words) at most 1 in 20; and told of their twins, whose directions had no part in choosing how the test is built."""
    from soft_prompt_explorer.analysis.adapters import load_soft_prompt
    from soft_prompt_explorer.analysis.prompts.twins import twins_of
    from soft_prompt_explorer.analysis.tasks.shipped import TASKS
    from soft_prompt_explorer.trained_prompts.runs import store

    test, sets = WordsTest(embedded_vocabulary), word_sets(embedded_vocabulary)
    of_prompts, of_twins = [], []
    for run in store.list_runs().query("origin == 'gallery' and method == 'prompt-tuning'").itertuples():
        prompt = load_soft_prompt(store.adapter_path(run.name))
        others = [ids for name, ids in sets.items() if name != TASKS[run.task].name]
        for found, subjects in ((of_prompts, [prompt]), (of_twins, twins_of([prompt]))):
            for subject in subjects:
                mean = unit_displacements([subject], embedded_vocabulary).mean(axis=0)
                found += [test.p(mean, ids)[0] for ids in others]
    assert np.mean(np.array(of_prompts) <= LEVEL) <= 0.05
    assert np.mean(np.array(of_twins) <= LEVEL) <= MOST


# --- A word read from a displacement ---


@pytest.mark.slow
@pytest.mark.parametrize("null", [name for name in DIRECTIONS if name not in ("from word to word", "from words to frequent words")])
@pytest.mark.parametrize("kind", ["words", "random"])
def test_no_word_is_read_from_drift_that_knows_none(vocabulary, null, kind):
    draws = Draws(vocabulary, seed=41)
    begin = starts(vocabulary, draws.rng, kind)
    _, p = read_words(3 * vocabulary.median_norm * DIRECTIONS[null](draws), vocabulary, null_of(vocabulary), but=begin)
    assert (p <= LEVEL).mean() <= MOST


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["words", "random"])
def test_no_word_is_read_from_growth_shrinking_rounding_or_collapse(vocabulary, kind):
    draws, null = Draws(vocabulary, seed=43), null_of(vocabulary)
    begin = starts(vocabulary, draws.rng, kind)
    points = np.repeat(2 * vocabulary.median_norm * draws.uniform(DRAWS // 2), 2, axis=0)  # two tokens meet in each
    ends = {
        "three times as long": 3 * begin,
        "a tenth": 0.1 * begin,
        "longer, and noise": 3 * begin + 0.2 * vocabulary.median_norm * draws.uniform(),
        "16 bits": begin.astype(np.float16).astype(np.float64),
        "all to the mean": np.broadcast_to(vocabulary.mean, begin.shape),
        "two to one random point": points,
        "not moved": begin,
    }
    shares = {}
    for name, end in ends.items():
        _, p = read_words(end - begin, vocabulary, null, but=begin)
        shares[name] = float((p <= LEVEL).mean())
    assert max(shares.values()) <= MOST, shares


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["words", "random"])
def test_half_the_way_to_a_word_is_read_as_that_word(vocabulary, kind):
    draws = Draws(vocabulary, seed=47)
    begin, words = starts(vocabulary, draws.rng, kind), starts(vocabulary, draws.rng, "words")
    ids, p = read_words(0.5 * (words - begin), vocabulary, null_of(vocabulary), but=begin)
    assert ((p <= LEVEL) & (vocabulary.embeddings[ids] == words.astype(np.float32)).all(axis=1)).mean() >= 0.9


@pytest.mark.slow
def test_the_first_version_read_words_from_drift_along_the_mean(embedded_vocabulary):
    draws = Draws(embedded_vocabulary, seed=53)
    begin = starts(embedded_vocabulary, draws.rng, "words")[:200]
    now = begin - 3 * embedded_vocabulary.median_norm * unit_rows(embedded_vocabulary.mean)
    assert old_verdicts(now, begin, embedded_vocabulary).mean() > 0.9
    table = readings(prompt_of(now, begin.astype(np.float32)), embedded_vocabulary)
    assert (table["verdict"] == "moved along a word").mean() <= MOST


# --- A word that a token is near, its start unknown ---


@pytest.mark.slow
def test_with_the_start_unknown_no_word_is_near_what_knows_none(vocabulary):
    """Of 1,000 rows at most 7 % have a p of 0.05, as it is before any correction; and of a hundred prompts of ten such rows at most 7 % have one of which a word is told.

    Of the rows that are all the same, such as zeros, ten are asked: they have one p.
    """
    draws = Draws(vocabulary, seed=59)
    rms = np.sqrt(np.mean(vocabulary.norms**2) / vocabulary.width)
    noise, far = draws.rng.standard_normal((DRAWS, vocabulary.width)), 3 * vocabulary.median_norm
    nulls = {
        "small random starts": 0.02 * noise,
        "random starts": rms * noise,
        "N(μ, Σ)": vocabulary.mean + vocabulary.median_norm * draws.like_words(),
        "N(μ, Σ²)": vocabulary.mean + far * draws.like_words(power=1.0),
        "zeros": np.zeros((10, vocabulary.width)),
        "the mean": np.tile(vocabulary.mean, (10, 1)),
        "along the mean": 3 * vocabulary.mean + 0.1 * rms * noise,
        "along the first principal direction": vocabulary.mean + far * draws.leading(0),
        "along the second": vocabulary.mean + far * draws.leading(1),
        "along the leading six": vocabulary.mean + far * draws.leading_mixed(),
        "from words to frequent words": vocabulary.mean + far * draws.prompts_to_frequent_words(),
    }
    rates, told = {}, {}
    for name, rows in nulls.items():
        p = readings(prompt_of(rows), vocabulary)["p_chance"].to_numpy()
        rates[name] = float((p <= LEVEL).mean())
        told[name] = float(np.mean([q_values(ten).min() < LEVEL for ten in p.reshape(-1, 10)]))
        of_ten = readings(prompt_of(rows[:10]), vocabulary)
        assert (of_ten["p_chance"] == p[:10]).all() and (of_ten["q_chance"] == q_values(p[:10])).all()  # whatever the other rows are
    assert max(rates.values()) <= MOST, rates
    assert max(told.values()) <= MOST, told
    if vocabulary.model == "smollm2-135m":
        assert all(old_verdicts(nulls[name], None, vocabulary).mean() > 0.9 for name in ("small random starts", "zeros"))


@pytest.mark.slow
def test_a_tenth_of_a_word_is_near_no_other_word(vocabulary):
    """Scaled down, a word's centred neighbours are those of minus the mean."""
    rows = 0.1 * starts(vocabulary, np.random.default_rng(61), "words")
    ids, _ = nearest(rows, vocabulary, top_k=1)
    itself = (vocabulary.embeddings[ids[:, 0]] == (10 * rows).astype(np.float32)).all(axis=1)
    p = p_as_word(rows, ids[:, 0], vocabulary, null_of(vocabulary))
    assert ((p <= LEVEL) & ~itself).mean() <= MOST


@pytest.mark.slow
def test_with_the_start_unknown_a_word_and_noise_is_near_that_word(vocabulary):
    draws = Draws(vocabulary, seed=67)
    words = starts(vocabulary, draws.rng, "words")
    noise = np.linalg.norm(words - vocabulary.mean, axis=1, keepdims=True) * draws.uniform()
    found = {}
    for size in (0.5, 1.0):
        now = words + size * noise
        ids, scores = nearest(now, vocabulary, top_k=1)
        p = np.maximum(p_as_word(now, ids[:, 0], vocabulary, null_of(vocabulary)), null_of(vocabulary).p_drawn(scores[:, 0]))
        found[size] = float(((p <= LEVEL) & (vocabulary.embeddings[ids[:, 0]] == words.astype(np.float32)).all(axis=1)).mean())
    assert found[0.5] >= 0.9, found
    # With noise of a word's own length, a third to a half is missed; among hubs in 64 dimensions three quarters are.
    assert found[1.0] >= (0.4 if vocabulary.width > 100 else 0.2), found


def test_special_tokens_are_no_words_to_be_read():
    made = made_vocabulary("isotropic")
    special = np.zeros(len(made), dtype=bool)
    special[7] = True
    vocabulary = Vocabulary.from_embeddings(made.tokens, made.embeddings, special=special, model="with a special token")
    begin = vocabulary.embeddings[100:101].astype(np.float64)
    ids, p = read_words(vocabulary.embeddings[7:8] - begin, vocabulary, null_of(vocabulary), but=begin)
    assert ids[0] != 7 and p[0] > LEVEL


def test_duplicates_of_a_word_are_no_evidence_against_it_and_none_for_it():
    """Rows that stand in the vocabulary twenty times: a drift along them points at no single word."""
    made = made_vocabulary("isotropic")
    rows = made.embeddings.copy()
    rows[200:220] = rows[200]
    vocabulary = Vocabulary.from_embeddings(made.tokens, rows, model="with duplicates")
    begin = rows[10:11].astype(np.float64)
    ids, p = read_words(rows[200:201] - begin, vocabulary, null_of(vocabulary), but=begin)
    assert p[0] > LEVEL
    ids, p = read_words(rows[300:301] - begin, vocabulary, null_of(vocabulary), but=begin)
    assert ids[0] == 300 and p[0] <= LEVEL


@pytest.mark.parametrize("rows", [np.zeros((1, 64)), np.ones((1, 64)), np.full((3, 64), 1e-30)])
def test_odd_vectors_get_an_answer_and_the_same_one_twice(rows):
    vocabulary = made_vocabulary("isotropic")
    first, again = (readings(prompt_of(rows, np.zeros_like(rows, dtype=np.float32)), vocabulary) for _ in range(2))
    assert first.equals(again) and not first["p_learned"].isna().any()
    direction = task_direction([prompt_of(rows, np.full_like(rows, 0.5, dtype=np.float32))], vocabulary, words=["w5", "w6"])
    assert 0 < direction.words_p <= 1
