"""Every argument of every entry of dsr._core is checked, by one message form, and inputs stay as they are."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading

import numpy as np
import pytest
from core_table import ENTRIES, arguments_of, draw_sizes, make_arguments, plain_sizes
from core_table import NUMBERS as NUMBERS_RETURNED

from dsr import _core

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
    assert set(ENTRIES) == functions - {"level", "threads", "set_threads", "blas", "kernels"}
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
    free, fixed = 0, "WIJSKV" + ("NT" if entry == "conv2d_spikes_weight_gradient" else "")
    for index, argument in enumerate(arguments_of(entry)):
        for axis, letter in enumerate(argument.axes):
            arguments = call(entry)
            shape = list(arguments[index].shape)
            shape[axis] += 1
            arguments[index] = np.zeros(shape, arguments[index].dtype)
            others = [a.axes for i, a in enumerate(arguments_of(entry)) if i != index]
            if letter in "".join(others) or letter in fixed:
                with pytest.raises(ValueError, match=f"^{entry}: argument '.*': expected "):
                    getattr(_core, entry)(*arguments)
            else:
                free += 1
    assert free <= 8


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


WRONG_NUMBERS = {
    "positive": [0, -1, 0.0, -0.0, 1e-320, 1e-39, 1e300, float("nan"), float("inf"), -float("inf"), 10**400],
    "number": [float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 10**400, -(10**400)],
    "alpha": [0, 2.0**-21, 1.0000001, -0.5, float("nan"), float("inf"), 10**400],
    "chance": [-1e-9, 1.0000001, float("nan"), float("inf"), 10**400],
    "count": [0, -1, 2**31, 2**32 + 1, 2**64, 10**5000, -(10**5000)],
    "size": [-1, 2**31, 2**32 + 1, 2**64, 10**5000],
    "seed": [-1, 2**64, 10**5000, -(10**5000)],
}
NO_NUMBERS = [None, "1", b"1", [1], (), {}, 1j, np.array([1.0, 2.0]), object()]
# NumPy makes a number of each, of some with a warning
NO_NUMBERS += [np.array([1.0]), np.ma.masked_array([[1.0]]), np.array(b"1"), np.array(1, object), np.complex64(1)]


@pytest.mark.parametrize("case", NUMBERS, ids=ident)
def test_numbers(case, call):
    entry, index = case
    kind = arguments_of(entry)[index].kind
    no_integers = [1.0, np.float32(1), "1"] if kind in ("count", "size", "seed") else []
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
    for value in (np.array(plain), np.int64(plain) if isinstance(plain, int) else np.float64(plain)):
        arguments[index] = value
        getattr(_core, entry)(*arguments)


@pytest.mark.parametrize("entry", ENTRIES)
def test_wrong_count(entry, call):
    arguments = call(entry)
    for wrong in ([], arguments[:-1], [*arguments, 1], arguments * 20):
        with pytest.raises(TypeError, match=f"^{entry}: expected {len(arguments)} arguments, got {len(wrong)}$"):
            getattr(_core, entry)(*wrong)
    with pytest.raises(TypeError, match="keyword"):
        getattr(_core, entry)(*arguments, out=None)


@pytest.mark.parametrize("group", [3, 5, 8])
@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if " group:" in ENTRIES[entry]])
def test_groups_are_1_2_or_4_bits(entry, group, call):
    index = [argument.name for argument in arguments_of(entry)].index("group")
    arguments = call(entry)
    arguments[index] = group
    refused(entry, arguments, index, ValueError)


@pytest.mark.parametrize("entry", ["avg_pool", "avg_pool_backward"])
def test_padding_of_pools(entry, call):
    arguments = call(entry)
    arguments[1:4] = [2, 1, 2]
    refused(entry, arguments, 3, ValueError)


# f and u make arrays of zeros, float32 and uint32
HARD_CALLS = [
    "_core.conv2d_input_gradient(f(1, 1, 1, 1), f(1, 1, 1, 1), 2**31 - 1, 0, f(1, 1, 1, 1))",
    "_core.conv2d(f(1, 1, 1, 1), f(1, 1, 1, 1), None, 2**31 - 1, 0, f(1, 1, 1, 1))",
    "_core.conv2d(f(1, 1, 1, 1), f(1, 1, 1, 1), None, 2**30, 2**30, f(1, 3, 3, 1))",
    "_core.conv2d_weight_gradient(f(1, 3, 3, 1), f(1, 1, 1, 1), 2**30, 2**30, f(1, 1, 1, 1))",
    "_core.avg_pool(f(1, 2, 2, 1), 2**31 - 2, 1, 2**30 - 1, f(1, 3, 3, 1))",
    "_core.avg_pool(f(1, 1, 1, 1), 2**31 - 1, 1, 2**30 - 1, f(1, 1, 1, 1))",
    "_core.avg_pool_backward(f(1, 3, 3, 1), 2**31 - 2, 1, 2**30 - 1, f(1, 2, 2, 1))",
    "_core.conv2d_spikes(u(1, 2, 2, 1), f(1, 1, 1, 1), None, 1, 1431655765, 2**31 - 1, 1, 0, f(1, 4, 4, 1))",
    "_core.conv2d_spikes(u(1, 1, 1, 1), f(1, 1, 1, 1), None, 1, 2**31 - 1, 2**31 - 1, 1, 0, f(1, 3, 3, 1))",
    "_core.conv2d_spikes(u(0, 1, 1, 1), f(1, 0, 1, 1), None, 1, 1, 0, 1, 0, f(1, 1, 1, 1))",
    "_core.conv2d_spikes_weight_gradient(f(1, 4, 4, 1), None, None, u(2, 2, 1, 32), 1, 1, 1431655765, 2**31 - 1, "
    "1, f(1, 1, 1, 1))",
    "_core.conv2d_if_spikes(u(1, 1, 1, 1, 1), f(1, 1, 1, 1), None, 1, 2**31 - 1, 2**31 - 1, 1, None, 0, None, None, 1, "
    "1, u(1, 3, 3, 1, 1))",
    "_core.conv2d_lif_spikes(u(0, 1, 1, 1, 0), f(1, 0, 1, 1), None, 1, 1, 0, 1, None, 0, None, None, 1, 1, 1, 1, "
    "u(1, 1, 1, 1, 0))",
    "_core.pool_planes(u(1, 2, 2, 1), 2**31 - 2, 1, 2**30 - 1, u(62, 1, 3, 3, 1))",
    "_core.encode_phase(f(1), 2**31 - 1, f(2, 1))",
    "_core.encode_latency(f(0), f(2**31 - 1, 0))",
]


@pytest.mark.parametrize("number", range(len(HARD_CALLS)))
def test_hard_calls_end(number):
    """Numbers in range but huge, and nothing to add up: refused or done within 20 s, where it takes 1 ms, and no crash.

    Time and memory go with the arrays, not with a stride; MemoryError is an answer too.
    """
    lines = [
        "import numpy as np",
        "from dsr import _core",
        "f = lambda *shape: np.zeros(shape, np.float32)",
        "u = lambda *shape: np.zeros(shape, np.uint32)",
        "try:",
        f"    {HARD_CALLS[number]}",
        "except (ValueError, MemoryError) as error:",
        "    print(error)",
    ]
    # -P: import the dsr that this process has, not a folder of that name
    subprocess.run([sys.executable, "-P", "-c", "\n".join(lines)], check=True, timeout=20)


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
