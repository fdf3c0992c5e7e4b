"""What the model makes of a prompt inside: the logit lens at each virtual position, how long its residual stream is, and how much the answer attends to it.

A virtual token sees the prompt alone, never the input behind it, so what stands at its position is the same for every input. The attention is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

LENS_COLUMNS = ["position", "layer", "norm", "rank", "token_id", "token", "probability"]
ATTENTION_COLUMNS = ["layer", "head", "position", "attention"]
_FINAL_NORMS = ("norm", "ln_f", "final_layernorm", "final_layer_norm")


def hidden_states(embeddings: np.ndarray | torch.Tensor, model) -> torch.Tensor:
    """The residual stream where virtual tokens stand, (layers + 1, n, d) float32: before each layer, and after the last one (before the final norm).

    Parameters
    ----------
    embeddings : (n, d), the input embeddings of all that is read.

    Raises
    ------
    InputError
        The model's layers were not found, or it has fewer positions.
    """
    return states_of_many(torch.as_tensor(embeddings)[None], model)[:, 0]


def states_of_many(embeddings: np.ndarray | torch.Tensor, model, layers: Sequence[int] | None = None) -> torch.Tensor:
    """`hidden_states` of (b, n, d) prompts or texts at once, (layers + 1, b, n, d) float32; after these layers alone where they are named, from 0."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    count = embeddings.shape[1]
    if context and count > context:
        raise InputError(f"The model has {context:,} positions, and these are {count:,} virtual tokens.")
    inputs = torch.as_tensor(embeddings).to(model.device, model.get_input_embeddings().weight.dtype)
    with torch.inference_mode(), residual_stream(model) as states:
        output = model(inputs_embeds=inputs, output_hidden_states=True, use_cache=False, logits_to_keep=1)
        whole = states(output)
    return torch.stack([whole[layer].float().cpu() for layer in (range(len(whole)) if layers is None else layers)])  # noqa: PD013 - of torch


@contextmanager
def residual_stream(model) -> Iterator[Callable[[Any], tuple[torch.Tensor, ...]]]:
    """What reads, from an output with hidden states that the block has asked the model for, its states before each layer and after the last one, before the final norm."""
    after: list[torch.Tensor] = []
    handle = layers_of(model)[-1].register_forward_hook(
        lambda module, args, output: after.append(output[0] if isinstance(output, tuple) else output)
    )
    try:
        yield lambda output: (*output.hidden_states[:-1], after[-1])
    finally:
        handle.remove()


def layers_of(model) -> torch.nn.ModuleList:
    """The decoder's layers, one after another.

    Raises
    ------
    InputError
        The model has no such list.
    """
    return decoder_of(model)[1]


def decoder_of(model) -> tuple[torch.nn.Module, torch.nn.ModuleList]:
    """The module that holds the layers, and they."""
    count = model.config.get_text_config().num_hidden_layers
    for parent in model.modules():
        for child in parent.children():
            if isinstance(child, torch.nn.ModuleList) and len(child) == count:
                return parent, child
    raise InputError(f"The layers of {type(model).__name__} were not found, so this model cannot be looked into.")


def final_norm_of(model) -> torch.nn.Module:
    """What the last layer's states go through before they are read as words.

    Raises
    ------
    InputError
        It was not found.
    """
    parent, _ = decoder_of(model)
    norm = next((getattr(parent, name) for name in _FINAL_NORMS if hasattr(parent, name)), None)
    if norm is None:
        raise InputError(f"The final norm of {type(model).__name__} was not found, so its layers cannot be read as words.")
    return norm


def logit_lens(embeddings: np.ndarray, language_model: LanguageModel, vocabulary: Vocabulary, *, top_k: int = 3) -> pd.DataFrame:
    """What the model would say next at each virtual position if it ended after each layer (nostalgebraist 2020, "interpreting GPT: the logit lens").

    Parameters
    ----------
    embeddings : (n, d) virtual tokens.
    vocabulary : the model's own, for the tokens' texts.

    Returns
    -------
    `top_k` rows a position and layer: position, layer (0: the virtual token itself; k: after k layers), norm (Euclidean, of the residual stream there), rank,
    token_id, token, probability.

    Raises
    ------
    InputError
        The model's layers or its final norm were not found, or its last layer is not read as the model itself reads it.
    """
    model, _ = language_model
    states = hidden_states(embeddings, model)
    norm = final_norm_of(model)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)

    def read(state: torch.Tensor) -> torch.Tensor:
        logits = model.get_output_embeddings()(norm(state.to(model.device, model.get_input_embeddings().weight.dtype))).float()
        return cap * torch.tanh(logits / cap) if cap else logits

    with torch.inference_mode():
        scale = _scale(model, embeddings, read(states[-1]))
    rows = []
    for layer, state in enumerate(states):
        with torch.inference_mode():
            chances, ids = (scale * read(state)).softmax(dim=-1).topk(top_k, dim=-1)
        norms = state.norm(dim=-1).tolist()
        for position in range(len(state)):
            for rank, (token, chance) in enumerate(zip(ids[position].tolist(), chances[position].tolist(), strict=True)):
                rows.append((position, layer, norms[position], rank, token, vocabulary.tokens[token], chance))
    return pd.DataFrame(rows, columns=LENS_COLUMNS).sort_values(["position", "layer", "rank"], ignore_index=True)


def _scale(model, embeddings: np.ndarray, logits: torch.Tensor) -> float:
    """What the model multiplies its logits by in the end: some families divide or multiply them, each by a setting of another name."""
    inputs = torch.as_tensor(embeddings)[None].to(model.device, model.get_input_embeddings().weight.dtype)
    with torch.inference_mode():
        own = model(inputs_embeds=inputs, use_cache=False).logits[0].float()
    scale = float((own * logits).sum() / (logits * logits).sum())
    if not torch.allclose(own, scale * logits, rtol=1e-2, atol=1e-2 * float(own.abs().max())):
        raise InputError(
            f"What {type(model).__name__} says is not what its last layer says through its final norm, so its layers cannot be read as words."
        )
    return scale


def attention(embeddings: np.ndarray, language_model: LanguageModel, texts: Sequence[str], *, report: Report = no_report) -> pd.DataFrame:
    """How much the position that predicts the answer attends to each virtual token, on average over texts.

    The model must not be used by another thread meanwhile: it computes its attention another way as long as this lasts.

    Parameters
    ----------
    embeddings : (n, d) virtual tokens.
    texts : inputs, each ending right before its answer.

    Returns
    -------
    layer (from 1), head (from 0), position (of the virtual token; missing for all of the input together), attention (weights of one head sum to 1).

    Raises
    ------
    InputError
        No text was given.
    """
    if not texts:
        raise InputError("Attention is measured on texts; give at least one.")
    model, tokenizer = language_model
    rows = torch.from_numpy(np.array(embeddings, dtype=np.float32)).to(model.device, model.get_input_embeddings().weight.dtype)
    total: torch.Tensor | None = None
    with _attention_told(model):
        for i, text in enumerate(texts):
            report(i / len(texts), "measuring the attention")
            ids = torch.tensor(tokenizer(text).input_ids, device=model.device)
            inputs = torch.cat([rows, model.get_input_embeddings()(ids)])[None]
            with torch.inference_mode():
                weights = model(inputs_embeds=inputs, output_attentions=True, use_cache=False, logits_to_keep=1).attentions
            last = torch.stack([layer[0, :, -1, :].float().cpu() for layer in weights])  # noqa: PD013 - (layers, heads, positions)
            n = len(rows)
            of_text = torch.cat([last[:, :, :n], last[:, :, n:].sum(dim=-1, keepdim=True)], dim=-1)
            total = of_text if total is None else total + of_text
    assert total is not None  # there is a text
    mean = (total / len(texts)).numpy()
    layers, heads, places = np.indices(mean.shape)
    table = pd.DataFrame({"layer": layers.ravel() + 1, "head": heads.ravel(), "position": places.ravel(), "attention": mean.ravel()})
    table["position"] = table["position"].astype("Int64").mask(table["position"] == len(rows))
    return table[ATTENTION_COLUMNS]


@contextmanager
def _attention_told(model) -> Iterator[None]:
    """The faster ways to compute attention never hold its weights, so the model takes the plain one for a while."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
