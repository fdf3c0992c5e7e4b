"""Every measure that the explorer shows: its formula, how to read it, where it comes from and what it does not show.

The page Measures and docs/measures.md are made from these records. To add a measure, add its record to the module of its subject.
"""

from __future__ import annotations

from soft_prompt_explorer.analysis.report.measures.measure import LEGEND, Measure
from soft_prompt_explorer.analysis.report.measures.of_a_prompt import DIRECTION, NEIGHBOURS, READINGS
from soft_prompt_explorer.analysis.report.measures.of_loras_and_behaviour import BEHAVIOUR, SPECTRA
from soft_prompt_explorer.analysis.report.measures.of_many_prompts import CLUSTERS, MAPS, SIMILARITY
from soft_prompt_explorer.analysis.report.measures.of_what_it_does import WHAT_IT_DOES

MEASURES = (*WHAT_IT_DOES, *NEIGHBOURS, *READINGS, *DIRECTION, *CLUSTERS, *MAPS, *SIMILARITY, *SPECTRA, *BEHAVIOUR)
GROUPS = tuple(dict.fromkeys(measure.group for measure in MEASURES))
INTRODUCTION = "Each figure that the explorer shows, with its formula, the paper that it comes from, and what it does not show."

__all__ = ["GROUPS", "INTRODUCTION", "LEGEND", "MEASURES", "Measure", "measures_markdown"]


def measures_markdown() -> str:
    """Every measure as plain Markdown, with formulas as GitHub reads them: the text of docs/measures.md."""
    parts = ["# Measures", INTRODUCTION, f"**Symbols.** {LEGEND.strip()}"]
    for group in GROUPS:
        parts.append(f"## {group}")
        for measure in MEASURES:
            if measure.group == group:
                parts += _in_markdown(measure)
    return "\n\n".join(parts) + "\n"


def _in_markdown(measure: Measure) -> list[str]:
    formula = "\n".join(line.strip() for line in measure.formula.splitlines())
    return [
        f"### {measure.name}",
        " ".join(measure.sentences),
        f"```math\n{formula}\n```",
        *([f"**For example:** {measure.example}"] if measure.example else []),
        f"**What it does not show:** {measure.not_shown}",
        f"Source: {measure.source}",
    ]
