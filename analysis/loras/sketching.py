"""A few hundred numbers a LoRA from which it shows which of thousands change a model in the same directions, and which began from the same A.

The row space of A has the projector P = Aᵀ(AAᵀ)⁺A. With signs g and h drawn once for all adapters, gᵀPh · gᵀP'h is in the mean over draws tr(PP') = Σ cos²θ of
the principal angles (Hutchinson 1990, of a product), so two sketches are as alike as the spaces are. What spaces of k and k' directions
among n share by chance, kk'/n, is taken off. The column space of B is sketched likewise.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.loras.ranks import DEAD, finite_factors

COLUMNS = ["module", "out_features", "in_features", "a", "b"]
MODULES = 4  # of an adapter that are sketched
PROBES = 256  # over these modules together: unrelated spaces are then alike to about 1 / √256
NARROWEST = 64  # among fewer dimensions one direction may be like another by chance
ALIKE = 0.5  # half of the directions, eight spreads of unrelated ones; in eight shapes of 64 to 576 dimensions, two million pairs each, the highest was 0.44
ROWS_AT_ONCE = 512


def sketches(adapter: LoraAdapter) -> pd.DataFrame:
    """The sketch of a LoRA.

    Returns
    -------
    One row a module that is sketched: the `MODULES` of them whose names have the smallest SHA-256, so that adapters of the same modules are sketched in the
    same ones, in the order of their names: module, out_features, in_features, a (of the row space of A) and b (of the column space of B), lists of
    `PROBES` / modules numbers. Zeros where a factor is zero. No rows of a type that is no product of A and B, nor where a
    module is narrower than `NARROWEST`.

    Raises
    ------
    AdapterError
        A factor holds NaN or infinity.
    """
    if adapter.kind != "lora":
        return pd.DataFrame(columns=COLUMNS)
    names = sorted(sorted(adapter.modules, key=lambda name: hashlib.sha256(name.encode()).digest())[:MODULES])
    rows = []
    for name in names:
        factors = adapter.modules[name].made()
        if min(factors.out_features, factors.in_features) < NARROWEST:
            return pd.DataFrame(columns=COLUMNS)
        a, b = finite_factors(factors)
        sides = (_sketch(rows_of, PROBES // len(names)).tolist() for rows_of in (a, b.T))
        rows.append((name, factors.out_features, factors.in_features, *sides))
    return pd.DataFrame(rows, columns=COLUMNS)


def alike(table: pd.DataFrame, *, report: Report = no_report) -> pd.DataFrame:
    """Which adapters change the same modules in the same directions, and which do not but began from the same A: the same seed, or the same adapter trained on.

    Parameters
    ----------
    table : the sketches of many, with a column `adapter` that tells whose each row is; each adapter's rows stand together.

    Returns
    -------
    One row an adapter, in the order of the table:

    - near_copy_of: the first whose A and whose B are alike, itself where there is none before.
    - same_start_as: the first whose A is alike, itself where there is none before. `ALIKE` or more counts as alike: the share of the directions in common,
      less what chance gives; of unrelated ones the estimate has a spread of 0.06.

    Adapters are compared where the sketched modules and their widths are the same.
    """
    groups: dict[tuple, list[tuple[str, np.ndarray, np.ndarray]]] = {}
    for adapter, rows in table.groupby("adapter", sort=False):
        where = tuple(zip(rows["module"], rows["out_features"], rows["in_features"], strict=True))
        a, b = (np.concatenate([np.asarray(each, np.float32) for each in rows[side]]) for side in ("a", "b"))
        groups.setdefault((where, len(a), len(b)), []).append((str(adapter), a, b))
    found = []
    for i, group in enumerate(groups.values()):
        report(i / len(groups), "comparing LoRAs")
        names = np.array([name for name, _, _ in group], object)
        a, b = (_unit(np.array([each[side] for each in group])) for side in (1, 2))
        found.append(pd.DataFrame({"adapter": names, "near_copy_of": names[_first_alike(a, b)], "same_start_as": names[_first_alike(a)]}))
    if not found:
        return pd.DataFrame(columns=["adapter", "near_copy_of", "same_start_as"])
    whole = pd.concat(found).set_index("adapter")
    return whole.loc[list(dict.fromkeys(table["adapter"]))].reset_index()


def _sketch(rows: np.ndarray, count: int) -> np.ndarray:
    """gᵀ(P − k/n)h of the span of some rows (k of them independent, n wide), for `count` pairs of signs, float32."""
    squares, turned = np.linalg.eigh(rows @ rows.T)
    used = squares > DEAD**2 * max(squares[-1], np.finfo(np.float64).tiny)
    basis = (turned[:, used] / np.sqrt(squares[used])).T.astype(np.float32) @ rows.astype(np.float32)  # (k, n), orthonormal
    first, second = _signs(rows.shape[1], count)
    share = len(basis) / rows.shape[1]
    return np.einsum("kj,kj->j", basis @ first.T, basis @ second.T) - share * np.einsum("jn,jn->j", first, second)


@lru_cache(maxsize=8)
def _signs(width: int, count: int) -> np.ndarray:
    """(2, count, width) of ±1, the same on every machine."""
    wanted = 2 * count * width
    drawn = np.frombuffer(hashlib.shake_256(f"{width}".encode()).digest(-(-wanted // 8)), np.uint8)
    return (2.0 * np.unpackbits(drawn, count=wanted).astype(np.float32) - 1.0).reshape(2, count, width)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length one; zeros stay zeros."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1.0)


def _first_alike(*sides: np.ndarray) -> np.ndarray:
    """For each row the first row that is like it in all sides and is itself like none before; its own number where there is none."""
    firsts: list[int] = []
    answer = np.arange(len(sides[0]))
    for start in range(0, len(answer), ROWS_AT_ONCE):
        block = range(start, min(start + ROWS_AT_ONCE, len(answer)))
        known = np.array(firsts, int)
        if len(known):
            likes = np.logical_and.reduce([side[block] @ side[known].T >= ALIKE for side in sides])
            answer[block] = np.where(likes.any(1), known[likes.argmax(1)], answer[block])
        within = np.logical_and.reduce([side[block] @ side[block].T >= ALIKE for side in sides])
        for i, row in enumerate(block):
            if answer[row] == row:
                own = [first for first in firsts if first >= start]
                same = [first for first in own if within[i, first - start]]
                if same:
                    answer[row] = same[0]
                else:
                    firsts.append(row)
    return answer
