"""Two LoRAs: which modules they share, and whether they change them in the same directions, beside what random updates share."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.adapters.lora import LoraFactors
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.loras.ranks import finite_factors, place_of, ranks_in_use, singular_vectors
from soft_prompt_explorer.analysis.prompts.likeness import principal_angle_mean

COLUMNS = [
    "module",
    "layer",
    "projection",
    "in",
    "rank_a",
    "rank_b",
    "cosine",
    "angle_out",
    "angle_out_random",
    "angle_in",
    "angle_in_random",
]
SIMILARITY_COLUMNS = ["i", "j", "phi", "phi_random"]
Side = Literal["out", "in"]
SEED = 20_216  # of the random control


def against(a: LoraAdapter, b: LoraAdapter, *, report: Report = no_report) -> pd.DataFrame:
    """Each module of two adapters.

    Returns
    -------
    One row a module of either: module, layer, projection, in (`both`, `a` or `b`: the other columns are missing unless it is both), rank_a, rank_b (of
    the directions in use), cosine (of the two updates as vectors, ⟨ΔW, ΔW'⟩ / ‖ΔW‖‖ΔW'‖), angle_out and angle_in (the mean cosine of the
    principal angles between the output or the input directions in use: Björck and Golub 1973), and, for each, what random directions of as many
    dimensions score. Missing as well where either was never trained.

    Raises
    ------
    InputError
        No module is in both, or a module has another shape in the other.
    """
    shared = [module for module in a.modules if module in b.modules]
    if not shared:
        raise InputError(
            f"{a.name} and {b.name} change no module of the same name ({next(iter(a.modules))} and {next(iter(b.modules))}, for instance); compare LoRAs of one model and one trainer."
        )
    rows = []
    rng = np.random.default_rng(SEED)
    for i, module in enumerate([*a.modules, *(module for module in b.modules if module not in a.modules)]):
        report(i / (len(a.modules) + len(b.modules)), f"module {module}")
        row = dict.fromkeys(COLUMNS) | dict(zip(("module", "layer", "projection"), (module, *place_of(module)), strict=True))
        row["in"] = "both" if module in a.modules and module in b.modules else "a" if module in a.modules else "b"
        if row["in"] == "both":
            check_shapes(module, a.modules[module], b.modules[module])
            row |= _compared(a.modules[module], b.modules[module], rng)
        rows.append(row)
    report(1.0, "ready")
    numbers = dict.fromkeys(COLUMNS[6:], "float64")
    return pd.DataFrame(rows, columns=COLUMNS).astype({"layer": "Int64", "rank_a": "Int64", "rank_b": "Int64"} | numbers)


def subspace_similarity(a: LoraFactors, b: LoraFactors, *, side: Side = "out") -> pd.DataFrame:
    """φ(i, j) = ‖U_iᵀ U'_j‖²_F / min(i, j), U_i the i leading singular vectors (Hu et al. 2021, section 7.2), for all i and j.

    Parameters
    ----------
    side : `out`, left singular vectors; or `in`, right ones.

    Returns
    -------
    i, j (from 1), phi (1: the smaller space lies in the larger; 0: they are orthogonal), phi_random (the same of two random updates of the same shapes).

    Raises
    ------
    InputError
        The shapes differ, the side is unknown, or one was never trained.
    """
    if side not in get_args(Side):
        raise InputError(f"The side {side!r} is not known; choose out or in.")
    check_shapes("the module", a, b)
    first, second = (_directions(factors)[side] for factors in (a, b))
    if not len(first) or not len(second):
        raise InputError("One of the two was never trained in this module, so it has no directions to compare.")
    rng = np.random.default_rng(SEED)
    phi = _phi(first, second)
    chance = _phi(*(_random(len(rows), rows.shape[1], rng) for rows in (first, second)))
    i, j = np.indices(phi.shape)
    return pd.DataFrame(
        {"i": i.ravel() + 1, "j": j.ravel() + 1, "phi": phi.ravel(), "phi_random": chance.ravel()}, columns=SIMILARITY_COLUMNS
    )


def check_shapes(module: str, a: LoraFactors, b: LoraFactors) -> None:
    """Refuse two updates that are not of the same weight."""
    shapes = [(factors.out_features, factors.in_features) for factors in (a, b)]
    if shapes[0] != shapes[1]:
        raise InputError(f"The update of {module} is {shapes[0]} in the one and {shapes[1]} in the other; compare LoRAs of one model.")


def _compared(a: LoraFactors, b: LoraFactors, rng: np.random.Generator) -> dict[str, float]:
    first, second = _directions(a), _directions(b)
    result: dict[str, float] = {"rank_a": len(first["out"]), "rank_b": len(second["out"])}
    if not len(first["out"]) or not len(second["out"]):
        return result
    result["cosine"] = _cosine(a, b)
    for side in get_args(Side):
        result[f"angle_{side}"] = principal_angle_mean(first[side], second[side])
        drawn = (_random(len(rows), rows.shape[1], rng) for rows in (first[side], second[side]))
        result[f"angle_{side}_random"] = principal_angle_mean(*drawn)
    return result


def _directions(factors: LoraFactors) -> dict[str, np.ndarray]:
    """The singular vectors in use, as rows: (k, out) and (k, in)."""
    u, values, vt = singular_vectors(factors)
    k = ranks_in_use(values)
    return {"out": u[:, :k].T, "in": vt[:k]}


def _cosine(a: LoraFactors, b: LoraFactors) -> float:
    """⟨s BA, s' B'A'⟩ = s s' tr((BᵀB')(A'Aᵀ)): r × r products only."""
    (a_1, b_1), (a_2, b_2) = finite_factors(a), finite_factors(b)

    def inner(x_a, x_b, y_a, y_b) -> float:
        return float(((x_b.T @ y_b) * (x_a @ y_a.T)).sum())

    norm = np.sqrt(inner(a_1, b_1, a_1, b_1) * inner(a_2, b_2, a_2, b_2))
    return float(np.sign(a.scaling * b.scaling) * inner(a_1, b_1, a_2, b_2) / norm)


def _phi(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    squares = (first @ second.T) ** 2
    sizes = np.minimum(*(index + 1 for index in np.indices(squares.shape)))
    return squares.cumsum(axis=0).cumsum(axis=1) / sizes


def _random(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """As many orthonormal rows in random directions."""
    return np.linalg.qr(rng.standard_normal((width, count)))[0].T
