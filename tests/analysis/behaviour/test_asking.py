"""A task asked with a changed prompt: the same losses and answers as plain transformers calls give, and one trained token has the whole effect."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from soft_prompt_explorer.analysis.adapters import SoftPrompt, load_soft_prompt
from soft_prompt_explorer.analysis.asking.in_front import with_prompt
from soft_prompt_explorer.analysis.behaviour.asked import COLUMNS, behaviour
from soft_prompt_explorer.analysis.behaviour.changes import interventions
from soft_prompt_explorer.analysis.behaviour.of_task import behave, examples_of, judged, with_rows
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.core.progress import no_report
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.analysis.prompts.directions import task_direction
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.analysis.tasks.task import Task
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from tests.support.plain_calls import label_scores
from tests.support.training import trained


def told(answers) -> tuple[np.ndarray, np.ndarray]:
    return answers.losses, answers.counts[:, 0] > 0


@pytest.mark.slow
def test_interventions_on_labels_equal_plain_transformers_calls(embedded_model, embedded_vocabulary):
    model, tokenizer = embedded_model
    prompt = load_soft_prompt(GALLERY / "sentiment-text-1")
    task = TASKS["sentiment"]
    table = task.examples("held-out").head(6)
    examples = examples_of(task, embedded_model, limit=6)
    direction = task_direction([prompt], embedded_vocabulary, words=task.answer_words())
    wanted = {
        "whole prompt",
        "no prompt",
        "initial values",
        "task direction out",
        "path",
        "token dropped",
        "token at the mean",
        "order shuffled",
    }
    checked = set()
    for each in interventions(prompt, embedded_vocabulary, direction=direction):
        if each.name not in wanted - checked:
            continue
        checked.add(each.name)
        scores = np.array([label_scores(model, tokenizer, each.prompts[0], text, task.labels) for text in table["text"]])
        truth = [task.labels.index(target) for target in table["target"]]
        losses, right = told(examples.ask(each.prompts[0], no_report))
        np.testing.assert_allclose(losses, -scores[np.arange(6), truth], atol=1e-4)
        np.testing.assert_array_equal(right, scores.argmax(axis=1) == truth)
    assert checked == wanted


@pytest.mark.slow
def test_interventions_on_free_text_equal_plain_greedy_writing(embedded_model, embedded_vocabulary):
    model, tokenizer = embedded_model
    prompt = load_soft_prompt(GALLERY / "plural-words-1")
    task = TASKS["plural"]
    table = task.examples("held-out").head(5)
    examples = examples_of(task, embedded_model, limit=5)
    made = interventions(prompt, embedded_vocabulary)
    for name in ("whole prompt", "no prompt", "initial values", "token dropped", "random words"):
        rows = next(each for each in made if each.name == name).prompts[0]
        losses, right = told(examples.ask(rows, no_report))
        for i, (text, target) in enumerate(zip(table["text"], table["target"], strict=True)):
            read, answer = tokenizer(text).input_ids, tokenizer(target, add_special_tokens=False).input_ids
            inputs = model.get_input_embeddings()(torch.tensor([read + answer]))
            n = 0 if rows is None else len(rows)
            if n:
                inputs = torch.cat([torch.from_numpy(rows)[None], inputs], dim=1)
            with torch.no_grad():
                logits = model(inputs_embeds=inputs).logits[0, n + len(read) - 1 : -1]
                written = model.generate(
                    inputs_embeds=inputs[:, : n + len(read)], max_new_tokens=len(answer) + 3, do_sample=False, pad_token_id=0
                )
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(answer)).item()
            assert losses[i] == pytest.approx(loss, abs=1e-4)
            first = tokenizer.decode(written[0], skip_special_tokens=True).split("\n")[0]
            assert right[i] == (first.strip().split(" ")[0].rstrip(".,") == target.strip())


def test_a_prompt_read_once_answers_as_one_read_before_every_example(toy_task, language_model):
    rows = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    ids = language_model[1]("the cat sat", return_tensors="pt").input_ids
    once, before = with_rows(language_model, rows), with_prompt(language_model, rows)
    with torch.no_grad():
        a = once.forward(input_ids=ids, attention_mask=None, logits_to_keep=torch.tensor([ids.shape[1] - 1])).logits
        b = before.forward(input_ids=ids, attention_mask=None, logits_to_keep=torch.tensor([ids.shape[1] - 1 + 3])).logits
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_model_with_sliding_windows_is_asked_too(toy_task, byte_level_tokenizer):
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    model = Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=len(byte_level_tokenizer) + 5, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"],
        )
    ).eval()  # fmt: skip
    rows = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    table = toy_task.examples("held-out")
    losses, right = told(examples_of(toy_task, LanguageModel(model, byte_level_tokenizer)).ask(rows, no_report))
    scores = np.array([label_scores(model, byte_level_tokenizer, rows, text, toy_task.labels) for text in table["text"]])
    truth = [toy_task.labels.index(target) for target in table["target"]]
    lengths = [len(byte_level_tokenizer(target, add_special_tokens=False).input_ids) for target in table["target"]]
    np.testing.assert_allclose(losses, -scores[np.arange(len(truth)), truth] / lengths, atol=1e-4)
    np.testing.assert_array_equal(right, scores.argmax(axis=1) == truth)


def test_one_trained_token_has_the_whole_effect_and_every_other_none(toy_config, toy_task, language_model):
    recording = trained(toy_config, language_model)
    rows = recording.initial.copy()
    rows[1] = recording.embeddings[1]
    prompt = SoftPrompt("one", rows, recording.initial, None, None, None)
    vocabulary = load_vocabulary(toy_config.model)
    table = behaviour(prompt, vocabulary, examples_of(toy_task, language_model))
    back = table[table["intervention"] == "token at its initial value"].set_index("position")
    start = table[table["intervention"] == "initial values"].iloc[0]
    assert abs(start["loss_change"]) > 1e-4
    assert back.loc[1, "loss_change"] == start["loss_change"]
    assert (back.drop(1)["loss_change"] == 0).all()
    assert (back.drop(1)["score_change"] == 0).all()


def test_answers_scored_by_class_compare_over_the_same_classes(language_model):
    table = pd.DataFrame(
        {"input": ["the cat", "the mat", "a text"], "target": [" cat", " mat", " cat"], "split": ["train", "held-out", "held-out"]}
    )
    task = Task("cb-like", "A toy.", "{input}:", (" cat", " mat", " text"), "made here", lambda: table, scoring="cb")
    asked = examples_of(task, language_model)
    shapes = {asked.ask(rows, no_report).counts.shape for rows in (None, np.ones((2, 16), np.float32))}
    assert shapes == {(2, 6)}  # true positives of three classes, false ones of three


def test_a_task_without_held_out_examples_is_refused(language_model, toy_task):
    empty = replace(toy_task, name="empty", load=lambda: pd.DataFrame({"input": ["a"], "target": [" mat"], "split": ["train"]}))
    with pytest.raises(InputError, match="no held-out examples"):
        examples_of(empty, language_model)


def test_the_command_prints_the_table_and_the_verdict(command, toy_config, language_model, own_runs):
    recording = trained(toy_config, language_model)
    path = store.save(recording, "mine", evaluate_run(recording, language_model=language_model))
    asked = command("behaviour", path, "--task", "toy", "--model", toy_config.model, "--limit", 3, "--format", "csv")
    assert asked.status == 0, asked.err
    table = pd.read_csv(io.StringIO(asked.out))
    assert table.columns.tolist() == COLUMNS
    assert (table["n"] == 3).all()
    asked_here = load_soft_prompt(path), load_vocabulary(toy_config.model)
    expected = behave(*asked_here, examples_of(TASKS["toy"], language_model, limit=3), TASKS["toy"])
    verdict = judged(*asked_here, TASKS["toy"], expected).verdict
    np.testing.assert_allclose(table["loss"], expected["loss"], atol=1e-5)
    assert asked.err.splitlines()[-1] == f"mine: {verdict.sentence}"


def test_the_command_refuses_an_unknown_task_before_any_model_is_loaded(command):
    refused = command("behaviour", GALLERY / "plural-words-1", "--task", "nonsense")
    assert refused.status == 2
    assert "No task is called 'nonsense'" in refused.err
