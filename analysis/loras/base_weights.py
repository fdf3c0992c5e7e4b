"""A LoRA against the weights that it changes: how large it is beside them, and whether it adds directions that they do not have.

One weight is in memory at a time. Its SVD is computed once and kept, since it is the same for every LoRA of the model.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.adapters.lora import LoraFactors
from soft_prompt_explorer.analysis.core.errors import AdapterError, InputError
from soft_prompt_explorer.analysis.core.folders import cache_folder
from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.loras.ranks import finite_factors, ranks_in_use, singular_vectors
from soft_prompt_explorer.analysis.loras.weights import BaseWeights, base_weights

COLUMNS = ["module", "relative_norm", "amplification", "intruders", "magnitude_change", "problem"]
NO_WEIGHT = "no weight of its name and shape"
TOP = 10  # singular vectors of W + ΔW that are looked at (Shuttleworth et al. 2024)
EPSILON = 0.5  # an intruder's best cosine with a singular vector of W is under it
_VERSION = 1  # raise it when the content of a kept SVD changes


def against_base(adapter: LoraAdapter, model: str, *, report: Report = no_report) -> pd.DataFrame:
    """Each module of a LoRA beside the weight of the model that it changes.

    Returns
    -------
    One row a module: module, relative_norm ‖ΔW‖_F / ‖W‖_F, amplification ‖ΔW‖_F / ‖UᵀWV‖_F with U and V the singular vectors of ΔW in use (Hu et al.
    2021, section 7.3), intruders (how many of the ten leading left singular vectors of W + ΔW have no left singular vector of W within a cosine of
    0.5: Shuttleworth et al. 2024). These two are missing where the module was never trained. Of a weight-decomposed LoRA (DoRA: Liu et al. 2024), whose
    update is not B A alone, all three are those of B A, and magnitude_change is how far the lengths m that it gives to the rows of W have gone from those
    they had, mean |m − ‖W‖| / mean ‖W‖; missing of every other LoRA. problem: why a module has none of these, because the model has no weight of that
    name and shape or because one of the two cannot be compared; missing of the others. Weights are found as adapters name them (see
    `analysis.loras.weights`): turned where the model keeps them so, the head by the embeddings where it is tied to them, replicated layers by their
    source.

    Raises
    ------
    InputError
        The model cannot be had.
    """
    weights = base_weights(model, report=report)
    rows = []
    for i, module in enumerate(adapter.modules):
        report(i / len(adapter.modules), f"{module} beside its weight")
        rows.append((module, *_beside_its_weight(adapter, module, weights)))
    report(1.0, "ready")
    return pd.DataFrame(rows, columns=COLUMNS).astype({"intruders": "Int64"})


def _beside_its_weight(adapter: LoraAdapter, module: str, weights: BaseWeights) -> tuple[float, float, int | None, float, str | None]:
    """The row of one module in `against_base`. Its weight is let go before the next one is read."""
    from safetensors import SafetensorError
    from scipy.sparse.linalg import ArpackError

    factors, nothing = adapter.modules[module], (float("nan"), float("nan"), None, float("nan"))
    try:
        weight = weights.of(module, factors, adapter.metadata)
        if weight is None:
            return *nothing, NO_WEIGHT
        if not np.isfinite(weight).all():
            return *nothing, "its weight holds NaN or infinity"
        return *compared(factors, weight, base_svd(weight)), magnitude_change(factors, weight), None
    except (InputError, OSError, SafetensorError, np.linalg.LinAlgError, ArpackError) as error:  # of this module's factors or weight alone
        return *nothing, printable(str(error))


def compared(factors: LoraFactors, weight: np.ndarray, svd: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[float, float, int | None]:
    """relative_norm, amplification and intruders of one module; see `against_base`."""
    u, values, vt = singular_vectors(factors)
    norm = float(np.linalg.norm(values))
    relative = norm / float(np.linalg.norm(weight))
    if norm == 0:
        return relative, float("nan"), None
    used = ranks_in_use(values)
    projected = float(np.linalg.norm(u[:, :used].T @ weight.astype(np.float64) @ vt[:used].T))
    return relative, norm / projected if projected else float("inf"), intruder_dimensions(factors, svd)


def magnitude_change(factors: LoraFactors, weight: np.ndarray) -> float:
    """mean |m − ‖W‖| / mean ‖W‖, with ‖W‖ the lengths of the rows of W, where a weight-decomposed LoRA's m begins (Liu et al. 2024); nan without m.

    Raises
    ------
    AdapterError
        m is not of the weight's rows, or holds NaN or infinity.
    """
    magnitude = factors.magnitude
    if magnitude is None:
        return float("nan")
    if len(magnitude) != len(weight) or not np.isfinite(magnitude).all():
        raise AdapterError(
            f"The magnitudes {factors.magnitude_name} in {factors.tensors.path} are not {len(weight)} finite numbers, one for each row of the weight; "
            "the file is damaged, or from a trainer that keeps them otherwise than PEFT."
        )
    lengths = np.linalg.norm(weight.astype(np.float64), axis=1)
    return float(np.abs(magnitude - lengths).mean() / lengths.mean())


def intruder_dimensions(factors: LoraFactors, svd: tuple[np.ndarray, np.ndarray, np.ndarray]) -> int:
    """How many of the ten leading left singular vectors of W + ΔW are near to none of W's own.

    In the bases of W = U₀ S₀ V₀ᵀ, extended by what B and Aᵀ hold beside them, W + ΔW is diag(S₀) + (U₀ᵀB) s (A V₀): an operator of O(k r) work, whose ten
    leading left singular vectors hold the cosines with U₀ as their entries.
    """
    from scipy.sparse.linalg import LinearOperator, svds

    u_0, s_0, vt_0 = (array.astype(np.float64) for array in svd)
    a, b = finite_factors(factors)
    left, right = _coordinates(b, u_0), _coordinates(a.T, vt_0.T)
    k = len(s_0)
    shape = (len(left), len(right))
    count = min(TOP, k)

    def forward(x: np.ndarray) -> np.ndarray:
        x = x.ravel()
        result = factors.scaling * (left @ (right.T @ x))
        result[:k] += s_0 * x[:k]
        return result

    def backward(y: np.ndarray) -> np.ndarray:
        y = y.ravel()
        result = factors.scaling * (right @ (left.T @ y))
        result[:k] += s_0 * y[:k]
        return result

    if count >= min(shape):  # svds finds fewer than all
        vectors = np.linalg.svd(np.stack([forward(column) for column in np.eye(shape[1])], axis=1))[0][:, :count]
    else:
        start = np.zeros(min(shape))
        start[:count] = 1.0  # near to the answer, and the same each time
        vectors = svds(LinearOperator(shape, forward, backward, dtype=np.float64), k=count, v0=start, tol=1e-10)[0]
    return int((np.abs(vectors[:k]).max(axis=0) < EPSILON).sum())


def _coordinates(columns: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The columns in an orthonormal basis that is extended, where they do not lie in its span, by an orthonormal basis of the rest."""
    inside = basis.T @ columns
    if basis.shape[0] == basis.shape[1]:
        return inside
    rest = columns - basis @ inside
    rest -= basis @ (basis.T @ rest)  # once more: what rounding left
    return np.vstack([inside, np.linalg.qr(rest, mode="r")])


def base_svd(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U₀ (out, k), S₀ (k,) and V₀ᵀ (k, in) of a weight, float32, k = min(out, in); kept in the cache by the weight's content."""
    digest = hashlib.sha256(repr(weight.shape).encode() + np.ascontiguousarray(weight).tobytes()).hexdigest()[:32]

    def decomposed() -> dict[str, np.ndarray]:
        svd = np.linalg.svd(weight.astype(np.float64), full_matrices=False)
        return {name: array.astype(np.float32) for name, array in zip(("u", "s", "vt"), svd, strict=True)}

    (out, width), k = weight.shape, min(weight.shape)
    kept = KeptArrays(cache_folder() / "base-svd", digest, _VERSION, shapes={"u": (out, k), "s": (k,), "vt": (k, width)}).get(decomposed)
    return kept["u"], kept["s"], kept["vt"]
