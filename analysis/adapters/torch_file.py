"""What `torch.save` wrote: a bare tensor, a dictionary or a whole training checkpoint.

Such a file is a pickle, and a pickle can run anything when it is opened. It is therefore only ever opened by
`torch.load(weights_only=True, map_location="cpu")`, which builds tensors and plain containers and refuses the rest. There is no other way in.
"""

from __future__ import annotations

import io
import pickletools
import warnings
import zipfile
from pathlib import Path

from analysis.adapters.tensors import MAX_TENSORS, Entry, Tensors, check_count, check_file, starts_with
from analysis.adapters.zip_file import archive_names, read_directory
from analysis.errors import AdapterError

MAX_PICKLE = 16 * 2**20  # bytes of the description of the tensors, not of their values
MAX_STEPS = 250_000  # of a pickle's small program; a tensor takes about twenty, and a made-up one as few as three
MAX_DEPTH = 32
_OLD_PICKLES = 5  # one after the other: a magic number, the protocol, the machine, what was saved, and the storages' names
MAX_OLD_FILE = 2**30  # files older than PyTorch 1.6 cannot be mapped and are read whole


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
    if is_zip:
        _check_archive(path, size)
    elif size > MAX_OLD_FILE:
        raise AdapterError(
            f"The file {path} has {size:,} bytes in PyTorch's old format, of which at most {MAX_OLD_FILE:,} are read; save it again with a newer torch.save."
        )
    _check_steps(path, is_zip)
    content = _load(path, is_zip)
    tensors, metadata = _flattened(content, path)
    check_count(len(tensors), path)
    entries = {}
    for name, tensor in tensors.items():
        # A tensor can claim any shape over few stored numbers (a stride of zero): what it would take must be in the file.
        if tensor.numel() * tensor.element_size() > size:
            raise AdapterError(
                f"A tensor in {path} ({name or 'the only one'}) claims the shape {tuple(tensor.shape)}, more than the file's {size:,} bytes hold; the file is damaged."
            )
        entries[name] = Entry(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), _reader(tensor))
    checks = (
        ("size", f"{size:,} bytes"),
        ("pickle", "opened by torch.load(weights_only=True) alone: tensors and plain containers, nothing was run"),
    )
    return Tensors(path, "PyTorch", entries, metadata, checks)


def _check_archive(path: Path, size: int) -> None:
    """PyTorch stores its records as they are: packed ones, or more of them than the file holds, are somebody's trick."""
    records = read_directory(path)
    check_count(sum("/data/" in record.filename for record in records), path)
    if any(record.compress_type != zipfile.ZIP_STORED for record in records) or sum(record.file_size for record in records) > size:
        raise AdapterError(f"The file {path} holds packed or overlapping records, which torch.save never writes; save it again.")
    described = max((record.file_size for record in records if record.filename.endswith("data.pkl")), default=0)
    if described > MAX_PICKLE:
        raise AdapterError(
            f"The description of the tensors in {path} has {described:,} bytes, at most {MAX_PICKLE:,} are read; save it again."
        )


def _check_steps(path: Path, is_zip: bool) -> None:
    """Count the steps of the pickle without taking any of them: a few bytes can make an object of some thousand."""
    if is_zip:
        try:
            with zipfile.ZipFile(path) as archive:
                files = [io.BytesIO(archive.read(record)) for record in archive.infolist() if record.filename.endswith("data.pkl")]
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise AdapterError(
                f"The file {path} starts like one of torch.save but is damaged ({error}); copy or download it again."
            ) from error
    else:
        files = [path.open("rb")] * _OLD_PICKLES
    steps = 0
    try:
        for file in files:
            for _ in pickletools.genops(file):
                steps += 1
                if steps > MAX_STEPS:
                    break
    except Exception:  # damaged: torch.load says so
        return
    finally:
        files[0].close() if files else None
    if steps > MAX_STEPS:
        raise AdapterError(
            f"The pickle in {path} makes more objects than an adapter of {MAX_TENSORS:,} tensors would; give the prompt or LoRA alone, not the model."
        )


def _load(path: Path, is_zip: bool):
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Mapped, so that the values stay in the file. By its ending torch would take a file for another format, but not an open one.
            if is_zip and path.suffix != ".safetensors":
                return torch.load(path, weights_only=True, map_location="cpu", mmap=True)
            with path.open("rb") as file:
                return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever a made-up pickle makes torch raise
        reason = _reason(error)
        raise AdapterError(
            f"The file {path} is a pickle that torch.load(weights_only=True) refuses ({reason}), and opening it in any other way could run what is in it; "
            "where you trust its maker, load it there and save the tensor alone: numpy.save('prompt.npy', tensor.detach().float().cpu().numpy())."
        ) from error


def _reason(error: Exception) -> str:
    """The line of torch's message that says what it met, without its advice to load the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        if line.startswith("Unsupported operand"):
            return "it holds Python objects, not tensors alone"
        if line.startswith(("Unsupported", "Trying to", "Can only", "GLOBAL")) or "GLOBAL" in line:
            return line.split(". ")[0][:160].rstrip(".")
    return (lines[0][:120].rstrip(".") if lines and "weights_only" not in lines[0] else type(error).__name__) or type(error).__name__


def _flattened(content, path: Path) -> tuple[dict, dict]:
    """All tensors by their place in nested containers, and the plain values beside them.

    Each container is entered once: a small pickle can nest references to one list so that walking them all would never end.
    """
    import torch

    tensors, metadata, seen = {}, {}, set()
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
            items = list(value.items() if isinstance(value, dict) else enumerate(value))
            check_count(len(items) + len(waiting), path)
            joined = [(f"{name}.{key}" if name else str(key)[:500], child, depth + 1) for key, child in items]
            waiting.extend(reversed(joined))
        elif isinstance(value, (str, int, float, bool)) and len(metadata) < 1000:
            metadata[name] = value[:500] if isinstance(value, str) else value
    return tensors, metadata


def _reader(tensor):
    def read_one():
        import torch

        plain = tensor.detach()
        if plain.layout is not torch.strided or plain.device.type != "cpu" or plain.is_quantized:
            raise AdapterError("The file holds a sparse, quantised or empty tensor; save it dense, as float32.")
        return (plain.float() if plain.dtype == torch.bfloat16 else plain).resolve_conj().resolve_neg().numpy()

    return read_one
