"""Calls of every compiled entry, and of every function of dsr.functional and dsr.ops, that Hypothesis thinks of.

A call is valid, or one or two of its arguments are changed: other values, layouts, dtypes, sizes, other arguments of
the call, or something that rarely fits. What is accepted gives the result of dsr.reference, to the bit where the
operation is EXACT and within the documented bound where it is ROUNDED; anything else is a TypeError or ValueError whose
message names function and argument. Inputs keep their bytes, outputs keep them where the call is refused, and nothing
is written beside an output. Numbers in range but huge are in tests/test_core_arguments.py, where a call that does not
end can be stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import ops_table
import pytest
import wild
from core_table import ENTRIES, arguments_of, make_arguments
from entry_oracles import ORACLES, assert_agrees, moments, product_moments, threshold_gradients
from functional_table import ARRAYS, FUNCTIONS, kinds_of, make_call

from dsr import _core, functional, ops, reference

FENCE = 64
SHORT, FULL = 30, 10000


class Tally:
    """How many calls were accepted and refused."""

    def __init__(self) -> None:
        self.accepted = self.refused = 0

    def __str__(self) -> str:
        return f"{self.accepted} results, {self.refused} refusals"


def fenced(value: np.ndarray, fences: list[np.ndarray]) -> np.ndarray:
    """A copy of an output with bytes around it that must stay."""
    room = np.full(value.nbytes + 3 * FENCE, 0xA5, np.uint8)
    room = room[-room.ctypes.data % FENCE :][: value.nbytes + 2 * FENCE]  # rows of channels begin at multiples of 64
    fences.append(room)
    copy = room[FENCE : FENCE + value.nbytes].view(value.dtype).reshape(value.shape)
    copy[...] = value
    return copy


def assert_fences_stand(fences: list[np.ndarray]) -> None:
    for room in fences:
        assert room[:FENCE].tobytes() + room[-FENCE:].tobytes() == b"\xa5" * (2 * FENCE)


def attempt(
    function: Callable[..., Any], name: str, arguments: list[Any], keywords: dict[str, Any]
) -> tuple[bool, Any]:
    """Whether a call was accepted, and its result; an error must be of the two kinds and name the function."""
    try:
        return True, function(*arguments, **keywords)
    except (TypeError, ValueError) as error:
        message = str(error)
        assert message.startswith(name), f"the message does not begin with {name}: {message}"
        assert len(message.splitlines()) == 1 and len(message) < 2000, message
        return False, message


def copies(values: Any) -> list[Any]:
    """Copies of arrays, plain ones; the rest as it is."""
    return [copy(value) for value in values]


def copy(value: Any) -> Any:
    return np.array(value) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("entry", ENTRIES)
def test_core(entry, amount, figure):
    table, function, tally = arguments_of(entry), getattr(_core, entry), Tally()
    outputs = [i for i, argument in enumerate(table) if argument.output]

    def valid(rng: np.random.Generator) -> list[Any]:
        arguments = make_arguments(entry, rng, rng.choice([np.float32, np.float64]))
        for argument, value in zip(table, arguments, strict=True):
            if argument.kind == "uint32" and argument.axes and not argument.output:
                clear_missing_bits(argument.axes, value, arguments)
        return [
            None if argument.optional and rng.random() < 0.2 else value
            for argument, value in zip(table, arguments, strict=True)
        ]

    def clear_missing_bits(axes: str, words: np.ndarray, arguments: list[Any]) -> None:
        """Bits of channels that do not exist are zero: a promise of whoever makes words."""
        sizes = {
            letter: size
            for argument, value in zip(table, arguments, strict=True)
            if argument.axes
            for letter, size in zip(argument.axes, value.shape, strict=True)
        }
        if axes == "HVKN":
            used = np.zeros((32 * sizes["K"],), np.uint8)
            used[: arguments[5] * sizes["B"]] = 1
            words &= np.packbits(used, bitorder="little").view(np.uint32)[:, np.newaxis]
        elif axes[0] in "WK" and (beyond := sizes.get("C" if axes[0] == "W" else "O", 0) % 32):
            words[-1] &= np.uint32(2**beyond - 1)

    def check(case: wild.Case) -> None:
        rng, fences = wild.rng_of(entry, case), []
        arguments = valid(rng)
        for i in outputs:
            if arguments[i] is not None:
                arguments[i] = fenced(arguments[i], fences)
        arguments = wild.changed(arguments, case, lambda: valid(rng))
        if case.seed % 61 == 0:
            arguments = [[], arguments[1:], [*arguments, None], arguments * 3][case.seed // 61 % 4]
        before, kept = wild.bytes_of(arguments), copies(arguments)
        accepted, result = attempt(function, f"{entry}: ", arguments, {})
        assert_fences_stand(fences)
        if not accepted:
            tally.refused += 1
            assert len(arguments) != len(table) or any(f"argument '{argument.name}'" in result for argument in table)
            assert wild.bytes_of(arguments) == before
            return
        tally.accepted += 1
        for argument, value, old in zip(table, arguments, kept, strict=True):
            if argument.axes and not argument.output and value is not None:
                assert value.tobytes() == old.tobytes()
        numbers = [value if argument.axes else plain(value) for argument, value in zip(table, kept, strict=True)]
        with np.errstate(all="ignore"):
            expected = ORACLES[entry](*numbers)
        found = [arguments[i] for i in outputs] + ([] if result is None else [result])
        for actual, wanted in zip(found, expected, strict=True):
            if actual is not None:  # an output that may be left out, and was
                assert_agrees(actual, wanted)

    wild.repeat(amount(SHORT, FULL), wild.cases(), check)
    figure(str(tally))
    # of 30 cases affine took 5 with the hypothesis of one machine
    assert tally.accepted >= amount(0.1, 0.2) * amount(SHORT, FULL)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functional(name, amount, figure):
    function, oracle, kinds, tally = getattr(functional, name), getattr(reference, name), kinds_of(name), Tally()

    def valid(rng: np.random.Generator) -> dict[str, Any]:
        rest = ((), (0,), (1,), (17,), (3, 2), (2, 0), (2, 1, 3))[rng.integers(7)]
        return make_call(name, rng, (int(rng.integers(1, 6)), *rest), str(rng.choice(["f4", "f8", ">f4", "f2"])))

    def check(case: wild.Case) -> None:
        rng, fences = wild.rng_of(name, case), []
        call = valid(rng)
        keys = [*call, "out"]
        if rng.random() < 0.5:
            with np.errstate(all="ignore"):
                result = function(**call)
            call["out"] = fenced(result[0] if isinstance(result, tuple) else result, fences)
        if name.startswith("lif") and "backward" in name and rng.random() < 0.5:
            call["gradient"] = str(rng.choice(["published", "exact"]))
        values = wild.changed([call.get(key) for key in keys], case, lambda: [valid(rng).get(key) for key in keys])
        call |= dict(zip(keys, values, strict=True))
        if case.seed % 61 == 0:
            call["unknown"] = None
        out = call["out"]
        inputs = [call[key] for key, kind in kinds.items() if kind in ARRAYS]
        shared = any(
            np.may_share_memory(array, out) for array in wild.arrays_in([*inputs]) if isinstance(out, np.ndarray)
        )
        before, kept = (
            wild.bytes_of(inputs),
            {key: np.array(v) if kinds.get(key) in ARRAYS else copy(v) for key, v in call.items()}
            if accepts_copies(inputs)
            else None,
        )
        accepted, result = attempt(function, name, [], call)
        assert_fences_stand(fences)
        assert wild.bytes_of(inputs) == before or (accepted and shared)
        if not accepted:
            tally.refused += 1
            assert "argument '" in result or "expected values that fit" in result, result
            return
        tally.accepted += 1
        if kept is not None:
            del kept["out"]
            arrays = {key: real(value) for key, value in kept.items() if kinds.get(key) in ARRAYS}
            common = np.result_type(*(a.dtype for a in arrays.values()))
            numbers = {key: plain(value) for key, value in kept.items() if key not in arrays}
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = oracle(**{key: a.astype(common) for key, a in arrays.items()}, **numbers)
            if isinstance(expected, tuple):
                g = np.abs(arrays["grad_output" if "grad_output" in arrays else "grad_rate"].astype(np.float64)).sum()
                size = g * max(1.0, 1 / float(call["delta_t"]), float(call["delta_t"])) if "delta_t" in call else g
                assert_agrees(result[0], expected[0])
                assert not np.isfinite(size) or abs(result[1] - expected[1]) <= 1e-12 * size
            else:
                assert_agrees(np.asarray(result), expected)
            if out is not None:
                assert (result[0] if isinstance(result, tuple) else result) is out

    wild.repeat(amount(SHORT, FULL), wild.cases(), check)
    figure(str(tally))
    assert tally.accepted >= 0.2 * amount(SHORT, FULL)


def accepts_copies(values: list[Any]) -> bool:
    """Whether NumPy makes arrays of them: not of objects whose conversion fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return all(np.array(value).dtype.kind in "biuf" for value in values)
    except Exception:  # of objects made to raise any
        return False


def real(value: np.ndarray) -> np.ndarray:
    return value.astype(np.result_type(np.float32, value.dtype))


def plain(value: Any) -> Any:
    """A number of NumPy as one of Python, and True as 1; the rest as it is."""
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
        value = float(value) if value.dtype.kind == "f" else value.item()
    return int(value) if isinstance(value, bool) else value


LANES = [*ops_table.EXACT, "conv2d", "conv2d_input_gradient", "conv2d_weight_gradient", "conv2d_spikes"]
LANES += ["pack_weights"]
LANES += [*(f"conv2d_neuron_spikes {model}" for model in ops_table.MODELS), "conv2d_spikes_sum"]
LANES += ["conv2d_spikes_weight_gradient"]
TAKE_CONVOLUTIONS = ("conv2d_neuron_spikes", "conv2d_spikes_sum")


def test_every_function_of_lanes_is_called():
    functions = {
        name
        for name, f in vars(ops).items()
        if callable(f) and getattr(f, "__module__", "").startswith("dsr.ops.") and not name.endswith("_model")
    }
    called = {name.split()[0] for name in LANES}
    assert {name for name in functions if not name.startswith("_")} == {*called, *OTHERS, *INTEGERS, "SpikeConvolution"}


OTHERS = {"word_count", "Geometry", "mirrored_weight", "output_size", "best_table_bits", "NeuronModel", "concat_words"}
OTHERS |= {"row_potentials", "neuron_steps", "weight_gradient_by_winograd", "conv2d_winograd"}
"""Arithmetic on plain numbers, for layers that have checked them, what calls NumPy alone, and what is called above."""
INTEGERS = {"PackedWeights", "IntegerInput", "IntegerNeurons", "pack_integers", "pack_for_values"} | {
    "integer_conv2d_spikes",
    "integer_conv2d_neuron_spikes",
}
"""What hands arrays on to compiled entries, which `test_core` calls; tests/test_integer_conv.py has their results."""


def make_ops_call(function: str, rng: np.random.Generator) -> list[Any]:
    """Arguments in the order of the function's."""
    channels, height, width, timesteps, batch = (int(rng.integers(1, 6)) for _ in range(5))
    channels = int(rng.choice([1, 5, 32, 33]))
    if function in ops_table.EXACT:
        return ops_table.make_call(function, rng, (channels, max(height, 2), max(width, 2), timesteps, batch))
    outputs, kernel_h, kernel_w = (int(rng.integers(1, 4)) for _ in range(3))
    stride, padding = int(rng.integers(1, 3)), int(rng.integers(0, 3))
    height, width = max(height, kernel_h), max(width, kernel_w)
    groups = int(rng.choice([1, 1, channels]))
    outputs *= groups
    geometry = ops.Geometry.of("fuzz", (kernel_h, kernel_w), stride, padding, 1, groups)
    if rng.random() < 0.3:
        geometry = ops.Geometry((kernel_h, kernel_w), groups=groups, spread=(stride, stride))
    rows, columns = geometry.output_size(height, width)
    weight = ops_table.floats(rng, outputs, channels // groups, kernel_h, kernel_w)
    bias = ops_table.floats(rng, outputs) if rng.random() < 0.5 else None
    values = ops_table.floats(rng, channels, height, width, batch)
    grad = ops_table.floats(rng, outputs, rows, columns, batch)
    words = ops_table.bits(rng, channels, height, width, timesteps, batch)
    table_bits = int(rng.choice([1, 2, 4]))
    if function == "pack_weights":
        return [weight, geometry]
    if function == "conv2d":
        return [values, weight, bias, geometry]
    if function == "conv2d_input_gradient":
        return [grad, weight, height, width, geometry]
    if function == "conv2d_weight_gradient":
        return [grad, values, geometry]
    if function == "conv2d_spikes":
        out = ops_table.floats(rng, outputs, rows, columns, timesteps, batch) if rng.random() < 0.5 else None
        return [words, weight, bias, 0.5, geometry, table_bits, out]
    if function == "conv2d_spikes_weight_gradient":
        dense = ops_table.floats(rng, outputs, rows, columns, timesteps, batch)
        slope, dense = (ops_table.floats(rng, outputs), dense) if rng.random() < 0.5 else (None, None)
        return [grad, slope, dense, words, weight.shape, 0.5, geometry, table_bits]
    shortcut = ops_table.bits(rng, outputs, rows, columns, timesteps, batch) if rng.random() < 0.5 else None
    convolution = [words, weight, bias, 0.5, geometry, table_bits, shortcut, 0.25]
    if function == "conv2d_spikes_sum":
        return [*convolution, ops_table.floats(rng, timesteps)]
    scale, shift = ops_table.floats(rng, outputs), ops_table.floats(rng, outputs)
    return [*convolution, ops_table.MODELS[function.partition(" ")[2]], scale, shift]


@pytest.mark.parametrize("name", LANES)
def test_ops(name, amount, figure):
    function, tally, of_convolution = name.split()[0], Tally(), 8 if name.startswith(TAKE_CONVOLUTIONS) else 0

    def call_of(module: Any, arguments: list[Any]) -> Any:
        if of_convolution:
            first = ops.SpikeConvolution(*arguments[:of_convolution])
            return getattr(module, function)(first, *arguments[of_convolution:])
        return getattr(module, function)(*arguments)

    def check(case: wild.Case) -> None:
        rng = wild.rng_of(name, case)
        arguments = wild.changed(make_ops_call(name, rng), case, lambda: make_ops_call(name, rng))
        written = {"add_words": 1, "conv2d_spikes": 6}.get(name)
        before = wild.bytes_of(arguments)
        kept = copies(arguments)
        accepted, result = attempt(lambda *a: call_of(ops, list(a)), function, arguments, {})
        if not accepted:
            tally.refused += 1
            assert "argument '" in result, result
            assert wild.bytes_of(arguments) == before
            return
        tally.accepted += 1
        for i, (value, old) in enumerate(zip(arguments, kept, strict=True)):
            assert i == written or not isinstance(value, np.ndarray) or value.tobytes() == old.tobytes()
        if case.changes and name not in ops_table.EXACT:
            return  # of the compiled entry above
        kept = [plain(value) for value in kept]
        with np.errstate(all="ignore"):
            if name in ops_table.EXACT:
                ours = {"moments": moments, "product_moments": product_moments}
                oracle = ours.get(name) or getattr(reference, function)
                flat = [a.reshape(len(a), prod(a.shape[1:])) for a in kept] if name.endswith("moments") else kept
                found = oracle(*flat)
                summed = function == "neuron_spikes_backward"
                expected = threshold_gradients(found, flat[0]) if summed else as_list(found)
                for actual, wanted in zip(as_list(result), expected, strict=True):
                    if wanted is None:
                        assert actual is None
                    else:
                        assert_agrees(np.asarray(actual), wanted)
            elif not of_convolution and name not in ("conv2d_spikes_weight_gradient", "pack_weights"):
                few = kept[:5] if name == "conv2d_spikes" else kept
                expected = getattr(reference, name)(*[a.astype(np.float64) if is_real(a) else a for a in few])
                expected = expected + kept[6] if name == "conv2d_spikes" and kept[6] is not None else expected
                np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3)

    wild.repeat(amount(SHORT, FULL), wild.cases(), check)
    figure(str(tally))
    assert tally.accepted >= 0.2 * amount(SHORT, FULL)


def as_list(result: Any) -> list[Any]:
    return list(result) if type(result) in (tuple, list) else [result]


def is_real(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"
