"""Wild arguments for fuzzing entry points, and the cases that Hypothesis draws: which arguments of a call become what.

A case is a seed, from which a valid call is made, and a few changes of it. Hypothesis finds calls that fail and makes
them small: fewer changes, simpler ones, a smaller seed.
"""

from __future__ import annotations

import array
import datetime
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


class Raises:
    """Every conversion fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __float__(self) -> float:
        raise self.error

    def __index__(self) -> int:
        raise self.error

    def __repr__(self) -> str:
        raise self.error


class Subclass(np.ndarray):
    """An array that is no plain array."""


NUMBERS = [-1, 0, 1, 3, 2.5, -0.0, 1e-320, 1e-39, 1e-30, 1e30, 1e300, True, float("nan"), float("inf"), -float("inf")]
NUMBERS += [1j, 2**31, 2**63, 2**64 - 1, 2**64, -(2**63), 10**400, -(10**5000), np.float16(1)]
NUMBERS += [np.float32(0.5), np.int8(1), np.uint64(2**64 - 1), np.float64("nan"), np.longdouble(0.5), np.complex64(1)]
NUMBERS += [np.bool_(True), np.array(1.0), np.array(2), np.int64(2)]


def make_objects() -> list[Any]:
    """Arguments that nearly no function takes."""
    objects: list[Any] = [None, "", "text", "1", b"x", bytearray(8), memoryview(b"12345678"), [], [1.0], (), {}, set()]
    objects += [
        object(),
        int,
        len,
        Ellipsis,
        NotImplemented,
        slice(3),
        range(3),
        [[1.0], [1, 2]],
        array.array("f", [1]),
    ]
    objects += [Raises(OverflowError()), Raises(ZeroDivisionError()), Raises(ValueError()), datetime.date(2022, 6, 19)]
    objects += [
        [10**400],
        [1.0, 10**400],
        ["a", 1],
        [None],
        [[[[[[1.0]]]]]],
        np.datetime64("2022-06-19"),
        (2, 2),
        {1: 2},
    ]
    return objects


def make_arrays() -> list[Any]:
    """Arrays of all shapes, dtypes, layouts and contents."""
    rng = np.random.default_rng(0)
    arrays: list[Any] = []
    for shape in ((), (0,), (1,), (3,), (4, 3), (0, 3), (3, 0), (2, 3, 4), (2, 2, 2, 2), (1,) * 5, (2,) * 8):
        for dtype in ("f4", "f8", "f2", "g", "u4", "i4", "i8", "?", "c8", ">f4", ">f8", ">u4", "S3", "U2", "O"):
            arrays.append(rng.integers(0, 3, shape).astype(dtype))
        values = rng.random(shape).astype("f4")
        read_only = values.copy()
        read_only.flags.writeable = False
        arrays += [read_only, np.asfortranarray(values), values.T, values[..., ::-1] if shape else values]
        arrays += [values.view(Subclass), np.ma.masked_array(values), np.zeros(shape, "f4,i4"), np.zeros(shape, "V7")]
        arrays += [np.zeros(shape, "M8[s]"), np.full(shape, np.nan, "f4"), np.full(shape, np.inf, "f8")]
        arrays += [np.lib.stride_tricks.as_strided(np.zeros(1, "f4"), shape, (0,) * len(shape))]
        arrays += [np.frombuffer(b"x" + values.tobytes(), "f4", offset=1).reshape(shape)] if values.size else []
        if hasattr(np.dtypes, "StringDType"):
            arrays.append(np.zeros(shape, np.dtypes.StringDType()))
    return arrays


OBJECTS, ARRAYS = make_objects(), make_arrays()


def unaligned(value: np.ndarray) -> np.ndarray:
    """The same values, a byte beside an address for them."""
    room = np.zeros(value.nbytes + 1, np.uint8)[1:].view(value.dtype).reshape(value.shape)
    room[...] = value
    return room


def read_only(value: np.ndarray) -> np.ndarray:
    """A copy that nobody may write to."""
    copy = value.copy()
    copy.flags.writeable = False
    return copy


def spread(value: np.ndarray) -> np.ndarray:
    """The same values with gaps between them."""
    return np.repeat(value, 2, axis=-1)[..., ::2] if value.ndim else value


def with_values(value: np.ndarray, seed: int) -> np.ndarray:
    """Some elements replaced by what floats have at their ends."""
    copy = value.copy(order="C")
    if copy.dtype.kind == "f":
        wild = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, -0.0, 1e-44, -1e-44, 1e-38, 1.0, 0.5])
        rng = np.random.default_rng(seed)
        with np.errstate(over="ignore"):
            np.copyto(copy, rng.choice(wild, copy.shape).astype(copy.dtype), where=rng.random(copy.shape) < 0.2)
    return copy


LAYOUTS: list[Callable[[np.ndarray], Any]] = [
    np.asfortranarray,
    spread,
    unaligned,
    read_only,
    lambda value: value[..., ::-1] if value.ndim else value,
    lambda value: value.astype(value.dtype.newbyteorder()),
    lambda value: value.astype(object),
    lambda value: value.astype(np.float64),
    lambda value: value.astype(np.int32),
    lambda value: value[:0] if value.ndim else value,
    lambda value: value[..., :0] if value.ndim else value,
    lambda value: value[np.newaxis],
    lambda value: value.view(Subclass),
    lambda value: value.tolist(),
]


class Change(NamedTuple):
    """What becomes of an argument."""

    at: int
    kind: str
    which: int


class Case(NamedTuple):
    """A seed, and changes of the call that is made from it."""

    seed: int
    changes: list[Change]


KINDS = ("values", "layout", "number", "object", "array", "other", "again")


def cases(kinds: tuple[str, ...] = KINDS) -> st.SearchStrategy[Case]:
    """Cases with none to two changes."""
    change = st.builds(Change, st.integers(0, 30), st.sampled_from(kinds), st.integers(0, 999))
    return st.builds(Case, st.integers(0, 2**32 - 1), st.lists(change, max_size=2))


def changed(arguments: list[Any], case: Case, other: Callable[[], list[Any]]) -> list[Any]:
    """The call of the case: `arguments` with its changes; `other` makes another valid call."""
    arguments = list(arguments)
    for change in case.changes if arguments else ():
        at, which = change.at % len(arguments), change.which
        value = arguments[at]
        if change.kind == "values" and isinstance(value, np.ndarray):
            arguments[at] = with_values(value, which)
        elif change.kind == "layout" and isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            with np.errstate(all="ignore"):
                arguments[at] = LAYOUTS[which % len(LAYOUTS)](value)
        elif change.kind == "object":
            arguments[at] = OBJECTS[which % len(OBJECTS)]
        elif change.kind == "array":
            arguments[at] = ARRAYS[which % len(ARRAYS)]
        elif change.kind == "other":
            arguments[at] = other()[at]
        elif change.kind == "again":
            arguments[at] = arguments[which % len(arguments)]
        else:
            arguments[at] = NUMBERS[which % len(NUMBERS)]
    return arguments


def rng_of(name: str, case: Case) -> np.random.Generator:
    """Random numbers of a case, other ones for each entry point."""
    return np.random.default_rng([case.seed, crc32(name.encode())])


def arrays_in(values: Any) -> Iterator[np.ndarray]:
    """All arrays in arguments, also in lists and mappings of them."""
    if isinstance(values, np.ndarray):
        yield values
    elif isinstance(values, dict):
        yield from arrays_in(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from arrays_in(value)


def bytes_of(values: Any) -> list[bytes]:
    """What arrays hold; of objects, their references."""
    return [value.tobytes() for value in arrays_in(values)]


def repeat(count: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """`check` for so many cases of a strategy, the same in every run."""

    @settings(max_examples=count, report_multiple_bugs=False, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def run(case: Any) -> None:
        check(case)

    run()
