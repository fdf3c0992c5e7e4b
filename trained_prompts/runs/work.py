"""What one step of a training multiplies and what it keeps for the way back, counted from the model's config before anything is loaded.

A product of (n, a) and (a, b) is 2nab operations. A step reads its tokens once and goes back once for what stands in front (2 × 2 operations a weight and token);
where weights learn, each has a product more of its own (Kaplan et al. 2020, section 2.1, count so).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

from soft_prompt_explorer.analysis.core.errors import ModelError
from soft_prompt_explorer.analysis.core.folders import read_json_object
from soft_prompt_explorer.analysis.models.computing import BYTES
from soft_prompt_explorer.trained_prompts.training.memory import LEARNED_BYTES

_READ, _FROZEN, _LEARNED = (
    2,
    4,
    6,
)  # operations a weight and token: to read it, and there and back of one that is frozen and of one that learns
# Numbers that a step keeps for the way back, a token and layer, in widths and in inner widths of the model: measured on three families.
_KEPT_WIDTHS = {"prompt": 5.0, "lora": 5.5, "full": 8.0}
_KEPT_INNER = {"prompt": 3.0, "lora": 3.0, "full": 4.0}
# Seconds a parameter that Adam moves, on a processor: what limits it is the memory, not the cores. Of the vocabulary's rows more, whose gradient is made anew as a whole each step.
_ADAM, _ADAM_ROWS = 4e-9, 1.5e-8
_A_LAYER = 1e-3  # seconds of Python a layer
_SHARE = 0.7  # of the speed of one product alone that a whole step reaches: measured on three models
_ROWS, _WIDEST, _INNER = (64, 256), 2_048, 8_192  # of the product that a device is measured with
_FRESH = 60.0  # seconds


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


def settings_in(folder: Path) -> dict:
    """The config of the model in a folder; of one that reads pictures too, what is of its language model stands first.

    Raises
    ------
    ModelError
        It cannot be read.
    """
    config = read_json_object(folder / "config.json", ModelError)
    of_text = config.get("text_config")
    return config | of_text if isinstance(of_text, dict) else config


def shape_in(folder: Path, parameters: int) -> Shape | None:
    """The shape of the model in a folder, whatever its family calls its numbers; None where they are not told."""
    settings = settings_in(folder)

    def number(*names: str) -> int | None:
        return next((settings[name] for name in names if isinstance(settings.get(name), int) and settings[name] > 0), None)

    layers, width = number("num_hidden_layers", "n_layer", "n_layers", "num_layers"), number("hidden_size", "n_embd", "d_model")
    vocabulary = number("vocab_size")
    if not (layers and width and vocabulary):
        return None
    inner = number("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size") or 4 * width
    tied = settings.get("tie_word_embeddings", True)
    return Shape(layers, width, inner, vocabulary, max(0, parameters - vocabulary * width * (1 if tied else 2)))


@dataclass(frozen=True)
class Step:
    """What one step reads and learns.

    Attributes
    ----------
    tokens : that go through the model.
    answers : tokens that are predicted.
    factors : parameters that learn beside the frozen weights and that every token meets, as a LoRA's.
    again : whether the layers are read once more on the way back instead of being kept.
    """

    method: str
    tokens: float
    answers: float
    factors: int = 0
    again: bool = False


def operations(shape: Shape, step: Step) -> float:
    each = _there_and_back(step.method) + (_READ if step.again else 0)
    return each * (shape.body * step.tokens + shape.vocabulary * shape.width * step.answers) + _LEARNED * step.factors * step.tokens


def forward_share(method: str) -> float:
    """Of a step's work, what reading alone is."""
    return _READ / _there_and_back(method)


def _there_and_back(method: str) -> int:
    return _LEARNED if method == "full" else _FROZEN


def bytes_kept(shape: Shape, step: Step, dtype: str) -> float:
    """What a step holds until it has gone back, the logits of what it predicts (as they are, as float32, their probabilities and their gradient), and what learns
    beside frozen weights.
    """
    kind = step.method if step.method in _KEPT_WIDTHS else "prompt"
    size = BYTES[numbers(step.method, dtype)]
    a_layer = _KEPT_WIDTHS[kind] * shape.width + _KEPT_INNER[kind] * shape.inner
    layers = a_layer + shape.width * shape.layers if step.again else a_layer * shape.layers  # one whole, of the others what goes in
    return size * layers * step.tokens + (size + 3 * BYTES["float32"]) * shape.vocabulary * step.answers + LEARNED_BYTES * step.factors


def seconds(shape: Shape, step: Step, dtype: str, device: str) -> float:
    """Of one step, by how fast this machine multiplies now.

    Raises
    ------
    RuntimeError
        The device has no room to be measured.
    """
    speed = _SHARE * products_a_second(numbers(step.method, dtype), device, step.tokens, shape)
    adam = _ADAM * shape.body + _ADAM_ROWS * shape.vocabulary * shape.width if step.method == "full" else _ADAM * step.factors
    return operations(shape, step) / speed + (adam if device == "cpu" else 0.0) + _A_LAYER * shape.layers


def numbers(method: str, dtype: str) -> str:
    """What a method computes in where the frozen model is of these numbers: full fine-tuning trains a float32 copy."""
    return "float32" if method == "full" else dtype


def products_a_second(dtype: str, device: str, tokens: float, shape: Shape) -> float:
    """Operations a second of a product as large as a layer's largest, or as large as is soon done: the best of those measured so far, measured anew after a minute."""
    rows = next((rows for rows in _ROWS if tokens < 2 * rows), _ROWS[-1])
    size = rows, min(shape.width, _WIDEST), min(shape.inner, _INNER)
    at, best = _measured.get((dtype, device, size), (-math.inf, 0.0))
    if time.monotonic() - at > _FRESH:
        best = max(best, _measure(dtype, device, *size))
        _measured[dtype, device, size] = (time.monotonic(), best)
    return best


_measured: dict[tuple[str, str, tuple[int, int, int]], tuple[float, float]] = {}


def _measure(dtype: str, device: str, rows: int, width: int, inner: int) -> float:
    import torch

    inputs = torch.randn(rows, width, device=device).to(getattr(torch, dtype))
    weights = torch.randn(inner, width, device=device).to(getattr(torch, dtype))

    def once() -> float:
        began = time.perf_counter()
        torch.nn.functional.linear(inputs, weights)
        if device != "cpu":
            torch.zeros(1, device=device).item()  # waits for the device
        return time.perf_counter() - began

    with torch.inference_mode():
        once()
        return 2.0 * rows * width * inner / min(once() for _ in range(3))
