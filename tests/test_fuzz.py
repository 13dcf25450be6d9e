"""Random calls of every compiled entry and every function of dsr.functional, DSR_FUZZ_CALLS (10000) of each.

Half of the calls are valid; in the others one or two arguments are replaced by something that rarely fits. Whatever is
given: a result, or TypeError or ValueError with a message that begins with the function's name; inputs keep their
bytes; nothing is written beside an output. Sizes stay small, so memory never runs out. (Numbers that are in range but
huge are tried in test_core_arguments, where a call that does not end can be stopped.)
"""

from __future__ import annotations

import array
import datetime
import os
from random import Random
from typing import Any

import numpy as np
import pytest
from core_table import ENTRIES, arguments_of, make_arguments
from functional_table import ARRAYS, FUNCTIONS, kinds_of, make_call

from dsr import _core, functional

CALLS = int(os.environ.get("DSR_FUZZ_CALLS") or 10000)
POOL = 40
FENCE = 64


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


def make_garbage(rng: np.random.Generator) -> list[Any]:
    """Arguments that nearly no function takes."""
    numbers = [-1, 0, 1, 3, 2.5, -0.0, 1e-320, 1e300, True, float("nan"), float("inf"), -float("inf"), 1j, 2**31]
    numbers += [2**63, 2**64 - 1, 2**64, -(2**63), 10**400, -(10**5000), np.float16(1), np.float32(0.5), np.int8(1)]
    numbers += [np.uint64(2**64 - 1), np.float64("nan"), np.longdouble(0.5), np.complex64(1), np.bool_(True)]
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
    objects += [[10**400], [1.0, 10**400], ["a", 1], [None], [[[[[[1.0]]]]]], np.datetime64("2022-06-19")]
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
    return numbers * 6 + objects * 3 + arrays


def fenced(value: np.ndarray, fences: dict[int, np.ndarray]) -> np.ndarray:
    """A copy of an output with bytes around it that must stay."""
    room = np.full(value.nbytes + 2 * FENCE, 0xA5, np.uint8)
    copy = room[FENCE : FENCE + value.nbytes].view(value.dtype).reshape(value.shape)
    copy[...] = value
    fences[id(copy)] = room
    return copy


def assert_fences_stand(outputs: list[Any], fences: dict[int, np.ndarray]) -> None:
    for output in outputs:
        room = fences.get(id(output))
        if room is not None:
            assert room[:FENCE].tobytes() + room[-FENCE:].tobytes() == b"\xa5" * (2 * FENCE)


def bytes_of(values: list[Any]) -> list[bytes]:
    return [value.tobytes() for value in values if isinstance(value, np.ndarray)]


def try_call(function: Any, name: str, arguments: list[Any], keywords: dict[str, Any]) -> bool:
    """Whether it was accepted; any error must be of the two kinds and name the function."""
    try:
        function(*arguments, **keywords)
    except (TypeError, ValueError) as error:
        assert str(error).startswith(name), f"the message does not begin with {name}: {error}"
        return False
    return True


def assert_not_blind(accepted: int) -> None:
    """Half of the calls are unchanged; of the others most are refused."""
    assert 0.4 * CALLS <= accepted <= 0.8 * CALLS


@pytest.mark.parametrize("entry", ENTRIES)
def test_core(entry):
    random, rng = Random(entry), np.random.default_rng(len(entry))
    table, function, garbage = arguments_of(entry), getattr(_core, entry), make_garbage(rng)
    fences: dict[int, np.ndarray] = {}
    outputs = [i for i, argument in enumerate(table) if argument.output]
    pool = [make_arguments(entry, rng, random.choice((np.float32, np.float64))) for _ in range(POOL)]
    for arguments in pool:
        for i in outputs:
            arguments[i] = fenced(arguments[i], fences)
    accepted = 0
    for _ in range(CALLS):
        arguments = list(random.choice(pool))
        if random.random() < 0.5:
            for _ in range(random.choice((1, 1, 1, 2))):
                at = random.randrange(len(arguments))
                source = random.randrange(4)
                if source == 0:  # the same argument of another call, or any argument of one
                    arguments[at] = random.choice(pool)[at]
                elif source == 1:
                    arguments[at] = random.choice(random.choice(pool))
                else:
                    arguments[at] = random.choice(garbage)
            if random.random() < 0.05:
                arguments = random.choice(([], arguments[1:], [*arguments, None], arguments * 3))
        inputs = [value for i, value in enumerate(arguments) if i not in outputs]
        before, all_before = bytes_of(inputs), bytes_of(arguments)
        if try_call(function, f"{entry}: ", arguments, {}):
            accepted += 1
            assert bytes_of(inputs) == before
            assert_fences_stand(arguments, fences)
        else:
            assert bytes_of(arguments) == all_before
    assert_not_blind(accepted)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functional(name):
    random, rng = Random(name), np.random.default_rng(len(name))
    function, garbage, kinds = getattr(functional, name), make_garbage(rng), kinds_of(name)
    fences: dict[int, np.ndarray] = {}
    pool = []
    for _ in range(POOL):
        shape = (random.randrange(1, 6), *random.choice(((), (0,), (1,), (17,), (3, 2), (2, 0), (2, 1, 3))))
        call = make_call(name, rng, shape, random.choice(("f4", "f8", ">f4", "f2")))
        result = function(**call)
        if random.random() < 0.5:
            call["out"] = fenced(result[0] if isinstance(result, tuple) else result, fences)
        if name.startswith("lif") and "backward" in name and random.random() < 0.5:
            call["gradient"] = random.choice(("published", "exact"))
        pool.append(call)
    accepted = 0
    for _ in range(CALLS):
        call = dict(random.choice(pool))
        if random.random() < 0.5:
            for _ in range(random.choice((1, 1, 1, 2))):
                key = random.choice((*call, *kinds, "out")) if random.random() < 0.99 else "unknown"
                other = random.choice(pool)
                if random.random() < 0.3 and key in other:
                    call[key] = other[key]
                else:
                    call[key] = random.choice(garbage)
            if random.random() < 0.05:
                del call[random.choice(tuple(call))]
        out = call.get("out")
        inputs = [call.get(key) for key, kind in kinds.items() if kind in ARRAYS]
        shared = isinstance(out, np.ndarray) and any(
            isinstance(value, np.ndarray) and np.may_share_memory(value, out) for value in inputs
        )
        before = bytes_of(inputs)
        if try_call(function, name, [], call):
            accepted += 1
            assert_fences_stand([out], fences)
        assert shared or bytes_of(inputs) == before
    assert_not_blind(accepted)
