"""ΔW of the types whose file holds all that it is made of. Each is checked in the tests against what PEFT merges.

The letters and the orders of axes are those of PEFT's own layers, which the tensors' names follow.
"""

from __future__ import annotations

import math

import numpy as np

from soft_prompt_explorer.analysis.adapters.delta import Pair, Parts, Recipe, whole, whole_shape

Sizes = tuple[int, int, int]  # out, in, r


def scale(parts: Parts, rank: int) -> float:
    """α/r, α from the file or else from the config; 1 where neither holds it."""
    if "alpha" in parts:
        return float(parts("alpha").reshape(-1)[0]) / rank
    return parts.number("alpha", 8) / rank if parts.config else 1.0


# --- AdaLoRA, Zhang et al. 2023: s · B diag(E) A, of the ranks that training left ---


def _adalora_shape(parts: Parts) -> Sizes:
    (rank, width), (out, of_b) = parts.shape("A"), parts.shape("B")
    if (of_b, math.prod(parts.shape("E"))) != (rank, rank):
        raise ValueError
    return out, width, rank


def _adalora(parts: Parts) -> Pair:
    first = parts.number("init_r", 12)
    alpha = parts.number("lora_alpha", 8)
    scaling = (alpha if alpha > 0 else first) / (first + 1e-5) if parts.config else 1.0
    return parts("A") * parts("E").reshape(-1, 1), scaling * parts("B")


# --- LoRA with a diagonal between its factors (KaSA, Wang et al. 2025), and with one of them block-diagonal ---


def _kasa_shape(parts: Parts) -> Sizes:
    (rank, width), (out, of_b) = parts.shape("A.weight"), parts.shape("B.weight")
    if (of_b, *parts.shape("diag")) != (rank, rank):
        raise ValueError
    return out, width, rank


def _lora_scale(parts: Parts, rank: int) -> float:
    return parts.number("lora_alpha", 8) / (math.sqrt(rank) if parts.says("use_rslora") else rank)


def _kasa(parts: Parts) -> Pair:
    a = parts("A.weight")
    return parts("diag")[:, None] * a, _lora_scale(parts, len(a)) * parts("B.weight")


def _blocks(parts: Parts) -> tuple[str | None, int]:
    """Which factor of a module is block-diagonal, by PEFT's rule, and of how many blocks."""
    said = parts.says("use_bdlora")
    if not isinstance(said, dict) or type(said.get("nblocks", 1)) is not int or said.get("nblocks", 1) < 1:
        raise ValueError
    for part, key in (("A.weight", "target_modules_bd_a"), ("B.weight", "target_modules_bd_b")):
        listed = said.get(key)
        if isinstance(listed, list) and any(isinstance(each, str) and each in parts.module for each in listed):
            return part, said.get("nblocks", 1)
    return None, 1


def _bdlora_shape(parts: Parts) -> Sizes:
    blocked, count = _blocks(parts)
    (rank, width), (out, of_b) = parts.shape("A.weight"), parts.shape("B.weight")
    width, of_b = width * (count if blocked == "A.weight" else 1), of_b * (count if blocked == "B.weight" else 1)
    if of_b != rank or (blocked is not None and (rank % count or (width if blocked == "A.weight" else out) % count)):
        raise ValueError
    return out, width, rank


def _bdlora(parts: Parts) -> Pair:
    blocked, count = _blocks(parts)
    factors = {name: parts(name) for name in ("A.weight", "B.weight")}
    if blocked is not None:
        stored = factors[blocked]
        rows, columns = len(stored) // count, stored.shape[1]
        factors[blocked] = np.zeros((len(stored), columns * count))
        for i in range(count):
            factors[blocked][i * rows : (i + 1) * rows, i * columns : (i + 1) * columns] = stored[i * rows : (i + 1) * rows]
    return factors["A.weight"], _lora_scale(parts, len(factors["A.weight"])) * factors["B.weight"]


# --- LoHa, Hyeon-Woo et al. 2022: s · (w1_a w1_b) ⊙ (w2_a w2_b); of a convolution each product has a core t ---


def _loha_shape(parts: Parts) -> Sizes:
    if "t1" in parts:
        (_, out), (_, width) = parts.shape("w1_a"), parts.shape("w1_b")
        return whole_shape(out, width * math.prod(parts.shape("t1")[2:]))
    (out, rank_1), (_, width), (_, rank_2) = parts.shape("w1_a"), parts.shape("w1_b"), parts.shape("w2_a")
    return (out, width, rank_1 * rank_2) if rank_1 * rank_2 < min(out, width) else whole_shape(out, width)


def _loha(parts: Parts) -> Pair:
    w1_a, w1_b, w2_a, w2_b = (parts(name) for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
    scaling = scale(parts, len(w1_b))
    if "t1" in parts:
        return whole(scaling * _core(parts("t1"), w1_a, w1_b) * _core(parts("t2"), w2_a, w2_b))
    out, width, rank = _loha_shape(parts)
    if rank == min(out, width):
        return whole(scaling * (w1_a @ w1_b) * (w2_a @ w2_b))
    b = (w1_a[:, :, None] * w2_a[:, None, :]).reshape(out, -1)  # of products by entries: each row by each row
    return (w1_b[:, None, :] * w2_b[None, :, :]).reshape(-1, width), scaling * b


def _core(t: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A convolution in three factors, (out, in · height · width)."""
    return np.einsum("ijkl,ip,jr->prkl", t, a, b, optimize=True).reshape(a.shape[1], -1)


# --- LoKr, Yeh et al. 2024: s · w1 ⊗ w2, each a matrix or a product of two ---


def _lokr_sizes(parts: Parts) -> tuple[tuple[int, int], tuple[int, int]]:
    """The shapes of w1 and w2, a kernel among the inputs."""
    first = parts.shape("w1") if "w1" in parts else (parts.shape("w1_a")[0], parts.shape("w1_b")[1])
    if "w2" in parts:
        out, *inner = parts.shape("w2")
        return (first[0], first[1]), (out, math.prod(inner))
    if "t2" in parts:
        return (first[0], first[1]), (parts.shape("w2_a")[1], parts.shape("w2_b")[1] * math.prod(parts.shape("t2")[2:]))
    return (first[0], first[1]), (parts.shape("w2_a")[0], parts.shape("w2_b")[1])


def _lokr_shape(parts: Parts) -> Sizes:
    (out_1, in_1), (out_2, in_2) = _lokr_sizes(parts)
    out, width = out_1 * out_2, in_1 * in_2
    thin = in_1 * parts.shape("w2_b")[0] if "w2_b" in parts and "t2" not in parts else min(out, width)
    return (out, width, thin) if thin < min(out, width) else whole_shape(out, width)


def _lokr(parts: Parts) -> Pair:
    w1 = parts("w1") if "w1" in parts else parts("w1_a") @ parts("w1_b")
    out, width, rank = _lokr_shape(parts)
    scaling = _lokr_scale(parts)
    if rank < min(out, width):
        return np.kron(np.eye(w1.shape[1]), parts("w2_b")), scaling * np.kron(w1, parts("w2_a"))
    if "w2" in parts:
        w2 = parts("w2")
        if w2.ndim == 3:  # a convolution over a line, whose axes PEFT's product counts from the last
            return whole(scaling * np.kron(w1[None], w2).reshape(out, width))
        w2 = w2.reshape(len(w2), -1)
    else:
        w2 = _core(parts("t2"), parts("w2_a"), parts("w2_b")) if "t2" in parts else parts("w2_a") @ parts("w2_b")
    return whole(scaling * np.kron(w1, w2))


def _lokr_scale(parts: Parts) -> float:
    """α/r; the rank stands in the shapes where a factor was factored, else in the config. LyCORIS scales two whole factors by 1."""
    for name in ("w1_b", "w2_b"):
        if name in parts:
            return scale(parts, parts.shape(name)[0])
    return scale(parts, int(parts.number("r", 8))) if parts.config else 1.0


# --- VB-LoRA, Li et al. 2024: both factors are cut of mixtures of a few vectors that all modules share ---


def _vblora_shape(parts: Parts) -> Sizes:
    length = parts.shape("vector_bank")[1]
    rank, tiles_in = _logits(parts, "A")
    tiles_out, of_b = _logits(parts, "B")
    if of_b != rank:
        raise ValueError
    return tiles_out * length, tiles_in * length, rank


def _logits(parts: Parts, side: str) -> tuple[int, int]:
    part = f"logits_{side}" if f"logits_{side}" in parts else f"logits_{side}_topk_indices"
    first, second, _ = parts.shape(part)
    return first, second


def _vblora(parts: Parts) -> Pair:
    bank = parts("vector_bank")
    a, b = (_mixed(parts, side, bank) for side in "AB")
    return a.reshape(len(a), -1), b.transpose(0, 2, 1).reshape(-1, b.shape[1])


def _mixed(parts: Parts, side: str, bank: np.ndarray) -> np.ndarray:
    """(…, length): of each place the mixture of the few vectors of the largest logits."""
    if f"logits_{side}" in parts:
        logits = parts(f"logits_{side}")
        chosen = np.argsort(-logits, axis=-1, kind="stable")[..., : int(parts.number("topk", 2))]
        largest = np.take_along_axis(logits, chosen, axis=-1)
        weights = np.exp(largest - largest.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
    else:  # saved as the weights alone, the last of which is what is left
        chosen, first = parts(f"logits_{side}_topk_indices"), parts(f"logits_{side}_topk_weights")
        weights = np.concatenate([first, 1 - first.sum(axis=-1, keepdims=True)], axis=-1)
    mixed = np.zeros((*chosen.shape[:-1], bank.shape[1]))
    for i in range(chosen.shape[-1]):
        mixed += weights[..., i, None] * bank[chosen[..., i]]
    return mixed


# --- GraLoRA, Jung et al. 2025: k × k blocks, each a LoRA of rank r/k of its own, and a LoRA of the whole beside ---


def _gralora_sizes(parts: Parts) -> tuple[int, int, int, int, int]:
    """k, r, the inputs and the outputs of one block, and the rank of the LoRA beside."""
    (k, width, rank), (of_b, rank_b, out) = parts.shape("A"), parts.shape("B")
    if k != of_b or rank != rank_b or rank % k:
        raise ValueError
    return k, rank, width, out, parts.shape("A_general.weight")[0] if "A_general.weight" in parts else 0


def _gralora_shape(parts: Parts) -> Sizes:
    k, rank, width, out, beside = _gralora_sizes(parts)
    return k * out, k * width, k * rank + beside


def _gralora(parts: Parts) -> Pair:
    k, rank, width, out, beside = _gralora_sizes(parts)
    share = rank // k
    a, b = np.zeros((k, k, share, k, width)), np.zeros((k, out, k, k, share))  # from which inputs, to which outputs, at which rank
    stored_a, stored_b = parts("A").reshape(k, width, k, share), parts("B").reshape(k, k, share, out)
    for i in range(k):
        a[i, :, :, i] = stored_a[i].transpose(1, 2, 0)
        b[i, :, :, i] = stored_b[i].transpose(2, 0, 1)
    factors = [(a.reshape(k * rank, -1), b.reshape(k * out, -1))]
    if beside:
        factors.append((parts("A_general.weight"), parts("B_general.weight")))
    scaling = parts.number("alpha", 64) / (rank + beside)
    return np.concatenate([each for each, _ in factors]), scaling * np.concatenate([each for _, each in factors], axis=1)


# --- DeLoRA, Bini et al. 2025: rank by rank of one length, and so far as the weight's columns are long ---


def _thin_shape(parts: Parts) -> Sizes:
    (rank, width), (out, of_b) = parts.shape("A"), parts.shape("B")
    if of_b != rank:
        raise ValueError
    return out, width, rank


def _delora(parts: Parts) -> Pair:
    a, b = parts("A"), parts("B")
    lengths = np.maximum(np.linalg.norm(a, axis=1), 1e-4) * np.maximum(np.linalg.norm(b, axis=0), 1e-4)
    return a * parts("w_norm"), b * (float(parts("lambda").reshape(-1)[0]) / len(a) / lengths)


# --- C³A, Chen et al. 2025: blocks that are circulant, each of one kernel ---


def _c3a_shape(parts: Parts) -> Sizes:
    out, width, block = parts.shape("kernel")
    return whole_shape(out * block, width * block)


def _c3a(parts: Parts) -> Pair:
    kernel = parts("kernel")
    rows, columns, block = kernel.shape
    at = (np.arange(block)[None, :] - np.arange(block)[:, None]) % block
    delta = kernel[:, :, at].transpose(0, 2, 1, 3).reshape(rows * block, columns * block)
    return whole(delta / (columns * block))


# --- Lily, Zhong et al. 2024, and Polytropon, Ponti et al. 2023: several updates of one weight ---


def _lily_shape(parts: Parts) -> Sizes:
    (rank, width), (stacked, out) = parts.shape("A.weight"), parts.shape("B.weight")
    if stacked != rank * parts.shape("router.weight")[0]:
        raise ValueError
    return out, width, rank


def _lily(parts: Parts) -> Pair:
    a = parts("A.weight")
    b = parts("B.weight")[parts.which * len(a) : (parts.which + 1) * len(a)]
    return a, parts.number("scaling", 1.0) * b.T


def _poly_shape(parts: Parts) -> Sizes:
    (splits, skills, width, rank), of_b = parts.shape("lora_A"), parts.shape("lora_B")
    if of_b[:3] != (splits, skills, rank) or parts.shape("router.module_logits")[1] != splits * skills:
        raise ValueError
    return splits * of_b[3], splits * width, rank


def _poly(parts: Parts) -> Pair:
    a, b = parts("lora_A"), parts("lora_B")
    weights = 1 / (1 + np.exp(-parts("router.module_logits")[parts.which])).reshape(a.shape[:2])
    weights /= weights.sum(axis=1, keepdims=True) + 1e-12
    mixed_a, mixed_b = np.einsum("qs,qsdr->qdr", weights, a), np.einsum("qs,qsrd->qdr", weights, b)
    rank = a.shape[3]
    return mixed_a.reshape(-1, rank).T, mixed_b.reshape(-1, rank) / rank


# --- Uni-LoRA, Li et al. 2025: each entry of both factors is one of a few numbers that all modules share ---


def _unilora_shape(parts: Parts) -> Sizes:
    (rank, width), (out, of_b) = parts.shape("indices_A"), parts.shape("indices_B")
    if of_b != rank or parts.shape("scales_A") != (rank, width) or parts.shape("scales_B") != (out, of_b):
        raise ValueError
    return out, width, rank


def _unilora(parts: Parts) -> Pair:
    numbers = parts("theta_d")
    return numbers[parts("indices_A")] * parts("scales_A"), numbers[parts("indices_B")] * parts("scales_B")


# --- TinyLoRA: the weight's leading singular vectors, which the file holds, and between them a mixture of fixed matrices ---


def _tinylora(parts: Parts) -> Pair:
    if parts.count > MOST_TINY:
        raise ValueError
    fixed = parts("P")
    groups = sum(1 for part in parts.names if part.startswith("v."))
    mixture = np.tensordot(parts(f"v.{_tied_to(parts, fixed, groups)}"), fixed, axes=1)
    return mixture @ parts("A"), parts("B")


def _tied_to(parts: Parts, fixed: np.ndarray, groups: int) -> int:
    """Which of the shared vectors a module has: they go by the module's place in the model, which the seed of its fixed matrices tells."""
    if groups == 1:
        return 0
    seed = int(parts.number("projection_seed", 42))
    place = next((i for i in range(parts.count) if np.allclose(_drawn(seed + i, fixed.shape), fixed, rtol=1e-2, atol=1e-2)), None)
    if place is None:
        raise ValueError
    return min(place // max(1, parts.count // groups), groups - 1)


MOST_TINY = 2_000  # modules whose fixed matrices are drawn again


def _drawn(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    import torch

    spread = 1.0 / shape[-1] ** 0.5
    return torch.normal(mean=0.0, std=spread, size=shape, generator=torch.Generator().manual_seed(seed)).double().numpy()


# --- BEFT trains biases alone ---


def _beft_shape(parts: Parts) -> Sizes:
    return math.prod(parts.shape("bias")), 1, 1


def _beft(parts: Parts) -> Pair:
    return np.ones((1, 1)), parts("bias").reshape(-1, 1)


def _count_lily(parts: Parts) -> int:
    return parts.shape("router.weight")[0]


def _count_poly(parts: Parts) -> int:
    return parts.shape("router.module_logits")[0]


# --- LyCORIS's full difference of a weight, and of a bias, which is no part of ΔW ---


def _full_shape(parts: Parts) -> Sizes:
    out, *others = parts.shape("diff")
    return whole_shape(out, math.prod(others))


def _full(parts: Parts) -> Pair:
    difference = parts("diff")
    return whole(difference.reshape(len(difference), -1))


FULL = Recipe(
    "LyCORIS's full difference", "(?=diff(?:_b)?$)", _full_shape, _full, says="ΔW is kept whole, so its ranks are those of the weight"
)
RECIPES = {
    "ADALORA": Recipe("AdaLoRA", "lora_", _adalora_shape, _adalora),
    "KASA": Recipe("KaSA", "lora_", _kasa_shape, _kasa, says="KaSA: PEFT also takes as many of the weight's smallest directions away, which is no part of these ΔW"),
    "BDLORA": Recipe("BD-LoRA", "lora_", _bdlora_shape, _bdlora),
    "LOHA": Recipe("LoHa", "hada_", _loha_shape, _loha),
    "LOKR": Recipe("LoKr", "lokr_", _lokr_shape, _lokr),
    "VBLORA": Recipe("VB-LoRA", "vblora_", _vblora_shape, _vblora),
    "GRALORA": Recipe("GraLoRA", "gralora_", _gralora_shape, _gralora),
    "DELORA": Recipe("DeLoRA", "delora_", _thin_shape, _delora),
    "C3A": Recipe("C³A", "c3a_", _c3a_shape, _c3a),
    "LILY": Recipe("Lily", "lily_", _lily_shape, _lily, updates=_count_lily, says="a module an expert: a router mixes them anew for each text"),
    "POLY": Recipe("Poly", "poly_", _poly_shape, _poly, updates=_count_poly, says="a module a task: each task has its own mixture of the skills"),
    "UNILORA": Recipe("Uni-LoRA", "unilora_", _unilora_shape, _unilora),
    "TINYLORA": Recipe("TinyLoRA", "tinylora_", _thin_shape, _tinylora),
    "BEFT": Recipe("BEFT", "beft_", _beft_shape, _beft, says="biases alone are trained: of each module the change of its bias, as one column"),
}  # fmt: skip
