"""Which text a prompt is asked with, and whether that is known to be the text that it was trained with: a prompt asked in another way may seem to do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt
from soft_prompt_explorer.analysis.adapters.recorded import recorded_template
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.behaviour.verdict import NO_EFFECT, Judged, Verdict
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.remedies import TEMPLATE
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.analysis.tasks.task import OWN_TEMPLATE, Task, in_one_line

TOLD = 200  # characters of a template in a sentence


@dataclass(frozen=True)
class Asked:
    """How a prompt is asked.

    Attributes
    ----------
    task : with the template that it is asked with.
    known : whether that template was given, or it is known which one the prompt was trained with.
    """

    task: Task
    known: bool

    def example(self) -> str:
        """The first example as it is asked, on one line: `asked: ‘Thing: apple⏎Colour:’ → ‘ red’`."""
        return f"asked: {self.task.first_example()}"

    def note(self, name: str) -> str | None:
        """What stands above the verdict where the prompt's own template is unknown; None where it is known."""
        if self.known:
            return None
        return (
            f"{printable(name)} was not trained here, and the template that it was trained with is unknown: it was asked as {in_one_line(self.task.template, TOLD)}, which may not be how it "
            f"was trained, so a low score may be the template's doing; {TEMPLATE}."
        )

    def said(self, verdict: Verdict) -> Verdict:
        """The verdict, which holds nothing against the prompt that may be the template's doing."""
        if self.known or verdict.label not in NO_EFFECT:
            return verdict
        label = f"{verdict.label} when asked as {in_one_line(self.task.template, TOLD)}, which may not be how it was trained"
        return replace(verdict, label=label, sentence=f"{verdict.sentence.removesuffix('.').removesuffix(verdict.label)}{label}.")

    def of_report(self, judged: Judged, name: str) -> dict:
        """What `analysis.report.page.of_prompt` is told of a prompt that was asked so."""
        return {"asked": replace(judged, verdict=self.said(judged.verdict)), "example": self.example(), "note": self.note(name)}


def task_of_run(description: dict) -> Task:
    """The task that a run was trained on, from its run.json, with the template that it was trained with.

    Raises
    ------
    InputError
        The task is not at hand any more, or the template cannot be one.
    """
    config = description["config"]
    # Runs of before templates were kept: examples of one's own had one way to be asked.
    return get_task(config["task"], config.get("template") or (None if config["task"] in TASKS else OWN_TEMPLATE))


def how_asked(adapter: SoftPrompt | LoraAdapter | Path | None, task: str, template: str | None = None) -> Asked:
    """How an adapter is asked about a task: with the template that is given, else with its own if its run.json or the record of its training tells it, else with the
    task's.

    Parameters
    ----------
    adapter : or the path of its folder or of its file; None where it lies in no folder of a run's.
    task : the name or path of a task; see `tasks.get_task`.
    template : with `{input}` in it exactly once.

    Raises
    ------
    InputError
        There is no such task, or the template cannot be used.
    """
    asked = get_task(task, template)
    if template is not None:
        return Asked(asked, known=True)
    path = adapter if isinstance(adapter, Path) else _path_of(adapter)
    own = own_task(path)
    if own is None:
        recorded = recorded_template(path)
        return Asked(asked, known=False) if recorded is None else Asked(get_task(task, recorded), known=True)
    return Asked(own if (own.name, own.source) == (asked.name, asked.source) else asked, known=True)


def as_trained(adapter: SoftPrompt | LoraAdapter) -> Asked | None:
    """How an adapter is asked that lies with its run's own description; None where there is none."""
    own = own_task(_path_of(adapter))
    return None if own is None else Asked(own, known=True)


def together(asked: Sequence[Asked]) -> Asked:
    """How several prompts of one task are asked, side by side.

    Raises
    ------
    InputError
        They were trained with different templates.
    """
    templates = list(dict.fromkeys(each.task.template for each in asked))
    if len(templates) > 1:
        raise InputError(
            f"These prompts were trained with different templates, {in_one_line(templates[0], TOLD)} and {in_one_line(templates[1], TOLD)}; name prompts of one template."
        )
    return Asked(asked[0].task, known=all(each.known for each in asked))


def _path_of(adapter: SoftPrompt | LoraAdapter | None) -> Path | None:
    return adapter.source.path if adapter is not None and adapter.source is not None else None


def own_task(path: Path | None) -> Task | None:
    """The task of the run in whose folder an adapter lies; None where there is none, or its task is gone."""
    if path is None:
        return None
    folder = path if path.is_dir() else path.parent
    try:
        return task_of_run(read_description(folder)) if (folder / "run.json").is_file() else None
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # no run.json of ours, or its task is gone
