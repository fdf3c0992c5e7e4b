"""The metrics of nearness: what each says, its formula and where it comes from. How each is computed stands in `search`.

The page Measures, docs/measures.md, the page of a prompt and the command line's help tell what stands here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from soft_prompt_explorer.analysis.core.papers import CONNEAU, LESTER, MU

MetricName = Literal["centred", "cosine", "csls", "dot", "euclidean"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes
    ----------
    says : the metric in a sentence, where it is chosen.
    title, sentences, formula, source, not_shown : as those of a `Measure`, where it is explained.
    """

    name: MetricName
    says: str
    title: str
    sentences: tuple[str, str, str]
    formula: str
    source: str
    not_shown: str


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
        ),
    )
}
