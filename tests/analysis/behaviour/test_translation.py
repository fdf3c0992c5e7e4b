"""Texts in a prompt's place: shares beside plain transformers, mixtures beside scipy, and what must and must not be said."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from soft_prompt_explorer.analysis.adapters import SoftPrompt, load_lora, load_soft_prompt
from soft_prompt_explorer.analysis.asking import read_once
from soft_prompt_explorer.analysis.asking.batches import Example
from soft_prompt_explorer.analysis.asking.in_front import keys_and_values
from soft_prompt_explorer.analysis.asking.lora import applied
from soft_prompt_explorer.analysis.behaviour import translation, translation_search
from soft_prompt_explorer.analysis.behaviour import translation_candidates as candidates
from soft_prompt_explorer.analysis.behaviour.translation import COLUMNS, carry, copied, sentence, translate, what_it_does
from soft_prompt_explorer.analysis.behaviour.translation_candidates import CONTROL, inputs_of_lines, inputs_of_task
from soft_prompt_explorer.analysis.behaviour.translation_scores import behaviour_of, fitted_weights, share
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.models.names import is_at_hand
from soft_prompt_explorer.analysis.models.packaged import GEMMA_MODEL
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from tests.support import plain_translations as plain
from tests.support.tiny_models import random_llama

WORDS = ["cat", "dog", "house", "tree", "river", "song", "book", "car", "leaf", "road", "bird", "stone", "lamp", "ship", "door", "hill"]
TEXTS = ["nothing", "hand-written 1", "hand-written 4", "description", f"{CONTROL}random words"]


@pytest.fixture
def few_controls(monkeypatch):
    """Three tasks, so that the controls are quick."""
    kept = {name: TASKS[name] for name in ("plural", "number-words", "first-letter")}
    monkeypatch.setattr(candidates, "TASKS", kept)
    return kept


def few(task: str, tell: int = 3):
    """So few inputs that plain calls are quick."""
    whole = inputs_of_task(TASKS[task], limit=tell)
    return replace(whole, pool=whole.pool[:4], choose=whole.choose[:3], fit=whole.fit[:4])


def row(table: pd.DataFrame, name: str) -> pd.Series:
    return table.set_index("candidate").loc[name]


def plain_kl(model, tokenizer, inputs, of_adapter, text: str) -> tuple[np.ndarray, np.ndarray]:
    """KL and whether the answer is the same, of each input; `of_adapter` answers what the adapter wrote and its log-probabilities."""
    kls, same = [], []
    for given in inputs.tell:
        template = text if "{input}" in text else text + inputs.template
        written, p = of_adapter(inputs.template.replace("{input}", given))
        filled = template.replace("{input}", given)
        kls.append(plain.divergence(tokenizer, written, p, plain.at_answer(model, tokenizer, filled, written)))
        same.append(plain.answer(model, tokenizer, filled) == written)
    return np.array(kls), np.array(same)


def assert_as_plain(table, model, tokenizer, inputs, of_adapter):
    of_adapter = cache(of_adapter)  # the same inputs for every text
    without = plain_kl(model, tokenizer, inputs, of_adapter, "")[0]
    told = [*TEXTS, *table.loc[table["candidate"].str.fullmatch(r"\d examples?"), "candidate"].tail(1)]
    for name in told:
        kls, same = plain_kl(model, tokenizer, inputs, of_adapter, copied(row(table, name)["text"]))
        assert row(table, name)["kl"] == pytest.approx(kls.mean(), rel=1e-3, abs=1e-4)
        assert row(table, name)["share"] == pytest.approx(1 - kls.mean() / without.mean(), abs=1e-3)
        assert row(table, name)["same_answer"] == pytest.approx(same.mean())
    assert len(told) == len(TEXTS) + 1


@pytest.mark.slow
def test_the_shares_of_a_soft_prompt_are_those_of_plain_transformers(embedded_model, embedded_vocabulary, few_controls):
    model, tokenizer = embedded_model
    prompt, inputs = load_soft_prompt(GALLERY / "number-words-words-1"), few("number-words")

    def of_adapter(text):
        written = plain.answer(model, tokenizer, text, prompt.embeddings)
        return written, plain.at_answer(model, tokenizer, text, written, prompt.embeddings)

    grown = []
    table = translate(prompt, embedded_model, embedded_vocabulary, inputs, path="it", row_made=grown.append)
    assert_as_plain(table, model, tokenizer, inputs, of_adapter)
    assert list(table.columns) == COLUMNS and set(table["n"]) == {3} and set(table["path"]) == {"it"}
    assert [len(each) for each in grown] == list(range(1, len(table) + 1))
    assert table["candidate"].iloc[0] == "nothing" and table["share"].iloc[0] == 0
    controls = table[table["candidate"].str.startswith(CONTROL)]
    assert set(table["control_share"]) == {controls["share"].max()}
    (chosen,) = table.loc[table["chosen"], "candidate"]
    assert chosen not in ("nothing", "mixture", "start") and not chosen.startswith("control")
    assert set(few_controls) - {"number-words"} == {each.split(" of ")[1] for each in controls["candidate"] if " of " in each}


@pytest.mark.slow
def test_the_shares_of_a_lora_are_those_of_plain_transformers(embedded_model, embedded_vocabulary, few_controls):
    model, tokenizer = embedded_model
    folder, inputs = GALLERY / "capitals-lora-8", few("capitals")

    def of_adapter(text):
        with applied(model, folder):
            written = plain.answer(model, tokenizer, text)
            return written, plain.at_answer(model, tokenizer, text, written)

    table = translate(load_lora(folder), embedded_model, embedded_vocabulary, inputs)
    assert_as_plain(table, model, tokenizer, inputs, of_adapter)
    assert not table["candidate"].isin(["start", "nearest words"]).any()


@pytest.mark.slow
def test_a_prompt_made_of_the_rows_of_a_text_is_recovered_by_its_nearest_words(embedded_model, embedded_vocabulary, few_controls):
    _, tokenizer = embedded_model
    text = "Word: cat\nUpper case: CAT\nWord: dog\nUpper case: DOG\n"
    prompt = SoftPrompt("a text", np.array(embedded_vocabulary.embeddings[tokenizer(text).input_ids]), None, None, None, None)
    inputs = replace(
        inputs_of_lines(WORDS, "Word: {input}\nUpper case:", name="words"), choose=("sun", "moon"), pool=("key",), fit=("pen", "cup")
    )
    found = row(translate(prompt, embedded_model, embedded_vocabulary, inputs), "nearest words")
    assert copied(found["text"]) == text
    assert found["share"] == pytest.approx(1, abs=1e-3) and found["same_answer"] == 1 and found["tokens"] == len(prompt)


@pytest.mark.slow
def test_nothing_is_said_of_a_prompt_drawn_at_random(embedded_model, embedded_vocabulary, few_controls):
    rows = embedded_vocabulary.embeddings
    noise = np.random.default_rng(4).standard_normal((10, rows.shape[1])) * rows.std(axis=0) + rows.mean(axis=0)
    prompt = SoftPrompt("noise", noise.astype(np.float32), None, None, None, None)
    inputs = few("plural", tell=8)
    table = translate(prompt, embedded_model, embedded_vocabulary, inputs)
    assert what_it_does(table) is None and sentence(table).startswith("No text says what noise does")


@pytest.mark.slow
def test_a_search_by_gradient_comes_nearer_and_can_be_copied(embedded_model, embedded_vocabulary):
    _, tokenizer = embedded_model
    prompt, inputs = load_soft_prompt(GALLERY / "plural-words-1"), few("plural")
    choose = behaviour_of(read_once.virtual_tokens(embedded_model, prompt.embeddings), inputs.choose, inputs.template)
    kl = []
    for steps in (0, 3):
        found = translation_search.searched(choose, inputs.template, embedded_model, steps=steps, tokens=4)
        placed = candidates.Places(tokenizer, choose.texts).candidate("search", found)
        assert placed.before == found and len(placed.ids) == 4 + 1
        kl.append(translation.told(placed.read(embedded_model), choose, inputs.template).kl.mean())
    assert kl[1] < kl[0]


def test_weights_are_those_that_scipy_finds_by_hand():
    rng = np.random.default_rng(0)
    p, *experts = (torch.from_numpy(rng.standard_normal((7, 9)) * 2).log_softmax(-1) for _ in range(4))
    experts[0] = (0.7 * p + 0.3 * experts[0]).log_softmax(-1)
    weights = fitted_weights([p[:3], p[3:]], [[each[:3], each[3:]] for each in experts])

    def loss(w):
        mixed = sum(weight * each.numpy() for weight, each in zip(w, experts, strict=True))
        return float((np.exp(p.numpy()) * (p.numpy() - mixed + logsumexp(mixed, axis=1, keepdims=True))).sum())

    by_hand = minimize(
        loss, np.full(3, 0.5), method="Nelder-Mead", bounds=[(0, 10)] * 3, options={"xatol": 1e-6, "fatol": 1e-10, "maxiter": 5000}
    )
    assert loss(weights) == pytest.approx(by_hand.fun, abs=1e-4)
    np.testing.assert_allclose(weights, by_hand.x, atol=1e-2)


def test_the_share_of_nothing_is_0_and_that_of_the_same_is_1():
    kl = np.random.default_rng(0).uniform(1, 2, 30)
    assert share(kl, kl) == (0, 0, 0) and share(np.zeros(30), kl) == (1, 1, 1)
    value, low, high = share(kl[::-1] / 2, kl)
    assert value == pytest.approx(0.5) and low < value < high


@pytest.mark.parametrize("task", ["plural", "sentiment", "capitals"])
def test_what_is_chosen_on_is_never_told(task):
    inputs = inputs_of_task(TASKS[task])
    parts = [inputs.pool, inputs.choose, inputs.fit, inputs.tell]
    assert [len(each) for each in parts] == [24, 16, 24, 60] and len(set().union(*parts)) == 124
    assert inputs == inputs_of_task(TASKS[task])
    held_out = TASKS[task].examples("held-out", template="{input}")["text"]
    assert set(inputs.tell) <= set(held_out)


def test_inputs_of_a_file_are_parted_too_and_few_are_refused():
    inputs = inputs_of_lines([*WORDS, "cat", " "], "{input}:", name="words")
    parts = [inputs.pool, inputs.choose, inputs.fit, inputs.tell]
    assert sorted(each for part in parts for each in part) == sorted(WORDS) and all(parts) and len(inputs.tell) == 8
    with pytest.raises(InputError, match="These are 3 different inputs, and 12 are the fewest"):
        inputs_of_lines(WORDS[:3], "{input}:", name="words")


@pytest.mark.parametrize("text", ["a\nb\\n\t\\", "naïve café\n\n", "\u200b中\U0001f600\\x41", "the plain words"])
def test_a_text_of_the_table_can_be_copied(text):
    assert copied(printable(text)) == text


def made_table(share_low: float, control: float) -> pd.DataFrame:
    rows = [
        ("nothing", "", 0.0, 0.0),
        ("8 examples", "a\\n", 0.9, share_low),
        ("mixture", "1.00 × 8 examples", 0.95, 0.94),
        (f"{CONTROL}8 examples of plural", "b", control, control),
    ]
    table = pd.DataFrame(rows, columns=["candidate", "text", "share", "share_low"])
    return table.assign(
        prompt="it",
        path="",
        task="t",
        tokens=3,
        perplexity=9.0,
        kl=0.1,
        share_high=lambda made: np.where(made["candidate"].str.startswith(CONTROL), made["share"] + 0.05, 0.99),
        same_answer=0.5,
        control_share=control,
        n=60,
        chosen=lambda made: made["candidate"] == "8 examples",
    )[COLUMNS]


def test_a_share_counts_only_where_its_interval_lies_above_those_of_the_controls():
    found = what_it_does(made_table(0.8, 0.7))
    assert found is not None and found["candidate"] == "8 examples"
    assert sentence(made_table(0.8, 0.7)).startswith(
        "Nearly all of what it does, a text does in its place: 8 examples recover 0.90 (0.80 to 0.99)"
    )
    assert (
        what_it_does(made_table(0.74, 0.7)) is None
        and what_it_does(made_table(0.6, 0.7)) is None
        and what_it_does(made_table(-0.1, -0.4)) is None
    )
    assert sentence(made_table(0.6, 0.7)).startswith("No text says what it does: the best, 8 examples, recovers 0.90")
    little = made_table(0.3, 0.1).assign(share=lambda made: made["share"].replace(0.9, 0.4))
    assert what_it_does(little) is None  # beyond the controls, and yet less than half
    otherwise = made_table(0.8, 0.7).assign(same_answer=0.4)
    assert what_it_does(otherwise) is None  # the answers are mostly others
    assert sentence(otherwise).startswith(
        "No text says what it does: the best, 8 examples, recovers 0.90 (0.80 to 0.99) of what it changes in the model's answers, with 40% of 60"
    )


def test_a_text_read_once_answers_as_the_whole_text_does(tiny_llama, byte_level_tokenizer):
    model = LanguageModel(tiny_llama.eval(), byte_level_tokenizer)
    before, texts = "the cat sat on the mat\n", ["the text", "a new line of the text", "mat"]
    inputs = [byte_level_tokenizer(text).input_ids for text in texts]
    read = read_once.nothing(model).then(byte_level_tokenizer(before).input_ids)
    examples = [Example((*ids, 5), (5, 7)) for ids in inputs]
    for i, found in read_once.answer_log_probabilities(read, examples):
        whole = plain.next_log_probabilities(tiny_llama, [*byte_level_tokenizer(before).input_ids, *inputs[i], 5])[-2:]
        torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-4)
    rows = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)
    prompted, prefixed = read_once.virtual_tokens(model, rows), read_once.prefix(model, keys_and_values(tiny_llama, rows))
    written = read_once.greedy(prompted, texts, [3], 6)
    for text, (answer, _), (again, _) in zip(texts, written, read_once.greedy(prefixed, texts, [3], 6), strict=True):
        ids = byte_level_tokenizer(text).input_ids
        for step, token in enumerate(answer):
            assert plain.next_log_probabilities(tiny_llama, [*ids, *answer[:step]], rows)[-1].argmax() == token
        assert answer == again


def test_a_text_is_carried_to_another_model(toy_task, language_model, byte_level_tokenizer):
    scores = carry("the cat: the cat\n", toy_task, language_model)
    assert scores["prompt"].tolist() == ["no text", "text"] and set(scores["n"]) == {4}
    asked = carry("the cat: the cat\n" + toy_task.template, toy_task, language_model)
    assert scores["loss"].tolist() == pytest.approx(asked["loss"].tolist(), abs=1e-4)
    other = LanguageModel(
        random_llama(byte_level_tokenizer, hidden_size=8, intermediate_size=8, num_hidden_layers=1).eval(), byte_level_tokenizer
    )
    assert carry("the cat\n", "toy", other)["loss"].tolist() != scores["loss"].tolist()


@pytest.fixture
def tiny_prompt(llama_folder, prompt_file):
    return prompt_file(np.random.default_rng(5).standard_normal((3, 16)).astype(np.float32) * 3)


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(WORDS), encoding="utf-8")
    return path


def test_the_command_prints_the_columns_and_tells_rows_and_a_sentence(command, tiny_prompt, lines, llama_folder, own_cache):
    done = command("translate", tiny_prompt, "--inputs", lines, "--template", "the {input}:", "--model", llama_folder, "--format", "json")
    assert done.status == 0
    rows = json.loads(done.out)
    assert list(rows[0]) == COLUMNS and rows[0]["candidate"] == "nothing" and {each["task"] for each in rows} == {"words.txt"}
    assert "nothing: 0.00 (0.00 to 0.00) recovered" in done.err and "the best" in done.err.splitlines()[-1]


@pytest.mark.slow
def test_the_command_searches_verbalises_and_carries_the_best_text(command, prompt_file, llama_folder, few_controls, own_cache):
    strong = prompt_file(np.random.default_rng(5).standard_normal((12, 16)).astype(np.float32) * 3)
    options = ["--task", "plural", "--limit", "5", "--search", "2", "--verbalise", "--also", llama_folder, "--model", llama_folder]
    done = command("translate", strong, *options, "--format", "json")
    assert done.status == 0, done.err
    rows = pd.DataFrame(json.loads(done.out))
    assert rows["candidate"].isin(["search", "verbalised"]).sum() == 2
    best = translation.best_text(rows)
    scores = carry(copied(best["text"]), "plural", str(llama_folder), limit=5)
    told = [f"{each.score:.3f} ({each.low:.3f} to {each.high:.3f})" for each in scores.itertuples()]
    assert f"On {llama_folder}, {best['candidate']} as text: exact match {told[1]}, without it {told[0]}, n = 5." in done.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--task", "plural", "--inputs"], "Give either --task or --inputs, not both"),
        (["--inputs"], "It is not known with which template"),
        ([], "It is not known what prompt was trained on; give --task, or --inputs with --template."),
        pytest.param(
            ["--task", "plural", "--also", GEMMA_MODEL],
            "is not installed",
            marks=pytest.mark.skipif(is_at_hand(GEMMA_MODEL), reason="it is here"),
        ),
        (["--template", "{input}:", "--also", "gemma3-270m", "--inputs"], "--also scores a text by a task's answers"),
    ],
)
def test_the_command_refuses_in_a_sentence(command, tiny_prompt, lines, llama_folder, options, says):
    given = [*options, lines] if options[-1:] == ["--inputs"] else options
    done = command("translate", tiny_prompt, "--model", llama_folder, *given)
    assert done.status == 2 and says in done.err and not done.out


def test_an_adapter_that_changes_nothing_is_refused(language_model, llama_folder, tiny_lora):
    adapter = load_lora(tiny_lora)
    with pytest.raises(InputError, match="there is nothing that a text could recover"):
        nothing = replace(adapter, modules={})
        translate(nothing, language_model, load_vocabulary(str(llama_folder)), inputs_of_lines(WORDS, "the {input}:", name="words"))
