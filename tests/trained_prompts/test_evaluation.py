import numpy as np
import pytest
import torch

from analysis.models import load_model
from trained_prompts.evaluation import COLUMNS, evaluate
from trained_prompts.tasks import TASKS


def label_scores(model, tokenizer, prompt, text, labels) -> list[float]:
    """The log-probability of every label after a text, one forward pass a label, nothing batched."""
    scores = []
    for label in labels:
        read, answer = tokenizer(text).input_ids, tokenizer(label, add_special_tokens=False).input_ids
        inputs = model.get_input_embeddings()(torch.tensor([read + answer]))
        if prompt is not None:
            inputs = torch.cat([torch.from_numpy(prompt)[None], inputs], dim=1)
        with torch.no_grad():
            log_probabilities = model(inputs_embeds=inputs).logits[0].log_softmax(-1)
        scores.append(sum(log_probabilities[i - len(answer) - 1, token].item() for i, token in enumerate(answer)))
    return scores


@pytest.mark.parametrize("with_prompt", [False, True])
def test_labels_of_one_and_of_several_tokens_are_scored_as_one_by_one(toy_task, toy_config, with_prompt):
    model, tokenizer = load_model(toy_config.model, device="cpu")
    prompt = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32) if with_prompt else None
    table = toy_task.examples("held-out")
    scores = np.array([label_scores(model, tokenizer, prompt, text, toy_task.labels) for text in table["text"]])
    truth = [toy_task.labels.index(target) for target in table["target"]]
    lengths = [len(tokenizer(target, add_special_tokens=False).input_ids) for target in table["target"]]
    assert max(lengths) > min(lengths)

    row = evaluate("it", prompt, "toy", language_model=(model, tokenizer)).iloc[0]
    assert list(row.index) == COLUMNS
    assert row["n"] == 4
    assert row["score"] == np.mean(scores.argmax(axis=1) == truth)
    assert row["loss"] == pytest.approx(np.mean([-scores[i, t] / n for i, (t, n) in enumerate(zip(truth, lengths, strict=True))]), abs=1e-4)


@pytest.mark.slow
def test_sentiment_is_scored_as_plain_transformers_calls_score_it(embedded_model):
    model, tokenizer = embedded_model
    prompt = model.get_input_embeddings().weight[1000:1005].numpy()
    task = TASKS["sentiment"]
    table = task.examples("held-out").head(12)
    chosen = [task.labels[int(np.argmax(label_scores(model, tokenizer, prompt, text, task.labels)))] for text in table["text"]]
    row = evaluate("it", prompt, "sentiment", language_model=embedded_model, limit=12).iloc[0]
    assert row["score"] == np.mean(np.array(chosen) == table["target"].to_numpy())


@pytest.mark.slow
def test_a_free_answer_counts_when_greedy_generation_writes_it(embedded_model):
    model, tokenizer = embedded_model
    table = TASKS["capitals"].examples("held-out").head(20)
    right = 0
    for text, target in zip(table["text"], table["target"], strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        written = tokenizer.decode(model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs.input_ids.shape[1] :])
        right += written.startswith(target) and not written[len(target) : len(target) + 1].isalnum()
    row = evaluate("it", None, "capitals", language_model=embedded_model, limit=20).iloc[0]
    assert 0 < right < 20
    assert row["score"] == right / 20


def test_the_interval_is_wilsons(toy_task, toy_config):
    row = evaluate("it", None, "toy", language_model=load_model(toy_config.model, device="cpu")).iloc[0]
    n, p, z = 4, row["score"], 1.959963984540054
    centre, half = (p + z * z / (2 * n)) / (1 + z * z / n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert (row["low"], row["high"]) == (pytest.approx(centre - half), pytest.approx(centre + half))
