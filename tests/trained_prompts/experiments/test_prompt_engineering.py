"""Few-shot prompts: which examples are shown, and that a text read once in advance is as good as one read each time."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from soft_prompt_explorer.analysis.asking.answers import predictions, write
from soft_prompt_explorer.analysis.asking.in_front import bare
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.trained_prompts.experiments.prompt_engineering import SHOTS, shown_examples, with_text

EVERY_TASK = [name for name in TASKS if name != "sentiment"]


def test_examples_are_shown_with_their_answers_in_the_template_and_labels_in_turn(toy_task):
    shown = shown_examples(toy_task, "It says {input} so", shots=4)
    assert shown == (
        "It says the cat sat so the cat\n\nIt says the mat so mat\n\nIt says a new line of the text on the mat so mat\n\nIt says the text so the cat\n\n"
    )
    assert shown_examples(toy_task, "{input}", shots=1) == "the cat sat the cat\n\n"
    assert shown_examples(toy_task, "{input}", shots=0) == ""


@pytest.mark.parametrize("name", EVERY_TASK)
def test_what_is_shown_is_never_held_out(name):
    task = TASKS[name]
    for template in task.prompts:
        shown = shown_examples(task, template).removesuffix("\n\n")
        held_out = task.examples("held-out", template=template)
        assert not [text for text, target in zip(held_out["text"], held_out["target"], strict=True) if text + target in shown.split("\n\n")]
        train = task.examples("train", template=template)
        whole = set(train["text"] + train["target"])
        # A template may hold empty lines itself, so the examples are found by their beginnings.
        assert sum(shown.count(example) > 0 for example in whole) >= SHOTS


def test_the_six_topics_stand_in_turn():
    task = TASKS["topic"]
    shown = shown_examples(task, "{input} =", shots=6)
    answers = [example.rpartition(" = ")[2] for example in shown.removesuffix("\n\n").split("\n\n")]
    assert sorted(answers) == sorted(label.strip() for label in task.labels)


def test_a_text_read_once_in_advance_gives_the_answers_of_one_read_before_every_example(toy_task, language_model):
    """The other way: the text and the example as one row of token ids, through the bare model."""
    model, tokenizer = language_model
    before, table = shown_examples(toy_task, toy_task.template, shots=3), toy_task.examples("held-out")
    answered = predictions(with_text(language_model, before), toy_task, table)
    for row in answered.itertuples():
        scores = []
        for label in toy_task.labels:
            read, answer = tokenizer(before + row.text).input_ids, tokenizer(label, add_special_tokens=False).input_ids
            with torch.no_grad():
                log_probabilities = model(input_ids=torch.tensor([read + answer])).logits[0].log_softmax(-1)
            scores.append(sum(log_probabilities[len(read) + i - 1, token].item() for i, token in enumerate(answer)))
        assert row.answer == toy_task.labels[int(np.argmax(scores))]
        assert row.probability == pytest.approx(np.exp(max(scores)) / np.exp(scores).sum(), abs=2e-6)
    bare_probability = predictions(bare(language_model), toy_task, table)["probability"]
    assert (bare_probability - answered["probability"]).abs().max() > 2e-5


def test_what_is_written_after_a_text_read_in_advance_is_what_is_written_after_both(language_model):
    model, tokenizer = language_model
    texts, before = ["the cat", "a new line of the text", "on the mat"], "the cat sat on the mat\n\n"
    written = write(with_text(language_model, before), texts, 6)
    for text, answer in zip(texts, written["answer"], strict=True):
        ids = torch.tensor([tokenizer(before + text).input_ids])
        tokens = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None)[0, ids.shape[1] :]
        assert answer == tokenizer.decode(tokens, skip_special_tokens=True).split("\n")[0]


@pytest.mark.slow
def test_few_shot_sentiment_is_scored_as_one_text_through_the_embedded_model(embedded_model):
    model, tokenizer = embedded_model
    task = TASKS["sentiment"]
    template = task.prompts[2]
    before, table = shown_examples(task, template), task.examples("held-out", template=template).head(6)
    answered = predictions(with_text(embedded_model, before), task, table)
    for row in answered.itertuples():
        ids = tokenizer(before + row.text).input_ids
        with torch.no_grad():
            log_probabilities = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        scores = [log_probabilities[tokenizer(label).input_ids[0]].item() for label in task.labels]
        assert row.answer == task.labels[int(np.argmax(scores))]
        assert row.probability == pytest.approx(np.exp(max(scores)) / np.exp(scores).sum(), abs=1e-3)


def test_a_text_too_long_for_the_context_is_refused(toy_task, language_model):
    from soft_prompt_explorer.analysis.core.errors import InputError

    language_model[0].config.max_position_embeddings = 60
    with pytest.raises(InputError, match="the model has 60"):
        predictions(with_text(language_model, "the cat sat on the mat\n\n" * 6), toy_task, toy_task.examples("held-out"))


@pytest.fixture(scope="session")
def beginning_tokenizer(byte_level_tokenizer):
    """A tokenizer that puts a token before every text, as those of Llama and Gemma do."""
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    backend = deepcopy(byte_level_tokenizer.backend_tokenizer)
    backend.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>", bos_token="<|endoftext|>")


def test_the_token_that_begins_a_text_stands_once_before_the_examples_and_not_again_in_the_middle(
    toy_task, language_model, beginning_tokenizer
):
    model = language_model[0]
    before, table = "the cat sat\n\n", toy_task.examples("held-out").head(1)
    assert beginning_tokenizer("the").input_ids[0] == 0
    task = replace(toy_task, labels=(" mat", " text"), load=lambda: pd.DataFrame())
    table = table.assign(target=" mat")
    answered = predictions(with_text(LanguageModel(model, beginning_tokenizer), before), task, table).iloc[0]
    read = beginning_tokenizer(before + table["text"].iloc[0]).input_ids
    assert read.count(0) == 1
    with torch.no_grad():
        log_probabilities = model(input_ids=torch.tensor([read])).logits[0, -1].log_softmax(-1)
    scores = [log_probabilities[beginning_tokenizer(label, add_special_tokens=False).input_ids[0]].item() for label in task.labels]
    assert answered["probability"] == pytest.approx(np.exp(max(scores)) / np.exp(scores).sum(), abs=1e-5)
