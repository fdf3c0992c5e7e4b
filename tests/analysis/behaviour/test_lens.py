"""The difference lens and the effect against plain transformers, numpy by hand, and adapters that know nothing."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file
from scipy import stats

from soft_prompt_explorer.analysis.adapters import load_adapter, load_lora, load_soft_prompt
from soft_prompt_explorer.analysis.behaviour import others
from soft_prompt_explorer.analysis.behaviour.beyond_chance import (
    AS_CHANCE,
    NOTHING,
    effect,
    is_beyond_chance,
    junit_report,
    ratio_interval,
    sentence,
)
from soft_prompt_explorer.analysis.behaviour.difference_lens import COLUMNS, lens, output_rows, pushed
from soft_prompt_explorer.analysis.behaviour.lens_null import kept_of, look
from soft_prompt_explorer.analysis.behaviour.unrelated import TEXTS, Watch, evenly_spaced, factors_in, factors_of
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.lens_commands import NO_EFFECT
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import load_model
from tests.support.places import EMBEDDED

TWO = ("Input: table\nOutput:", "She put the blue cup on the table.")  # one read at its end, one all along


@pytest.fixture(scope="module")
def language_model():
    """The embedded one, not the tiny one."""
    return load_model(EMBEDDED, device="cpu")


@pytest.fixture(scope="module")
def vocabulary():
    return load_vocabulary(EMBEDDED)


@pytest.fixture(scope="module")
def watch(language_model):
    return Watch(language_model, TWO)


def plainly(language_model, rows: np.ndarray | None, text: str):
    """The last hidden states of a text and its log-probabilities, behind these rows: one plain call of transformers, no cache."""
    model, tokenizer = language_model
    embedded = model.get_input_embeddings()(torch.tensor(tokenizer(text).input_ids))
    if rows is not None:
        embedded = torch.cat([torch.tensor(rows), embedded])
    with torch.inference_mode():
        output = model(inputs_embeds=embedded[None], output_hidden_states=True, use_cache=False)
    behind = 0 if rows is None else len(rows)
    return output.hidden_states[-1][0, behind:], output.logits[0, behind:].log_softmax(-1)


@pytest.mark.slow
def test_states_changes_and_divergences_are_those_of_plain_transformers_calls(language_model, watch):
    prompt = load_soft_prompt(GALLERY / "plural-words-1")
    seen, start = watch.of_rows(np.stack([prompt.embeddings, prompt.initial]))
    for i, (text, read) in enumerate(zip(TWO, (slice(-1, None), slice(None)), strict=True)):
        states, log_p = plainly(language_model, prompt.embeddings, text)
        states_of_start, log_q = plainly(language_model, prompt.initial, text)
        change = (states[read].mean(0) - states_of_start[read].mean(0)).numpy()
        assert np.abs((seen.states - start.states)[i, -1] - change).max() < 1e-3
        divergence = (log_p[read].exp() * (log_p[read] - log_q[read])).sum(-1).mean()
        assert watch.divergences(seen, start)[i] == pytest.approx(float(divergence), abs=1e-3)


@pytest.mark.slow
def test_scores_are_the_change_through_the_output_layer(language_model, watch, vocabulary):
    prompt = load_soft_prompt(GALLERY / "plural-words-1")
    table = lens([prompt], watch, vocabulary, paths=["a"], top_k=5, draws=4)
    changes, likely = [], []
    for text in TWO:
        read = slice(-1, None) if text.endswith(":") else slice(None)
        states, states_of_start = (plainly(language_model, rows, text)[0][read] for rows in (prompt.embeddings, prompt.initial))
        changes.append((states.mean(0) - states_of_start.mean(0)).numpy())
        likely.append(plainly(language_model, prompt.initial, text)[1][read].exp().numpy())
    output = language_model.model.get_output_embeddings().weight.numpy()
    logits = output @ np.mean(changes, axis=0)
    scores = (logits - np.concatenate(likely).mean(0) @ logits)[table["token_id"]]
    assert list(table.columns) == COLUMNS
    assert np.abs(table["score"] - scores).max() < 1e-3
    assert table["against"].unique().tolist() == ["start"] and table["layer"].unique().tolist() == [30]
    assert (np.diff(table["z"]) <= 0).all()


@pytest.mark.slow
def test_a_twin_is_told_beside_the_same_null_adapters(language_model, watch, vocabulary, tmp_path):
    """A twin that is the prompt itself is pushed just as far; one that never moved, nowhere."""
    folder = shutil.copytree(GALLERY / "plural-words-1", tmp_path / "plural-words-1", ignore=shutil.ignore_patterns("twin-*"))
    prompt = load_soft_prompt(folder)
    assert lens([prompt], watch, vocabulary, top_k=5, draws=4)["twin_z"].isna().all()

    def twin(rows: np.ndarray) -> None:
        save_file({"embeddings": rows}, folder / "twin-1.safetensors", metadata={"made": json.dumps({"config": {"shuffled": 1}})})

    twin(prompt.embeddings)
    same = lens([prompt], watch, vocabulary, top_k=5, draws=4)
    assert np.abs(same["twin_z"] - same["z"]).max() < 1e-4 and (same["twin_p"] <= same["q"]).all()
    twin(prompt.initial)
    looked = look(prompt, watch, vocabulary, draws=4)
    output = language_model.model.get_output_embeddings().weight.numpy() - looked.common
    null = looked.null_changes[:, :, -1].astype(np.float64) @ output[same["token_id"]].T.astype(np.float64)  # (kinds, draws, words)
    still = (-null.mean(1) / (null.std(1, ddof=1) * np.sqrt(1 + 1 / 4))).min(0)
    assert lens([prompt], watch, vocabulary, top_k=5, draws=4)["twin_z"].to_numpy() == pytest.approx(still, abs=1e-3)


@pytest.mark.slow
def test_a_lora_by_hooks_is_the_lora_by_peft(language_model, watch):
    from soft_prompt_explorer.analysis.asking.lora import applied

    path = GALLERY / "capitals-lora-8"
    with factors_in(language_model.model, factors_of(load_lora(path))):
        seen = watch.bare()
    after = watch.bare()
    with applied(language_model.model, path):
        log_p = plainly(language_model, None, TWO[0])[1][-1]
    assert (seen.log_probabilities[0] - log_p).abs().max() < 1e-3
    assert (after.log_probabilities[0] - plainly(language_model, None, TWO[0])[1][-1]).abs().max() < 1e-3  # and is taken out again


@pytest.mark.slow
def test_a_prefix_is_read_once_as_peft_reads_it(language_model, watch):
    from soft_prompt_explorer.analysis.asking.in_front import prompt_config, with_prefix

    kept = prompt_config("prefix-tuning", 3, language_model.model.config)
    rows = np.random.default_rng(3).normal(scale=0.3, size=(3, 2 * kept.num_layers * kept.token_dim)).astype(np.float32)
    seen, ids = watch.of_prefix(rows), torch.tensor([language_model.tokenizer(TWO[0]).input_ids])
    with torch.inference_mode():
        plain = with_prefix(language_model, rows).model(input_ids=ids, use_cache=False).logits[0, -1].log_softmax(-1)
    assert (seen.log_probabilities[0] - plain).abs().max() < 1e-3


@pytest.mark.slow
def test_what_is_kept_is_of_these_weights_and_no_other_task_is_looked_at_twice(language_model, watch, vocabulary, own_cache, monkeypatch):
    lora = load_lora(GALLERY / "capitals-lora-8")
    before = kept_of(watch, [b"x"]).path
    with torch.no_grad():
        weight = language_model.model.get_submodule(next(iter(lora.modules))).weight
        weight[0, 0] += 1
    try:
        assert kept_of(watch, [b"x"]).path != before
    finally:
        with torch.no_grad():
            weight[0, 0] -= 1
    assert kept_of(watch, [b"x"]).path == before != kept_of(watch, [b"y"]).path
    monkeypatch.setattr(others, "shipped_prompts", lambda model: [("plural", load_soft_prompt(GALLERY / "plural-words-1"))])
    found = others.changes_at_hand(watch, vocabulary).by_task["plural"]
    monkeypatch.setattr(Watch, "of_rows", None)
    assert (others.changes_at_hand(watch, vocabulary).by_task["plural"] == found).all() and found.shape == (1, 8, 576)


@pytest.mark.slow
def test_the_specific_score_is_without_what_prompts_of_other_tasks_share(watch, vocabulary, own_cache, monkeypatch):
    shipped = [
        ("plural", "plural-words-1"),
        ("plural", "plural-words-2"),
        ("capitals", "capitals-words-1"),
        ("antonyms", "antonyms-words-1"),
    ]
    monkeypatch.setattr(others, "shipped_prompts", lambda model: [(task, load_soft_prompt(GALLERY / name)) for task, name in shipped])
    asked = [load_soft_prompt(GALLERY / name) for name in ("plural-words-1", "capitals-words-1")]
    at_hand = others.changes_at_hand(watch, vocabulary)
    table = lens(asked, watch, vocabulary, others=at_hand, draws=4)  # of both in one call: what is another task differs between them
    change = {}
    for _, name in shipped:
        prompt = load_soft_prompt(GALLERY / name)
        seen, start = watch.of_rows(np.stack([prompt.embeddings, prompt.initial]))
        change[name] = (seen.states - start.states).mean(0)[-1].astype(np.float64)
    plural = (change["plural-words-1"] + change["plural-words-2"]) / 2
    for name, of_others in {
        "plural-words-1": [change["capitals-words-1"], change["antonyms-words-1"]],
        "capitals-words-1": [plural, change["antonyms-words-1"]],
    }.items():
        shared = np.mean(of_others, axis=0)
        rest = change[name] - shared * (shared @ change[name]) / (shared @ shared)
        rows = table[table["adapter"] == name]
        common = look(load_soft_prompt(GALLERY / name), watch, vocabulary, draws=4).common
        expected = output_rows(watch, common)[rows["token_id"]] @ rest
        assert rows["specific_score"].to_numpy() == pytest.approx(expected, abs=1e-3)
        sentence = at_hand.beside(load_soft_prompt(GALLERY / name)).sentence
        assert "of 2 tasks" in sentence and sentence.endswith(f"without those of {name.split('-')[0]}.")
    only_plural = others.AtHand({"plural": at_hand.by_task["plural"]})
    assert only_plural.beside(asked[0]).changes is None and only_plural.beside(asked[1]).changes.shape == (1, 8, 576)


def test_z_leaves_each_null_adapter_out_of_its_own_mean_and_spread():
    rng = np.random.default_rng(0)
    null, change, output = rng.normal(size=(1, 7, 5)), rng.normal(size=5), rng.normal(size=(11, 5))
    found = pushed(change, null, output)
    scores, drawn = output @ change, null[0] @ output.T
    assert found.scores == pytest.approx(scores, abs=1e-5)
    assert found.z == pytest.approx((scores - drawn.mean(0)) / (drawn.std(0, ddof=1) * np.sqrt(1 + 1 / 7)), rel=1e-3)
    for i in range(7):
        others = np.delete(drawn, i, 0)
        z = (drawn[i] - others.mean(0)) / (others.std(0, ddof=1) * np.sqrt(1 + 1 / 6))
        assert found.null_z[0, i] == pytest.approx(z.max(), rel=1e-3)
    assert found.p == pytest.approx([(1 + (found.null_z[0] >= z).sum()) / 8 for z in found.z])


def test_chance_is_called_significant_as_often_as_is_said():
    """States of one made-up family, correlated over the words: the adapter is a draw like its null adapters."""
    rng = np.random.default_rng(1)
    output = rng.normal(size=(400, 30))
    mixed = rng.normal(size=(30, 30))
    least = []
    for _ in range(300):
        drawn = rng.standard_t(4, size=(61, 30)) @ mixed
        least.append(pushed(drawn[0], drawn[None, 1:], output).p.min())
    assert np.mean(np.array(least) <= 0.05) <= 0.08  # 0.05 and its error over 300 draws
    assert stats.kstest(np.array(least) - rng.uniform(0, 1 / 61, 300), "uniform").pvalue > 0.001


@pytest.mark.slow
def test_what_was_never_trained_changes_nothing(watch, vocabulary):
    prompt = load_soft_prompt(GALLERY / "plural-words-1")
    from dataclasses import replace

    table = effect([replace(prompt, embeddings=prompt.initial)], watch, vocabulary, draws=4)
    assert table["verdict"].tolist() == [NOTHING] and not is_beyond_chance(table).any()
    assert "changes nothing" in sentence(table.iloc[0])


@pytest.mark.slow
def test_a_trained_prompt_and_a_trained_lora_are_told_from_chance(language_model, vocabulary):
    watch = Watch(language_model)
    adapters = [load_adapter(GALLERY / name) for name in ("number-words-random-3", "sentiment-lora-8")]
    table = effect(adapters, watch, vocabulary, paths=["a", "b"], draws=60)
    assert is_beyond_chance(table).all(), table.to_string()
    assert (table["ratio_low"] < table["ratio"]).all() and (table["ratio"] < table["ratio_high"]).all()
    assert lens(adapters[1:], watch, vocabulary, draws=60, top_k=2)["token"].tolist() in (
        [" negative", " positive"],
        [" positive", " negative"],
    )


def test_the_ratio_is_of_means_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    kl, null = rng.exponential(4, size=30), rng.exponential(1, size=(50, 30))
    low, high = ratio_interval(kl, null)
    assert low < kl.mean() / np.median(null.mean(1)) < high


def test_the_junit_report_fails_what_changes_no_more_than_chance():
    from xml.etree import ElementTree

    table = pd.DataFrame(
        [
            ("a", "a.npy", 1.0, 1.0, 1.0, 0.5, 2.0, 0.4, AS_CHANCE),
            ("b", "b.npy", 9.0, 1.0, 9.0, 5.0, 12.0, 0.01, "changes more than chance"),
        ],
        columns=["adapter", "path", "kl", "null_median", "ratio", "ratio_low", "ratio_high", "p", "verdict"],
    )
    suite = ElementTree.fromstring(junit_report(table))
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [case.find("failure") is not None for case in suite] == [True, False]


def test_the_command_fails_and_reports_what_changes_nothing(command, tmp_path, llama_folder, prompt_file, own_cache):
    """For a person's continuous integration: the exit status, and a JUnit report beside the table."""
    from xml.etree import ElementTree

    start = np.random.default_rng(3).normal(size=(2, 16)).astype(np.float32)
    same, initial = prompt_file(start, "same"), prompt_file(start, "initial")
    options = ["--initial", initial, "--model", llama_folder, "--junit", tmp_path / "report.xml", "--format", "json"]
    checked, told = command("effect", same, "--check", *options), command("effect", same, *options)
    assert (checked.status, told.status) == (NO_EFFECT, 0) and NO_EFFECT == 3
    assert [row["verdict"] for row in json.loads(checked.out)] == [NOTHING] == [row["verdict"] for row in json.loads(told.out)]
    suite = ElementTree.parse(tmp_path / "report.xml").getroot()
    (failure,) = suite.iter("failure")
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1") and failure.get("message") in checked.err


def test_layers_are_evenly_spaced_and_others_are_refused(watch, vocabulary):
    assert evenly_spaced(30)[-1] == 30 and len(evenly_spaced(30)) == 8 and evenly_spaced(3) == [0, 1, 2, 3][-len(evenly_spaced(3)) :]
    with pytest.raises(InputError, match="looks after the layers 4, 8"):
        lens([load_soft_prompt(GALLERY / "plural-words-1")], watch, vocabulary, layer=5)


def test_texts_that_cannot_be_read_are_refused(language_model):
    for texts, words in (
        ((), "no text"),
        (("",), "0 tokens"),
        (("word " * 600,), "tokens; 1 to 512"),
        (["a"] * 1001, "1,000 are the most"),
    ):
        with pytest.raises(InputError, match=words):
            Watch(language_model, texts)


def test_the_texts_say_nothing_of_an_answer():
    assert len(TEXTS) >= 10 and all(text.endswith(":") for text in TEXTS)
