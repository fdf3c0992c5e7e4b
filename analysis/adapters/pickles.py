"""What a pickle of `torch.save` would do when it is opened, found by following its opcodes without doing any of it.

`torch.load(weights_only=True)` runs no code of a file's own, but what it does run can be led astray by numbers and nesting: a sparse
tensor over quantised indices ends the process, a name of 20,000 letters keeps its error message busy for seconds, a tuple of tuples
of tuples is hashed without end, a size beyond the storage leaves memory that was never written in the tensor. So a pickle is given to
it only where everything in it is what `torch.save` writes of dense tensors and plain containers.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any, BinaryIO, NamedTuple, cast

MAX_PICKLE = 16 * 2**20  # bytes of the description of the tensors, not of their values
MAX_STEPS = 300_000  # some 6,500 tensors; each costs at most about 200 bytes of memory and 4 microseconds, and a tensor takes about 45
_CALL = 8  # steps that a call counts as
MAX_NAME = 200
MAX_AXES = 16
MAX_ATTRIBUTES = 16  # of a tensor or a state_dict: each gets a copy of its own
MAX_BYTES = 1000

_BYTES_EACH = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
    "ComplexDouble": 16, "ComplexFloat": 8, "Untyped": 1,
}  # fmt: skip
_WEAVES = {"sparse": "a sparse tensor", "qtensor": "a quantised tensor", "nested": "a nested tensor", "meta": "a tensor without values"}


class PickleError(ValueError):
    """Why a pickle is not opened, as the end of a sentence."""


class ForeignPickleError(PickleError):
    """It holds something other than tensors and plain containers; the message names it."""


DAMAGED = "it is damaged; download or save it again"
TOO_MANY = "a tensor in it claims more values than the file holds, so it is damaged; download or save it again"
OBJECTS = "it holds Python objects, not tensors alone"


class Storage(NamedTuple):
    """A row of numbers as the pickle announces it; its values are elsewhere in the file."""

    type: str
    key: str
    length: int

    @property
    def bytes(self) -> int:
        return self.length * _BYTES_EACH[self.type]


class _Global(NamedTuple):
    name: str


class _Made:
    """Anything but a number, a string, a tuple, a storage or a global."""

    __slots__ = ("items", "kind")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.items: list[object] = []


class _Bounded:
    """The next bytes of a file, at most so many: a string in it could be as long as the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size

    def read(self, size: int) -> bytes:
        return self._counted(self.file.read(min(size, self.left)))

    def readline(self) -> bytes:
        return self._counted(self.file.readline(self.left))

    def _counted(self, content: bytes) -> bytes:
        self.left -= len(content)
        return content


_MARK = object()


def check_pickle(file: BinaryIO, storages: dict[str, Storage], room: int, *, steps: int = MAX_STEPS) -> object:
    """Follow one pickle from where the file stands to its end, and answer what it makes; add its storages to `storages`.

    Parameters
    ----------
    room : bytes that the tensors' values may take, each tensor for itself: the size of the file.
    steps : opcodes that it may have, a call counted as several.

    Raises
    ------
    PickleError
    """
    try:
        return _follow(file, storages, room, steps)
    except PickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise PickleError(DAMAGED) from error


def _follow(file: BinaryIO, storages: dict[str, Storage], room: int, left: int) -> object:
    stack: list[Any] = []
    memo: dict[Any, object] = {}

    def to_mark() -> list:
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
        items = stack[at + 1 :]
        del stack[at:]
        return items

    def fill(container: object, items: list, kind: str) -> None:
        if not isinstance(container, _Made) or container.kind != kind:
            raise PickleError(DAMAGED)
        if kind == "dict":
            _check_keys(items[::2])
            if len(items) % 2:
                raise PickleError(DAMAGED)
        container.items.extend(items)

    for opcode, argument, _ in pickletools.genops(cast(IO[bytes], _Bounded(file, MAX_PICKLE))):
        left -= _CALL if opcode.name == "REDUCE" else 1
        if left < 0:
            raise PickleError(
                f"its description of the tensors takes more than {MAX_STEPS:,} steps; save the prompt or LoRA alone, as safetensors"
            )
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_MARK)
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINSTRING":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode.name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "TUPLE":
                stack.append(tuple(to_mark()))
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                stack.append(_Made(opcode.name[6:].lower()))
            case "APPEND":
                item = stack.pop()
                fill(stack[-1], [item], "list")
            case "APPENDS":
                items = to_mark()
                fill(stack[-1], items, "list")
            case "SETITEM":
                items = [stack.pop(-2), stack.pop()]
                fill(stack[-1], items, "dict")
            case "SETITEMS":
                items = to_mark()
                fill(stack[-1], items, "dict")
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_global(str(argument)))
            case "REDUCE":
                arguments = stack.pop()
                stack[-1] = _called(stack[-1], arguments, room)
            case "BUILD":  # the attributes of a state_dict
                _check_attributes([stack.pop()])
                if not isinstance(stack[-1], _Made) or stack[-1].kind != "dict":
                    raise ForeignPickleError(OBJECTS)
            case "BINPERSID":
                stack[-1] = _storage(stack[-1], storages, room)
            case _:
                raise ForeignPickleError(OBJECTS)
    raise PickleError(DAMAGED)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _check_keys(keys: list) -> None:
    """Only keys whose hash takes a bounded time, and of which not many can be made with one hash: no tuples and no numbers beyond 64 bits."""
    for key in keys:
        if not _is_plain(key) or (isinstance(key, int) and key.bit_length() > 64):
            raise PickleError("a key in it is neither a name nor a number; save the tensors under names")


def _global(argument: str) -> _Global:
    name = argument.replace(" ", ".", 1).replace("__builtin__.", "builtins.", 1)
    if len(name) > MAX_NAME:
        raise ForeignPickleError(f"GLOBAL {name[:100]}…")
    if name not in _CALLS and name not in ("torch.Tensor", "torch.nn.parameter.Parameter") and _storage_type(name) is None:
        weave = next((what for word, what in _WEAVES.items() if name.startswith("torch._utils._rebuild_") and word in name), None)
        if weave is not None or (name.startswith("torch.") and name.endswith("Storage")):
            raise PickleError(f"it holds {weave or 'a quantised tensor'}; save it dense, as float32")
        if not _is_dtype(name):
            raise ForeignPickleError(f"GLOBAL {name}")
    return _Global(name)


def _storage_type(name: str) -> str | None:
    module, _, last = name.rpartition(".")
    found = last.removesuffix("Storage")
    return found if module in ("torch", "torch.storage") and last.endswith("Storage") and found in _BYTES_EACH else None


def _is_dtype(name: str) -> bool:
    import torch

    return name.startswith("torch.") and isinstance(getattr(torch, name.removeprefix("torch."), None), torch.dtype)


def _storage(identity: Any, storages: dict[str, Storage], room: int) -> Storage:
    word, kind, key, location, count, *view = identity
    type_ = _storage_type(kind.name)
    if word != "storage" or type_ is None or not isinstance(key, str) or not isinstance(location, str) or not _is_size(count):
        raise PickleError(DAMAGED)
    storage = Storage(type_, key, count)
    if storage.bytes > room or storages.setdefault(key, storage) != storage:
        raise PickleError(TOO_MANY)
    if view and view[0] is not None:  # the old format: a stretch of another storage
        _, start, length = view[0]
        if not (_is_size(start) and _is_size(length) and start + length <= count):
            raise PickleError(TOO_MANY)
        return storage._replace(length=length)
    return storage


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


# --- The functions that torch.save names -----------------------------------------------------------------------------


def _tensor(arguments: tuple, room: int) -> _Made:
    """_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata)."""
    storage, offset, size, stride, *rest = arguments
    return _dense(storage, offset, size, stride, _BYTES_EACH[storage.type], rest, room)


def _tensor_of_dtype(arguments: tuple, room: int) -> _Made:
    """_rebuild_tensor_v3(storage of bytes, offset, size, stride, requires_grad, hooks, dtype, metadata)."""
    import torch

    storage, offset, size, stride, requires_grad, hooks, dtype, *rest = arguments
    each = getattr(torch, dtype.name.removeprefix("torch.")).itemsize
    return _dense(storage, offset, size, stride, each, [requires_grad, hooks, *rest], room)


def _dense(storage: Storage, offset: int, size: tuple, stride: tuple, each: int, rest: list, room: int) -> _Made:
    """Every value that the tensor addresses must be in its storage, and all of them must have room in the file."""
    if not isinstance(storage, Storage) or not all(map(_is_size, (offset, *size, *stride))) or len(size) != len(stride):
        raise PickleError(DAMAGED)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    values = math.prod(size)
    if len(size) > MAX_AXES or (values and ((last + 1) * each > storage.bytes or values * each > room)):
        raise PickleError(TOO_MANY)
    _check_attributes(rest)
    return _Made("tensor")


def _parameter(arguments: tuple, room: int) -> _Made:
    data, requires_grad, hooks, *state = arguments
    _check_made(data, "tensor")
    _check_attributes([requires_grad, hooks, *state])
    return _Made("tensor")


def _subclass(arguments: tuple, room: int) -> _Made:
    """_rebuild_from_type_v2(function, type, arguments, state): a tensor with attributes of its own."""
    function, type_, inner, state = arguments
    if not isinstance(function, _Global) or _CALLS.get(function.name) not in (_tensor, _tensor_of_dtype, _parameter):
        raise PickleError(DAMAGED)
    if type_ not in (_Global("torch.Tensor"), _Global("torch.nn.parameter.Parameter")):
        raise PickleError(DAMAGED)
    _check_attributes([state])
    return _called(function, inner, room)


def _check_made(value: object, *kinds: str) -> None:
    if not isinstance(value, _Made) or value.kind not in kinds:
        raise PickleError(DAMAGED)


def _check_attributes(values: list) -> None:
    for value in values:
        if isinstance(value, _Made):
            _check_made(value, "dict")
            if len(value.items) > 2 * MAX_ATTRIBUTES:
                raise PickleError(DAMAGED)
        elif not _is_plain(value):
            raise PickleError(DAMAGED)


def _plain(arguments: tuple, room: int) -> _Made:
    if not all(map(_is_plain, arguments)):
        raise PickleError(DAMAGED)
    return _Made("value")


def _bytes(arguments: tuple, room: int) -> _Made:
    """_codecs.encode(text, "latin1"), as bytes are written; other codecs multiply what they are given, and so does one long text many times."""
    text, codec = arguments
    if not isinstance(text, str) or len(text) > MAX_BYTES or codec != "latin1":
        raise ForeignPickleError(OBJECTS)
    return _Made("bytes")


def _empty_dict(arguments: tuple, room: int) -> _Made:
    if arguments:
        raise ForeignPickleError(OBJECTS)
    return _Made("dict")


def _sizes(arguments: tuple, room: int) -> tuple:
    (sizes,) = arguments
    if not isinstance(sizes, tuple) or len(sizes) > MAX_AXES or not all(map(_is_size, sizes)):
        raise PickleError(DAMAGED)
    return sizes


_CALLS: Mapping[str, Callable[[tuple, int], object]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.Size": _sizes,
    "torch.device": _plain,
    "torch.serialization._get_layout": _plain,
    "collections.OrderedDict": _empty_dict,
    "collections.Counter": _empty_dict,
    "builtins.complex": _plain,
    "_codecs.encode": _bytes,
}


def _called(function: object, arguments: object, room: int) -> Any:
    if not isinstance(function, _Global) or not isinstance(arguments, tuple) or function.name not in _CALLS:
        raise ForeignPickleError(OBJECTS)
    return _CALLS[function.name](arguments, room)
