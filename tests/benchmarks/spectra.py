"""The spectra of a LoRA's modules from their factors, beside what else could be used: all 64 modules of q and v in 32 layers, 4096 × 4096, rank 16.

Ours reads nothing: the factors are in memory for all contestants, and a row of its own says what reading the file costs. The rows marked so are measured
on one module and multiplied by 64, as its seconds are those of any other. `add_weighted_adapter(combination_type="svd")` forms and decomposes ΔW of a
module; `reduce_intruder_dimension` decomposes the weight before and after, and what it takes away. The factored product is what a person would write: an
SVD of B, one of A, and one of the small matrix between them.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.loras.base_weights import base_svd, intruder_dimensions
from soft_prompt_explorer.analysis.loras.ranks import measures, singular_values
from tests.benchmarks.measure import median_and_range, once, ratio, take_turns, text_table

MODULES, SIDE, RANK, ROUNDS = 64, 4096, 16, 5
OURS = "singular values and measures, ours"
READ = "reading the file (64 modules, float16)"
LOW_RANK = f"torch.svd_lowrank(B @ A, {RANK}), one module × {MODULES}"
DENSE = f"torch.linalg.svdvals(B @ A), one module × {MODULES}"
PEFT = f'PEFT add_weighted_adapter(combination_type="svd"), one module × {MODULES}'


def tables() -> Iterator[str]:
    """The spectra, then the intruder dimensions of one module."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lora.safetensors"
        _write(path)
        adapter = load_lora(path)
        held = [_Held(factors) for factors in adapter.modules.values()]
        a, b = (torch.from_numpy(array) for array in (held[0].A, held[0].B))
        whole = {
            OURS: lambda: [measures(singular_values(factors), RANK) for factors in held],
            READ: lambda: [(factors.A, factors.B) for factors in load_lora(path).modules.values()],
            "three SVDs of the factors": lambda: [_factored(torch.from_numpy(f.A), torch.from_numpy(f.B)) for f in held],
            LOW_RANK: lambda: torch.svd_lowrank(b @ a, RANK),
        }
        seconds = take_turns(whole, rounds=ROUNDS, subject="spectra")
        seconds |= once({DENSE: lambda: torch.linalg.svdvals(b @ a), PEFT: _peft_svd(held[0])}, subject="spectra, dense")
        for name in (LOW_RANK, DENSE, PEFT):
            seconds[name] = [MODULES * x for x in seconds[name]]
        rows = [[name, *median_and_range(values), ratio(seconds, name, OURS)] for name, values in seconds.items()]
        share = statistics.median(seconds[READ]) / (statistics.median(seconds[READ]) + statistics.median(seconds[OURS]))
        yield text_table(
            f"the spectra of {MODULES} modules, {SIDE} × {SIDE}, rank {RANK}",
            ["", "median", "range", "against ours"],
            rows,
            f"The last two were called once. Reading the file is {share:.0%} of reading and computing.",
        )
        yield _intruders(held[0])


def _intruders(factors) -> str:
    weight = np.random.default_rng(1).standard_normal((SIDE, SIDE)).astype(np.float32) / 64
    svd = base_svd(weight)
    update = torch.from_numpy(factors.B @ factors.A)
    base = torch.from_numpy(weight)

    def dense() -> int:
        before, after = torch.linalg.svd(base, full_matrices=False).U, torch.linalg.svd(base + update, full_matrices=False).U
        return int(((before.T @ after[:, :10]).abs().max(dim=0).values < 0.5).sum())

    ours = "intruders, ours, the weight's SVD cached"
    seconds = take_turns({ours: lambda: intruder_dimensions(factors, svd)}, rounds=ROUNDS, subject="intruders")
    seconds |= once({"two dense SVDs": dense, "PEFT reduce_intruder_dimension": _peft_intruders(factors, base)}, subject="intruders, dense")
    rows = [[name, *median_and_range(values), ratio(seconds, name, ours)] for name, values in seconds.items()]
    return text_table(
        f"intruder dimensions of one module, {SIDE} × {SIDE}",
        ["", "median", "range", "against ours"],
        rows,
        "The last two were called once. PEFT also takes away what it finds, which takes a third SVD.",
    )


def _in_peft(factors, weight: torch.Tensor):
    """PEFT's own model of one linear module with these factors."""
    from peft import LoraConfig, get_peft_model

    layer = torch.nn.Linear(SIDE, SIDE, bias=False)
    layer.weight.data = weight.clone()
    model = get_peft_model(torch.nn.Sequential(layer), LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["0"]))
    adapted = model.base_model.model[0]
    adapted.lora_A["default"].weight.data = torch.from_numpy(factors.A)
    adapted.lora_B["default"].weight.data = torch.from_numpy(factors.B)
    return model


def _peft_intruders(factors, weight: torch.Tensor):
    from peft.tuners.lora.intruders import reduce_intruder_dimension

    model = _in_peft(factors, weight)
    return lambda: reduce_intruder_dimension(model, logging_sink=None)


class _Held:
    """A module's factors in memory."""

    def __init__(self, factors) -> None:
        self.A, self.B, self.scaling, self.rank = factors.A, factors.B, factors.scaling, factors.rank
        self.a_name, self.b_name, self.tensors = factors.a_name, factors.b_name, factors.tensors
        self.out_features, self.in_features = factors.out_features, factors.in_features


def _write(path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for i in range(MODULES):
        name = f"base_model.model.model.layers.{i // 2}.self_attn.{'qv'[i % 2]}_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, SIDE, generator=generator).half()
        tensors[f"{name}.lora_B.weight"] = torch.randn(SIDE, RANK, generator=generator).half() / 64
    save_file(tensors, path)


def _factored(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    _, s_b, v_b = torch.linalg.svd(b, full_matrices=False)
    u_a, s_a, _ = torch.linalg.svd(a, full_matrices=False)
    return torch.linalg.svd((s_b[:, None] * v_b) @ (u_a * s_a), full_matrices=False).S


def _peft_svd(factors):
    from peft import LoraConfig

    model = _in_peft(factors, torch.zeros(SIDE, SIDE))
    model.add_adapter("zero", LoraConfig(r=RANK, target_modules=["0"]))  # B is zero: a single adapter PEFT would copy and not decompose
    return lambda: model.add_weighted_adapter(["default", "zero"], [1.0, 1.0], "svd", combination_type="svd", svd_rank=RANK)
