"""Paired bootstrap intervals of scores and losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from soft_prompt_explorer.analysis.behaviour.changes import SEED

RESAMPLES = 2_000
INTERVAL = (0.025, 0.975)
ITSELF, CHANGE, BESIDE_CONTROL, BESIDE_NO_PROMPT = _OF = ("", "_change", "_beside_control", "_beside_no_prompt")
_PARTS = ("", "_low", "_high")
MEASURED = [f"{what}{of}{part}" for of in _OF for what in ("loss", "score") for part in _PARTS]


@dataclass(frozen=True, eq=False)
class Answers:
    """What came of asking every example once.

    Attributes
    ----------
    losses : (n,) float64, nats a token of the answer wanted.
    counts : (units, k) float64, what each example (or question of several examples) adds to the k sums that the score is computed from.
    """

    losses: np.ndarray
    counts: np.ndarray


class Resampling:
    """The resamples of the examples, the same for every intervention: a change is then between the same examples."""

    def __init__(self, answers: Answers, score: Callable[[np.ndarray], np.ndarray]) -> None:
        rng = np.random.default_rng(SEED)
        self._score, self._seed = score, int(rng.integers(2**31))
        counts = answers.counts
        self._right_or_wrong = counts.shape[1] == 2 and bool((counts[:, 1] == 1).all()) and bool(np.isin(counts[:, 0], (0, 1)).all())
        self._examples = _times_drawn(len(answers.losses), rng)
        self._units = _times_drawn(len(counts) + 2 * self._right_or_wrong, rng)

    def values(self, of: Sequence[Answers], other: Sequence[Answers] | None = None, called: str = ITSELF) -> dict[str, float]:
        """Loss and score, or their difference from another's, each with its 95 % interval, by column; both are means over their draws."""
        n, both = len(of[0].losses), (of, *([other] if other else []))
        losses = [self._means([each.losses[:, None] for each in draws], self._examples, lambda sums: sums[..., 0] / n) for draws in both]
        scores = [self._means([each.counts for each in draws], self._units, self._score) for draws in both]
        values: dict[str, float] = {}
        for what, found, made_up in (("loss", losses, 0.0), ("score", scores, self._made_up(paired=other is not None))):
            value, resampled = found[0]
            if other:
                value, resampled = value - found[1][0], resampled - found[1][1]
            bounds = np.quantile(resampled + made_up, INTERVAL)
            # The mean of three equal scores is not quite that score.
            values |= {
                f"{what}{called}{part}": round(float(number), 12) + 0.0 for part, number in zip(_PARTS, (value, *bounds), strict=True)
            }
        return values

    def _means(self, draws: Sequence[np.ndarray], times: np.ndarray, score: Callable) -> tuple[float, np.ndarray]:
        """The mean over draws of the score, and the same in every resample, (resamples,)."""
        n = len(draws[0])
        # The made-up examples add nothing to either sum but their number, which the score of right and wrong answers is divided by.
        extra = np.zeros((len(times), draws[0].shape[1]))
        if times.shape[1] > n:
            extra[:, 1] = times[:, n:].sum(axis=1)
        of_draws = np.stack([score(times[:, :n] @ counts + extra) for counts in draws], axis=1)
        return float(np.mean([score(counts.sum(axis=0)) for counts in draws])), (of_draws * self._draw_weights(len(draws))).sum(axis=1)

    def _made_up(self, *, paired: bool) -> np.ndarray | float:
        """What the two made-up examples add to a score, or to a difference of scores, in every resample."""
        if not self._right_or_wrong:
            return 0.0
        first, second = self._units[:, -2], self._units[:, -1]
        return ((first - second) if paired else first) / self._units.shape[1]

    def _draw_weights(self, count: int) -> np.ndarray:
        """How much each draw counts in each resample, (resamples, count)."""
        if count == 1:
            return np.ones((RESAMPLES, 1))
        rng = np.random.default_rng(self._seed)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
        return 1 / count + np.sqrt(count / (count - 1)) * (weights - 1 / count)


def _times_drawn(n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n is drawn in each resample, (resamples, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
