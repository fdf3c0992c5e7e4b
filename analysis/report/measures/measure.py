"""What a measure is, and the letters in which formulas are written."""

from __future__ import annotations

import re
from dataclasses import dataclass

LEGEND = r"""
$E$ ($V \times d$): the input embeddings of the vocabulary, a row $e$ for each of its $V$ words (tokens, to be exact), $d$ numbers wide ·
$\mu$: their mean row · $\Sigma$: their covariance · $P$ ($n \times d$): a prompt of $n$ virtual tokens, a row $P_i$ or $p$ each ·
$P^0$: what $P$ was before training · $\Delta = P - P^0$: the displacements · $A, B$: two prompts, their rows $a_i, b_j$ · $c(p, e)$: centred cosine ·
$w(p)$: the word nearest to $p$ by it · $W$: a weight · $\Delta W$: what a LoRA of rank $r$ adds to it, with the singular
values $\sigma_1 \ge \dots \ge \sigma_r$ and the singular vectors $u_k, v_k$ · $\hat{x} = x / \lVert x \rVert$ · $\#$: the number of.
A cosine with a vector of length zero counts as 0.
"""


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes
    ----------
    sentences : what it measures, how to read a high or low value, what it is compared with.
    formula : LaTeX, in the symbols of `LEGEND` and those that it defines itself.
    not_shown : how the sentence "What it does not show: …" goes on.
    example : the measure worked out on numbers that fit a line, where that helps.
    """

    group: str
    name: str
    sentences: tuple[str, str, str]
    formula: str
    source: str
    not_shown: str
    example: str = ""

    @property
    def anchor(self) -> str:
        """Where a link leads: `measures#centred-cosine`."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
