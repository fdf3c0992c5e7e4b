import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import (
    LoraConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch.utils.data import DataLoader
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from soft_prompt_explorer.analysis.asking.batches import answer_logits, encode, like_length_batches
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.initial import FREQUENT_IDS, frequent_words, initial_values
from soft_prompt_explorer.trained_prompts.training.trainer import train
from tests.support.plain_calls import plain_loss


def test_a_step_is_adam_on_the_mean_loss_of_the_answers_tokens(toy_task, toy_config, language_model):
    model, tokenizer = language_model
    examples = toy_task.examples("train")
    steps = list(train(toy_config, language_model=language_model))

    prompt = torch.nn.Parameter(torch.from_numpy(steps[0].embeddings.copy()))
    optimiser = torch.optim.Adam([prompt])
    for step in steps[1:]:
        optimiser.param_groups[0]["lr"] = toy_config.learning_rate * (5 - step.step) / 4
        loss = plain_loss(model, tokenizer, prompt, examples["text"], examples["target"])
        assert step.loss == pytest.approx(loss.item(), abs=1e-5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        np.testing.assert_allclose(step.embeddings, prompt.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("method", ["prompt-tuning", "lora"])
def test_the_trainer_of_transformers_learns_the_same_from_the_same_batches(method, toy_task, toy_config, language_model, tmp_path):
    """Step by step the same losses, and the same weights at the end: what differs in a race of the two is the batches that each draws."""
    _, tokenizer = language_model
    config = replace(toy_config, method=method, steps=6, batch_size=2, learning_rate=0.02)
    steps = list(train(config, language_model=language_model))

    table = toy_task.examples("train")
    texts, answers = (tokenizer(table[name].tolist(), add_special_tokens=name == "text").input_ids for name in ("text", "target"))
    examples = [
        {"input_ids": text + answer, "attention_mask": [1] * len(text + answer), "labels": [-100] * len(text) + answer}
        for text, answer in zip(texts, answers, strict=True)
    ]
    lengths, rng = [len(example.ids) for example in encode(tokenizer, table["text"], table["target"])], np.random.default_rng(config.seed)
    batches = [batch.tolist() for _ in range(3) for batch in reversed(like_length_batches(lengths, 2, rng))]
    base, _ = load_model(config.model, device="cpu")
    if method == "lora":
        wanted = LoraConfig(task_type=TaskType.CAUSAL_LM, r=config.rank, lora_alpha=2 * config.rank, target_modules=["q_proj", "v_proj"])
        theirs = get_peft_model(base, wanted)
        set_peft_model_state_dict(theirs, {name: torch.from_numpy(values) for name, values in steps[0].weights.items()})
    else:
        theirs = get_peft_model(base, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=config.tokens))
        with torch.no_grad():
            theirs.prompt_encoder["default"].embedding.weight.copy_(torch.from_numpy(steps[0].embeddings))

    class InOurOrder(Trainer):
        def get_train_dataloader(self):
            return DataLoader(examples, batch_sampler=batches, collate_fn=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100))

    tokenizer.padding_side, tokenizer.pad_token = "right", tokenizer.eos_token
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=6, learning_rate=config.learning_rate, optim="adamw_torch", weight_decay=0.0, max_grad_norm=0.0,
        lr_scheduler_type="linear", logging_strategy="steps", logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = InOurOrder(model=theirs, args=arguments)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    np.testing.assert_allclose(losses, [step.loss for step in steps[1:]], atol=1e-4)
    found = get_peft_model_state_dict(theirs)
    wanted = steps[-1].weights if method == "lora" else {"prompt_embeddings": steps[-1].embeddings}
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name].detach(), values, atol=1e-4)
    assert abs(losses[0] - losses[-1]) > 1e-3


def test_training_changes_nothing_but_the_prompt(toy_config, language_model):
    before = {name: tensor.clone() for name, tensor in language_model[0].state_dict().items()}
    steps = list(train(toy_config, language_model=language_model))
    after = language_model[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not np.array_equal(steps[0].embeddings, steps[-1].embeddings)


def test_step_0_holds_the_initial_values_and_no_loss(toy_config, language_model):
    first = next(train(toy_config, language_model=language_model))
    assert first.step == 0
    assert math.isnan(first.loss)
    np.testing.assert_array_equal(first.embeddings, initial_values(toy_config, load_vocabulary(toy_config.model), language_model[1]))


def test_a_seed_determines_the_run_and_another_seed_changes_it(toy_config, language_model):
    def last(config):
        return list(train(config, language_model=language_model))[-1].embeddings

    np.testing.assert_array_equal(last(toy_config), last(toy_config))
    assert not np.array_equal(last(toy_config), last(replace(toy_config, seed=1)))


def test_the_loss_falls_on_examples_seen_again_and_again(toy_config, language_model):
    losses = [step.loss for step in train(replace(toy_config, steps=40), language_model=language_model)][1:]
    assert max(losses[-5:]) < min(losses[:5])


def test_padding_and_company_in_a_batch_do_not_change_an_answers_logits(toy_task, language_model):
    model, tokenizer = language_model
    table = toy_task.examples("train")
    examples = encode(tokenizer, table["text"], table["target"])

    def forward(**inputs):
        return model(**inputs, use_cache=False)

    together = answer_logits(forward, examples, virtual_tokens=0, device="cpu")
    alone = []
    for example in examples:
        logits = model(input_ids=torch.tensor([example.ids])).logits[0]
        alone.append(logits[len(example.ids) - len(example.answer) :])
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_batches_hold_every_example_once_and_little_padding():
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 60, size=1003).tolist()
    batches = like_length_batches(lengths, 8, rng)
    assert sorted(np.concatenate(batches)) == list(range(1003))
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert padded < 1.02 * sum(lengths)
    means = [np.mean([lengths[i] for i in batch]) for batch in batches]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2  # no curriculum from short to long


def test_a_start_from_frequent_words_is_their_rows(embedded_vocabulary):
    config = TrainingConfig(task="sentiment", tokens=20, init="sample-vocab", seed=3)
    rows = initial_values(config, embedded_vocabulary, tokenizer=None)
    ids = [int(np.flatnonzero((embedded_vocabulary.embeddings == row).all(axis=1))[0]) for row in rows]
    assert len(set(ids)) == 20
    assert max(ids) < FREQUENT_IDS
    assert all(embedded_vocabulary.tokens[i].startswith(" ") and embedded_vocabulary.tokens[i][1:].isalpha() for i in ids)
    assert 1000 < len(frequent_words(embedded_vocabulary)) < FREQUENT_IDS


def test_a_start_from_a_text_repeats_and_cuts_its_words(embedded_vocabulary, embedded_model):
    tokenizer = embedded_model[1]
    ids = tokenizer("good film").input_ids
    rows = initial_values(TrainingConfig(task="sentiment", tokens=5, init="text", init_text="good film"), embedded_vocabulary, tokenizer)
    np.testing.assert_array_equal(rows, embedded_vocabulary.embeddings[[ids[i % len(ids)] for i in range(5)]])


def test_a_random_start_is_as_long_as_the_vocabularys_rows_are(embedded_vocabulary):
    rows = initial_values(TrainingConfig(task="sentiment", tokens=200, init="random"), embedded_vocabulary, tokenizer=None)
    expected = np.sqrt(np.mean(np.sum(np.square(embedded_vocabulary.embeddings, dtype=np.float64), axis=1)))
    assert np.sqrt(np.mean(np.sum(rows.astype(np.float64) ** 2, axis=1))) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "no-such-task"},
        {"method": "magic"},
        {"tokens": 0},
        {"tokens": 201},
        {"steps": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"init": "text"},
        {"init": "text", "init_text": "  "},
        {"init": "zeros"},
    ],
)
def test_impossible_settings_are_refused_in_a_sentence(change):
    with pytest.raises(InputError) as refused:
        TrainingConfig(**{"task": "sentiment"} | change)
    assert "\n" not in str(refused.value)


def test_an_example_longer_than_the_models_context_is_refused(toy_config, language_model):
    model, tokenizer = language_model
    model.config.max_position_embeddings = 12
    with pytest.raises(InputError, match="the model has 12"):
        next(train(replace(toy_config, tokens=10), language_model=LanguageModel(model, tokenizer)))
