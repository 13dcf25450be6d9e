"""Every argument of every entry of dsr._core is checked, by one message form, and inputs stay as they are."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from core_table import ENTRIES, arguments_of, draw_sizes, make_arguments, plain_sizes, settle
from core_table import NUMBERS as NUMBERS_RETURNED
from patience import patiently

from dsr import _core
from dsr.ops import Geometry, if_model

POOLS = ["avg_pool", "avg_pool_backward", "max_pool", "max_pool_backward", "or_pool", "pool_planes"]
ARRAYS = [(entry, i) for entry in ENTRIES for i, argument in enumerate(arguments_of(entry)) if argument.axes]
NUMBERS = [(entry, i) for entry in ENTRIES for i, argument in enumerate(arguments_of(entry)) if not argument.axes]


def ident(case):
    return f"{case[0]}-{arguments_of(case[0])[case[1]].name}"


@pytest.fixture
def call(rng):
    """Makes valid arguments of an entry, every axis longer than 1."""
    return lambda entry: make_arguments(entry, rng, sizes=plain_sizes(entry))


def refused(entry, arguments, index, error):
    """The call fails with `error`, and the message names function and argument."""
    name = arguments_of(entry)[index].name
    with pytest.raises(error, match=f"^{entry}: argument '{name}': expected "):
        getattr(_core, entry)(*arguments)


def test_table_is_that_of_the_extension():
    functions = {name for name in dir(_core) if callable(getattr(_core, name)) and not name.startswith("_")}
    facts = {"blas", "compiler", "kernels", "level", "levels", "openmp", "prepare", "set_threads", "threads", "vectors"}
    assert set(ENTRIES) == functions - facts
    for entry in ENTRIES:
        assert [a.name for a in arguments_of(entry)] == list(inspect.signature(getattr(_core, entry)).parameters)


@pytest.mark.parametrize("entry", ENTRIES)
def test_valid_arguments(entry, rng):
    """Others change one argument of a call that is accepted. Inputs are read-only here and keep their bytes."""
    for real in (np.float32, np.float64):
        for _ in range(30):
            arguments = make_arguments(entry, rng, real)
            before = [a.tobytes() if isinstance(a, np.ndarray) else a for a in arguments]
            for argument, value in zip(arguments_of(entry), arguments, strict=True):
                if argument.axes and not argument.output:
                    value.flags.writeable = False
            result = getattr(_core, entry)(*arguments)
            assert isinstance(result, float) if entry in NUMBERS_RETURNED else result is None
            for argument, value, old in zip(arguments_of(entry), arguments, before, strict=True):
                if argument.axes and not argument.output:
                    assert value.tobytes() == old


@pytest.mark.parametrize("case", ARRAYS, ids=ident)
def test_wrong_dtype(case, call):
    entry, index = case
    kind = arguments_of(entry)[index].kind
    first_real = index == next((i for i, a in enumerate(arguments_of(entry)) if a.kind == "real"), None)
    for dtype in ("f2", "f4", "f8", "g", "i4", "u4", "i8", "u8", "?", "c8", "O", "S4", "M8[s]", "i4,i4", "u2"):
        arguments = call(entry)
        wrong = np.zeros(arguments[index].shape, dtype)
        if kind == "real" and first_real and dtype in ("f4", "f8"):
            continue
        if wrong.dtype != arguments[index].dtype:
            arguments[index] = wrong
            refused(entry, arguments, index, TypeError)


@pytest.mark.parametrize("case", ARRAYS, ids=ident)
def test_no_array(case, call):
    entry, index = case
    for wrong in (None, 1.0, "text", [1.0], b"bytes", np.float32(1), object(), 10**5000, memoryview(b"abcd")):
        if wrong is None and arguments_of(entry)[index].optional:
            continue
        arguments = call(entry)
        arguments[index] = wrong
        refused(entry, arguments, index, TypeError)


@pytest.mark.parametrize("case", ARRAYS, ids=ident)
def test_wrong_byte_order(case, call):
    entry, index = case
    arguments = call(entry)
    arguments[index] = arguments[index].astype(arguments[index].dtype.newbyteorder())
    refused(entry, arguments, index, TypeError)


@pytest.mark.parametrize("case", ARRAYS, ids=ident)
def test_wrong_number_of_axes(case, call):
    entry, index = case
    for shape in ((), (-1,), (1, -1), (1, 1, 1, -1), (1, 1, 1, 1, 1, -1)):
        arguments = call(entry)
        if len(shape) != arguments[index].ndim:
            value = arguments[index]
            arguments[index] = value.reshape(shape) if shape else value.ravel()[:1].reshape(())
            refused(entry, arguments, index, ValueError)


@pytest.mark.parametrize("case", ARRAYS, ids=ident)
def test_wrong_layout(case, call):
    """Strided, reversed, Fortran order, unaligned."""
    entry, index = case
    value = call(entry)[index]
    raw = np.zeros(value.nbytes + 1, np.uint8)
    wrong = [np.repeat(value, 2, axis=-1)[..., ::2], value[..., ::-1], raw[1:].view(value.dtype).reshape(value.shape)]
    if value.ndim > 1:
        wrong += [np.asfortranarray(value), np.lib.stride_tricks.as_strided(value, strides=(0,) * value.ndim)]
    for other in wrong:
        arguments = call(entry)
        arguments[index] = other
        refused(entry, arguments, index, ValueError)


@pytest.mark.parametrize("case", [case for case in ARRAYS if arguments_of(case[0])[case[1]].output], ids=ident)
def test_read_only_output(case, call):
    entry, index = case
    arguments = call(entry)
    arguments[index].flags.writeable = False
    refused(entry, arguments, index, ValueError)


@pytest.mark.parametrize("entry", ENTRIES)
def test_axes_that_disagree(entry, call):
    """Any axis of any array one longer: refused, unless nothing fixes its length (a kernel's size, say)."""
    free, fixed = (
        0,
        "WIJSKVR"
        + ("YXC" if "conv" in entry else "")
        + ("NT" if entry == "conv2d_spikes_weight_gradient" else "")
        + ("ZN" if entry.endswith("conv2d_spikes") or "_neuron_spikes" in entry or entry == "pack_weights" else "")
        + ("YX" if (entry.startswith("pack") and "weight" in entry) or entry == "packed_length" else ""),
    )
    for index, argument in enumerate(arguments_of(entry)):
        for axis, letter in enumerate(argument.axes):
            arguments = call(entry)
            shape = list(arguments[index].shape)
            shape[axis] += 1
            arguments[index] = np.zeros(shape, arguments[index].dtype)
            others = [a.axes for i, a in enumerate(arguments_of(entry)) if i != index]
            if letter in "".join(others) or letter in fixed:
                with pytest.raises(ValueError, match=f"^{entry}: argument '.*': expected ") as caught:
                    getattr(_core, entry)(*arguments)
                named, axis = re.search("argument '(.*?)'.* on axis ([A-Z])", str(caught.value)).groups()
                assert axis in next(argument.axes for argument in arguments_of(entry) if argument.name == named)
            else:
                free += 1
    assert free <= 8


RELATIONS = [
    ("neuron_spikes", {"weights": None}, "weighted", "an array where 'weights' is one, None where it is None"),
    ("neuron_spikes", {"current": (40, 2, 3, 9)}, "current", "4 elements on axis S"),
    ("neuron_spikes", {"words": (3, 2, 4, 9)}, "words", "2 elements on axis W"),
    ("pack_words", {"out": (3, 5)}, "out", "2 elements on axis W"),
    ("unpack_words", {"words": (3, 5)}, "words", "2 elements on axis W"),
    ("add_words", {"words": (3, 5)}, "words", "2 elements on axis W"),
    ("count_words", {"words": (3, 5)}, "words", "2 elements on axis W"),
    ("transpose_words", {"out": (2, 3, 192)}, "out", "2 elements on axis K"),
    ("transpose_words", {"out": (2, 2, 191)}, "out", "192 elements on axis C"),
    ("count_steps", {"words": (2, 5, 4, 9)}, "words", "3 elements on axis J"),
    ("count_steps", {"out": (5, 4, 9)}, "out", "5 elements on axis K"),
    ("affine", {"y": None}, "b", "an array where 'y' is one"),
    *[(entry, {p: 2}, p, "at most half the kernel size") for entry in POOLS for p in ("padding_h", "padding_w")],
    ("avg_pool", {"input": (40, 0, 6, 33)}, "input", "an image at least as large as the window"),
    ("avg_pool", {"out": (40, 6, 7, 33)}, "out", "5 elements on axis I"),
    ("avg_pool_backward", {"out": (40, 0, 6, 33)}, "out", "an image at least as large as the window"),
    ("avg_pool_backward", {"grad_output": (40, 5, 8, 33)}, "grad_output", "7 elements on axis J"),
    ("pool_planes", {"words": (40, 0, 6, 33)}, "words", "an image at least as large as the window"),
    ("pool_planes", {"out": (4, 40, 5, 7, 33)}, "out", "3 elements on axis K"),
    ("conv2d", {"weight": (3, 40, 0, 2)}, "weight", "3 elements on axis Y"),
    ("conv2d", {"input": (40, 0, 6, 33)}, "input", "an image at least as large as the window"),
    ("conv2d", {"out": (3, 6, 7, 33)}, "out", "5 elements on axis I"),
    ("conv2d_input_gradient", {"weight": (3, 40, 3, 0)}, "weight", "2 elements on axis X"),
    ("conv2d_input_gradient", {"out": (40, 0, 6, 33)}, "out", "an image at least as large as the window"),
    ("conv2d_input_gradient", {"grad_output": (3, 6, 7, 33)}, "grad_output", "5 elements on axis I"),
    ("conv2d_weight_gradient", {"out": (3, 40, 0, 2)}, "out", "3 elements on axis Y"),
    ("conv2d_weight_gradient", {"input": (40, 0, 6, 33)}, "input", "an image at least as large as the window"),
    ("conv2d_weight_gradient", {"grad_output": (3, 5, 8, 33)}, "grad_output", "7 elements on axis J"),
    ("conv2d_spikes", {"words": (3, 5, 6, 33)}, "words", "2 elements on axis W"),
    ("conv2d_spikes", {"weight": (3, 40, 0, 2)}, "weight", "3 elements on axis Y"),
    ("conv2d_neuron_spikes", {"words": (3, 5, 6, 4, 9)}, "words", "2 elements on axis W"),
    ("conv2d_neuron_spikes", {"shortcut_amplitude": None}, "shortcut_amplitude", "an array where 'shortcut' is one"),
    (
        "neuron_spikes",
        {"neuron": if_model(1.0, levels=3)},
        "words",
        "4 elements on axis W (32 channels per word of each",
    ),
    (
        "conv2d_neuron_spikes",
        {"neuron": if_model(1.0, levels=3)},
        "out",
        "2 elements on axis D (32 channels per word of",
    ),
    ("neuron_spikes", {"thresholds": (2, 40)}, "thresholds", "3 elements on axis R"),
    ("neuron_spikes_backward", {"thresholds": (4, 40)}, "thresholds", "3 elements on axis R"),
    ("conv2d_neuron_spikes", {"weights": None}, "weighted", "an array where 'weights' is one, None where it is None"),
    ("conv2d_spikes_sum", {"words": (3, 5, 6, 4, 9)}, "words", "2 elements on axis W"),
    ("conv2d_spikes_sum", {"shortcut_amplitude": None}, "shortcut_amplitude", "an array where 'shortcut' is one"),
    ("conv2d_spikes_sum", {"shortcut": (2, 5, 7, 4, 9)}, "shortcut", "1 elements on axis K"),
    ("conv2d_spikes_sum", {"packed": (5,)}, "packed", "12352 elements on axis N"),
    ("conv2d_neuron_spikes", {"thresholds": (2, 3)}, "thresholds", "3 elements on axis R"),
    (
        "conv2d_neuron_spikes",
        {"shortcut": None, "shortcut_amplitude": None, "out": (2, 5, 7, 4, 9), "potentials": None},
        "out",
        "1 elements on axis D",
    ),
    (
        "conv2d_neuron_spikes",
        {"shortcut": (2, 5, 7, 4, 9), "out": (2, 5, 7, 4, 9), "potentials": None},
        "shortcut",
        "1 elements on axis K",
    ),
    ("conv2d_neuron_spikes", {"packed": (5,)}, "packed", "12352 elements on axis N"),
    ("conv2d_neuron_spikes", {"potentials": (1, 5, 7, 9, 31)}, "potentials", "32 elements on axis Z"),
    ("conv2d_spikes", {"packed": (5,)}, "packed", "12352 elements on axis N"),
    ("neuron_steps", {"potentials": (2, 2, 9, 31)}, "potentials", "32 elements on axis Z"),
    ("neuron_steps", {"current": (40, 2, 3, 9)}, "current", "4 elements on axis S"),
    ("neuron_steps", {"thresholds": (2, 40)}, "thresholds", "3 elements on axis R"),
    ("neuron_steps", {"words": (3, 2, 4, 9)}, "words", "2 elements on axis W"),
    ("neuron_steps", {"neuron": if_model(1.0, levels=3)}, "words", "4 elements on axis W"),
    ("neuron_steps", {"potentials": (3, 2, 9, 32)}, "potentials", "2 elements on axis K"),
    ("pack_weights", {"out": (5,)}, "out", "12352 elements on axis N"),
    ("conv2d_spikes_weight_gradient", {"slope": None}, "slope", "an array where 'values' is one"),
    ("conv2d_spikes_weight_gradient", {"timesteps": 5}, "weights", "5 elements on axis T"),
    ("conv2d_spikes_weight_gradient", {"transposed": (5, 6, 3, 64)}, "transposed", "2 elements on axis K"),
    ("conv2d_spikes_weight_gradient", {"transposed": (5, 6, 2, 96)}, "transposed", "64 elements on axis N"),
    ("conv2d_spikes_weight_gradient", {"out": (3, 40, 0, 2)}, "out", "3 elements on axis Y"),
    ("conv2d_spikes_weight_gradient", {"constant": (3, 6, 7, 9), "values": (3, 6, 7, 4, 9)}, "constant", "5 elements"),
]


@pytest.mark.parametrize(("entry", "changes", "named", "expected"), RELATIONS)
def test_relations_name_the_argument_at_fault(entry, changes, named, expected, call):
    arguments = call(entry)
    for index, argument in enumerate(arguments_of(entry)):
        if argument.name in changes:
            value = changes[argument.name]
            arguments[index] = np.zeros(value, arguments[index].dtype) if isinstance(value, tuple) else value
    with pytest.raises(ValueError, match=rf"^{entry}: argument '{named}': expected {re.escape(expected)}"):
        getattr(_core, entry)(*arguments)


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "T" in ENTRIES[entry].replace("OCYX", "")])
def test_no_time_steps(entry, rng):
    if not any("T" in argument.axes for argument in arguments_of(entry)):
        pytest.skip("no time axis")
    arguments = make_arguments(entry, rng, sizes={**draw_sizes(entry, rng), "T": 0, "S": 0})
    with pytest.raises(ValueError, match=f"^{entry}: argument '.*': expected at least one time step on axis T"):
        getattr(_core, entry)(*arguments)


@pytest.mark.parametrize("entry", ENTRIES)
def test_overlap(entry, call):
    """An output that shares even one byte with another array of the call."""
    table = arguments_of(entry)
    for index, argument in enumerate(table):
        for other, neighbour in enumerate(table):
            if not argument.output or not neighbour.axes or other == index:
                continue
            arguments = call(entry)
            output, value = arguments[index], arguments[other]
            # the output begins with the last bytes of the other array, and the other way round
            for first, second in ((value, output), (output, value)):
                step = output.dtype.alignment
                at = (first.nbytes - 1) // step * step
                room = np.zeros(at + second.nbytes, np.uint8)
                places = {id(first): room[: first.nbytes], id(second): room[at : at + second.nbytes]}
                if at % second.dtype.alignment:
                    continue
                for i in (index, other):
                    old = output if i == index else value
                    arguments[i] = places[id(old)].view(old.dtype).reshape(old.shape)
                with pytest.raises(ValueError, match=f"^{entry}: argument '.*': expected memory of its own"):
                    getattr(_core, entry)(*arguments)


def floats(*shape):
    return np.zeros(shape, np.float32)


def words(*shape):
    return np.zeros(shape, np.uint32)


LARGE = 46341, 46341, 1  # more than 2**31 elements, of no channels
ONE = Geometry((1, 1))
LANES = 2**20, 2**12
MANY = words(0, 1, 1, *LANES)
TOO_LARGE = [
    ("conv2d", [floats(0, *LARGE), floats(0, 0, 1, 1), None, ONE, floats(0, *LARGE)], "out", "elements"),
    ("conv2d", [floats(2**31, 1, 1, 0), floats(0, 2**31, 1, 1), None, ONE, floats(0, 1, 1, 0)], "weight", "weights"),
    ("conv2d_input_gradient", [floats(0, *LARGE), floats(0, 0, 1, 1), ONE, floats(0, *LARGE)], "grad_output", "eleme"),
    ("conv2d_weight_gradient", [floats(0, 1, 1, 0), floats(2**31, 1, 1, 0), ONE, floats(0, 2**31, 1, 1)], "out", "we"),
    (
        "conv2d_neuron_spikes",
        [MANY, floats(0, 0, 1, 1), None, 1, ONE, 1, *[None] * 4, if_model(1.0), *[None] * 3, MANY, None, None],
        "words",
        "lanes",
    ),
    (
        "conv2d_spikes_weight_gradient",
        [floats(0, 1, 1, LANES[1]), None, None, None, words(1, 1, 0, 0), LANES[0], 1, ONE, 1, floats(0, 0, 1, 1)],
        "timesteps",
        "lanes",
    ),
]


@pytest.mark.parametrize(("entry", "arguments", "named", "what"), TOO_LARGE)
def test_sizes_beyond_31_bits(entry, arguments, named, what):
    with pytest.raises(ValueError, match=rf"^{entry}: argument '{named}': expected fewer than 2\*\*31 {what}"):
        getattr(_core, entry)(*arguments)


WRONG_NUMBERS = {
    "positive": [0, -1, 0.0, -0.0, 1e-320, 1e-39, 1e300, float("nan"), float("inf"), -float("inf"), 10**400],
    "number": [float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 10**400, -(10**400)],
    "chance": [-1e-9, 1.0000001, float("nan"), float("inf"), 10**400],
    "count": [0, -1, 2**31, 2**32 + 1, 2**64, 10**5000, -(10**5000)],
    "size": [-1, 2**31, 2**32 + 1, 2**64, 10**5000],
    "seed": [-1, 2**64, 10**5000, -(10**5000)],
    "neuron": [
        replace(if_model(1.0), **{field: value})
        for field in ("decay", "gain", "v_threshold", "fire", "amplitude", "divisor", "top")
        for value in (-1.0, float("nan"), float("inf"), 1e39)
    ]
    + [replace(if_model(1.0), **{field: 0.0}) for field in ("v_threshold", "fire", "amplitude", "divisor", "top")]
    + [replace(if_model(1.0), levels=levels) for levels in (0, -1, 256, 2**70)],
}
WRONG_NUMBERS["geometry"] = [
    SimpleNamespace(**vars(Geometry((3, 2))) | {field: value})
    for field, values in {
        "kernel": [(0, 2), (3, 2**31)],
        "stride": [(0, 1), (1, -1), (2**64, 1)],
        "padding": [(-1, 0, 0, 0), (0, 0, 0, 2**31)],
        "dilation": [(0, 1)],
        "spread": [(1, 0)],
        "groups": [0, 2**31, -(2**70)],
    }.items()
    for value in values
]
NO_GEOMETRIES = [3, (3, 2), if_model(1.0)] + [
    SimpleNamespace(**vars(Geometry((3, 2))) | {field: value})
    for field, value in (("kernel", 3), ("stride", [1, 1]), ("padding", (0, 0)), ("groups", 1.0), ("spread", (1.0, 1)))
]
# fields of another type, and objects that lack one
NO_NEURONS = [
    1.0,
    "IF",
    replace(if_model(1.0), decay=1),
    replace(if_model(1.0), closed=1),
    replace(if_model(1.0), levels=1.0),
    SimpleNamespace(decay=1.0),
]
NO_NUMBERS = [None, "1", b"1", [1], (), {}, 1j, np.array([1.0, 2.0]), object()]
# NumPy makes a number of each, of some with a warning
NO_NUMBERS += [np.array([1.0]), np.ma.masked_array([[1.0]]), np.array(b"1"), np.array(1, object), np.complex64(1)]


@pytest.mark.parametrize("case", NUMBERS, ids=ident)
def test_numbers(case, call):
    entry, index = case
    kind = arguments_of(entry)[index].kind
    no_integers = [1.0, np.float32(1), "1"] if kind in ("count", "size", "seed") else []
    no_integers += {"neuron": NO_NEURONS, "geometry": NO_GEOMETRIES}.get(kind, [])
    wrong = [(ValueError, value) for value in WRONG_NUMBERS[kind]]
    wrong += [(TypeError, value) for value in NO_NUMBERS + no_integers]
    for error, value in wrong:
        arguments = call(entry)
        arguments[index] = value
        refused(entry, arguments, index, error)


@pytest.mark.parametrize("case", NUMBERS, ids=ident)
def test_numbers_of_any_class(case, call):
    entry, index = case
    arguments = call(entry)
    plain = arguments[index]
    if arguments_of(entry)[index].kind in ("neuron", "geometry"):
        arguments[index] = SimpleNamespace(**vars(plain))
        getattr(_core, entry)(*arguments)
        return
    for value in (np.array(plain), np.int64(plain) if isinstance(plain, int) else np.float64(plain)):
        arguments[index] = value
        getattr(_core, entry)(*arguments)


def test_a_number_that_takes_the_memory_of_an_array_away():
    """Its methods run before the arrays are looked at."""
    words, out = np.zeros(1000, np.uint32), np.zeros(1000, np.uint32)

    class Number:
        def __float__(self):
            words.resize(0, refcheck=False)
            return 1.0

    with pytest.raises(ValueError, match=r"^dropout_words: argument 'out': expected axes"):
        _core.dropout_words(words, Number(), 1, out)


@pytest.mark.parametrize("entry", ENTRIES)
def test_wrong_count(entry, call):
    arguments = call(entry)
    for wrong in ([], arguments[:-1], [*arguments, 1], arguments * 20):
        with pytest.raises(TypeError, match=f"^{entry}: expected {len(arguments)} arguments, got {len(wrong)}$"):
            getattr(_core, entry)(*wrong)
    with pytest.raises(TypeError, match="keyword"):
        getattr(_core, entry)(*arguments, out=None)


@pytest.mark.parametrize("table_bits", [3, 5, 8])
@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if " table_bits:" in ENTRIES[entry]])
def test_table_bits_are_1_2_or_4(entry, table_bits, call):
    index = [argument.name for argument in arguments_of(entry)].index("table_bits")
    arguments = call(entry)
    arguments[index] = table_bits
    refused(entry, arguments, index, ValueError)


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if " table_bits:" in ENTRIES[entry]])
def test_kernels_of_too_many_taps(entry, call):
    """121 taps divided by the bits that share a table."""
    kernel = next((argument.name for argument in arguments_of(entry) if "YX" in argument.axes), "geometry")
    for side, table_bits, named in ((11, 2, "table_bits"), (12, 1, kernel)):
        sizes = {**plain_sizes(entry), "Y": side, "X": side, "H": 12, "V": 12, "padding": 6, "table_bits": table_bits}
        arguments = make_arguments(entry, np.random.default_rng(0), sizes=settle(entry, sizes))
        with pytest.raises(ValueError, match=f"^{entry}: argument '{named}': expected at most 121 taps"):
            getattr(_core, entry)(*arguments)


# f and u make arrays of zeros, float32 and uint32; S a geometry with this stride and padding
HUGE = "2**31 - 2, 2**31 - 2, 1, 1, 2**30 - 1, 2**30 - 1"  # windows of a pooling
HARD_CALLS = [
    "_core.conv2d_input_gradient(f(1, 1, 1, 1), f(1, 1, 1, 1), S(2**31 - 1, 0), f(1, 1, 1, 1))",
    "_core.conv2d(f(1, 1, 1, 1), f(1, 1, 1, 1), None, S(2**31 - 1, 0), f(1, 1, 1, 1))",
    "_core.conv2d(f(1, 1, 1, 1), f(1, 1, 1, 1), None, S(2**30, 2**30), f(1, 3, 3, 1))",
    "_core.conv2d_weight_gradient(f(1, 3, 3, 1), f(1, 1, 1, 1), S(2**30, 2**30), f(1, 1, 1, 1))",
    f"_core.avg_pool(f(1, 2, 2, 1), {HUGE}, f(1, 3, 3, 1))",
    f"_core.max_pool(f(1, 2, 2, 1), {HUGE}, f(1, 3, 3, 1))",
    f"_core.avg_pool_backward(f(1, 3, 3, 1), {HUGE}, f(1, 2, 2, 1))",
    f"_core.max_pool_backward(f(1, 3, 3, 1), f(1, 2, 2, 1), {HUGE}, f(1, 2, 2, 1))",
    "_core.conv2d_spikes(u(1, 2, 2, 1), f(1, 1, 1, 1), None, 1, S(1431655765, 2**31 - 1), 1, 0, None, f(1, 4, 4, 1))",
    "_core.conv2d_spikes(u(1, 1, 1, 1), f(1, 1, 1, 1), None, 1, S(2**31 - 1, 2**31 - 1), 1, 0, None, f(1, 3, 3, 1))",
    "_core.conv2d_spikes(u(0, 1, 1, 1), f(1, 0, 1, 1), None, 1, G((1, 1)), 1, 0, None, f(1, 1, 1, 1))",
    "_core.conv2d_spikes_weight_gradient(f(1, 4, 4, 1), None, None, None, u(2, 2, 1, 32), 1, 1, "
    "S(1431655765, 2**31 - 1), 1, f(1, 1, 1, 1))",
    "_core.conv2d_neuron_spikes(u(1, 1, 1, 1, 1), f(1, 1, 1, 1), None, 1, S(2**31 - 1, 2**31 - 1), 1, None, None, "
    "None, None, dsr.ops.if_model(1), None, None, None, u(1, 3, 3, 1, 1), None, None)",
    "_core.conv2d_spikes_sum(u(1, 1, 1, 1, 1), f(1, 1, 1, 1), None, 1, S(2**31 - 1, 2**31 - 1), 1, None, None, f(1), "
    "None, f(1, 3, 3, 1))",
    "_core.count_steps(u(31, 0, 2**33, 0), 2**31 - 1, u(0, 64, 0))",
    "_core.conv2d_neuron_spikes(u(0, 1, 1, 1, 0), f(1, 0, 1, 1), None, 1, S(1, 0), 1, None, None, None, None, "
    "dsr.ops.lif_model(1, 1, 1), None, None, None, u(1, 1, 1, 1, 0), None, None)",
    f"_core.pool_planes(u(1, 2, 2, 1), {HUGE}, u(62, 1, 3, 3, 1))",
    "_core.encode_phase(f(1), 2**31 - 1, f(2, 1))",
    "_core.encode_latency(f(0), f(2**31 - 1, 0))",
    "_core.conv2d(f(1, 3, 1, 1), f(1, 1, 2, 1), None, G((2, 1), dilation=(2**31 - 1, 1), "
    "padding=(2**30, 2**30, 0, 0)), f(1, 4, 1, 1))",
    "_core.conv2d_spikes(u(1, 2, 1, 1), f(1, 1, 2, 1), None, 1, G((2, 1), dilation=(2**31 - 1, 1), "
    "spread=(2**31 - 1, 1)), 1, 0, None, f(1, 1, 1, 1))",
    "_core.conv2d_input_gradient(f(0, 1, 1, 1), f(0, 2, 1, 1), G((1, 1), (2**31 - 1,) * 2, groups=2), f(4, 1, 1, 1))",
    "_core.conv2d(f(0, 1, 1, 1), f(0, 0, 1, 1), None, G((1, 1), groups=2**31 - 1), f(0, 1, 1, 1))",
]


@pytest.mark.parametrize("number", range(len(HARD_CALLS)))
def test_hard_calls_end(number):
    """Numbers in range but huge, and nothing to add up: refused or done within 20 s, where it takes 1 ms, and no crash.

    Time and memory go with the arrays, not with a stride; MemoryError is an answer too.
    """
    lines = [
        "import numpy as np, dsr",
        "from dsr import _core",
        "from dsr.ops import Geometry as G",
        "S = lambda stride, padding: G((1, 1), (stride,) * 2, (padding,) * 4)",
        "f = lambda *shape: np.zeros(shape, np.float32)",
        "u = lambda *shape: np.zeros(shape, np.uint32)",
        "try:",
        f"    {HARD_CALLS[number]}",
        "except (ValueError, MemoryError) as error:",
        "    print(error)",
    ]
    # -P: import the dsr that this process has, not a folder of that name
    subprocess.run([sys.executable, "-P", "-c", "\n".join(lines)], check=True, timeout=patiently(20))


THREADS_REFUSED = r"^set_threads: argument 'threads': expected an integer in \[1, 1024\], got "


@pytest.mark.parametrize("wrong", [0, -1, 1025, 2**40, 10**30])
def test_set_threads_out_of_range(wrong):
    with pytest.raises(ValueError, match=THREADS_REFUSED):
        _core.set_threads(wrong)


@pytest.mark.parametrize("wrong", [None, 1.0, "2", [1]])
def test_set_threads_no_integer(wrong):
    with pytest.raises(TypeError, match=THREADS_REFUSED):
        _core.set_threads(wrong)


def test_set_threads_of_a_number_too_long_to_print():
    with pytest.raises(ValueError, match=THREADS_REFUSED):
        _core.set_threads(10**5000)


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"OMP_NUM_THREADS": "100000"}, 1024),
        ({"OMP_NUM_THREADS": "2147483647"}, 1024),
        ({"OMP_NUM_THREADS": "100000,4"}, 1024),
        ({"OMP_NUM_THREADS": "3,100000"}, 3),
        ({"OMP_NUM_THREADS": "100000", "OMP_THREAD_LIMIT": "2"}, 1024),
        ({"OMP_NUM_THREADS": "3", "OMP_THREAD_LIMIT": "1000000"}, 3),
        ({"OMP_NUM_THREADS": "99999999999999999999"}, None),
        ({"OMP_NUM_THREADS": "0"}, None),
        ({"OMP_NUM_THREADS": "many", "OMP_THREAD_LIMIT": "-1"}, None),
    ],
)
def test_any_number_of_threads_in_the_environment(environment, threads):
    """OpenMP ignores what is no number (None); a team of 100,000 threads ended in a segmentation fault."""
    lines = [
        "import numpy as np, dsr",
        "x = np.full((3, 40000), 0.5, 'f4')",
        "assert dsr.functional.if_forward(x, 1.0).sum() == 80000",
        "print(dsr.get_num_threads())",
    ]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    command = [sys.executable, "-P", "-c", "\n".join(lines)]
    done = subprocess.run(
        command, env=clean | environment, capture_output=True, text=True, check=True, timeout=patiently(100)
    )
    assert int(done.stdout) == (threads or int(done.stdout)) <= 1024


def test_set_threads_holds_in_every_thread():
    before, seen = _core.threads(), []
    try:
        _core.set_threads(3)
        other = threading.Thread(target=lambda: seen.append(_core.threads()))
        other.start()
        other.join()
    finally:
        _core.set_threads(before)
    assert seen == [3]
