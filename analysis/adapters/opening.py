"""Opening what a person gave, a file, a folder or a zip, as tensors and the words beside them. What they mean, the readers say."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from soft_prompt_explorer.analysis.adapters import (
    foreign_config,
    gguf_lora_file,
    npy_file,
    safetensors_file,
    tar_file,
    torch_file,
    zip_file,
)
from soft_prompt_explorer.analysis.adapters.foreign_config import MAX_JSON, read_json
from soft_prompt_explorer.analysis.adapters.soft_prompt import Source, prompt_rows
from soft_prompt_explorer.analysis.adapters.tensors import Entry, Tensors
from soft_prompt_explorer.analysis.core.errors import AdapterError, ModelError
from soft_prompt_explorer.analysis.core.remedies import MODEL

CONFIG, INITIAL = "adapter_config.json", "initial.safetensors"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
HALVES = ("encoder.pt", "decoder.pt")  # the two files that IBM's text-generation-inference writes
KOBOLD = ("tensor.npy", "meta.json")
NEMO = "model_weights.ckpt"  # in a .nemo

ENDINGS = (
    ".safetensors",
    ".npy",
    ".npz",
    ".gguf",
    ".pt",
    ".pth",
    ".bin",
    ".ckpt",
    ".zip",
    ".nemo",
    ".p",
)  # of files that may hold an adapter

FORMATS = (npy_file, safetensors_file, torch_file, gguf_lora_file)  # asked in this order
_LFS = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, eq=False)
class Opened:
    """What was given.

    Attributes
    ----------
    path : the file or folder.
    tensors : of its one file; where there are halves, of the first.
    halves : the tensors of `encoder` and `decoder` where those are files of their own.
    config : the content of adapter_config.json, or None.
    metadata : what other files beside say of it.
    initial : the tensors of initial.safetensors, or None.
    container : in words, for instance `folder`; empty for a file.
    """

    path: Path
    tensors: Tensors
    halves: Mapping[str, Tensors] = field(default_factory=dict)
    config: dict | None = None
    metadata: dict = field(default_factory=dict)
    initial: Tensors | None = None
    container: str = ""

    def with_entries(self, entries: dict[str, Entry]) -> Opened:
        """The same with other tensors of the same file."""
        tensors = replace(self.tensors, entries=entries)
        if "sha256" in self.tensors.__dict__:  # of a file in a zip, which is gone
            tensors.__dict__["sha256"] = self.tensors.sha256
        return replace(self, tensors=tensors)

    def initial_rows(self, shape: tuple[int, ...]) -> np.ndarray | None:
        """The values that training started from, (n, d) float32 as the prompt's own; None where none lie beside it.

        Raises
        ------
        AdapterError
            Those beside it are of another prompt.
        """
        if self.initial is None:
            return None
        if "initial" not in self.initial or self.initial.entries["initial"].shape != shape:
            raise AdapterError(
                f"The file {self.initial.path} ({INITIAL}) does not hold initial values of the shape {shape}; take it away, or put the run's own in its place."
            )
        return prompt_rows(self.initial, "initial", what="initial values")

    def source(self, tensor: str, *, kind: str = "") -> Source:
        """The source of what is read from a named tensor of the one file; `kind` leads the format's words."""
        place = f"{self.tensors.format} in a {self.container}" if self.container else self.tensors.format
        if self.config is not None:
            place = f"PEFT {self.container}, {self.tensors.format}" if self.container else f"PEFT, {self.tensors.format}"
        dtype = self.tensors.entries[tensor].dtype
        return Source(self.path, f"{kind}, {place}" if kind else place, self.tensors.sha256, dtype, len(self.tensors), self.tensors.checks)


def open_adapter(path: Path) -> Opened:
    """Open a file, a folder or a zip.

    Raises
    ------
    AdapterError
        It is none of the known formats, or damaged.
    """
    if path.is_dir():
        return _open_folder(path)
    reader = format_of(path)
    if reader is not None:
        tensors = reader.read(path)
        beside, said = path.parent / CONFIG, _said_beside(path)
        # The weights of a PEFT folder, given by their own name: the config says what they are.
        config = _config(beside) if path.name in WEIGHTS and beside.is_file() and not said else None
        initial = _initial(path.parent) if config or _is_alone(path) else None
        return Opened(path, tensors, config=config, metadata=said, initial=initial)
    if zip_file.reads(path):
        with tempfile.TemporaryDirectory() as unpacked:  # the files stay mapped after the folder is gone
            zip_file.unpack(path, Path(unpacked))
            try:
                opened = _arrays(Path(unpacked)) or _open_folder(Path(unpacked))
            except AdapterError as error:
                raise AdapterError(str(error).replace(f"folder {unpacked}", f"zip {path}").replace(unpacked, str(path))) from error
            return _of_container(replace(opened, container="zip", metadata=opened.metadata | _said_beside(path)), path)
    if tar_file.reads(path):
        with tempfile.TemporaryDirectory() as unpacked:
            target = Path(unpacked) / NEMO
            if tar_file.unpack_one(path, NEMO, target):
                return _of_container(replace(_read_inside(target, path), container="tar"), path)
    raise AdapterError(_unknown(path))


def _read_inside(target: Path, path: Path) -> Opened:
    """What is in a file that was unpacked; a refusal names what it came of."""
    try:
        return Opened(target, _known_file(target))
    except AdapterError as error:
        raise AdapterError(str(error).replace(str(target), f"{path} ({target.name})")) from error


def _of_container(opened: Opened, path: Path) -> Opened:
    """The same, under the path of what it was unpacked from."""
    for tensors in (opened.tensors, *opened.halves.values()):
        _ = tensors.sha256  # while the file is there
    return replace(opened, path=path)


def format_of(path: Path) -> ModuleType | None:
    """The module that reads a file with such a content, or None where it is of no known format."""
    return next((reader for reader in FORMATS if reader.reads(path)), None)


def _config(path: Path) -> dict:
    """PEFT's adapter_config.json.

    Raises
    ------
    AdapterError
        It is another package's.
    """
    config = read_json(path)
    if "peft_type" in config:
        return config
    raise AdapterError(f"The file {path} names no peft_type, so it is not PEFT's; give the file with the tensors by its own name.")


def _open_folder(folder: Path) -> Opened:
    said = foreign_config.read(folder / CONFIG) if (folder / CONFIG).is_file() else None
    if said is not None:
        weights = next((folder / name for name in foreign_config.WEIGHTS if (folder / name).is_file()), None)
        if weights is None:
            raise AdapterError(
                f"The folder {folder} holds {CONFIG} but no {' or '.join(foreign_config.WEIGHTS[:2])}; put the file beside it."
            )
        if zip_file.reads(weights) and format_of(weights) is None:  # MLX's of before it wrote safetensors
            return replace(open_adapter(weights), path=folder, container="folder")
        return Opened(folder, _known_file(weights), metadata=said, container="folder")
    config = _config(folder / CONFIG) if (folder / CONFIG).is_file() else None
    for name in WEIGHTS:
        if (folder / name).is_file():
            return Opened(folder, _known_file(folder / name), config=config, initial=_initial(folder), container="folder")
    if config is not None:
        raise AdapterError(
            f"The folder {folder} holds {CONFIG} but no {' or '.join(WEIGHTS)}; put the file beside it, or save the adapter again with save_pretrained."
        )
    halves = {name.partition(".")[0]: _known_file(folder / name) for name in HALVES if (folder / name).is_file()}
    if halves:
        return Opened(folder, next(iter(halves.values())), halves=halves, container="folder")
    tensor, meta = (folder / name for name in KOBOLD)
    if tensor.is_file() and meta.is_file():
        return Opened(folder, _known_file(tensor), metadata=read_json(meta), container="folder")
    known = {path: reader for path in _files(folder) if path.name != INITIAL and (reader := format_of(path)) is not None}
    if len(known) == 1:
        ((path, reader),) = known.items()
        return Opened(folder, reader.read(path), initial=_initial(folder), container="folder")
    if known:
        raise AdapterError(
            f"The folder {folder} holds {len(known)} files with tensors ({_listed(list(known))}) and no {CONFIG}; give one of them by its name."
        )
    inside = [path.parent for path in sorted(folder.glob(f"*/{CONFIG}"))[:3]]
    if inside:
        raise AdapterError(f"The folder {folder} holds no adapter itself but folders that do; give one of them: {_listed(inside)}.")
    pointers = [path for path in _files(folder) if _is_pointer(path)]
    if pointers:
        raise AdapterError(_pointer(pointers[0]))
    everything = sorted(folder.iterdir())
    raise AdapterError(
        f"The folder {folder} holds {_listed(everything) or 'nothing'}; a PEFT adapter's folder holds {CONFIG} and {WEIGHTS[0]}, "
        "and any other one file with tensors."
    )


def _arrays(folder: Path) -> Opened | None:
    """What `numpy.savez` wrote: several arrays and nothing else, each under its own name."""
    files = _files(folder)
    if len(files) < 2 or not all(path.suffix == ".npy" and npy_file.reads(path) for path in files):
        return None
    entries, digest = {}, hashlib.sha256()
    for path in files:
        tensors = npy_file.read(path)
        entries[path.stem] = tensors.entries[""]
        digest.update(bytes.fromhex(tensors.sha256))
    joined = Tensors(folder, "NumPy arrays", entries, checks=(("pickle", "none: arrays of plain numbers"),))
    joined.__dict__["sha256"] = digest.hexdigest()
    return Opened(folder, joined)


def _known_file(path: Path) -> Tensors:
    reader = format_of(path)
    if reader is None:
        raise AdapterError(_unknown(path))
    return reader.read(path)


def _initial(folder: Path) -> Tensors | None:
    path = folder / INITIAL
    return _known_file(path) if path.is_file() else None


def _said_beside(path: Path) -> dict:
    """What another package's config says beside a file of the name that it writes."""
    beside = path.parent / CONFIG
    return (foreign_config.read(beside) or {}) if path.name in foreign_config.WEIGHTS and beside.is_file() else {}


def _is_alone(path: Path) -> bool:
    """Whether no other file beside it could be an adapter, so that what lies there goes with this one."""
    return path.name != INITIAL and all(
        each.name in (path.name, INITIAL) or not each.name.endswith(ENDINGS) for each in _files(path.parent)
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _listed(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_LFS)) == _LFS


def _pointer(path: Path) -> str:
    return f"The file {path} is a Git LFS pointer and not the file itself; this is a pointer, run git lfs pull where it was cloned, or download it again."


def _unknown(path: Path) -> str:
    """Why a file of no known format is refused, as exactly as its content tells."""
    size = path.stat().st_size
    if size == 0:
        return f"The file {path} is empty; copy or download it again."
    if _is_pointer(path):
        return _pointer(path)
    with path.open("rb") as file:
        start = file.read(64)
    is_tar = tar_file.reads(path)
    if is_tar or start[:2] == b"\x1f\x8b":
        return (
            f"The file {path} is {'a tar archive, as NeMo packs its .nemo files' if is_tar else 'packed with gzip'}; unpack it ({'tar -xf' if is_tar else 'gunzip'}), "
            "and give the file with the tensors, model_weights.ckpt of NeMo."
        )
    if start[:4] == b"GGUF":
        return _unknown_gguf(path)
    if start.lstrip()[:1] in (b"{", b"["):
        return _unknown_json(path, size)
    return (
        f"The file {path} ({size:,} bytes, starting with {start[:16]!r}) is neither a NumPy array (.npy), safetensors, a file of torch.save nor a zip; "
        "save the prompt's (tokens × width) array with numpy.save, or give the PEFT folder."
    )


def _unknown_gguf(path: Path) -> str:
    from soft_prompt_explorer.analysis.models.gguf_file import GgufFile

    try:
        GgufFile(path)
    except ModelError as error:
        return str(error)
    return f"The file {path} is a model as GGUF and no adapter; name it {MODEL}, and give the prompt's own file."


def _unknown_json(path: Path, size: int) -> str:
    content = None
    if size <= 4 * MAX_JSON:
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return f"The file {path} starts like JSON and is not; copy or download it again."
    if isinstance(content, dict) and isinstance(content.get("tensor"), str) and "metadata" in content:
        return (
            f"The file {path} is a soft prompt of mkultra: JSON around a pickle, which could run anything when opened, so it is not opened here; "
            "where you trust its maker, load it with mkultra and save the tensor alone: numpy.save('prompt.npy', SoftPrompt.from_file('FILE')._tensor.detach().cpu().numpy())."
        )
    if isinstance(content, dict) and "peft_type" in content:
        return f"The file {path} is an adapter's config without its weights; give the folder that holds both."
    return f"The file {path} is JSON, which holds no tensors that are read; give a .npy, .safetensors or PyTorch file."
