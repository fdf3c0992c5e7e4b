"""What is called learned was planted, what is called an echo is one, and chance is called chance."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from scipy.stats import false_discovery_control, kstest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.prompts.null import normal_draws, null_of, p_values, tightness, uniform_draws
from soft_prompt_explorer.analysis.prompts.starts import recover_initial
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from tests.support.made_prompts import made_vocabulary, prompt_of
from tests.support.places import EMBEDDED


def noise_like(rows, size, rng):
    """Noise whose length is `size` times that of each row."""
    noise = rng.standard_normal(rows.shape)
    return size * noise * np.linalg.norm(rows, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)


def words(vocabulary, count, rng):
    """Rows of whole length: a row near the mean is no word that noise of half its length could leave readable."""
    usual = np.flatnonzero(vocabulary.centred_norms > 0.5 * np.median(vocabulary.centred_norms))
    return vocabulary.embeddings[rng.choice(usual, count, replace=False)].astype(np.float64)


# --- Planted truth, through the command line, on three vocabularies ---


@pytest.fixture(params=[EMBEDDED, "isotropic", "hub-ridden"])
def model(request, tmp_path):
    """What --model is given, and the vocabulary that it stands for: the embedded one, or a folder of a made-up one."""
    if request.param == EMBEDDED:
        return EMBEDDED, request.getfixturevalue("embedded_vocabulary")
    request.getfixturevalue("own_cache")
    made = made_vocabulary(request.param)
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(len(made))}, unk_token="w0"))
    folder = tmp_path / request.param
    folder.mkdir()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": made.width}))
    save_file({"model.embed_tokens.weight": made.embeddings}, folder / "model.safetensors")
    return folder, made


@pytest.fixture
def verdicts(command, prompt_file, model):
    """`readings` of these rows on the command line: the verdict of each token."""

    def read(rows, initial=None) -> pd.Series:
        start = [] if initial is None else ["--initial", prompt_file(np.asarray(initial, np.float32), "start")]
        outcome = command("readings", prompt_file(np.asarray(rows, np.float32)), "--model", model[0], "--format", "json", *start)
        assert outcome.status == 0, outcome.err
        return pd.DataFrame(json.loads(outcome.out))["verdict"]

    return read


@pytest.mark.slow
def test_of_500_unreadable_tokens_few_are_called_learned(verdicts, model):
    start, now = (normal_draws(model[1], 500, seed=seed) for seed in (7, 8))
    assert verdicts(now, start).isin(["moved along a word"]).mean() <= 0.05
    assert verdicts(now).isin(["near a word"]).mean() <= 0.05


@pytest.mark.slow
def test_of_500_planted_words_nearly_all_are_found(verdicts, model):
    rng = np.random.default_rng(9)
    planted = words(model[1], 500, rng)
    now = planted + noise_like(planted - model[1].mean, 0.5, rng)
    assert (verdicts(now, normal_draws(model[1], 500, seed=10)) == "moved along a word").mean() >= 0.95
    assert (verdicts(now) == "near a word").mean() >= 0.95


@pytest.mark.slow
def test_of_500_vocabulary_rows_that_drifted_a_little_nearly_all_are_called_echo(verdicts, model):
    rng = np.random.default_rng(11)
    rows = words(model[1], 500, rng)
    now = rows + noise_like(rows - model[1].mean, 0.3, rng)
    first, again = verdicts(now, rows), verdicts(now, rows)
    assert (first == "echo").mean() >= 0.95
    assert first.equals(again)


@pytest.mark.slow
def test_p_values_of_null_draws_are_uniform(embedded_vocabulary):
    from soft_prompt_explorer.analysis.prompts.search import nearest

    null = null_of(embedded_vocabulary)
    for draws, kept in (
        (normal_draws(embedded_vocabulary, 400, seed=12), null.drawn),
        (uniform_draws(embedded_vocabulary, 400, seed=13), null.uniform),
    ):
        _, scores = nearest(draws, embedded_vocabulary, top_k=1)
        assert kstest(p_values(kept, scores[:, 0]), "uniform").pvalue > 0.01


def test_a_p_value_counts_the_draws_that_score_as_high():
    assert p_values(np.array([0.1, 0.2, 0.2, 0.4]), np.array([0.0, 0.2, 0.3, 0.9])).tolist() == [1.0, 0.8, 0.4, 0.2]


def test_draws_have_the_vocabularys_mean_and_covariance():
    vocabulary = made_vocabulary("hub-ridden")
    draws = normal_draws(vocabulary, 20_000, seed=3)
    rows = vocabulary.embeddings.astype(np.float64)
    assert np.allclose(draws.mean(axis=0), rows.mean(axis=0), atol=0.15)
    expected = np.cov(rows.T, bias=True)
    assert np.linalg.norm(np.cov(draws.T) - expected) < 0.05 * np.linalg.norm(expected)


def test_tightness_is_the_mean_cosine_of_all_pairs():
    vocabulary = made_vocabulary("isotropic")
    ids = np.array([[3, 5, 9], [1, 2, 4]])
    for row, value in zip(ids, tightness(ids, vocabulary), strict=True):
        centred = vocabulary.embeddings[row] - vocabulary.mean
        units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        assert value == pytest.approx(np.mean([units[i] @ units[j] for i in range(3) for j in range(3) if i != j]), abs=1e-6)


def test_the_table_follows_from_its_definitions():
    vocabulary = made_vocabulary("isotropic")
    rng = np.random.default_rng(2)
    start = vocabulary.embeddings[:4].copy()
    now = np.stack(
        [start[0] * 1.05, vocabulary.embeddings[100], start[2] + 5 * (vocabulary.embeddings[200] - vocabulary.mean), rng.normal(size=64)]
    )
    table = readings(prompt_of(now, start), vocabulary)
    assert table["nearest_token"].tolist()[:3] == [" w0", " w100", " w200"]
    assert table["echo"].tolist()[:3] == [True, False, False]
    assert table["delta_token"][2] == " w200"
    assert table["p_learned"][2] == pytest.approx(1 / 1001)
    assert np.allclose(table["drift"], np.linalg.norm(now - start, axis=1), rtol=1e-5)
    assert np.allclose(table["q_chance"], false_discovery_control(table["p_chance"]))
    assert table["verdict"].tolist() == ["echo", "moved along a word", "moved along a word", "unreadable"]


def test_a_token_that_grew_along_its_own_word_is_still_an_echo():
    vocabulary = made_vocabulary("isotropic")
    rows = vocabulary.embeddings[:3]
    table = readings(prompt_of(3 * rows, rows), vocabulary)
    assert (table["delta_token"] == table["initial_token"]).all()
    assert table["verdict"].tolist() == ["echo"] * 3


def test_recovered_initial_values_are_the_rows_and_what_rests_on_them_says_so():
    vocabulary = made_vocabulary("isotropic")
    rng = np.random.default_rng(4)
    rows = vocabulary.embeddings[10:20].astype(np.float64)
    prompt = prompt_of(rows + noise_like(rows, 0.2, rng))
    recovered = recover_initial(prompt, vocabulary)
    assert np.array_equal(recovered.initial, vocabulary.embeddings[10:20])
    assert set(readings(recovered, vocabulary)["verdict"]) == {"echo (recovered)"}
    with pytest.raises(InputError, match="cannot be recovered"):
        recover_initial(replace(prompt, embeddings=rng.normal(size=(10, 64)).astype(np.float32)), vocabulary)
