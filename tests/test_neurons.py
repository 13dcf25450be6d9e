"""Neurons, representations and DSR gradients of dsr.functional: parity with the oracle, and laws."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from checks import assert_same, sum_in_contract_order
from functional_table import ARRAYS, FUNCTIONS, OPTIONAL, TAKE_NAN, kinds_of, make_call, result_array
from hypothesis import given
from hypothesis import strategies as st

from dsr import functional, reference

NEURONS = [name for name in FUNCTIONS if not name.startswith("encode_")]
GRADIENTS = [name for name in NEURONS if name.endswith("backward")]
# around the vector lengths (16), the partial sums (16) and the chunk (512) of the kernels
SIZES = [0, 1, 15, 16, 17, 511, 512, 513, 1000]
SHAPES = [
    *itertools.product([1, 2, 5, 20], SIZES),
    (3,),
    (1,),
    (4, 0, 3),
    (7, 3, 5, 2, 2),
    (5, 1, 1, 1),
    (2, 513, 3),
]


def chunk_sum(values: np.ndarray) -> float:
    """The threshold's gradient sums chunks of 512 neurons, and then the chunks."""
    flat, total = values.ravel(), 0.0
    for first in range(0, flat.size, 512):
        total += sum_in_contract_order(flat[first : first + 512])
    return total


def threshold_gradient(function: str, call: dict[str, Any]) -> float:
    """The gradient of the threshold, in the order of additions that dsr.h promises."""
    grad, current = (value for value in call.values() if isinstance(value, np.ndarray))
    kind = grad.dtype.type
    leaky = function.startswith("lif")
    times = (call["tau"], call["delta_t"]) if leaky else ()
    if "rate" not in function:
        represent = reference.weighted_firing_rate if leaky else reference.firing_rate
        if leaky:
            grad = kind(len(grad)) * represent(grad, *times)
        else:
            grad = sum(grad[1:], start=np.zeros_like(grad[0]) + grad[0])
        current = represent(current, *times)
    top = kind(call["v_threshold"])
    if leaky:
        top = kind(call["tau"]) * top / kind(call["delta_t"])
    factor = call["levels"] * (call["delta_t"] if leaky else 1.0)
    return factor * chunk_sum(np.where(current > top * kind(call["levels"]), grad, kind(0)))


def check_parity(function: str, call: dict[str, Any]) -> None:
    with np.errstate(all="ignore"):
        expected = getattr(reference, function)(**call)
        actual = getattr(functional, function)(**call)
        assert_same(result_array(actual), result_array(expected))
        if function in GRADIENTS:
            assert_same(actual[1], threshold_gradient(function, call))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", NEURONS)
def test_parity(function, dtype, rng):
    for shape in SHAPES:
        check_parity(function, make_call(function, rng, shape, dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", NEURONS)
def test_parity_of_extreme_values(function, dtype, rng):
    """NaN and infinity where they are taken, the largest and smallest numbers everywhere."""
    infinite = [np.nan, np.inf, -np.inf] if function in TAKE_NAN else []
    for density in (0.02, 0.5):
        call = make_call(function, rng, (6, 1000), dtype)
        for value in call.values():
            if isinstance(value, np.ndarray):
                wild = rng.choice([*infinite, np.finfo(dtype).max, -np.finfo(dtype).max, -0.0, 1e-44], value.shape)
                np.copyto(value, wild.astype(dtype), where=rng.random(value.shape) < density)
        check_parity(function, call)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ">f4"])
@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name not in TAKE_NAN])
def test_values_that_are_not_finite_are_refused(function, dtype, rng):
    """Never "no spikes"; every array of every function."""
    for name, kind in kinds_of(function).items():
        for wild in (np.nan, np.inf, -np.inf) if kind in ARRAYS else ():
            call = make_call(function, rng, dtype=dtype)
            call[name].flat[[9, 11]] = wild
            index = tuple(int(i) for i in np.unravel_index(9, call[name].shape))
            given = f"2 of {call[name].size} that are not, the first at index {index}: {wild}"
            message = re.escape(f"{function}: argument '{name}': expected finite values, got {given}")
            with pytest.raises(ValueError, match=f"^{message}$"):
                getattr(functional, function)(**call)


def test_means_and_mappings_show_what_is_not_finite():
    wild = np.array([[np.nan, np.inf, -np.inf, 1.0]])
    assert_same(functional.firing_rate(wild), wild[0])
    assert_same(functional.weighted_firing_rate(wild, 1.0, 0.5), wild[0])
    assert_same(functional.if_rate(wild, 2.0), np.array([[np.nan, 2.0, 0.0, 1.0]]))
    assert_same(functional.lif_rate(wild, 2.0, 1.0, 1.0), np.array([[np.nan, 2.0, 0.0, 1.0]]))
    assert_same(functional.encode_direct(wild[0], 1), wild)


@pytest.mark.parametrize("function", GRADIENTS)
def test_oracle_sums_the_threshold_gradient_alike(function, rng):
    """The oracle adds in NumPy's order: n additions of doubles are within n eps sum|g|, eps = 2**-53, of each other."""
    call = {**make_call(function, rng, (5, 1000)), "levels": 2}
    expected = threshold_gradient(function, call)
    sum_of_absolutes = threshold_gradient(function, {**call, next(iter(call)): abs(next(iter(call.values())))})
    assert expected != 0
    assert abs(getattr(reference, function)(**call)[1] - expected) <= 2 * 1000 * 2.0**-53 * sum_of_absolutes


@pytest.mark.parametrize("function", NEURONS)
def test_threads(function, threads, rng):
    """Large enough for a team, in several chunks, the last one not whole."""
    check_parity(function, make_call(function, rng, (10, 40003) if "rate" in function else (10, 5003)))


@pytest.mark.parametrize("function", ["if_backward", "lif_backward"])
def test_ends_of_the_interval(function):
    """IF passes the gradient on the closed interval [0, V], LIF on the open one (0, tau V / delta_t)."""
    tau, delta_t, v = 1.0, 0.25, 0.5  # exact in binary, so that the means below are exact too
    top = v if function == "if_backward" else tau * v / delta_t
    currents = np.array([[np.nextafter(np.float32(0), np.float32(-1)), 0, 0.25, top, np.nextafter(top, 9, dtype="f")]])
    times = () if function == "if_backward" else (tau, delta_t)
    gradient, above = getattr(functional, function)(np.ones((1, 5), "f"), currents.astype("f"), v, *times)
    inside = [0, 1, 1, 1, 0] if function == "if_backward" else [0, 0, 1, 0, 0]
    assert gradient.tolist() == [inside]
    assert above == (1.0 if function == "if_backward" else delta_t)


@pytest.mark.parametrize("function", ["lif_backward", "lif_rate_backward"])
def test_exact_threshold_gradient_is_the_slope_of_the_mapping(function, rng):
    call = {**make_call(function, rng), "delta_t": 0.25, "levels": 1}
    published, exact = (getattr(functional, function)(**call, gradient=g)[1] for g in ("published", "exact"))
    assert published != 0
    assert exact == published / 0.25**2  # 1/dt instead of dt; powers of two are exact
    assert_same(exact, getattr(reference, function)(**call, gradient="exact")[1])
    with pytest.raises(ValueError, match=f"^{function}: argument 'gradient'"):
        getattr(functional, function)(**call, gradient="other")


# ---- laws ----------------------------------------------------------------------------------------------------------

DTYPES = st.sampled_from([np.float32, np.float64])


@st.composite
def dyadic_currents(draw, most_steps=30):
    """Multiples of 1/64 in [-4, 4]: sums of 30 need 14 bits, so float32 adds them exactly."""
    shape = draw(st.integers(1, most_steps)), draw(st.integers(1, 40))
    seed = draw(st.integers(0, 2**32 - 1))
    return (np.random.default_rng(seed).integers(-256, 257, shape) / 64).astype(draw(DTYPES))


DYADIC = st.integers(1, 128).map(lambda i: i / 32)


@given(dyadic_currents(), DYADIC, st.sampled_from([0.25, 0.5, 1.0]))
def test_if_conserves_charge(current, v_threshold, alpha):
    """What flowed in is V times the number of spikes plus the potential, and this decides on the next spike."""
    output = functional.if_forward(current, v_threshold, alpha).astype(np.float64)
    charge = np.cumsum(current, axis=0, dtype=np.float64)
    sent = np.cumsum(output, axis=0) - output
    assert np.array_equal(output != 0, charge - sent >= alpha * v_threshold)
    assert set(np.unique(output)) <= {0.0, v_threshold}


@given(st.floats(0.01, 1), st.floats(0.01, 10), st.sampled_from(["if_forward", "lif_forward"]), DTYPES)
def test_fires_at_the_product_of_rounded_numbers(alpha, v_threshold, function, dtype):
    """A neuron fires from alpha times V on, both rounded to the dtype before they are multiplied, and no earlier.
    A leak of exp(-1000) = 0 makes the first potential of LIF the current itself.
    """
    fire = dtype(alpha) * dtype(v_threshold)
    times = () if function == "if_forward" else (1.0, 1000.0)
    current = np.array([[np.nextafter(fire, dtype(0)), fire]])
    output = getattr(functional, function)(current, v_threshold, *times, alpha)
    assert (output != 0).tolist() == [[False, True]]


@given(st.floats(0, 1), st.integers(1, 400), st.floats(0.1, 1), DYADIC)
def test_rate_approaches_the_mapping(fraction, timesteps, alpha, v_threshold):
    """Inside the clamp v[T] stays in [(alpha - 1) V, alpha V), so the rate of a constant current misses it by at most
    max(alpha, 1 - alpha) V / T; each of the T steps rounds a potential below 2V twice (eps = 2**-53).
    """
    current = fraction * v_threshold
    rate = functional.firing_rate(functional.if_forward(np.full(timesteps, current), v_threshold, alpha))
    bound = max(alpha, 1 - alpha) * v_threshold / timesteps + 8 * timesteps * 2.0**-53 * v_threshold
    assert abs(rate - functional.if_rate(current, v_threshold)) <= bound


@given(st.data(), dyadic_currents(), st.sampled_from(NEURONS))
def test_neurons_do_not_know_each_other(data, current, function):
    """A permutation of the neurons permutes the result. (Dyadic numbers: the threshold's gradient is a sum.)"""
    order = data.draw(st.permutations(range(current.shape[1])))
    call = make_call(function, np.random.default_rng(0), current.shape, current.dtype)
    names = [name for name, kind in kinds_of(function).items() if kind in ARRAYS]
    for shift, name in enumerate(names):
        call[name] = np.roll(current, shift) if kinds_of(function)[name] == "train" else np.roll(current[0], shift)
    permuted = {**call, **{name: call[name][..., order] for name in names}}
    result, other = getattr(functional, function)(**call), getattr(functional, function)(**permuted)
    assert_same(result_array(other), result_array(result)[..., order])


@given(dyadic_currents(), st.integers(-20, 20), st.sampled_from(["if_forward", "lif_forward"]))
def test_scale_law(current, power, function):
    """Currents and thresholds scaled by a power of two scale the output: every rounding scales along."""
    times = () if function == "if_forward" else (1.5, 0.1)
    forward = getattr(functional, function)
    scale = current.dtype.type(2.0**power)
    assert_same(forward(current * scale, 0.75 * 2.0**power, *times), scale * forward(current, 0.75, *times))


@given(dyadic_currents(), st.integers(-20, 20))
def test_if_gradient_is_linear_in_the_output_gradient(current, power):
    grad, scale = np.roll(current, 1), current.dtype.type(2.0**power)
    gradient, above = functional.if_backward(grad, current, 0.5)
    scaled, scaled_above = functional.if_backward(grad * scale, current, 0.5)
    assert_same(scaled, scale * gradient)
    assert scaled_above == float(scale) * above


@given(dyadic_currents(), st.integers(0, 2**32 - 1))
def test_if_gradient_knows_only_sums_over_time(current, seed):
    rng = np.random.default_rng(seed)
    grad = rng.permutation(np.roll(current, 1, axis=1))
    first = functional.if_backward(grad, current, 0.5)
    second = functional.if_backward(rng.permutation(grad), rng.permutation(current), 0.5)
    assert_same(first[0], second[0])
    assert first[1] == second[1]


@pytest.mark.parametrize("function", ["if_backward", "lif_backward"])
def test_gradient_is_the_same_at_every_step(function, rng):
    gradient, _ = getattr(functional, function)(**make_call(function, rng, (9, 700)))
    assert np.count_nonzero(gradient) > 100
    assert_same(gradient, np.broadcast_to(gradient[0], gradient.shape))


@pytest.mark.parametrize("stem", ["if", "lif"])
def test_backward_is_the_rate_backward_of_the_representations(stem, rng):
    """With one step all means are the values themselves."""
    call = make_call(f"{stem}_backward", rng, (1, 600))
    gradient, above = getattr(functional, f"{stem}_backward")(**call)
    grad, current = call.pop("grad_output")[0], call.pop("current")[0]
    expected = getattr(functional, f"{stem}_rate_backward")(grad, current, **call)
    assert_same(gradient[0], expected[0])
    assert above == expected[1]


# ---- potentials ----------------------------------------------------------------------------------------------------

FORWARD = ["if_forward", "lif_forward"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", FORWARD)
def test_two_runs_with_the_potential_carried_are_one(function, dtype, rng):
    """The same bits for every place to cut, and so for one step at a time; chunks and vectors have rests."""
    call, run = make_call(function, rng, (7, 1033), dtype), getattr(functional, function)
    current, start = call.pop("current"), call.pop("v_init")
    train, end = run(current, v_init=start, return_v=True, **call)
    assert train.any() and (end != start).any()
    for cut in range(1, 7):
        first, between = run(current[:cut], v_init=start, return_v=True, **call)
        second, last = run(current[cut:], v_init=between, return_v=True, **call)
        assert_same(np.concatenate([first, second]), train)
        assert_same(last, end)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", FORWARD)
def test_potentials(function, dtype, rng):
    """Those of the oracle; None is 0; a number is that of every neuron."""
    call, run = make_call(function, rng, (5, 3, 7), dtype), getattr(functional, function)
    numbers = [call[name] for name in ("v_threshold", "tau", "delta_t", "alpha", "levels") if name in call]
    neuron = (reference.lif_neuron if "tau" in call else reference.if_neuron)(dtype, *numbers)
    current, start = call.pop("current"), call.pop("v_init")
    for v_init, array in ((start, start), (None, np.zeros_like(start)), (0.25, np.full_like(start, 0.25))):
        train, v = run(current, v_init=v_init, return_v=True, **call)
        expected, potentials = reference.neuron_forward(current, neuron, array)
        assert_same(train, expected)
        assert_same(v, potentials)
        assert_same(run(current, v_init=v_init, **call), train)


def test_a_potential_by_hand():
    """0.75 + 0.5 fires and leaves 0.25; LIF without memory of the past keeps nothing of its potential."""
    train, v = functional.if_forward([0.5, 0.25], 1.0, 1.0, v_init=0.75, return_v=True)
    assert (train.tolist(), v.tolist(), v.shape) == ([1.0, 0.0], 0.5, ())
    train, v = functional.lif_forward([[0.5]], 1.0, 1.0, 1000.0, v_init=[7.0], return_v=True)
    assert (train.tolist(), v.tolist()) == ([[0.001]], [-0.5])


@pytest.mark.parametrize("function", FORWARD)
def test_wrong_potentials(function, rng):
    call, run = make_call(function, rng), getattr(functional, function)
    for wrong in (np.zeros(7), np.zeros((1, 3, 7)), np.zeros((5, 3, 7)), [], [1.0]):
        message = f"{function}: argument 'v_init': expected shape (3, 7), one per neuron of 'current', or a number, got"
        with pytest.raises(ValueError, match=f"^{re.escape(message)} shape {re.escape(str(np.shape(wrong)))}$"):
            run(**{**call, "v_init": wrong})
    with pytest.raises(
        ValueError, match=f"^{function}: argument 'v_init': expected a potential that fits float32, got"
    ):
        run(**{**call, "v_init": 1e300})
    for wrong in ("yes", 2, None, [True]):
        with pytest.raises(TypeError, match=f"^{function}: argument 'return_v': expected True or False, got"):
            run(**call, return_v=wrong)


# ---- what arrays may be --------------------------------------------------------------------------------------------


def arrays_of(call: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: value for name, value in call.items() if isinstance(value, np.ndarray)}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_out(function, dtype, rng):
    """A contiguous, strided, byte-swapped or unaligned out, or one that is the input, gets what a new array gets."""
    call = make_call(function, rng, (4, 3, 33), dtype)
    run = getattr(functional, function)
    expected = run(**call)
    shape = result_array(expected).shape
    unaligned = np.zeros(result_array(expected).nbytes + 1, np.uint8)[1:].view(dtype).reshape(shape)
    outs = [
        np.empty(shape, dtype),
        np.empty((*shape[:-1], shape[-1] * 2), dtype)[..., ::2],
        np.empty(shape[::-1], dtype).T,
        np.empty(shape, np.dtype(dtype).newbyteorder()),
        unaligned,
    ]
    for out in outs:
        result = run(**call, out=out)
        assert result_array(result) is out
        assert_same(out.astype(dtype), result_array(expected))
        if isinstance(result, tuple):
            assert result[1] == expected[1]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_out_shares_memory_with_an_input(function, rng):
    call = make_call(function, rng, (4, 3, 33))
    run = getattr(functional, function)
    expected = result_array(run(**call))
    for name, value in arrays_of(call).items():
        for shift in (0, 1, 33):
            size = max(value.size, expected.size)
            room = np.zeros(size + shift, np.float32)
            moved = room[shift : shift + value.size].reshape(value.shape)
            moved[...] = value
            out = room[: expected.size].reshape(expected.shape)
            result = run(**{**call, name: moved}, out=out)
            assert_same(result_array(result), expected)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_wrong_out(function, rng):
    call = make_call(function, rng, (4, 3, 33))
    run = getattr(functional, function)
    shape = result_array(run(**call)).shape
    read_only = np.empty(shape, np.float32)
    read_only.flags.writeable = False
    wrong: list[tuple[type[Exception], Any]] = [
        (TypeError, np.empty(shape, np.float64)),
        (TypeError, np.empty(shape, np.int32)),
        (TypeError, [0.0]),
        (ValueError, np.empty((*shape, 1), np.float32)),
        (ValueError, np.empty((*shape[:-1], 32), np.float32)),
        (ValueError, read_only),
    ]
    for error, out in wrong:
        with pytest.raises(error, match=f"^{function}: argument 'out'"):
            run(**call, out=out)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_any_array_of_numbers(function, rng):
    """Strides, byte order, alignment, read-only memory and narrow dtypes: the values count, and they stay."""
    call = make_call(function, rng, (4, 3, 33))
    run = getattr(functional, function)
    for name, value in arrays_of(call).items():
        half = value.astype(np.float16)
        whole = np.rint(np.clip(value, 0, 1)).astype(np.int8)
        unaligned = np.frombuffer(b"x" + value.tobytes(), np.float32, offset=1).reshape(value.shape)
        variants = [
            (value.astype(">f4"), value),
            (value[..., ::-1], np.ascontiguousarray(value[..., ::-1])),
            (np.repeat(value, 2, axis=-1)[..., ::2], value),
            (np.asfortranarray(value), value),
            (unaligned, value),
            (value.tolist(), value.astype(np.float64)),
            (half, half.astype(np.float32)),
            (whole, whole.astype(np.float32)),
            (whole.astype(">i2"), whole.astype(np.float32)),
            (whole.astype(bool), whole.astype(np.float32)),
            (whole.astype(np.int64), whole.astype(np.float64)),
        ]
        for variant, plain in variants:
            before = np.array(variant, copy=True)
            result = run(**{**call, name: variant})
            assert_same(result_array(result), result_array(run(**{**call, name: plain})))
            assert np.array_equal(before, variant)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_numbers(function, rng):
    call = make_call(function, rng)
    for name, kind in kinds_of(function).items():
        if kind in ARRAYS:
            nothing = [] if name in OPTIONAL else [None]
            for wrong in ("text", *nothing, [1j], [[1.0], [1.0, 2.0]], np.array(["a"]), np.ones(3, "M8[s]"), {}):
                with pytest.raises(TypeError, match=f"^{function}: argument '{name}'"):
                    getattr(functional, function)(**{**call, name: wrong})
        if kind == "train":
            for wrong in (1.0, np.zeros((0, 3), np.float32)):
                with pytest.raises(ValueError, match=f"^{function}: argument '"):
                    getattr(functional, function)(**{**call, name: wrong})


@pytest.mark.parametrize("function", NEURONS)
def test_numbers_out_of_range(function, rng):
    call = make_call(function, rng)
    for name, kind in kinds_of(function).items():
        if kind in ("positive", "alpha"):
            for wrong in (0.0, -1.0, float("nan"), float("inf"), 10**400, -0.0):
                with pytest.raises(ValueError, match=f"^{function}: argument '{name}'"):
                    getattr(functional, function)(**{**call, name: wrong})
            for wrong in ("1", None, [1.0], 1j):
                with pytest.raises(TypeError, match=f"^{function}: argument '{name}'"):
                    getattr(functional, function)(**{**call, name: wrong})
        if kind == "alpha":
            with pytest.raises(ValueError, match=f"^{function}: argument 'alpha'"):
                getattr(functional, function)(**{**call, name: 1.5})


@pytest.mark.parametrize("function", GRADIENTS)
def test_shapes_must_agree(function, rng):
    call = make_call(function, rng)
    name = next(iter(call))
    with pytest.raises(ValueError, match=f"^{function}: argument '{name}': expected shape"):
        getattr(functional, function)(**{**call, name: call[name][..., :-1]})


def test_tables_list_every_function():
    assert set(FUNCTIONS) == set(functional.__all__)
