"""Reads plain values and arrays from pickles, and runs nothing that is in them.

A pickle is a program: `pickle.load` imports and calls what the file names. Here the file is only parsed
(`pickletools`, which executes nothing), and a small stack machine builds lists, tuples, dicts, numbers and strings. A
name in the file is kept as text and never imported. The only calls that are understood are those that the caller lists
by name, each with its replacement here; any other is a DataError. `read_dict` knows NumPy's array and dtype, and
``_codecs.encode``, by which Python 3 writes bytes for Python 2.

A `pickle.Unpickler` whose ``find_class`` refuses every name is not safe enough, whatever its size is bounded to: with
a key of tuples nested a million deep it crashes the interpreter (Python 3.11), a file of 9 bytes makes it take 4 GiB
for its memo, and 16 MiB of empty dicts take 1.2 GiB.
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
            raise ValueError(f"{len(data) - position - 1:,} bytes follow the end of the pickle")
        (value,) = machine.stack
        return value
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{shown}: not a readable pickle of {what}, byte {position:,} of {len(data):,}: {reason(error)}"
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
            raise ValueError(f"{code!r} is not an opcode" if code else "cut short: the end is missing")
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
        raise DataError(f"{shown}: expected a pickle of a dict, got one of a {type(value).__name__}")
    try:
        return {_text(key): item.value if isinstance(item, _Array) else item for key, item in value.items()}
    except TypeError as error:
        raise DataError(f"{shown}: expected a pickle of a dict with strings as keys: {error}") from None


@dataclass
class Name:
    """What the file would have had imported: ``"module name"``."""

    text: str


_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_WIDTHS = {"BINSTRING": 4, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}
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
BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
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
            raise ValueError(f"expected {self.what}, got the opcode {name}")

    def _call(self, called: Any, arguments: Any) -> Any:
        name = of_kind(called, Name).text
        if name not in self.calls:
            shown = name.replace(" ", ".")
            raise ValueError(f"the file would call '{shown}'; expected {self.what}, and nothing in a file is run")
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
        self.value = _from_buffer(content, kind, shape, "F" if fortran else "C")


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    """An array as protocol 5 has it: in one call."""
    dtype, content = of_kind(kind, _Type).value, _content(content)
    if not all(type(length) is int for length in of_kind(shape, tuple)):
        raise TypeError("expected a shape of integers")
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"an array of shape {shape} and dtype {dtype} does not have {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order=order)


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
    if isinstance(value, bytearray | memoryview):
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
    "numpy.core.numeric _frombuffer": _from_buffer,
    "numpy._core.numeric _frombuffer": _from_buffer,
    **NUMPY_SCALARS,
}


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else of_kind(value, str)
