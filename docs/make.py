"""The tables of these pages that code can make. `make docs` writes them; `tests/test_docs.py` says which one is stale.

A table stands between two marks, `<!-- NAME -->` and `<!-- /NAME -->`, each on a line of its own. To add one, write the two marks into the page
and a function that answers the Markdown between them into `tables`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import cast

import pandas as pd
from typer.core import TyperGroup
from typer.main import get_command

DOCS = Path(__file__).parent
_EVERYWHERE = {"--format", "--out", "--help"}  # told once, at the top of the page


def tables() -> dict[tuple[str, str], Callable[[], str]]:
    """What makes each table, by the name of its page and its own."""
    from soft_prompt_explorer.analysis.behaviour.changes import INTERVENTIONS
    from soft_prompt_explorer.analysis.behaviour.verdict import LABELS
    from soft_prompt_explorer.analysis.prompts.verdicts import VERDICTS
    from soft_prompt_explorer.trained_prompts.runs.store import gallery_markdown

    made: dict[tuple[str, str], Callable[[], str]] = {
        ("findings.md", "gallery"): gallery_markdown,
        ("findings.md", "comparison"): _comparison,
        ("findings.md", "behaviour"): _behaviour,
        ("findings.md", "benchmark"): _benchmark,
        ("findings.md", "sizes"): _sizes,
        ("training.md", "methods"): _methods,
        ("training.md", "tasks"): _tasks,
        ("formats.md", "formats"): _formats,
        ("formats.md", "limits"): _limits,
        ("command_line.md", "verdicts"): partial(_of_words, "verdict", VERDICTS),
        ("command_line.md", "interventions"): partial(_of_words, "intervention", {name: each.says for name, each in INTERVENTIONS.items()}),
        ("command_line.md", "labels"): partial(_of_words, "verdict", LABELS),
    }
    return made | {
        ("command_line.md", f"{room} {name}"): partial(_options, command) for room, name, command in commands() if _has_options(command)
    }


def pictures() -> dict[str, Callable[[], bytes]]:
    """What makes each picture, by the name of its file beside the pages."""
    return {"score_by_size.svg": _score_by_size}


def commands() -> Iterable[tuple[str, str, object]]:
    """Every command: the package that is called with `python -m`, its name and itself."""
    from soft_prompt_explorer.analysis.__main__ import app as reading
    from soft_prompt_explorer.trained_prompts.__main__ import app as training

    for room, app in (("analysis", reading), ("trained_prompts", training)):
        for name, command in cast(TyperGroup, get_command(app)).commands.items():
            yield room, name, command


def marks(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->\n", f"<!-- /{name} -->\n"


def between(text: str, name: str) -> str:
    """What stands between the two marks of a table.

    Raises
    ------
    ValueError
        The marks do not both stand there once, in their order.
    """
    return _around(text, name)[1]


def rewritten(text: str, name: str, table: str) -> str:
    """The text with this table between its marks. Errors as `between`."""
    before, _, after = _around(text, name)
    first, last = marks(name)
    return before + first + table + last + after


def main() -> None:
    from soft_prompt_explorer.analysis.report.glossary import glossary_markdown
    from soft_prompt_explorer.analysis.report.measures import measures_markdown

    for (page, name), make in tables().items():
        path = DOCS / page
        text = path.read_text(encoding="utf-8")
        new = rewritten(text, name, make())
        if new != text:
            path.write_text(new, encoding="utf-8")
            print(f"{page}: {name}")
    for name, draw in pictures().items():
        (DOCS / name).write_bytes(draw())
    (DOCS / "measures.md").write_text(measures_markdown(), encoding="utf-8")
    (DOCS / "glossary.md").write_text(glossary_markdown(), encoding="utf-8")


def _around(text: str, name: str) -> tuple[str, str, str]:
    first, last = marks(name)
    if text.count(first) != 1 or text.count(last) != 1 or text.index(first) > text.index(last):
        raise ValueError(f"{first.strip()} and {last.strip()} do not both stand there once, in this order.")
    before, rest = text.split(first)
    table, after = rest.split(last)
    return before, table, after


def _comparison() -> str:
    from soft_prompt_explorer.trained_prompts.experiments import comparison

    return comparison.markdown(pd.read_csv(comparison.SHIPPED / "sentiment.csv"))


def asked_prompts() -> list[str]:
    """The prompts of the gallery that the model was asked about."""
    from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour
    from soft_prompt_explorer.trained_prompts.gallery import RECIPES

    return [name for name in kept_behaviour.tested() if name in RECIPES]


def _behaviour() -> str:
    from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour

    return kept_behaviour.summary_markdown(kept_behaviour.summary(asked_prompts()))


def _benchmark() -> str:
    from soft_prompt_explorer.trained_prompts.experiments import benchmark

    return benchmark.markdown(benchmark.summary(benchmark.kept_scores()))


def _sizes() -> str:
    from soft_prompt_explorer.trained_prompts.experiments import sizes

    return sizes.markdown(sizes.kept())


def _score_by_size() -> bytes:
    from soft_prompt_explorer.analysis.core.provenance import Provenance
    from soft_prompt_explorer.analysis.core.words import listed
    from soft_prompt_explorer.analysis.figures.charts import score_by_size
    from soft_prompt_explorer.analysis.figures.drawing import written
    from soft_prompt_explorer.trained_prompts.experiments import sizes

    table = sizes.kept()
    told = sizes.summary(table)
    every = pd.concat([told, sizes.over_tasks(table)])
    panels = {task: every[every["task"] == task] for task in dict.fromkeys(every["task"])}
    drawn = score_by_size(panels, listed(list(told["measure"].dropna().unique())))
    return re.sub(
        rb"<metadata>.*</metadata>", b"", written(drawn, "svg", Provenance("make docs")), flags=re.DOTALL
    )  # the same file on another day


def _methods() -> str:
    from soft_prompt_explorer.analysis.adapters.run_file import OF_METHOD
    from soft_prompt_explorer.trained_prompts.training.config import LEARNING_RATES

    rows = [(f"`{method}`", listed_code(OF_METHOD[method]) or "none", f"{rate:g}") for method, rate in LEARNING_RATES.items()]
    return _table(("`--method`", "settings of its own", "learning rate at the first step"), rows)


def _tasks() -> str:
    from soft_prompt_explorer.analysis.tasks.finding import tasks_table
    from soft_prompt_explorer.analysis.tasks.shipped import TASKS

    table = tasks_table()
    return _table(table.columns, table[table["task"].isin(TASKS)].itertuples(index=False))  # a person's own tasks are theirs


def _formats() -> str:
    from soft_prompt_explorer.analysis.adapters.formats import FORMATS

    return _table(
        ("told by", "what is read", "written by"),
        [("", says, "") if i else (each.name, says, each.source) for each in FORMATS for i, says in enumerate(each.says)],
    )


def _limits() -> str:
    from soft_prompt_explorer.analysis.adapters import pickles, run_file, soft_prompt, tensors, torch_file, upload, zip_file
    from soft_prompt_explorer.analysis.tasks import own_data

    rows = [
        ("an adapter file on the disk", _size(tensors.MAX_FILE)),
        ("a file that is dropped on a page", _size(upload.MAX_BYTES)),
        ("tensors in one file", f"{tensors.MAX_TENSORS:,}"),
        ("virtual tokens in one prompt", f"{soft_prompt.MAX_TOKENS:,}"),
        ("values in one prompt", f"{soft_prompt.MAX_VALUES:,}"),
        ("a zip, unpacked", _size(zip_file.MAX_UNPACKED)),
        ("files in one zip", f"{zip_file.MAX_FILES:,}"),
        ("the description of the tensors in a pickle", _size(pickles.MAX_PICKLE)),
        ("a file that PyTorch before 1.6 wrote", _size(torch_file.MAX_OLD_FILE)),
        ("virtual tokens that can be trained", f"{run_file.MAX_TOKENS:,}"),
        ("the rank of a LoRA that can be trained", f"{run_file.MAX_RANK:,}"),
        ("steps of a training", f"{run_file.MAX_STEPS:,}"),
        ("your own examples: the file", f"{own_data.MAX_BYTES / 1e6:.0f} MB"),
        ("your own examples: rows", f"{own_data.MIN_ROWS} to {own_data.MAX_ROWS:,}"),
        ("your own examples: characters in one text", f"{own_data.MAX_CHARACTERS:,}"),
    ]
    return _table(("what", "at most"), rows)


def _of_words(what: str, meanings: dict[str, str]) -> str:
    return _table((what, "what it means"), meanings.items())


def _has_options(command) -> bool:
    return bool(_records(command))


def _records(command) -> list[tuple[str, str]]:
    context = command.make_context(command.name, [], resilient_parsing=True)
    own = [parameter for parameter in command.get_params(context) if not _EVERYWHERE & set(parameter.opts)]
    return [record for parameter in own if (record := parameter.get_help_record(context))]


def _options(command) -> str:
    """The arguments and options of a command, as its `--help` tells of them."""
    return _table(("argument or option", "what it does"), [(f"`{option}`", " ".join(says.split())) for option, says in _records(command)])


def listed_code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _size(count: int) -> str:
    return f"{count // 2**30} GiB" if count >= 2**30 else f"{count // 2**20} MiB"


def _table(header: Iterable[str], rows: Iterable[Iterable]) -> str:
    lines = [list(header)]
    lines += [["---"] * len(lines[0]), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
