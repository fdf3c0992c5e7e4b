"""Where runs live: the gallery that ships and the person's own folder. A run appears there whole or not at all.

A run is a folder in PEFT's own format with what the explorer wants to know beside it:

    adapter_config.json, adapter_model.safetensors   what PeftModel.from_pretrained reads
    initial.safetensors                              the values that training started from, (n, d) float32
    trajectory.safetensors                           steps (s,) and embeddings (s, n, d) float16, a snapshot every few steps
    losses.csv                                       step, loss, learning_rate, seconds
    run.json                                         task, settings, seed, scores, norms, versions, the model file's sha256
    README.md                                        the same for a person

A file of somebody else's that the person keeps is a folder there as well, with the file's own bytes under a name of ours and

    kept.json                                        what it was called, its kind and when it was kept
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shlex
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import platformdirs

from analysis.adapters import load_adapter, upload
from analysis.errors import InputError, printable
from analysis.folders import APP_NAME, appears_whole
from analysis.models import model_sha256, prepare_model, resolve_model
from analysis.vocabulary import load_vocabulary
from trained_prompts.trainer import TrainingConfig, TrainingStep

GALLERY = Path(__file__).parent / "gallery"
SNAPSHOTS = 40  # about as many as a run keeps, whatever its length
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSIONED = ("torch", "transformers", "peft", "numpy")


def runs_folder() -> Path:
    """The folder of the person's own runs; `SOFT_PROMPT_EXPLORER_RUNS` names another one."""
    override = os.environ.get("SOFT_PROMPT_EXPLORER_RUNS")
    return Path(override) if override else platformdirs.user_data_path(APP_NAME) / "runs"


class Recording:
    """What a run leaves behind, gathered step by step and written by `save`. Memory does not grow with the embeddings of every step."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.last: TrainingStep | None = None
        self._losses: list[tuple[int, float, float, float]] = []
        self._every = max(1, config.steps // SNAPSHOTS)
        self._snapshots: dict[int, np.ndarray] = {}

    def add(self, step: TrainingStep) -> None:
        if self.last is None:
            self.initial = step.embeddings
        else:
            self._losses.append((step.step, step.loss, step.learning_rate, step.seconds))
        if step.embeddings is not None and step.step % self._every == 0:
            self._snapshots[step.step] = step.embeddings.astype(np.float16)
        self.last = step

    @property
    def embeddings(self) -> np.ndarray | None:
        """(n, d) float32, the virtual tokens as they are now; None for LoRA."""
        return self.last.embeddings

    @property
    def weights(self) -> dict[str, np.ndarray] | None:
        """The factors of a LoRA as they are now, float16 as they are kept and scored; None for a prompt."""
        if self.last.weights is None:
            return None
        return {name: array.astype(np.float16) for name, array in self.last.weights.items()}

    @property
    def steps_done(self) -> int:
        return 0 if self.last is None else self.last.step

    def losses(self) -> pd.DataFrame:
        """One row a step from step 1: step, loss, learning_rate, seconds."""
        return pd.DataFrame(self._losses, columns=["step", "loss", "learning_rate", "seconds"])

    def trajectory(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps (s,) int64 and embeddings (s, n, d) float16; the last step is always among them."""
        snapshots = self._snapshots | {self.steps_done: self.embeddings.astype(np.float16)}
        return np.array(list(snapshots), dtype=np.int64), np.stack(list(snapshots.values()))


def check_name(name: str, folder: Path | None = None) -> Path:
    """The folder that a new run of that name will have.

    Raises
    ------
    InputError
        The name could not be a folder's, or is taken.
    """
    if _NAME.fullmatch(name) is None:
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
    path = check_name(name, folder)
    if recording.steps_done == 0:
        raise InputError("There is nothing to save yet: no step was made.")
    description = _describe(recording, name, scores)
    try:
        with appears_whole(path) as partial:
            _write(recording, description, partial)
    except FileExistsError as error:
        raise InputError(f"A run called {name} is already in {path.parent}; choose another name.") from error
    except OSError as error:
        raise InputError(f"The run cannot be kept in {path.parent}: {error.strerror or error}.") from error
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
                "format": adapter.source.format,
                "sha256": adapter.source.sha256,
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
    rows = []
    for path in sorted(runs_folder().glob("*/kept.json")):
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            rows.append({"name": path.parent.name, **description, "files": ", ".join(description["files"])})
        except (ValueError, KeyError, TypeError, OSError):
            continue
    return pd.DataFrame(rows, columns=["name", "kind", "format", "sha256", "files", "kept"])


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
    if _NAME.fullmatch(name) is None or not any((path / file).is_file() for file in ("run.json", "kept.json")):
        raise InputError(f"There is no run called {name} in {runs_folder()}.")
    try:
        gone = path.rename(path.with_name(f".partial-{name}-{os.getpid()}"))  # at once for everybody; then the files
        shutil.rmtree(gone)
    except OSError as error:
        raise InputError(f"The run {name} cannot be deleted: {error.strerror or error}.") from error


def find(name: str) -> Path:
    """The folder of a run by its name; the person's own come before the gallery's.

    Raises
    ------
    InputError
    """
    if _NAME.fullmatch(name):
        for folder in (runs_folder(), GALLERY):
            if (folder / name / "adapter_config.json").is_file() or (folder / name / "kept.json").is_file():
                return folder / name
    known = ", ".join([*list_runs()["name"], *list_kept()["name"]]) or "none yet"
    raise InputError(f"No prompt is called {name[:80]!r}; the prompts are {known}.")


def list_runs() -> pd.DataFrame:
    """One row a run, the gallery first.

    Columns: name, origin (gallery, yours), task, model, method (prompt-tuning, lora), tokens and init (of a prompt), rank (of a LoRA), steps, seed, no_prompt, start, accuracy, low, high (held-out
    accuracy without a prompt, with the initial values, with the trained ones, and its 95 % interval), n, norm_ratio (median norm of the virtual tokens over the vocabulary's), created, path.
    """
    rows = []
    for origin, folder in (("gallery", GALLERY), ("yours", runs_folder())):
        for path in sorted(folder.glob("*/run.json")):
            if _NAME.fullmatch(path.parent.name) is None:
                continue  # being written or deleted just now
            try:
                rows.append(_row(origin, path))
            except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, OSError):
                continue  # not written by this program, or by a newer one: the file can still be opened by its path
    columns = [
        "name",
        "origin",
        "task",
        "model",
        "method",
        "tokens",
        "rank",
        "init",
        "steps",
        "seed",
        "no_prompt",
        "start",
        "accuracy",
        "low",
        "high",
        "n",
        "norm_ratio",
        "created",
        "path",
    ]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"tokens": "Int64", "rank": "Int64", "norm_ratio": "float64", "start": "float64"})


def gallery_markdown() -> str:
    """The tables of the prompts and the LoRAs that ship, as README.md holds them."""
    shipped = list_runs().query("origin == 'gallery'")
    lines = [
        "| prompt | task | initialised from | norm against the vocabulary | no prompt | start | trained | 95 % interval | n |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in shipped[shipped["method"] != "lora"].itertuples():
        lines.append(
            f"| {row.name} | {row.task} | {row.init} | {row.norm_ratio:.1f} × | {row.no_prompt:.3f} | {row.start:.3f} | {row.accuracy:.3f} "
            f"| {row.low:.3f} to {row.high:.3f} | {row.n} |"
        )
    lines += ["", "| LoRA | task | rank | without | trained | 95 % interval | n |", "|---|---|---|---|---|---|---|"]
    for row in shipped[shipped["method"] == "lora"].sort_values(["task", "rank"], ascending=[False, True]).itertuples():
        lines.append(
            f"| {row.name} | {row.task} | {row.rank} | {row.no_prompt:.3f} | {row.accuracy:.3f} | {row.low:.3f} to {row.high:.3f} | {row.n} |"
        )
    return "\n".join(lines) + "\n"


def read_card(name: str) -> str:
    """The README.md of a run, Markdown; a sentence where there is none.

    Raises
    ------
    InputError
        There is no run of that name.
    """
    try:
        return (find(name) / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "This run has no card."


def read_description(path: Path) -> dict:
    """The run.json of a run's folder."""
    return json.loads((path / "run.json").read_text(encoding="utf-8"))


def has_trajectory(name: str) -> bool:
    """Whether `read_trajectory` has something to read.

    Raises
    ------
    InputError
        Nothing of that name is in the store.
    """
    return (find(name) / "trajectory.safetensors").is_file()


def read_trajectory(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Where a run's virtual tokens were while it was trained: steps (s,) int64 and embeddings (s, n, d) float32.

    Raises
    ------
    InputError
        Nothing of that name is in the store.
    """
    from safetensors.numpy import load_file

    kept = load_file(find(name) / "trajectory.safetensors")
    return kept["steps"], kept["embeddings"].astype(np.float32)


def own_model(name: str) -> str | None:
    """The model that a run was trained on; None for a kept file, whose word is a stranger's.

    Raises
    ------
    InputError
        Nothing of that name is in the store.
    """
    path = find(name)
    return read_description(path)["model"]["name"] if (path / "run.json").is_file() else None


def _row(origin: str, path: Path) -> dict:
    run = json.loads(path.read_text(encoding="utf-8"))
    scores = run["scores"]
    trained = scores.get("trained", {})
    lora = _is_lora(run["config"])
    return {
        "name": path.parent.name,
        "origin": origin,
        "task": run["config"]["task"],
        "model": run["model"]["name"],
        "method": run["config"].get("method", "prompt-tuning"),
        "tokens": None if lora else run["config"]["tokens"],
        "rank": run["config"]["rank"] if lora else None,
        "init": None if lora else run["config"]["init"],
        "steps": run["steps_done"],
        "seed": run["config"]["seed"],
        "no_prompt": scores.get("no prompt", {}).get("accuracy"),
        "start": scores.get("initial values", {}).get("accuracy"),
        "accuracy": trained.get("accuracy"),
        "low": trained.get("low"),
        "high": trained.get("high"),
        "n": trained.get("n"),
        "norm_ratio": None if lora else run["norms"]["median"] / run["norms"]["vocabulary_median"],
        "created": run["created"],
        "path": str(path.parent),
    }


def _is_lora(config: dict) -> bool:
    return config.get("method") == "lora"


def _describe(recording: Recording, name: str, scores: pd.DataFrame) -> dict:
    config = recording.config
    wanted = ["n", "accuracy", "low", "high", "loss"]
    by_prompt = scores.set_index("prompt")
    return {
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config.described() | {"model": _lasting(config.model)},
        "steps_done": recording.steps_done,
        "seconds_training": round(recording.last.seconds, 1),
        "scores": {prompt: {key: by_prompt.loc[prompt, key].item() for key in wanted} for prompt in by_prompt.index},
        **_norms(recording),
        "model": {"name": _lasting(config.model), "sha256": model_sha256(config.model)},
        "versions": {"python": platform.python_version()} | {package: importlib.metadata.version(package) for package in _VERSIONED},
    }


def _norms(recording: Recording) -> dict:
    if recording.embeddings is None:
        return {}
    norms = {
        "median": float(np.median(np.linalg.norm(recording.embeddings, axis=1))),
        "initial_median": float(np.median(np.linalg.norm(recording.initial, axis=1))),
        "vocabulary_median": load_vocabulary(recording.config.model).median_norm,
    }
    return {"norms": norms}


def _lasting(model: str) -> str:
    """A model's name that still names it from another folder."""
    kind = resolve_model(model).kind
    return str(Path(model).expanduser().resolve()) if kind in ("folder", "gguf") else model


def _write(recording: Recording, description: dict, folder: Path) -> None:
    from safetensors.numpy import save_file

    if recording.config.method == "lora":
        from trained_prompts import lora

        lora_config = lora.config_of(recording.config)
        lora_config.base_model_name_or_path, lora_config.inference_mode = _lasting(recording.config.model), True
        lora_config.save_pretrained(folder)
        save_file(recording.weights, folder / "adapter_model.safetensors")
    else:
        _write_prompt(recording, folder)
    recording.losses().to_csv(folder / "losses.csv", index=False, lineterminator="\n")
    (folder / "run.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(description), encoding="utf-8")


def _write_prompt(recording: Recording, folder: Path) -> None:
    from peft import PromptTuningConfig, TaskType
    from safetensors.numpy import save_file
    from transformers import AutoConfig

    config = recording.config
    n, width = recording.embeddings.shape
    model_config = AutoConfig.from_pretrained(prepare_model(config.model), trust_remote_code=False).get_text_config()
    # What PeftModel.save_pretrained writes for a prompt. PEFT's own field for the initialisation would make a later training run
    # look for a tokenizer; what training really started from is in initial.safetensors.
    PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM, base_model_name_or_path=_lasting(config.model), inference_mode=True,
        num_virtual_tokens=n, token_dim=width, num_transformer_submodules=1,
        num_layers=model_config.num_hidden_layers, num_attention_heads=model_config.num_attention_heads,
    ).save_pretrained(folder)  # fmt: skip
    save_file({"prompt_embeddings": recording.embeddings}, folder / "adapter_model.safetensors")
    save_file({"initial": recording.initial}, folder / "initial.safetensors")
    steps, embeddings = recording.trajectory()
    save_file({"steps": steps, "embeddings": embeddings}, folder / "trajectory.safetensors")


def _card(run: dict) -> str:
    config = run["config"]
    of_method = (
        {"method": "lora", "rank": config["rank"], "alpha": config["alpha"], "targets": ",".join(config["targets"])}
        if _is_lora(config)
        else {"tokens": config["tokens"], "init": config["init"], "init-text": config["init_text"]}
    )
    options = {
        "task": config["task"], "model": config["model"], **of_method, "steps": config["steps"], "batch-size": config["batch_size"],
        "learning-rate": config["learning_rate"], "seed": config["seed"], "name": run["name"],
    }  # fmt: skip
    words = [word for key, value in options.items() if value is not None for word in (f"--{key}", str(value))]
    if config.get("rslora"):
        words.append("--rslora")
    command = shlex.join(["python", "-m", "trained_prompts", "train", *words])
    what = f"LoRA of rank {config['rank']}" if _is_lora(config) else f"soft prompt of {config['tokens']} virtual tokens"
    lines = [
        f"# {run['name']}",
        "",
        f"A {what} for {run['model']['name']}, trained on the task *{config['task']}*"
        f" for {run['steps_done']} of {config['steps']} steps in {run['seconds_training']:.0f} s on {run['created'][:10]}.",
        "",
        "| held-out | accuracy | 95 % interval | loss | n |",
        "|---|---|---|---|---|",
    ]
    for prompt, score in run["scores"].items():
        lines.append(
            f"| {prompt} | {score['accuracy']:.3f} | {score['low']:.3f} to {score['high']:.3f} | {score['loss']:.3f} | {score['n']} |"
        )
    versions = ", ".join(f"{package} {version}" for package, version in run["versions"].items())
    lines += ["", f"    {command}", "", f"Made with {versions}; model file sha256 `{run['model']['sha256'][:16]}…`.", ""]
    return "\n".join(lines)
