"""What the prompts that ship are read as: the same for everybody, so it is computed once and kept, and nobody waits for it at a click.

Only of prompts that were read from the gallery: nothing of what a person trained or opened is kept here. A kept file says by which prompts, which vocabulary and which code it was made;
where any of them is another one, or the file is damaged, it is made anew.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt, load_adapter
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.core.kept import KeptArrays, as_array, as_table
from soft_prompt_explorer.analysis.core.progress import Report, no_report, part
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.clusters import Clustering, Method, Space, find_clusters, points_of
from soft_prompt_explorer.analysis.prompts.projection import Placed, VocabularyMap, placed, vocabulary_map
from soft_prompt_explorer.analysis.prompts.twins import twins_of
from soft_prompt_explorer.analysis.prompts.verdicts import readings


def readings_of(prompt: SoftPrompt, vocabulary: Vocabulary, *, report: Report = no_report) -> pd.DataFrame:
    """The table of `verdicts.readings`; of a prompt that ships, and of its twins, kept. Errors as there."""
    kept = _kept("readings", [prompt], vocabulary)
    if kept is None:
        return readings(prompt, vocabulary, report=report)
    return as_table(kept.get(lambda: {"readings": as_array(readings(prompt, vocabulary, report=report))})["readings"])


def clusters_of(
    prompts: Sequence[SoftPrompt], vocabulary: Vocabulary, *, method: Method = "hdbscan", space: Space = "position", tasks: Mapping[str, str] | None = None,
    report: Report = no_report,
) -> Clustering:  # fmt: skip
    """What `clusters.find_clusters` finds; among prompts that all ship, kept. Errors as there."""

    def find() -> Clustering:
        return find_clusters(prompts, vocabulary, method=method, space=space, tasks=tasks, report=report)

    kept = _kept(f"clusters-{method}-{space}", prompts, vocabulary, sorted((tasks or {}).items()))
    if kept is None:
        return find()
    made = kept.get(lambda: _as_arrays(find()))
    return Clustering(as_table(made["clusters"]), as_table(made["members"]), as_table(made["agreement"]), made["points"])


def places_of(prompts: Sequence[SoftPrompt], on: VocabularyMap, vocabulary: Vocabulary, *, space: Space = "position") -> Placed:
    """Where the tokens of prompts stand on a map, as `projection.placed` of all their points; of those that ship, kept. Errors as `clusters.points_of`."""

    def place(some: Sequence[SoftPrompt]) -> Placed:
        return placed(np.concatenate([points_of(prompt, vocabulary, space) for prompt in some]), on, vocabulary)

    def vars_of(some: Sequence[SoftPrompt]) -> dict[str, np.ndarray]:
        return vars(place(some))

    digest = hashlib.sha256(on.places.tobytes()).hexdigest()
    files = [_kept(f"places-{on.projection}-{on.dimensions}d-{space}", [prompt], vocabulary, digest) for prompt in prompts]
    others = [prompt for prompt, file in zip(prompts, files, strict=True) if file is None]
    rest = iter(_split(place(others), list(map(len, others))) if others else [])
    each = [
        next(rest) if file is None else Placed(**file.get(functools.partial(vars_of, [prompt])))
        for prompt, file in zip(prompts, files, strict=True)
    ]
    return Placed(*(np.concatenate([vars(part)[name] for part in each]) for name in ("places", "near", "scores", "kept")))


def _split(at: Placed, lengths: list[int]) -> list[Placed]:
    """The parts of so many vectors each."""
    ends = np.cumsum(lengths)[:-1]
    return [Placed(*part) for part in zip(*(np.split(array, ends) for array in (at.places, at.near, at.scores, at.kept)), strict=True)]


def read_all(vocabulary: Vocabulary, *, report: Report = no_report) -> None:
    """Read every prompt that ships and was trained on this vocabulary's model, with its twins, and look for the clusters of each task's: what the pages show first is then at hand."""
    found = [each for each in map(_prompt_in, sorted(GALLERY.iterdir())) if each is not None and each[0].base_model == vocabulary.model]
    if not found:
        return
    prompts, tasks = [prompt for prompt, _ in found], {prompt.name: task for prompt, task in found}
    each = [*prompts, *twins_of(prompts)]
    of_tasks = [[prompt for prompt in prompts if tasks[prompt.name] == task] for task in sorted(set(tasks.values()))]
    on = vocabulary_map(vocabulary, report=report)
    for i, prompt in enumerate(each):
        report(i / len(each), f"reading {prompt.name}")
        readings_of(prompt, vocabulary)
    places_of(prompts, on, vocabulary)
    for i, some in enumerate(of_tasks):
        clusters_of(
            some,
            vocabulary,
            tasks={prompt.name: tasks[prompt.name] for prompt in some},
            report=part(report, i, len(of_tasks), tasks[some[0].name]),
        )


def _prompt_in(folder: Path) -> tuple[SoftPrompt, str] | None:
    """The soft prompt of a run's folder and its task; None where there is none, or where it is damaged: whoever reads that one is told."""
    with suppress(InputError):
        task, adapter = read_description(folder)["config"]["task"], load_adapter(folder)
        return (adapter, task) if isinstance(adapter, SoftPrompt) else None
    return None


def _as_arrays(found: Clustering) -> dict[str, np.ndarray]:
    return {name: as_array(getattr(found, name)) for name in ("clusters", "members", "agreement")} | {"points": found.points}


def _kept(what: str, prompts: Sequence[SoftPrompt], vocabulary: Vocabulary, *beside: object) -> KeptArrays | None:
    """Where it is kept what was made of these prompts; None where one of them does not ship."""
    if not prompts or not all(prompt.source is not None and prompt.source.path.resolve().parent == GALLERY.resolve() for prompt in prompts):
        return None
    names = hashlib.sha256("\0".join(prompt.name for prompt in prompts).encode()).hexdigest()[:12]
    of = hashlib.sha256(f"{_code()} {vocabulary.digest} {beside!r}".encode())
    for prompt in prompts:
        of.update(repr((prompt.name, prompt.embeddings.shape, prompt.metadata)).encode())
        of.update(prompt.embeddings.tobytes() + (b"" if prompt.initial is None else prompt.initial.tobytes()))
    return KeptArrays(vocabulary.cache, f"shipped-{what}-{names}", of.hexdigest())


@functools.cache
def _code() -> str:
    """What tells this room's code from any other version of it: no figure of another one is taken for its own."""
    content = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()
