"""Reading what others trained. One reader a file in this folder; `load_adapter` is the one entry.

To add a format, write a module with `reads(path) -> bool`, which looks at the content and never at the name alone, and
`read(path) -> SoftPrompt`, and add it to `READERS`. A file from a stranger is only ever parsed: nothing in it is executed,
no path in it is followed, and no more than `MAX_BYTES` of it is read.
"""

from __future__ import annotations

from pathlib import Path

from analysis.adapters import npy, peft_folder, safetensors_file
from analysis.adapters.soft_prompt import MAX_BYTES, SoftPrompt, Source
from analysis.errors import AdapterError, printable

__all__ = ["MAX_BYTES", "AdapterError", "SoftPrompt", "Source", "load_adapter", "load_soft_prompt"]

READERS = (peft_folder, npy, safetensors_file)  # asked in this order


def load_adapter(path: str | Path, *, name: str | None = None) -> SoftPrompt:
    """Read a soft prompt from a file or folder of any known format.

    Parameters
    ----------
    path : a PEFT folder, a `.npy` file or a `.safetensors` file.
    name : what the prompt is called in tables; the folder's or file's own name when None.

    Raises
    ------
    AdapterError
        There is no such file, it is none of the known formats, or its content is not a soft prompt: one sentence that says
        what was found, what was expected and what to do.
    """
    path = Path(path)
    try:
        path.stat()
        name = printable(name or (path.name if path.is_dir() else path.stem))
        for reader in READERS:
            if reader.reads(path):
                return reader.read(path, name)
    except FileNotFoundError:
        raise AdapterError(f"There is no file or folder {path}; check the spelling, or give the full path.") from None
    except OSError as error:
        raise AdapterError(f"{str(path)[:200]} cannot be read: {error.strerror or error}.") from error
    if path.is_dir():
        raise AdapterError(
            f"The folder {path} holds {_listing(path)}; a PEFT adapter's folder holds adapter_config.json and adapter_model.safetensors."
        )
    size = path.stat().st_size
    if size == 0:
        raise AdapterError(f"The file {path} is empty; copy or download it again.")
    with path.open("rb") as file:
        start = file.read(16)
    raise AdapterError(
        f"The file {path} ({size:,} bytes, starting with {start!r}) is neither a NumPy array (.npy) nor safetensors; "
        "save the prompt's (tokens × width) array with numpy.save, or give the PEFT folder."
    )


def load_soft_prompt(path: str | Path, *, name: str | None = None) -> SoftPrompt:
    """`load_adapter` for callers that can only use a soft prompt."""
    return load_adapter(path, name=name)


def _listing(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return "nothing" if not names else ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
