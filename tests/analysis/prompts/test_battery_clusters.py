"""One battery for clusters and likeness: of sets in which there is nothing, next to none is told as found, and what was planted is.

`python -m tests.benchmarks.clusters` runs the same with more sets, beside the test as it was before.
"""

from typing import get_args

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.prompts.clusters import Method, find_clusters, is_echo, is_real, may_be_echo
from soft_prompt_explorer.analysis.prompts.likeness import remarkable, similarity
from tests.support.cluster_sets import KINDS, alike_pair, found_now, planted, prompts_of, was_found
from tests.support.places import EMBEDDED, REPOSITORY

pytestmark = pytest.mark.slow
METHODS = get_args(Method)
TOGETHER = ("copies, words", "special")  # these do lie together: nothing can be said against it where their start is unknown


@pytest.fixture(scope="module")
def vocabulary(each_vocabulary):
    return each_vocabulary


@pytest.mark.parametrize(("space", "known"), [("position", True), ("position", False), ("displacement", True)])
def test_of_what_knows_nothing_next_to_no_cluster_is_believed(vocabulary, space, known):
    """One set of each of fifteen kinds, by each method in turn: at most one in which a cluster is real and no echo; starts unknown, in which one is real at all."""
    told = []
    for i, kind in enumerate(KINDS):
        method = METHODS[(i + len(space) + known) % 3]
        rng = np.random.default_rng([i, len(space), known])
        prompts = prompts_of(kind, vocabulary, rng, known=known, count=3 + i % 4)
        found = find_clusters(prompts, vocabulary, method=method, space=space).clusters
        assert known or may_be_echo(found).all()
        believed = is_real(found) & (~is_echo(found) | (not known))
        if believed.any() and (known or kind not in TOGETHER):
            told.append((kind, method))
    assert len(told) <= 1, told


@pytest.mark.parametrize(
    ("base", "size", "cosine", "least"), [("noise", 20, 0.5, 5), ("noise", 10, 0.3, 5), ("normal", 20, 0.5, 4), ("words", 20, 0.5, 2)]
)
def test_what_was_planted_is_found_and_amid_noise_no_less_often_than_before(embedded_vocabulary, base, size, cosine, least):
    now = before = 0
    for seed in range(6):
        prompt = planted(base, size, cosine, embedded_vocabulary, np.random.default_rng([seed, size]))
        now += found_now(prompt, embedded_vocabulary, size)
        before += was_found(prompt, embedded_vocabulary, size)
    assert now >= least
    assert now >= before or base == "words"  # amid words the old test told of anything


LIKENESS = [
    "untrained, words",
    "untrained, random",
    "untrained, both",
    "normal",
    "drift 0, words",
    "drift 1, random",
    "growth, words",
    "trained, both",
]


@pytest.mark.parametrize("known", [True, False])
def test_unrelated_prompts_are_seldom_beyond_196(vocabulary, known):
    """Six prompts of each kind, fifteen pairs: both sides together at most 7 %, over all kinds, and no set has a pair beyond what its pairs allow."""
    beyond, sets = [], 0
    for i, kind in enumerate(LIKENESS):
        z = similarity(prompts_of(kind, vocabulary, np.random.default_rng([i, 77]), known=known, count=6), vocabulary)["z"].to_numpy()
        beyond.append(np.abs(z) > 1.96)
        sets += bool((z > remarkable(len(z))).any())
    assert np.mean(beyond) <= 0.07
    assert sets <= 1


def test_trained_prompts_of_other_tasks_and_other_starts_are_no_more_alike_than_their_recipe():
    """Three tasks by three starts."""
    from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary

    gallery = REPOSITORY / "trained_prompts" / "gallery"
    names = [f"{task}-{start}" for task in ("antonyms", "plural", "sentiment") for start in ("words-1", "words-2", "random-3")]
    table = similarity([load_soft_prompt(gallery / name) for name in names], load_vocabulary(EMBEDDED))
    task, start = ([[name.split("-", 1)[part] for name in table[side]] for side in ("prompt_a", "prompt_b")] for part in (0, 1))
    apart = np.not_equal(*task) & np.not_equal(*start)
    assert apart.sum() == 18
    assert (np.abs(table["z"][apart]) > 1.96).mean() <= 0.07
    assert (table["against"] == "starts").all()


@pytest.mark.parametrize("start", ["words", "random"])
def test_prompts_that_share_tokens_or_a_direction_are_found(embedded_vocabulary, start):
    for what, strength in (("tokens", 3), ("direction", 0.6)):
        z = [
            similarity(alike_pair(what, strength, embedded_vocabulary, np.random.default_rng(seed), start=start), embedded_vocabulary)["z"][
                0
            ]
            for seed in range(5)
        ]
        assert (np.array(z) > 1.96).sum() >= 4, (what, z)
