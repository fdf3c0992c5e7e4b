"""How much of what an adapter does a text in its place does: divergence of the answers, the share recovered, and the best mixture of several texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from soft_prompt_explorer.analysis.asking.answers import line_ends
from soft_prompt_explorer.analysis.asking.batches import Example
from soft_prompt_explorer.analysis.asking.read_once import ReadOnce, answer_log_probabilities, greedy
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.core.progress import Report, no_report

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

ANSWER = 12  # tokens of an answer, at most, with that which ends its line
RESAMPLES = 2_000
SEED = 20_263
MOST_WEIGHT = 10.0


@dataclass(frozen=True, eq=False)
class Behaviour:
    """What an adapter answers to some inputs.

    Attributes
    ----------
    inputs : as they stand in a template's place for them.
    texts : the filled templates.
    answers : the tokens of each answer, with the one that ends its line where it came to that.
    lengths : how many of them are the answer: without that which ends the line, but at least one. An adapter is trained on answers, not on what follows.
    log_p : of each answer, at each of its tokens, the adapter's log-probabilities of all tokens, (length, V) float32.
    """

    inputs: tuple[str, ...]
    texts: tuple[str, ...]
    answers: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...]
    log_p: tuple[torch.Tensor, ...]

    def written(self, tokenizer) -> list[str]:
        """Each answer as text, up to its line's end."""
        return [tokenizer.decode(list(answer), skip_special_tokens=True).split("\n")[0] for answer in self.answers]


def behaviour_of(adapter: ReadOnce, inputs: Sequence[str], template: str, *, report: Report = no_report) -> Behaviour:
    """The adapter's own greedy answers, up to the line's end or 12 tokens.

    Raises
    ------
    TooLongError
        An input does not fit into the model's context.
    """
    texts = filled(template, inputs)
    ends = line_ends(adapter.tokenizer)
    answered = greedy(adapter, texts, ends, ANSWER, report=report)
    answers = tuple(answer for answer, _ in answered)
    lengths = tuple(max(1, len(answer) - (answer[-1] in ends)) for answer in answers)
    log_p = tuple(each[:length].clone() for (_, each), length in zip(answered, lengths, strict=True))
    return Behaviour(tuple(inputs), tuple(texts), answers, lengths, log_p)


def filled(template: str, inputs: Sequence[str]) -> list[str]:
    """The template with each input in its place."""
    return [template.replace("{input}", given) for given in inputs]


@dataclass(frozen=True, eq=False)
class Told:
    """What a text in the adapter's place does, input by input.

    Attributes
    ----------
    kl : (n,) float64, the sum over the answer's tokens of KL(adapter ‖ text), in nats.
    same : (n,) bool, whether the greedy answer is the same whole and ends there too: whether each token of the adapter's is the likeliest after those before
        it, which comes to the same.
    """

    kl: np.ndarray
    same: np.ndarray


def told(before: ReadOnce, behaviour: Behaviour, template: str, *, report: Report = no_report) -> Told:
    """What the model does with something else in the adapter's place.

    Parameters
    ----------
    template : that the same inputs are asked with.
    """
    kl, same = np.empty(len(behaviour.inputs)), np.empty(len(behaviour.inputs), dtype=bool)
    for i, log_q in log_probabilities(before, behaviour, template, report=report):
        kl[i], same[i] = compared(behaviour, i, log_q)
    return Told(kl, same)


def log_probabilities(
    before: ReadOnce, behaviour: Behaviour, template: str, *, report: Report = no_report
) -> Iterator[tuple[int, torch.Tensor]]:
    """Each input's index and the log-probabilities at the adapter's answer and its line's end, (length of the answer, V)."""
    encoded = before.tokenizer(filled(template, behaviour.inputs), add_special_tokens=not before.begun).input_ids
    examples = [Example(tuple(ids) + answer[:-1], answer) for ids, answer in zip(encoded, behaviour.answers, strict=True)]
    return answer_log_probabilities(before, examples, report=report)


def compared(behaviour: Behaviour, i: int, log_q: torch.Tensor) -> tuple[float, bool]:
    """KL(adapter ‖ other) summed over the answer to the i-th input, never under 0, and whether the other would have written the same."""
    log_p = behaviour.log_p[i]
    divergence = float((log_p.exp() * (log_p - log_q[: len(log_p)])).sum().double())
    return max(divergence, 0.0), tuple(log_q.argmax(dim=-1).tolist()) == behaviour.answers[i]


def share(kl: np.ndarray, kl_nothing: np.ndarray) -> tuple[float, float, float]:
    """The share recovered, 1 − mean KL(adapter ‖ text) / mean KL(adapter ‖ nothing), and its 95 % interval: inputs resampled, the same for both.

    (Efron and Tibshirani 1993, section 13.3.)
    """
    rng = np.random.default_rng(SEED)
    times = rng.multinomial(len(kl), np.full(len(kl), 1 / len(kl)), size=RESAMPLES).astype(np.float64)
    low, high = np.quantile(1 - (times @ kl) / np.maximum(times @ kl_nothing, 1e-12), [0.025, 0.975])
    return float(1 - kl.mean() / kl_nothing.mean()), float(low), float(high)


def fitted_weights(log_p: Sequence[torch.Tensor], log_q: Sequence[Sequence[torch.Tensor]]) -> np.ndarray:
    """The weights w ≥ 0 of a product of experts, log p ∝ Σ w log q, with the least mean KL from the adapter, by L-BFGS-B: the problem is convex.

    Parameters
    ----------
    log_p : of each input, (length of its answer, V).
    log_q : of each expert the same.

    Returns
    -------
    (experts,) float64, each at most 10. (Hinton 2002, "Training products of experts".)
    """
    from scipy.optimize import minimize

    whole_p = torch.cat(list(log_p)).exp()
    experts = [torch.cat(list(each)) for each in log_q]
    wanted = np.array([float((whole_p * each).sum()) for each in experts])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = weighted(experts, weights)
        norm = mixed.logsumexp(dim=-1)
        q = (mixed - norm[:, None]).exp_()
        slope = np.array([float((q * each).sum()) for each in experts]) - wanted
        return (float(norm.double().sum()) - float(weights @ wanted)) / len(log_p), slope / len(log_p)

    start = np.full(len(experts), 1 / len(experts))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, MOST_WEIGHT)] * len(experts), options={"maxiter": 60})
    return np.asarray(found.x, dtype=np.float64)


def weighted(log_q: Sequence[torch.Tensor], weights: np.ndarray) -> torch.Tensor:
    """Σ w log q, not normalised."""
    mixed = torch.zeros_like(log_q[0])
    for each, weight in zip(log_q, weights, strict=True):
        if weight:
            mixed += float(weight) * each
    return mixed


def told_of_mixture(experts: Sequence[tuple[ReadOnce, str]], weights: np.ndarray, behaviour: Behaviour) -> Told:
    """What a product of experts does, each with what stands before it and the template that it is asked with."""
    mixed = [torch.zeros(len(answer), log_p.shape[1]) for answer, log_p in zip(behaviour.answers, behaviour.log_p, strict=True)]
    for (before, template), weight in zip(experts, weights, strict=True):
        if weight:
            for i, log_q in log_probabilities(before, behaviour, template):
                mixed[i] += float(weight) * log_q
    both = [compared(behaviour, i, each.log_softmax(dim=-1)) for i, each in enumerate(mixed)]
    return Told(np.array([kl for kl, _ in both]), np.array([same for _, same in both]))
