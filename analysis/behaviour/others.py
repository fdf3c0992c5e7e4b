"""What other tasks' adapters at hand change on the texts: what they share with an adapter is the form of an answer more than its task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from soft_prompt_explorer.analysis.adapters import LoraAdapter, SoftPrompt, load_soft_prompt
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.behaviour.lens_null import kept_of
from soft_prompt_explorer.analysis.behaviour.unrelated import Watch
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary


class Others(NamedTuple):
    """The mean change of each other task's prompts that ship, (tasks, layers, d); None without any. And in a sentence what they are."""

    changes: np.ndarray | None
    sentence: str


class AtHand(NamedTuple):
    """The changes of the prompts that ship for a model, (prompts, layers, d) of each task."""

    by_task: dict[str, np.ndarray]

    def beside(self, adapter: SoftPrompt | LoraAdapter) -> Others:
        """Those of other tasks than the one that this adapter is known to be of."""
        own = task_of(adapter)
        others = [changes for task, changes in self.by_task.items() if task != own]
        if not others:
            return Others(None, "No adapter of another task is at hand for this model, so nothing is taken off for the specific score.")
        left_out = "; the task of what is read is not known, so its own may be among them" if own is None else f", without those of {own}"
        return Others(
            np.array([changes.mean(0) for changes in others]),
            f"The specific score is without what {sum(map(len, others))} prompts of {len(others)} tasks that ship share{left_out}.",
        )


def shipped_prompts(model: str) -> Iterator[tuple[str, SoftPrompt]]:
    """The task and the prompt of each run of prompt tuning that ships for this model."""
    for folder in sorted(path.parent for path in GALLERY.glob("*/run.json")):
        try:
            run = read_description(folder)
            if (run["config"]["method"], run["model"]["name"]) == ("prompt-tuning", model):
                yield run["config"]["task"], load_soft_prompt(folder)
        except InputError:  # left out, as everywhere
            continue


def changes_at_hand(watch: Watch, vocabulary: Vocabulary, *, report: Report = no_report) -> AtHand:
    """What the prompts that ship for this model change, of each task. Each is looked at once and kept."""
    by_task: dict[str, list[np.ndarray]] = {}
    for task, prompt in shipped_prompts(vocabulary.model):
        rows, initial = prompt.embeddings, prompt.initial
        if initial is None:
            continue

        def change(rows: np.ndarray = rows, initial: np.ndarray = initial) -> dict[str, np.ndarray]:
            seen, start = watch.of_rows(np.stack([rows, initial]))
            return {"change": (seen.states - start.states).mean(0)}

        report(0.0, f"looking at {prompt.name}, which ships")
        kept = kept_of(watch, [b"change", rows.tobytes(), initial.tobytes()]).get(change)
        by_task.setdefault(task, []).append(kept["change"])
    return AtHand({task: np.array(changes) for task, changes in by_task.items()})


def task_of(adapter: SoftPrompt | LoraAdapter) -> str | None:
    """The task that an adapter was trained on here; None where that is not known."""
    if adapter.source is None or not adapter.source.path.is_dir():
        return None
    try:
        return read_description(adapter.source.path)["config"]["task"]
    except (InputError, KeyError):
        return None
