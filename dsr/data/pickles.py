"""Reads dicts of plain values and NumPy arrays from pickles, and runs nothing that is in them.

A pickle is a program: `pickle.load` imports and calls what the file names. Here the file is only parsed
(`pickletools.genops`, which executes nothing), and a small stack machine builds lists, tuples, dicts, numbers and
strings. A name in the file is kept as text, never imported. Of calls three are understood, by their names: NumPy's
array, NumPy's dtype, and ``_codecs.encode``, by which Python 3 writes bytes for Python 2. Anything else is a DataError.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data.errors import DataError


def read_dict(data: bytes, shown: str | Path) -> dict[str, Any]:
    """The dict in a pickle; strings of Python 2 come as str, a character a byte (latin-1).

    Parameters
    ----------
    data : bytes
        The file.
    shown : str or Path
        Its name, for messages.

    Raises
    ------
    DataError
        It is cut short or damaged, or holds other things than plain values and arrays.
    """
    machine, position = _Machine(), 0
    try:
        for opcode, argument, where in pickletools.genops(data):
            position = where or 0
            machine.step(opcode.name, argument)
        if position + 1 != len(data):
            raise ValueError(f"{len(data) - position - 1} bytes follow the end of the pickle")
        (value,) = machine.stack
        return {_text(key): item.value if isinstance(item, _Array) else item for key, item in value.items()}
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise DataError(f"{shown}: no readable pickle of a dict, byte {position} of {len(data)}: {error}") from None


@dataclass
class _Name:
    """What the file would have had imported."""

    text: str


@dataclass
class _Array:
    value: NDArray[Any] | None = None


@dataclass
class _Type:
    value: np.dtype[Any]


class _Mark:
    """Where the items of the next list, tuple or dict begin."""


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": _Mark,
}
_VALUES = """
INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES
BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
"""
_LITERALS = frozenset(_VALUES.split())
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_NUMBERS = re.compile(r"[biuf][1248]")


class _Machine:
    """The part of the pickle machine that plain values and arrays need."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "APPEND":
            item = stack.pop()
            _of_kind(stack[-1], list).append(item)
        elif name == "APPENDS":
            items = self._items()
            _of_kind(stack[-1], list).extend(items)
        elif name == "SETITEM":
            item, key = stack.pop(), stack.pop()
            _of_kind(stack[-1], dict)[key] = item
        elif name == "SETITEMS":
            items = self._items()
            _of_kind(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
        elif name == "LIST":
            stack.append(self._items())
        elif name == "DICT":
            items = self._items()
            stack.append(dict(zip(items[::2], items[1::2], strict=True)))
        elif name == "TUPLE":
            stack.append(tuple(self._items()))
        elif name in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name == "GLOBAL":
            stack.append(_Name(argument))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_Name(f"{module} {attribute}"))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(_call(called, arguments))
        elif name == "BUILD":
            state = stack.pop()
            _set_state(stack[-1], state)
        elif name not in _IGNORED:
            raise ValueError(f"opcode {name} has no place in a pickle of plain values and arrays")

    def _items(self) -> list[Any]:
        """What was put on the stack since the last mark; takes the mark too."""
        items: list[Any] = []
        while not isinstance(item := self.stack.pop(), _Mark):
            items.append(item)
        return items[::-1]


def _of_kind(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected a {kind.__name__}, got a {type(value).__name__}")
    return value


def _call(called: Any, arguments: Any) -> Any:
    name = _of_kind(called, _Name).text
    if name in ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"):
        return _Array()
    if name == "numpy dtype":
        text = _text(arguments[0])
        if not _NUMBERS.fullmatch(text):
            raise ValueError(f"expected a dtype of numbers, got {text!r}")
        return _Type(np.dtype(text))
    if name == "_codecs encode" and arguments[1:] == ("latin1",):
        return arguments[0].encode("latin-1")
    raise ValueError(
        f"the file would call '{name.replace(' ', '.')}'; nothing but NumPy arrays is read, nothing is run"
    )


def _set_state(value: Any, state: Any) -> None:
    if isinstance(value, _Type):
        if _text(state[1]) in "<>":
            value.value = np.dtype(_text(state[1]) + value.value.str[1:])
        return
    _, shape, kind, fortran, content = state
    dtype = _of_kind(kind, _Type).value
    content = content.encode("latin-1") if isinstance(content, str) else _of_kind(content, bytes)
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"an array of shape {shape} and dtype {dtype} does not have {len(content)} bytes")
    _of_kind(value, _Array).value = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
