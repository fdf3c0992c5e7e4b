"""Readings against each other on adapters of known truth: table in, rows out."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from soft_prompt_explorer.app.charts.rows import OPEN, Mark, Row, Scale, row_chart
from soft_prompt_explorer.app.charts.theme import BLUE, GREEN, ORANGE

_MARKS = ((BLUE, "circle"), (ORANGE, "square"), (GREEN, "diamond"))
# Of each question: its columns, what chance does, and what its axis says.
_QUESTIONS = {
    "named": (("identified", "low", "high", "n"), 0.1, "answers named"),
    "told apart": (("function", "function_low", "function_high", "function_n"), 0.5, "true told from shuffled"),
}


def readings_compared(table: pd.DataFrame, question: Literal["named", "told apart"], *, alt: str) -> str:
    """How often each reading names the answers, or tells an adapter from its twin, with 95 % intervals; what chance would do is dotted.

    A row a reading, in it a line for each kind of adapter. Open marks are the twins, of which there is nothing to name but the form of the answers.

    Parameters
    ----------
    table : of `trained_prompts.experiments.benchmark.summary`.
    """
    (share, low, high, n), chance, title = _QUESTIONS[question]
    looks = dict(zip(dict.fromkeys(table["adapters"]), _MARKS, strict=False))
    kinds = set(table.loc[table[share].notna(), "adapters"])
    rows = []
    for reading, of_it in table[table[share].notna()].groupby("reading", sort=False):
        marks, written, said = [], [], []
        for lane, each in enumerate(of_it.to_dict("records")):
            colour, shape = looks[each["adapters"]]
            said.append(f"{each['adapters']} {each[share]:.0%} ({each[low]:.0%} to {each[high]:.0%}) of {each[n]:.0f}")
            if question == "named" and pd.notna(each["twins_named"]):  # the control: what the form of the answers comes to
                marks.append(Mark(each["twins_named"], colour, shape + OPEN, lane=lane))
                said.append(f"their twins {each['twins_named']:.0%}")
            marks.append(Mark(each[share], colour, shape, each[low], each[high], lane))
            written.append(f"{each[share]:.0%}")
        rows.append(Row(str(reading), "\n".join(written), f"{reading}: {'; '.join(said)}", marks=tuple(marks)))
    return row_chart(
        rows,
        Scale(0.0, 1.0, title, "{:.0%}"),
        alt=alt,
        legend=[(kind, *look) for kind, look in looks.items() if kind in kinds],
        dotted=[chance],
    )
