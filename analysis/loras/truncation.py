"""A LoRA cut down to the ranks that hold a share of its energy, as files that PEFT loads."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.adapters.lora import LoraFactors
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import appears_whole
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.loras.ranks import check_energy, energies, fewest, rank_pattern, singular_vectors, values_of

COLUMNS = ["module", "rank", "kept", "relative_error"]


def truncate(adapter: LoraAdapter, energy: float, folder: Path, *, report: Report = no_report) -> pd.DataFrame:
    """Write the adapter with the fewest ranks of each module that hold a share of its energy (the best approximation of that rank: Eckart and Young 1936).

    The factors are B' = U √σ and A' = √σ Vᵀ in float32, with α = r in each module, so that the scaling is 1; the config carries `rank_pattern` and
    `alpha_pattern`. A module that was never trained is left out: its update is zero.

    Parameters
    ----------
    energy : the share of Σσ² to keep, above 0 and at most 1; 1 keeps every rank that is not zero, and changes no output.
    folder : appears whole, and must not exist.

    Returns
    -------
    One row a module: module, rank, kept, relative_error (‖ΔW − ΔW'‖_F / ‖ΔW‖_F; missing for a module never trained). The last row, `all`, is of all
    modules together, its ranks summed up.

    Raises
    ------
    InputError
        The share is out of range, the folder exists, nothing was trained, or the adapter holds what a copy of its factors alone would lose.
    """
    check_energy(energy)
    check_can_be_copied(adapter)
    spectra_of, patterns = {}, {}
    try:
        with appears_whole(folder) as partial:
            tensors: dict[str, np.ndarray] = {}
            for i, (module, factors) in enumerate(adapter.modules.items()):
                report(i / len(adapter.modules), f"module {i + 1} of {len(adapter.modules)}")
                u, values, vt = singular_vectors(factors)
                spectra_of[module] = factors.rank, values
                if not values[0]:
                    continue
                patterns[module] = kept = fewest(energies(values), energy)
                tensors |= _named(module, factors, u[:, :kept] * np.sqrt(values[:kept]), np.sqrt(values[:kept])[:, None] * vt[:kept])
            if not tensors:
                raise InputError(f"No module of {adapter.name} was ever trained, so there is nothing to keep.")
            _save(tensors, patterns, adapter.base_model, partial)
    except FileExistsError as error:
        raise InputError(f"{folder} exists; choose another folder for the truncated adapter.") from error
    except OSError as error:
        raise InputError(f"The truncated adapter cannot be written to {folder}: {error.strerror or error}.") from error
    report(1.0, "ready")
    return _losses(spectra_of, patterns)


def planned(table: pd.DataFrame, energy: float) -> pd.DataFrame:
    """What `truncate` would keep and lose, from the table of `analysis.loras.ranks.spectra`: the same columns, nothing written.

    Raises
    ------
    InputError
        The share is out of range.
    """
    return _losses({row["module"]: (row["rank"], values_of(row)) for _, row in table.iterrows()}, rank_pattern(table, energy))


def check_can_be_copied(adapter: LoraAdapter) -> None:
    """Refuse a LoRA of which `truncate` would lose something.

    Raises
    ------
    InputError
        It holds tensors beside the factors, magnitudes (DoRA), embeddings' factors, or factors of experts.
    """
    if adapter.saved_modules:
        raise InputError(
            f"{adapter.name} also holds {len(adapter.saved_modules)} tensors that are kept whole ({adapter.saved_modules[0]}, …), which a truncated copy would lose."
        )
    if any(factors.magnitude_name for factors in adapter.modules.values()):
        raise InputError(
            f"{adapter.name} is weight-decomposed (DoRA): its update is not B A alone, and cutting ranks would change its magnitudes' meaning."
        )
    stacked = next((module for module, factors in adapter.modules.items() if factors.experts > 1), None)
    if stacked is not None:
        raise InputError(
            f"{adapter.name} changes parameters of experts ({stacked}, …), whose factors PEFT keeps in one at one rank; they cannot be truncated here."
        )
    if any("lora_embedding_" in factors.a_name for factors in adapter.modules.values()):
        raise InputError(f"{adapter.name} changes embeddings, whose factors PEFT keeps otherwise; they cannot be truncated here.")


def _losses(spectra_of: dict[str, tuple[int, np.ndarray]], patterns: dict[str, int]) -> pd.DataFrame:
    """The table of `truncate`, from each module's rank and singular values and the ranks kept of those that were trained."""
    rows, total, lost = [], 0.0, 0.0
    for module, (rank, values) in spectra_of.items():
        squares, kept = values**2, patterns.get(module, 0)
        rows.append((module, rank, kept, math.sqrt(squares[kept:].sum() / squares.sum()) if kept else float("nan")))
        total, lost = total + squares.sum(), lost + squares[kept:].sum()
    table = pd.DataFrame(rows, columns=COLUMNS)
    table.loc[len(table)] = ["all", table["rank"].sum(), table["kept"].sum(), math.sqrt(lost / total) if total else float("nan")]
    return table


def _named(module: str, factors: LoraFactors, b: np.ndarray, a: np.ndarray) -> dict[str, np.ndarray]:
    """The factors by PEFT's names, in the shapes of the module's kind."""
    shape_a = factors.tensors.entries[factors.mid_name or factors.a_name].shape
    shape_b = factors.tensors.entries[factors.b_name].shape
    if factors.mid_name is not None:
        shape_a = (shape_a[0], factors.tensors.entries[factors.a_name].shape[1], *shape_a[2:])
    a = a.reshape(len(a), *shape_a[1:])
    b = b.reshape(*b.shape, *(1,) * (len(shape_b) - 2))
    named = {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in named.items()}


def _save(tensors: dict[str, np.ndarray], patterns: dict[str, int], base_model: str | None, folder: Path) -> None:
    from peft import LoraConfig
    from safetensors.numpy import save_file

    largest = max(patterns.values())
    LoraConfig(
        base_model_name_or_path=base_model,
        inference_mode=True,
        r=largest,
        lora_alpha=largest,
        rank_pattern=patterns,
        alpha_pattern=patterns,
        target_modules=sorted(patterns),
        lora_dropout=0.0,
    ).save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))  # PEFT writes a set in any order
    config["target_modules"] = sorted(patterns)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
