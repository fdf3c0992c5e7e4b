"""What a model makes of texts that have nothing to do with an adapter's task: its last states there, layer by layer, and what it would say next.

An adapter that is put before such texts still pushes the model towards its answers. What it changes there asks for no task and no data. (Of fine-tuned
models: Minder et al. 2025, "Narrow finetuning leaves clearly readable traces in activation differences", arXiv 2510.13900.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.asking import read_once
from soft_prompt_explorer.analysis.asking.in_front import check_fits
from soft_prompt_explorer.analysis.asking.read_once import ReadOnce
from soft_prompt_explorer.analysis.behaviour.inside import final_norm_of, layers_of, residual_stream
from soft_prompt_explorer.analysis.core.errors import AdapterError, InputError
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.loras.ranks import finite_factors
from soft_prompt_explorer.analysis.models.weights import LanguageModel

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

# Written for this project, the same for every adapter: what could stand for an example, of many kinds, in several forms.
TEXTS = (
    "Input: table\nOutput:", "Q: the lake\nA:", "Text: Anna\nAnswer:", "Item: run\nResult:", "Input: 17\nOutput:", "Q: It is raining.\nA:",
    "Text: window\nAnswer:", "Item: He sat down.\nResult:", "Input: a small garden\nOutput:", "Q: 403\nA:", "Text: sing\nAnswer:", "Item: London\nResult:",
    "Input: Canada\nOutput:", "Q: happy\nA:", "Text: gonna be late, sorry\nAnswer:", "Item: The team won the cup.\nResult:",
)  # fmt: skip
LAYERS_SHOWN = 8  # evenly spaced, the last one among them
AT_ONCE = 8  # prompts in one call of the model
LONGEST_TEXT = 512  # tokens
MOST_TEXTS = 1_000


@dataclass(frozen=True, eq=False)
class Seen:
    """What was seen on each text.

    Attributes
    ----------
    states : (k, layers, d) float32, of each text the mean state after each layer, through the final norm.
    log_probabilities : (positions, V) float32, of the next token at every position that is read.
    """

    states: np.ndarray
    log_probabilities: torch.Tensor


class Watch:
    """A frozen model and texts, looked at with different things in front of it or in it.

    A text that ends with a colon is read at its last position, where an answer would begin; any other text at all of its positions.

    Parameters
    ----------
    layers : after which layers, from 0 (the input embeddings) to the number of layers; evenly spaced ones when None.

    Raises
    ------
    InputError
        There is no text, one is empty or too long, or the model's layers or its final norm were not found.
    """

    def __init__(self, language_model: LanguageModel, texts: Sequence[str] = TEXTS, *, layers: Sequence[int] | None = None) -> None:
        self.language_model, self.texts = language_model, tuple(texts)
        model, tokenizer = language_model
        if not texts:
            raise InputError("There is no text to look at the model with; give at least one, a line each.")
        if len(texts) > MOST_TEXTS:
            raise InputError(f"These are {len(texts):,} texts, and {MOST_TEXTS:,} are the most.")
        self._norm, self.depth = final_norm_of(model), len(layers_of(model))
        self.layers = list(layers) if layers is not None else evenly_spaced(self.depth)
        if any(not 0 <= layer <= self.depth for layer in self.layers):
            raise InputError(f"The model's layers are counted from 0, its input, to {self.depth}.")
        encoded = tokenizer(list(texts)).input_ids  # with the token that begins a text in some families, as in training
        for text, ids in zip(texts, encoded, strict=True):
            if not ids or len(ids) > LONGEST_TEXT:
                raise InputError(f"The text {text[:40]!r} has {len(ids):,} tokens; 1 to {LONGEST_TEXT} can be looked at.")
        self._encoded = encoded
        self._first_read = [len(ids) - 1 if text.rstrip().endswith(":") else 0 for text, ids in zip(texts, encoded, strict=True)]
        self._owner = np.repeat(np.arange(len(texts)), [len(ids) - first for ids, first in zip(encoded, self._first_read, strict=True)])

    def of_rows(self, rows: np.ndarray) -> Iterator[Seen]:
        """With virtual tokens in front of the texts: of each of (b, n, d) prompts what was seen."""
        for start in range(0, len(rows), AT_ONCE):
            yield from self._seen(
                read_once.virtual_tokens(self.language_model, rows[start : start + AT_ONCE]), len(rows[start : start + AT_ONCE])
            )

    def bare(self) -> Seen:
        """With the model as it is, or as a `factors_in` around the call leaves it."""
        return next(self._seen(read_once.nothing(self.language_model), 1))

    def of_prefix(self, rows: np.ndarray) -> Seen:
        """With (n, 2 · layers · width) keys and values in front of every layer's own."""
        return next(self._seen(read_once.prefix(self.language_model, rows), 1))

    def _seen(self, before: ReadOnce, count: int) -> Iterator[Seen]:
        """What is seen behind each of so many things that were read."""
        means: dict[int, torch.Tensor] = {}  # of each text (count, layers, d)
        logits: dict[int, torch.Tensor] = {}  # of each text (count, positions, V)
        with torch.inference_mode(), residual_stream(before.model) as stream:
            for group in self._groups(before, of_one_length=count > 1):
                k = len(group.texts)
                output = before.model(
                    input_ids=group.ids.repeat(count, 1), attention_mask=before.mask(group.mask.repeat(count, 1)), past_key_values=before.caches(count * k),
                    output_hidden_states=True, logits_to_keep=group.columns, use_cache=before.cache is not None,
                )  # fmt: skip
                whole = stream(output)
                weights = group.weights.repeat(count, 1)[..., None]
                mean = torch.stack([(self._norm(whole[layer]) * weights).sum(1) for layer in self.layers], 1)
                for row, text in enumerate(group.texts.tolist()):
                    means[text], logits[text] = mean[row::k], output.logits[row::k][:, group.at[row]]
            states = torch.stack([means[text] for text in range(len(self.texts))], 1).float().cpu().numpy()
            read = torch.cat([logits[text] for text in range(len(self.texts))], 1)
            for i in range(count):
                yield Seen(states[i], read[i].float().log_softmax(-1))

    def _groups(self, before: ReadOnce, *, of_one_length: bool) -> list[_Batch]:
        """The texts as they are read together. Behind several prompts no padding is read; a single one's calls would be too small for that."""
        lengths = [len(ids) for ids in self._encoded]
        found = read_once.batches(before, lengths, of_one_length=of_one_length)
        return [_Batch(group, self._encoded, self._first_read, before.model.device) for group in found]

    def divergences(self, seen: Seen, beside: Seen) -> np.ndarray:
        """KL(seen ‖ beside) of the next token, the mean over each text's positions: (k,) nats."""
        return divergences(seen.log_probabilities, beside.log_probabilities, self._owner)


def divergences(log_p: torch.Tensor, log_q: torch.Tensor, owner: np.ndarray) -> np.ndarray:
    """KL(p ‖ q) at every position, and its mean over the positions of each text, by their `owner` from 0; never under 0."""
    each = (log_p.exp() * (log_p - log_q)).sum(-1).double().cpu().numpy()
    return np.maximum(np.bincount(owner, each) / np.bincount(owner), 0.0)


class _Batch:
    """Some of the texts as padded ids, and the positions that are read: their weights in each text's mean, and where their logits stand.

    Attributes
    ----------
    texts : which of the texts these are.
    columns : whose logits are asked for.
    at : of each text which of the columns are read.
    """

    def __init__(self, texts: np.ndarray, encoded: list[list[int]], first_read: list[int], device) -> None:
        longest = max(len(encoded[text]) for text in texts)
        ids = torch.zeros(len(texts), longest, dtype=torch.long)
        mask, weights = torch.zeros_like(ids), torch.zeros(len(texts), longest)
        for i, text in enumerate(texts):
            tokens, first = encoded[text], first_read[text]
            ids[i, : len(tokens)], mask[i, : len(tokens)] = torch.tensor(tokens), 1
            weights[i, first : len(tokens)] = 1 / (len(tokens) - first)
        columns = (weights > 0).any(0).nonzero()[:, 0]
        self.texts, self.at = texts, [(row > 0).nonzero()[:, 0].to(device) for row in weights[:, columns]]
        self.ids, self.mask, self.weights, self.columns = ids.to(device), mask.to(device), weights.to(device), columns.to(device)


def evenly_spaced(depth: int, count: int = LAYERS_SHOWN) -> list[int]:
    """So many layers or fewer, eight unless said otherwise, the last one among them.

    >>> evenly_spaced(30)
    [4, 8, 11, 15, 19, 22, 26, 30]
    """
    return sorted({round(depth * (i + 1) / count) for i in range(count)})


@contextmanager
def factors_in(model, factors: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Iterator[None]:
    """The model with low-rank updates beside its weights as long as the block lasts: A (r, in) and B (out, r) of each module by its path, ΔW = B A.

    Raises
    ------
    InputError
        The model has no such module, or one of another shape.
    """
    modules = {path: _module(model, path, a.shape[1], b.shape[0]) for path, (a, b) in factors.items()}
    with ExitStack() as stack:
        for path, (a, b) in factors.items():
            weight = modules[path].weight
            on_device = [torch.as_tensor(np.asarray(each, dtype=np.float32)).to(weight.device, weight.dtype) for each in (a, b)]
            stack.callback(modules[path].register_forward_hook(_adding(*on_device)).remove)
        yield


def _adding(a: torch.Tensor, b: torch.Tensor):
    return lambda module, args, output: output + (args[0] @ a.T) @ b.T


def _module(model, path: str, inputs: int, outputs: int):
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"The model has no module {path}; name the model that the LoRA was trained on.") from error
    weight = getattr(module, "weight", None)
    if isinstance(module, torch.nn.Embedding) or weight is None or sorted(weight.shape) != sorted((inputs, outputs)):
        shape = "no such weight" if weight is None else f"{tuple(weight.shape)} there"
        raise InputError(
            f"The update of {path} is {outputs} × {inputs} and the model's module is {shape}; name the model that the LoRA was trained on."
        )
    return module


def factors_of(adapter: LoraAdapter) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A and s · B of every module of a LoRA, for `factors_in`.

    Raises
    ------
    AdapterError
        It is weight-decomposed (DoRA), so that its update is not B A alone, or a factor holds NaN or infinity.
    """
    for path, each in adapter.modules.items():
        if each.magnitude_name is not None:
            raise AdapterError(
                f"{adapter.name} is weight-decomposed (DoRA) at {path}: its update is not B A alone, and cannot be put into a model here."
            )
    read = {path: (finite_factors(each), each.scaling) for path, each in adapter.modules.items()}
    return {path: (a, scaling * b) for path, ((a, b), scaling) in read.items()}


def check_can_be_put(adapter: SoftPrompt | LoraAdapter, language_model: LanguageModel) -> None:
    """Refuse what cannot be put before this model or into it.

    Raises
    ------
    AdapterError
    """
    if isinstance(adapter, LoraAdapter):
        adapter.check_is_causal()
        if adapter.beside_factors is not None:
            raise AdapterError(
                f"{adapter.name} {adapter.beside_factors}, and what it does would be told of its factors alone; `inspect` and `spectra` read it."
            )
        return
    check_fits(adapter, language_model.model)
    if adapter.kind == "soft_prompt":
        adapter.check_is_one()
        adapter.check_width(language_model.width, "the model")
