"""On which device a model computes and in which numbers, and how many parameters it has.

What nobody chooses is chosen here: the device by what torch finds, the numbers by the model's size and by what the device has in hardware. A small model
computes in float32 everywhere, so that its figures are the same on every machine; of what a table tells beside them, its column dtype says where it is not.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from soft_prompt_explorer.analysis.core.errors import InputError, ModelError
from soft_prompt_explorer.analysis.core.folders import read_json_object
from soft_prompt_explorer.analysis.core.late import Late
from soft_prompt_explorer.analysis.core.remedies import DEVICE, DTYPE, Remedy
from soft_prompt_explorer.analysis.core.words import listed

if TYPE_CHECKING:
    import torch
else:
    torch = Late("torch")

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPE_VARIABLE, DEVICE_VARIABLE = "SPE_DTYPE", "SPE_DEVICE"  # of the environment: what a process and those that it starts compute in
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
LARGE = 500_000_000  # parameters: above it, bfloat16 where the device has it
SMALL = 20_000_000  # below it nothing is saved
# By torch's names: of x86's AVX-512 and AMX, and of ARM's NEON and SVE.
_BFLOAT16_ON_CPU = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def compute_in(dtype: str | None, device: str | None) -> None:
    """Have every model that this process and those that it starts load from now on compute so; None leaves what was chosen before.

    Raises
    ------
    InputError
        There are no such numbers or no such device.
    """
    if dtype is not None:
        os.environ[DTYPE_VARIABLE] = check_dtype(dtype)
    if device is not None:
        os.environ[DEVICE_VARIABLE] = device_of(device)


def check_dtype(dtype: str) -> Dtype:
    """Refuse what is no name of numbers.

    Raises
    ------
    InputError
    """
    for known in get_args(Dtype):
        if dtype == known:
            return known
    raise InputError(
        f"A model computes in float32, bfloat16 or float16, or as auto chooses, not in {dtype[:40]!r}; name one of them", remedy=DTYPE
    )


def chosen(dtype: str | None) -> Dtype:
    """The numbers that are named, or where that is nothing or auto those of the environment's `SPE_DTYPE`. Errors as `check_dtype`."""
    return check_dtype(dtype if dtype not in (None, "auto") else os.environ.get(DTYPE_VARIABLE) or "auto")


def device_of(device: str | None = None) -> str:
    """The device that is named, or the one of the environment's `SPE_DEVICE`, or what torch finds: `cuda`, `mps`, else `cpu`.

    Raises
    ------
    InputError
        There is no such device here.
    """
    named = device or os.environ.get(DEVICE_VARIABLE) or None
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = ["cuda"] * (cards > 0) + [f"cuda:{i}" for i in range(cards)] + ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if named is None:
        return here[0]
    if named not in here:
        raise InputError(f"There is no device {named[:40]!r} here, but {listed(here)}; name one of them", remedy=DEVICE)
    return named


def dtype_of(dtype: str | None, device: str, parameters: int | None) -> torch.dtype:
    """The numbers that were chosen, or where nobody chose those that suit a model of so many parameters.

    Raises
    ------
    InputError
        There are no such numbers.
    """
    named = chosen(dtype)
    if named == "auto":
        named = "bfloat16" if (parameters or 0) > LARGE and has_bfloat16(device) else "float32"
    return getattr(torch, named)


def has_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 in hardware."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and any(torch.cpu.get_capabilities().get(name) for name in _BFLOAT16_ON_CPU)


class NoMemoryError(ModelError):
    """What is needed is larger than the memory of the device."""


def memory_of(device: str) -> int:
    """Bytes that a device has in all: of a card its own, of a processor this machine's, or what the system allows this process."""
    import psutil

    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    if device == "mps":
        return torch.mps.recommended_max_memory()
    most = psutil.virtual_memory().total
    with suppress(OSError, ValueError):  # no such file, or "max"
        most = min(most, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return most


def check_room(needed: int, device: str, what: str, remedy: Remedy) -> None:
    """Refuse what cannot fit into a device's memory.

    Parameters
    ----------
    needed : bytes.
    what : takes them, in words; begins the sentence.

    Raises
    ------
    NoMemoryError
    """
    if needed > (there := memory_of(device)):
        raise NoMemoryError(f"{what} take {needed / 1e9:.1f} GB, and {device} has {there / 1e9:.1f} GB;", remedy=remedy)


def told(dtype: torch.dtype) -> str:
    """The name of numbers.

    >>> import torch
    >>> told(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's folder that transformers loads: the one of the usual name, or those that an index names; else all that lie there.

    Raises
    ------
    ModelError
        The index cannot be read.
    """
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if (index := folder / "model.safetensors.index.json").is_file():
        named = read_json_object(index, ModelError).get("weight_map")
        return [folder / name for name in sorted({Path(str(file)).name for file in named.values()})] if isinstance(named, dict) else []
    return sorted(folder.glob("*.safetensors"))


def parameters_in(folder: Path) -> int | None:
    """How many parameters lie in a model's folder, from the headers of its files; None where there are none that can be read."""
    from safetensors import SafetensorError, safe_open

    total = 0
    try:
        for path in weight_files(folder):
            with safe_open(path, framework="np") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - not a dictionary
    except (InputError, OSError, SafetensorError):
        return None
    return total or None
