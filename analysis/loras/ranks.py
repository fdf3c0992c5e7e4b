"""LoRA rank spectra: how many ranks an update really uses, from its two thin factors alone.

ΔW = s · B A is as large as the weight that it changes, and of rank r. Its singular values are those of an r × r matrix, so ΔW is never
formed: B and A are reduced to their Gram matrices in float64, or to triangles by QR where a Gram matrix would lose digits.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.adapters.lora import LoraFactors
from soft_prompt_explorer.analysis.core.errors import AdapterError, InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    "module",
    "layer",
    "projection",
    "out_features",
    "in_features",
    "rank",
    "scaling",
    "frobenius_norm",
    "spectral_norm",
    "stable_rank",
    "effective_rank",
    "entropy",
    "rank_90",
    "rank_95",
    "rank_99",
    "spike",
    "singular_values",
]
MEASURES = COLUMNS[7:16]
HEALTH_COLUMNS = ["module", "problem", "says"]

# Products of Gram matrices in float64 err by about this times ‖A‖² ‖B‖² on σ²; measured on random, graded and duplicated factors.
GRAM_ERROR = 16 * float(np.finfo(np.float64).eps)
# What a module's name ends in, or holds, in the families that PEFT and the image trainers know.
PROJECTIONS = (
    ("down", r"DenseReluDense[._]wo(_lora)?$"),  # T5, whose wo of the attention is o
    ("gate", r"DenseReluDense[._]wi_0(_lora)?$"),
    ("up", r"DenseReluDense[._]wi(_1)?(_lora)?$"),
    ("q", r"(^|[._])(q_proj|to_q|q|query|wq)(_lora)?$"),
    ("k", r"(^|[._])(k_proj|to_k|k|key|wk)(_lora)?$"),
    ("v", r"(^|[._])(v_proj|to_v|v|value|wv)(_lora)?$"),
    ("o", r"(^|[._])(o_proj|out_proj|to_out([._]0)?|o|wo|attn[._]c_proj|attention[._]dense)(_lora)?$"),
    ("qkv", r"(^|[._])(qkv|qkv_proj|query_key_value|c_attn|Wqkv)$"),
    ("gate_up", r"(^|[._])gate_up_proj$"),
    ("gate", r"(^|[._])(gate_proj|w1)$"),
    ("up", r"(^|[._])(up_proj|w3|fc1|dense_h_to_4h|mlp[._]c_fc|ff[._]net[._]0[._]proj)$"),
    ("down", r"(^|[._])(down_proj|w2|fc2|dense_4h_to_h|mlp[._]c_proj|ff[._]net[._]2)$"),
)

DEAD = 1e-6  # of the largest singular value: the rounding of the float32 or 16-bit factors that training wrote
SPIKE = 0.9  # of the energy in one direction


def spectra(adapter: LoraAdapter, *, report: Report = no_report) -> pd.DataFrame:
    """The singular values of every module's update, and what they say; one module in memory at a time.

    Returns
    -------
    One row a module, in the file's order:

    - module (its path as the file spells it), layer (its number, missing where the path has none), projection (q, k, v, o, gate, up, down, or the
      path's last name), out_features, in_features, rank (r, the number of rows of A; of a ΔW that is no product of thin
      matrices min(out, in)), scaling (s; 1 where the type has it in its factors).
    - frobenius_norm ‖ΔW‖_F, spectral_norm σ₁.
    - stable_rank ‖ΔW‖²_F / σ₁²; effective_rank exp(H(σ/Σσ)) (Roy & Vetterli 2007); entropy H(σ²/Σσ²) / log r, between 0 and 1, missing
      for r = 1.
    - rank_90, rank_95, rank_99: the fewest singular values with that share of Σσ². spike: σ₁²/Σσ².
    - singular_values: all min(r, out, in) of them, descending, as text with nine digits and a space between two.

    A module whose B (or A) is zero has zeros throughout: it was never trained.

    Raises
    ------
    AdapterError
        A factor holds NaN or infinity, a tensor of the file cannot be read, or an update is made of weights that are not at hand.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> table = spe.spectra(spe.load_adapter(spe.GALLERY / "capitals-lora-8"))
    >>> len(table), table["rank"].unique().tolist()
    (60, [8])
    """
    import pandas as pd

    rows = []
    for i, (module, factors) in enumerate(adapter.modules.items()):
        report(i / len(adapter.modules), f"module {i + 1} of {len(adapter.modules)}")
        factors = factors.made()
        values = singular_values(factors)
        layer, projection = place_of(module)
        sizes = (factors.out_features, factors.in_features, factors.rank, factors.scaling)
        text = " ".join(f"{value:.9g}" for value in values)
        rows.append((module, layer, projection, *sizes, *measures(values, factors.rank).values(), text))
    report(1.0, "ready")
    table = pd.DataFrame(rows, columns=COLUMNS)
    for column, kind in ({"layer": "Int64"} | dict.fromkeys(("rank_90", "rank_95", "rank_99"), "int64")).items():
        table[column] = table[column].astype(kind)  # one by one: `astype` of a whole table goes through all of its columns
    return table


def singular_values(factors: LoraFactors) -> np.ndarray:
    """All min(r, out, in) singular values of ΔW = s · B A, descending, float64.

    By the Gram matrices BᵀB = L Lᵀ (Cholesky) and A Aᵀ in float64: the eigenvalues of Lᵀ (A Aᵀ) L are σ². By thin QR of B and Aᵀ and the
    SVD of the r × r core where the factors are so nearly dependent that squaring them would lose digits.

    Raises
    ------
    AdapterError
        A factor holds NaN or infinity.
    """
    factors = factors.made()
    if factors.is_whole:
        a, b = finite_factors(factors)
        return abs(factors.scaling) * np.linalg.svd(b @ a, compute_uv=False)
    found = values_of_product(*factors.both(), factors.scaling)
    if found is None:
        return _by_qr(*finite_factors(factors), factors.scaling)
    return found


def values_of_product(a: np.ndarray, b: np.ndarray, scaling: float) -> np.ndarray | None:
    """All singular values of s · B A, descending, float64, from A (r, in) and B (out, r) by their Gram matrices, or by QR; see `singular_values`.

    Returns
    -------
    None where a factor holds NaN or infinity, or values whose squares are beyond float64.
    """
    a, b = a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)
    count = min(len(a), len(b), a.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):
        gram_a, gram_b = a @ a.T, b.T @ b
    if not (np.isfinite(gram_a).all() and np.isfinite(gram_b).all()):  # NaN and infinity show here, in fewer numbers
        return None
    try:
        half = np.linalg.cholesky(gram_b)
    except np.linalg.LinAlgError:  # columns that depend on each other, or zeros
        return _by_qr(a, b, scaling)
    squares = np.clip(np.linalg.eigvalsh(half.T @ gram_a @ half)[::-1], 0.0, None)[:count]
    norm_b = min(np.abs(gram_b).sum(0).max(), np.linalg.norm(gram_b))  # at least the largest eigenvalue, and seldom much more
    error = GRAM_ERROR * norm_b * np.trace(gram_a)
    told = squares[squares > 1e-14 * squares[0]]  # what is smaller is zero, or rounding
    if error > 1e-13 * squares[0] or (len(told) and error > 1e-3 * told[-1]):
        return _by_qr(a, b, scaling)
    return abs(scaling) * np.sqrt(np.where(squares > error, squares, 0.0))


def summary(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """The table of `spectra` summed up by `layer` or by `projection`.

    Returns
    -------
    One row a group, in the order of the file (layers ascending): the group, modules (how many), frobenius_norm (the root of the sum of squares), and
    the medians of the other measures over its trained modules.

    Raises
    ------
    InputError
        `by` is neither.
    """
    import pandas as pd

    if by not in ("layer", "projection"):
        raise InputError(f"Modules are summed up by layer or by projection, not by {by!r}.")
    rows = []
    for group, part in table.groupby(by, sort=by == "layer", dropna=False):
        trained = part[part["spectral_norm"] > 0]
        medians = trained[[name for name in MEASURES if name != "frobenius_norm"]].median()
        rows.append({by: group, "modules": len(part), "frobenius_norm": float(np.sqrt((part["frobenius_norm"] ** 2).sum())), **medians})
    return pd.DataFrame(rows, columns=[by, "modules", *MEASURES])


def long_form(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `spectra` with a row a singular value: module, layer, projection, rank (from 1), value, energy (the cumulative share)."""
    import pandas as pd

    parts = []
    for _, row in table.iterrows():
        values = values_of(row)
        columns = {"rank": np.arange(1, len(values) + 1), "value": values, "energy": energies(values)}
        parts.append(pd.DataFrame({name: row[name] for name in ("module", "layer", "projection")} | columns))
    return pd.concat(parts, ignore_index=True)


def health(adapter: LoraAdapter, table: pd.DataFrame) -> pd.DataFrame:
    """What a person should know before they trust or ship this LoRA.

    Parameters
    ----------
    table : of `spectra`.

    Returns
    -------
    module (missing where it is said of the whole adapter), problem (`never trained`, `rank-one spike`, `dead ranks`, `as the file says`), says (a
    sentence). No rows: nothing was found. NaN in a factor is refused before, by `spectra`.
    """
    import pandas as pd

    rows: list[tuple[str | None, str, str]] = [(None, "as the file says", note) for note in adapter.notes]
    for row in table.itertuples():
        values = values_of(row)
        if row.spectral_norm == 0:
            rows.append((row.module, "never trained", "B, A or α is zero, so the update is zero."))
            continue
        dead = row.rank - ranks_in_use(values)
        is_whole = adapter.kind == "delta" and row.rank >= min(row.out_features, row.in_features)  # which has no ranks to lose
        if dead and not is_whole:
            rows.append(
                (row.module, "dead ranks", f"{dead} of {row.rank} ranks do nothing (under {DEAD:g} of the largest singular value).")
            )
        if row.rank > 1 and row.spike > SPIKE:
            rows.append((row.module, "rank-one spike", f"One direction holds {math.floor(1000 * row.spike) / 10:g}% of the energy."))
    return pd.DataFrame(rows, columns=HEALTH_COLUMNS)


def rank_pattern(table: pd.DataFrame, energy: float) -> dict[str, int]:
    """The fewest ranks of each trained module that hold a share of its energy, for PEFT's `rank_pattern`.

    Raises
    ------
    InputError
        The share is not above 0 and at most 1.
    """
    check_energy(energy)
    found = {row["module"]: energies(values_of(row)) for _, row in table.iterrows()}
    return {module: fewest(cumulative, energy) for module, cumulative in found.items() if cumulative[-1] > 0}


def uniform_rank(table: pd.DataFrame, energy: float) -> tuple[int, float]:
    """The fewest ranks, as many for every module, that hold a share of the energy of all modules together; zeros where none was trained.

    Parameters
    ----------
    table : of `spectra`.

    Returns
    -------
    The rank, and the least share that a trained module keeps of its own energy at it.

    Raises
    ------
    InputError
        The share is not above 0 and at most 1.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> from soft_prompt_explorer.analysis.loras.ranks import uniform_rank
    >>> rank, least = uniform_rank(spe.spectra(spe.load_adapter(spe.GALLERY / "sentiment-lora-64")), 0.95)
    >>> rank, round(least, 2)
    (7, 0.83)
    """
    check_energy(energy)
    found = [values_of(row) for _, row in table.iterrows() if row["spectral_norm"] > 0]
    if not found:
        return 0, 0.0
    most = max(map(len, found))
    squares = np.stack([np.pad(values**2, (0, most - len(values))) for values in found])
    rank = fewest(np.cumsum(squares.sum(0)) / squares.sum(), energy)
    return rank, float((squares[:, :rank].sum(1) / squares.sum(1)).min())


def check_energy(energy: float) -> None:
    if not 0 < energy <= 1:
        raise InputError(f"The share of the energy to keep is above 0 and at most 1, for instance 0.95, not {energy:g}.")


def singular_vectors(factors: LoraFactors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U (out, k), σ (k,) and Vᵀ (k, in) of ΔW = U diag(σ) Vᵀ, float64, k = min(r, out, in); by thin QR of both factors and the SVD of the core.

    Signs are fixed: the largest entry of each column of U is positive (as `sklearn.utils.extmath.svd_flip` has it, which takes a second to import).

    Raises
    ------
    AdapterError
        A factor holds NaN or infinity.
    """
    a, b = finite_factors(factors)
    q_b, r_b = np.linalg.qr(b)
    q_a, r_a = np.linalg.qr(a.T)
    left, values, right = np.linalg.svd(factors.scaling * (r_b @ r_a.T), full_matrices=False)
    u, vt = q_b @ left, right @ q_a.T
    signs = np.sign(np.take_along_axis(u, np.abs(u).argmax(axis=0)[None], axis=0))[0]
    return u * signs, values, vt * signs[:, None]


def measures(values: np.ndarray, rank: int) -> dict[str, float]:
    """The measures of one spectrum, by their column's name; see `spectra`."""
    energy = values**2
    total = float(energy.sum())
    if total == 0.0:
        return dict.fromkeys(MEASURES, 0.0) | ({"entropy": float("nan")} if rank == 1 else {})
    share, linear, cumulative = energy / total, values / values.sum(), energies(values)
    return {
        "frobenius_norm": math.sqrt(total),
        "spectral_norm": float(values[0]),
        "stable_rank": total / float(energy[0]),
        "effective_rank": math.exp(_entropy(linear)),
        "entropy": _entropy(share) / math.log(rank) if rank > 1 else float("nan"),
        **{f"rank_{q}": fewest(cumulative, q / 100) for q in (90, 95, 99)},
        "spike": float(share[0]),
    }


def fewest(cumulative: np.ndarray, energy: float) -> int:
    """How many values hold a share of the energy, given the cumulative shares; all of those that are not zero for a share of 1."""
    if energy >= 1.0:
        return int(1 + np.flatnonzero(np.diff(cumulative, prepend=0.0) > 0).max())
    return min(len(cumulative), 1 + int(np.searchsorted(cumulative, energy - 1e-12)))


@lru_cache(maxsize=4_096)  # thousands of LoRAs of one model name the same modules
def place_of(module: str) -> tuple[int | None, str]:
    """The layer's number in a module's path, None where there is none, and the projection: q, k, v, o, gate, up, down, or the path's last name."""
    path = re.sub(r"_(?=\d+(_|$))|(?<=\d)_", ".", module)  # kohya writes lora_unet_down_blocks_0_attentions_1 for paths with dots
    numbers = re.findall(r"(?:^|\.)(?:h|\w*layers?|\w*blocks?)\.(\d{1,9})(?:\.|$)", path) or re.findall(
        r"(?:^|[.:])(\d{1,9})(?=[.:]|$)", path
    )
    last = re.split(r"[.:]", path)[-1] if not re.fullmatch(r"\d+", re.split(r"[.:]", path)[-1]) else re.split(r"[.:]", path)[-2]
    for projection, pattern in PROJECTIONS:
        if re.search(pattern, module):
            return (int(numbers[0]) if numbers else None), projection
    return (int(numbers[0]) if numbers else None), last


def energies(values: np.ndarray) -> np.ndarray:
    """The cumulative share of Σσ² in the first 1, 2, … singular values; zeros where all are zero."""
    total = float((values**2).sum())
    return np.cumsum(values**2) / total if total else np.zeros(len(values))


def ranks_in_use(values: np.ndarray) -> int:
    """How many of the singular values, descending, are more than the rounding of 16-bit factors; none where all are zero."""
    return int((values > DEAD * values[0]).sum())


def values_of(row: Any) -> np.ndarray:
    """The singular values in a row of the table, as pandas' `iterrows` or, many times as fast, its `itertuples` hands it out."""
    return np.array(row.singular_values.split(), dtype=np.float64)


def finite_factors(factors: LoraFactors) -> tuple[np.ndarray, np.ndarray]:
    """A (r, in) and B (out, r) in float64.

    Raises
    ------
    AdapterError
        One holds NaN or infinity.
    """
    read = []
    for name, array in zip((factors.a_name, factors.b_name), factors.both(), strict=True):
        read.append(array.astype(np.float64, copy=False))
        if not np.isfinite(array).all():
            raise AdapterError(
                f"The factor {name} in {factors.tensors.path} holds NaN or infinity ({int((~np.isfinite(array)).sum())} values); the training diverged or the file is damaged."
            )
    return read[0], read[1]


def _by_qr(a: np.ndarray, b: np.ndarray, scaling: float) -> np.ndarray:
    """All singular values of s · R_B R_Aᵀ, which are those of s · B A."""
    return abs(scaling) * np.linalg.svd(_r(b) @ _r(a.T).T, compute_uv=False)[: min(len(a), len(b), a.shape[1])]


def _r(matrix: np.ndarray) -> np.ndarray:
    """R of the QR decomposition."""
    return cast(np.ndarray, np.linalg.qr(matrix, mode="r"))  # numpy's annotation forgets this mode


def _entropy(shares: np.ndarray) -> float:
    """−Σ p log p in nats."""
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())
