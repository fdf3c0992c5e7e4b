"""What stands in front of a frozen model or in it while it is asked: virtual tokens, a prefix, a LoRA, or nothing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soft_prompt_explorer.analysis.core.errors import AdapterError, InputError
from soft_prompt_explorer.analysis.core.late import one_at_a_time
from soft_prompt_explorer.analysis.core.remedies import MODEL
from soft_prompt_explorer.analysis.models.weights import LanguageModel

if TYPE_CHECKING:
    from soft_prompt_explorer.analysis.adapters import SoftPrompt


def key_value_heads(text_config) -> int:
    """How many heads of keys and values each layer of a model has, from its config."""
    one = getattr(text_config, "multi_query", False) and not getattr(text_config, "new_decoder_architecture", False)  # of Falcon's heads
    return getattr(text_config, "num_key_value_heads", None) or (1 if one else text_config.num_attention_heads)


def prompt_config(method: str, tokens: int, model_config):
    """What PEFT is told of n virtual tokens (of prompt tuning and p-tuning) or of a prefix for a model of this configuration."""
    with one_at_a_time():
        from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, TaskType

    text_config = model_config.get_text_config()
    common = {"task_type": TaskType.CAUSAL_LM, "num_virtual_tokens": tokens, "num_transformer_submodules": 1, "num_layers": text_config.num_hidden_layers}  # fmt: skip
    heads, width = text_config.num_attention_heads, text_config.hidden_size
    if method == "prefix-tuning":
        kept = key_value_heads(text_config)
        head_width = getattr(text_config, "head_dim", None) or width // heads
        return PrefixTuningConfig(**common, num_attention_heads=kept, token_dim=kept * head_width)
    if method == "p-tuning":
        return PromptEncoderConfig(**common, num_attention_heads=heads, token_dim=width, encoder_hidden_size=width)
    return PromptTuningConfig(**common, num_attention_heads=heads, token_dim=width)


def in_peft(model, method: str, tokens: int, seed: int = 0):
    """PEFT's model with n virtual tokens or a prefix before the frozen one, whatever PEFT draws at first drawn with the seed."""
    import torch

    with one_at_a_time():
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


def rows_of(peft_model) -> np.ndarray:
    return peft_model.get_prompt_embedding_to_save("default").float().numpy().copy()


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


@dataclass(frozen=True, eq=False)
class Subject:
    """A language model as one method leaves it, ready to be asked.

    Attributes
    ----------
    model : called with input_ids, attention_mask and logits_to_keep: the bare model, or PEFT's with a prompt, a prefix or a LoRA in it.
    virtual_tokens : positions that it puts in front of its input, and so of its logits.
    prefix : positions that it has in front of its input in every layer, and that its logits do not show.
    begun : whether the prefix is a text that its input goes on with.
    """

    model: Any
    tokenizer: Any
    virtual_tokens: int = 0
    prefix: int = 0
    begun: bool = False

    def forward(self, **inputs):
        return self.model(**inputs, use_cache=False)


def bare(language_model: LanguageModel) -> Subject:
    """The model as it is."""
    return Subject(*language_model)


def with_prompt(language_model: LanguageModel, embeddings: np.ndarray) -> Subject:
    """The model with (n, d) virtual tokens in front of its input."""
    model, tokenizer = language_model
    peft_model = in_peft(model, "prompt-tuning", len(embeddings))
    set_rows(peft_model, embeddings)
    return Subject(peft_model, tokenizer, len(embeddings))


def with_prefix(language_model: LanguageModel, rows: np.ndarray) -> Subject:
    """The model with n keys and values in front of every layer's own, (n, 2 × layers × width of the keys)."""
    model, tokenizer = language_model
    peft_model = in_peft(model, "prefix-tuning", len(rows))
    set_rows(peft_model, rows)
    return Subject(peft_model, tokenizer, prefix=len(rows))


@contextmanager
def subject_of(what: SoftPrompt | Path | np.ndarray | None, language_model: LanguageModel) -> Iterator[Subject]:
    """The model with something in front of it or in it, as long as the block lasts.

    Parameters
    ----------
    what : what a file held, virtual tokens or a prefix; the PEFT folder of a LoRA; virtual tokens, (n, d); or None, which leaves the model as it is.

    Raises
    ------
    InputError
        It was trained for another kind of model, or does not fit this one.
    """
    from soft_prompt_explorer.analysis.asking.lora import applied

    if what is None:
        yield bare(language_model)
    elif isinstance(what, np.ndarray):
        yield with_prompt(language_model, what)
    elif isinstance(what, Path):
        with applied(language_model.model, what):
            yield bare(language_model)
    else:
        check_fits(what, language_model.model)
        yield (with_prefix if what.kind == "prefix" else with_prompt)(language_model, what.embeddings)


def check_fits(prompt: SoftPrompt, model) -> None:
    """Refuse what was trained for another kind of model, and a prefix that is not as wide as this model's keys and values.

    Raises
    ------
    AdapterError
    """
    prompt.check_is_causal()
    if prompt.method == "TRAINABLE_TOKENS":
        raise AdapterError(
            f"{prompt.name} holds rows of the vocabulary, which stand in front of nothing: they take the place of words' own, so readings and neighbours tell what is in them."
        )
    if prompt.kind == "queries":
        prompt.check_is_embeddings()
    if prompt.kind == "adaption_prompt":
        raise AdapterError(
            f"The LLaMA-Adapter {prompt.name} works inside each layer's attention, and cannot be put into a model here; use it with PEFT."
        )
    if prompt.kind == "prefix":
        kept = prompt_config("prefix-tuning", len(prompt), model.config)
        width = 2 * kept.num_layers * kept.token_dim
        if prompt.width != width:
            raise AdapterError(
                f"The prefix {prompt.name} is {prompt.width:,} wide and the model's keys and values of all layers are {width:,}; name the model that it was trained on",
                remedy=MODEL,
            )
