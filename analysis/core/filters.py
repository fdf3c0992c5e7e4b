"""Filters that count: which rows of a table they leave, and how many each further choice would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

COLUMNS = ["facet", "value", "rows"]


def left_by(table: pd.DataFrame, chosen: Mapping[str, Sequence[str]], *, but: str | None = None) -> np.ndarray:
    """Which rows the filters leave, (n,) bool.

    Parameters
    ----------
    chosen : the values wanted, by column; no value is no filter.
    but : a column whose filter is left out.
    """
    left = np.ones(len(table), dtype=bool)
    for column, values in chosen.items():
        if len(values) and column != but:
            left &= table[column].isin(list(values)).to_numpy()
    return left


def facets(table: pd.DataFrame, chosen: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """How many rows have each value of each column that is filtered by, among those that the other columns' filters leave.

    Parameters
    ----------
    chosen : the values wanted, by column; each column gets its rows, filtered or not.

    Returns
    -------
    facet (the column), value, rows: a row a value that the table holds, the values of a column by name; one that is left nowhere has 0 rows.

    >>> table = pd.DataFrame({"task": ["a", "a", "b"], "start": ["words", "random", "words"]})
    >>> facets(table, {"task": ["a"], "start": []}).to_numpy().tolist()
    [['task', 'a', 2], ['task', 'b', 1], ['start', 'random', 1], ['start', 'words', 1]]
    """
    parts = []
    for column in chosen:
        counts = table.loc[left_by(table, chosen, but=column), column].value_counts()
        values = sorted(table[column].unique())
        parts.append(pd.DataFrame({"facet": column, "value": values, "rows": [int(counts.get(value, 0)) for value in values]}))
    return pd.concat(parts, ignore_index=True)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)
