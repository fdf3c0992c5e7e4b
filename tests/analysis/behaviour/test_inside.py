"""What the model makes of a prompt inside, against what transformers itself tells, and words patched in for themselves."""

import numpy as np
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from soft_prompt_explorer.analysis.behaviour.inside import ATTENTION_COLUMNS, LENS_COLUMNS, attention, hidden_states, layers_of, logit_lens
from soft_prompt_explorer.analysis.behaviour.verbalisation import (
    AFTER,
    BEFORE,
    COLUMNS,
    by_task,
    grid,
    says,
    scored,
    verbalise,
    written_with,
)
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from tests.support.tiny_models import random_llama

DESCRIPTIONS = {"colours": "Name a colour.", "sums": "Add two numbers.", "capitals": "Name the capital of a country."}
ANSWERS = {"colours": [" red", " blue"], "sums": [" two"], "capitals": [" Paris"]}


FALCON = {"lm_head_multiplier": 5.0, "mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_chunk_size": 4}


@pytest.fixture(params=["llama", "gpt2"])
def language_model(request, byte_level_tokenizer):
    """Two families that call their parts by other names; not the models that other tests share."""
    if request.param == "llama":
        return random_llama(byte_level_tokenizer, hidden_size=16, intermediate_size=32, num_hidden_layers=3).eval(), byte_level_tokenizer
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(byte_level_tokenizer), n_embd=16, n_layer=3, n_head=2, n_positions=256)
    return GPT2LMHeadModel(config).eval(), byte_level_tokenizer


@pytest.fixture
def vocabulary(language_model):
    rows = language_model[0].get_input_embeddings().weight.detach().numpy()
    return Vocabulary.from_embeddings([f"token {i}" for i in range(len(rows))], np.array(rows))


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)


def test_the_states_are_those_that_the_layers_read_and_the_last_one_writes(language_model, rows):
    model, _ = language_model
    states = hidden_states(rows, model)
    read = []
    handles = [layer.register_forward_pre_hook(lambda module, args, kwargs: read.append((*args, *kwargs.values())[0][0]), with_kwargs=True) for layer in layers_of(model)]  # fmt: skip
    with torch.no_grad():
        output = model(inputs_embeds=torch.from_numpy(rows)[None], output_hidden_states=True)
    for handle in handles:
        handle.remove()
    assert states.shape == (4, 4, 16)
    torch.testing.assert_close(states[:-1], torch.stack(read))
    norm = model.model.norm if hasattr(model, "model") else model.transformer.ln_f
    with torch.no_grad():
        torch.testing.assert_close(norm(states[-1]), output.hidden_states[-1][0])


def test_after_the_last_layer_the_lens_is_what_the_model_says_next(language_model, vocabulary, rows):
    model, _ = language_model
    table = logit_lens(rows, language_model, vocabulary, top_k=2)
    assert table.columns.tolist() == LENS_COLUMNS
    assert len(table) == 4 * 4 * 2
    with torch.no_grad():
        chances = model(inputs_embeds=torch.from_numpy(rows)[None]).logits[0].softmax(-1)
    last = table[table["layer"] == 3]
    for position in range(4):
        of_position = last[last["position"] == position]
        best, ids = chances[position].topk(2)
        assert of_position["token_id"].tolist() == ids.tolist()
        np.testing.assert_allclose(of_position["probability"], best, atol=1e-5)
    first = table[(table["layer"] == 0) & (table["rank"] == 0)]
    reached = rows if hasattr(model, "model") else rows + model.transformer.wpe.weight[:4].detach().numpy()
    np.testing.assert_allclose(first["norm"], np.linalg.norm(reached, axis=1), rtol=1e-5)
    assert first["token"].tolist() == [f"token {i}" for i in first["token_id"]]


@pytest.mark.parametrize("family", ["cohere", "granite", "gemma2", "falcon_h1"])
def test_a_family_that_scales_or_caps_its_logits_is_read_as_it_answers(family, byte_level_tokenizer, rows):
    """As different as chances from scaled logits and from plain ones are here."""
    small = {
        "vocab_size": len(byte_level_tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    own = {
        "cohere": {"logit_scale": 3.0},
        "granite": {"logits_scaling": 0.2},
        "gemma2": {"final_logit_softcapping": 0.5, "head_dim": 8},
        "falcon_h1": FALCON,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **small, **own[family])).eval()
    weight = model.get_output_embeddings().weight.detach()
    weight.mul_(20)  # random logits are so small that no factor shows
    vocabulary = Vocabulary.from_embeddings([f"token {i}" for i in range(len(weight))], weight.numpy().copy())
    table = logit_lens(rows, LanguageModel(model, byte_level_tokenizer), vocabulary, top_k=2)
    with torch.no_grad():
        chances = model(inputs_embeds=torch.from_numpy(rows)[None]).logits[0].softmax(-1)
    last = table[table["layer"] == 2]
    np.testing.assert_allclose(last["probability"], chances.topk(2).values.flatten(), rtol=1e-4)


def test_attention_is_the_mean_of_what_the_answer_position_pays_and_the_model_is_left_as_it_was(language_model, rows):
    model, tokenizer = language_model
    before = model.config._attn_implementation
    texts = ["the cat sat", "the mat"]
    table = attention(rows, language_model, texts)
    assert model.config._attn_implementation == before != "eager"
    assert table.columns.tolist() == ATTENTION_COLUMNS
    np.testing.assert_allclose(table.groupby(["layer", "head"])["attention"].sum(), 1, atol=1e-5)
    model.set_attn_implementation("eager")
    paid = []
    for text in texts:
        ids = torch.tensor([tokenizer(text).input_ids])
        inputs = torch.cat([torch.from_numpy(rows)[None], model.get_input_embeddings()(ids)], dim=1)
        with torch.no_grad():
            paid.append(model(inputs_embeds=inputs, output_attentions=True).attentions[1][0, 1, -1, :4].numpy())
    model.set_attn_implementation(before)
    found = table[(table["layer"] == 2) & (table["head"] == 1) & table["position"].notna()]
    np.testing.assert_allclose(found["attention"], np.mean(paid, axis=0), atol=1e-5)
    with pytest.raises(InputError, match="at least one"):
        attention(rows, language_model, [])


def plain(language_model, ids, most) -> str:
    model, tokenizer = language_model
    with torch.no_grad():
        output = model.generate(torch.tensor([ids]), max_new_tokens=most, do_sample=False, pad_token_id=0)
    return tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True).split("\n")[0].strip()


@pytest.mark.slow
def test_a_real_word_patched_in_for_itself_changes_nothing(embedded_model):
    """The identity patch of Patchscopes: same model, same text, same layer."""
    model, tokenizer = embedded_model
    head, word, tail = (tokenizer(text).input_ids for text in (BEFORE, " Paris Paris", ":"))
    ids = [*head, *word, *tail]
    positions = range(len(head), len(head) + len(word))
    states = hidden_states(model.get_input_embeddings()(torch.tensor(ids)).detach(), model)
    unpatched = plain(embedded_model, ids, 12)
    assert unpatched
    for layer in (0, 7, 29):
        assert written_with(states[[layer]][:, list(positions)], embedded_model, ids, positions, layer, most=12) == [unpatched]
    elsewhere = states[[0]][:, [0, 1]] + 5
    assert written_with(elsewhere, embedded_model, ids, positions, 0, most=12) != [unpatched]


@pytest.mark.slow
def test_words_as_a_prompt_are_verbalised_as_the_text_with_these_words(embedded_model):
    model, tokenizer = embedded_model
    word = tokenizer(" moon moon moon").input_ids
    rows = model.get_input_embeddings()(torch.tensor(word)).detach().numpy()
    table = verbalise(rows, embedded_model, "colours", DESCRIPTIONS, ANSWERS, every=29)
    assert table.columns.tolist() == COLUMNS
    sources, targets = grid(model, 29)
    assert (sources, targets) == ([0, 29, 30], [0, 29])
    assert list(zip(table["source_layer"], table["target_layer"], strict=True)) == [(s, t) for t in targets for s in sources]
    itself = table[(table["source_layer"] == 0) & (table["target_layer"] == 0)].iloc[0]
    assert itself["text"] == plain(embedded_model, [*tokenizer(BEFORE).input_ids, *word, *tokenizer(AFTER).input_ids], 20)


def test_what_is_written_is_scored_as_rouge_score_does_and_beside_other_tasks():
    import pandas as pd

    table = pd.DataFrame({"source_layer": [0, 1], "target_layer": [0, 0], "text": ["Name a red colour, or Paris", ""]})
    found = scored(table, "colours", DESCRIPTIONS, ANSWERS)
    scorer = RougeScorer(["rouge1"], use_stemmer=True)
    expected = {name: scorer.score(text, table["text"][0])["rouge1"].fmeasure for name, text in DESCRIPTIONS.items()}
    assert found["rouge_1"].tolist() == [pytest.approx(expected["colours"]), 0.0]
    assert found["rouge_1_others"][0] == pytest.approx((expected["sums"] + expected["capitals"]) / 2)
    assert found["answer_words"].tolist() == [pytest.approx(1 / 6), 0.0]
    assert found["answer_words_others"][0] == pytest.approx((0 + 1 / 6) / 2)
    baseline = found.assign(text=["Add the numbers.", "Add"])
    gains = by_task(found, baseline, DESCRIPTIONS)
    for name, description in DESCRIPTIONS.items():
        before = np.mean([scorer.score(description, text)["rouge1"].fmeasure for text in baseline["text"]])
        assert gains[name] == pytest.approx(expected[name] / 2 - before)
    assert gains.is_monotonic_decreasing and gains.index[0] == "colours"
    assert "p = 0.33" in says(found, baseline, "colours", DESCRIPTIONS)
    assert "by chance once in 3 times" in says(found, baseline, "colours", DESCRIPTIONS)
    assert "does not verbalise" in says(found, baseline, "sums", DESCRIPTIONS)
    assert "p = 1.00" in says(found, baseline, "sums", DESCRIPTIONS)
    assert "does not verbalise" in says(found, found, "colours", DESCRIPTIONS)  # no gain at all is no first place


def test_a_task_without_a_description_is_refused(language_model, rows):
    with pytest.raises(InputError, match="no description"):
        verbalise(rows, language_model, "mine", DESCRIPTIONS, ANSWERS)
