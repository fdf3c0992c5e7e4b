"""Contextual neighbours against numpy by hand, sentences whose words are known, and prompts that know nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.behaviour import contextual
from soft_prompt_explorer.analysis.behaviour.contextual import (
    COLUMNS,
    Index,
    around,
    contextual_neighbours,
    index_of,
    nearest_states,
    reads,
    sentence,
    shipped_sentences,
)
from soft_prompt_explorer.analysis.behaviour.inside import hidden_states
from soft_prompt_explorer.analysis.behaviour.lens_null import displaced
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary

SENTENCES = [
    "the cat sat on the mat", "the café sat on a new line", "a new line of the text", "the text of the cat", "the mat, the cat, the text", "on the line",
]  # fmt: skip
TRUTH = "The old captain painted his wooden boat bright green last summer."
AROUND_IT = [
    TRUTH, "She bought three apples and a loaf of bread at the market.", "Rain fell on the mountain road all night.", "My brother plays the violin in a small orchestra.",
    "The train to Vienna leaves at seven in the morning.", "Nobody in the village had seen such a storm before.", "A good teacher listens more than she speaks.",
    "They closed the factory and four hundred people lost their work.",
]  # fmt: skip


@pytest.fixture
def vocabulary(llama_folder, own_cache):
    return load_vocabulary(str(llama_folder))


@pytest.fixture
def index(language_model, vocabulary):
    return index_of(language_model, vocabulary, sentences=SENTENCES)


def a_prompt(rows: np.ndarray, initial: np.ndarray | None = None, name: str = "mine") -> SoftPrompt:
    return SoftPrompt(name, np.asarray(rows, dtype=np.float32), initial, None, None, None)


def drawn(vocabulary, seed: int, n: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return vocabulary.embeddings[rng.integers(len(vocabulary), size=n)] + 0.01 * rng.standard_normal((n, vocabulary.width)).astype(
        np.float32
    )


def by_hand(language_model, vocabulary) -> tuple[np.ndarray, list[int]]:
    """The states of all words but the first of each sentence, at most ten of one token, one plain call of transformers a sentence: (layers, m, d)."""
    model, tokenizer = language_model
    states, tokens = [], []
    for text in SENTENCES:
        ids = tokenizer(text).input_ids
        last: list[torch.Tensor] = []
        handle = model.model.norm.register_forward_pre_hook(lambda module, args, last=last: last.append(args[0][0]))
        with torch.no_grad():
            first = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0]
        handle.remove()
        for place in range(1, len(ids)):
            if tokens.count(ids[place]) < contextual.SAME_TOKEN and not vocabulary.special[ids[place]]:
                tokens.append(ids[place])
                states.append(np.stack([first[place].numpy(), last[0][place].numpy()]))
    return np.stack(states, axis=1).astype(np.float64), tokens


def test_the_index_holds_the_states_of_plain_calls_and_is_kept(language_model, vocabulary, index, monkeypatch):
    states, tokens = by_hand(language_model, vocabulary)
    assert index.layers == (1, 2) and index.token_ids.tolist() == tokens
    np.testing.assert_allclose(index.means, states.mean(axis=1), atol=1e-5)
    centred = states - states.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(index.states, centred / np.linalg.norm(centred, axis=2, keepdims=True), atol=1e-3)
    monkeypatch.setattr(contextual, "_looked_at", None)  # a second look would fail
    again = index_of(language_model, vocabulary, sentences=SENTENCES)
    assert np.array_equal(again.states, index.states) and again.key == index.key


def test_another_model_or_other_sentences_have_an_index_of_their_own(language_model, vocabulary, index):
    assert index_of(language_model, vocabulary, sentences=SENTENCES[:-1]).key != index.key
    with torch.no_grad():
        language_model.model.model.layers[1].mlp.up_proj.weight += 0.01
    assert index_of(language_model, vocabulary, sentences=SENTENCES).key != index.key


def test_the_search_is_that_of_numpy_and_ties_go_to_the_first():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1, 300, 24))
    rows[0, 200:] = rows[0, :100]  # each of these twice
    rows = (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype(np.float16)
    index = Index("", (1,), np.zeros((1, 24), np.float32), rows, np.arange(300), np.zeros(1, np.int32), np.zeros((300, 3), np.int32))
    units = index.units(rng.normal(size=(1, 40, 24)))[0]
    states, scores = nearest_states(units, index, 0, 7)
    for unit, found, told in zip(units, states, scores, strict=True):
        cosines = (rows[0].astype(np.float64) * unit).sum(axis=1)
        best = sorted(range(300), key=lambda i, cosines=cosines: (-cosines[i], i))[:7]
        assert found.tolist() == best
        np.testing.assert_allclose(told, cosines[best], rtol=1e-12)


def test_the_table_is_what_numpy_makes_of_the_states(language_model, vocabulary, index):
    rows, start = drawn(vocabulary, 1), drawn(vocabulary, 2)
    table = contextual_neighbours(a_prompt(rows, start), language_model, vocabulary, top_k=3, index=index, draws=20)
    assert list(table.columns) == COLUMNS and len(table) == 4 * 2 * 3
    nearest = []
    for embeddings in (rows, start):
        states = hidden_states(embeddings, language_model.model)[list(index.layers)].numpy() - index.means[:, None]
        nearest.append(np.einsum("lnd,lmd->lnm", states / np.linalg.norm(states, axis=2, keepdims=True), index.states.astype(np.float64)))
    for (position, layer), part in table.groupby(["position", "layer"]):
        at = index.layers.index(layer)
        order = np.argsort(-nearest[0][at, position], kind="stable")[:3]
        assert part["token_id"].tolist() == index.token_ids[order].tolist()
        np.testing.assert_allclose(part["score"], nearest[0][at, position, order], atol=1e-5)
        assert part["echo"].iloc[0] == (index.token_ids[nearest[1][at, position].argmax()] == part["token_id"].iloc[0])
        assert [vocabulary.tokens[i] in context for i, context in zip(part["token_id"], part["context"], strict=True)] == [True] * 3
    assert table.groupby(["position", "layer"])[["p", "q"]].nunique().eq(1).all(axis=None)
    best = table[table["rank"] == 0]
    np.testing.assert_allclose(best["q"], stats.false_discovery_control(best["p"], method="bh"))


def test_p_is_the_rank_among_random_prompts_of_two_kinds(language_model, vocabulary, index):
    prompt = a_prompt(drawn(vocabulary, 1), drawn(vocabulary, 2))
    table = contextual_neighbours(prompt, language_model, vocabulary, top_k=1, index=index, draws=30)
    lengths = np.linalg.norm(prompt.embeddings - prompt.initial, axis=1)
    words = np.random.default_rng(contextual.SEED).choice(len(vocabulary), size=len(vocabulary), replace=False)
    between = vocabulary.embeddings[np.sort(words)] - vocabulary.mean
    shares = []
    for kind, like in enumerate((None, between)):
        best = []
        for rows in displaced(prompt.initial, lengths, 30, np.random.default_rng([contextual.SEED, kind]), like):
            states = hidden_states(rows, language_model.model)[list(index.layers)].numpy() - index.means[:, None]
            cosines = np.einsum("lnd,lmd->lnm", states / np.linalg.norm(states, axis=2, keepdims=True), index.states.astype(np.float64))
            best.append(cosines.max(axis=2).T.ravel())  # by position, then layer, as the table is
        shares.append((1 + (np.array(best) >= table["score"].to_numpy() + 1e-6).sum(axis=0)) / 31)
    np.testing.assert_allclose(table["p"], np.max(shares, axis=0), atol=1.1 / 31)  # one draw of thirty may be as near as rounding
    assert (np.abs(table["p"] - np.max(shares, axis=0)) < 1e-9).mean() > 0.8


def test_random_prompts_read_as_words_as_seldom_as_chance_allows(language_model, vocabulary, index):
    start = drawn(vocabulary, 3)
    lengths = np.full(4, vocabulary.median_norm)
    between = vocabulary.embeddings.astype(np.float64) - vocabulary.mean
    found = 0
    for seed, like in ((5, None), (6, between)):
        for rows in displaced(start, lengths, 20, np.random.default_rng(seed), like):
            table = contextual_neighbours(a_prompt(rows, start), language_model, vocabulary, top_k=1, index=index, draws=200)
            found += (table["q"] < 0.05).any()
    assert found <= stats.binom.ppf(0.99, 40, 0.05)  # 5 %, and its error over 40 prompts


def test_what_never_moved_is_an_echo_and_no_discovery(language_model, vocabulary, index):
    rows = drawn(vocabulary, 1)
    table = contextual_neighbours(a_prompt(rows, rows.copy()), language_model, vocabulary, top_k=1, index=index)
    assert table["echo"].all() and (table["p"] == 1).all() and reads(table).empty
    assert "0 of 4 tokens" in sentence(table)


def test_where_the_start_is_unknown_no_echo_is_told(language_model, vocabulary, index):
    table = contextual_neighbours(a_prompt(drawn(vocabulary, 1)), language_model, vocabulary, top_k=1, index=index, draws=20)
    assert table["echo"].isna().all() and "unknown" in sentence(table)


def test_what_cannot_be_compared_is_refused(language_model, vocabulary, index):
    for prompt, top_k, words in ((a_prompt(np.ones((2, 8))), 1, "8 wide"), (a_prompt(drawn(vocabulary, 1)), 0, "At least one")):
        with pytest.raises(InputError, match=words):
            contextual_neighbours(prompt, language_model, vocabulary, top_k=top_k, index=index)
    with pytest.raises(InputError, match="no word"):
        index_of(language_model, vocabulary, sentences=[""])


def test_what_stands_around_a_word_is_short_and_holds_it():
    rng = np.random.default_rng(0)
    words = ["a", "cat", "sat", "extraordinarily", "upon", "the", "mat,"]
    for _ in range(200):
        text = "".join(f" {words[i]}" for i in rng.integers(len(words), size=rng.integers(1, 30))).split(" ")[1:]
        at = int(rng.integers(len(text)))
        left, right = " ".join(text[:at]), "".join(f" {word}" for word in text[at + 1 :])
        word = f" {text[at]}" if at else text[at]
        told = around(left, word, right)
        assert word in told and len(told) <= contextual.CONTEXT + 3
        assert set(told.replace("…", " ").split()) <= set(words)
    assert around("", "word", "") == "word"


def test_the_sentences_that_ship_are_many_different_and_always_the_same():
    sentences = shipped_sentences()
    assert len(sentences) == len(set(sentences)) > 5_000 and sentences == shipped_sentences()
    assert not any("{input}" in each or each.startswith("Review:") for each in sentences)


def test_options_that_do_not_go_with_it_are_refused_before_a_model_is_loaded(prompt_file, command):
    path = prompt_file(np.ones((2, 576), np.float32))
    for options, named in ((("--metric", "dot"), "--metric"), (("--whole-words", "--script", "Latin"), "--whole-words and --script"), (("--top-k", "0"), "At least one")):  # fmt: skip
        outcome = command("neighbours", path, "--contextual", *options)
        assert (outcome.status, outcome.out) == (2, "") and named in outcome.err and outcome.err.endswith(".\n")


def test_the_command_prints_the_table(prompt_file, llama_folder, own_cache, command, monkeypatch):
    monkeypatch.setattr(contextual, "shipped_sentences", lambda: SENTENCES)
    rows = load_vocabulary(str(llama_folder)).embeddings[[70, 80, 90]]
    outcome = command("neighbours", prompt_file(rows), "--contextual", "--model", llama_folder, "--top-k", 2, "--format", "csv")
    assert outcome.status == 0
    assert outcome.out.splitlines()[0] == ",".join(COLUMNS) and len(outcome.out.splitlines()) == 1 + 3 * 2 * 2
    assert "of 3 tokens read as a word in context" in outcome.err


@pytest.mark.slow
def test_a_sentence_as_a_prompt_is_read_as_its_words_and_is_an_echo_where_it_began_so(embedded_model, embedded_vocabulary, own_cache):
    index = index_of(embedded_model, embedded_vocabulary, sentences=AROUND_IT)
    ids = embedded_model.tokenizer(TRUTH).input_ids
    rows = embedded_vocabulary.embeddings[ids]
    other = embedded_vocabulary.embeddings[embedded_model.tokenizer(" market" * len(ids)).input_ids]
    assert len(other) == len(rows)
    tables = [
        contextual_neighbours(a_prompt(rows, start), embedded_model, embedded_vocabulary, top_k=1, index=index, draws=60)
        for start in (None, other, np.array(rows))
    ]
    for table in tables:
        behind = table[table["position"] > 0]  # the first token is in no index
        assert (behind["token_id"] == np.repeat(ids[1:], 5)).all() and (behind["score"] > 0.999).all()
        assert all(any(word in context for word in TRUTH.split()) for context in behind["context"])
    for table in tables[:2]:
        assert (table[table["position"] > 0]["q"] < 0.05).all()
    assert tables[1][tables[1]["position"] > 0]["echo"].mean() < 0.05 and tables[2]["echo"].all()  # a full stop may be near after any words
    assert tables[0]["echo"].isna().all()


@pytest.mark.slow
def test_a_word_scores_by_what_the_prompt_has_beyond_its_start(embedded_model, embedded_vocabulary, own_cache, monkeypatch):
    from soft_prompt_explorer.trained_prompts.experiments import compared_readings
    from soft_prompt_explorer.trained_prompts.experiments.compared_readings import contextual_words

    monkeypatch.setattr(contextual, "shipped_sentences", lambda: AROUND_IT)
    monkeypatch.setattr(compared_readings, "_indices", {})  # this index is for no other test
    ids = embedded_model.tokenizer(TRUTH).input_ids
    prompt = a_prompt(embedded_vocabulary.embeddings[ids])
    alone = contextual_words(prompt, embedded_vocabulary, embedded_model)
    known = np.unique([token for text in AROUND_IT for token in embedded_model.tokenizer(text).input_ids[1:]])
    assert alone.shape == (len(embedded_vocabulary),) and set(np.flatnonzero(alone > -1)) <= set(known)
    assert set(np.argsort(-alone)[: len(set(ids[1:]))]) == set(ids[1:])
    at_start = contextual_words(replace(prompt, initial=prompt.embeddings), embedded_vocabulary, embedded_model)
    assert (at_start[known] == 0).all()
