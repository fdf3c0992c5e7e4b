"""What each singular direction of a LoRA does to the loss: one backward pass over some examples, a factor at every direction.

With ΔW = Σ σᵢ uᵢ vᵢᵀ and a factor eᵢ before each term, taking direction i out is eᵢ from 1 to 0. The gradient of one example's loss ℓ by eᵢ is σᵢ uᵢᵀ (∂ℓ/∂ΔW) vᵢ. Near the end
of a training its mean over examples is about zero, so the loss rises by the second order, ½ ∂²ℓ/∂eᵢ²; the mean square of the gradients stands for that curvature, as in optimal brain damage with
the empirical Fisher (LeCun et al. 1989; Theis et al. 2018; Molchanov et al. 2019). It says how far the loss depends on a direction, where its energy σᵢ² says how large the direction is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.asking.batches import answer_logits, check_lengths, encode
from soft_prompt_explorer.analysis.asking.in_front import bare
from soft_prompt_explorer.analysis.asking.lora import applied
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.loras.ranks import place_of, singular_values
from soft_prompt_explorer.analysis.loras.truncation import truncate
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.analysis.tasks.task import Task

if TYPE_CHECKING:
    import torch

EXAMPLES = 64
BATCH_SIZE = 8
COLUMNS = ["module", "layer", "projection", "direction", "singular_value", "energy", "effect", "energy_share", "effect_share"]


def effects(
    adapter: LoraAdapter, task: Task, *, language_model: LanguageModel, examples: int = EXAMPLES, report: Report = no_report
) -> pd.DataFrame:
    """The energy of every singular direction of a LoRA beside its effect on a task's loss.

    Parameters
    ----------
    task : whose first training examples are asked; none that is held out is.
    examples : how many.

    Returns
    -------
    One row a direction of the trained modules, in the file's order: module, layer, projection, direction (from 0, the largest singular value's), singular_value, energy (σ²), effect (½ the mean
    square of the gradients, in nats: about how far an example's loss rises without it), energy_share and effect_share (of all directions of all modules).

    Raises
    ------
    InputError
        The LoRA cannot be put into the model, was never trained, or the examples do not fit.
    """
    import torch

    adapter.check_is_causal()
    table = task.examples("train").head(examples)
    if not len(table):
        raise InputError(f"The task {task.name} has no training examples to take gradients of; give it some.")
    subject = bare(language_model)
    encoded = encode(subject.tokenizer, table["text"], table["target"])
    check_lengths(encoded, 0, subject.model.config)
    encoded.sort(key=lambda example: len(example.ids))  # like lengths together: little is padded
    squares: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        truncate(adapter, 1.0, Path(folder) / "whole")  # its factors are the singular directions
        with applied(subject.model, Path(folder) / "whole"), _gates(subject.model) as gates:
            for start in range(0, len(encoded), BATCH_SIZE):
                report(start / len(encoded), f"example {start + 1} of {len(encoded)}")
                batch = encoded[start : start + BATCH_SIZE]
                gates.clear()
                with torch.enable_grad():
                    logits = answer_logits(subject.forward, batch, virtual_tokens=0, device=language_model.device).float()
                    answers = torch.tensor([token for example in batch for token in example.answer], device=logits.device)
                    weights = torch.tensor([1 / len(example.answer) for example in batch for _ in example.answer], device=logits.device)
                    loss = (torch.nn.functional.cross_entropy(logits, answers, reduction="none") * weights).sum()
                    gradients = torch.autograd.grad(loss, list(gates.values()))
                for module, gradient in zip(gates, gradients, strict=True):
                    summed = gradient.double().square().sum(dim=0).cpu().numpy()
                    squares[module] = squares.get(module, 0.0) + summed
    report(1.0, "ready")
    return _table(adapter, {module: 0.5 * each / len(encoded) for module, each in squares.items()})


@contextmanager
def _gates(model) -> Iterator[dict[str, torch.Tensor]]:
    """A factor of 1 at every direction of every LoRA layer in the model, one for each example of a batch, (b, r), made anew at each forward pass."""
    import torch

    gates: dict[str, torch.Tensor] = {}
    hooks = []

    def hook_of(name: str):
        def hook(module, inputs, output):
            gate = torch.ones(output.shape[0], output.shape[-1], device=output.device, dtype=output.dtype, requires_grad=True)
            gates[name] = gate
            return output * gate.view(len(gate), *(1,) * (output.dim() - 2), gate.shape[1])

        return hook

    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            hooks.append(module.lora_A["default"].register_forward_hook(hook_of(name)))
    try:
        yield gates
    finally:
        for hook in hooks:
            hook.remove()


def _table(adapter: LoraAdapter, effect_of: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = []
    for module, factors in adapter.modules.items():
        if module not in effect_of:
            continue
        layer, projection = place_of(module)
        values = singular_values(factors)[: len(effect_of[module])]
        rows += [
            (module, layer, projection, i, value, value**2, effect)
            for i, (value, effect) in enumerate(zip(values, effect_of[module], strict=True))
        ]
    table = pd.DataFrame(rows, columns=COLUMNS[:-2]).astype({"layer": "Int64"})
    for name in ("energy", "effect"):
        total = table[name].sum()
        table[f"{name}_share"] = table[name] / total if total else 0.0
    return table[COLUMNS]


def fewest_by_effect(table: pd.DataFrame, share: float) -> dict[str, np.ndarray]:
    """The fewest directions of all modules together that hold a share of the effect, by module.

    Parameters
    ----------
    table : of `effects`.
    share : above 0 and at most 1.

    Raises
    ------
    InputError
        The share is out of range.
    """
    if not 0 < share <= 1:
        raise InputError(f"The share of the effect to keep is above 0 and at most 1, for instance 0.95, not {share:g}.")
    order = table["effect"].to_numpy().argsort(kind="stable")[::-1]
    cumulative = table["effect"].to_numpy()[order].cumsum()
    count = int(np.searchsorted(cumulative, share * cumulative[-1] * (1 - 1e-12))) + 1
    return by_module(table, order[:count])


def by_module(table: pd.DataFrame, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The directions in these rows of the table of `effects`, by module."""
    return {module: np.sort(part["direction"].to_numpy()) for module, part in table.iloc[rows].groupby("module", sort=False)}
