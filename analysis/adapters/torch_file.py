"""What `torch.save` wrote: a bare tensor, a dictionary or a whole training checkpoint.

Such a file is a pickle, and a pickle can run anything when it is opened. It is therefore only ever opened by
`torch.load(weights_only=True, map_location="cpu")`, which builds tensors and plain containers and refuses the rest, and only after `pickles.py`
has followed it without building anything. There is no other way in.
"""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from soft_prompt_explorer.analysis.adapters.pickles import (
    DAMAGED,
    MAX_PICKLE,
    MAX_STEPS,
    OBJECTS,
    TOO_MANY,
    ForeignPickleError,
    PickleError,
    Storage,
    check_pickle,
)
from soft_prompt_explorer.analysis.adapters.tensors import Entry, Tensors, check_count, check_file, starts_with
from soft_prompt_explorer.analysis.adapters.zip_file import archive_names, open_archive
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.core.late import Late

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

MAX_DEPTH = 32
MAX_NAME = 500  # characters of a tensor's place in nested containers
MAX_SHARED = 4  # times a file's own size that its tensors have together; tied weights are twice in it
MAX_OLD_FILE = 128 * 2**20  # files older than PyTorch 1.6 cannot be mapped and are read whole


def reads(path: Path) -> bool:
    """A zip with a `data.pkl`, or a pickle of protocol 2 or later."""
    if starts_with(path, b"PK\x03\x04"):
        return any(name.endswith("data.pkl") for name in archive_names(path))
    with path.open("rb") as file:
        start = file.read(2)
    return len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5


def read(path: Path) -> Tensors:
    size = check_file(path)
    is_zip = starts_with(path, b"PK\x03\x04")
    if not is_zip and size > MAX_OLD_FILE:
        raise AdapterError(
            f"The file {path} has {size:,} bytes in PyTorch's old format, of which at most {MAX_OLD_FILE:,} are read; save it again with a newer torch.save."
        )
    try:
        _check_archive(path, size) if is_zip else _check_old(path, size)
    except ForeignPickleError as error:
        raise _refused(path, str(error)) from error
    except PickleError as error:
        raise AdapterError(f"The file {path} is a pickle as torch.save writes them, but {error}.") from error
    tensors, metadata = _flattened(_load(path, is_zip), path)
    check_count(len(tensors), path)
    # Tensors can share their values, over and over: a file of a few could keep its reader busy for ever.
    claimed = sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors.values())
    if claimed > MAX_SHARED * size:
        raise AdapterError(
            f"The tensors in {path} claim {claimed:,} bytes together, {claimed // size:,} times what the file holds; save the prompt's tensor alone."
        )
    entries = {
        name: Entry(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), _reader(tensor)) for name, tensor in tensors.items()
    }
    checks = (
        ("size", f"{size:,} bytes"),
        ("pickle", "opened by torch.load(weights_only=True) alone: tensors and plain containers, nothing was run"),
    )
    return Tensors(path, "PyTorch", entries, metadata, checks)


def _check_archive(path: Path, size: int) -> None:
    """PyTorch stores its records as they are: packed ones, or more of them than the file holds, are somebody's trick."""
    with open_archive(path) as archive:
        listed = archive.infolist()
        records = {record.filename.lower(): record for record in listed}  # torch looks for them so
        check_count(sum("/data/" in name for name in records), path)
        if (
            len(records) != len(listed)
            or any(record.compress_type != zipfile.ZIP_STORED for record in records.values())
            or sum(record.file_size for record in records.values()) > size
        ):
            raise AdapterError(f"The file {path} holds packed or overlapping records, which torch.save never writes; save it again.")
        longest = max((record.file_size for name, record in records.items() if "/data/" not in name), default=0)
        if longest > MAX_PICKLE:
            raise AdapterError(
                f"The description of the tensors in {path} has {longest:,} bytes, at most {MAX_PICKLE:,} are read; save it again."
            )
        try:
            pickles = {name: archive.read(record) for name, record in records.items() if name.endswith("data.pkl")}
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise AdapterError(
                f"The file {path} starts like one of torch.save but is damaged ({error}); copy or download it again."
            ) from error
    if len(pickles) != 1:
        raise AdapterError(f"The file {path} holds {len(pickles)} pickles where torch.save writes one; save it again.")
    ((name, content),) = pickles.items()
    storages: dict[str, Storage] = {}
    check_pickle(io.BytesIO(content), storages, size)
    for storage in storages.values():
        record = records.get(f"{name.removesuffix('.pkl')}/{storage.key}".lower())
        if record is None or storage.bytes > record.file_size:
            raise PickleError(TOO_MANY)


def _check_old(path: Path, size: int) -> None:
    """Five pickles one after the other: a magic number, the protocol, the machine, what was saved, and the storages in the order of their values."""
    storages: dict[str, Storage] = {}
    with path.open("rb") as file:
        for _ in range(3):
            check_pickle(file, {}, 0, steps=100)
        check_pickle(file, storages, size)
        written = check_pickle(file, {}, 0, steps=MAX_STEPS // 10)
    keys = getattr(written, "items", [None])
    # torch would leave the values of a storage that is not written as it finds them in memory.
    if not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise PickleError(DAMAGED)
    if sum(storage.bytes for storage in storages.values()) > size:
        raise PickleError(TOO_MANY)


def _load(path: Path, is_zip: bool):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Mapped, so that the values stay in the file. By its ending torch would take a file for another format, but not an open one.
            if is_zip and path.suffix != ".safetensors":
                return torch.load(path, weights_only=True, map_location="cpu", mmap=True)
            if is_zip:
                with path.open("rb") as file:
                    return torch.load(file, weights_only=True, map_location="cpu")
            # From memory: of a file torch would first try whether it is a tar.
            return torch.load(io.BytesIO(path.read_bytes()), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever a made-up pickle makes torch raise
        raise _refused(path, _reason(error)) from error


def _refused(path: Path, reason: str) -> AdapterError:
    return AdapterError(
        f"The file {path} is a pickle that torch.load(weights_only=True) refuses ({reason}), and opening it in any other way could run what is in it; "
        "where you trust its maker, load it there and save the tensor alone: numpy.save('prompt.npy', tensor.detach().float().cpu().numpy())."
    )


def _reason(error: Exception) -> str:
    """The line of torch's message that says what it met, without its advice to load the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        if line.startswith("Unsupported operand"):
            return OBJECTS
        if line.startswith(("Unsupported", "Trying to", "Can only", "GLOBAL")) or "GLOBAL" in line:
            return line.split(". ")[0][:160].rstrip(".")
    return (lines[0][:120].rstrip(".") if lines and "weights_only" not in lines[0] else type(error).__name__) or type(error).__name__


def _flattened(content, path: Path) -> tuple[dict, dict]:
    """All tensors by their place in nested containers, and the plain values beside them.

    Each container is entered once: a small pickle can nest references to one list so that walking them all would never end.
    """
    tensors: dict[str, torch.Tensor] = {}
    metadata: dict[str, object] = {}
    seen: set[int] = set()
    waiting = [("", content, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        elif isinstance(value, (dict, list, tuple)):
            if id(value) in seen:
                continue
            seen.add(id(value))
            if depth == MAX_DEPTH:
                raise AdapterError(f"The file {path} nests containers more than {MAX_DEPTH} deep; save the prompt's tensor alone.")
            items = list(dict.items(value) if isinstance(value, dict) else enumerate(value))  # an OrderedDict can bring its own `items`
            check_count(len(items) + len(waiting), path)
            if len(name) > MAX_NAME or any(len(key) > MAX_NAME for key, _ in items if isinstance(key, str)):
                raise AdapterError(f"The file {path} names a tensor with more than {MAX_NAME} characters; save the prompt's tensor alone.")
            waiting.extend((f"{name}.{key}" if name else str(key), child, depth + 1) for key, child in reversed(items))
        elif isinstance(value, (str, int, float, bool)) and len(metadata) < 1000:
            metadata[name] = value[:500] if isinstance(value, str) else value
    return tensors, metadata


def _reader(tensor):
    def read_one():
        plain = torch.Tensor.detach(tensor)  # a parameter can bring its own `detach`
        if plain.layout is not torch.strided or plain.device.type != "cpu" or plain.is_quantized:
            raise AdapterError("The file holds a sparse, quantised or empty tensor; save it dense, as float32.")
        return (plain.float() if plain.dtype == torch.bfloat16 else plain).resolve_conj().resolve_neg().numpy()

    return read_one
