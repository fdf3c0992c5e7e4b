"""What a model answers to examples: a row each, of what was asked, what was answered and how sure the model was."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.asking.in_front import Subject
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.analysis.tasks.task import Task

if TYPE_CHECKING:
    from soft_prompt_explorer.analysis.asking.batches import Example

BATCH_SIZE = 16
MORE_TOKENS = 8  # than the longest answer wanted are written before an answer counts as over
PREDICTION_COLUMNS = ["text", "target", "answer", "correct", "probability", "loss"]
_GOES_ON = re.compile(r" *[\w'’-]")


def predictions(subject: Subject, task: Task, table: pd.DataFrame, *, report: Report = no_report) -> pd.DataFrame:
    """What the model answers to each example.

    With labels, the answer is the label with the highest log-probability. Free text is written greedily up to the end of the line. Where it is scored by
    exact match it is right if it begins with the wanted text and no further word or part of a word follows; a wrong answer is then told up to where it
    leaves the wanted one, with "…" after it.

    Parameters
    ----------
    table : of `Task.examples`.

    Returns
    -------
    The rows of `table` in their order with text, target, answer, correct, probability (of the answer: among the labels, or of the tokens of the
    answer told) and loss (mean cross-entropy of the target's tokens, in nats).

    Raises
    ------
    InputError
        There are no examples, or one is too long for the model.
    """
    if not len(table):
        raise InputError(f"The task {task.name} has no examples to be scored on; give it some.")
    from soft_prompt_explorer.analysis.tasks.scoring import correct

    answer = _choose_labels if task.labels else _follow_text if task.scored_by == "exact match" else _write_text
    answered = answer(subject, task, table, report)
    result = table.reset_index(drop=True).assign(**answered)
    result["correct"] = correct(result, task.scored_by)
    return result[[*PREDICTION_COLUMNS, *(column for column in result if column not in PREDICTION_COLUMNS)]]


def check_held_out(task: Task, language_model: LanguageModel, *, virtual_tokens: int = 0, limit: int | None = None) -> None:
    """Refuse held-out examples that are too long to be scored behind so many virtual tokens, before anything is learned.

    Raises
    ------
    InputError
    """
    from soft_prompt_explorer.analysis.asking.batches import check_lengths, encode

    model, tokenizer = language_model
    table = task.examples("held-out").head(limit)
    if not len(table):
        return
    if task.labels:
        examples = [example for label in task.labels for example in encode(tokenizer, table["text"], [label] * len(table))]
    else:
        examples = _followed(encode(tokenizer, table["text"], table["target"]))
    check_lengths(examples, virtual_tokens, model.config)


def _choose_labels(subject: Subject, task: Task, table: pd.DataFrame, report: Report) -> dict:
    from soft_prompt_explorer.analysis.asking.batches import Example, encode

    assert task.labels is not None
    labels = [tuple(subject.tokenizer(label, add_special_tokens=False).input_ids) for label in task.labels]
    # What is read before a label's last token; labels of one token share it, so a text then needs one row.
    rows: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for j, label in enumerate(task.labels):
        for i, example in enumerate(encode(subject.tokenizer, table["text"], [label] * len(table), begun=subject.begun)):
            rows.setdefault(example.ids, []).append((i, j))
    examples = [Example(ids, labels[uses[0][1]]) for ids, uses in rows.items()]
    chances = np.empty((len(table), len(labels)))
    uses = list(rows.values())
    for index, log_probabilities in _log_probabilities(examples, subject, report):
        for i, j in uses[index]:
            chances[i, j] = log_probabilities[np.arange(len(labels[j])), labels[j]].sum()
    truth = np.array([task.labels.index(target) for target in table["target"]])
    lengths = np.array([len(labels[j]) for j in truth])
    chosen = chances.argmax(axis=1)
    shares = np.exp(chances - chances.max(axis=1, keepdims=True))
    return {
        "answer": [task.labels[j] for j in chosen],
        "probability": shares.max(axis=1) / shares.sum(axis=1),
        "loss": -chances[np.arange(len(truth)), truth] / lengths,
    }


def _followed(encoded: list[Example]) -> list[Example]:
    """One position more than the answer: what the model writes next must not go on with the answer."""
    return [replace(example, ids=example.ids + example.answer[-1:], answer=(*example.answer, 0)) for example in encoded]


def _follow_text(subject: Subject, task: Task, table: pd.DataFrame, report: Report) -> dict:
    """Greedy writing in one forward pass: as far as each next token is the wanted one, what was read is what would have been written."""
    from soft_prompt_explorer.analysis.asking.batches import encode

    tokenizer = subject.tokenizer
    encoded = encode(tokenizer, table["text"], table["target"], begun=subject.begun)
    examples = _followed(encoded)
    answers, probabilities, losses = [""] * len(table), np.empty(len(table)), np.empty(len(table))
    for index, log_probabilities in _log_probabilities(examples, subject, report):
        wanted = encoded[index].answer
        written = log_probabilities.argmax(axis=1)
        agrees = written[:-1] == wanted
        until = len(wanted) if agrees.all() else int(agrees.argmin()) + 1  # with the first token that differs
        goes_on = agrees.all() and _GOES_ON.match(tokenizer.decode([int(written[-1])], skip_special_tokens=True))
        until += bool(goes_on)
        text = tokenizer.decode(written[:until], skip_special_tokens=True).split("\n")[0]
        answers[index] = table["target"].iloc[index] if agrees.all() and not goes_on else f"{text}…"
        probabilities[index] = np.exp(log_probabilities[np.arange(until), written[:until]].sum())
        losses[index] = -log_probabilities[np.arange(len(wanted)), wanted].mean()
    return {"answer": answers, "probability": probabilities, "loss": losses}


def _write_text(subject: Subject, task: Task, table: pd.DataFrame, report: Report) -> dict:
    from soft_prompt_explorer.analysis.asking.batches import encode

    examples = encode(subject.tokenizer, table["text"], table["target"], begun=subject.begun)
    losses = np.empty(len(table))
    for index, log_probabilities in _log_probabilities(examples, subject, part(report, 0, 3)):
        answer = examples[index].answer
        losses[index] = -log_probabilities[np.arange(len(answer)), answer].mean()
    longest = max(len(example.answer) for example in examples) + MORE_TOKENS
    written = write(subject, table["text"].tolist(), longest, report=part(report, 0.5, 1.5))
    return {"answer": written["answer"].tolist(), "probability": written["probability"].to_numpy(), "loss": losses}


def write(subject: Subject, texts: list[str], most: int, *, report: Report = no_report) -> pd.DataFrame:
    """What the model writes after each text, greedily, up to the end of the line or `most` tokens.

    Returns
    -------
    One row a text: answer, and probability, the product of its tokens' (that of the line's end with it).
    """
    import torch

    tokenizer, model = subject.tokenizer, subject.model
    ends = line_ends(tokenizer)
    encoded = tokenizer(texts, add_special_tokens=not subject.begun).input_ids
    answers, probabilities = [""] * len(texts), np.empty(len(texts))
    done = 0
    for chosen in _of_one_length(encoded):
        report(done / len(texts), "writing answers")
        ids = torch.tensor([encoded[i] for i in chosen], device=model.device)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Position ids are not supported"
            )  # PEFT counts them itself, rightly where nothing is padded
            output = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False, eos_token_id=ends, pad_token_id=ends[0],
                output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        steps = torch.stack(output.logits, dim=1).float().log_softmax(dim=-1).cpu().numpy()
        tokens = output.sequences[:, -steps.shape[1] :].cpu().numpy()
        for row, i in enumerate(chosen):
            stop = next((at + 1 for at, token in enumerate(tokens[row]) if token in ends), len(tokens[row]))
            probabilities[i] = np.exp(steps[row, np.arange(stop), tokens[row, :stop]].sum())
            answers[i] = tokenizer.decode(tokens[row, :stop], skip_special_tokens=True).split("\n")[0]
        done += len(chosen)
    report(1.0, "answers written")
    return pd.DataFrame({"answer": answers, "probability": probabilities})


def _of_one_length(encoded: list[list[int]]) -> Iterator[list[int]]:
    """Indices in batches of texts of one length: nothing is padded, so that positions are those of each text alone."""
    by_length: dict[int, list[int]] = {}
    for i, ids in enumerate(encoded):
        by_length.setdefault(len(ids), []).append(i)
    for _, same in sorted(by_length.items()):
        yield from (same[start : start + BATCH_SIZE] for start in range(0, len(same), BATCH_SIZE))


_ENDS: WeakKeyDictionary[object, list[int]] = WeakKeyDictionary()


def line_ends(tokenizer) -> list[int]:
    """The ids of the tokens that end a line, and of those that end a text."""
    if tokenizer in _ENDS:
        return _ENDS[tokenizer]
    vocabulary = tokenizer.get_vocab()
    decoded = tokenizer.batch_decode([[i] for i in vocabulary.values()])
    ends = [i for i, text in zip(vocabulary.values(), decoded, strict=True) if "\n" in text]
    _ENDS[tokenizer] = sorted({*ends, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])})
    return _ENDS[tokenizer]


def _log_probabilities(examples, subject: Subject, report: Report) -> Iterator[tuple[int, np.ndarray]]:
    """Each example's index and the log-probabilities at its answer positions, (length of the answer, V) float32."""
    import torch

    from soft_prompt_explorer.analysis.asking.batches import answer_logits, check_lengths

    model = subject.model
    check_lengths(examples, subject.virtual_tokens + subject.prefix, model.config)
    order = np.argsort([len(example.ids) for example in examples], kind="stable")
    for start in range(0, len(order), BATCH_SIZE):
        report(start / len(order), "evaluating on held-out examples")
        chosen = order[start : start + BATCH_SIZE]
        batch = [examples[i] for i in chosen]
        with torch.inference_mode():
            logits = answer_logits(subject.forward, batch, virtual_tokens=subject.virtual_tokens, device=model.device)
            rows = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
        ends = np.cumsum([len(example.answer) for example in batch])[:-1]
        yield from zip((int(i) for i in chosen), np.split(rows, ends), strict=True)
    report(1.0, "evaluated")
