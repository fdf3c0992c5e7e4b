"""What the methods of training change: how each is put into the frozen model, which parameters learn, and what is kept of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.errors import InputError
from analysis.vocabulary import load_vocabulary
from trained_prompts import lora

if TYPE_CHECKING:
    from trained_prompts.trainer import TrainingConfig


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
    """

    model: object
    parameters: list
    virtual_tokens: int = 0
    prefix: int = 0
    embeddings: Callable[[], np.ndarray | None] = lambda: None
    weights: Callable[[], dict[str, np.ndarray] | None] = lambda: None
    copy: object | None = None

    def forward(self, **inputs):
        return self.model(**inputs, use_cache=False)


@contextmanager
def learner(config: TrainingConfig, model, tokenizer) -> Iterator[Learner]:
    """The model as a method changes it; afterwards it is as it was found.

    Raises
    ------
    InputError
        The method's settings do not fit the model.
    """
    if config.method == "lora":
        with lora.injected(model, lora.config_of(config), seed=config.seed) as peft_model:
            parameters = [parameter for parameter in peft_model.parameters() if parameter.requires_grad]
            yield Learner(peft_model, parameters, weights=lambda: lora.weights_of(peft_model))
    elif config.method == "full":
        trained = copy.deepcopy(model).requires_grad_(True)
        yield Learner(trained, list(trained.parameters()), copy=trained)
    else:
        put_in = {"prompt-tuning": _prompt, "p-tuning": _p_tuning, "prefix-tuning": _prefix}[config.method]
        with lora.learning_as_found(model):
            yield put_in(config, model, tokenizer)


def prompt_config(method: str, tokens: int, model_config):
    """What PEFT is told of n virtual tokens (of prompt tuning and p-tuning) or of a prefix for a model of this configuration."""
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, TaskType

    text_config = model_config.get_text_config()
    common = {"task_type": TaskType.CAUSAL_LM, "num_virtual_tokens": tokens, "num_transformer_submodules": 1, "num_layers": text_config.num_hidden_layers}  # fmt: skip
    heads, width = text_config.num_attention_heads, text_config.hidden_size
    if method == "prefix-tuning":
        kept = getattr(text_config, "num_key_value_heads", None) or heads
        head_width = getattr(text_config, "head_dim", None) or width // heads
        return PrefixTuningConfig(**common, num_attention_heads=kept, token_dim=kept * head_width)
    if method == "p-tuning":
        return PromptEncoderConfig(**common, num_attention_heads=heads, token_dim=width, encoder_hidden_size=width)
    return PromptTuningConfig(**common, num_attention_heads=heads, token_dim=width)


def in_peft(model, method: str, tokens: int, seed: int = 0):
    """PEFT's model with n virtual tokens or a prefix before the frozen one, whatever PEFT draws at first drawn with the seed."""
    import torch
    from peft import get_peft_model

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # PEFT 0.21.2 still asks for it
        torch.manual_seed(seed)
        return get_peft_model(model, prompt_config(method, tokens, model.config))


def set_rows(peft_model, rows: np.ndarray) -> None:
    """Put values in place of the rows that PEFT drew.

    Raises
    ------
    InputError
        They do not fit the model.
    """
    import torch

    weight = peft_model.prompt_encoder["default"].embedding.weight
    if tuple(weight.shape) != rows.shape:
        raise InputError(
            f"The rows have the shape {rows.shape} and the model takes {tuple(weight.shape)}; they were trained for another model."
        )
    with torch.no_grad():
        weight.copy_(torch.from_numpy(np.array(rows, dtype=np.float32)))


def _rows_of(peft_model) -> np.ndarray:
    return peft_model.get_prompt_embedding_to_save("default").float().numpy().copy()


def _prompt(config: TrainingConfig, model, tokenizer) -> Learner:
    from trained_prompts.trainer import initial_values

    vocabulary = load_vocabulary(config.model)
    initial = initial_values(config, vocabulary, tokenizer)
    peft_model = in_peft(model, "prompt-tuning", config.tokens)
    set_rows(peft_model, initial)
    embedding = peft_model.prompt_encoder["default"].embedding
    learned = embedding.weight
    if config.readable:
        from trained_prompts.readable import draw_to_words

        learned = draw_to_words(embedding, initial, vocabulary, config.readable)
    return Learner(peft_model, [learned], config.tokens, embeddings=lambda: _rows_of(peft_model))


def _p_tuning(config: TrainingConfig, model, tokenizer) -> Learner:
    peft_model = in_peft(model, "p-tuning", config.tokens, config.seed)
    return Learner(peft_model, list(peft_model.prompt_encoder.parameters()), config.tokens, embeddings=lambda: _rows_of(peft_model))


def _prefix(config: TrainingConfig, model, tokenizer) -> Learner:
    from trained_prompts.trainer import initial_values

    peft_model = in_peft(model, "prefix-tuning", config.tokens, config.seed)
    initial = initial_values(config, load_vocabulary(config.model), tokenizer)
    set_rows(peft_model, keys_and_values(model, initial))  # Li and Liang 2021, section 7.4
    parameters = list(peft_model.prompt_encoder.parameters())
    return Learner(peft_model, parameters, prefix=config.tokens, weights=lambda: {"prompt_embeddings": _rows_of(peft_model)})


def keys_and_values(model, embeddings: np.ndarray) -> np.ndarray:
    """What the model itself makes of (n, d) input embeddings, as a prefix (n, 2 × layers × width of the keys) that stands for them.

    A row holds, layer by layer, the keys of all heads and then the values, as PEFT cuts it up again.
    """
    import torch

    with torch.inference_mode():
        inputs = torch.from_numpy(embeddings)[None].to(model.device, model.get_input_embeddings().weight.dtype)
        cache = model(inputs_embeds=inputs, use_cache=True).past_key_values
    parts = [part[0].transpose(0, 1).flatten(1).float().cpu() for layer in cache.layers for part in (layer.keys, layer.values)]
    return torch.cat(parts, dim=1).numpy()
