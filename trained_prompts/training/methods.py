"""What the methods of training change: how each is put into the frozen model, which parameters learn, and what is kept of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from soft_prompt_explorer.analysis.asking.in_front import in_peft, keys_and_values, rows_of, set_rows
from soft_prompt_explorer.analysis.asking.lora import injected, learning_as_found
from soft_prompt_explorer.analysis.core.late import one_at_a_time
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.trained_prompts.training import lora
from soft_prompt_explorer.trained_prompts.training.config import FRAMED

if TYPE_CHECKING:
    from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig


@dataclass(frozen=True, eq=False)
class Learner:
    """A model with something in it that learns.

    Attributes
    ----------
    model : what is called with input_ids, attention_mask and logits_to_keep.
    parameters : that learn.
    virtual_tokens : positions that the model puts in front of its input, and so of its logits.
    prefix : positions that it has in front of its input in every layer, and that its logits do not show.
    embeddings : the virtual tokens as they are now, (n, d) float32, or None.
    weights : what PEFT saves of other methods, float32, or None.
    copy : of full fine-tuning, the model itself.
    frames : what the steps take turns with: something to be called as `forward`, and the positions that it puts in front. Empty: always the same.
    """

    model: Any
    parameters: list
    virtual_tokens: int = 0
    prefix: int = 0
    embeddings: Callable[[], np.ndarray | None] = lambda: None
    weights: Callable[[], dict[str, np.ndarray] | None] = lambda: None
    copy: Any = None
    frames: tuple[tuple[Callable, int], ...] = ()

    def forward(self, **inputs):
        return self.model(**inputs, use_cache=False)

    def turn(self, step: int) -> tuple[Callable, int]:
        """What the examples of a step, counted from 1, go through, and how many positions it puts in front of them."""
        turns = ((self.forward, self.virtual_tokens), *self.frames)
        return turns[(step - 1) % len(turns)]


@contextmanager
def learner(config: TrainingConfig, model, tokenizer) -> Iterator[Learner]:
    """The model as a method changes it; afterwards it is as it was found.

    Raises
    ------
    InputError
        The method's settings do not fit the model.
    """
    if config.method == "lora":
        with injected(model, lora.config_of(config), seed=config.seed) as peft_model:
            parameters = [parameter for parameter in peft_model.parameters() if parameter.requires_grad]
            yield Learner(peft_model, parameters, weights=lambda: lora.weights_of(peft_model))
    elif config.method == "full":
        trained = copy.deepcopy(model).float().requires_grad_(True)  # Adam's small steps are lost on weights of 16 bits
        yield Learner(trained, list(trained.parameters()), copy=trained)
    else:
        put_in = {"prompt-tuning": _prompt, "p-tuning": _p_tuning, "prefix-tuning": _prefix}[config.method]
        with learning_as_found(model):
            yield put_in(config, model, tokenizer)


@contextmanager
def recomputing(model) -> Iterator[None]:
    """The model with layers that keep nothing but their input for the way back, and are computed once more then. Afterwards it is as it was found.

    transformers' own switch does the same only to a model in training mode, whose dropouts would be on.
    """
    from torch.utils.checkpoint import checkpoint

    with one_at_a_time():
        from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _prompt(config: TrainingConfig, model, tokenizer) -> Learner:
    from soft_prompt_explorer.trained_prompts.training.initial import initial_values

    vocabulary = load_vocabulary(config.model)
    initial = initial_values(config, vocabulary, tokenizer)
    peft_model = in_peft(model, "prompt-tuning", config.tokens)
    set_rows(peft_model, initial)
    embedding = peft_model.prompt_encoder["default"].embedding
    learned = embedding.weight
    if config.readable:
        from soft_prompt_explorer.trained_prompts.training.readable import draw_to_words

        learned = draw_to_words(embedding, initial, vocabulary, config.readable)
    frames = tuple(_in_frame(frame, lambda: embedding.weight, model, tokenizer) for frame in config.frames)
    return Learner(peft_model, [learned], config.tokens, embeddings=lambda: rows_of(peft_model), frames=frames)


def _in_frame(frame: str, virtual_tokens: Callable, model, tokenizer) -> tuple[Callable, int]:
    """The model with a text around the virtual tokens and the example after it, and how many positions come before the example."""
    rows_of_words = model.get_input_embeddings()
    before, after = (
        rows_of_words(torch.tensor(tokenizer(text, add_special_tokens=False).input_ids, dtype=torch.long, device=model.device)).detach()
        for text in frame.split(FRAMED)
    )

    def forward(*, input_ids, attention_mask, logits_to_keep):
        learned = virtual_tokens()
        framed = torch.cat([before, learned.to(before.dtype), after])
        embedded = torch.cat([framed.expand(len(input_ids), -1, -1), rows_of_words(input_ids)], dim=1)
        if attention_mask is not None:
            attention_mask = torch.cat([attention_mask.new_ones(len(input_ids), len(framed)), attention_mask], dim=1)
        return model(inputs_embeds=embedded, attention_mask=attention_mask, logits_to_keep=logits_to_keep, use_cache=False)

    return forward, len(before) + len(virtual_tokens()) + len(after)


def _p_tuning(config: TrainingConfig, model, tokenizer) -> Learner:
    peft_model = in_peft(model, "p-tuning", config.tokens, config.seed)
    return Learner(peft_model, list(peft_model.prompt_encoder.parameters()), config.tokens, embeddings=lambda: rows_of(peft_model))


def _prefix(config: TrainingConfig, model, tokenizer) -> Learner:
    from soft_prompt_explorer.trained_prompts.training.initial import initial_values

    peft_model = in_peft(model, "prefix-tuning", config.tokens, config.seed)
    initial = initial_values(config, load_vocabulary(config.model), tokenizer)
    set_rows(peft_model, keys_and_values(model, initial))  # Li and Liang 2021, section 7.4
    parameters = list(peft_model.prompt_encoder.parameters())
    return Learner(peft_model, parameters, prefix=config.tokens, weights=lambda: {"prompt_embeddings": rows_of(peft_model)})
