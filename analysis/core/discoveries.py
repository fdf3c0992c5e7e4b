"""How many of what is called found is found by chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def q_values(p: ArrayLike) -> np.ndarray:
    """The smallest share of false discoveries at which each p-value is among what is called found (Benjamini & Hochberg 1995, section 3).

    The same as `scipy.stats.false_discovery_control(p, method="bh")` over all axes; scipy.stats takes most of a second to import, which a page that reads what is kept would wait for.

    Parameters
    ----------
    p : of any shape.

    Returns
    -------
    Of the shape of `p`, float64.

    Raises
    ------
    ValueError
        One is no number from 0 to 1.

    Examples
    --------
    >>> q_values([0.01, 0.04, 0.03, 0.5]).round(3).tolist()
    [0.04, 0.053, 0.053, 0.5]
    """
    p = np.asarray(p, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values are numbers from 0 to 1")
    order = np.argsort(p, axis=None)
    steps = p.ravel()[order] * (p.size / np.arange(1, p.size + 1))
    found = np.empty(p.size)
    found[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0)
    return found.reshape(p.shape)
