"""Can the model say in words what a prompt asks for? Its hidden states are put in the place of some words of another text, and the model goes on writing.

In the manner of Patchscopes (Ghandeharioun et al. 2024, section 3) and InSPEcT (Ramati et al. 2024), which patches the states of a soft prompt into a text that
lists tasks and what they ask for. What is written is compared with the description of the prompt's own task and with those of all other tasks: these are chance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.behaviour.inside import hidden_states, layers_of
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.words import p_said, printable
from soft_prompt_explorer.analysis.models.weights import LanguageModel

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

COLUMNS = ["source_layer", "target_layer", "text", "rouge_1", "rouge_1_others", "answer_words", "answer_words_others"]
PLACEHOLDER = " x"
# Tasks that no prompt here was trained for, so that their words speak for none of those that were.
BEFORE = (
    "Each line shows a code, and then says what the task behind the code is.\n"
    "sun sun sun: Translate the text into Spanish.\n"
    "oak oak oak: Count how many vowels there are.\n"
    "tin tin tin: Put the paragraphs of the story into the right order.\n"
)
AFTER = ":"
WRITTEN = 20  # tokens at most
EVERY = 3  # layers between those of the grid


def grid(model, every: int = EVERY) -> tuple[list[int], list[int]]:
    """The layers that states are taken from, and those whose input they are put into: every so many, and the last."""
    count = len(layers_of(model))
    return sorted({*range(0, count + 1, every), count}), sorted({*range(0, count, every), count - 1})


def verbalise(
    embeddings: np.ndarray,
    language_model: LanguageModel,
    task: str,
    descriptions: Mapping[str, str],
    answers: Mapping[str, Sequence[str]],
    *,
    every: int = EVERY,
    report: Report = no_report,
) -> pd.DataFrame:
    """What the model writes of a prompt, for each layer that its states are taken from and each that they are put into.

    Parameters
    ----------
    embeddings : (n, d) virtual tokens.
    task : the prompt's own, a key of `descriptions`.
    descriptions : of every task, in words; those of other tasks than the prompt's are chance.
    answers : the words that each task is answered with.
    every : see `grid`.

    Returns
    -------
    A row a pair of layers: source_layer (0: the virtual tokens themselves), target_layer (the layer whose input is replaced, from 0), text, rouge_1 (F, with the
    task's description), rouge_1_others (the mean over the other descriptions), answer_words (share of the text's words that are answers of the task),
    answer_words_others (the mean over the other tasks).

    Raises
    ------
    InputError
        The task has no description.
    """
    if task not in descriptions:
        raise InputError(f"The task {task} has no description to compare with.")
    ids, positions, sources, targets = place_for(len(embeddings), language_model, every=every)
    states = hidden_states(embeddings, language_model.model)[sources]
    rows = []
    for i, target in enumerate(targets):
        report(i / len(targets), f"writing with the states put into layer {target}")
        texts = written_with(states, language_model, ids, positions, target)
        rows += [(source, target, text) for source, text in zip(sources, texts, strict=True)]
    report(1.0, "ready")
    return scored(pd.DataFrame(rows, columns=COLUMNS[:3]), task, descriptions, answers)


def place_for(count: int, language_model: LanguageModel, *, every: int = EVERY) -> tuple[list[int], range, list[int], list[int]]:
    """The tokens of the text that the states of so many virtual tokens are put into, their positions there, and the layers of `grid`."""
    tokenizer = language_model.tokenizer
    head, tail = tokenizer(BEFORE).input_ids, tokenizer(AFTER, add_special_tokens=False).input_ids
    placeholder = tokenizer(PLACEHOLDER, add_special_tokens=False).input_ids[:1]
    return [*head, *placeholder * count, *tail], range(len(head), len(head) + count), *grid(language_model.model, every)


def first_word_with(
    states: torch.Tensor, language_model: LanguageModel, ids: Sequence[int], positions: Sequence[int], layer: int
) -> np.ndarray:
    """The log-probabilities of what comes first after the text of `written_with`: (ways, V) float32."""
    model = language_model.model
    batch = torch.tensor([list(ids)] * len(states), device=model.device)
    with _replaced(layers_of(model)[layer], list(positions), states.to(model.device)), torch.inference_mode():
        return model(input_ids=batch, use_cache=False, logits_to_keep=1).logits[:, -1].float().log_softmax(dim=-1).cpu().numpy()


def written_with(
    states: torch.Tensor, language_model: LanguageModel, ids: Sequence[int], positions: Sequence[int], layer: int, *, most: int = WRITTEN
) -> list[str]:
    """What the model writes after a text, greedily, when other states stand at some of its positions.

    Parameters
    ----------
    states : (ways, positions, d), a text for each way.
    ids : the tokens of the text.
    positions : of the text, whose state before `layer` is replaced.

    Returns
    -------
    A text for each way, up to the end of the line or `most` tokens.
    """
    model, tokenizer = language_model
    batch = torch.tensor([list(ids)] * len(states), device=model.device)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    with _replaced(layers_of(model)[layer], list(positions), states.to(model.device)), torch.inference_mode():
        output = model.generate(
            input_ids=batch, attention_mask=torch.ones_like(batch), max_new_tokens=most, do_sample=False, pad_token_id=pad
        )
    lines = (tokenizer.decode(row, skip_special_tokens=True).split("\n")[0].strip() for row in output[:, len(ids) :])
    return [printable(line) for line in lines]


@contextmanager
def _replaced(layer: torch.nn.Module, positions: list[int], states: torch.Tensor):
    """The input of a layer with other states at some positions, while the text itself is read; what is written after it is left alone."""

    def hook(module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.shape[1] <= positions[-1]:
            return None
        hidden = hidden.clone()
        hidden[:, positions] = states.to(hidden.dtype)
        return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def scored(table: pd.DataFrame, task: str, descriptions: Mapping[str, str], answers: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """What was written, compared with the task's description and answers and with those of all others; columns of `verbalise`."""
    others = [name for name in descriptions if name != task]
    rouge = {name: [rouge_1(description, text) for text in table["text"]] for name, description in descriptions.items()}
    words = {name: [_share_of_answers(text, answers.get(name, ())) for text in table["text"]] for name in descriptions}
    return table.assign(
        rouge_1=rouge[task],
        rouge_1_others=np.mean([rouge[name] for name in others], axis=0) if others else np.nan,
        answer_words=words[task],
        answer_words_others=np.mean([words[name] for name in others], axis=0) if others else np.nan,
    )[COLUMNS]


def by_task(table: pd.DataFrame, baseline: pd.DataFrame, descriptions: Mapping[str, str]) -> pd.Series:
    """By how much all that was written is likelier to each task's description (mean ROUGE-1) than what was written of the baseline, the highest first.

    Some descriptions are likelier to any text than others; a baseline, for instance the prompt's initial values, takes that away.
    """

    def mean(texts: pd.Series, description: str) -> float:
        return float(np.mean([rouge_1(description, text) for text in texts]))

    gains = {name: mean(table["text"], description) - mean(baseline["text"], description) for name, description in descriptions.items()}
    return pd.Series(gains, name="rouge_1").sort_values(ascending=False, kind="stable")


def says(table: pd.DataFrame, baseline: pd.DataFrame, task: str, descriptions: Mapping[str, str]) -> str:
    """Whether what was written tells the task from others, in a sentence: the share of descriptions that gain as much as its own is the p-value."""
    gains = by_task(table, baseline, descriptions)
    p = float((gains >= gains[task]).mean())
    others = gains.drop(task)
    first = p <= 1 / len(gains) and gains[task] > 0
    return (
        f"Against its start, what the model writes gains {gains[task]:+.3f} in ROUGE-1 with the task's own description, and {others.mean():+.3f} with those of "
        f"{len(others)} other tasks (at most {others.max():+.3f}, with {others.idxmax()}); p {p_said(p)}. "
        + (
            f"Its own description gains most, which happens by chance once in {len(gains)} times."
            if first
            else "It does not tell the task from others: this model does not verbalise this prompt."
        )
    ).replace("-0.", "−0.")


def rouge_1(description: str, text: str) -> float:
    """ROUGE-1's F between a description and a text (Lin 2004), by `rouge-score`, with stems."""
    return _scorer().score(description, text)["rouge1"].fmeasure


def _scorer():
    global _SCORER
    if _SCORER is None:
        from rouge_score.rouge_scorer import RougeScorer

        _SCORER = RougeScorer(["rouge1"], use_stemmer=True)
    return _SCORER


_SCORER = None


def _share_of_answers(text: str, answers: Sequence[str]) -> float:
    words = re.findall(r"[\w’'-]+", text.lower())
    wanted = {answer.strip().lower() for answer in answers if len(answer.strip()) > 1}  # "a" is an article before it is an answer
    return sum(word in wanted for word in words) / len(words) if words else 0.0
