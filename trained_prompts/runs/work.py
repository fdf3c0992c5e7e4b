"""What one step of a training multiplies and what it keeps for the way back, counted from the model's config before anything is loaded.

A product of (n, a) and (a, b) is 2nab operations. A step reads its tokens once and goes back once for what stands in front (2 × 2 operations a weight and token);
where weights learn, each has a product more of its own (Kaplan et al. 2020, section 2.1, count so).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from soft_prompt_explorer.analysis.core.errors import ModelError
from soft_prompt_explorer.analysis.core.folders import read_json_object
from soft_prompt_explorer.analysis.models.computing import BYTES

_EACH = 4  # operations a frozen weight and token, there and back
_LEARNED = 6  # operations a weight that learns
# Numbers that a step keeps for the way back, a token and layer, in widths and in inner widths of the model: measured on three families.
_KEPT_WIDTHS = {"prompt": 5.0, "lora": 5.5, "full": 8.0}
_KEPT_INNER = {"prompt": 3.0, "lora": 3.0, "full": 4.0}
_ADAM = 8e-9  # seconds a parameter, on one processor: what limits it is the memory, not the cores
_A_LAYER = 1e-3  # seconds of Python a layer
_SHARE = 0.7  # of the speed of one product alone that a whole step reaches: measured on three models


@dataclass(frozen=True)
class Shape:
    """What of a model's config its work follows from.

    Attributes
    ----------
    inner : the width of the feed-forward part.
    body : parameters but for the rows of the vocabulary.
    """

    layers: int
    width: int
    inner: int
    vocabulary: int
    body: int


EMBEDDED = Shape(30, 576, 1536, 49_152, 134_515_008 - 49_152 * 576)


def shape_in(folder: Path, parameters: int) -> Shape | None:
    """The shape of the model in a folder, whatever its family calls its numbers; None where they are not told."""
    config = read_json_object(folder / "config.json", ModelError)
    settings = config.get("text_config") or config

    def number(*names: str) -> int | None:
        return next((settings[name] for name in names if isinstance(settings.get(name), int) and settings[name] > 0), None)

    layers, width = number("num_hidden_layers", "n_layer", "n_layers", "num_layers"), number("hidden_size", "n_embd", "d_model")
    vocabulary = number("vocab_size")
    if not (layers and width and vocabulary):
        return None
    inner = number("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size") or 4 * width
    tied = settings.get("tie_word_embeddings", config.get("tie_word_embeddings", True))
    return Shape(layers, width, inner, vocabulary, max(0, parameters - vocabulary * width * (1 if tied else 2)))


def operations(shape: Shape, method: str, tokens: float, answers: float) -> float:
    """Of one step that reads so many tokens, virtual ones among them, and predicts so many."""
    each = _LEARNED if method == "full" else _EACH
    return each * (shape.body * tokens + shape.vocabulary * shape.width * answers)


def bytes_kept(shape: Shape, method: str, dtype: str, tokens: float, answers: float) -> float:
    """What a step holds of so many tokens until it has gone back, and the logits of what it predicts: as they are, as float32, their probabilities and their gradient."""
    kind = method if method in _KEPT_WIDTHS else "prompt"
    size = BYTES["float32"] if method == "full" else BYTES[dtype]
    a_layer = _KEPT_WIDTHS[kind] * shape.width + _KEPT_INNER[kind] * shape.inner
    return size * shape.layers * a_layer * tokens + (size + 3 * BYTES["float32"]) * shape.vocabulary * answers


def seconds(shape: Shape, method: str, dtype: str, device: str, tokens: float, answers: float) -> float:
    """Of one step, by how fast this machine multiplies now."""
    speed = _SHARE * products_a_second(dtype, device, max(1, round(tokens)), shape.width, shape.inner)
    learned = shape.body + shape.vocabulary * shape.width if method == "full" and device == "cpu" else 0
    return operations(shape, method, tokens, answers) / speed + _ADAM * learned + _A_LAYER * shape.layers


@lru_cache(maxsize=64)
def products_a_second(dtype: str, device: str, rows: int, width: int, inner: int) -> float:
    """Operations a second of a layer's largest product with so many rows; the best of five, a few hundredths of a second in all."""
    import torch

    inputs = torch.randn(rows, width, device=device, dtype=getattr(torch, dtype))
    weights = torch.randn(inner, width, device=device, dtype=getattr(torch, dtype))

    def once() -> float:
        began = time.perf_counter()
        torch.nn.functional.linear(inputs, weights)
        if device != "cpu":
            torch.zeros(1, device=device).item()  # waits for the device
        return time.perf_counter() - began

    with torch.inference_mode():
        once()
        return 2.0 * rows * width * inner / min(once() for _ in range(5))
