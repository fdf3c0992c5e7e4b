"""How well a method does on examples that it was not trained on: scores always with n and a 95 % interval.

`predictions` is what every score rests on: a table with a row an example, of what was asked, what was answered and how sure the model was.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from analysis.errors import AdapterError, InputError
from analysis.models import Report, no_report
from trained_prompts.tasks import Task, get_task

if TYPE_CHECKING:
    from analysis.adapters import SoftPrompt
    from trained_prompts.batches import Example
    from trained_prompts.store import Recording

BATCH_SIZE = 16
MORE_TOKENS = 8  # than the longest answer wanted are written before an answer counts as over
COLUMNS = ["prompt", "task", "split", "n", "measure", "score", "low", "high", "loss", "seconds"]
SCORECARD_COLUMNS = ["prompt", "task", "measure", "value", "low", "high", "n"]
CALIBRATION_COLUMNS = ["prompt", "task", "bin", "low", "high", "n", "confidence", "accuracy"]
PREDICTION_COLUMNS = ["text", "target", "answer", "correct", "probability", "loss"]
_GOES_ON = re.compile(r" *[\w'’-]")


@dataclass(frozen=True, eq=False)
class Adapted:
    """A language model as one method leaves it, ready to be asked.

    Attributes
    ----------
    model : called with input_ids, attention_mask and logits_to_keep: the bare model, or PEFT's with a prompt, a prefix or a LoRA in it.
    virtual_tokens : positions that it puts in front of its input, and so of its logits.
    prefix : positions that it has in front of its input in every layer, and that its logits do not show.
    begun : whether the prefix is a text that its input goes on with.
    """

    model: object
    tokenizer: object
    virtual_tokens: int = 0
    prefix: int = 0
    begun: bool = False

    def forward(self, **inputs):
        return self.model(**inputs, use_cache=False)


def bare(language_model) -> Adapted:
    """The model as it is."""
    return Adapted(*language_model)


def with_prompt(language_model, embeddings: np.ndarray) -> Adapted:
    """The model with (n, d) virtual tokens in front of its input."""
    from trained_prompts import methods

    model, tokenizer = language_model
    peft_model = methods.in_peft(model, "prompt-tuning", len(embeddings))
    methods.set_rows(peft_model, embeddings)
    return Adapted(peft_model, tokenizer, len(embeddings))


def with_prefix(language_model, rows: np.ndarray) -> Adapted:
    """The model with n keys and values in front of every layer's own, (n, 2 × layers × width of the keys)."""
    from trained_prompts import methods

    model, tokenizer = language_model
    peft_model = methods.in_peft(model, "prefix-tuning", len(rows))
    methods.set_rows(peft_model, rows)
    return Adapted(peft_model, tokenizer, prefix=len(rows))


@contextmanager
def with_lora(language_model, applied: AbstractContextManager) -> Iterator[Adapted]:
    """The model with a LoRA in it as long as the block lasts: `lora.applied` or `lora.applied_weights` of the same model."""
    with applied:
        yield Adapted(*language_model)


def adapted(prompt: SoftPrompt, language_model) -> Adapted:
    """The model with what a file holds: virtual tokens, or a prefix.

    Raises
    ------
    AdapterError
        It was trained for another kind of model, or is not as wide as this one's.
    """
    check_fits(prompt, language_model[0])
    return (with_prefix if prompt.kind == "prefix" else with_prompt)(language_model, prompt.embeddings)


def check_fits(prompt: SoftPrompt, model) -> None:
    """Refuse what was trained for another kind of model, and a prefix that is not as wide as this model's keys and values.

    Raises
    ------
    AdapterError
    """
    from trained_prompts import methods

    prompt.check_is_causal()
    if prompt.kind == "prefix":
        kept = methods.prompt_config("prefix-tuning", len(prompt), model.config)
        width = 2 * kept.num_layers * kept.token_dim
        if prompt.width != width:
            raise AdapterError(
                f"The prefix {prompt.name} is {prompt.width:,} wide and the model's keys and values of all layers are {width:,}; name the model that it was trained on with "
                "--model."
            )


def predictions(subject: Adapted, task: Task, table: pd.DataFrame, *, report: Report = no_report) -> pd.DataFrame:
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
    from trained_prompts.scoring import correct

    answer = _choose_labels if task.labels else _follow_text if task.scored_by == "exact match" else _write_text
    answered = answer(subject, task, table, report)
    result = table.reset_index(drop=True).assign(**answered)
    result["correct"] = correct(result, task.scored_by)
    return result[[*PREDICTION_COLUMNS, *(column for column in result if column not in PREDICTION_COLUMNS)]]


def check_held_out(task: Task, language_model, *, virtual_tokens: int = 0, limit: int | None = None) -> None:
    """Refuse held-out examples that are too long to be scored behind so many virtual tokens, before anything is learned.

    Raises
    ------
    InputError
    """
    from trained_prompts.batches import check_lengths, encode

    model, tokenizer = language_model
    table = task.examples("held-out").head(limit)
    if not len(table):
        return
    if task.labels:
        examples = [example for label in task.labels for example in encode(tokenizer, table["text"], [label] * len(table))]
    else:
        examples = _followed(encode(tokenizer, table["text"], table["target"]))
    check_lengths(examples, virtual_tokens, model.config)


def score(name: str, subject: Adapted, task: Task, table: pd.DataFrame, *, report: Report = no_report) -> pd.DataFrame:
    """The task's own measure of one method on some of its held-out examples.

    Returns
    -------
    One row: prompt, task, split, n, measure, score, low, high (95 % interval), loss, seconds.
    """
    from trained_prompts.scoring import scores

    began = time.perf_counter()
    answered = predictions(subject, task, table, report=report)
    first = scores(answered, task.scored_by).iloc[0]
    row = [name, task.name, "held-out", first["n"], first["measure"], first["value"], first["low"], first["high"], answered["loss"].mean(), time.perf_counter() - began]  # fmt: skip
    return pd.DataFrame([row], columns=COLUMNS)


def evaluate(
    name: str, embeddings: np.ndarray | None, task: Task | str, *, language_model, limit: int | None = None, report: Report = no_report
) -> pd.DataFrame:
    """The score and the loss of one prompt on a task's held-out examples: one row, see `score`.

    Parameters
    ----------
    embeddings : (n, d) float32 virtual tokens, or None for the bare model (zero-shot).
    language_model : (model, tokenizer) of `analysis.models.load_model`.
    task : or its name; see `tasks.get_task`.
    limit : the first so many held-out examples; all when None.
    """
    task = get_task(task) if isinstance(task, str) else task
    subject = bare(language_model) if embeddings is None else with_prompt(language_model, embeddings)
    return score(name, subject, task, task.examples("held-out").head(limit), report=report)


def evaluate_run(recording: Recording, *, language_model, limit: int | None = None, report: Report = no_report) -> pd.DataFrame:
    """Held-out scores before and after training: rows `no prompt`, `initial values` (of a prompt) and `trained`; of a LoRA as it is kept, in 16 bits."""
    prompts = [("no prompt", None)]
    if recording.initial is not None:
        prompts.append(("initial values", lambda: nullcontext(with_prompt(language_model, recording.initial))))
    prompts.append(("trained", lambda: recorded(recording, language_model)))
    return _evaluate_all(prompts, recording.config.asked_task(), language_model, limit, report)


def recorded(recording: Recording, language_model) -> AbstractContextManager[Adapted]:
    """The model as a run has left it, as long as the block lasts."""
    from trained_prompts import lora

    method = recording.config.method
    if method == "full":
        return nullcontext(Adapted(recording.model, language_model[1]))
    if method == "lora":
        return with_lora(language_model, lora.applied_weights(language_model[0], lora.config_of(recording.config), recording.weights))
    if method == "prefix-tuning":
        return nullcontext(with_prefix(language_model, recording.weights["prompt_embeddings"]))
    return nullcontext(with_prompt(language_model, recording.embeddings))


def compare_with_bare_model(
    prompt: SoftPrompt, task: Task | str, *, language_model, limit: int | None = None, report: Report = no_report
) -> pd.DataFrame:
    """Held-out scores of the bare model, of the prompt's initial values where they are known, and of the prompt."""
    check_fits(prompt, language_model[0])
    prompts = [("no prompt", None)]
    if prompt.initial is not None:
        prompts.append(("initial values", lambda: nullcontext(with_prompt(language_model, prompt.initial))))
    prompts.append((prompt.name, lambda: nullcontext(adapted(prompt, language_model))))
    return _evaluate_all(prompts, task, language_model, limit, report)


def compare_lora(
    folder: Path, name: str, task: Task | str, *, language_model, limit: int | None = None, report: Report = no_report
) -> pd.DataFrame:
    """Held-out scores of the bare model and of the model with the LoRA in a PEFT folder."""
    from trained_prompts.lora import applied

    prompts = [("no prompt", None), (name, lambda: with_lora(language_model, applied(language_model[0], folder)))]
    return _evaluate_all(prompts, task, language_model, limit, report)


def scorecard(name: str, subject: Adapted, task: Task, *, limit: int | None = None, report: Report = no_report) -> pd.DataFrame:
    """Many measures of one method on a task's held-out examples, none of them left out.

    Returns
    -------
    A row a measure: prompt, task, measure, value, low, high (95 % interval, where the measure has one), n. The measures are the task's own, ROUGE of
    free text, loss, expected calibration error, the task's first measure on the same inputs in lower case and with typing errors (the invariance set
    of HELM, Liang et al. 2023, section 4.4), and seconds an example.
    """
    return scorecard_and_calibration(name, subject, task, limit=limit, report=report)[0]


def calibration(name: str, subject: Adapted, task: Task, *, limit: int | None = None, report: Report = no_report) -> pd.DataFrame:
    """How sure the model is against how often it is right, on a task's held-out examples, in ten bins of confidence.

    Returns
    -------
    Ten rows: prompt, task, bin, low, high (its edges), n, confidence, accuracy (both missing in an empty bin); see `scoring.calibration_bins`.
    """
    return _calibration(name, task, predictions(subject, task, task.examples("held-out").head(limit), report=report))


def scorecard_and_calibration(
    name: str, subject: Adapted, task: Task, *, limit: int | None = None, report: Report = no_report
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `scorecard` and `calibration` answer, the model asked once for both."""
    from trained_prompts import scoring

    table = task.examples("held-out").head(limit)
    seeded = np.random.default_rng(0)
    changes: dict[str, Callable[[str], str]] = {
        "lower case": scoring.lower_cased,
        "typing errors": lambda text: scoring.with_typos(text, seeded),
    }
    parts = 1 + len(changes)
    began = time.perf_counter()
    answered = predictions(subject, task, table, report=lambda share, doing: report(share / parts, doing))
    seconds = (time.perf_counter() - began) / len(table)
    measured = [scoring.scores(answered, task.scored_by)]
    if not task.labels and task.scored_by != "rouge":
        rouge = scoring.scores(answered, "rouge")
        measured.append(rouge[~rouge["measure"].isin(measured[0]["measure"])])
    error = scoring.calibration_error(answered["probability"].to_numpy(), answered["correct"].to_numpy())
    plain = [("loss", answered["loss"].mean()), ("calibration error", error)]
    for i, (change, apply) in enumerate(changes.items(), start=1):
        changed = _changed(task, table, apply)
        again = predictions(subject, task, changed, report=lambda share, doing, i=i: report((i + share) / parts, doing))
        measured.append(
            scoring.scores(again, task.scored_by).head(1).assign(measure=lambda rows, change=change: rows["measure"] + f", {change}")
        )
    plain.append(("seconds an example", seconds))
    measured.append(pd.DataFrame(plain, columns=["measure", "value"]).assign(n=len(table)))
    card = pd.concat(measured, ignore_index=True).assign(prompt=name, task=task.name)[SCORECARD_COLUMNS]
    return card, _calibration(name, task, answered)


def _calibration(name: str, task: Task, answered: pd.DataFrame) -> pd.DataFrame:
    from trained_prompts.scoring import calibration_bins

    bins = calibration_bins(answered["probability"].to_numpy(), answered["correct"].to_numpy())
    return bins.assign(prompt=name, task=task.name)[CALIBRATION_COLUMNS]


def _changed(task: Task, table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The same examples with their inputs changed and the words of the template as they are."""
    before, _, after = task.template.partition("{input}")
    inner = [text[len(before) : len(text) - len(after)] for text in table["text"]]
    return table.assign(text=[before + change(text) + after for text in inner])


def _evaluate_all(prompts, task: Task | str, language_model, limit, report) -> pd.DataFrame:
    task = get_task(task) if isinstance(task, str) else task
    table = task.examples("held-out").head(limit)
    scores = []
    for i, (name, enter) in enumerate(prompts):

        def report_part(share: float, doing: str, i: int = i, name: str = name) -> None:
            report((i + share) / len(prompts), f"{doing}: {name}")

        if enter is None:
            scores.append(score_bare(task, table, language_model, report=report_part))
        else:
            with enter() as subject:
                scores.append(score(name, subject, task, table, report=report_part))
    return pd.concat(scores, ignore_index=True)


# The bare model does not change: one score a process, by model, task and number of examples. A model that is let go takes its scores along.
_BARE: WeakKeyDictionary[object, dict[tuple, pd.DataFrame]] = WeakKeyDictionary()


def score_bare(task: Task, table: pd.DataFrame, language_model, *, report: Report = no_report) -> pd.DataFrame:
    """`score` of the model as it is, on the first so many held-out examples; each is asked once a process."""
    kept = _BARE.setdefault(language_model[0], {})
    if (task, len(table)) not in kept:
        kept[task, len(table)] = score("no prompt", bare(language_model), task, table, report=report)
    return kept[task, len(table)]


def _choose_labels(subject: Adapted, task: Task, table: pd.DataFrame, report: Report) -> dict:
    from trained_prompts.batches import Example, encode

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


def _follow_text(subject: Adapted, task: Task, table: pd.DataFrame, report: Report) -> dict:
    """Greedy writing in one forward pass: as far as each next token is the wanted one, what was read is what would have been written."""
    from trained_prompts.batches import encode

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


def _write_text(subject: Adapted, task: Task, table: pd.DataFrame, report: Report) -> dict:
    from trained_prompts.batches import encode

    examples = encode(subject.tokenizer, table["text"], table["target"], begun=subject.begun)
    losses = np.empty(len(table))
    for index, log_probabilities in _log_probabilities(examples, subject, lambda share, doing: report(share / 3, doing)):
        answer = examples[index].answer
        losses[index] = -log_probabilities[np.arange(len(answer)), answer].mean()
    longest = max(len(example.answer) for example in examples) + MORE_TOKENS
    written = write(subject, table["text"].tolist(), longest, report=lambda share, doing: report((1 + 2 * share) / 3, doing))
    return {"answer": written["answer"].tolist(), "probability": written["probability"].to_numpy(), "loss": losses}


def write(subject: Adapted, texts: list[str], most: int, *, report: Report = no_report) -> pd.DataFrame:
    """What the model writes after each text, greedily, up to the end of the line or `most` tokens.

    Returns
    -------
    One row a text: answer, and probability, the product of its tokens' (that of the line's end with it).
    """
    import torch

    tokenizer, model = subject.tokenizer, subject.model
    ends = _line_ends(tokenizer)
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


def _line_ends(tokenizer) -> list[int]:
    """The ids of the tokens that end a line, and of those that end a text."""
    if tokenizer in _ENDS:
        return _ENDS[tokenizer]
    vocabulary = tokenizer.get_vocab()
    decoded = tokenizer.batch_decode([[i] for i in vocabulary.values()])
    ends = [i for i, text in zip(vocabulary.values(), decoded, strict=True) if "\n" in text]
    _ENDS[tokenizer] = sorted({*ends, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])})
    return _ENDS[tokenizer]


def _log_probabilities(examples, subject: Adapted, report: Report) -> Iterator[tuple[int, np.ndarray]]:
    """Each example's index and the log-probabilities at its answer positions, (length of the answer, V) float32."""
    import torch

    from trained_prompts.batches import answer_logits, check_lengths

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
