"""What adapters that know nothing push a model towards: drawn from the same start with displacements of the same lengths, looked at once and kept.

Of a soft prompt there are two kinds, and the larger p-value counts: displacements in directions of no preference at all, and in directions from one word to
another, drawn like the vocabulary's own rows. (Directions drawn like the displacements of trained prompts are no null: they hold what those have learned.) Of a LoRA, whose updates are told by their singular values, the same singular
values stand between random orthonormal factors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.behaviour.unrelated import Seen, Watch, check_can_be_put, factors_in, factors_of
from soft_prompt_explorer.analysis.core.folders import cache_folder
from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.loras.ranks import singular_values
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import weights_told
from soft_prompt_explorer.analysis.prompts.search import unit_rows

DRAWS = 200  # of each kind
WORDS_DRAWN = 2_000  # whose differences give directions
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
    null_changes : (kinds, draws, layers, d) float32, of null adapters the mean over the texts.
    null_kl : (kinds, draws, k) float32.
    """

    against: str
    change: np.ndarray
    kl: np.ndarray
    common: np.ndarray
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
    if isinstance(adapter, LoraAdapter):
        factors = factors_of(adapter)
        with factors_in(watch.language_model.model, factors):
            seen = watch.bare()
        values = {path: singular_values(each) for path, each in adapter.modules.items()}
        without, against = watch.bare(), BARE
        drawn = [null_loras(factors, values, watch, np.random.default_rng([SEED, 0]))]
        key = [f"{path} {len(b)} {a.shape[1]} ".encode() + values[path].tobytes() for path, (a, b) in factors.items()]
    elif adapter.kind == "prefix":
        seen, without, against = watch.of_prefix(adapter.embeddings), watch.bare(), BARE
        drawn, key = [_null_prefixes(adapter.embeddings, watch)], [adapter.embeddings.tobytes()]
    else:
        if adapter.initial is None:
            (seen,), without, against = watch.of_rows(adapter.embeddings[None]), watch.bare(), NO_PROMPT
        else:
            (seen, without), against = watch.of_rows(np.stack([adapter.embeddings, adapter.initial])), START
        start, lengths, like = displacement_of(adapter, vocabulary, SEED)
        drawn, key = _null_prompts(start, lengths, [None, like], watch), [start.tobytes(), lengths.astype(np.float32).tobytes()]
    kept = kept_of(watch, [*key, against.encode(), repr((draws, SEED)).encode()])
    null = kept.get(lambda: _see(drawn, without, watch, draws, adapter.name, report))
    return Looked(
        against,
        seen.states - without.states,
        watch.divergences(seen, without),
        common_of(watch, without),
        null["changes"].astype(np.float32),
        null["kl"],
    )


def common_of(watch: Watch, without: Seen) -> np.ndarray:
    """What `Looked` calls common."""
    weight = watch.language_model.model.get_output_embeddings().weight.detach().float()
    return (without.log_probabilities.exp().mean(0).to(weight.device) @ weight).cpu().numpy()


def kept_of(watch: Watch, parts: Sequence[bytes]) -> KeptArrays:
    """What is kept of a model, these texts and these layers, by what else it depends on."""
    told = hashlib.sha256()
    for piece in (*parts, "\0".join(watch.texts).encode(), repr(watch.layers).encode(), *weights_told(watch.language_model.model)):
        told.update(len(piece).to_bytes(8, "little") + piece)
    return KeptArrays(cache_folder() / "lens", told.hexdigest()[:32], _VERSION)


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


def displacement_of(prompt: SoftPrompt, vocabulary: Vocabulary, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From where a prompt's null prompts are displaced, how far each row, and rows whose directions the second kind of them takes: its start, and from word to
    word; nothing, and towards words, where the start is not known."""
    some = np.random.default_rng(seed).choice(len(vocabulary), size=min(len(vocabulary), WORDS_DRAWN), replace=False)
    words = np.asarray(vocabulary.embeddings[np.sort(some)], dtype=np.float64)
    if prompt.initial is None:
        return np.zeros_like(prompt.embeddings), np.linalg.norm(prompt.embeddings, axis=1), words
    return prompt.initial, np.linalg.norm(prompt.embeddings - prompt.initial, axis=1), words - vocabulary.mean


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


def null_loras(factors: Factors, values: dict[str, np.ndarray], watch: Watch, rng: np.random.Generator) -> Iterator[Seen]:
    """What is seen with random updates of these shapes and singular values in the model, one after another, without end."""
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
