"""The factors of trainers that keep them another way than PEFT: turned round, in a list without names, several in one, or as GGUF. They are put in PEFT's order here.

Only the entries are made anew; the values stay in the file until they are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from soft_prompt_explorer.analysis.adapters.opening import Opened
from soft_prompt_explorer.analysis.adapters.tensors import Entry, Tensors
from soft_prompt_explorer.analysis.core.errors import AdapterError

_MLX = re.compile(r"\S+\.lora_[ab]")
_PLAIN = re.compile(r"(?P<module>\S+)\.lora_A")
_GROUPS = (2, 3)  # of queries, keys and values, those that a fused layer trains
_MOST = 1000  # characters of a name that is looked at


def in_order(opened: Opened) -> Opened:
    """The same with factors A (r, in) and B (out, r), each under a name that tells which it is."""
    if is_list(opened.tensors):
        return opened.with_entries(_named_list(opened.tensors))
    turned = {name: _turned(entry, opened, name) if _is_mlx(name) else entry for name, entry in opened.tensors.entries.items()}
    split: dict[str, Entry] = {}
    for name, entry in turned.items():
        b = turned.get(f"{name[:-1]}B") if (match := _fullmatch(_PLAIN, name)) is not None else None
        groups = _groups(entry, b)
        if b is not None and match is not None and groups > 1:
            for i in range(groups):
                split[f"{match['module']}.{i}.lora_A"] = _piece(entry, groups, i)
                split[f"{match['module']}.{i}.lora_B"] = _piece(b, groups, i)
        elif not (name.endswith(".lora_B") and _groups(turned.get(f"{name[:-1]}A"), entry) > 1):
            split[name] = entry
    return opened if split == opened.tensors.entries else opened.with_entries(split)


def is_list(tensors: Tensors) -> bool:
    """Whether these are nameless matrices (out, r), (r, in), (out, r), …, as cloneofsimo's first scripts save them."""
    shapes = [entry.shape for entry in tensors.entries.values()]
    if len(shapes) < 2 or len(shapes) % 2 or list(tensors) != [str(i) for i in range(len(shapes))]:
        return False
    pairs = list(zip(shapes[::2], shapes[1::2], strict=True))
    if any(len(up) not in (2, 4) or len(up) != len(down) or 0 in (*up, *down) for up, down in pairs):
        return False
    return all(up[1] == down[0] < min(up[0], int(np.prod(down[1:]))) and set(up[2:]) <= {1} for up, down in pairs)


def _is_mlx(name: str) -> bool:
    return _fullmatch(_MLX, name) is not None


def _fullmatch(pattern: re.Pattern, name: str) -> re.Match | None:
    return pattern.fullmatch(name) if len(name) < _MOST else None


def _named_list(tensors: Tensors) -> dict[str, Entry]:
    entries = list(tensors.entries.values())
    return {f"unnamed:{i // 2}:{('up', 'down')[i % 2]}": entry for i, entry in enumerate(entries)}


def _turned(entry: Entry, opened: Opened, name: str) -> Entry:
    """MLX's lora_a (in, r) and lora_b (r, out), the other way round.

    Raises
    ------
    AdapterError
        It has another number of axes, as those of experts have.
    """
    if len(entry.shape) != 2:
        raise AdapterError(
            f"The factor {name[:100]} in {opened.tensors.path} has the shape {entry.shape}, as MLX keeps those of several experts in one; convert it to PEFT's layout, "
            "lora_A (r, in) and lora_B (out, r) for each expert."
        )
    return Entry(entry.shape[::-1], entry.dtype, _then(entry, np.transpose))


def _groups(a: Entry | None, b: Entry | None) -> int:
    """How many updates of equal size a fused layer's factors hold (loralib's MergedLinear, lit-gpt): A has their rows one below the other, and so has B.

    They are as large as each other for certain where each maps the width to itself; where they need not be, 1 is answered and the factors do not multiply.
    """
    if a is None or b is None or len(a.shape) != 2 or len(b.shape) != 2:
        return 1
    return next((n for n in _GROUPS if a.shape[0] == n * b.shape[1] and b.shape[0] == n * a.shape[1]), 1)


def _piece(entry: Entry, groups: int, i: int) -> Entry:
    rows = entry.shape[0] // groups
    return Entry((rows, entry.shape[1]), entry.dtype, _then(entry, lambda array: array[i * rows : (i + 1) * rows]))


def _then(entry: Entry, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[], np.ndarray]:
    return lambda: change(entry.read())
