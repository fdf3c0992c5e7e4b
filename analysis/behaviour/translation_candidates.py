"""What could stand in a prompt's place as text: its start, its nearest words, what a person would write, examples that it answered itself; and the controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.asking import read_once
from soft_prompt_explorer.analysis.asking.read_once import ReadOnce
from soft_prompt_explorer.analysis.behaviour.inside import hidden_states
from soft_prompt_explorer.analysis.behaviour.translation_scores import ANSWER, Behaviour, filled, told
from soft_prompt_explorer.analysis.behaviour.verbalisation import place_for, written_with
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.analysis.prompts.search import nearest
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.analysis.tasks.task import Task

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

MOST_EXAMPLES = 8
POOL, CHOOSE, FIT = 24, 16, 24  # inputs: that examples are chosen from, that they are chosen on, that weights are fitted on
TRIED = 8  # examples of the pool, drawn anew, that each step of the choice tries
FEWEST = 12  # inputs in all
SEED = 20_264
CONTROL = "control: "
LAYERS_APART = 6  # of the grid that is verbalised from and into


@dataclass(frozen=True)
class Inputs:
    """Inputs without answers, in four parts that share none.

    Attributes
    ----------
    name : of the task, or of the file that they are from.
    template : that the adapter is asked with.
    pool, choose, fit : examples are made of the first, chosen on the second; weights are fitted on the third, and how many examples are enough.
    tell : the shares are told on these, and nothing is chosen on them.
    task : where they are a task's.
    """

    name: str
    template: str
    pool: tuple[str, ...]
    choose: tuple[str, ...]
    fit: tuple[str, ...]
    tell: tuple[str, ...]
    task: Task | None = None


def inputs_of_task(task: Task, *, limit: int = 60) -> Inputs:
    """Training inputs to choose and to fit on, and the first so many held-out ones to tell the shares on.

    Raises
    ------
    InputError
        The task has too few inputs.
    """
    tell = list(dict.fromkeys(task.examples("held-out", template="{input}")["text"]))[:limit]
    others = [each for each in dict.fromkeys(task.examples("train", template="{input}")["text"]) if each not in set(tell)]
    if not tell or len(tell) + len(others) < FEWEST or len(others) < 3:
        raise InputError(
            f"The task {task.name} has {len(others)} inputs to choose on and {len(tell)} held-out ones; {FEWEST} in all are the fewest, give it more."
        )
    return Inputs(task.name, task.template, *_parted(others), tuple(tell), task)


def inputs_of_lines(lines: Sequence[str], template: str, *, name: str, limit: int = 60) -> Inputs:
    """Inputs that have no answers, all parts drawn from them: the shares are told on half of them, and on so many at most.

    Raises
    ------
    InputError
        They are too few.
    """
    different = list(dict.fromkeys(line for line in lines if line.strip()))
    if len(different) < FEWEST:
        raise InputError(f"These are {len(different)} different inputs, and {FEWEST} are the fewest; give more, a line each.")
    order = np.random.default_rng(SEED).permutation(len(different))
    tell = min(limit, len(different) // 2)
    return Inputs(name, template, *_parted([different[i] for i in order[tell:]]), tuple(different[i] for i in order[:tell]))


def _parted(inputs: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The pool, those to choose on and those to fit on, smaller where there are few."""
    drawn = [inputs[i] for i in np.random.default_rng(SEED).permutation(len(inputs))]
    some = min(1.0, len(inputs) / (POOL + CHOOSE + FIT))
    first, second = max(1, int(some * POOL)), max(2, int(some * (POOL + CHOOSE)))
    return tuple(drawn[:first]), tuple(drawn[first:second]), tuple(drawn[second : POOL + CHOOSE + FIT])


@dataclass(frozen=True, eq=False)
class Candidate:
    """Something in an adapter's place.

    Attributes
    ----------
    before : the text that stands before each filled template.
    ids : its tokens, as they are where the template follows.
    template : in place of the adapter's own; None for that.
    vectors : (n, d), of a start that is no text.
    """

    name: str
    before: str = ""
    ids: tuple[int, ...] = ()
    template: str | None = None
    vectors: np.ndarray | None = None

    @property
    def text(self) -> str:
        """What is to be copied: the text, or the template with `{input}` in it."""
        return self.before if self.template is None else self.before + self.template

    @property
    def is_control(self) -> bool:
        return self.name.startswith(CONTROL)

    def read(self, language_model: LanguageModel) -> ReadOnce:
        """The model after it."""
        if self.vectors is not None:
            return read_once.virtual_tokens(language_model, self.vectors)
        return read_once.nothing(language_model).then(self.ids)


@dataclass(frozen=True, eq=False)
class Places:
    """How texts are put before inputs, so that what was scored is what a person who copies the text gets.

    Attributes
    ----------
    followed_by : the filled templates that a text has to stand before.
    """

    tokenizer: Any
    followed_by: tuple[str, ...]

    def candidate(self, name: str, before: str) -> Candidate:
        """The text as a candidate, with a line's end after it where its last token would else be merged with the input's first."""
        for text in (before, before + "\n"):
            ids = [self.ids(text, probe) for probe in self.followed_by]
            if None not in ids and len(set(ids)) == 1 and ids[0] is not None:
                return Candidate(name, text, ids[0])
        return Candidate(name, before + "\n", tuple(self.tokenizer(before + "\n").input_ids))

    def ids(self, before: str, probe: str) -> tuple[int, ...] | None:
        """The tokens of the text where another follows that keeps its own; None where it does not."""
        whole, own = self.tokenizer(before + probe).input_ids, self.tokenizer(probe, add_special_tokens=False).input_ids
        count = len(whole) - len(own)
        return tuple(whole[:count]) if count >= 0 and whole[count:] == own else None


def of_the_adapter(adapter: SoftPrompt | LoraAdapter, vocabulary: Vocabulary, places: Places) -> list[Candidate]:
    """The start of a soft prompt, as text where its rows are a vocabulary's, and its nearest words; nothing of a LoRA or a prefix."""
    if isinstance(adapter, LoraAdapter) or adapter.kind != "soft_prompt":
        return []
    found = []
    if adapter.initial is not None:
        ids = nearest(adapter.initial, vocabulary, top_k=1)[0][:, 0]
        if np.allclose(vocabulary.embeddings[ids], adapter.initial, atol=1e-4):
            found.append(places.candidate("start", places.tokenizer.decode(ids.tolist())))
        else:
            found.append(Candidate("start", vectors=adapter.initial))
    ids = nearest(adapter.embeddings, vocabulary, top_k=1)[0][:, 0]
    return [*found, places.candidate("nearest words", places.tokenizer.decode(ids.tolist()))]


def hand_written(task: Task | None) -> list[Candidate]:
    """What a person would write for a task."""
    return [Candidate(f"hand-written {i}", template=template) for i, template in enumerate(task.prompts if task else (), start=1)]


def description(inputs: Inputs, choose: Behaviour, language_model: LanguageModel, places: Places) -> Candidate | None:
    """What the task asks for, in words; of inputs of no known task, the description of that task that fits best."""
    told_by = [inputs.task.description] if inputs.task else [task.description for task in TASKS.values()]
    return best_of([f"{each}\n\n" for each in told_by if each], "description", choose, inputs.template, language_model, places)


def best_of(
    texts: Sequence[str], name: str, choose: Behaviour, template: str, language_model: LanguageModel, places: Places
) -> Candidate | None:
    """The text that comes nearest to the adapter; None of none."""
    candidates = [places.candidate(name, text) for text in texts]
    if len(candidates) <= 1:
        return candidates[0] if candidates else None
    kls = [told(each.read(language_model), choose, template).kl.mean() for each in candidates]
    return candidates[int(np.argmin(kls))]


def verbalised(prompt: SoftPrompt, language_model: LanguageModel, *, report: Report = no_report) -> list[str]:
    """What the model writes when the prompt's states are put into another text, from and into every sixth layer; see `verbalisation`."""
    ids, positions, sources, targets = place_for(len(prompt), language_model, every=LAYERS_APART)
    states = hidden_states(prompt.embeddings, language_model.model)[sources]
    texts: list[str] = []
    for i, target in enumerate(targets):
        report(i / len(targets), "putting the prompt into words")
        texts += written_with(states, language_model, ids, positions, target)
    return [f"{text.strip()}\n\n" for text in dict.fromkeys(texts) if text.strip()]


def example_texts(behaviour: Behaviour, tokenizer) -> list[str]:
    """Each input with the adapter's own answer and a blank line after it; empty where it answered nothing."""
    return [
        f"{text}{answer}\n\n" if answer.strip() else "" for text, answer in zip(behaviour.texts, behaviour.written(tokenizer), strict=True)
    ]


def chosen_examples(
    texts: Sequence[str], choose: Behaviour, template: str, language_model: LanguageModel, places: Places, *, report: Report = no_report
) -> list[int]:
    """Up to eight examples, each the one among eight drawn of the pool that, written after those chosen before, brings the model nearest to the adapter.

    Parameters
    ----------
    texts : of the pool.

    Returns
    -------
    Their indices, in the order in which they are written.
    """
    head = tuple(language_model.tokenizer("").input_ids)
    encoded = [places.candidate("", text).ids[len(head) :] if text else () for text in texts]
    room = room_for(choose, language_model)
    rng = np.random.default_rng(SEED)
    chosen: list[int] = []
    begun = read_once.nothing(language_model).then(head)
    for step in range(MOST_EXAMPLES):
        left = [i for i, ids in enumerate(encoded) if ids and i not in chosen and begun.length + len(ids) <= room]
        tried = sorted(rng.permutation(left)[:TRIED].tolist())
        if not tried:
            break
        kls = []
        for j, i in enumerate(tried):
            report((step + j / len(tried)) / MOST_EXAMPLES, "choosing examples")
            kls.append(told(begun.then(encoded[i]), choose, template).kl.mean())
        best = tried[int(np.argmin(kls))]
        chosen.append(best)
        begun = begun.then(encoded[best])
    return chosen


def room_for(behaviour: Behaviour, language_model: LanguageModel) -> int:
    """How many tokens can stand before these inputs."""
    context = getattr(language_model.model.config.get_text_config(), "max_position_embeddings", None) or 2**20
    longest = max(len(ids) for ids in language_model.tokenizer(list(behaviour.texts)).input_ids)
    return int(context) - longest - 2 * ANSWER


def of_other_tasks(inputs: Inputs, k: int, room: int, places: Places, known: str | None = None) -> list[Candidate]:
    """As many training examples of each other task, with their true answers; fewer where they are too long for the model.

    Parameters
    ----------
    known : the task that the adapter is known to be trained on, which is no other one.
    """
    found = []
    for name, task in TASKS.items():
        if name in (inputs.name, known):
            continue
        table = task.examples("train").head(k)
        texts = [f"{text}{target}\n\n" for text, target in zip(table["text"], table["target"], strict=True)]
        while texts and len(places.tokenizer("".join(texts)).input_ids) > room:
            texts.pop()
        if texts:
            found.append(places.candidate(f"{CONTROL}{counted(len(texts))} of {name}", "".join(texts)))
    return found


def shuffled_answers(pool: Behaviour, chosen: Sequence[int], places: Places) -> Candidate:
    """The same examples, the answers dealt out anew among them; a single one gets another's of the pool."""
    answers = pool.written(places.tokenizer)
    own = [answers[i] for i in chosen]
    rng = np.random.default_rng(SEED)
    dealt = own
    for _ in range(100):
        dealt = [own[i] for i in rng.permutation(len(own))]
        if dealt != own:
            break
    if dealt == own:
        others = [answer for answer in answers if answer.strip() and answer not in own] or own
        dealt = [others[int(rng.integers(len(others)))] for _ in own]
    text = "".join(f"{pool.texts[i]}{answer}\n\n" for i, answer in zip(chosen, dealt, strict=True))
    return places.candidate(f"{CONTROL}{counted(len(chosen))}, answers shuffled", text)


def random_words(tokens: int, vocabulary: Vocabulary, places: Places) -> Candidate:
    """Words drawn at random, as many tokens of them."""
    words = [token for token in vocabulary.tokens if token.startswith(" ") and token[1:].isascii() and token[1:].isalpha()]
    words = words or [token for token in vocabulary.tokens if token.isascii() and token.isalpha()] or list(vocabulary.tokens)
    drawn = np.random.default_rng(SEED).integers(len(words), size=max(1, tokens))
    return places.candidate(f"{CONTROL}random words", "".join(words[i] for i in drawn))


def counted(k: int) -> str:
    """`1 example`, `8 examples`."""
    return f"{k} example{'s' if k > 1 else ''}"


def tokens_of(candidate: Candidate, tokenizer) -> int:
    """How many tokens the text has, without the input in it; of vectors, how many they are."""
    if candidate.vectors is not None:
        return len(candidate.vectors)
    if candidate.template is None:
        return len(candidate.ids) - len(tokenizer("").input_ids) if candidate.ids else 0
    return len(tokenizer(candidate.text.replace("{input}", ""), add_special_tokens=False).input_ids)


def perplexity(candidate: Candidate, given: str, language_model: LanguageModel) -> float:
    """Of the text's tokens after its first, under the model as it is; NaN where there are none.

    Parameters
    ----------
    given : an input, which stands in a template's place for it.
    """
    model, tokenizer = language_model
    ids = tokenizer(filled(candidate.text, [given])[0]).input_ids if candidate.template else list(candidate.ids)
    if candidate.vectors is not None or len(ids) < 2:
        return math.nan
    with torch.inference_mode():
        log_p = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, :-1].float().log_softmax(dim=-1)
    return math.exp(-float(log_p[torch.arange(len(ids) - 1), ids[1:]].mean()))
