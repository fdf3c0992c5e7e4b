"""A text, virtual tokens or a prefix, read once: its keys and values stand before every input, and more can be read after it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from soft_prompt_explorer.analysis.asking.batches import Example, answer_logits, check_lengths
from soft_prompt_explorer.analysis.core.late import Late, one_at_a_time
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.weights import LanguageModel

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

AT_ONCE = 32  # inputs in one call of the model
MOST_POSITIONS = 6_000  # of all inputs in one call, what stands before them counted each time


@dataclass(frozen=True, eq=False)
class ReadOnce:
    """A model that has read something.

    Attributes
    ----------
    length : positions that were read.
    begun : whether they are a text that its input goes on with, so that what begins a text in some families is not put before the input.
    cache : of transformers, with a row for each of several things of one length; None where nothing was read.
    """

    model: Any
    tokenizer: Any
    length: int = 0
    begun: bool = False
    cache: Any = None

    def then(self, ids: Sequence[int]) -> ReadOnce:
        """The same, after these tokens of a text as well."""
        with torch.inference_mode():
            return read(self, torch.tensor([list(ids)], device=self.model.device)) if len(ids) else self

    def caches(self, rows: int) -> Any:
        """A cache for so many inputs: what was read stands before all of them, or each of several things before as many. This one stays as it is."""
        if self.cache is None:
            return None
        found = copy.copy(self.cache)
        found.layers = [copy.copy(layer) for layer in self.cache.layers]
        found.batch_repeat_interleave(rows // self.cache.layers[0].keys.shape[0])
        return found

    def forward(self, *, input_ids, attention_mask, logits_to_keep):
        """As `answer_logits` calls it."""
        return self.model(
            input_ids=input_ids,
            attention_mask=self.mask(attention_mask),
            past_key_values=self.caches(len(input_ids)),
            logits_to_keep=logits_to_keep,
            use_cache=self.cache is not None,
        )

    def mask(self, attention_mask):
        """The mask of inputs, with what stands before them."""
        return None if attention_mask is None else torch.nn.functional.pad(attention_mask, (self.length, 0), value=1)


def read(before: ReadOnce, ids: torch.Tensor | None = None, *, embeddings: torch.Tensor | None = None) -> ReadOnce:
    """What was read, and after it token ids (b, t) or input embeddings (b, t, d): the ones of a text, the others not."""
    more = ids if ids is not None else embeddings
    assert more is not None
    inputs = {"input_ids": ids} if ids is not None else {"inputs_embeds": embeddings}
    output = before.model(**inputs, past_key_values=before.caches(len(more)), use_cache=True, logits_to_keep=1)
    return ReadOnce(before.model, before.tokenizer, before.length + more.shape[1], before.begun or ids is not None, output.past_key_values)


def nothing(language_model: LanguageModel) -> ReadOnce:
    """The model as it is."""
    return ReadOnce(*language_model)


def virtual_tokens(language_model: LanguageModel, rows: np.ndarray) -> ReadOnce:
    """The model after (n, d) input embeddings, or after each of (b, n, d)."""
    model = language_model.model
    with torch.inference_mode():
        embeddings = torch.from_numpy(np.array(rows, dtype=np.float32)).to(model.device, model.get_input_embeddings().weight.dtype)
        return read(nothing(language_model), embeddings=embeddings if embeddings.ndim == 3 else embeddings[None])


def prefix(language_model: LanguageModel, rows: np.ndarray) -> ReadOnce:
    """The model after n keys and values in every layer, (n, 2 × layers × width of the keys), as `in_front.keys_and_values` lays them out."""
    with one_at_a_time():
        from transformers import DynamicCache

    model, tokenizer = language_model
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    parts = torch.from_numpy(np.array(rows, dtype=np.float32)).to(model.device, model.dtype)
    layers = parts.reshape(len(rows), config.num_hidden_layers, 2, heads, -1).permute(1, 2, 3, 0, 4)  # layer, key or value, head, position
    cache = DynamicCache(config=model.config)
    for i, (keys, values) in enumerate(layers):
        cache.update(keys[None].contiguous(), values[None].contiguous(), i)
    return ReadOnce(model, tokenizer, len(rows), False, cache)


def batches(before: ReadOnce, lengths: Sequence[int], *, of_one_length: bool = False) -> list[np.ndarray]:
    """Indices of inputs of these lengths, the like ones together, as many as are read at once behind what was read."""
    order = np.argsort(lengths, kind="stable")
    found, start = [], 0
    while start < len(order):
        end = start + 1
        while end < min(len(order), start + AT_ONCE) and (end + 1 - start) * (before.length + lengths[order[end]]) <= MOST_POSITIONS:
            if of_one_length and lengths[order[end]] != lengths[order[start]]:
                break
            end += 1
        found.append(order[start:end])
        start = end
    return found


def answer_log_probabilities(before: ReadOnce, examples: Sequence[Example], *, report: Report = no_report):
    """Each example's index and the log-probabilities of its answer's positions, (length of the answer, V) float32, in no order.

    Raises
    ------
    TooLongError
    """
    check_lengths(list(examples), before.length, before.model.config)
    done = 0
    for chosen in batches(before, [len(example.ids) for example in examples]):
        report(done / len(examples), "reading answers")
        some = [examples[i] for i in chosen]
        with torch.inference_mode():
            logits = answer_logits(before.forward, some, virtual_tokens=0, device=before.model.device)
            rows = logits.float().log_softmax(dim=-1).cpu()
        yield from zip((int(i) for i in chosen), rows.split([len(example.answer) for example in some]), strict=True)
        done += len(chosen)


def greedy(
    before: ReadOnce, texts: Sequence[str], ends: Sequence[int], most: int, *, report: Report = no_report
) -> list[tuple[tuple[int, ...], torch.Tensor]]:
    """What the model writes after each text, greedily, up to the first of some tokens or `most` tokens.

    Parameters
    ----------
    ends : the ids of the tokens that end an answer, which are part of it.

    Returns
    -------
    Of each text the answer's tokens and, at each of them, the log-probabilities of all tokens, (length of the answer, V) float32.

    Raises
    ------
    TooLongError
    """
    model = before.model
    encoded = before.tokenizer(list(texts), add_special_tokens=not before.begun).input_ids
    check_lengths([Example(tuple(ids) + (0,) * most, ()) for ids in encoded], before.length, model.config)
    written: list[tuple[tuple[int, ...], torch.Tensor]] = [((), torch.empty(0))] * len(texts)
    stop = torch.tensor(list(ends), device=model.device)
    done = 0
    # What is written stands behind the padding, which a layer that attends through a window would count.
    windowed = "sliding_attention" in (getattr(model.config.get_text_config(), "layer_types", None) or ())
    for chosen in batches(before, [len(ids) for ids in encoded], of_one_length=windowed):
        report(done / len(texts), "writing answers")
        lengths = torch.tensor([len(encoded[i]) for i in chosen], device=model.device)
        ids = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.long, device=model.device)
        for row, i in enumerate(chosen):
            ids[row, : len(encoded[i])] = torch.tensor(encoded[i], device=model.device)
        mask = (torch.arange(ids.shape[1], device=model.device) < lengths[:, None]).long()
        kept, where = torch.unique(lengths - 1, return_inverse=True)
        tokens, rows, over = [], [], torch.zeros(len(chosen), dtype=torch.bool, device=model.device)
        with torch.inference_mode():
            output = model(
                input_ids=ids, attention_mask=before.mask(mask), past_key_values=before.caches(len(ids)), logits_to_keep=kept, use_cache=True
            )  # fmt: skip
            logits = output.logits[torch.arange(len(ids), device=model.device), where]
            while True:
                rows.append(logits.float().log_softmax(dim=-1).cpu())
                tokens.append(logits.argmax(dim=-1))
                over |= torch.isin(tokens[-1], stop)
                if bool(over.all()) or len(tokens) == most:
                    break
                mask = torch.nn.functional.pad(mask, (0, 1), value=1)
                output = model(
                    input_ids=tokens[-1][:, None], attention_mask=before.mask(mask), past_key_values=output.past_key_values,
                    position_ids=(before.length + lengths + len(tokens) - 1)[:, None], use_cache=True,
                )  # fmt: skip
                logits = output.logits[:, -1]
        answers = torch.stack(tokens, dim=1).cpu()
        ended = torch.isin(answers, stop.cpu())
        for row, i in enumerate(chosen):
            count = int(ended[row].int().argmax()) + 1 if bool(ended[row].any()) else len(tokens)
            written[i] = tuple(answers[row, :count].tolist()), torch.stack([rows[step][row] for step in range(count)])
        done += len(chosen)
    return written
