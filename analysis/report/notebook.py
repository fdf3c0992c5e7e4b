"""What a prompt, a LoRA and a vocabulary say of themselves in a notebook: what it is, its words, and how many tokens have which verdict.

Importing this module is what makes them do so; the package does it when one is loaded.
"""

from __future__ import annotations

from html import escape

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.notebook import TELLERS
from soft_prompt_explorer.analysis.core.words import printable, shown
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.report.inspection import describe, modules, vocabulary_at_hand

ROWS = 12  # told of a long table
LONGEST = 80  # characters of what a stranger's file says


def _cell(value: object) -> str:
    text = printable(str(value))
    return escape(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")


def _table(head: list[str], rows: list[list[object]]) -> str:
    heads = "".join(f"<th>{_cell(name)}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows[:ROWS])
    more = f"<p>… and {len(rows) - ROWS:,} more.</p>" if len(rows) > ROWS else ""
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>{more}"


def of_prompt(prompt: SoftPrompt) -> str:
    """The prompt; its words and verdicts where its vocabulary lies on this machine and the null was drawn before."""
    from soft_prompt_explorer.analysis.prompts.null import is_drawn
    from soft_prompt_explorer.analysis.prompts.starts import start_from_config
    from soft_prompt_explorer.analysis.prompts.verdicts import readings, start_and_now

    facts = describe(prompt)
    head = (
        f"<p><b>{_cell(prompt.name)}</b>: {_cell(facts['kind'])}, {len(prompt)} × {prompt.width}"
        f"{', of ' + _cell(prompt.base_model) if prompt.base_model else ''}{', ' + _cell(prompt.method) if prompt.method else ''}</p>"
    )
    vocabulary = vocabulary_at_hand(prompt) if prompt.is_embeddings else None
    if vocabulary is None:
        return head + "<p>Its words are told once the vocabulary of its model is at hand.</p>"
    try:
        known = start_from_config(prompt, vocabulary)
        table = (readings if is_drawn(vocabulary) else start_and_now)(known, vocabulary)
    except InputError as error:
        return head + f"<p>{_cell(error)}</p>"
    told = {"position": "token", "nearest_token": "nearest word", "score": "score", "verdict": "verdict"}
    if "verdict" in table:
        counts = ", ".join(f"{count} {_cell(verdict)}" for verdict, count in table["verdict"].value_counts().items())
        head += f"<p>Verdicts: {counts}.</p>"
    shorter = table.assign(nearest_token=table["nearest_token"].map(shown), score=table["score"].map("{:.2f}".format))
    shorter = shorter[[column for column in told if column in table]].rename(columns=told)
    return head + _table(list(shorter.columns), shorter.astype(object).values.tolist())


def of_lora(adapter: LoraAdapter) -> str:
    """The LoRA and its modules."""
    table = modules(adapter)
    of = f", of {_cell(adapter.base_model)}" if adapter.base_model else ""
    return f"<p><b>{_cell(adapter.name)}</b>: LoRA of {len(adapter):,} modules{of}</p>" + _table(list(table.columns), table.values.tolist())


def of_vocabulary(vocabulary: Vocabulary) -> str:
    """The vocabulary and its first words."""
    words = ", ".join(f"“{_cell(shown(token))}”" for token in vocabulary.tokens[1_000 : 1_000 + ROWS])
    return f"<p><b>{_cell(vocabulary.model)}</b>: {len(vocabulary):,} tokens, {vocabulary.width} wide; among them {words}</p>"


TELLERS.update({SoftPrompt: of_prompt, LoraAdapter: of_lora, Vocabulary: of_vocabulary})
