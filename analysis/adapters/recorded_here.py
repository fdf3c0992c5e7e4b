"""Which model the trainings learned on that were recorded on this machine: noted among the person's own runs, for what lies in a run's folder may be anybody's word."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import read_json_object, runs_folder, write_whole


def note(folder: Path, model: str | None) -> None:
    """Note that a training is recorded into a folder, where its model is a folder of this machine. Where that cannot be kept, the model has to be named later on."""
    path = _note_of(folder.resolve())
    with suppress(OSError, ValueError):
        if model is None or not Path(model).is_dir():
            path.unlink(missing_ok=True)  # of another training
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"folder": str(folder.resolve()), "named": model, "model": str(Path(model).resolve())}).encode())


def noted_model(path: Path, named: str | None) -> str | None:
    """The folder of the model that an adapter names, where it lies in the folder of a training that was recorded here on that very model; else None."""
    if named is None:
        return None
    whole = path.resolve()
    for folder in (whole, *whole.parents[:2]):  # the folder itself, a checkpoint in it, and what lies in that
        try:
            told = read_json_object(_note_of(folder), InputError)
        except (InputError, OSError):
            continue
        model = told.get("model")
        if told.get("named") == named and isinstance(model, str) and Path(model).is_dir():
            return model
    return None


def _note_of(folder: Path) -> Path:
    return runs_folder() / ".recorded" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.json"
