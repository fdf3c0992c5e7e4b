"""What is searched is exactly what is at hand, and the answer is that of comparing with every token."""

from dataclasses import replace

import numpy as np
import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.models.words import forms
from soft_prompt_explorer.analysis.prompts.over_prompts import COLUMNS, token_index
from soft_prompt_explorer.analysis.prompts.search import allowed_tokens, unit_rows
from tests.support.made_prompts import made_vocabulary, prompt_of
from tests.support.places import names_in


@pytest.fixture
def vocabulary(tmp_path):
    return replace(made_vocabulary("hub-ridden"), cache=tmp_path)


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
    found = index.nearest(vector, top_k=7)
    expected = by_hand(vector, given, vocabulary)[:7]
    assert list(zip(found["prompt"], found["position"], strict=True)) == [(name, position) for _, name, position in expected]
    assert found["score"].to_numpy() == pytest.approx([score for score, *_ in expected], abs=1e-5)


def test_a_search_finds_what_comparing_with_all_finds(vocabulary):
    given = prompts(12)
    index = token_index(given, vocabulary)
    assert len(index) == 120 and index.exact and index.recall == 1.0
    for vector in (vocabulary.embeddings[17], given[3].embeddings[4]):
        agrees(index, given, vocabulary, vector)
    assert index.nearest(given[3].embeddings[4]).iloc[0][["prompt", "position"]].tolist() == ["prompt 3", 4]


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
        found = index.nearest(prompt.embeddings[0], top_k=10)
        true = {(name, position) for _, name, position in by_hand(prompt.embeddings[0], given, vocabulary)[:10]}
        shares.append(len(true & set(zip(found["prompt"], found["position"], strict=True))) / 10)
    assert 0.2 < index.recall < 1.0
    assert np.mean(shares) == pytest.approx(index.recall, abs=0.12)
    fewer = token_index(given[:30], vocabulary, exact_up_to=1_000)
    assert len(fewer) == 3_000 and not fewer.exact
    best = fewer.nearest(given[7].embeddings[3]).iloc[0]
    assert (best["prompt"], best["position"]) == ("prompt 7", 3)
    assert "prompt 35" not in set(fewer.nearest(given[35].embeddings[0], top_k=50)["prompt"])
    assert token_index(given[:5], vocabulary, exact_up_to=1_000).exact


def test_what_is_in_memory_alone_is_found_and_leaves_no_trace_on_the_disk(vocabulary):
    given = prompts(30, tokens=100)
    opened = replace(prompts(1, tokens=100, seed=7)[0], name="zweifelhaft")
    for everything in ([*given, opened], [opened, *given]):
        for limit in (1_000, 10_000):
            index = token_index(everything, vocabulary, in_memory={"zweifelhaft"}, exact_up_to=limit)
            assert index.exact == (limit == 10_000) and len(index) == 3_100
            best = index.nearest(opened.embeddings[3]).iloc[0]
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
    assert not names_in(vocabulary.cache)


def test_a_score_is_standardised_by_what_words_of_like_frequency_score_with_the_token(vocabulary):
    given = prompts(5)
    index = token_index(given, vocabulary)
    form = 1_234
    found = index.search_word([form], top_k=50)
    assert list(found.columns) == COLUMNS and found["rank"].tolist() == list(range(50)) and found["z"].is_monotonic_decreasing
    assert found["started_there"].isna().all() and (found["form"] == vocabulary.tokens[form]).all()
    cosines = {(name, position): score for score, name, position in by_hand(vocabulary.embeddings[form], given, vocabulary)}
    rows = {(prompt.name, i): row for prompt in given for i, row in enumerate(prompt.embeddings)}
    like = index._like(form).astype(np.float64)
    own = vocabulary.embeddings[form] - vocabulary.mean
    assert not np.isclose(like @ own / np.linalg.norm(own), 1.0).any()  # the word itself is not among them
    half, units = len(like) // 2, {place: (row - vocabulary.mean) / np.linalg.norm(row - vocabulary.mean) for place, row in rows.items()}
    against = {place: like @ unit for place, unit in units.items()}
    z = {place: (cosines[place] - each[:half].mean()) / each[:half].std(ddof=1) for place, each in against.items()}
    chance = np.stack([(each[half:] - each[:half].mean()) / each[:half].std(ddof=1) for each in against.values()])
    for row in found.itertuples():
        place = row.prompt, row.position
        assert row.score == pytest.approx(cosines[place], abs=1e-5) and row.z == pytest.approx(z[place], abs=1e-4)
        assert row.p_chance == pytest.approx((1 + (against[place][half:] >= cosines[place]).sum()) / (1 + len(like) - half), abs=2e-3)
        assert row.q_chance == pytest.approx((1 + (chance.max(axis=0) >= z[place]).sum()) / (1 + len(like) - half), abs=2e-3)


def test_a_hub_is_no_finding_and_a_planted_word_is(vocabulary):
    """A token that resembles every word a little has the highest scores, and comes after one that resembles this word alone."""
    rng = np.random.default_rng(4)
    given = prompts(20)
    rows = vocabulary.embeddings.astype(np.float64)
    principal = np.linalg.svd(rows - vocabulary.mean, full_matrices=False)[2][0]
    noise = rng.standard_normal(64)
    word = rows[700]
    planted = word + 0.7 * np.linalg.norm(word - vocabulary.mean) * noise / np.linalg.norm(noise)
    hub = vocabulary.mean + 5 * principal * np.sign((word - vocabulary.mean) @ principal)
    index = token_index([*given, replace(prompt_of(np.stack([planted, hub])), name="made")], vocabulary)
    first = index.search_word([700]).iloc[0]
    nearest = [index.nearest(rows[form], 1).iloc[0] for form in range(0, len(rows), 50)]
    assert np.mean([(row["prompt"], row["position"]) == ("made", 1) for row in nearest]) > 0.1  # of 202 tokens
    assert (first["prompt"], first["position"]) == ("made", 0) and first["q_chance"] < 0.01
    others = [index.search_word([int(form)], top_k=len(index)) for form in rng.choice(len(rows), 40, replace=False) if form != 700]
    found = [table[table["q_chance"] < 0.05] for table in others]
    assert sum(len(table) > 0 for table in found) <= 5
    assert sum(((table["prompt"] == "made") & (table["position"] == 1)).any() for table in found) <= 3


def test_of_two_forms_each_row_names_the_nearer_and_an_echo_is_told(vocabulary):
    start = vocabulary.embeddings[[40, 41]].astype(np.float64)
    noise = np.random.default_rng(2).standard_normal(start.shape)
    echo = replace(
        prompt_of(start + 0.3 * noise * np.linalg.norm(start, axis=1, keepdims=True) / 8), initial=start.astype(np.float32), name="echo"
    )
    index = token_index([*prompts(6), echo], vocabulary)
    found = index.search_word([40, 41], top_k=2)
    assert dict(zip(found["position"], found["form"], strict=True)) == {0: vocabulary.tokens[40], 1: vocabulary.tokens[41]}
    assert found["started_there"].tolist() == [True, True] and (found["q_chance"] < 0.05).all()
    alone = index.search_word([40], top_k=len(index)).set_index(["prompt", "position"])
    assert alone.loc[("echo", 1), "started_there"] is np.False_ or not alone.loc[("echo", 1), "started_there"]
    both = index.search_word([40, 41], top_k=len(index)).set_index(["prompt", "position"])
    assert both.loc[("echo", 0), "q_chance"] == pytest.approx(min(1.0, 2 * alone.loc[("echo", 0), "q_chance"]))


def test_a_token_s_own_likeness_is_compared_with_vectors_like_the_tokens_at_hand(vocabulary):
    """All tokens share a direction, as trained ones do: that makes none of them alike; the same start does."""
    rng = np.random.default_rng(6)
    shared = 3 * rng.standard_normal(64)
    given = [replace(prompt_of(rng.standard_normal((10, 64)) + shared), name=f"prompt {i}") for i in range(20)]
    twin = given[0].embeddings[3] + 0.3 * rng.standard_normal(64)
    index = token_index([*given, replace(prompt_of(twin[None]), name="twin")], vocabulary)
    found = index.search(given[0].embeddings[3], 5, itself=("prompt 0", 3))
    assert found.iloc[0]["prompt"] == "twin" and found.iloc[0]["q_chance"] < 0.01 and (found["form"] == "").all()
    assert ("prompt 0", 3) not in set(zip(found["prompt"], found["position"], strict=True))
    alike = [(index.search(prompt.embeddings[5], len(index), itself=(prompt.name, 5))["q_chance"] < 0.05).any() for prompt in given[1:]]
    assert sum(alike) <= 3


def test_of_very_many_tokens_a_sample_is_compared(vocabulary, monkeypatch):
    planted = replace(prompt_of(vocabulary.embeddings[[99]] + 0.1 * np.random.default_rng(3).standard_normal((1, 64))), name="planted")
    index = token_index([*prompts(30), planted], vocabulary)
    whole = index.search_word([99], 5).iloc[0]
    monkeypatch.setattr("soft_prompt_explorer.analysis.prompts.over_prompts.COMPARED", 100)
    sampled = index.search_word([99], 5).iloc[0]
    assert sampled["prompt"] == whole["prompt"] == "planted" and sampled["score"] == pytest.approx(whole["score"], abs=1e-5)
    assert whole["q_chance"] < 0.01 and sampled["q_chance"] < 0.05
    others = [index.search_word([form], 1).iloc[0]["q_chance"] for form in range(200, 220)]
    assert sum(q < 0.05 for q in others) <= 3


@pytest.mark.slow
def test_on_the_gallery_a_word_drawn_at_random_is_seldom_found(embedded_vocabulary):
    """Of 1,000 whole words of every frequency that no token started from at most 7 %; the tokens that started from a word are found, and words that found everything find nothing."""
    given = [
        load_soft_prompt(folder)
        for folder in sorted(GALLERY.iterdir())
        if "words" in folder.name or "text" in folder.name or "readable" in folder.name
    ]
    index = token_index(given, replace(embedded_vocabulary, cache=None))
    tokens, started = embedded_vocabulary.tokens, {start for start in index.starts.values() if start >= 0}
    letters = {tokens[start].strip().casefold() for start in started}
    whole = np.flatnonzero(allowed_tokens(embedded_vocabulary, whole_words=True))
    drawn = [i for i in np.random.default_rng(0).permutation(whole) if tokens[i].strip().casefold() not in letters][:1_000]
    best = [index.search_word(forms(embedded_vocabulary, tokens[i]), 1)["q_chance"].min() for i in drawn]
    assert len(best) == 1_000 and np.mean(np.array(best) < 0.05) <= 0.07
    for word in ("table", "river", "seven"):
        assert (index.search_word(forms(embedded_vocabulary, word))["q_chance"] >= 0.05).all()
    for word in ("positive", "organ"):
        tables = [index.search_word(forms(embedded_vocabulary, typed), 20) for typed in (word, f" {word}", f" {word} ")]
        assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])
        beyond = tables[0][tables[0]["q_chance"] < 0.05]
        assert len(beyond) and beyond["started_there"].any()


def test_nothing_at_hand_and_wrong_widths(vocabulary):
    empty = token_index([], vocabulary)
    assert len(empty) == 0 and empty.search(vocabulary.embeddings[0]).empty and empty.search_word([5, 6]).empty
    assert empty.nearest(vocabulary.embeddings[0]).empty
    with pytest.raises(InputError, match="64 wide"):
        token_index(prompts(1), vocabulary).search(np.zeros(3))
    with pytest.raises(InputError, match="32"):
        token_index([prompt_of(np.ones((2, 32)))], vocabulary)
