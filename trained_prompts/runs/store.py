"""Where runs live: the gallery that ships and the person's own folder. A run appears there whole or not at all.

A run is a folder in PEFT's own format with what the explorer wants to know beside it:

    adapter_config.json, adapter_model.safetensors   what PeftModel.from_pretrained reads; of full fine-tuning, the model as save_pretrained writes it
    initial.safetensors                              the values that training started from, (n, d) float32
    trajectory.safetensors                           steps (s,) and embeddings (s, n, d) float16, a snapshot every few steps
    losses.csv                                       step, loss, learning_rate, seconds, validation
    run.json                                         task, settings, seed, scores, norms, versions, the model file's sha256
    README.md                                        the same for a person

A file of somebody else's that the person keeps is a folder there as well, with the file's own bytes under a name of ours and

    kept.json                                        what it was called, its kind and when it was kept
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import AdapterError, load_adapter, recorded, run_file, upload
from soft_prompt_explorer.analysis.adapters.run_file import read_description
from soft_prompt_explorer.analysis.adapters.soft_prompt import DRAWN_TO_WORDS
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import GALLERY, appears_whole, remove_at_once, runs_folder
from soft_prompt_explorer.analysis.core.late import one_at_a_time
from soft_prompt_explorer.analysis.core.strange_files import DAMAGED, read_table
from soft_prompt_explorer.analysis.core.words import printable
from soft_prompt_explorer.analysis.models.names import resolve_model
from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
from soft_prompt_explorer.analysis.models.weights import model_sha256, prepare_model
from soft_prompt_explorer.analysis.tasks.task import Task
from soft_prompt_explorer.trained_prompts.runs.card import card_of
from soft_prompt_explorer.trained_prompts.runs.recording import LOSS_COLUMNS, NAME, Recording

_RUN_COLUMNS = [
    "name", "origin", "task", "model", "method", "tokens", "rank", "init", "readable", "steps", "seed", "measure", "no_prompt", "start", "score", "low",
    "high", "n", "trainable", "norm_ratio", "created", "path",
]  # fmt: skip
_VERSIONED = ("torch", "transformers", "peft", "numpy")


def check_name(name: str, folder: Path | None = None) -> Path:
    """The folder that a new run of that name will have.

    Raises
    ------
    InputError
        The name could not be a folder's, or is taken.
    """
    if NAME.fullmatch(name) is None:
        raise InputError(
            f"The name {name!r} cannot be used; a name has 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first."
        )
    folder = folder or runs_folder()
    for taken in {folder, GALLERY}:
        if (taken / name).exists():
            raise InputError(f"A run called {name} is already in {taken}; choose another name.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Runs cannot be kept in {folder}: {error.strerror or error}.") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"Runs cannot be kept in {folder}: it cannot be written to.")
    return folder / name


def save(recording: Recording, name: str, scores: pd.DataFrame, *, folder: Path | None = None) -> Path:
    """Write a run under `name`; its folder appears in the store whole or not at all.

    Parameters
    ----------
    scores : rows of `evaluation.evaluate` whose `prompt` is `no prompt`, `initial values` and `trained`, as far as known.

    Raises
    ------
    InputError
        The name is taken or no name of a folder, or no step was made.
    """
    from safetensors import SafetensorError

    path = check_name(name, folder)
    if recording.steps_done == 0:
        raise InputError("There is nothing to save yet: no step was made.")
    description = _describe(recording, name, scores)
    try:
        with appears_whole(path) as partial:
            _write(recording, description, partial)
    except FileExistsError as error:
        raise InputError(f"A run called {name} is already in {path.parent}; choose another name.") from error
    except (OSError, SafetensorError) as error:  # safetensors says so in its own way when a disk is full
        raise InputError(f"The run cannot be kept in {path.parent}: {getattr(error, 'strerror', None) or error}.") from error
    return path


def keep(files: Sequence[tuple[str, bytes]], name: str) -> Path:
    """Keep somebody's adapter under `name`, byte for byte as it was uploaded; it is read once more before it appears in the store.

    Parameters
    ----------
    files : (name, content) of the file or files, as `analysis.adapters.upload.load_uploaded` takes them.

    Raises
    ------
    InputError
        The name is taken or no name of a folder.
    AdapterError
        The files cannot be read.
    """
    path = check_name(name)
    try:
        with appears_whole(path) as partial:
            adapter = load_adapter(upload.place(files, partial), name=name)
            description = {
                "kind": adapter.kind,
                "format": adapter.read_from.format,
                "sha256": adapter.read_from.sha256,
                "files": [printable(file_name)[:200] for file_name, _ in files],
                "kept": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            (partial / "kept.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    except FileExistsError as error:
        raise InputError(f"A run called {name} is already in {path.parent}; choose another name.") from error
    except OSError as error:
        raise InputError(f"The file cannot be kept in {path.parent}: {error.strerror or error}.") from error
    return path


def name_like(label: str) -> str:
    """A name that can be used here, like what a file was called and not yet taken."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", label).lstrip("._-")[:60] or "file"
    taken = {path.name for folder in (GALLERY, runs_folder()) if folder.is_dir() for path in folder.iterdir()}
    return next(candidate for i in range(len(taken) + 1) if (candidate := name if i == 0 else f"{name}-{i + 1}") not in taken)


def list_kept() -> pd.DataFrame:
    """One row for each kept file: name, kind, format, sha256, files (what they were called), kept (UTC)."""
    rows, _ = _described(runs_folder(), "kept.json", _kept_row)
    return pd.DataFrame(rows, columns=["name", "kind", "format", "sha256", "files", "kept"])


def _kept_row(path: Path) -> dict:
    kept = run_file.read_object(path)
    names = kept.get("files")
    kept["files"] = ", ".join(names) if isinstance(names, list) and all(map(run_file.is_text, names)) else None
    for field in ("kind", "format", "sha256", "files", "kept"):
        if not run_file.is_text(kept.get(field)):
            raise run_file.refusal(path, f"{field} is missing, or not what this version writes")
    return {"name": path.parent.name, **kept}


def left_out(folder: Path | None = None) -> dict[str, str]:
    """Why a run or a kept file of the person's own is in no list, by its folder's name: a sentence that says what to do.

    Parameters
    ----------
    folder : another folder of runs.
    """
    folder = folder or runs_folder()
    return _described(folder, "run.json", _row)[1] | _described(folder, "kept.json", _kept_row)[1]


def _described(folder: Path, file: str, row: Callable[[Path], dict]) -> tuple[list[dict], dict[str, str]]:
    """What `row` makes of that file in each folder here, and the sentences of those that it refuses, by the folder's name."""
    rows, refused = [], {}
    for path in sorted(folder.glob("[!.]*")):  # hidden ones are being written or deleted just now
        path /= file
        if not os.path.lexists(path):
            continue
        try:
            if NAME.fullmatch(path.parent.name) is None:
                raise run_file.refusal(path, "its folder has a name that no run has")
            rows.append(row(path))
        except InputError as error:
            refused[path.parent.name] = str(error)
    return rows, refused


def adapter_path(name: str) -> Path:
    """What `load_adapter` is given for a run or a kept file.

    Raises
    ------
    InputError
        Nothing of that name is in the store.
    """
    folder = find(name)
    return folder / "uploaded" if (folder / "uploaded").is_file() else folder


def delete(name: str) -> None:
    """Remove one of the person's own runs or kept files.

    Raises
    ------
    InputError
        There is no such run; the gallery's cannot be removed.
    """
    path = runs_folder() / name
    if NAME.fullmatch(name) is None or not any((path / file).is_file() for file in ("run.json", "kept.json")):
        raise InputError(f"There is no run called {name} in {runs_folder()}.")
    try:
        remove_at_once(path)
    except OSError as error:
        raise InputError(f"The run {name} cannot be deleted: {error.strerror or error}.") from error


def find(name: str) -> Path:
    """The folder of a run by its name; the person's own come before the gallery's.

    Raises
    ------
    InputError
    """
    if NAME.fullmatch(name):
        for folder in (runs_folder(), GALLERY):
            if any((folder / name / file).is_file() for file in ("adapter_config.json", "run.json", "kept.json")):
                return folder / name
    known = ", ".join([*list_runs()["name"], *list_kept()["name"]]) or "none yet"
    raise InputError(f"No prompt is called {name[:80]!r}; the prompts are {known}.")


def list_runs() -> pd.DataFrame:
    """One row a run, the gallery first.

    Columns: name, origin (gallery, yours), task, model, method, tokens and init (of prompts), rank (of a LoRA), readable (the pull towards words, 0 without), steps, seed,
    measure, no_prompt, start, score, low, high (the task's measure on held-out examples without a prompt, with the initial values, as trained, and its 95 % interval), n,
    trainable (parameters), norm_ratio (median norm of the virtual tokens over the vocabulary's), created, path.
    """
    return pd.concat([list_folder(GALLERY, "gallery"), list_folder(runs_folder(), "yours")], ignore_index=True)


def list_folder(folder: Path, origin: str) -> pd.DataFrame:
    """The rows of `list_runs` of the runs in one folder; what is none stands in `left_out`."""
    rows, _ = _described(folder, "run.json", _row)
    table = pd.DataFrame([{**row, "origin": origin} for row in rows], columns=_RUN_COLUMNS)
    whole, real = ("tokens", "rank", "steps", "n", "trainable"), ("readable", "no_prompt", "start", "score", "low", "high", "norm_ratio")
    return table.astype(dict.fromkeys(whole, "Int64") | dict.fromkeys(real, "float64"))


def gallery_markdown() -> str:
    """The tables of the prompts and the LoRAs that ship, as docs/findings.md holds them."""
    shipped = list_runs().query("origin == 'gallery'")
    lines = [
        "| prompt | task | tokens | initialised from | norm against the vocabulary | no prompt | start | trained | 95 % interval | n |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in shipped[shipped["method"] != "lora"].itertuples():
        init = row.init + (f", drawn to words (γ = {row.readable:g})" if row.readable else "")
        lines.append(
            f"| {row.name} | {row.task} | {row.tokens} | {init} | {row.norm_ratio:.1f} × | {row.no_prompt:.3f} | {row.start:.3f} | {row.score:.3f} "
            f"| {row.low:.3f} to {row.high:.3f} | {row.n} |"
        )
    lines += ["", "| LoRA | task | rank | without | trained | 95 % interval | n |", "|---|---|---|---|---|---|---|"]
    for row in shipped[shipped["method"] == "lora"].sort_values(["task", "rank"], ascending=[False, True]).itertuples():
        lines.append(
            f"| {row.name} | {row.task} | {row.rank} | {row.no_prompt:.3f} | {row.score:.3f} | {row.low:.3f} to {row.high:.3f} | {row.n} |"
        )
    return "\n".join(lines) + "\n"


def read_card(name: str) -> str:
    """The card of a run, Markdown, made from its run.json: the README.md in its folder may say whatever somebody wrote there.

    Raises
    ------
    InputError
        There is no run of that name, or its run.json is not what it should be.
    """
    return card_of(read_description(find(name)))


def read_losses(name: str) -> pd.DataFrame:
    """The losses of a run: step, loss, learning_rate, seconds, and validation where it was scored while it learned.

    Raises
    ------
    InputError
        Nothing of that name is in the store, or it has no losses that can be read.
    """
    path = find(name) / "losses.csv"
    try:
        table = read_table(path, most=recorded.MAX_TABLE_BYTES, rows=run_file.MAX_STEPS)
        columns = [column for column in LOSS_COLUMNS if column in table]  # without a score while it learned there is no validation
        if columns[:4] != LOSS_COLUMNS[:4] or table["step"].isna().any():
            raise ValueError("columns")
        return table[columns].astype({column: "int64" if column == "step" else "float64" for column in columns})
    except DAMAGED as error:
        raise InputError(f"The losses of {name} cannot be read; pick another run.") from error


def has_trajectory(name: str) -> bool:
    """Whether `read_trajectory` has something to read.

    Raises
    ------
    InputError
        Nothing of that name is in the store.
    """
    return (find(name) / recorded.TRAJECTORY).is_file()


def read_trajectory(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Where a run's virtual tokens were while it was trained: steps (s,) int64 and embeddings (s, n, d) float32.

    Raises
    ------
    InputError
        Nothing of that name is in the store, or how it was trained cannot be read.
    """
    try:
        return recorded.read_trajectory(find(name) / recorded.TRAJECTORY)
    except AdapterError as error:
        raise InputError(f"How {name} was trained cannot be read; pick another run, or train it again.") from error


def lacking(names: Sequence[str], read: Callable[[Path], object | None]) -> Iterator[tuple[int, str, Path, str]]:
    """The runs with which something is not kept yet: the place among `names`, name, folder and model of each.

    Parameters
    ----------
    read : answers what is kept in a folder, or None.

    Raises
    ------
    InputError
        There is no such run, or it does not say which model it was trained on.
    """
    for i, name in enumerate(names):
        folder = find(name)
        if read(folder) is not None:
            continue
        model = own_model(name)
        if model is None:
            raise InputError(f"The run {name} does not say which model it was trained on.")
        yield i, name, folder, model


def own_model(name: str) -> str | None:
    """The model that a run was trained on; None for a kept file, whose word is a stranger's.

    Raises
    ------
    InputError
        Nothing of that name is in the store.
    """
    path = find(name)
    return read_description(path)["model"]["name"] if (path / "run.json").is_file() else None


def _row(path: Path) -> dict:
    run = read_description(path.parent)
    config, scores = run["config"], run["scores"]
    trained = scores.get("trained", {})
    return {
        "name": path.parent.name,
        "task": config["task"],
        "model": run["model"]["name"],
        "method": config["method"],
        "tokens": config.get("tokens"),
        "rank": config.get("rank"),
        "init": config.get("init"),
        "readable": config.get("readable", 0.0),
        "steps": run["steps_done"],
        "seed": config["seed"],
        "measure": trained.get("measure"),
        "no_prompt": scores.get("no prompt", {}).get("score"),
        "start": scores.get("initial values", {}).get("score"),
        "score": trained.get("score"),
        "low": trained.get("low"),
        "high": trained.get("high"),
        "n": trained.get("n"),
        "trainable": run.get("trainable_parameters"),
        "norm_ratio": run["norms"]["median"] / run["norms"]["vocabulary_median"] if run.get("norms") else None,
        "created": run["created"],
        "path": str(path.parent),
    }


def _describe(recording: Recording, name: str, scores: pd.DataFrame) -> dict:
    config = recording.config
    wanted = ["n", "measure", "score", "low", "high", "loss"]
    by_prompt = scores.set_index("prompt").astype(object)
    return {
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config.described() | {"model": _lasting(config.model)},
        "asked": asked_of(config.asked_task()),
        "steps_done": recording.steps_done,
        "seconds_training": round(recording.last_step.seconds, 1),
        "kept_step": recording.kept.step,
        "trainable_parameters": recording.last_step.trainable,
        "peak_memory_bytes": recording.peak_memory,
        "scores": {prompt: by_prompt.loc[prompt, wanted].to_dict() for prompt in by_prompt.index},
        **_norms(recording),
        **({"computed_in": recording.computed_in} if recording.computed_in else {}),
        "model": {"name": _lasting(config.model), "sha256": model_sha256(config.model)},
        "versions": {"python": platform.python_version()} | {package: importlib.metadata.version(package) for package in _VERSIONED},
    }


def asked_of(task: Task) -> dict:
    """How a run is trained and asked, as its run.json tells it."""
    return {"template": task.template, "first_example": task.first_example()}


def _norms(recording: Recording) -> dict:
    if recording.embeddings is None or recording.initial is None:
        return {}
    vocabulary = load_vocabulary(recording.config.model)
    norms = {
        "median": float(np.median(np.linalg.norm(recording.embeddings, axis=1))),
        "initial_median": float(np.median(np.linalg.norm(recording.initial, axis=1))),
        "vocabulary_median": vocabulary.median_norm,
    }
    return {"norms": norms}


def _lasting(model: str) -> str:
    """A model's name that still names it from another folder."""
    kind = resolve_model(model).kind
    return str(Path(model).expanduser().resolve()) if kind in ("folder", "gguf") else model


def _write(recording: Recording, description: dict, folder: Path) -> None:
    config = recording.config
    if config.method == "full":
        with one_at_a_time():
            from transformers import AutoTokenizer

        recording.model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(prepare_model(config.model), trust_remote_code=False).save_pretrained(folder)
    else:
        _write_adapter(recording, folder)
    if recording.initial is not None:
        _save({"initial": recording.initial}, folder / "initial.safetensors")
        steps, embeddings = recording.trajectory()
        _save({"steps": steps, "embeddings": embeddings}, folder / "trajectory.safetensors")
    losses = recording.losses().dropna(axis=1, how="all")
    losses.to_csv(folder / "losses.csv", index=False, lineterminator="\n")
    (folder / "run.json").write_text(json.dumps(_in_json(description), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card_of(description), encoding="utf-8")


def _in_json(value):
    """The same with what JSON has no number for as text, inf or nan."""
    if isinstance(value, dict):
        return {name: _in_json(part) for name, part in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _write_adapter(recording: Recording, folder: Path) -> None:
    """What PEFT's own save_pretrained writes. Its field for the initialisation is left out, since a later training run would look for a tokenizer."""
    with one_at_a_time():
        from transformers import AutoConfig

    config = recording.config
    weights = recording.weights or {}
    if config.method == "lora":
        from soft_prompt_explorer.trained_prompts.training import lora

        peft_config = lora.config_of(config)
    else:
        from soft_prompt_explorer.analysis.asking.in_front import prompt_config

        model_config = AutoConfig.from_pretrained(prepare_model(config.model), trust_remote_code=False)
        peft_config = prompt_config(config.method, config.tokens, model_config)
        if recording.embeddings is not None:
            weights = {"prompt_embeddings": recording.embeddings}
    peft_config.base_model_name_or_path, peft_config.inference_mode = _lasting(config.model), True
    peft_config.save_pretrained(str(folder))
    drawn = {DRAWN_TO_WORDS: f"{config.readable:g}"} if config.readable else None
    _save(weights, folder / "adapter_model.safetensors", drawn)


def _save(arrays: dict[str, np.ndarray], path: Path, metadata: dict[str, str] | None = None) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, path, metadata)
