"""ΔW of the types that multiply the weight, or whose file does not tell the weight's shape. Each is checked in the tests against what PEFT merges.

W is (out, in), whichever way round the model keeps it.
"""

from __future__ import annotations

import math

import numpy as np

from soft_prompt_explorer.analysis.adapters.delta import Pair, Parts, Recipe, Weight, check_shape, whole
from soft_prompt_explorer.analysis.core.late import one_at_a_time

# --- The weight times something ---


def _ia3(parts: Parts, weight: Weight) -> Pair:
    """IA³, Liu et al. 2022: outputs made longer, or inputs in what the config calls feedforward."""
    times, (out, width) = parts("l"), weight.values.shape
    if times.ndim == 2:
        of_inputs = len(times) == 1
    else:  # of a convolution both stand along the same axis
        listed = parts.says("feedforward_modules")
        if isinstance(listed, str):  # a stranger's pattern
            raise ValueError
        of_inputs = isinstance(listed, list) and any(isinstance(name, str) and parts.module.endswith(name) for name in listed)
    if of_inputs:
        return whole(weight.values * (np.repeat(times.ravel(), width // times.size) - 1))
    check_shape((times.size,), (out,))
    return whole(weight.values * (times.reshape(-1, 1) - 1))


def _road(parts: Parts, weight: Weight) -> Pair:
    """RoAd, Liao & Monz 2024: pairs of outputs turned and made longer."""
    half = int(parts.number("group_size", 64)) // 2
    theta, alpha, variant = parts("theta"), parts("alpha"), parts.says("variant", "road_1")
    if variant == "road_1":  # one angle and one length for both of a pair
        theta, alpha = (np.repeat(each.reshape(-1, half), 2, axis=0).ravel() for each in (theta, alpha))
        kept, crossed = alpha * np.cos(theta), alpha * np.sin(theta)
    elif variant == "road_2":
        kept, crossed = alpha * np.cos(theta), alpha * np.sin(theta)
    else:
        theta, alpha = (each.reshape(-1, 2, 2 * half) for each in (theta, alpha))
        kept, crossed = (alpha[:, 0] * np.cos(theta[:, 0])).ravel(), (alpha[:, 1] * np.sin(theta[:, 1])).ravel()
    grouped = weight.values.reshape(-1, 2, half, weight.values.shape[1])
    other = np.stack([-grouped[:, 1], grouped[:, 0]], axis=1).reshape(weight.values.shape)
    return whole((kept - 1)[:, None] * weight.values + crossed[:, None] * other)


def _oft(parts: Parts, weight: Weight) -> Pair:
    """OFT, Qiu et al. 2023: the inputs turned, block by block."""
    stored = parts("R.weight")
    size = round((1 + math.sqrt(1 + 8 * stored.shape[1])) / 2)
    skew = np.zeros((len(stored), size, size))
    skew[:, *np.triu_indices(size, 1)] = stored
    skew -= skew.transpose(0, 2, 1)
    if parts.says("coft"):
        most = parts.number("eps", 6e-5) / math.sqrt(len(stored))
        lengths = np.linalg.norm(skew, axis=(1, 2), keepdims=True)
        skew = np.where(lengths <= most, skew, most * skew / np.where(lengths > 0, lengths, 1))
    terms = int(parts.number("num_cayley_neumann_terms", 5))
    turned = _neumann(skew, terms) if parts.says("use_cayley_neumann", True) else _cayley(-skew)
    turned = np.broadcast_to(turned, (weight.values.shape[1] // size, size, size)) if len(turned) == 1 else turned
    return whole(_in_blocks(weight.values, turned.transpose(0, 2, 1)) - weight.values)


def _neumann(skew: np.ndarray, terms: int) -> np.ndarray:
    """I + 2Q + 2Q² + … + Qᵏ, which PEFT takes for (I + Q)(I − Q)⁻¹; of k = 3 at least where there are more than two terms."""
    if not 1 <= terms <= 100:
        raise ValueError
    last = max(3, terms - 1) if terms > 2 else terms - 1
    power = total = np.broadcast_to(np.eye(skew.shape[-1]), skew.shape)
    for i in range(1, last + 1):
        power = power @ skew
        total = total + (1.0 if i == last > 1 else 2.0) * power
    return total


def _cayley(skew: np.ndarray) -> np.ndarray:
    """(I + Q)(I − Q)⁻¹."""
    identity = np.eye(skew.shape[-1])
    return np.linalg.solve(np.swapaxes(identity - skew, -1, -2), np.swapaxes(identity + skew, -1, -2)).swapaxes(-1, -2)


def _in_blocks(matrix: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """The matrix times a block-diagonal one of (k, n, n), without making that."""
    count, size, _ = blocks.shape
    return np.einsum("okn,knm->okm", matrix.reshape(len(matrix), count, size), blocks, optimize=True).reshape(matrix.shape)


def _boft(parts: Parts, weight: Weight) -> Pair:
    """BOFT, Liu et al. 2024: the inputs turned by blocks over and over, each time otherwise arranged, and the outputs made longer."""
    _, blocks, *square = parts.shape("R")
    check_shape((*square, blocks * square[0]), (square[0], square[0], weight.values.shape[1]))
    stored = parts("R")
    skew = 0.5 * (stored - stored.swapaxes(-1, -2))
    turned = _cayley(-skew)
    factors, count, size, _ = stored.shape
    changed = weight.values
    for i in range(factors):
        order = _butterfly(weight.values.shape[1], count // 2**i, size // 2, factors - 1)
        back = np.argsort(order)
        changed = _in_blocks(changed[:, back], turned[i].swapaxes(-1, -2))[:, order]
    return whole(changed * parts("s").reshape(-1, 1) - weight.values)


def _butterfly(width: int, blocks: int, run: int, factors: int) -> np.ndarray:
    """The order of the inputs, as PEFT's `block_butterfly_perm` makes it: in each block the even runs before the odd ones."""
    if factors == 0:
        return np.arange(width)
    if blocks < 1 or run < 1 or blocks * run * 2 > width:
        raise ValueError
    size = width // blocks
    runs = np.arange(size).reshape(-1, run)
    inside = np.concatenate([runs[0::2], runs[1::2]]).ravel()
    return (np.arange(blocks)[:, None] * size + inside).ravel()


def _hra(parts: Parts, weight: Weight) -> Pair:
    """HRA, Yuan et al. 2024: the inputs reflected r times, W H₁ … H_r with H = I − 2uuᵀ; of orthogonal u, W (I − 2UUᵀ)."""
    u = parts("u")
    if parts.says("apply_GS"):
        basis = np.linalg.qr(u)[0]
        return basis.T, -2 * weight.values @ basis
    u = u / np.linalg.norm(u, axis=0)
    b = np.zeros((len(weight.values), u.shape[1]))
    for i in range(u.shape[1]):
        b[:, i] = -2 * (weight.values @ u[:, i] + b[:, :i] @ (u[:, :i].T @ u[:, i]))
    return u.T, b


def _hira(parts: Parts, weight: Weight) -> Pair:
    """HiRA, Huang et al. 2025: W ⊙ B A; of embeddings, whose rows are words, the product turned."""
    if "embedding_A" in parts:
        check_shape((parts.shape("embedding_A")[1], parts.shape("embedding_B")[0]), weight.values.shape)
        return whole(weight.values * (parts("embedding_B") @ parts("embedding_A")).T)
    check_shape((parts.shape("B")[0], math.prod(parts.shape("A")[1:])), weight.values.shape)
    a, b = parts("A"), parts("B")
    return whole(weight.values * (b.reshape(len(b), -1) @ a.reshape(len(a), -1)))


def _glora(parts: Parts, weight: Weight) -> Pair:
    """GLoRA, Chavan et al. 2023: W ⊙ A + B."""
    a, b = (_path(parts, side, weight.values.shape) for side in "AB")
    return whole(weight.values * a + b * np.ones(weight.values.shape))


def _path(parts: Parts, side: str, shape: tuple[int, ...]) -> np.ndarray:
    """A product, a column, a number, or nothing."""
    if f"{side}.Xd" in parts:
        check_shape((parts.shape(f"{side}.Xd")[0], parts.shape(f"{side}.Xu")[1]), shape)
        return parts(f"{side}.Xd") @ parts(f"{side}.Xu")
    return parts(f"{side}.X") if f"{side}.X" in parts else np.zeros(1)


def _deft(parts: Parts, weight: Weight) -> Pair:
    """DEFT: what P spans taken out of the weight, and something else put there."""
    p = parts("P")
    method = parts.says("decomposition_method", "relu")
    left, right = (p, np.maximum(p, 0)) if method == "relu" else (np.linalg.qr(p)[0],) * 2
    taken = right.T @ weight.values
    if "R" not in parts:
        return -taken, left
    alpha = parts.number("alpha", 0) if parts.says("alpha") else 0
    return parts("R") * (alpha / p.shape[1] if alpha else 1.0) - taken, left


def _peanut(parts: Parts, weight: Weight) -> Pair:
    """PEANuT, Zhong et al. 2025: a small network of the weight's columns."""
    activated = _activation(str(parts.says("act_fn", "relu")))
    state = activated(weight.values.T @ parts("A.weight").T)
    depth = sum(1 for part in parts.names if part.startswith("encoders."))
    passed = []
    for i in range(depth):
        passed.append(state)
        state = activated(state @ parts(f"encoders.{i}.weight").T)
    for i in range(depth):
        state = activated(state @ parts(f"decoders.{i}.weight").T) + passed[depth - 1 - i]
    return state.T, parts.number("scaling", 1.0) * parts("B.weight")


def _activation(name: str):
    if name == "relu":
        return lambda x: np.maximum(x, 0)
    import torch

    with one_at_a_time():
        from transformers.activations import ACT2FN

    function = ACT2FN[name]
    return lambda x: function(torch.from_numpy(x)).detach().numpy()


# --- The weight's own decomposition, changed ---


def _osf(parts: Parts, weight: Weight) -> Pair:
    """OSF, Nayak et al. 2025: the weight's smaller singular directions, trained; less what they were."""
    u, s, v = (parts(f"svd_params.{name}_low") for name in "USV")
    first_u, first_s, first_v = np.linalg.svd(weight.values, full_matrices=False)
    top = len(first_s) - len(s)
    if top < 0:
        raise ValueError
    return np.concatenate([v, first_v[top:]]), np.concatenate([u * s, -first_u[:, top:] * first_s[top:]], axis=1)


def _psoft(parts: Parts, weight: Weight) -> Pair:
    """PSOFT, Wu et al. 2025: the weight's leading singular directions, turned among themselves. Decomposed as PEFT does, since signs are chance."""
    turned = _turned(parts)
    rank = len(turned)
    if rank > min(weight.values.shape):
        raise ValueError
    left, values, right = _leading(weight.values, rank, parts)
    if parts.says("ab_svd_init", "psoft_init") == "pissa_init":
        left, right = left * np.sqrt(values), np.sqrt(values)[:, None] * right
    else:
        left = left * values
    return (turned - np.eye(rank)) @ right, left


def _turned(parts: Parts) -> np.ndarray:
    stored = parts("R.weight")
    if not parts.says("psoft_orth", True):
        check_shape(stored.shape, (len(stored), len(stored)))
        turned = stored
    else:
        size = round((1 + math.sqrt(1 + 8 * len(stored))) / 2)
        skew = np.zeros((size, size))
        skew[np.triu_indices(size, 1)] = stored
        skew -= skew.T
        if parts.says("use_cayley_neumann", False):
            most = parts.says("cayley_neumann_eps")
            length = float(np.linalg.norm(skew))
            if most is not None and length > parts.number("cayley_neumann_eps", 0.9):
                skew = skew * (parts.number("cayley_neumann_eps", 0.9) / (length + 1e-12))
            turned = _neumann(skew, int(parts.number("num_cayley_neumann_terms", 5)))
        else:
            turned = _cayley(skew)
    if "R.vector_b" in parts:
        turned = parts("R.vector_b")[:, None] * turned
    return turned * parts("R.vector_a") if "R.vector_a" in parts else turned


def _leading(values: np.ndarray, rank: int, parts: Parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import torch

    weight = torch.from_numpy(values).to(torch.float32, copy=True)  # in memory of torch's own: where it begins decides the last digits
    if parts.says("psoft_svd", "full") == "full":
        u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(parts.number("random_seed", 0)))
            u, s, v = torch.svd_lowrank(weight, q=rank, niter=int(min(parts.number("psoft_svd_lowrank_niter", 10), 100)))
        vt = v.T
    return u[:, :rank].double().numpy(), s[:rank].double().numpy(), vt[:rank].double().numpy()


def _frod(parts: Parts, weight: Weight) -> Pair:
    """FRoD: W = U diag(λ) Vᵀ with V shared by all modules of a kind, λ trained and a few entries beside its diagonal."""
    kind = _kind(parts.module)
    check_shape(parts.shape(f"V.{kind}"), (weight.values.shape[1],) * 2)
    v, (rows, columns) = parts(f"V.{kind}"), parts(f"s_indices.{kind}")
    projected = np.linalg.solve(v, weight.values.T).T
    lengths = np.linalg.norm(projected, axis=0)
    u = np.divide(projected, lengths, out=np.zeros_like(projected), where=lengths > 1e-12).astype(np.float32).astype(np.float64)
    check_shape(parts.shape("lambda_l"), lengths.shape)
    middle = np.diag(parts("lambda_l"))
    np.add.at(middle, (rows, columns), parts("lambda_s_values"))
    return whole(u @ middle @ v.T - weight.values)


def _kind(module: str) -> str:
    """What FRoD's shared matrices are called by: the last two names of a path, by PEFT's rule."""
    names = module.split(".")
    if len(names) == 1 or names[-2].isdigit():
        return names[-1]
    if names[-2:] == ["output", "dense"] and names[-3:-2] == ["attention"]:
        return "attention_output"
    return f"{names[-2]}_{names[-1]}"


def _adamss(parts: Parts, weight: Weight) -> Pair:
    """AdaMSS, Zheng et al. 2025: the weight's rows in clusters, each with an update of its own; clustered by PEFT's own functions."""
    import torch

    with one_at_a_time():
        from peft.tuners.adamss.utils import clustering_Z, get_trainable_subspaces, seg_locations, slice_pca

    basis = parts("newB")
    both = weight.values if weight.bias is None else np.concatenate([weight.values, weight.bias[:, None]], axis=1)
    rank, seed = int(parts.number("r", 100)), int(parts.number("random_seed", 0))
    _, left = slice_pca(torch.from_numpy(both).float()[None, None], min(rank, *both.shape), "cpu", torch.float32, random_seed=seed)
    asked = int(parts.number("num_subspaces", 5))
    clusters, count = clustering_Z(left[0, 0], min(asked, len(both)), 10)
    places, chosen = seg_locations(clusters), get_trainable_subspaces(count)
    ranks = [parts.shape(f"A.{i}")[0] for i in range(count)]
    if sum(ranks) > len(both):
        raise ValueError
    b = np.zeros((len(both), sum(ranks)))
    a, at = [], 0
    for i in range(count):
        each = parts(f"A.{i}")
        b[places[chosen[i]].numpy(), at : at + len(each)] = parts(f"B.{i}")
        a.append(each)
        at += len(each)
    return (np.concatenate(a) @ basis)[:, : weight.values.shape[1]], b


# --- Layers of its own in the weight's place ---


def _ln(parts: Parts, weight: Weight) -> Pair:
    """Layer norms, or other modules, trained whole: what they are now less what they were. A vector counts as one column."""
    now = parts("layers.weight")
    check_shape((len(now), now.size // len(now)), weight.values.shape)
    return whole(now.reshape(len(now), -1) - weight.values)


# --- Files that do not tell the weight's shape ---


def _vera(parts: Parts, weight: Weight) -> Pair:
    """VeRA, Kopiczko et al. 2024: diag(b) B diag(d) A, A and B shared by all modules and cut to each."""
    out, width = weight.values.shape
    return parts("lambda_d")[:, None] * parts("A")[:, :width], parts("lambda_b")[:, None] * parts("B")[:out]


def _pvera(parts: Parts, weight: Weight) -> Pair:
    """PVeRA: the same by the means of what is drawn; the other halves are the logarithms of variances."""
    out, width = weight.values.shape
    a, d = parts("A"), parts("lambda_d")
    return d[: len(d) // 2, None] * a[: len(a) // 2, :width], parts("lambda_b")[:, None] * parts("B")[:out]


def _randlora(parts: Parts, weight: Weight) -> Pair:
    """RandLoRA, Albert et al. 2025: a sum of products of random matrices, each weighed by trained diagonals."""
    gamma, lengths = parts("gamma"), parts("lambda")
    rank, bases = lengths.shape
    small, large = sorted(weight.values.shape)
    if rank * bases > 2 * large:  # PEFT takes as many bases as the smaller side needs
        raise ValueError
    a = (lengths[:, :, None] * parts("A")[:, :bases, :small] * gamma).reshape(rank * bases, small)
    b = parts("B")[:large, :bases].reshape(large, -1)
    scaling = parts.number("randlora_alpha", 640) / rank
    return (a, scaling * b) if weight.values.shape[1] == small else (b.T, scaling * a.T)


def _miss(parts: Parts, weight: Weight) -> Pair:
    """MiSS, Kang & Yin 2025: one block for all runs of r inputs; with Bat, Kang 2024, that block times the weight's own blocks."""
    block = parts("block")
    out, width = weight.values.shape
    kind = parts.says("init_weights", True)
    if kind == "bat":
        size = block.shape[-1]
        blocks = weight.values.reshape(out // size, size, width // size, size).transpose(2, 0, 1, 3)
        return whole((blocks @ block + block).transpose(1, 2, 0, 3).reshape(out, width))
    if not 0 < len(block) <= width:
        raise ValueError
    if kind == "mini":
        block = np.tile(block, (1, out // block.shape[1]))
    return np.eye(len(block))[:, np.arange(width) % len(block)], block.T


def _shira(parts: Parts, weight: Weight) -> Pair:
    """SHiRA, Bhardwaj et al. 2024: a few entries of the weight."""
    delta = np.zeros(weight.values.shape)
    rows, columns = parts("indices")
    np.add.at(delta, (rows, columns), parts("weight"))
    return whole(delta)


def _supertuning(parts: Parts, weight: Weight) -> Pair:
    """A few entries of the weight, and a LoRA where the config gives one."""
    delta = np.zeros(weight.values.shape)
    np.add.at(delta.reshape(-1), parts("indices"), parts("values"))
    if "lora_A.weight" in parts:
        check_shape((parts.shape("lora_B.weight")[0], parts.shape("lora_A.weight")[1]), weight.values.shape)
        a = parts("lora_A.weight")
        delta += parts.number("lora_alpha", 8) / len(a) * parts("lora_B.weight") @ a
    return whole(delta)


def _places(parts: Parts, count: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The entries of a matrix that a seed draws, as PEFT draws them."""
    import torch

    generator = torch.Generator().manual_seed(int(parts.number("random_loc_seed", 777)))
    drawn = torch.randperm(shape[0] * shape[1], generator=generator)[:count].numpy()
    return drawn // shape[1], drawn % shape[1]


def _fourierft(parts: Parts, weight: Weight) -> Pair:
    """FourierFT, Gao et al. 2024: a few coefficients of ΔW's discrete Fourier transform."""
    spectrum, dense = parts("spectrum"), np.zeros(weight.values.shape)
    dense[_places(parts, len(spectrum), dense.shape)] = spectrum
    return whole(np.fft.ifft2(dense).real * parts.number("scaling", 150.0))


def _waveft(parts: Parts, weight: Weight) -> Pair:
    """WaveFT, Bilican et al. 2025: a few coefficients of ΔW's wavelet transform, which PEFT undoes."""
    spectrum, shape = parts("spectrum"), weight.values.shape
    rows, columns = _places(parts, len(spectrum), shape)
    scaling = parts.number("scaling", 25.0)
    if not parts.says("use_idwt", True):
        delta = np.zeros(shape)
        delta[rows, columns] = spectrum
        return whole(scaling * delta)
    import torch

    with one_at_a_time():
        from peft.tuners.waveft.constants import WAVELET_REDUCTIONS
        from peft.tuners.waveft.waverec2d import WaveletDetailTuple2d, waverec2d

    family = str(parts.says("wavelet_family", "db1"))
    padded = [(size + more + 1) // 2 * 2 for size, more in zip(shape, WAVELET_REDUCTIONS[family], strict=True)]
    dense = torch.zeros(*padded, dtype=torch.float64)
    rows, columns = rows + (padded[0] - shape[0]) // 2, columns + (padded[1] - shape[1]) // 2
    dense[rows, columns] = torch.from_numpy(spectrum)
    half, middle = padded[0] // 2, padded[1] // 2
    details = WaveletDetailTuple2d(dense[:half, middle:], dense[half:, :middle], dense[half:, middle:])
    delta = waverec2d((dense[:half, :middle], details), family).numpy()
    first, left = ((delta.shape[i] - shape[i]) // 2 for i in range(2))
    return whole(scaling * delta[first : first + shape[0], left : left + shape[1]])


def _of_weight(title: str, prefix: str, make, says: str = "") -> Recipe:
    return Recipe(title, prefix, None, make, needs_weight=True, says=says)


def _of_shape(title: str, prefix: str, make, says: str = "") -> Recipe:
    return _of_weight(title, prefix, make, says)._replace(lacks="whose file does not tell the shape of the weight that it changes")


RECIPES_OF_WEIGHTS = {
    "IA3": _of_weight("IA³", "ia3_", _ia3),
    "ROAD": _of_weight("RoAd", "road_", _road),
    "OFT": _of_weight("OFT", "oft_", _oft),
    "BOFT": _of_weight("BOFT", "boft_", _boft),
    "HRA": _of_weight("HRA", "hra_", _hra),
    "HIRA": _of_weight("HiRA", "hira_", _hira),
    "GLORA": _of_weight("GLoRA", "glora_", _glora),
    "DEFT": _of_weight("DEFT", "deft_", _deft),
    "PEANUT": _of_weight("PEANuT", "peanut_", _peanut),
    "OSF": _of_weight("OSF", "osf_", _osf),
    "PSOFT": _of_weight("PSOFT", "psoft_", _psoft),
    "FROD": _of_weight("FRoD", "frod_", _frod),
    "ADAMSS": _of_weight("AdaMSS", "adamss_", _adamss),
    "LN_TUNING": _of_weight("LN tuning", "ln_tuning_", _ln, "of a vector the change counts as one column"),
    "VERA": _of_shape("VeRA", "vera_", _vera),
    "PVERA": _of_shape("PVeRA", "pvera_", _pvera, "by the means of what is drawn while it trains"),
    "RANDLORA": _of_shape("RandLoRA", "randlora_", _randlora),
    "MISS": _of_shape("MiSS", "miss_", _miss),
    "SHIRA": _of_shape("SHiRA", "shira_", _shira),
    "SUPERTUNING": _of_shape("Super-Tuning", "supertuning_", _supertuning),
    "FOURIERFT": _of_shape("FourierFT", "fourierft_", _fourierft),
    "WAVEFT": _of_shape("WaveFT", "waveft_", _waveft),
}
