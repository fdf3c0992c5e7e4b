"""Where a table, a report or a figure comes from: the version, the command, the models and files that were read with their digests, the seed, the date.

What reads a file or a model says so here (`file_read`, `model_read`) to the log of whoever asked, if there is one: a command line has one for its process, the
dashboard one for each session's page. A log that is kept says the same of a table however it was made.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KEY = "provenance"  # under which a file's own metadata hold it
BESIDE = ".provenance.json"  # the ending of the file beside one that cannot hold it
Digest = Callable[[], Mapping[str, str | None]]


@dataclass
class Log:
    """What was read so far: digests of files by their names, and of models what answers theirs, which may take a while; and of models that were run, in what."""

    files: dict[tuple[str, str], None] = field(default_factory=dict)
    models: dict[str, Digest] = field(default_factory=dict)
    computed: dict[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """Where something comes from.

    Attributes
    ----------
    command : as it was typed; `dashboard` of what a page made.
    files : (name, sha256) of each file, without the folders that it lay in.
    models : what answers `sha256` (of the weights) or `commit` (of a model of the hub), by the model's name.
    computed : of the models that were run, the `dtype` and the `device` that they computed in.
    seed : that a person chose; None where none could be chosen.
    """

    command: str
    files: tuple[tuple[str, str], ...] = ()
    models: Mapping[str, Digest] = field(default_factory=dict)
    seed: int | None = None
    computed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """What is written down: version, command, date (UTC, of now), models, files, seed."""
        from soft_prompt_explorer import __version__

        return {
            "version": __version__,
            "command": self.command,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "models": [{"name": name, **digest(), **self.computed.get(name, {})} for name, digest in self.models.items()],
            "files": [{"name": name, "sha256": sha256} for name, sha256 in self.files],
            "seed": self.seed,
        }

    def as_json(self) -> str:
        """`told` on one line, of ASCII alone."""
        return json.dumps(self.told())

    def as_file(self) -> bytes:
        """`told` as a file that lies beside another."""
        return (json.dumps(self.told(), ensure_ascii=False, indent=1) + "\n").encode("utf-8")


_find: Callable[[], Log | None] = lambda: None  # noqa: E731 - nobody asked for a log


def keep(find: Callable[[], Log | None]) -> None:
    """From now on what is read is said to the log that `find` answers, where it answers one."""
    global _find
    _find = find


def log() -> Log | None:
    """The log of whoever asks."""
    return _find()


def say_again(read: Log) -> None:
    """Say all that a log of before holds."""
    if (kept := _find()) is not None:
        kept.files |= read.files
        kept.models |= read.models
        kept.computed |= read.computed


@contextmanager
def own_log() -> Iterator[Log]:
    """As long as the block lasts, what is read is said to a log of its own."""
    before, own = _find, Log()
    keep(lambda: own)
    try:
        yield own
    finally:
        keep(before)


def file_read(name: str, sha256: str) -> None:
    """Say that a file was read."""
    if (kept := _find()) is not None:
        kept.files[(name, sha256)] = None


def model_read(name: str, digest: Digest) -> None:
    """Say that a model, or its vocabulary, was read."""
    if (kept := _find()) is not None:
        kept.models[name] = digest


def model_computed(name: str, *, dtype: str, device: str) -> None:
    """Say that a model was loaded to be run, and in what."""
    if (kept := _find()) is not None:
        kept.computed[name] = {"dtype": dtype, "device": device}


def made_by(command: str, *, seed: int | None = None) -> Provenance:
    """The provenance of what is made now from all that the log holds."""
    kept = _find() or Log()
    return Provenance(command, tuple(kept.files), dict(kept.models), seed, dict(kept.computed))


def typed_command() -> str:
    """The command line of this process, as a person would type it again: `spe readings PATH`."""
    import shlex

    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    caller = Path(sys.argv[0]).name if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"
    return f"{caller} {shlex.join(sys.argv[1:])}".strip()
