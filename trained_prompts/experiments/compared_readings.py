"""The readings that the benchmark compares: each takes an adapter, the vocabulary and the model, and answers a score for every word, or for every task.

A reading of one's own is such a function too, and needs nothing from here: `python -m trained_prompts benchmark --reading my_module:my_function`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.asking import read_once
from soft_prompt_explorer.analysis.asking.batches import encode
from soft_prompt_explorer.analysis.asking.read_once import ReadOnce, answer_log_probabilities
from soft_prompt_explorer.analysis.behaviour.contextual import Index, index_of, states_at
from soft_prompt_explorer.analysis.behaviour.difference_lens import output_rows, pushed
from soft_prompt_explorer.analysis.behaviour.inside import final_norm_of, hidden_states
from soft_prompt_explorer.analysis.behaviour.lens_null import common_of, displaced, null_loras
from soft_prompt_explorer.analysis.behaviour.translation_candidates import LAYERS_APART
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch, factors_in, factors_of
from soft_prompt_explorer.analysis.behaviour.verbalisation import first_word_with, place_for
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.loras.ranks import singular_values
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.analysis.prompts.directions import unit_displacements, word_cosines
from soft_prompt_explorer.analysis.prompts.search import unit_rows
from soft_prompt_explorer.analysis.tasks.shipped import TASKS

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

Adapter = SoftPrompt | LoraAdapter
Reading = Callable[[Adapter, Vocabulary, LanguageModel], np.ndarray | dict[str, float] | None]
NULL_DRAWS = 60  # of the lens here: enough for a mean and a spread, where no p-value is told
SEED = 20_263
LEAST_KL = 1e-4  # nats, of all inputs of a task


def nearest_words(adapter: Adapter, vocabulary: Vocabulary, language_model: LanguageModel) -> np.ndarray | None:
    """The best centred cosine of each word with any virtual token; None of a LoRA, which has none."""
    if isinstance(adapter, LoraAdapter):
        return None
    tokens = unit_rows(adapter.embeddings - vocabulary.mean)
    best = np.empty(len(vocabulary))
    for start, rows in vocabulary.blocks():
        best[start : start + len(rows)] = (unit_rows(rows - vocabulary.mean) @ tokens.T).max(axis=1)
    return best


def task_direction(adapter: Adapter, vocabulary: Vocabulary, language_model: LanguageModel) -> np.ndarray | None:
    """The cosine of each word with what the displacements of the virtual tokens share; None of a LoRA."""
    if isinstance(adapter, LoraAdapter):
        return None
    if adapter.initial is None or np.array_equal(adapter.embeddings, adapter.initial):
        return np.zeros(len(vocabulary))
    return word_cosines(unit_displacements([adapter], vocabulary).mean(axis=0), vocabulary)


def logit_lens(adapter: Adapter, vocabulary: Vocabulary, language_model: LanguageModel) -> np.ndarray | None:
    """What the model would say next at the virtual tokens themselves, less the same at their start: the mean of the logits over positions; None of a LoRA."""
    if isinstance(adapter, LoraAdapter):
        return None
    model = language_model.model
    norm, output = final_norm_of(model), model.get_output_embeddings()
    states = [hidden_states(rows, model)[-1] for rows in (adapter.embeddings, adapter.initial) if rows is not None]
    with torch.inference_mode():
        read = [norm(state.to(model.device)).mean(dim=0) for state in states]
        change = read[0] - read[1] if len(read) == 2 else read[0]
        return output.weight.float().matmul(change.float()).cpu().numpy()


_indices: WeakKeyDictionary[object, Index] = WeakKeyDictionary()


def contextual_words(adapter: Adapter, vocabulary: Vocabulary, language_model: LanguageModel) -> np.ndarray | None:
    """How much nearer a virtual token's state comes to one of the word's in a sentence, at any of five layers, than any of the start's: the difference of the best
    centred cosines; −1 of a word that has no state in the index; None of a LoRA."""
    if isinstance(adapter, LoraAdapter):
        return None
    if language_model.model not in _indices:
        _indices[language_model.model] = index_of(language_model, vocabulary)
    index = _indices[language_model.model]
    best = [_best_in_context(rows, language_model, index) for rows in (adapter.embeddings, adapter.initial) if rows is not None]
    words, first = np.unique(index.token_ids, return_inverse=True)
    scores = np.full(len(vocabulary), -1.0)
    of_word = np.full((len(best), len(words)), -np.inf)
    for row, of_states in zip(of_word, best, strict=True):
        np.maximum.at(row, first, of_states)
    scores[words] = np.maximum(of_word[0] - (of_word[1] if len(best) == 2 else 0.0), -1.0)
    return scores


def _best_in_context(rows: np.ndarray, language_model: LanguageModel, index: Index) -> np.ndarray:
    """The best centred cosine of each state of an index with those of virtual tokens, over tokens and layers."""
    units = states_at(rows, language_model, index).astype(np.float32)
    return np.max([(of_layer.astype(np.float32) @ unit.T).max(axis=1) for of_layer, unit in zip(index.states, units, strict=True)], axis=0)


_watches: WeakKeyDictionary[object, Watch] = WeakKeyDictionary()
_nulls: dict[bytes, np.ndarray] = {}


def difference_lens(adapter: Adapter, vocabulary: Vocabulary, language_model: LanguageModel) -> np.ndarray:
    """How far each word's score in the difference lens stands out beside null adapters: of a prompt, displaced from the same start by the length of a word."""
    model = language_model.model
    if model not in _watches:
        _watches[model] = Watch(language_model)
    watch = _watches[model]
    if isinstance(adapter, LoraAdapter):
        with factors_in(model, factors := factors_of(adapter)):
            seen = watch.bare()
        without = watch.bare()
        # Null adapters with the singular values of the first one of its shape serve all of that shape: they are for the words' means and spreads alone.
        key = repr([(path, a.shape, b.shape) for path, (a, b) in factors.items()]).encode()
        if key not in _nulls:
            values = {path: singular_values(each) for path, each in adapter.modules.items()}
            drawn = islice(null_loras(factors, values, watch, np.random.default_rng(SEED)), NULL_DRAWS)
            _nulls[key] = np.array([one.states[:, -1].mean(0) - without.states[:, -1].mean(0) for one in drawn])
    elif adapter.initial is not None:
        seen, without = watch.of_rows(np.stack([adapter.embeddings, adapter.initial]))
        key = adapter.initial.tobytes()
        if key not in _nulls:
            lengths = np.full(len(adapter.initial), vocabulary.median_norm)
            rows = displaced(adapter.initial, lengths, NULL_DRAWS, np.random.default_rng(SEED))
            _nulls[key] = np.array([one.states[:, -1].mean(0) - without.states[:, -1].mean(0) for one in watch.of_rows(rows)])
    else:
        raise ValueError("The benchmark's prompts have initial values.")
    change = (seen.states - without.states)[:, -1].mean(0)
    output = output_rows(watch, common_of(watch, without))
    return pushed(change, _nulls[key][None], output, allowed=~vocabulary.special).z


_first_words_of_starts: dict[bytes, np.ndarray] = {}


def first_words(adapter: Adapter, vocabulary: Vocabulary, language_model: LanguageModel) -> np.ndarray | None:
    """What the model would write first of the states of the virtual tokens, put into a text that says what tasks ask for, less the same of their start: the mean
    log-probabilities over every sixth layer that states are taken from and put into; None of a LoRA."""
    if isinstance(adapter, LoraAdapter):
        return None
    said = _first_words(adapter.embeddings, language_model)
    if adapter.initial is None:
        return said
    key = adapter.initial.tobytes()
    if key not in _first_words_of_starts:
        _first_words_of_starts[key] = _first_words(adapter.initial, language_model)
    return said - _first_words_of_starts[key]


def _first_words(rows: np.ndarray, language_model: LanguageModel) -> np.ndarray:
    ids, positions, sources, targets = place_for(len(rows), language_model, every=LAYERS_APART)
    states = hidden_states(rows, language_model.model)[sources]
    return np.mean([first_word_with(states, language_model, ids, positions, target).mean(axis=0) for target in targets], axis=0)


ASKED, SHOWN = 6, 4  # held-out inputs of each task that an adapter is asked, and examples that a text shows


class _Texts:
    """What the model answers to inputs of every task, as it is and after a text that says and shows the task: the log-probabilities of the first token."""

    def __init__(self, language_model: LanguageModel) -> None:
        self._examples = {
            name: encode(language_model.tokenizer, task.examples("held-out")["text"][:ASKED].tolist(), [" x"] * ASKED)
            for name, task in TASKS.items()
        }
        self.without = self.answers(read_once.nothing(language_model))
        self.after = {}
        for name, task in TASKS.items():
            shown = task.examples("train").head(SHOWN)
            text = f"{task.description}\n\n" + "".join(f"{a}{b}\n\n" for a, b in zip(shown["text"], shown["target"], strict=True))
            before = read_once.nothing(language_model).then(language_model.tokenizer(text).input_ids)
            self.after[name] = self.answers(before, [name])[name]

    def answers(self, before: ReadOnce, tasks: Sequence[str] = tuple(TASKS)) -> dict[str, torch.Tensor]:
        """Of each task the log-probabilities after each input, (inputs, V)."""
        examples = [replace(example, answer=example.answer[:1]) for name in tasks for example in self._examples[name]]
        rows = dict(answer_log_probabilities(before, examples))
        found = torch.cat([rows[i] for i in range(len(examples))]).split([len(self._examples[name]) for name in tasks])
        return dict(zip(tasks, found, strict=True))


_texts: WeakKeyDictionary[object, _Texts] = WeakKeyDictionary()


def examples_in_place(adapter: Adapter, vocabulary: Vocabulary, language_model: LanguageModel) -> dict[str, float]:
    """Translation, asked of every task: how many times nearer a text with the task's description and four of its examples comes to the adapter than nothing in
    its place does, as a logarithm of the ratio of KLs (0: as near as nothing; 1.6: a share of 0.8), in the first token after six other inputs of that task. It
    knows the tasks."""
    model = language_model.model
    if model not in _texts:
        _texts[model] = _Texts(language_model)
    texts = _texts[model]
    if isinstance(adapter, LoraAdapter):
        with factors_in(model, factors_of(adapter)):
            answered = texts.answers(read_once.nothing(language_model))
    else:
        answered = texts.answers(read_once.virtual_tokens(language_model, adapter.embeddings))
    nearer = {}
    for name, log_p in answered.items():
        without, after = (float((log_p.exp() * (log_p - log_q)).sum()) for log_q in (texts.without[name], texts.after[name]))
        nearer[name] = math.log(max(without, LEAST_KL) / max(after, LEAST_KL))
    return nearer


READINGS: dict[str, Reading] = {
    "nearest words": nearest_words,
    "task direction": task_direction,
    "logit lens": logit_lens,
    "contextual neighbours": contextual_words,
    "difference lens": difference_lens,
    "verbalisation, first word": first_words,
    "translation, of known tasks": examples_in_place,
}
