"""The metrics of nearness: what each says, its formula, where it comes from and how it is computed.

The page Measures, docs/measures.md, the page of a prompt and the command line's help tell what stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from soft_prompt_explorer.analysis.core.kept import KeptArrays
from soft_prompt_explorer.analysis.core.papers import CONNEAU, LESTER, MU
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.prompts.exact import Space, rounding, rowwise_dot, search, unit_rows

if TYPE_CHECKING:
    from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary

MetricName = Literal["centred", "cosine", "csls", "dot", "euclidean"]

CSLS_NEIGHBOURS = 10  # Conneau et al. 2018, section 2.3
_CROWDING_SCORES = 1 << 25  # float32 cosines held at once while the rows' neighbourhoods are measured
_CROWDING_VERSION = 1  # raise it when the content changes


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes
    ----------
    says : the metric in a sentence, where it is chosen.
    title, sentences, formula, source, not_shown : as those of a `Measure`, where it is explained.
    space : how it is computed over a vocabulary. What takes long is told to the report, and kept.
    """

    name: MetricName
    says: str
    title: str
    sentences: tuple[str, str, str]
    formula: str
    source: str
    not_shown: str
    space: Callable[[Vocabulary, Report], Space]


def cosine_space(vocabulary: Vocabulary, centre: np.ndarray, norms: np.ndarray) -> Space:
    """The cosine after `centre` is taken off the vector and the rows; the product with each row is divided by the row's entry of `norms`, and is 0 where that is 0."""
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)

    def direction(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        units = unit_rows(vectors - centre)
        return units, units @ centre

    def exact(vector: np.ndarray, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return rowwise_dot(rows - centre, unit_rows((vector - centre)[None])[0]) * inverse[ids]

    error = rounding(vocabulary) * (vocabulary.norms + np.linalg.norm(centre)) * inverse
    return Space(direction, exact, error, weight=inverse)


def _centred(vocabulary: Vocabulary, _: Report = no_report) -> Space:
    return cosine_space(vocabulary, vocabulary.mean, vocabulary.centred_norms)


def _cosine(vocabulary: Vocabulary, _: Report) -> Space:
    return cosine_space(vocabulary, np.zeros(vocabulary.width), vocabulary.norms)


def _dot(vocabulary: Vocabulary, _: Report) -> Space:
    def direction(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return unit_rows(vectors), np.zeros(len(vectors))

    def exact(vector: np.ndarray, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return rowwise_dot(rows, vector)

    return Space(direction, exact, rounding(vocabulary) * vocabulary.norms)


def _euclidean(vocabulary: Vocabulary, _: Report) -> Space:
    def direction(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return vectors, np.zeros(len(vectors))

    def exact(vector: np.ndarray, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        difference = rows - vector
        return -np.sqrt(rowwise_dot(difference, difference))

    # −‖p − e‖ orders the rows as p · e − ‖e‖²/2 does.
    return Space(direction, exact, rounding(vocabulary) * vocabulary.norms, bias=-(vocabulary.norms**2) / 2)


def _csls(vocabulary: Vocabulary, report: Report) -> Space:
    # CSLS adds a constant of the vector and a constant of the row to the centred cosine: the same search with a bias.
    crowding = csls_crowding(vocabulary, report=report)
    cosine = _centred(vocabulary)

    def own(vectors: np.ndarray) -> np.ndarray:
        return search(vectors, vocabulary, cosine, min(CSLS_NEIGHBOURS, len(vocabulary)), None)[1].mean(axis=1)

    return replace(
        cosine,
        bias=-crowding / 2,
        exact=lambda vector, rows, ids: 2 * cosine.exact(vector, rows, ids) - crowding[ids],
        own=own,
    )


def csls_crowding(vocabulary: Vocabulary, *, report: Report = no_report) -> np.ndarray:
    """r(e): the mean centred cosine of every row to its ten nearest other rows, (V,) float64; computed once and kept in the cache."""
    kept = KeptArrays(vocabulary.cache, "csls-crowding", _CROWDING_VERSION, shapes={"crowding": (len(vocabulary),)})
    return kept.get(lambda: {"crowding": _crowding(vocabulary, report)})["crowding"]


def _crowding(vocabulary: Vocabulary, report: Report) -> np.ndarray:
    units = _centred_units(vocabulary)
    crowding = np.empty(len(vocabulary))
    k = min(CSLS_NEIGHBOURS, len(vocabulary) - 1)
    spare = min(2 * k, len(vocabulary) - 1)  # float32 finds the candidates, float64 measures them
    at_a_time = max(1, _CROWDING_SCORES // len(units))
    for start in range(0, len(units), at_a_time):
        report(start / len(units), f"measuring how crowded the words of {vocabulary.model} are (once)")
        cosines = units[start : start + at_a_time] @ units.T
        own = np.arange(len(cosines))
        cosines[own, own + start] = -np.inf
        if not k:
            crowding[start : start + len(cosines)] = 0.0
            continue
        candidates = np.argpartition(cosines, -spare, axis=1)[:, -spare:]
        rows = _centred_unit_rows(vocabulary, np.arange(start, start + len(cosines)))
        others = _centred_unit_rows(vocabulary, candidates.ravel()).reshape(*candidates.shape, -1)
        exact = (others * rows[:, None]).sum(axis=2)
        crowding[start : start + len(cosines)] = np.sort(exact, axis=1)[:, -k:].mean(axis=1)
    report(1.0, "measured")
    return crowding


def _centred_unit_rows(vocabulary: Vocabulary, ids: np.ndarray) -> np.ndarray:
    return unit_rows(vocabulary.embeddings[ids].astype(np.float64) - vocabulary.mean)


def _centred_units(vocabulary: Vocabulary) -> np.ndarray:
    units = np.empty(vocabulary.embeddings.shape, dtype=np.float32)
    for start, rows in vocabulary.blocks():
        units[start : start + len(rows)] = unit_rows(rows.astype(np.float64) - vocabulary.mean)
    return units


METRICS: dict[MetricName, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="centred",
            says="Cosine after the vocabulary's mean is taken off (the default: plain cosine mostly measures the common direction).",
            title="Centred cosine",
            sentences=(
                "The angle between a virtual token and a word after the vocabulary's mean row has been taken off both.",
                "1 is the same direction, 0 a right angle and −1 the opposite direction.",
                "It is compared with the best scores of 1,000 random vectors, which on the embedded model are 0.28 in the median and above 0.53 for one in twenty.",
            ),
            formula=r"c(p, e) = \frac{(p - \mu) \cdot (e - \mu)}{\lVert p - \mu \rVert \, \lVert e - \mu \rVert}",
            source=f"{MU}; only its removal of the mean.",
            not_shown="a meaning. Some word is always the nearest, and every random vector has one.",
            space=_centred,
        ),
        Metric(
            name="cosine",
            says="Plain cosine.",
            title="Cosine",
            sentences=(
                "The angle between a virtual token and a word as they stand, with nothing taken off.",
                "1 is the same direction, but a fairly high value is usual, since all rows of a vocabulary share a direction: on the embedded model the mean row is 2.2 long and the median row 3.2.",
                "It is best compared with the centred cosine of the same token, whose list of words differs where the shared direction decides.",
            ),
            formula=r"\cos(p, e) = \frac{p \cdot e}{\lVert p \rVert \, \lVert e \rVert}",
            source=f"A textbook measure; prompts are read by it in {LESTER}.",
            not_shown="that a token and a word have anything in common but the direction that all words share.",
            space=_cosine,
        ),
        Metric(
            name="csls",
            says="Centred cosine, less how crowded the neighbourhoods of both are; the first time takes about half a minute.",
            title="CSLS",
            sentences=(
                "Twice the centred cosine, less how crowded the surroundings of the token and of the word are.",
                "Above 0 the two are closer to each other than to their ten nearest words on average, below 0 less close, and words that are near to everything lose rank.",
                "It is compared with the mean centred cosine to the ten nearest words on either side, and those of a word leave out the word itself.",
            ),
            formula=r"""\begin{gathered}
        \operatorname{csls}(p, e) = 2\,c(p, e) - r_E(p) - r(e) \\
        r_E(p) = \tfrac{1}{10} \sum_{e' \in N_{10}(p)} c(p, e') \qquad r(e) = \tfrac{1}{10} \sum_{e' \in N_{10}(e),\, e' \neq e} c(e, e')
        \end{gathered}""",
            source=f"{CONNEAU}, section 2.3; here both neighbourhoods are of words of the one vocabulary.",
            not_shown="that the best word is a real reading. It puts the words in a fairer order, and a random vector still has a first one.",
            space=_csls,
        ),
        Metric(
            name="dot",
            says="Dot product: favours long rows.",
            title="Dot product",
            sentences=(
                "How far a word's row reaches along the virtual token, times the token's length.",
                "A high value means that the word points the token's way, that its row is long, or both.",
                "It can be compared among the words of one token only, because it grows with the token's own length.",
            ),
            formula=r"\operatorname{dot}(p, e) = p \cdot e",
            source="A textbook measure, of no one paper.",
            not_shown="that a word is close. A long row can stand before a shorter one that points more nearly the same way.",
            space=_dot,
        ),
        Metric(
            name="euclidean",
            says="Minus the distance: favours rows of the token's own length.",
            title="Euclidean distance",
            sentences=(
                "The straight distance from a virtual token to a word, with a minus sign so that higher is nearer.",
                "0 is the word itself, and a very negative value says that the token is far from that word in direction, in length or in both.",
                "It is compared with the distances of the other words, and is best read beside the norm ratio.",
            ),
            formula=r"\operatorname{euclidean}(p, e) = -\lVert p - e \rVert",
            source="A textbook measure, of no one paper.",
            not_shown="the direction of a long token. Where a token is ten times as long as the words, all of them are about as far away as it is long.",
            space=_euclidean,
        ),
    )
}
