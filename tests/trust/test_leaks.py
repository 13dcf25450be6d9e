"""Nothing stays behind: calls of every compiled or wrapped function, valid and refused, leave memory as it was.

How that is measured is in growth.py; the first tests let it measure calls that do leak. Layers, files and all that is
built of these functions follow in test_leaks_whole.py.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import core_table
import functional_table
import numpy as np
import ops_table
import pytest
from growth import SANITIZED, WINDOWS, Call, Record, check, growth, leaks, refused

from dsr import _core, functional, ops


@pytest.fixture
def times(amount: Callable[[int, int], int]) -> int:
    """How often each call is made in a window."""
    return amount(50, 1000)


@pytest.fixture(scope="module")
def record(amount: Callable[[int, int], int]) -> Record:
    """What all calls left behind."""
    return Record(every=amount(5, 1), slack=amount(8, 0))


# ---- the measure itself ----------------------------------------------------------------------------------------------

kept: list[Any] = []


class Cycle:
    """Keeps itself alive."""

    def __init__(self) -> None:
        self.me = self


def test_nothing_grows_where_nothing_leaks(times):
    array = np.ones(300)
    found = growth(lambda: (array + array).sum(), times, [array])
    assert leaks(found, times) == []


def test_an_array_left_behind_by_each_call_is_found(times):
    kept.clear()
    found = growth(lambda: kept.append(np.ones(4096, np.float32)), times, [])
    kept.clear()
    expected = {"blocks", "traced"} | (set() if SANITIZED else {"malloced", "resident"})
    assert expected <= set(leaks(found, times)), found


def test_a_small_object_left_behind_by_each_call_is_found(times):
    kept.clear()
    found = growth(lambda: kept.append([1.5 + len(kept)]), times, [])
    kept.clear()
    # not in pages: Python's pools have room for as much
    assert {"objects", "blocks", "traced"} <= set(leaks(found, times)), found


def test_a_reference_left_behind_by_each_call_is_found(times):
    kept.clear()
    array = np.ones(3)
    found = growth(lambda: kept.append(array), times, [array])
    kept.clear()
    assert "references" in leaks(found, times), found


@pytest.mark.skipif(SANITIZED or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="no mallinfo2")
def test_memory_of_c_left_behind_by_each_call_is_found(times):
    """As scratch space that an operation forgets: only malloc, and at last the pages, know of it."""
    malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    addresses = np.zeros(2 * WINDOWS * times + 10, np.uint64)
    place = iter(range(len(addresses)))

    def leak():
        addresses[next(place)] = malloc(64)

    found = growth(leak, times, [])
    for address in addresses[addresses != 0]:
        free(int(address))
    assert "malloced" in leaks(found, times), found


def test_cycles_are_no_leak(times):
    assert leaks(growth(Cycle, times, []), times) == []


# ---- calls ----------------------------------------------------------------------------------------------------------


def wrong_values(value: Any) -> Iterator[Any]:
    """What may not stand where `value` is accepted."""
    if not isinstance(value, np.ndarray):
        yield from (None, "1", [1], float("nan"), float("inf"), -1, -0.5, 10**400, 1j, object(), 2**70)
        return
    yield from ("text", 1.0, object(), value.tolist())
    yield from (np.zeros(value.shape, dtype) for dtype in ("f2", ">f4", ">u4", "i2", "c8", "O"))
    if value.ndim:
        yield value[..., ::-1]
        yield np.repeat(value, 2, axis=-1)[..., ::2]
        yield value[np.newaxis]
    yield np.zeros((*value.shape[:-1], value.shape[-1] + 1), value.dtype)


def refused_by_core(entry: str, arguments: list[Any]) -> Iterator[list[Any]]:
    """Every argument wrong in turn: class, dtype, byte order, layout, shape, range, read-only, overlap, number."""
    table = core_table.arguments_of(entry)
    for index, argument in enumerate(table):
        for wrong in wrong_values(arguments[index]):
            yield [*arguments[:index], wrong, *arguments[index + 1 :]]
        if argument.output:
            locked = arguments[index].copy()
            locked.flags.writeable = False
            yield [*arguments[:index], locked, *arguments[index + 1 :]]
            for other in (i for i, a in enumerate(table) if a.axes and i != index):
                larger = max(arguments[index].nbytes, arguments[other].nbytes)
                room = np.zeros(larger, np.uint8)
                shared = list(arguments)
                for i in (index, other):
                    shared[i] = room[: arguments[i].nbytes].view(arguments[i].dtype).reshape(arguments[i].shape)
                yield shared
    yield arguments[:-1]
    yield [*arguments, 1]


@pytest.mark.parametrize("entry", core_table.ENTRIES)
def test_core(entry, times, rng, record):
    function = getattr(_core, entry)
    sizes = core_table.plain_sizes(entry)
    good = [(function, tuple(core_table.make_arguments(entry, rng, real, sizes)), {}) for real in ("f4", "f8")]
    candidates = [(function, tuple(wrong), {}) for wrong in refused_by_core(entry, list(good[0][1]))]
    bad = [call for call in candidates if refused(call)]  # a number may be another's: -1 is a learning rate
    assert len(bad) > 0.7 * len(candidates)
    check(entry, good, bad, times, record)


def test_the_rest_of_core(times, record):
    threads = _core.threads()
    good: list[Call] = [(f, (), {}) for f in (_core.level, _core.threads, _core.blas, _core.kernels)]
    good.append((_core.set_threads, (threads,), {}))
    bad: list[Call] = [(_core.set_threads, (wrong,), {}) for wrong in (0, -1, 2**40, 10**5000, None, 1.5, "1")]
    check("_core", good, bad, times, record)


def test_import_once_more(times, record):
    """As after ``del sys.modules["dsr._core"]``."""
    spec = importlib.util.find_spec("dsr._core")

    def load():
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

    # importlib's caches hold 1 to 5 KiB more after 50 imports, 200 or 2,000
    check("import", [(load, (), {})], [], times, record, slack=40)


@pytest.mark.parametrize("name", functional.__all__)
def test_functional(name, times, rng, record):
    function, good, bad = getattr(functional, name), [], []
    for dtype in ("f4", "f8", "i4"):
        call = functional_table.make_call(name, rng, dtype=dtype if dtype != "i4" else "f4")
        kinds = functional_table.kinds_of(name)
        if dtype == "i4":  # converted
            call = {key: value.astype(int) if isinstance(value, np.ndarray) else value for key, value in call.items()}
        good.append((function, (), call))
        result = functional_table.result_array(function(**call))
        good.append((function, (), {**call, "out": np.empty_like(result)}))
        locked = np.empty_like(result)
        locked.flags.writeable = False
        first = next(iter(call.values()))
        for out in (locked, result[..., ::-1], result.astype("f2"), np.empty((1, 2)), "text", first[..., :1]):
            bad.append((function, (), {**call, "out": out}))
        for key, kind in kinds.items():
            is_array = kind in functional_table.ARRAYS
            wrong: list[Any] = ["text", None, object(), [1, [2, 3]], 1j, np.array(["a"])] if is_array else []
            wrong += [np.zeros((0, 3)), np.full((5, 3, 7), 1j)] if kind == "train" else []
            wrong += [np.full((3, 7), 1.5), np.full((3, 7), np.nan)] if kind == "unit" else []
            wrong += [0, -1, float("nan"), "1", None, 10**400] if not is_array else []
            bad += [(function, (), {**call, key: value}) for value in wrong]
    bad = [call for call in bad if refused(call)]  # 0 is a seed
    assert len(bad) >= 12
    check(name, good, bad, times, record)


def lanes_calls(rng: np.random.Generator) -> dict[str, list[Any]]:
    """Arguments of every function of dsr.ops."""
    calls = {name.split()[0]: ops_table.make_call(name, rng, (33, 4, 4, 3, 5)) for name in ops_table.EXACT}
    words, weight = ops_table.bits(rng, 33, 4, 4, 3, 5), ops_table.floats(rng, 6, 33, 3, 3)
    bias, flat = ops_table.floats(rng, 6), ops_table.floats(rng, 33, 4, 4, 15)
    grad, constant = ops_table.floats(rng, 6, 4, 4, 15), ops_table.floats(rng, 6, 4, 4, 5)
    values = ops_table.floats(rng, 6, 4, 4, 3, 5)
    shortcut = ops_table.bits(rng, 6, 4, 4, 3, 5)
    geometry = ops.Geometry((3, 3), padding=(1, 1, 1, 1))
    convolution = ops.SpikeConvolution(words, weight, bias, 0.5, geometry, 4, shortcut, 0.5)
    integers = rng.integers(-99, 99, weight.shape)
    packed, ones = ops.pack_integers(integers, geometry, 33), np.ones(6, np.int32)
    return calls | {
        "word_count": [33],
        "output_size": [5, 3, 1, 1],
        "best_table_bits": [0.2, 9],
        "mirrored_weight": [weight, 1],
        "conv2d": [flat, weight, bias, geometry],
        "conv2d_input_gradient": [grad, weight, 4, 4, geometry],
        "conv2d_weight_gradient": [grad, flat, geometry],
        "conv2d_winograd": [flat, weight, geometry],
        "weight_gradient_by_winograd": [geometry, 33, grad.shape],
        "conv2d_spikes": [words, weight, bias, 0.5, geometry, 4],
        "conv2d_neuron_spikes": [convolution, ops.if_model(0.7), bias, bias],
        "pack_weights": [weight, geometry],
        "row_potentials": [6, 4, 4, 5],
        "neuron_steps": [values, 3, ops.if_model(0.7), ops.row_potentials(6, 4, 4, 5)],
        "pack_for_values": [integers, geometry, 33],
        "pack_integers": [integers, geometry, 33],
        "integer_conv2d_spikes": [words, packed, 0, 1, np.zeros((1, 4, 4, 3, 5, 64), np.int32)],
        "integer_conv2d_neuron_spikes": [
            ops.IntegerInput(words, packed),
            ops.IntegerNeurons(ones, ones, ones),
            np.zeros((1, 4, 4, 3, 5, 64), np.int32),
        ],
        "conv2d_spikes_sum": [convolution, np.ones(3, np.float32)],
        "if_model": [0.7],
        "lif_model": [0.7, 1.0, 0.2],
        "concat_words": [[words, words], [33, 33]],
        "conv2d_spikes_weight_gradient": [constant, bias, values, words, weight.shape, 0.5, geometry, 4],
    }


LANES = [name for name, value in vars(ops).items() if callable(value) and not name.startswith("_")]
LANES = [name for name in LANES if getattr(ops, name).__module__.startswith("dsr.ops.") and name[0].islower()]


@pytest.mark.parametrize("name", LANES)
def test_ops(name, times, rng, record):
    function, arguments = getattr(ops, name), lanes_calls(rng)[name]
    bad = []
    for index, value in enumerate(arguments):
        for wrong in wrong_values(value):
            call: Call = (function, (*arguments[:index], wrong, *arguments[index + 1 :]), {})
            if not quietly_taken(call):
                bad.append(call)
    assert bad or name in ("word_count", "output_size", "best_table_bits")
    check(name, [(function, tuple(arguments), {})], bad, times, record)


def quietly_taken(call: Call) -> bool:
    """Whether these functions, which are not for users, take a wrong argument or fail over it in a way of their own."""
    try:
        return not refused(call)
    except (AttributeError, ArithmeticError, IndexError, MemoryError, Warning):
        return True


def test_figure(record, figure):
    figure(str(record))
