"""Texts in a prompt's place: the share of its behaviour that each recovers on held-out inputs, beside examples of other tasks, shuffled answers and random words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.asking import read_once
from soft_prompt_explorer.analysis.asking.in_front import bare
from soft_prompt_explorer.analysis.asking.read_once import ReadOnce
from soft_prompt_explorer.analysis.asking.scores import score
from soft_prompt_explorer.analysis.behaviour import translation_candidates as candidates
from soft_prompt_explorer.analysis.behaviour.of_task import with_rows
from soft_prompt_explorer.analysis.behaviour.translation_candidates import CONTROL, Candidate, Inputs
from soft_prompt_explorer.analysis.behaviour.translation_scores import (
    Behaviour,
    Told,
    behaviour_of,
    compared,
    filled,
    fitted_weights,
    log_probabilities,
    share,
    told,
    told_of_mixture,
)
from soft_prompt_explorer.analysis.behaviour.translation_search import searched
from soft_prompt_explorer.analysis.behaviour.unrelated import check_can_be_put, factors_in, factors_of
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.task import Task, in_one_line

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

COLUMNS = ["prompt", "path", "task", "candidate", "text", "tokens", "perplexity", "kl", "share", "share_low", "share_high", "same_answer", "control_share", "n", "chosen"]  # fmt: skip
NOTHING, MIXTURE = "nothing", "mixture"
CHOSEN, OTHERS, MIXED, CONTROLS = "the text that was chosen", "other texts", "a mixture of texts", "controls"
TEXTS_DRAWN, CONTROLS_DRAWN = 9, 4
EXPERTS = 5  # in the mixture, those that come nearest alone
LEAST_WEIGHT = 0.01
LEAST_KL = 1e-4  # nats, of an adapter that changes any answer at all
NEARLY_ALL, MOST = 0.9, 0.5  # shares, in the sentence; what recovers less does something else
TOLD_EXAMPLES = (1, 2, 4)  # and as many as are enough


def translate(
    adapter: SoftPrompt | LoraAdapter,
    language_model: LanguageModel,
    vocabulary: Vocabulary,
    inputs: Inputs,
    *,
    path: str = "",
    trained_on: str | None = None,
    search: int = 0,
    verbalised: bool = False,
    report: Report = no_report,
    row_made: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """What stands for an adapter as text, and how much of its behaviour each text recovers.

    The behaviour is the adapter's own greedy answer to each input, up to the line's end or 12 tokens. With something else in its place, KL is summed over the
    tokens of that answer.

    Parameters
    ----------
    inputs : of `inputs_of_task` or `inputs_of_lines`; examples, weights and a searched text are chosen on other inputs than the shares are told on.
    path : that the table tells.
    trained_on : the task that the adapter is known to be trained on, where `inputs` are of none.
    search : steps of the search by gradient for a text of ten tokens; 0 leaves it out.
    verbalised : whether what the model says of the prompt takes part, which takes half a minute more; of a LoRA or a prefix there is none.
    row_made : called with the table after each row; its control_share is missing until the controls are told.

    Returns
    -------
    A row a candidate: prompt, path, task, candidate, text (printable, so that a line's end is `\\n`; `copied` is its inverse), tokens, perplexity, kl (mean
    nats an answer), share and its 95 % interval share_low, share_high, same_answer (share of inputs with the same greedy answer whole), control_share (of the
    best control), n, and chosen: whether it is the text that comes nearest on the inputs that weights are fitted on, so that what is told of it is told on others.
    Candidates whose name begins with "control" are the controls.

    Raises
    ------
    AdapterError
        It does not fit the model.
    InputError
        It changes none of these answers, so that there is nothing to recover, or an input is too long.
    """
    check_can_be_put(adapter, language_model)
    tokenizer, template = language_model.tokenizer, inputs.template
    places = candidates.Places(tokenizer, tuple(filled(template, (*inputs.tell[:8], *inputs.fit[:4]))))

    def behave(some: Sequence[str], i: float, n: float) -> Behaviour:
        def report_part(share: float, doing: str) -> None:
            report(i + share * (n - i), f"{adapter.name}: {doing}")

        with _in_place(adapter, language_model) as before:
            return behaviour_of(before, some, template, report=report_part)

    tell = behave(inputs.tell, 0, 0.05)
    rows = _Rows(adapter, path, inputs, tell, language_model, row_made)
    rows.told_nothing()
    fit = behave(inputs.fit, 0.08, 0.1)
    experts = _Experts(fit, template, language_model)
    experts.offer(Candidate(NOTHING))
    nearest: list[tuple[float, str]] = []

    def candidate(each: Candidate) -> None:
        report(rows.share_done(), f"{adapter.name}: {each.name}")
        rows.add(each, told(each.read(language_model), tell, each.template or template))
        if each.vectors is None and not each.is_control:
            nearest.append((experts.offer(each), each.name))

    for each in (*candidates.of_the_adapter(adapter, vocabulary, places), *candidates.hand_written(inputs.task)):
        candidate(each)
    choose = behave(inputs.choose, 0.2, 0.22)
    if (described := candidates.description(inputs, choose, language_model, places)) is not None:
        candidate(described)
    if verbalised and isinstance(adapter, SoftPrompt) and adapter.kind == "soft_prompt":
        said = candidates.verbalised(adapter, language_model, report=report)
        if (best := candidates.best_of(said, "verbalised", choose, template, language_model, places)) is not None:
            candidate(best)
    pool = behave(inputs.pool, 0.25, 0.27)
    texts = candidates.example_texts(pool, tokenizer)

    def report_choice(share: float, doing: str) -> None:
        report(0.27 + 0.3 * share, f"{adapter.name}: {doing}")

    order = candidates.chosen_examples(texts, choose, template, language_model, places, report=report_choice)
    enough = 0
    if order:
        of_k = [places.candidate(candidates.counted(k), "".join(texts[i] for i in order[:k])) for k in range(1, len(order) + 1)]
        enough = 1 + int(np.argmin([experts.kl(each) for each in of_k]))
        for k in sorted({*(k for k in TOLD_EXAMPLES if k < enough), enough}):
            candidate(of_k[k - 1])
        if described is not None:
            candidate(places.candidate(f"description and {candidates.counted(enough)}", described.before + of_k[enough - 1].before))
    if search:
        candidate(places.candidate("search", searched(choose, template, language_model, steps=search, report=report)))
    rows.add_mixture(*experts.mixed())
    k, room = enough or candidates.MOST_EXAMPLES, candidates.room_for(tell, language_model)
    for each in candidates.of_other_tasks(inputs, k, room, places, trained_on):
        candidate(each)
    if order:
        candidate(candidates.shuffled_answers(pool, order[:enough], places))
    candidate(candidates.random_words(rows.tokens_of_the_best(), vocabulary, places))
    report(1.0, "ready")
    return rows.table(done=True, chosen=min(nearest)[1] if nearest else None)


@contextmanager
def _in_place(adapter: SoftPrompt | LoraAdapter, language_model: LanguageModel) -> Iterator[ReadOnce]:
    """The model with the adapter before it or in it."""
    if isinstance(adapter, LoraAdapter):
        with factors_in(language_model.model, factors_of(adapter)):
            yield read_once.nothing(language_model)
    else:
        yield (read_once.prefix if adapter.kind == "prefix" else read_once.virtual_tokens)(language_model, adapter.embeddings)


class _Rows:
    """The table as it grows."""

    def __init__(self, adapter, path: str, inputs: Inputs, tell: Behaviour, language_model: LanguageModel, row_made) -> None:
        self._of = (adapter.name, path, inputs.name)
        self._inputs, self._tell, self._language_model, self._row_made = inputs, tell, language_model, row_made
        self._rows: list[tuple] = []
        self._nothing = np.empty(0)

    def told_nothing(self) -> None:
        without = told(read_once.nothing(self._language_model), self._tell, self._inputs.template)
        if without.kl.mean() < LEAST_KL:
            raise InputError(
                f"With {self._of[0]} the model answers these inputs as it does without; there is nothing that a text could recover. Ask it in the way that it was trained."
            )
        self._nothing = without.kl
        self.add(Candidate(NOTHING), without)

    def add(self, candidate: Candidate, found: Told) -> None:
        tokens = candidates.tokens_of(candidate, self._language_model.tokenizer)
        surprise = candidates.perplexity(candidate, self._inputs.tell[0], self._language_model)
        self._add(candidate.name, candidate.text, tokens, surprise, found)

    def add_mixture(self, experts: Sequence[Candidate], weights: np.ndarray) -> None:
        if not experts:
            return
        read = [(each.read(self._language_model), each.template or self._inputs.template) for each in experts]
        text = " + ".join(f"{weight:.2f} × {each.name}" for each, weight in zip(experts, weights, strict=True))
        tokens = sum(candidates.tokens_of(each, self._language_model.tokenizer) for each in experts)
        self._add(MIXTURE, text, tokens, math.nan, told_of_mixture(read, weights, self._tell))

    def _add(self, name: str, text: str, tokens: int, surprise: float, found: Told) -> None:
        shares = share(found.kl, self._nothing)
        n = len(found.kl)
        self._rows.append(
            (*self._of, name, printable(text), tokens, surprise, found.kl.mean(), *shares, found.same.mean(), math.nan, n, False)
        )
        self._row_made(self.table())

    def table(self, *, done: bool = False, chosen: str | None = None) -> pd.DataFrame:
        table = pd.DataFrame(self._rows, columns=COLUMNS)
        table["chosen"] = table["candidate"] == chosen
        if done:
            table["control_share"] = table.loc[table["candidate"].str.startswith(CONTROL), "share"].max()
        return table

    def share_done(self) -> float:
        """About how much of the work is done, as rows go."""
        table = self.table()
        examples = int(table["candidate"].str.contains(r"\d examples?$").sum())
        controls = int(table["candidate"].str.startswith(CONTROL).sum())
        return min(
            0.99, 0.08 + 0.015 * (len(table) - examples - controls) if not examples + controls else 0.57 + 0.03 * (examples + controls)
        )

    def tokens_of_the_best(self) -> int:
        table = self.table()
        texts = table[table.apply(_is_text, axis=1)]
        return int(texts.loc[texts["share"].idxmax(), "tokens"]) if len(texts) else candidates.MOST_EXAMPLES


class _Experts:
    """The texts that come nearest to the adapter on the inputs that weights are fitted on, with the log-probabilities that the fit needs."""

    def __init__(self, fit: Behaviour, template: str, language_model: LanguageModel) -> None:
        self._fit, self._template, self._language_model = fit, template, language_model
        self._kept: list[tuple[float, Candidate, list[torch.Tensor]]] = []

    def _asked(self, candidate: Candidate) -> list[torch.Tensor]:
        found: list[torch.Tensor] = [torch.empty(0)] * len(self._fit.inputs)
        for i, log_q in log_probabilities(candidate.read(self._language_model), self._fit, candidate.template or self._template):
            found[i] = log_q
        return found

    def kl(self, candidate: Candidate) -> float:
        return float(told(candidate.read(self._language_model), self._fit, candidate.template or self._template).kl.mean())

    def offer(self, candidate: Candidate) -> float:
        """Take a candidate into account; answers its mean KL on the inputs that weights are fitted on, in nats."""
        asked = self._asked(candidate)
        kl = float(np.mean([compared(self._fit, i, each)[0] for i, each in enumerate(asked)]))
        self._kept = sorted([*self._kept, (kl, candidate, asked)], key=lambda each: each[0])[:EXPERTS]
        return kl

    def mixed(self) -> tuple[list[Candidate], np.ndarray]:
        """Those that count in the mixture, and their weights."""
        answers = [[each[:length] for each, length in zip(asked, self._fit.lengths, strict=True)] for _, _, asked in self._kept]
        weights = fitted_weights(self._fit.log_p, answers)
        used = [i for i, weight in enumerate(weights) if weight >= LEAST_WEIGHT]
        return [self._kept[i][1] for i in used], weights[used]


def copied(text: str) -> str:
    """A text of the table as it is to be copied: the inverse of `printable` for text.

    >>> copied("Word: big\\\\nOpposite: small\\\\n")
    'Word: big\\nOpposite: small\\n'
    """
    return re.sub(
        r"\\(?:[nrt\\]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})", lambda found: found[0].encode("ascii").decode("unicode_escape"), text
    )


def _is_text(row: pd.Series) -> bool:
    """Whether a row is a text that can be copied and is no control."""
    return bool(row["text"]) and row["candidate"] not in (NOTHING, MIXTURE) and not row["candidate"].startswith(CONTROL)


def best_text(table: pd.DataFrame) -> pd.Series | None:
    """The text that was chosen on other inputs than its share is told on; None where there is none."""
    texts = table[table.apply(_is_text, axis=1) & table["chosen"]]
    return None if not len(texts) or texts["share"].isna().all() else texts.iloc[0]


def what_it_does(table: pd.DataFrame) -> pd.Series | None:
    """The text that says what an adapter does: the chosen one, where it recovers half or more, half or more of the answers are the same, and its whole interval
    lies above 0 and those of all controls; else None."""
    best, controls = best_text(table), table.loc[table["candidate"].str.startswith(CONTROL), "share_high"]
    if best is None or min(best["share"], best["same_answer"]) < MOST or not best["share_low"] > max(0.0, controls.max()):
        return None
    return best


def sentence(table: pd.DataFrame) -> str:
    """What a table of one adapter comes to."""
    name, best = table["prompt"].iloc[0], best_text(table)
    controls = table[table["candidate"].str.startswith(CONTROL)]
    if best is None or not len(controls):
        return f"No text was found that could stand in the place of {name}."
    control = controls.loc[controls["share"].idxmax()]
    low, high = (f"{best[bound]:.2f}" for bound in ("share_low", "share_high"))
    does = f"{best['share']:.2f} ({low} to {high}) of what it changes in the model's answers".replace("-0.", "−0.")
    beside = f"the best control, {control['candidate'].removeprefix(CONTROL)}, recovers {control['share']:.2f}"
    beside = f"{beside} ({control['share_low']:.2f} to {control['share_high']:.2f})".replace("-0.", "−0.")
    if what_it_does(table) is None:
        return f"No text says what {name} does: the best, {best['candidate']}, recovers {does}, with {best['same_answer']:.0%} of {best['n']} answers the same, and {beside}."
    most = "Nearly all" if best["share"] >= NEARLY_ALL else "Most"
    recovers = "recover" if best["candidate"].endswith("examples") else "recovers"
    return (
        f"{most} of what {name} does, a text does in its place: {best['candidate']} {recovers} {does}, and {best['same_answer']:.0%} of {best['n']} answers are the "
        f"same; {beside}. The text begins {in_one_line(copied(best['text']), 80)}."
    )


def told_in_a_figure(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of one adapter that a figure shows: the best texts, the chosen one among them whatever it recovers, and the best controls below, without what their names begin with.
    The column `kind` says what each is."""
    table = table[table["candidate"] != NOTHING].sort_values("share", ascending=False)
    control = table["candidate"].str.startswith(CONTROL)
    kind = (
        pd.Series(OTHERS, index=table.index)
        .mask(control, CONTROLS)
        .mask(table["candidate"] == MIXTURE, MIXED)
        .mask(table["chosen"], CHOSEN)
    )
    table = table.assign(kind=kind, candidate=table["candidate"].str.removeprefix(CONTROL))
    texts = table[~control]
    texts = texts[(np.arange(len(texts)) < TEXTS_DRAWN) | texts["chosen"]]
    return pd.concat([texts, table[control].head(CONTROLS_DRAWN)], ignore_index=True)


def carry(text: str, task: Task | str, model: str | LanguageModel, *, limit: int | None = 60, report: Report = no_report) -> pd.DataFrame:
    """How well a text does on another model, before a task's template: what a prompt was tuned to do, carried elsewhere as words.

    Parameters
    ----------
    text : that stands before the template, or with `{input}` in it, in its place.
    model : its name, or a loaded one.

    Returns
    -------
    Two rows, "no text" and "text", of the columns of `analysis.asking.scores.score`.

    Raises
    ------
    ModelError
        The model is not installed.
    InputError
        There is no such task, or it has no held-out examples.
    """
    task = get_task(task) if isinstance(task, str) else task
    loaded = load_model(model, report=report) if isinstance(model, str) else model
    table = task.examples("held-out").head(limit)
    rows = [score("no text", bare(loaded), task, table, report=report)]
    if "{input}" in text:
        asked = task.asked_with(text)
        rows.append(score("text", bare(loaded), asked, asked.examples("held-out").head(limit), report=report))
    else:
        ids = loaded.tokenizer(text).input_ids
        with torch.inference_mode():
            read = loaded.model.get_input_embeddings()(torch.tensor(ids, device=loaded.model.device)).float().cpu().numpy()
        rows.append(score("text", replace(with_rows(loaded, read), begun=True), task, table, report=report))
    return pd.concat(rows, ignore_index=True)
