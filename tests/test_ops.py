"""Operations on the lanes layout: EXACT ones bit for bit, convolutions exactly on dyadic numbers and within bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from checks import assert_same, sum_in_contract_order
from hypothesis import given
from hypothesis import strategies as st
from ops_table import EXACT, MODELS, OWN, bits, find, floats, make_call, run, without_leak

from dsr import _core, functional, ops, reference
from dsr.nn.spikes import decaying_weights

# (C, H, W, T, B): around the 32 channels of a word, 16 lanes of a vector, the 128 of a chunk, 4096 lanes of a tile
SHAPES = [
    (1, 1, 1, 1, 1),
    (31, 1, 1, 2, 15),
    (32, 3, 2, 3, 5),
    (33, 1, 4, 1, 17),
    (65, 2, 2, 4, 16),
    (2, 1, 1, 3, 129),
    (3, 1, 1, 1, 600),
    (1, 1, 1, 2, 4100),
    (33, 40, 1, 4, 31),
    (5, 7, 3, 20, 2),
]
# sums of doubles, in the order that dsr.h promises: see the contract below
SUMS = ["moments", "product_moments"]
SPIKES, BACKWARD = (
    [f"{name} {model}" for model in (*MODELS, *OWN)] for name in ("neuron_spikes", "neuron_spikes_backward")
)


def check_parity(function, call):
    with np.errstate(all="ignore"):
        expected = contract(function, call) if function in SUMS else run(reference, function, call)
        if function in BACKWARD:
            expected[1] = threshold_contract(call)
        for a, b in zip(run(ops, function, call), expected, strict=True):
            assert_same(a, b)


def contract(function, call):
    """Sums of each channel: number i of a line goes to partial sum i % 16."""
    first, last = (values.reshape(len(values), -1).astype(np.float64) for values in (call[0], call[-1]))
    return [np.array([sum_in_contract_order(line) for line in table]) for table in (first, first * last)]


def threshold_contract(call):
    """The gradients of saturated neurons, by channel, in the order of `contract`."""
    grad, sums, timesteps, neuron, scale, shift = call
    channels = len(sums)
    scale = np.ones(channels, "f") if scale is None else scale
    mean = reference.affine(sums, scale / np.float32(timesteps), np.zeros(channels, "f") if shift is None else shift)
    top = np.full((channels, 1, 1, 1), np.reshape(neuron.top, (-1, 1, 1, 1)), np.float32)
    return np.array([sum_in_contract_order(line) for line in np.where(mean > top, grad, np.float32(0))])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("function", EXACT)
def test_parity(function, shape, rng):
    check_parity(function, make_call(function, rng, shape))


@pytest.mark.parametrize("function", EXACT)
def test_parity_with_nan_and_infinity(function, rng):
    call = make_call(function, rng, (33, 3, 2, 3, 17))
    for value in call:
        if isinstance(value, np.ndarray) and value.dtype == np.float32:
            wild = rng.choice(np.array([np.nan, np.inf, -np.inf, 3e38, -0.0, 1e-44], "f"), value.shape)
            np.copyto(value, wild, where=rng.random(value.shape) < 0.05)
    check_parity(function, call)


@pytest.mark.parametrize("function", EXACT)
def test_exact_threads(function, threads, rng):
    check_parity(function, make_call(function, rng, (70, 9, 3, 4, 33)))


@pytest.mark.parametrize("function", SUMS)
def test_oracle_sums_alike(function, rng):
    """Dyadic numbers add exactly in any order."""
    call = [np.rint(value * 64) / np.float32(64) for value in make_call(function, rng, (33, 3, 2, 5, 17))]
    for a, b in zip(run(ops, function, call), run(reference, function, call), strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("function", EXACT)
def test_inputs_stay(function, rng):
    call = make_call(function, rng, (33, 3, 2, 3, 17))
    before = [np.array(value, copy=True) for value in call]
    find(ops, function)(*call)
    for i, (value, old) in enumerate(zip(call, before, strict=True)):
        assert np.array_equal(value, old) or (function == "add_words" and i == 1)


# ---- neurons and bits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [*SPIKES, *BACKWARD])
@pytest.mark.parametrize("use", [(False, False), (True, False), (False, True)])
def test_scale_and_shift_may_be_missing(function, use, rng):
    *call, scale, shift = make_call(function, rng, (33, 3, 2, 3, 17))
    check_parity(function, [*call, scale if use[0] else None, shift if use[1] else None])


@pytest.mark.parametrize("function", SPIKES)
@pytest.mark.parametrize("shape", [(33, 3, 2, 1, 17), (3, 50, 2, 1, 129), (1, 1, 1, 1, 1)])
def test_a_held_current_is_the_same_at_every_step(function, shape, rng):
    _, *rest = make_call(function, rng, (*shape[:3], 6, shape[4]))
    current = floats(rng, *shape)
    check_parity(function, [current, *rest])
    repeated = np.ascontiguousarray(np.broadcast_to(current, (*shape[:3], 6, shape[4])))
    held = run(ops, function, [current, *rest])
    for a, b in zip(held, run(ops, function, [repeated, *rest]), strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("leaky", [False, True])
def test_backward_is_the_one_of_time_first_trains(leaky, rng):
    """Dyadic numbers, T = 4: every sum is exact, in both layouts; some neurons are silent, some saturated."""
    current = rng.integers(-4, 8, (4, 33, 3, 2, 17)).astype(np.float32) / 4
    grad = rng.integers(-8, 9, current.shape).astype(np.float32) / 8
    if leaky:  # delta_t / tau so small that all weights are one
        time = 2.0**30, 1.0
        weights, neuron = decaying_weights(4, *time), ops.lif_model(0.75 / 2**30, *time)
        share, threshold = functional.lif_backward(grad, current, 0.75 / 2**30, *time)
    else:
        weights, neuron = np.ones(4, np.float32), ops.if_model(0.75)
        share, threshold = functional.if_backward(grad, current, 0.75)
    summed, sums = (np.ascontiguousarray(np.tensordot(weights, train, 1)) for train in (grad, current))
    result, above = ops.neuron_spikes_backward(summed, sums, 4, neuron)
    assert 0.1 < np.count_nonzero(result) / result.size < 0.9
    for step in share:
        assert_same(result, step)
    assert above.sum() == threshold != 0


@pytest.mark.parametrize("kind", MODELS)
def test_equal_thresholds_of_channels_have_the_bits_of_one(kind, rng):
    one, shape = MODELS[kind], (33, 3, 2, 5, 21)
    own = replace(one, **{name: np.full(33, getattr(one, name), "f") for name in ("v_threshold", "fire", "top")})
    call, back = (make_call(f"{name} {kind}", rng, shape) for name in ("neuron_spikes", "neuron_spikes_backward"))
    for name, arguments in (("neuron_spikes", call), ("neuron_spikes_backward", back)):
        changed = [own if argument is one else argument for argument in arguments]
        for a, b in zip(run(ops, name, arguments), run(ops, name, changed), strict=True):
            assert_same(a, b)
    weight, words = floats(rng, 33, 40, 3, 3), bits(rng, 40, 5, 4, 3, 17)
    geometry = ops.Geometry((3, 3), padding=(1, 1, 1, 1))
    convolution = ops.SpikeConvolution(words, weight, None, 0.3, geometry, 1, bits(rng, 33, 5, 4, 3, 17), 0.7)
    heights = replace(convolution, shortcut_amplitude=np.full(33, 0.7, "f"))
    assert_same(ops.conv2d_neuron_spikes(heights, own), ops.conv2d_neuron_spikes(convolution, one))


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        (np.array([1, 0, 2], "f"), "got 0.0 of channel 1"),
        (np.array([1, 2, np.nan], "f"), "got nan of channel 2"),
        (np.array([1e39, 2]), r"got 1e\+39 of channel 0"),
    ],
)
@pytest.mark.parametrize("model", [ops.if_model, lambda v: ops.lif_model(v, 1.0, 0.2)])
def test_thresholds_that_are_none(model, thresholds, words):
    with pytest.raises(ValueError, match=f"argument 'v_threshold': expected a number for each channel, .* {words}"):
        model(thresholds)


def test_as_many_thresholds_as_channels(rng):
    call = make_call("neuron_spikes own IF", rng, (33, 3, 2, 5, 21))
    call[2] = ops.if_model(np.ones(32, "f"))
    with pytest.raises(ValueError, match=r"neuron_spikes: argument 'thresholds': .* with 33 elements on axis C"):
        ops.neuron_spikes(*call)
    for function in ("if_forward", "if_rate"):  # of time-first trains
        with pytest.raises(TypeError, match=f"{function}: argument 'v_threshold': expected a number > 0, got ndarray"):
            getattr(functional, function)(np.ones((3, 2)), np.ones(2, "f"))


def test_weights_and_leak_are_independent(rng):
    """Each combination has a loop of its own: the spikes do not depend on the weights, nor the sums on the neuron."""
    current, *_, scale, shift = make_call("neuron_spikes IF", rng, (33, 3, 2, 5, 21))
    weights = rng.random(5).astype(np.float32)
    for neuron in MODELS.values():
        for some in (None, weights):
            check_parity("neuron_spikes", [current, 5, neuron, some, scale, shift])


def test_neurons_without_a_leak_have_the_bits_of_the_general_loop():
    for plain, general in zip(without_leak(False), without_leak(True), strict=True):
        assert np.count_nonzero(plain) / plain.size > 0.1
        assert_same(general, plain)


@pytest.mark.parametrize("function", BACKWARD)
def test_backward_refuses_sums_of_another_shape(function, rng):
    grad, sums, *rest = make_call(function, rng, (33, 3, 2, 3, 17))
    wanted = r"^neuron_spikes_backward: argument 'grad': expected shape \(33, 3, 2, 16\) as 'sums'"
    with pytest.raises(ValueError, match=wanted):
        find(ops, function)(grad, sums[..., 1:], *rest)


def test_a_potential_at_the_very_threshold_spikes(rng):
    """Quarters, fired at a half: many potentials are equal to it, exactly."""
    current = (rng.integers(-2, 4, (33, 3, 2, 5, 17)) / 4).astype(np.float32)
    potential = np.cumsum(current[..., :2, :], axis=3)
    assert np.count_nonzero((potential[..., 0, :] < 0.5) & (potential[..., 1, :] == 0.5)) > 100
    check_parity("neuron_spikes", [current, 5, ops.if_model(1.0, 0.5)])


@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_packing_round_trip(channels, n, seed):
    words = bits(np.random.default_rng(seed), channels, 1, 1, 1, n)
    values = ops.unpack_words(words, channels, 0.5)
    assert_same(ops.pack_words(values), words)
    assert_same(ops.count_words(words, channels), np.count_nonzero(values, axis=(1, 2, 3, 4)))


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_transposed_bits(channels, n, seed):
    """Bit c of lane l, word by word: bit l of channel c."""
    words = bits(np.random.default_rng(seed), channels, 1, 1, 1, n)
    values = ops.unpack_words(words, 32 * len(words)).reshape(-1, n)
    turned = ops.transpose_words(words)
    for lane in range(n):
        assert np.array_equal(turned[0, lane // 32] >> np.uint32(lane % 32) & np.uint32(1), values[:, lane])


def test_affine_of_one_array(rng):
    x, a, c, _, _ = make_call("affine", rng, (33, 3, 2, 3, 17))
    check_parity("affine", [x, a, c])


@pytest.mark.parametrize("keep", [0.0, 0.25, 0.7, 1.0])
def test_dropout_keeps_a_share(keep):
    """3.2 million bits; the count of kept ones is within 6 standard deviations (fixed seed; else 2 in 10**9)."""
    words = np.full((1, 1, 1, 1, 100_000), 2**32 - 1, np.uint32)
    kept = ops.count_words(ops.dropout_words(words, keep, 5), 32)
    n = words.size * 32
    assert abs(int(kept.sum()) - keep * n) <= 6 * np.sqrt(n * keep * (1 - keep))


def test_add_words_refuses_an_array_that_is_not_contiguous(rng):
    """It would add to a copy, and the sum would be lost."""
    words, values = bits(rng, 5, 3, 2, 2, 4), floats(rng, 5, 3, 2, 4, 2).swapaxes(3, 4)
    before = values.copy()
    with pytest.raises(ValueError, match=r"^add_words: argument 'values': expected a C-contiguous array, got strides"):
        ops.add_words(words, values, 0.5)
    assert_same(values, before)


def test_dropout_mask_depends_on_the_seed(rng):
    words = bits(rng, 32, 1, 1, 1, 1000)
    first, second, third = (ops.dropout_words(words, 0.5, seed) for seed in (1, 1, 2))
    assert_same(first, second)
    assert np.count_nonzero(first != third) > 900


# ---- pooling -------------------------------------------------------------------------------------------------------

POOLS = [
    *[(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 1, 1), (1, 1, 0), (4, 4, 0), (3, 3, 0), (2, 3, 0), (5, 2, 2)],
    *[((2, 3), (2, 1), (1, 0)), ((1, 4), (1, 3), (0, 2)), ((3, 1), 1, (1, 0)), ((4, 2), (1, 2), (2, 1))],
]


@pytest.mark.parametrize("windows", POOLS)
@pytest.mark.parametrize("image", [(4, 4), (5, 7), (9, 4)])
@pytest.mark.parametrize("n", [1, 15, 17, 513])
def test_pooling(windows, image, n, rng):
    values = np.round(floats(rng, 3, *image, n), 1)  # there are equal ones
    if isinstance(windows[0], int) and min(image) + 2 * windows[2] < windows[0]:
        pytest.skip("no window fits")
    pooled = ops.avg_pool(values, *windows)
    assert_same(pooled, reference.avg_pool(values, *windows))
    assert_same(ops.max_pool(values, *windows), reference.max_pool(values, *windows))
    grad = floats(rng, *pooled.shape)
    assert_same(ops.avg_pool_backward(grad, *image, *windows), reference.avg_pool_backward(grad, *image, *windows))
    assert_same(ops.max_pool_backward(grad, values, *windows), reference.max_pool_backward(grad, values, *windows))
    words = bits(rng, 33, *image, 1, n)
    assert_same(ops.or_pool(words, *windows), reference.or_pool(words, *windows))
    assert_same(ops.pool_planes(words, *windows), reference.pool_planes(words, *windows))


def test_largest_values_by_hand():
    """Nothing lies around the image: of negative values the largest is negative. The first of equal ones counts."""
    values = -np.array([[[1, 3, 2], [2, 1, 4]]], np.float32).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(ops.max_pool(values, 2, 2, 1)[0, :, :, 0], [[-1, -2], [-2, -1]])
    grad = np.ones((1, 1, 2, 1), np.float32)
    gradient = ops.max_pool_backward(grad, values, (2, 2), 1)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[1, 0, 0], [0, 1, 0]])
    gradient = ops.max_pool_backward(np.ones((1, 1, 1, 1), np.float32), values, (2, 3), 1)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[1, 0, 0], [0, 0, 0]])


# ---- convolutions --------------------------------------------------------------------------------------------------

# (in channels, out channels, height, width, lanes, kernel height, kernel width, stride, padding)
CONVOLUTIONS = [
    (1, 1, 1, 1, 1, 1, 1, 1, 0),
    (3, 8, 5, 4, 15, 3, 3, 1, 1),
    (31, 2, 4, 4, 16, 1, 1, 1, 0),
    (32, 33, 3, 3, 17, 1, 1, 2, 0),
    (33, 32, 6, 5, 4, 3, 3, 2, 1),
    (2, 3, 1, 1, 600, 3, 3, 1, 1),
    (4, 5, 7, 7, 9, 2, 2, 2, 0),
    (4, 5, 7, 6, 9, 2, 2, 3, 1),
    (3, 2, 8, 9, 6, 5, 5, 3, 2),
    (3, 2, 5, 5, 6, 5, 5, 1, 4),
    (5, 7, 6, 6, 3, 3, 1, 1, 0),
    (5, 7, 6, 6, 3, 1, 3, 2, 1),
    (2, 2, 9, 9, 2, 2, 2, 5, 0),
    (1, 1, 4, 4, 1, 1, 1, 4, 2),
    (70, 3, 3, 3, 40, 3, 3, 1, 1),
    (3, 70, 20, 20, 33, 3, 3, 1, 1),
]


class Convolution:
    """One convolution, its arguments and its three results."""

    def __init__(self, geometry, draw):
        self.channels, self.outputs, self.height, self.width, self.lanes, self.kernel_h, self.kernel_w = geometry[:7]
        self.geometry = ops.Geometry.of("test", geometry[5:7], *geometry[7:])
        rows, columns = self.geometry.output_size(self.height, self.width)
        self.values = draw(self.channels, self.height, self.width, self.lanes)
        self.weight = draw(self.outputs, self.channels, self.kernel_h, self.kernel_w)
        self.bias = draw(self.outputs)
        self.grad = draw(self.outputs, rows, columns, self.lanes)

    def run(self, module, turn=lambda array: array):
        """Output, input gradient and weight gradient; `turn` is applied to every argument."""
        values, weight, bias, grad = map(turn, (self.values, self.weight, self.bias, self.grad))
        return (
            module.conv2d(values, weight, bias, self.geometry),
            module.conv2d_input_gradient(grad, weight, self.height, self.width, self.geometry),
            module.conv2d_weight_gradient(grad, values, self.geometry),
        )


@pytest.mark.parametrize("geometry", CONVOLUTIONS)
def test_convolution_of_dyadic_numbers(geometry, rng):
    """Multiples of 1/8 in [-2, 2]: products are multiples of 2**-6 up to 4, of which float32 adds 2**16 exactly, in any
    order; no sum here is longer than 33 * 20 * 20.
    """
    convolution = Convolution(geometry, lambda *shape: (rng.integers(-16, 17, shape) / 8).astype(np.float32))
    expected = convolution.run(reference, np.float64)
    for a, b in zip(convolution.run(ops), expected, strict=True):
        assert_same(a, b.astype(np.float32))


@pytest.mark.parametrize("geometry", CONVOLUTIONS)
def test_convolution_within_its_bound(geometry, rng):
    """The documented bound (K + 2) eps sum|w||x|, eps = 2**-24; the bias is one product more. The float64 oracle's own
    error is 2**-29 of the bound.
    """
    convolution = Convolution(geometry, lambda *shape: floats(rng, *shape))
    exact = convolution.run(reference, np.float64)
    absolute = convolution.run(reference, lambda array: np.abs(array.astype(np.float64)))
    kernel = convolution.kernel_h * convolution.kernel_w
    terms = convolution.channels * kernel + 1, convolution.outputs * kernel, convolution.grad[0].size
    for actual, wanted, size, k in zip(convolution.run(ops), exact, absolute, terms, strict=True):
        assert actual.dtype == np.float32
        assert (np.abs(actual - wanted) <= (k + 2) * 2.0**-24 * size).all()


def test_convolution_without_bias(rng):
    convolution = Convolution(CONVOLUTIONS[4], lambda *shape: floats(rng, *shape))
    zeros = np.zeros_like(convolution.bias)
    without = ops.conv2d(convolution.values, convolution.weight, None, convolution.geometry)
    assert_same(without, ops.conv2d(convolution.values, convolution.weight, zeros, convolution.geometry))


@pytest.mark.parametrize("geometry", CONVOLUTIONS)
def test_convolution_threads(geometry, rng):
    """Any number of threads gives the bits of one. The last geometries are large enough for a team."""
    convolution = Convolution(geometry, lambda *shape: floats(rng, *shape))
    before, results = _core.threads(), []
    try:
        for threads in (1, 2, 3, 4):
            _core.set_threads(threads)
            results.append(convolution.run(ops))
    finally:
        _core.set_threads(before)
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            assert_same(a, b)


def test_gradients_are_adjoint(rng):
    """<conv(x, w), g> = <x, input gradient> = <w, weight gradient>, exactly for dyadic numbers and sums in float64."""
    convolution = Convolution(CONVOLUTIONS[7], lambda *shape: (rng.integers(-16, 17, shape) / 8).astype(np.float32))
    output = ops.conv2d(convolution.values, convolution.weight, None, convolution.geometry)
    _, input_gradient, weight_gradient = convolution.run(ops)
    products = [(output, convolution.grad), (convolution.values, input_gradient), (convolution.weight, weight_gradient)]
    totals = {float((a.astype(np.float64) * b).sum()) for a, b in products}
    assert len(totals) == 1


@pytest.mark.parametrize("function", ["conv2d", "avg_pool"])
def test_image_smaller_than_the_kernel(function):
    values = np.zeros((1, 2, 5, 1), np.float32)
    weight = np.zeros((1, 1, 3, 3), np.float32)
    window = [3, 1] if function == "avg_pool" else [weight, None, ops.Geometry((3, 3))]
    with pytest.raises(ValueError, match=f"^{function}: argument '"):
        getattr(ops, function)(values, *window)


# ---- nothing to do -------------------------------------------------------------------------------------------------


def empty(function, shape):
    """What comes out of a call without values: sums are zero, all else is empty."""
    channels, height, width, timesteps, batch = shape
    words = ops.word_count(channels), height, width, timesteps, batch
    graded = words[0] * (3 if "graded IF" in function else 2 if "graded LIF" in function else 1)  # planes
    sums = channels, height, width, batch
    pooled = ops.word_count(channels), height // 2 + 1, width + 1, timesteps, batch
    turned = height * width, ops.word_count(timesteps * batch), 32 * words[0]
    windows = (channels, height // 2 + 1, width + 1, timesteps * batch)
    return {
        "neuron_spikes": [((graded, *words[1:]), "u4"), (sums, "f4")] + [(sums, "f4")] * function.endswith(" LIF"),
        "neuron_spikes_backward": [(sums, "f4"), ((channels,), "f8")],
        "pack_words": [(words, "u4")],
        "unpack_words": [(shape, "f4")],
        "add_words": [(shape, "f4")],
        "sum_words": [(sums, "f4")],
        "count_words": [((channels,), "i8")],
        "count_bits": [((), "i8")],
        "affine": [(shape, "f4")],
        "pool_planes": [((4, *pooled), "u4")],
        "or_pool": [(pooled, "u4")],
        "count_steps": [((*words[:3], (5 * timesteps).bit_length(), batch), "u4")],
        "transpose_words": [(turned, "u4")],
        "dropout_words": [(words, "u4")],
        "moments": [((channels,), "f8")] * 2,
        "product_moments": [((channels,), "f8")] * 2,
        "expand_gradient": [(shape, "f4")],
        "weighted_sum": [(sums, "f4")],
        "avg_pool": [(windows, "f4")],
        "avg_pool_backward": [((channels, height, width, timesteps * batch), "f4")],
        "max_pool": [(windows, "f4")],
        "max_pool_backward": [((channels, height, width, timesteps * batch), "f4")],
    }[function.split()[0]]


@pytest.mark.parametrize("shape", [(0, 2, 2, 3, 4), (33, 2, 2, 3, 0), (33, 0, 2, 3, 4), (33, 2, 0, 3, 4)])
@pytest.mark.parametrize("function", EXACT)
def test_no_values(function, shape, rng):
    results = run(ops, function, make_call(function, rng, shape))
    for result, (wanted, dtype) in zip(results, empty(function, shape), strict=True):
        assert_same(result, np.zeros(wanted, dtype))


@pytest.mark.parametrize("axis", range(3))
def test_convolution_without_values(axis, rng):
    """No input channels, no output channels, no lanes: outputs are the bias, gradients are zero."""
    sizes = [3, 4, 5]
    sizes[axis] = 0
    channels, outputs, n = sizes
    geometry = (channels, outputs, 4, 4, n, 3, 3, 1, 1)
    convolution = Convolution(geometry, lambda *shape: floats(rng, *shape))
    output, input_gradient, weight_gradient = convolution.run(ops)
    if axis == 0:
        assert_same(output, np.broadcast_to(convolution.bias.reshape(-1, 1, 1, 1), output.shape))
    assert not input_gradient.any()
    assert not weight_gradient.any()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shortcut", [False, True])
def test_fused_neurons_of_every_model(model, shortcut, rng):
    """A convolution through neurons is the convolution and then the neurons, in NumPy and in two calls."""
    words = bits(rng, 40, 6, 7, 5, 9) & bits(rng, 40, 6, 7, 5, 9)
    weight, bias, scale, shift = floats(rng, 37, 40, 3, 3), floats(rng, 37), floats(rng, 37), floats(rng, 37)
    added = bits(rng, 37, 6, 7, 5, 9) if shortcut else None
    geometry = ops.Geometry((3, 3), padding=(1, 1, 1, 1))
    for table_bits in (1, 2, 4):
        convolution = ops.SpikeConvolution(words, weight, bias, 0.3, geometry, table_bits, added, 0.7)
        current = ops.conv2d_spikes(words, weight, bias, 0.3, geometry, table_bits)
        if added is not None:
            ops.add_words(added, current, 0.7)
        expected = reference.neuron_spikes(current, 5, MODELS[model], None, scale, shift)[0]
        assert_same(ops.conv2d_neuron_spikes(convolution, MODELS[model], scale, shift), expected)
        assert_same(ops.neuron_spikes(current, 5, MODELS[model], None, scale, shift)[0], expected)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_time_first_neurons_of_every_model(model, real, rng):
    """The same spikes as on the layout of layers, and the trains and potentials of NumPy."""
    current = rng.normal(0.3, 1, (7, 1037)).astype(np.float32)
    output = np.empty((7, 1037), real)
    potentials = np.empty(1037, real)
    _core.neuron_forward(current.astype(real), None, MODELS[model], output, potentials)
    expected, left = reference.neuron_forward(current.astype(real), MODELS[model])
    assert_same(output, expected)
    assert_same(potentials, left)
    if real is np.float32:
        lanes = np.ascontiguousarray(current.T).reshape(1037, 1, 1, 7, 1)
        words, _, _ = ops.neuron_spikes(lanes, 7, MODELS[model])
        planes = np.split(words, MODELS[model].planes)
        numbers = sum(np.float32(2**k) * ops.unpack_words(plane, 1037) for k, plane in enumerate(planes))
        assert_same(np.ascontiguousarray(numbers.reshape(1037, 7).T) * np.float32(MODELS[model].amplitude), output)
