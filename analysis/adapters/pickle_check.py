"""What a pickle would do, read from its instructions before `torch.load` follows them.

`torch.load(weights_only=True)` runs no code, yet a pickle of a few hundred bytes can make it fill memory (`bytearray(10**12)`), never return
(a key of a dictionary that is a tuple of tuples of tuples) or end the process. Here the instructions are listed and nothing is built; what
torch.save never writes is refused.
"""

from __future__ import annotations

import pickletools
import re
from typing import BinaryIO

MAX_INSTRUCTIONS = 500_000  # some 15,000 tensors; what each builds takes up to 200 bytes

_CALLED = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(?:tensor(?:_v[23])?|parameter(?:_with_state)?)|torch\.nn\.parameter Parameter|torch (?:Size|device)"
)
_NAMED = re.compile(r"torch(?:\.\w+)? \w*Storage|torch [a-z]\w*")  # types of storages and numbers
_PLAIN = {"BINUNICODE", "SHORT_BINSTRING", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE"}
_CONTAINERS = {"EMPTY_LIST", "EMPTY_DICT"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_LARGEST_CALL = 64  # what goes into a tensor: its storage, sizes and strides
_STORAGES = (6, 7)  # a storage's five or six words and their tuple


class PickleRefusedError(ValueError):
    """What was met in a pickle that is not followed."""


def check_pickle(file: BinaryIO, *, called: bool = True) -> None:
    """Read the instructions of the next pickle in a file, up to its end.

    Parameters
    ----------
    called : whether tensors may be in it; without, it holds plain values and lists and dictionaries of them.

    Raises
    ------
    PickleRefusedError
        It calls anything but what makes a tensor, a key in it is no text or number, it holds other Python objects, or it is damaged.
    """
    try:
        _follow(file, called)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:  # pickletools raises ValueError for what is no pickle
        if isinstance(error, PickleRefusedError):
            raise
        raise PickleRefusedError("it is damaged") from error


def _follow(file: BinaryIO, called: bool) -> None:
    # On the stack: 0 for text, a number or None; n for a tuple with n - 1 things in it and in its tuples; a global's name; -1 for all else.
    stack, marks, memo = [], [], {}
    for count, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        name = instruction.name
        if count >= MAX_INSTRUCTIONS:
            raise PickleRefusedError(f"it takes more than {MAX_INSTRUCTIONS:,} instructions to build; save it as safetensors")
        if name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in _PLAIN:
            # Whole numbers beyond 64 bits can be chosen so that a dictionary of them takes for ever to fill.
            stack.append(-1 if name == "LONG1" and argument.bit_length() > 64 else 0)
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _CONTAINERS:
            stack.append(-1)
        elif name == "EMPTY_TUPLE":
            stack.append(1)
        elif name == "TUPLE":
            stack.append(_tuple(_popped(stack, marks.pop())))
        elif name in _TUPLES:
            stack.append(_tuple(_popped(stack, -_TUPLES[name])))
        elif name == "APPEND":
            stack.pop()
        elif name == "APPENDS":
            _popped(stack, marks.pop())
        elif name in ("SETITEM", "SETITEMS"):
            if any(key != 0 for key in _popped(stack, -2 if name == "SETITEM" else marks.pop())[::2]):
                raise PickleRefusedError("a key in it is neither text nor a number")
        elif name == "STOP":
            return
        elif name == "PROTO":
            continue
        elif name == "GLOBAL" and called:
            if not (_CALLED.fullmatch(argument) or _NAMED.fullmatch(argument)):
                raise PickleRefusedError(f"it names {argument[:100].replace(' ', '.')}, which is no part of a tensor")
            stack.append(argument)
        elif name in ("REDUCE", "NEWOBJ") and called:
            function, arguments = _popped(stack, -2)
            if not isinstance(function, str) or not _CALLED.fullmatch(function) or not 0 < arguments <= _LARGEST_CALL:
                raise PickleRefusedError("it calls what makes no tensor")
            if function == "collections OrderedDict" and arguments != 1:
                raise PickleRefusedError("it fills a dictionary in an old way")
            stack.append(-1)
        elif name == "BINPERSID" and called:
            if stack.pop() not in _STORAGES:
                raise PickleRefusedError("it asks for something that is no storage of a tensor")
            stack.append(-1)
        elif name == "BUILD" and called:
            stack.pop()
        else:
            raise PickleRefusedError("it holds Python objects, not tensors alone")


def _popped(stack: list, start: int) -> list:
    if start < 0 and len(stack) < -start:
        raise IndexError
    items = stack[start:]
    del stack[start:]
    return items


def _tuple(items: list) -> int:
    return 1 + sum(item if isinstance(item, int) and item > 0 else 1 for item in items)
