"""Reads plain values and arrays from pickles, and runs nothing that is in them.

A pickle is a program: `pickle.load` imports and calls what the file names. Here the file is only parsed
(`pickletools.genops`, which executes nothing), and a small stack machine builds lists, tuples, dicts, numbers and
strings. A name in the file is kept as text, never imported. Of calls it understands those that the reader of a kind of
file lists by name, each with what stands for it here; anything else is a DataError. `read_dict` knows NumPy's array and
dtype, and ``_codecs.encode``, by which Python 3 writes bytes for Python 2.
"""

from __future__ import annotations

import io
import pickletools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.files.errors import DataError, reason

Calls = Mapping[str, Callable[..., Any]]
"""What stands for the calls of a pickle, by ``"module name"``. A value with a method `set_state` may be built on."""


def read_pickle(
    data: bytes, shown: str | Path, calls: Calls, *, what: str, persistent: Callable[[Any], Any] | None = None
) -> Any:
    """The value in a pickle.

    Parameters
    ----------
    data : bytes
        The file.
    shown : str or Path
        Its name, for messages.
    calls : mapping
        The calls that are understood.
    what : str
        What is expected in the file, for messages.
    persistent : callable, optional
        Gives the value for a persistent id.

    Raises
    ------
    DataError
        It is cut short or damaged, or holds other things than plain values and what `calls` and `persistent` give.
    """
    machine, position = _Machine(calls, what, persistent, len(data)), 0
    try:
        for steps, (opcode, argument, where) in enumerate(_opcodes(data)):
            position = where
            if steps == _MOST_STEPS:
                raise ValueError(f"more than {_MOST_STEPS:,} steps")
            machine.step(opcode, argument)
        if position + 1 != len(data):
            raise ValueError(f"{len(data) - position - 1} bytes follow the end of the pickle")
        (value,) = machine.stack
        return value
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{shown}: no readable pickle of {what}, byte {position} of {len(data)}: {reason(error)}"
        ) from None


def _opcodes(data: bytes) -> Iterator[tuple[str, Any, int]]:
    """Name, argument and place of each opcode, as `pickletools.genops` has them; long bytes are views of `data`."""
    stream, whole = io.BytesIO(data), memoryview(data)
    name = ""
    while name != "STOP":
        position = stream.tell()
        code = stream.read(1)
        opcode = _OPCODES.get(code)
        if opcode is None:
            raise ValueError(f"there is no opcode {code!r}" if code else "the end is missing")
        name, argument = opcode.name, None
        start = position + 1 + _WIDTHS.get(name, 0)
        length = int.from_bytes(data[position + 1 : start], "little")
        if _LONG <= length <= len(data) - start:
            argument = whole[start : start + length]
            stream.seek(start + length)
        elif opcode.arg is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd escapes in strings
                argument = opcode.arg.reader(stream)
        yield name, argument, position


def read_dict(data: bytes, shown: str | Path) -> dict[str, Any]:
    """The dict of plain values and NumPy arrays in a pickle; strings of Python 2 come as str, a character a byte.

    Parameters
    ----------
    data : bytes
        The file.
    shown : str or Path
        Its name, for messages.

    Raises
    ------
    DataError
        It is cut short or damaged, or holds other things.
    """
    value = read_pickle(data, shown, _NUMPY, what="a dict of NumPy arrays")
    if not isinstance(value, dict):
        raise DataError(f"{shown}: no readable pickle of a dict: it holds a {type(value).__name__}")
    try:
        return {_text(key): item.value if isinstance(item, _Array) else item for key, item in value.items()}
    except TypeError as error:
        raise DataError(f"{shown}: no readable pickle of a dict: {error}") from None


@dataclass
class Name:
    """What the file would have had imported: ``"module name"``."""

    text: str


_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_WIDTHS = {"BINSTRING": 4, "BINBYTES": 4, "BINBYTES8": 8}
"""Opcodes with bytes behind a length of so many bytes."""
_LONG = 1 << 20
"""Bytes from which on they are not copied: then they are those of an array."""
_MOST_STEPS = 1_000_000
"""Of a pickle. Each may put a value on the stack, which has 100 bytes where the file has one. CIFAR-100 has 300,000."""


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

    def __init__(self, calls: Calls, what: str, persistent: Callable[[Any], Any] | None, length: int) -> None:
        self.calls, self.what, self.persistent = calls, what, persistent
        self.text_left = length
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
            of_kind(stack[-1], list).append(item)
        elif name == "APPENDS":
            items = self._items()
            of_kind(stack[-1], list).extend(items)
        elif name == "SETITEM":
            item, key = stack.pop(), stack.pop()
            of_kind(stack[-1], dict).update(_pairs((key, item)))
        elif name == "SETITEMS":
            items = self._items()
            of_kind(stack[-1], dict).update(_pairs(items))
        elif name == "LIST":
            stack.append(self._items())
        elif name == "DICT":
            stack.append(_pairs(self._items()))
        elif name == "TUPLE":
            stack.append(tuple(self._items()))
        elif name in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name == "GLOBAL":
            stack.append(Name(argument))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(Name(f"{of_kind(module, str)} {of_kind(attribute, str)}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            stack.append(self._call(called, arguments))
        elif name == "BUILD":
            state = stack.pop()
            self._count_text(state)
            stack[-1].set_state(state)
        elif name == "BINPERSID" and self.persistent is not None:
            stack.append(self.persistent(stack.pop()))
        elif name not in _IGNORED:
            raise ValueError(f"opcode {name} has no place in a pickle of {self.what}")

    def _call(self, called: Any, arguments: Any) -> Any:
        name = of_kind(called, Name).text
        if name not in self.calls:
            shown = name.replace(" ", ".")
            raise ValueError(f"the file would call '{shown}'; nothing but {self.what} is read, nothing is run")
        self._count_text(of_kind(arguments, tuple))
        return self.calls[name](*arguments)

    def _count_text(self, arguments: Any) -> None:
        """What is called may copy text: all in all no more of it than the file has."""
        if isinstance(arguments, tuple):
            self.text_left -= sum(len(argument) for argument in arguments if isinstance(argument, str))
        if self.text_left < 0:
            raise ValueError("the file would have the same text copied again and again")

    def _items(self) -> list[Any]:
        """What was put on the stack since the last mark; takes the mark too."""
        items: list[Any] = []
        while not isinstance(item := self.stack.pop(), _Mark):
            items.append(item)
        return items[::-1]


def of_kind(value: Any, kind: type) -> Any:
    """`value`, or a TypeError if it is of another kind."""
    if not isinstance(value, kind):
        raise TypeError(f"expected a {kind.__name__}, got a {type(value).__name__}")
    return value


def _pairs(items: Iterable[Any]) -> dict[Any, Any]:
    """The dict of keys and values in turn. Keys are plain: to hash a tuple nested a million deep would end Python."""
    listed = list(items)
    for key in listed[::2]:
        if not isinstance(key, str | bytes | int | float | None):
            raise TypeError(f"expected a plain key of a dict, got a {type(key).__name__}")
    return dict(zip(listed[::2], listed[1::2], strict=True))


class _Array:
    """NumPy's array, whose content comes with its state."""

    def __init__(self, *_: Any) -> None:
        self.value: NDArray[Any] | None = None

    def set_state(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        dtype = of_kind(kind, _Type).value
        content = _content(content)
        if not all(type(length) is int for length in of_kind(shape, tuple)):
            raise TypeError("expected a shape of integers")
        if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(content):
            raise ValueError(f"an array of shape {shape} and dtype {dtype} does not have {len(content)} bytes")
        self.value = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


class _Type:
    """NumPy's dtype, whose byte order comes with its state."""

    def __init__(self, text: Any, *_: Any) -> None:
        if not _NUMBERS.fullmatch(_text(text)):
            raise ValueError(f"expected a dtype of numbers, got {text!r}")
        self.value = np.dtype(_text(text))

    def set_state(self, state: Any) -> None:
        if _text(state[1]) in "<>":
            self.value = np.dtype(_text(state[1]) + self.value.str[1:])


def _content(value: Any) -> Any:
    """Bytes of numbers, which Python 2 has as text."""
    if isinstance(value, memoryview):
        return value
    return value.encode("latin-1") if isinstance(value, str) else of_kind(value, bytes)


def _scalar(kind: Any, content: Any) -> Any:
    (value,) = np.frombuffer(_content(content), of_kind(kind, _Type).value)
    return value.item()


def _encode(text: Any, encoding: Any) -> bytes:
    if encoding != "latin1":
        raise ValueError("expected bytes as text in latin1")
    return of_kind(text, str).encode("latin-1")


NUMPY_SCALARS: Calls = {
    "numpy.core.multiarray scalar": _scalar,
    "numpy._core.multiarray scalar": _scalar,
    "numpy dtype": _Type,
    "_codecs encode": _encode,
}
"""Calls of NumPy's scalars, such as an accuracy."""

_NUMPY: Calls = {
    "numpy.core.multiarray _reconstruct": _Array,
    "numpy._core.multiarray _reconstruct": _Array,
    **NUMPY_SCALARS,
}


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else of_kind(value, str)
