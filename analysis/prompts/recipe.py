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

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.null import UNMOVED, null_of
from soft_prompt_explorer.analysis.prompts.search import allowed_tokens, nearest, unit_rows
from soft_prompt_explorer.analysis.prompts.verdicts import displacements

Directions = Literal["uniform", "covariance", "words"]
DIRECTIONS: tuple[Directions, ...] = get_args(Directions)

TENTHS = 10
SAME = 0.02  # of a row's length: a row as near to a word is that word, give or take 16 bits
COLLAPSED = 0.8  # of a word's usual distance from the others of its band: tokens that lie nearer to each other than that are thought to have come together
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
    start : (n, d) float64, the initial values; zeros where they are unknown, but for tokens that are words as they stand.
    about : (n, d) float64, what the random starts of a prompt lie about: zero, or some place of the vocabulary.
    common : (n, d) float64, what all tokens of a prompt share.
    alone : (n,) float64, the length of what is each token's own.
    """

    bands: Bands
    pool: np.ndarray
    ids: np.ndarray
    words: np.ndarray
    start: np.ndarray
    about: np.ndarray
    common: np.ndarray
    alone: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, tokens: np.ndarray) -> Recipe:
        parts = (part[tokens] for part in (self.ids, self.words, self.start, self.about, self.common, self.alone))
        return Recipe(self.bands, self.pool, *parts)

    def moves(self, rng: np.random.Generator, directions: Directions) -> np.ndarray:
        """What the tokens of a prompt share, and as much as each has of its own in a random direction: (n, d) float64."""
        return self.common + self.alone[:, None] * self._directions(rng, directions)

    def _directions(self, rng: np.random.Generator, directions: Directions) -> np.ndarray:
        """A random direction for each token, (n, d)."""
        if directions == "uniform":
            drawn = rng.standard_normal(self.common.shape)
        elif directions == "covariance":
            decks = -(-len(self) // len(self.pool))  # dealt like cards, so that hardly two tokens of a prompt get the same
            drawn = self.pool[np.concatenate([rng.permutation(len(self.pool)) for _ in range(decks)])[: len(self)]]
        else:
            drawn = self.bands.like(self.ids, rng) - self.bands.measures(self.ids)[0]
        return unit_rows(drawn)

    def rows(self, rng: np.random.Generator, directions: Directions, *, kept: np.ndarray | None = None) -> np.ndarray:
        """The rows of other prompts of this recipe, (n, d) float64; the tokens that are `kept`, (n,) bool, start where they did."""
        rows = self.moves(rng, directions)
        anew = np.ones(len(self), dtype=bool) if kept is None else ~kept
        words, rest = self.words & anew, ~self.words & anew
        rows[words] += self.bands.like(self.ids[words], rng)
        if rest.any():
            random = self[np.flatnonzero(rest)]
            lengths = np.linalg.norm(random.start - random.about, axis=1, keepdims=True)
            rows[rest] += random.about + lengths * random._directions(rng, directions)
        rows[~anew] += self.start[~anew]
        return rows


def recipe_of(prompts: Sequence[SoftPrompt], vocabulary: Vocabulary, *, report: Report = no_report) -> Recipe:
    """The recipe of the tokens of these prompts, in their order."""
    bands = Bands(vocabulary)
    pool = null_of(vocabulary, report=report).draws.astype(np.float64) - vocabulary.mean
    rows = [(prompt.embeddings if prompt.initial is None else prompt.initial).astype(np.float64) for prompt in prompts]
    begins = np.cumsum([len(each) for each in rows])[:-1]
    as_words = np.split(_are_words(np.concatenate(rows), vocabulary), begins)
    parts = [
        (_known if prompt.initial is not None else _unknown)(prompt, each, are_words, vocabulary)
        for prompt, each, are_words in zip(prompts, rows, as_words, strict=True)
    ]
    like, start, about, common, alone, floor = (np.concatenate(each) for each in zip(*parts, strict=True))
    ids = nearest(like, vocabulary, top_k=1)[0][:, 0]
    words = start.any(axis=1) & np.concatenate(as_words)
    usual = bands.measures(ids)[1]
    for tokens in np.split(np.arange(len(ids)), begins):
        some = tokens[floor[tokens]]
        if not len(some):
            continue
        least, found = COLLAPSED * _root_mean_square(usual[some]), _root_mean_square(alone[some])
        if found <= UNMOVED * least:  # in one point: nothing tells which token was how far off
            alone[some] = least
        elif found < least:
            alone[some] *= least / found
    return Recipe(bands, pool, ids, words, start, about, common, alone)


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _are_words(rows: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Which rows are those of words, (n,) bool."""
    ids = nearest(rows, vocabulary, top_k=1)[0][:, 0]
    return np.linalg.norm(rows - vocabulary.embeddings[ids], axis=1) <= SAME * vocabulary.norms[ids]


def _known(prompt: SoftPrompt, initial: np.ndarray, words: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, ...]:
    """Of each token: what its word is nearest to, its start, what the prompt's random starts lie about, what its prompt shares, the length of its own, and
    whether that has to be as long as a word's."""
    moved = displacements(prompt)
    common = np.broadcast_to(moved.mean(axis=0), moved.shape)
    about, random = np.zeros_like(initial), ~words
    if random.sum() > 1:
        mean, _, off_zero = _shared(initial[random], vocabulary.mean)
        about[random] = mean * off_zero
    return initial, initial, about, common, np.linalg.norm(moved - common, axis=1), np.zeros(len(moved), dtype=bool)


def _shared(rows: np.ndarray, otherwise: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """The mean of rows (d,), of one row, which says nothing of what several would share, `otherwise`; how far each is from it, (n,); and whether they lie off zero."""
    n = len(rows)
    mean = rows.mean(axis=0) if n > 1 else otherwise
    alone = np.linalg.norm(rows - mean, axis=1)
    return mean, alone, bool(n * (mean @ mean) > ABOUT_ZERO * np.square(alone).sum() / max(n - 1, 1))


def _unknown(prompt: SoftPrompt, rows: np.ndarray, words: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, ...]:
    """The same as `_known`, where the start is unknown. A token that is a word as it stands has that word for its start."""
    common, alone, off_zero = _shared(rows, vocabulary.mean)
    floor = off_zero and np.median(prompt.norms) >= vocabulary.median_norm / 2
    like = np.where(words[:, None], rows, vocabulary.mean + rows - common)
    start = np.where(words[:, None], rows, 0.0)
    return like, start, np.zeros(rows.shape), np.where(words[:, None], 0.0, common), np.where(words, 0.0, alone), ~words & floor
