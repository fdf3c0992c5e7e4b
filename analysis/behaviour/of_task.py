"""A task's held-out examples, ready to be asked with any virtual tokens in front of them: what `analysis.behaviour.changes` needs of a task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.adapters.run_file import in_store, read_description
from soft_prompt_explorer.analysis.asking.answers import MORE_TOKENS, predictions, write
from soft_prompt_explorer.analysis.asking.batches import Example, answer_logits, check_lengths, encode
from soft_prompt_explorer.analysis.asking.in_front import Subject, bare, keys_and_values, with_prefix, with_prompt
from soft_prompt_explorer.analysis.behaviour.asked import RANKED_ON, Examples, behaviour
from soft_prompt_explorer.analysis.behaviour.changes import check_can_be_changed, discretised
from soft_prompt_explorer.analysis.behaviour.others import shipped_prompts
from soft_prompt_explorer.analysis.behaviour.resampling import Answers
from soft_prompt_explorer.analysis.behaviour.verdict import Judged, judge
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel, gains_from_16_bits, in_16_bits
from soft_prompt_explorer.analysis.models.words import word_ids
from soft_prompt_explorer.analysis.prompts.directions import TaskDirection, task_direction, unit_displacements
from soft_prompt_explorer.analysis.prompts.twins import twins_of
from soft_prompt_explorer.analysis.prompts.verdicts import moved_along_a_word, readings
from soft_prompt_explorer.analysis.tasks.scoring import SCORINGS
from soft_prompt_explorer.analysis.tasks.task import Task

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

WORDS_TESTED = 1_000  # answers of free text, at most
SIDE_COLUMNS = ["way", "reads", "answer", "rank", "token", "probability"]


def examples_of(task: Task, language_model: LanguageModel, *, limit: int | None = None) -> Examples:
    """The first so many held-out examples of a task, scored by its own measure.

    Raises
    ------
    InputError
        The task has no held-out examples.
    """
    table = task.examples("held-out").head(limit)
    if not len(table):
        raise InputError(f"The task {task.name} has no held-out examples to be asked; give it some.")
    measure, scored = next(iter(SCORINGS[task.scored_by].items()))

    def examples(model: Callable[[], LanguageModel], dtype: str, quick: Examples | None = None) -> Examples:
        def asker(some: pd.DataFrame) -> Callable[[np.ndarray | None, Report], Answers]:
            def ask(rows: np.ndarray | None, report: Report) -> Answers:
                answered = predictions(with_rows(model(), rows), task, some, report=report)
                return Answers(answered["loss"].to_numpy(np.float64), _counts(scored.counts, answered, task))

            return ask

        return Examples(task.name, measure, asker(table), scored.score, asker(table.head(RANKED_ON)), dtype, quick)

    quick = examples(cache(lambda: in_16_bits(language_model)), "bfloat16") if gains_from_16_bits(language_model) else None
    return examples(lambda: language_model, language_model.dtype, quick)


def behaviour_on(
    prompt: SoftPrompt, task: str, *, model: str | None = None, template: str | None = None, limit: int = 200, report: Report = no_report
) -> pd.DataFrame:
    """What the model does with the prompt changed, on the first so many held-out examples of a task: the table of the command `behaviour`.

    Parameters
    ----------
    task : a name that `spe tasks` lists, or the path of a file of examples.
    model : whose vocabulary and weights; the prompt's own when None.
    template : how the examples are asked, with `{input}` in it; what the prompt was trained with, if that is known, when None.

    Returns
    -------
    A row an intervention; see `analysis.behaviour.asked.behaviour`.

    Raises
    ------
    InputError
        There is no such model or task, or the prompt cannot be changed in this way.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> table = spe.behaviour(spe.load_adapter(spe.GALLERY / "number-words-random-3"), "number-words", limit=2)
    >>> table["intervention"].head(3).tolist()
    ['whole prompt', 'no prompt', 'initial values']
    """
    from soft_prompt_explorer.analysis.adapters.own_model import model_of
    from soft_prompt_explorer.analysis.behaviour.templates import how_asked
    from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
    from soft_prompt_explorer.analysis.models.weights import load_model
    from soft_prompt_explorer.analysis.prompts.starts import start_from_config

    check_can_be_changed(prompt)
    asked = how_asked(prompt, task, template).task
    vocabulary = load_vocabulary(model or model_of(prompt, report=report), report=report)
    examples = examples_of(asked, load_model(vocabulary.model, report=report), limit=limit)
    return behave(start_from_config(prompt, vocabulary), vocabulary, examples, asked, report=report)


def with_rows(language_model: LanguageModel, rows: np.ndarray | None) -> Subject:
    """The model with (m, d) virtual tokens in front of its input, which are read once: their keys and values stand before every example.

    A model that attends through a sliding window in some layers reads them before each example instead.
    """
    model = language_model.model
    if rows is None:
        return bare(language_model)
    if "sliding_attention" in (getattr(model.config.get_text_config(), "layer_types", None) or ()):
        return with_prompt(language_model, rows)
    return with_prefix(language_model, keys_and_values(model, rows))


def _counts(counts: Callable[[pd.DataFrame], np.ndarray], answered: pd.DataFrame, task: Task) -> np.ndarray:
    """What each unit adds to the sums; every label has its columns, whether or not it was answered this time."""
    if not task.labels or "group" in answered:
        return counts(answered)
    every = pd.DataFrame({"target": task.labels, "answer": task.labels})
    return counts(pd.concat([answered, every], ignore_index=True))[: len(answered)]


def behave(
    prompt: SoftPrompt,
    vocabulary: Vocabulary,
    examples: Examples,
    task: Task,
    *,
    twins: Sequence[SoftPrompt] | None = None,
    before: pd.DataFrame | None = None,
    only: Collection[str] | None = None,
    asked: dict[str, Answers] | None = None,
    report: Report = no_report,
    row_made: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """Every intervention on a prompt, its own task direction and its twins among them: `analysis.behaviour.asked.behaviour`, which tells of the table and the errors.

    Parameters
    ----------
    twins : those that lie in its folder, when None.
    """
    twins = twins_of([prompt]) if twins is None else twins
    direction = direction_of(prompt, vocabulary, task, twins=twins, report=report)
    return behaviour(
        prompt, vocabulary, examples, direction=direction, twins=twins, others=_other_directions(task, vocabulary),
        before=before, only=only, asked=asked, report=report, row_made=row_made,
    )  # fmt: skip


def _other_directions(task: Task, vocabulary: Vocabulary) -> np.ndarray:
    """The task directions of the prompts that ship for this model and were trained on other tasks, (k, d)."""
    others = (prompt for name, prompt in shipped_prompts(vocabulary.model) if name != task.name)
    directions = [unit_displacements([prompt], vocabulary).mean(axis=0) for prompt in others]
    return np.array(directions).reshape(-1, vocabulary.width)


def judged(
    prompt: SoftPrompt,
    vocabulary: Vocabulary,
    task: Task,
    table: pd.DataFrame,
    *,
    twins: Sequence[SoftPrompt] | None = None,
    report: Report = no_report,
) -> Judged:
    """What a table of `behave` comes to, together with the readings; `twins` as there."""
    twins = twins_of([prompt]) if twins is None else twins
    direction = direction_of(prompt, vocabulary, task, twins=twins, report=report)
    read = readings(prompt, vocabulary, report=report)
    return Judged(
        table,
        read,
        direction,
        judge(
            read,
            table,
            direction=direction,
            vocabulary=vocabulary,
            twins_moved=_moved(twins, vocabulary),
            scored=_scored(prompt, task, table),
        ),
    )


def _moved(twins: Sequence[SoftPrompt], vocabulary: Vocabulary) -> int | None:
    """The largest number of tokens of a twin that moved along a word, which would be called learned in a prompt; None without a twin."""
    return max((int(moved_along_a_word(readings(twin, vocabulary)).sum()) for twin in twins), default=None)


def _scored(prompt: SoftPrompt, task: Task, table: pd.DataFrame) -> str | None:
    """What the run that a prompt was read from scored on more examples than these, in words."""
    if prompt.source is None or in_store(prompt.source.path) is None:
        return None
    try:
        run = read_description(prompt.source.path)
        bare, trained = run["scores"]["no prompt"], run["scores"]["trained"]
    except (InputError, KeyError):
        return None
    if run["config"]["task"] != task.name or trained["n"] <= table["n"].iloc[0]:
        return None
    return (
        f"on {trained['n']:,} examples it scores {trained['score']:.3f} ({trained['low']:.3f} to {trained['high']:.3f}) and no prompt "
        f"{bare['score']:.3f} ({bare['low']:.3f} to {bare['high']:.3f})"
    )


def direction_of(
    prompt: SoftPrompt, vocabulary: Vocabulary, task: Task, *, twins: Sequence[SoftPrompt] | None = None, report: Report = no_report
) -> TaskDirection | None:
    """The prompt's task direction, tested on the task's answers; None where nothing is known to have moved.

    Of free text that is scored by what it has in common with an answer, no single words are the answer, and none are tested; nor are answers that start with
    no token of the vocabulary.
    """
    if prompt.initial is None or not (prompt.embeddings != prompt.initial).any():
        return None
    words = [] if task.scored_by == "rouge" else task.answer_words()[:WORDS_TESTED]
    try:
        word_ids(vocabulary, words)
    except InputError:
        words = []
    twins = twins_of([prompt]) if twins is None else twins
    return task_direction([prompt], vocabulary, words=words, twins=twins, report=report)


def side_by_side(
    prompt: SoftPrompt, vocabulary: Vocabulary, task: Task, given: str, language_model: LanguageModel, *, top_k: int = 5
) -> pd.DataFrame:
    """The same input answered in four ways: with no prompt, with the prompt, with its nearest words in its place, and with each hand-written prompt.

    Parameters
    ----------
    given : the input, without the task's template.

    Returns
    -------
    `top_k` rows a way: way, reads (the text before the answer, without the virtual tokens), answer (written greedily up to the end of the line), rank (from
    0), token, probability (of the answer's first token).

    Raises
    ------
    InputError
        The input is too long for the model.
    """
    model, tokenizer = language_model
    ways = [
        ("no prompt", None, task.template),
        (prompt.name, prompt.embeddings, task.template),
        ("its nearest words", discretised(prompt, vocabulary).embeddings, task.template),
        *((f"hand-written {i}", None, template) for i, template in enumerate(task.prompts, start=1)),
    ]
    answers = tokenizer(task.answer_words()[:WORDS_TESTED] or [" ."], add_special_tokens=False).input_ids
    longest = max(len(ids) for ids in answers) + MORE_TOKENS
    rows = []
    for way, values, template in ways:
        text, subject = template.replace("{input}", given), with_rows(language_model, values)
        (example,) = encode(tokenizer, [text], [" ."])
        check_lengths([Example(example.ids + (0,) * longest, ())], 0 if values is None else len(values), model.config)
        with torch.inference_mode():
            logits = answer_logits(subject.forward, [example], virtual_tokens=subject.virtual_tokens, device=model.device)[0]
        chances, ids = logits.float().softmax(dim=-1).topk(top_k)
        answer = write(subject, [text], longest)["answer"].iloc[0]
        for rank, (token, chance) in enumerate(zip(ids.tolist(), chances.tolist(), strict=True)):
            rows.append((way, text, printable(answer), rank, vocabulary.tokens[token], chance))
    return pd.DataFrame(rows, columns=SIDE_COLUMNS)
