"""Prompts of the same recipe: what prompts would be like whose tokens had nothing to do with one another.

A vocabulary's rows are not drawn from a normal distribution: frequent words lie apart from rare ones, and each has its family. Training moves a prompt as
a whole as well. So tokens that know nothing of each other are alike, by how they started and by the prompt that they are in. Beside random vectors
that looks like a finding; beside prompts of the same recipe it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from analysis.adapters import SoftPrompt
from analysis.errors import InputError
from analysis.models import Report, no_report
from analysis.neighbours import allowed_tokens, nearest, unit_rows
from analysis.null import null_of
from analysis.readings import displacements
from analysis.vocabulary import Vocabulary

Directions = Literal["uniform", "covariance", "words"]
DIRECTIONS: tuple[Directions, ...] = get_args(Directions)

TENTHS = 10
SAME = 0.01  # of a row's length: a start as near to a word is that word, give or take 16 bits
ABOUT_ZERO = 1.5  # n ‖P̄‖² over the rows' variance, which is 1 of rows drawn about zero and 7 of ten words
_MEASURED = 300  # rows of a band, for its mean


class Bands:
    """The vocabulary's rows by frequency: tenths of the token ids (those of byte-pair encodings run with frequency), whole words apart from the rest,
    and control tokens by themselves."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        try:
            whole = allowed_tokens(vocabulary, whole_words=True)
        except InputError:  # there are none
            whole = np.zeros(len(vocabulary), dtype=bool)
        of = np.arange(len(vocabulary)) * TENTHS // len(vocabulary) + TENTHS * whole
        of[vocabulary.special] = 2 * TENTHS
        self.vocabulary = vocabulary
        self.of = of
        self._order = np.argsort(of, kind="stable")
        self._sizes = np.bincount(of, minlength=2 * TENTHS + 1)
        self._first = np.cumsum(self._sizes) - self._sizes
        self._measures: dict[int, tuple[np.ndarray, float]] = {}

    def like(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each token a random row of its band, (n, d) float64."""
        band = self.of[ids]
        drawn = self._order[self._first[band] + (rng.random(len(ids)) * self._sizes[band]).astype(np.int64)]
        return self.vocabulary.embeddings[drawn].astype(np.float64)

    def measures(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each token's band the mean row, (n, d), and the usual distance from it, (n,)."""
        bands, which = np.unique(self.of[ids], return_inverse=True)
        means, spreads = zip(*(self._measures_of(int(band)) for band in bands), strict=True)
        return np.array(means)[which], np.array(spreads)[which]

    def _measures_of(self, band: int) -> tuple[np.ndarray, float]:
        if band not in self._measures:
            members = self._order[self._first[band] : self._first[band] + self._sizes[band]]
            some = members[np.linspace(0, len(members) - 1, min(len(members), _MEASURED)).astype(np.int64)]
            rows = self.vocabulary.embeddings[some].astype(np.float64)
            mean = rows.mean(axis=0)
            self._measures[band] = mean, float(np.sqrt(((rows - mean) ** 2).sum(axis=1).mean()))
        return self._measures[band]


@dataclass(frozen=True, eq=False)
class Recipe:
    """How each token of one prompt or more came to be, as far as it is known.

    Where the initial values are known: start + what all tokens of its prompt moved by + what it moved by itself. Where they are not: its prompt's mean row +
    what it is beside that, which is taken to be no less than what a word of its band is beside theirs: a prompt that lies in one point did not begin so, as
    far as anybody knows. Of rows about zero, or shorter than half of a word, that is not taken for granted: random starts are like that.

    Attributes
    ----------
    ids : (n,) int, the word that the token started from, or is likest to beside the mean row.
    words : (n,) bool, which tokens started from that very word; the others from a random direction.
    start : (n, d) float64, the initial values; zeros where they are unknown.
    common : (n, d) float64, what all tokens of a prompt share.
    alone : (n,) float64, the length of what is each token's own.
    """

    bands: Bands
    pool: np.ndarray
    ids: np.ndarray
    words: np.ndarray
    start: np.ndarray
    common: np.ndarray
    alone: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, tokens: np.ndarray) -> Recipe:
        parts = (part[tokens] for part in (self.ids, self.words, self.start, self.common, self.alone))
        return Recipe(self.bands, self.pool, *parts)

    def moves(self, rng: np.random.Generator, directions: Directions) -> np.ndarray:
        """What the tokens of a prompt share, and as much as each has of its own in a random direction: (n, d) float64."""
        if directions == "uniform":
            drawn = rng.standard_normal(self.common.shape)
        elif directions == "covariance":
            decks = -(-len(self) // len(self.pool))  # dealt like cards, so that hardly two tokens of a prompt get the same
            drawn = self.pool[np.concatenate([rng.permutation(len(self.pool)) for _ in range(decks)])[: len(self)]]
        else:
            drawn = self.bands.like(self.ids, rng) - self.bands.measures(self.ids)[0]
        return self.common + self.alone[:, None] * unit_rows(drawn)

    def rows(self, rng: np.random.Generator, directions: Directions, *, kept: np.ndarray | None = None) -> np.ndarray:
        """The rows of other prompts of this recipe, (n, d) float64; the tokens that are `kept`, (n,) bool, start where they did."""
        rows = self.moves(rng, directions)
        anew = np.ones(len(self), dtype=bool) if kept is None else ~kept
        words, rest = self.words & anew, ~self.words & anew
        rows[words] += self.bands.like(self.ids[words], rng)
        lengths = np.linalg.norm(self.start[rest], axis=1, keepdims=True)
        if lengths.any():
            rows[rest] += lengths * unit_rows(rng.standard_normal((len(lengths), rows.shape[1])))
        rows[~anew] += self.start[~anew]
        return rows


def recipe_of(prompts: Sequence[SoftPrompt], vocabulary: Vocabulary, *, report: Report = no_report) -> Recipe:
    """The recipe of the tokens of these prompts, in their order."""
    bands = Bands(vocabulary)
    pool = null_of(vocabulary, report=report).draws.astype(np.float64) - vocabulary.mean
    parts = [_known(prompt) if prompt.initial is not None else _unknown(prompt, vocabulary) for prompt in prompts]
    like, start, common, alone, floor = (np.concatenate(each) for each in zip(*parts, strict=True))
    ids = nearest(like, vocabulary, top_k=1)[0][:, 0]
    apart = np.linalg.norm(start - vocabulary.embeddings[ids], axis=1)
    words = start.any(axis=1) & (apart <= SAME * vocabulary.norms[ids])
    return Recipe(bands, pool, ids, words, start, common, np.where(floor, np.maximum(alone, bands.measures(ids)[1]), alone))


def _known(prompt: SoftPrompt) -> tuple[np.ndarray, ...]:
    """Of each token: what its word is nearest to, its start, what its prompt shares, the length of its own, and whether that has to be as long as a word's."""
    initial, moved = prompt.initial.astype(np.float64), displacements(prompt)
    common = np.broadcast_to(moved.mean(axis=0), moved.shape)
    return initial, initial, common, np.linalg.norm(moved - common, axis=1), np.zeros(len(moved), dtype=bool)


def _unknown(prompt: SoftPrompt, vocabulary: Vocabulary) -> tuple[np.ndarray, ...]:
    """The same as `_known`, where the start is unknown."""
    rows = prompt.embeddings.astype(np.float64)
    n = len(rows)
    common = np.broadcast_to(
        rows.mean(axis=0) if n > 1 else vocabulary.mean, rows.shape
    )  # one row says nothing of what several would share
    alone = np.linalg.norm(rows - common, axis=1)
    off_zero = n * (common[0] @ common[0]) > ABOUT_ZERO * (alone**2).sum() / max(n - 1, 1)
    floor = off_zero and np.median(prompt.norms) >= vocabulary.median_norm / 2
    return vocabulary.mean + rows - common, np.zeros(rows.shape), common, alone, np.full(n, floor)
