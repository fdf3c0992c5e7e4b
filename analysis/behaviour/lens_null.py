"""What adapters that know nothing push a model towards: drawn from the same start with displacements of the same lengths, looked at once and kept.

Of a soft prompt there are two kinds, and the larger p-value counts: displacements in directions of no preference at all, and in directions from one word to
another, drawn like the vocabulary's own rows. (Directions drawn like the displacements of trained prompts are no null: they hold what those have learned.) Of a LoRA, whose updates are told by their singular values, the same singular
values stand between random orthonormal factors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.behaviour.unrelated import Seen, Watch, check_can_be_put, factors_in, factors_of
from soft_prompt_explorer.analysis.core.folders import cache_folder
from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.search import unit_rows

DRAWS = 200  # of each kind
SEED = 20_261
_VERSION = 1  # raise it when the same draws would be seen otherwise
Factors = dict[str, tuple[np.ndarray, np.ndarray]]  # A (r, in) and B (out, r) of each module
START, NO_PROMPT, BARE = "start", "no prompt", "bare model"


@dataclass(frozen=True, eq=False)
class Looked:
    """What an adapter changes on the texts, and what null adapters do.

    Attributes
    ----------
    against : what both are compared with: the `start`, `no prompt` or the `bare model`.
    change : (k, layers, d) float32, of each text the mean state with the adapter less that without it.
    kl : (k,) float64, of each text the mean KL of the next-token distributions, with the adapter from without it, in nats.
    common : (d,) float32, the mean of the output layer's rows, each word weighed by how likely it is without the adapter: what a change of the state does to
        the logits of all words in common (the gradient of the log of their sum).
    start_kl : (k,) float64, the same of the start from no prompt; None where the start is not known.
    null_changes : (kinds, draws, layers, d) float32, of null adapters the mean over the texts.
    null_kl : (kinds, draws, k) float32.
    """

    against: str
    change: np.ndarray
    kl: np.ndarray
    common: np.ndarray
    start_kl: np.ndarray | None
    null_changes: np.ndarray
    null_kl: np.ndarray


def look(
    adapter: SoftPrompt | LoraAdapter, watch: Watch, vocabulary: Vocabulary, *, draws: int = DRAWS, report: Report = no_report
) -> Looked:
    """Look at an adapter and at its null adapters; those are kept, by what they were drawn from.

    Parameters
    ----------
    draws : of each kind of null.

    Raises
    ------
    AdapterError
        It does not fit the model, or is weight-decomposed.
    InputError
        The model has no module that the LoRA changes.
    """
    check_can_be_put(adapter, watch.language_model)
    report(0.0, f"{adapter.name}: looking at the model")
    bare = watch.bare()
    start_kl = None
    between = np.asarray(vocabulary.embeddings[_some(len(vocabulary))], dtype=np.float64) - vocabulary.mean
    if isinstance(adapter, LoraAdapter):
        factors, model = factors_of(adapter), watch.language_model.model
        with factors_in(model, factors):
            seen = watch.bare()
        values = {path: np.linalg.svd(np.linalg.qr(b)[1] @ np.linalg.qr(a.T)[1].T, compute_uv=False) for path, (a, b) in factors.items()}
        without, against, drawn = bare, BARE, [_null_loras(factors, values, watch)]
        key = [f"{path} {len(b)} {a.shape[1]} ".encode() + values[path].tobytes() for path, (a, b) in factors.items()]
    elif adapter.kind == "prefix":
        seen, without, against = watch.of_prefix(adapter.embeddings), bare, BARE
        drawn, key = [_null_prefixes(adapter.embeddings, watch)], [adapter.embeddings.tobytes()]
    elif adapter.initial is not None:
        seen, without = watch.of_rows(np.stack([adapter.embeddings, adapter.initial]))
        start_kl, against = watch.divergences(without, bare), START
        lengths = np.linalg.norm(adapter.embeddings - adapter.initial, axis=1)
        drawn = _null_prompts(adapter.initial, lengths, [None, between], watch)
        key = [adapter.initial.tobytes(), lengths.astype(np.float32).tobytes()]
    else:
        (seen,), without, against = watch.of_rows(adapter.embeddings[None]), bare, NO_PROMPT
        lengths = np.linalg.norm(adapter.embeddings, axis=1)
        words = np.asarray(vocabulary.embeddings[_some(len(vocabulary))], dtype=np.float32)
        drawn, key = (
            _null_prompts(np.zeros_like(adapter.embeddings), lengths, [None, words], watch),
            [lengths.astype(np.float32).tobytes(), b"words"],
        )
    null = _kept(key, against, watch, draws, lambda: _see(drawn, without, watch, draws, adapter.name, report))
    return Looked(
        against,
        seen.states - without.states,
        watch.divergences(seen, without),
        common_of(watch, without),
        start_kl,
        null["changes"].astype(np.float32),
        null["kl"],
    )


def common_of(watch: Watch, without: Seen) -> np.ndarray:
    """What `Looked` calls common."""
    weight = watch.language_model.model.get_output_embeddings().weight.detach().float()
    return (without.log_probabilities.exp().mean(0).to(weight.device) @ weight).cpu().numpy()


def _kept(key: list[bytes], against: str, watch: Watch, draws: int, make) -> dict[str, np.ndarray]:
    model = watch.language_model.model
    weight = model.get_input_embeddings().weight
    told = hashlib.sha256()
    for part in (*key, against.encode(), "\0".join(watch.texts).encode(), repr((watch.layers, draws, SEED)).encode()):
        told.update(len(part).to_bytes(8, "little") + part)
    # The weights themselves: a model of the same name may be another one.
    told.update(
        repr((tuple(weight.shape), model.config.to_json_string(use_diff=True))).encode() + weight[: 1 << 12].float().cpu().numpy().tobytes()
    )
    return KeptArrays(cache_folder() / "lens-null", told.hexdigest()[:32], _VERSION).get(make)


def _see(drawn: list[Iterator[Seen]], without: Seen, watch: Watch, draws: int, name: str, report: Report) -> dict[str, np.ndarray]:
    changes, kl, beside = [], [], without.states.mean(0)
    for kind, seen in enumerate(drawn):
        for i in range(draws):
            report(
                (kind * draws + i) / (len(drawn) * draws), f"{name}: looking at null adapter {kind * draws + i + 1} of {len(drawn) * draws}"
            )
            one = next(seen)
            changes.append(one.states.mean(0) - beside)
            kl.append(watch.divergences(one, without))
    shape = (len(drawn), draws)
    return {
        "changes": np.array(changes, dtype=np.float16).reshape(*shape, *beside.shape),
        "kl": np.array(kl, dtype=np.float32).reshape(*shape, -1),
    }


# --- What is drawn ---------------------------------------------------------------------------------------------------
def displaced(start: np.ndarray, lengths: np.ndarray, count: int, rng: np.random.Generator, like: np.ndarray | None = None) -> np.ndarray:
    """Prompts (count, n, d) whose rows lie as far from `start` as `lengths` say, each in a random direction: uniform, or drawn like the rows of `like`."""
    if like is None:
        directions = rng.standard_normal((count * len(start), start.shape[1]))
    else:
        directions = rng.standard_normal((count * len(start), len(like))) @ like
    directions = unit_rows(directions).reshape(count, *start.shape)
    return (start + lengths[:, None] * directions).astype(np.float32)


def _null_prompts(start: np.ndarray, lengths: np.ndarray, kinds: list[np.ndarray | None], watch: Watch) -> list[Iterator[Seen]]:
    def draw(kind: int, like: np.ndarray | None) -> Iterator[Seen]:
        rng = np.random.default_rng([SEED, kind])
        while True:
            yield from watch.of_rows(displaced(start, lengths, 8, rng, like))

    return [draw(kind, like) for kind, like in enumerate(kinds)]


def _null_prefixes(rows: np.ndarray, watch: Watch) -> Iterator[Seen]:
    """Keys and values of random directions, each layer's as long as the prefix's own."""
    from soft_prompt_explorer.analysis.asking.in_front import prompt_config

    kept = prompt_config("prefix-tuning", len(rows), watch.language_model.model.config)
    parts = rows.reshape(len(rows), 2 * kept.num_layers, -1)
    lengths = np.linalg.norm(parts, axis=2, keepdims=True)
    rng = np.random.default_rng([SEED, 0])
    while True:
        directions = rng.standard_normal(parts.shape)
        directions /= np.linalg.norm(directions, axis=2, keepdims=True)
        yield watch.of_prefix((lengths * directions).reshape(rows.shape).astype(np.float32))


def _null_loras(factors: Factors, values: dict[str, np.ndarray], watch: Watch) -> Iterator[Seen]:
    rng = np.random.default_rng([SEED, 0])
    while True:
        with factors_in(watch.language_model.model, random_factors(factors, values, rng)):
            seen = watch.bare()
        yield seen


def random_factors(factors: Factors, values: dict[str, np.ndarray], rng: np.random.Generator) -> Factors:
    """Updates of the same shapes and singular values, by module, their singular vectors drawn anew (QR of Gaussian matrices)."""
    drawn = {}
    for path, (a, b) in factors.items():
        sigma = values[path]
        u, v = (np.linalg.qr(rng.standard_normal((size, len(sigma))))[0] for size in (len(b), a.shape[1]))
        drawn[path] = (np.sqrt(sigma)[:, None] * v.T, u * np.sqrt(sigma))
    return drawn


def _some(count: int, most: int = 2_000) -> np.ndarray:
    return np.sort(np.random.default_rng(SEED).choice(count, size=min(count, most), replace=False))
