"""What other tasks' adapters at hand change on the texts: what they share with an adapter is the form of an answer more than its task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def shipped_prompts(model: str) -> Iterator[tuple[str, SoftPrompt]]:
    """The task and the prompt of each run of prompt tuning that ships for this model."""
    for folder in sorted(path.parent for path in GALLERY.glob("*/run.json")):
        try:
            run = read_description(folder)
            if (run["config"]["method"], run["model"]["name"]) == ("prompt-tuning", model):
                yield run["config"]["task"], load_soft_prompt(folder)
        except InputError:  # left out, as everywhere
            continue


def changes_at_hand(
    watch: Watch, vocabulary: Vocabulary, adapters: Sequence[SoftPrompt | LoraAdapter], *, report: Report = no_report
) -> Others:
    """What the prompts that ship for this model change, a mean for each task, without the tasks that these adapters are known to be of. Each is looked at once and kept."""
    own = {task for adapter in adapters if (task := task_of(adapter)) is not None}
    by_task: dict[str, list[np.ndarray]] = {}
    for task, prompt in shipped_prompts(vocabulary.model):
        rows, initial = prompt.embeddings, prompt.initial
        if task in own or initial is None:
            continue

        def change(rows: np.ndarray = rows, initial: np.ndarray = initial) -> dict[str, np.ndarray]:
            seen, start = watch.of_rows(np.stack([rows, initial]))
            return {"change": (seen.states - start.states).mean(0)}

        report(0.0, f"looking at {prompt.name}, of another task")
        kept = kept_of(watch, [b"change", rows.tobytes(), initial.tobytes()]).get(change)
        by_task.setdefault(task, []).append(kept["change"])
    if not by_task:
        return Others(None, "No adapter of another task is at hand for this model, so nothing is taken off for the specific score.")
    count = sum(map(len, by_task.values()))
    left_out = (
        f", without those of {', '.join(sorted(own))}" if own else "; the task of what is read is not known, so its own may be among them"
    )
    return Others(
        np.array([np.mean(changes, axis=0) for changes in by_task.values()]),
        f"The specific score is without what {count} prompts of {len(by_task)} tasks that ship share{left_out}.",
    )


def task_of(adapter: SoftPrompt | LoraAdapter) -> str | None:
    """The task that an adapter was trained on here; None where that is not known."""
    if adapter.source is None or not adapter.source.path.is_dir():
        return None
    try:
        return read_description(adapter.source.path)["config"]["task"]
    except (InputError, KeyError):
        return None
