"""What is searched is exactly what is at hand, and the answer is that of comparing with every token."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.errors import InputError
from analysis.kept import KeptArrays
from analysis.neighbours import unit_rows
from analysis.token_index import COLUMNS, token_index
from tests.analysis.test_readings import made_vocabulary, prompt_of
from tests.conftest import names_in


@pytest.fixture
def vocabulary(tmp_path):
    return replace(made_vocabulary("anisotropic"), cache=tmp_path)


def prompts(count, tokens=10, seed=0):
    rng = np.random.default_rng(seed)
    return [replace(prompt_of(rng.standard_normal((tokens, 64)) + 1), name=f"prompt {i}") for i in range(count)]


def by_hand(vector, given, vocabulary):
    """(score, prompt, position) of every token, the best first."""
    query = vector - vocabulary.mean
    scored = []
    for prompt in given:
        for position, row in enumerate(prompt.embeddings.astype(np.float64) - vocabulary.mean):
            scored.append((row @ query / np.linalg.norm(row) / np.linalg.norm(query), prompt.name, position))
    return sorted(scored, reverse=True)


def agrees(index, given, vocabulary, vector):
    found = index.search(vector, top_k=7)
    expected = by_hand(vector, given, vocabulary)[:7]
    assert list(found.columns) == COLUMNS
    assert list(zip(found["prompt"], found["position"], strict=True)) == [(name, position) for _, name, position in expected]
    assert found["score"].to_numpy() == pytest.approx([score for score, *_ in expected], abs=1e-5)


def test_a_search_finds_what_comparing_with_all_finds(vocabulary):
    given = prompts(12)
    index = token_index(given, vocabulary)
    assert len(index) == 120 and index.exact and index.recall == 1.0
    for vector in (vocabulary.embeddings[17], given[3].embeddings[4]):
        agrees(index, given, vocabulary, vector)
    assert index.search(given[3].embeddings[4]).iloc[0][["prompt", "position"]].tolist() == ["prompt 3", 4]


def test_the_index_follows_the_prompts_that_come_change_and_go(vocabulary):
    given = prompts(6)
    agrees(token_index(given, vocabulary), given, vocabulary, given[2].embeddings[1])
    changed = replace(given[2], embeddings=-given[2].embeddings)
    now = [given[0], changed, *given[4:], *(replace(prompt, name=f"new {prompt.name}") for prompt in prompts(2, tokens=3, seed=1))]
    index = token_index(now, vocabulary)
    assert len(index) == 46
    agrees(index, now, vocabulary, changed.embeddings[1])
    agrees(token_index(now, vocabulary), now, vocabulary, given[2].embeddings[1])


def test_tokens_that_score_the_same_come_in_the_order_of_their_prompts_whatever_was_searched_before(vocabulary):
    twins = [replace(prompt, name=name) for name, prompt in zip("abc", prompts(1) * 3, strict=True)]
    for order in (twins, twins[::-1], [twins[1], twins[0], twins[2]]):
        found = token_index(order, vocabulary).search(twins[0].embeddings[4], top_k=3)
        assert found["prompt"].tolist() == [prompt.name for prompt in order]


def test_beyond_the_limit_the_recall_is_measured_and_updates_go_on(vocabulary):
    given = prompts(40, tokens=100)
    index = token_index(given, vocabulary, exact_up_to=1_000)
    assert not index.exact
    shares = []
    for prompt in given:
        found = index.search(prompt.embeddings[0], top_k=10)
        true = {(name, position) for _, name, position in by_hand(prompt.embeddings[0], given, vocabulary)[:10]}
        shares.append(len(true & set(zip(found["prompt"], found["position"], strict=True))) / 10)
    assert 0.2 < index.recall < 1.0
    assert np.mean(shares) == pytest.approx(index.recall, abs=0.12)
    fewer = token_index(given[:30], vocabulary, exact_up_to=1_000)
    assert len(fewer) == 3_000 and not fewer.exact
    best = fewer.search(given[7].embeddings[3]).iloc[0]
    assert (best["prompt"], best["position"]) == ("prompt 7", 3)
    assert "prompt 35" not in set(fewer.search(given[35].embeddings[0], top_k=50)["prompt"])
    assert token_index(given[:5], vocabulary, exact_up_to=1_000).exact


def test_what_is_in_memory_alone_is_found_and_leaves_no_trace_on_the_disk(vocabulary):
    given = prompts(30, tokens=100)
    opened = replace(prompts(1, tokens=100, seed=7)[0], name="zweifelhaft")
    for everything in ([*given, opened], [opened, *given]):
        for limit in (1_000, 10_000):
            index = token_index(everything, vocabulary, in_memory={"zweifelhaft"}, exact_up_to=limit)
            assert index.exact == (limit == 10_000) and len(index) == 3_100
            best = index.search(opened.embeddings[3]).iloc[0]
            assert (best["prompt"], best["position"]) == ("zweifelhaft", 3)
    assert "token-index.kept" in names_in(vocabulary.cache)
    rows = unit_rows(opened.embeddings.astype(np.float64) - vocabulary.mean).astype(np.float32)
    for path in vocabulary.cache.rglob("*"):
        content = path.read_bytes()
        assert b"zweifelhaft" not in content and not any(row.tobytes() in content for row in rows)
    index = KeptArrays(vocabulary.cache, "token-index", 1).read()["index"].tobytes()
    given_rows = unit_rows(given[0].embeddings.astype(np.float64) - vocabulary.mean).astype(np.float32)
    assert all(row.tobytes() in index for row in given_rows)  # so a row that was kept would be seen


def test_where_nothing_may_be_kept_an_inverted_file_is_built_in_memory(vocabulary):
    given = prompts(20, tokens=100)
    index = token_index(given, vocabulary, in_memory={prompt.name for prompt in given}, exact_up_to=1_000)
    assert not index.exact and len(index) == 2_000
    assert names_in(vocabulary.cache) == ["null.kept"]


def test_chance_is_the_best_that_random_vectors_score_here(vocabulary):
    given = prompts(5)
    index = token_index(given, vocabulary)
    draws = np.array([by_hand(draw, given, vocabulary)[0][0] for draw in np.asarray(null_draws(vocabulary))[:50]])
    assert np.isin(np.round(draws, 4), np.round(index.null, 4)).all()
    itself = index.search(given[0].embeddings[0]).iloc[0]
    assert itself["p_chance"] == pytest.approx(1 / 1001)
    assert index.search(null_draws(vocabulary)[3]).iloc[0]["p_chance"] > 1 / 1001


def null_draws(vocabulary):
    from analysis.null import null_of

    return null_of(vocabulary).draws


def test_nothing_at_hand_and_wrong_widths(vocabulary):
    empty = token_index([], vocabulary)
    assert len(empty) == 0 and empty.search(vocabulary.embeddings[0]).empty
    with pytest.raises(InputError, match="64 wide"):
        token_index(prompts(1), vocabulary).search(np.zeros(3))
    with pytest.raises(InputError, match="32"):
        token_index([prompt_of(np.ones((2, 32)))], vocabulary)
