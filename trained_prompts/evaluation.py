"""How well a prompt does on examples that it was not trained on, always with n and a 95 % interval."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from analysis.models import Report, no_report
from trained_prompts.tasks import get_task

if TYPE_CHECKING:
    from analysis.adapters import SoftPrompt
    from trained_prompts.store import Recording

BATCH_SIZE = 16
COLUMNS = ["prompt", "task", "split", "n", "accuracy", "low", "high", "loss", "seconds"]


def evaluate(
    name: str, embeddings: np.ndarray | None, task_name: str, *, language_model, limit: int | None = None, report: Report = no_report
) -> pd.DataFrame:
    """Accuracy and loss of one prompt on a task's held-out examples.

    With labels, the answer is the label with the highest log-probability. With free text, an example counts when greedy decoding
    writes the whole target and then does not go on within the word.

    Parameters
    ----------
    embeddings : (n, d) float32 virtual tokens, or None for the bare model (zero-shot).
    language_model : (model, tokenizer) of `analysis.models.load_model`.
    limit : the first so many held-out examples; all when None.

    Returns
    -------
    One row: prompt, task, split, n, accuracy, low, high (Wilson's 95 % interval), loss (mean cross-entropy of the target's tokens,
    in nats), seconds.
    """
    from scipy.stats import binomtest

    began = time.perf_counter()
    task = get_task(task_name)
    table = task.examples("held-out").head(limit)
    score = _score_labels if task.labels else _score_text
    correct, losses = score(task, table, embeddings, language_model, report)
    low, high = binomtest(int(correct.sum()), len(correct)).proportion_ci(method="wilson")
    row = [name, task_name, "held-out", len(correct), correct.mean(), low, high, losses.mean(), time.perf_counter() - began]
    return pd.DataFrame([row], columns=COLUMNS)


def evaluate_run(recording: Recording, *, language_model, limit: int | None = None, report: Report = no_report) -> pd.DataFrame:
    """Held-out scores before and after training: rows `no prompt`, `initial values` (of a prompt) and `trained`; of a LoRA as it is kept, in 16 bits."""
    if recording.weights is not None:
        from trained_prompts.lora import applied_weights, config_of

        return _with_and_without(
            applied_weights(language_model[0], config_of(recording.config), recording.weights),
            "trained", recording.config.task, language_model, limit, report,
        )  # fmt: skip
    prompts = [("no prompt", None), ("initial values", recording.initial), ("trained", recording.embeddings)]
    return _evaluate_all(prompts, recording.config.task, language_model, limit, report)


def compare_with_bare_model(
    prompt: SoftPrompt, task: str, *, language_model, limit: int | None = None, report: Report = no_report
) -> pd.DataFrame:
    """Held-out scores of the bare model, of the prompt's initial values where they are known, and of the prompt."""
    initial = [] if prompt.initial is None else [("initial values", prompt.initial)]
    prompts = [("no prompt", None), *initial, (prompt.name, prompt.embeddings)]
    return _evaluate_all(prompts, task, language_model, limit, report)


def compare_lora(
    folder: Path, name: str, task: str, *, language_model, limit: int | None = None, report: Report = no_report
) -> pd.DataFrame:
    """Held-out scores of the bare model and of the model with the LoRA in a PEFT folder."""
    from trained_prompts.lora import applied

    return _with_and_without(applied(language_model[0], folder), name, task, language_model, limit, report)


def _with_and_without(applied, name: str, task: str, language_model, limit, report) -> pd.DataFrame:
    bare = _bare_model(task, language_model, limit, lambda share, doing: report(share / 2, f"{doing}: no prompt"))
    with applied:
        scores = evaluate(
            name, None, task, language_model=language_model, limit=limit,
            report=lambda share, doing: report(0.5 + share / 2, f"{doing}: {name}"),
        )  # fmt: skip
    return pd.concat([bare, scores], ignore_index=True)


def _evaluate_all(prompts, task, language_model, limit, report) -> pd.DataFrame:
    tables = []
    for i, (name, embeddings) in enumerate(prompts):

        def report_part(share: float, doing: str, i: int = i, name: str = name) -> None:
            report((i + share) / len(prompts), f"{doing}: {name}")

        if embeddings is None:
            tables.append(_bare_model(task, language_model, limit, report_part))
        else:
            tables.append(evaluate(name, embeddings, task, language_model=language_model, limit=limit, report=report_part))
    return pd.concat(tables, ignore_index=True)


# The bare model does not change: one score a process, by model, task and number of examples. A model that is let go takes its scores along.
_BARE: WeakKeyDictionary[object, dict[tuple, pd.DataFrame]] = WeakKeyDictionary()


def _bare_model(task, language_model, limit, report) -> pd.DataFrame:
    scores = _BARE.setdefault(language_model[0], {})
    if (task, limit) not in scores:
        scores[task, limit] = evaluate("no prompt", None, task, language_model=language_model, limit=limit, report=report)
    return scores[task, limit]


def _score_labels(task, table, embeddings, language_model, report) -> tuple[np.ndarray, np.ndarray]:
    from trained_prompts.batches import Example, encode

    tokenizer = language_model[1]
    labels = [tuple(tokenizer(label, add_special_tokens=False).input_ids) for label in task.labels]
    # What is read before a label's last token; labels of one token share it, so a text then needs one row.
    rows: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for j, label in enumerate(task.labels):
        for i, example in enumerate(encode(tokenizer, table["text"], [label] * len(table))):
            rows.setdefault(example.ids, []).append((i, j))
    examples = [Example(ids, labels[uses[0][1]]) for ids, uses in rows.items()]
    scores = np.empty((len(table), len(labels)))
    uses = list(rows.values())
    for index, log_probabilities in _log_probabilities(examples, embeddings, language_model, report):
        for i, j in uses[index]:
            scores[i, j] = log_probabilities[np.arange(len(labels[j])), labels[j]].sum()
    truth = np.array([task.labels.index(target) for target in table["target"]])
    lengths = np.array([len(labels[j]) for j in truth])
    return scores.argmax(axis=1) == truth, -scores[np.arange(len(truth)), truth] / lengths


def _score_text(task, table, embeddings, language_model, report) -> tuple[np.ndarray, np.ndarray]:
    from trained_prompts.batches import Example, encode

    tokenizer = language_model[1]
    encoded = encode(tokenizer, table["text"], table["target"])
    # One position more than the answer: what the model writes next must not continue the target's last word.
    examples = [Example(example.ids + example.answer[-1:], (*example.answer, 0)) for example in encoded]
    correct, losses = np.empty(len(table), dtype=bool), np.empty(len(table))
    for index, log_probabilities in _log_probabilities(examples, embeddings, language_model, report):
        answer = encoded[index].answer
        written = log_probabilities.argmax(axis=1)
        follows = tokenizer.decode([int(written[-1])], skip_special_tokens=True)
        correct[index] = tuple(written[:-1]) == answer and not follows[:1].isalnum()
        losses[index] = -log_probabilities[np.arange(len(answer)), answer].mean()
    return correct, losses


def _log_probabilities(examples, embeddings, language_model, report: Report) -> Iterator[tuple[int, np.ndarray]]:
    """Each example's index and the log-probabilities at its answer positions, (length of the answer, V) float32."""
    import torch

    from trained_prompts.batches import answer_logits
    from trained_prompts.trainer import check_lengths

    model = language_model[0]
    check_lengths(examples, 0 if embeddings is None else len(embeddings), model.config)
    embed = model.get_input_embeddings()
    prompt = None if embeddings is None else torch.from_numpy(np.asarray(embeddings, dtype=np.float32)).to(model.device)

    def forward(*, input_ids, attention_mask, logits_to_keep):
        inputs = embed(input_ids)
        if prompt is not None:
            inputs = torch.cat([prompt.to(inputs.dtype).expand(len(inputs), -1, -1), inputs], dim=1)
            if attention_mask is not None:
                attention_mask = torch.nn.functional.pad(attention_mask, (len(prompt), 0), value=1)
        return model(inputs_embeds=inputs, attention_mask=attention_mask, logits_to_keep=logits_to_keep, use_cache=False)

    order = np.argsort([len(example.ids) for example in examples], kind="stable")
    for start in range(0, len(order), BATCH_SIZE):
        report(start / len(order), "evaluating on held-out examples")
        chosen = order[start : start + BATCH_SIZE]
        batch = [examples[i] for i in chosen]
        with torch.inference_mode():
            logits = answer_logits(forward, batch, virtual_tokens=0 if prompt is None else len(prompt), device=model.device)
            rows = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
        ends = np.cumsum([len(example.answer) for example in batch])[:-1]
        yield from zip((int(i) for i in chosen), np.split(rows, ends), strict=True)
    report(1.0, "evaluated")
