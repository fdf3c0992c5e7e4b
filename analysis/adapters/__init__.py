"""Reading what others trained; `load_adapter` is the one entry.

A path is opened as named tensors (`opening.py`, with one module for each kind of file: `npy_file.py`, `safetensors_file.py`, `torch_file.py`,
`zip_file.py`), and the first of `FORMATS` that knows their names makes a `SoftPrompt` or a `LoraAdapter` of them. What decides is always
the content, never the file's name. A file from a stranger is only ever parsed: nothing in it is executed, no path in it is
followed, and its values stay in the file until they are asked for.

To add a format, write `reads(opened) -> bool` and `read(opened, name)`, and the record of both in `formats.py`.
"""

from __future__ import annotations

import stat
from pathlib import Path

from soft_prompt_explorer.analysis.adapters.formats import FORMATS
from soft_prompt_explorer.analysis.adapters.lora import LoraAdapter, LoraFactors
from soft_prompt_explorer.analysis.adapters.opening import open_adapter
from soft_prompt_explorer.analysis.adapters.soft_prompt import SoftPrompt, Source, distinct
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.core.provenance import file_read
from soft_prompt_explorer.analysis.core.words import printable

__all__ = [
    "AdapterError",
    "LoraAdapter",
    "LoraFactors",
    "SoftPrompt",
    "Source",
    "distinct",
    "load_adapter",
    "load_lora",
    "load_soft_prompt",
    "lora_of",
    "soft_prompt_of",
]


def load_adapter(path: str | Path, *, name: str | None = None) -> SoftPrompt | LoraAdapter:
    """Read a soft prompt or a LoRA from a file, a folder or a zip of any known format.

    Parameters
    ----------
    path : a PEFT folder or its weights; a `.npy`; a safetensors file; a file of torch.save (a tensor, a dictionary, a checkpoint); a folder
        with `encoder.pt` and `decoder.pt`; textual-inversion vectors; a LoRA as PEFT, kohya, diffusers or cloneofsimo name it; an adapter of another
        type that PEFT makes; a zip of any of these, or KoboldAI's.
    name : what it is called in tables; the folder's or file's own name when None.

    Raises
    ------
    AdapterError
        There is no such file, it is none of the known formats, or its content is damaged or another thing: one sentence that says what
        was found, what was expected and what to do.

    Examples
    --------
    >>> import soft_prompt_explorer as spe
    >>> prompt = spe.load_adapter(spe.GALLERY / "plural-words-1")
    >>> prompt.embeddings.shape
    (10, 576)
    """
    path = Path(path)
    try:
        if not (path.is_dir() or stat.S_ISREG(path.stat().st_mode)):
            raise AdapterError(f"{path} is neither a file nor a folder; give one of the two.")  # a pipe would be waited for
        name = printable(name or (path.name if path.is_dir() else path.stem))
        opened = open_adapter(path)
        adapter = next(each for each in FORMATS if each.reads(opened)).read(opened, name)
        file_read(path.name, adapter.read_from.sha256)
        return adapter
    except FileNotFoundError:
        raise AdapterError(f"There is no file or folder {path}; check the spelling, or give the full path.") from None
    except (OSError, MemoryError) as error:
        raise AdapterError(f"{str(path)[:200]} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    except ValueError as error:
        if isinstance(error, AdapterError):
            raise
        raise AdapterError(f"{str(path)[:200]!r} is no path that can be looked up.") from error  # a null byte in it


def load_soft_prompt(path: str | Path, *, name: str | None = None) -> SoftPrompt:
    """`load_adapter` for callers that can only use a soft prompt; see `soft_prompt_of`."""
    return soft_prompt_of(load_adapter(path, name=name))


def load_lora(path: str | Path, *, name: str | None = None) -> LoraAdapter:
    """`load_adapter` for callers that can only use a LoRA; see `lora_of`."""
    return lora_of(load_adapter(path, name=name))


def soft_prompt_of(adapter: SoftPrompt | LoraAdapter) -> SoftPrompt:
    """The soft prompt that an adapter is; of a LoRA, the new words that came with it.

    Raises
    ------
    AdapterError
        It is a LoRA without new words.
    """
    if isinstance(adapter, SoftPrompt):
        return adapter
    if adapter.textual_inversion is not None:
        return adapter.textual_inversion
    raise AdapterError(
        f"The adapter {adapter.name} is a LoRA of {len(adapter)} modules and holds no virtual tokens; inspect says what is in it."
    )


def lora_of(adapter: SoftPrompt | LoraAdapter) -> LoraAdapter:
    """The LoRA that an adapter is.

    Raises
    ------
    AdapterError
        It is a soft prompt.
    """
    if isinstance(adapter, LoraAdapter):
        return adapter
    raise AdapterError(
        f"The adapter {adapter.name} is a soft prompt of {len(adapter)} virtual tokens and no LoRA; give neighbours or readings this one."
    )
