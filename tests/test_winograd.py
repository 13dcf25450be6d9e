"""Gradients of inputs and of weights that go by Winograd's method."""

from dataclasses import replace
from itertools import product

import numpy as np
import ops_table
import pytest
from checks import assert_same
from plan_table import counted

import dsr
from dsr import _core, ops, reference
from dsr.nn.gradients import Gradient
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, uniform_weights
from dsr.ops import convolution

# (in channels, out channels, height, width, kernel, stride, padding, lanes); 4x4 taps of stride 2 are four times 2x2
GEOMETRIES = [
    (32, 40, 7, 7, 3, 1, 1, 5),
    (32, 40, 8, 6, 3, 1, 1, 33),
    (40, 64, 9, 9, 3, 1, 0, 2),
    (40, 64, 6, 6, 3, 1, 2, 17),
    (33, 130, 4, 4, 3, 1, 1, 64),
    (17, 32, 6, 7, 3, 1, 1, 300),
    (64, 33, 15, 15, 4, 2, 1, 3),
    (64, 33, 7, 8, 4, 2, 1, 257),
    (32, 33, 9, 9, 5, 2, 2, 4),
    (130, 32, 6, 6, 2, 1, 0, 7),
    (16, 256, 12, 12, 3, 1, 1, 200),
    (32, 40, 8, 11, 3, 1, 1, 130),
    (64, 64, 4, 4, 3, 1, 1, 321),
    (40, 33, 9, 9, 3, 1, 0, 31),
    (224, 130, 8, 8, 3, 1, 1, 200),
]

# How far each place of a window, of the taps and of the products reaches, in absolute value (kernels/winograd.h), for
# (outputs of a tile, taps) along one direction.
SPREAD = {
    (2, 2): [[1, 1, 0], [0, 1, 0], [0, 1, 1]],
    (2, 3): [[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]],
    (4, 3): [
        [4, 0, 5, 0, 1, 0],
        [0, 4, 4, 1, 1, 0],
        [0, 4, 4, 1, 1, 0],
        [0, 2, 1, 2, 1, 0],
        [0, 2, 1, 2, 1, 0],
        [0, 4, 0, 5, 0, 1],
    ],
}
TAPS = {
    (2, 2): [[1, 0], [1, 1], [0, 1]],
    (2, 3): [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 1]],
    (4, 3): np.array([[6, 0, 0], [4, 4, 4], [4, 4, 4], [1, 2, 4], [1, 2, 4], [0, 0, 24]]) / 24,
}
GATHER = {
    (2, 2): [[1, 1, 0], [0, 1, 1]],
    (2, 3): [[1, 1, 1, 0], [0, 1, 1, 1]],
    (4, 3): [[1, 1, 1, 1, 1, 0], [0, 1, 1, 2, 2, 0], [0, 1, 1, 4, 4, 0], [0, 1, 1, 8, 8, 1]],
}


def tile_outputs(taps, rows, columns):
    """As in ops/winograd.c: tiles of 4x4 outputs where they take fewer products."""
    fours, twos = -(-rows // 4) * -(-columns // 4), -(-rows // 2) * -(-columns // 2)
    return 4 if taps == 3 and 3 * fours < twos else 2


def where(geometry):
    return ops.Geometry.of("test", *geometry[4:7])


def draw(geometry, numbers):
    channels, outputs, height, width, kernel, _, _, n = geometry
    rows, columns = where(geometry).output_size(height, width)
    return numbers(outputs, rows, columns, n), numbers(outputs, channels, kernel, kernel)


def gradient(module, grad, weight, geometry):
    return module.conv2d_input_gradient(grad, weight, geometry[2], geometry[3], where(geometry))


def magnitude(grad, weight, geometry):
    """M of the bound: the method with absolute values, for each class of pixels that share their taps."""
    channels, _, height, width, _, stride, padding, n = geometry
    result = np.zeros((channels, height, width, n))
    source = np.pad(np.abs(grad).astype(np.float64), ((0, 0), (6, 6), (6, 6), (0, 0)))
    for y, x in product(range(stride), repeat=2):
        first_y, first_x = (y + padding) // stride + 6, (x + padding) // stride + 6
        taps = np.abs(weight[:, :, (y + padding) % stride :: stride, (x + padding) % stride :: stride])
        size = taps.shape[2]
        if taps.shape[3] != size or size not in (2, 3):
            size = 1
        target = result[:, y::stride, x::stride]
        if size == 1:  # gathered
            for (i, j), (a, b) in product(np.ndindex(target.shape[1:3]), np.ndindex(taps.shape[2:])):
                target[:, i, j] += taps[:, :, a, b].T @ source[:, first_y + i - a, first_x + j - b]
            continue
        outputs = tile_outputs(size, *target.shape[1:3])
        way, side = (outputs, size), outputs + size - 1
        places = np.einsum("ia,oqab,jb->oqij", TAPS[way], taps[:, :, ::-1, ::-1], TAPS[way])
        for i, j in product(range(0, target.shape[1], outputs), range(0, target.shape[2], outputs)):
            top, left = first_y + i - size + 1, first_x + j - size + 1
            window = source[:, top : top + side, left : left + side]
            spread = np.einsum("ia,oabl,jb->oijl", SPREAD[way], window, SPREAD[way], optimize=True)
            products = np.einsum("oqij,oijl->qijl", places, spread)
            tile = np.einsum("ai,qijl,bj->qabl", GATHER[way], products, GATHER[way], optimize=True)
            room = target[:, i : i + outputs, j : j + outputs]
            room[...] = tile[:, : room.shape[1], : room.shape[2]]
    return result


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_dyadic_numbers(geometry, rng):
    """Small integers, and weights that the divisors of the taps' sums divide: every sum is exact."""
    grad, weight = draw(geometry, lambda *shape: rng.integers(-2, 3, shape).astype(np.float32))
    weight *= np.float32(576)
    wanted = gradient(reference, grad.astype(np.float64), weight.astype(np.float64), geometry)
    assert_same(gradient(ops, grad, weight, geometry), wanted.astype(np.float32))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_bound(geometry, rng):
    """The documented bound (K + 20) eps M: three roundings in each direction on the way in, for the taps and on the way
    out, and the GEMM's; the float64 oracle's own error is 2**-29 of it.
    """
    grad, weight = draw(geometry, lambda *shape: rng.normal(size=shape).astype(np.float32))
    wanted = gradient(reference, grad.astype(np.float64), weight.astype(np.float64), geometry)
    terms = len(weight) * weight[0, 0].size
    error = np.abs(gradient(ops, grad, weight, geometry) - wanted)
    assert (error <= (terms + 20) * 2.0**-24 * magnitude(grad, weight, geometry)).all()


@pytest.mark.parametrize("geometry", [(32, 40, 3, 3, 3, 1, 1, 513), (3, 4, 3, 3, 3, 1, 1, 700)])
def test_lanes_in_pieces(geometry, rng, monkeypatch):
    """A long call is several, of 256 lanes at least."""
    grad, weight = draw(geometry, lambda *shape: (rng.integers(-8, 9, shape) / 8).astype(np.float32))
    whole, calls = gradient(ops, grad, weight, geometry), []

    class Counted:
        @staticmethod
        def conv2d_input_gradient(piece, *others):
            calls.append(piece.shape[3])
            _core.conv2d_input_gradient(piece, *others)

    monkeypatch.setattr(convolution, "_core", Counted)
    monkeypatch.setattr(convolution, "MOST_PRODUCTS", 1)
    assert_same(gradient(ops, grad, weight, geometry), whole)
    assert calls == [256, 256, geometry[-1] - 512]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_threads(geometry, rng):
    """Any number of threads gives the bits of one: of some shapes one works alone and several together, of others all
    alone or together.
    """
    grad, weight = draw(geometry, lambda *shape: rng.normal(size=shape).astype(np.float32))
    before, results = _core.threads(), []
    try:
        for threads in (1, 2, 3, 4):
            _core.set_threads(threads)
            results.append(gradient(ops, grad, weight, geometry))
    finally:
        _core.set_threads(before)
    for other in results[1:]:
        assert_same(other, results[0])


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        ((32, 32, 8, 8, 3, 1, 1, 4), True),
        ((32, 32, 8, 8, 4, 2, 1, 4), True),
        ((32, 32, 1, 3, 3, 1, 1, 4), False),  # tiles of 2x2 would waste too much
        ((32, 32, 3, 3, 3, 1, 1, 4), True),  # one of 4x4
        ((32, 31, 8, 8, 3, 1, 1, 4), False),  # too few channels
        ((32, 32, 8, 8, 1, 1, 0, 4), False),
    ],
)
def test_which_gradients_go_by_it(geometry, expected):
    """An infinite gradient gives infinities where taps are gathered, and differences of two, NaN, by this method; both
    within its lane.
    """
    grad, weight = draw(geometry, lambda *shape: np.ones(shape, np.float32))
    grad[0, -1, 1, 2] = np.inf
    result = gradient(ops, grad, weight, geometry)
    assert np.isfinite(result[..., [0, 1, 3]]).all()
    assert np.isnan(result[..., 2]).any() == expected


def test_small_images_of_many_channels_are_one_tile():
    """Tiles of 2x2 would leave the corner that is farthest from an infinite gradient finite."""
    grad, weight = draw((96, 32, 4, 4, 3, 1, 1, 2), lambda *shape: np.ones(shape, np.float32))
    grad[0, 0, 0, 1] = np.inf
    result = gradient(ops, grad, weight, (96, 32, 4, 4, 3, 1, 1, 2))
    assert np.isfinite(result[..., 0]).all() and not np.isfinite(result[:, 3, 3, 1]).any()


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_convolutions_by_it(padding, rng):
    """Within rounding; values on all edges of tiles, with as much padding as a kernel reaches."""
    values = rng.normal(size=(32, 7, 9, 8)).astype(np.float32)
    weight, geometry = rng.normal(size=(33, 32, 3, 3)).astype(np.float32), ops.Geometry.of("test", 3, 1, padding)
    expected = reference.conv2d(values.astype(np.float64), weight.astype(np.float64), None, geometry)
    np.testing.assert_allclose(ops.conv2d_winograd(values, weight, geometry), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("geometry", [ops.Geometry.of("test", 3, 2, 1), ops.Geometry.of("test", 3, 1, 3)])
def test_convolutions_that_are_no_input_gradient_are_refused(geometry):
    values, weight = np.zeros((32, 8, 8, 8), np.float32), np.zeros((32, 32, 3, 3), np.float32)
    with pytest.raises(
        ValueError, match="conv2d_winograd: argument 'geometry': expected stride 1 and padding of at mos"
    ):
        ops.conv2d_winograd(values, weight, geometry)


# ---- gradients of weights ------------------------------------------------------------------------------------------

# (in channels, out channels, height, width, padding, lanes), kernels of 3x3: parts of lanes, pieces, and edges of tiles
WEIGHTS = [
    (32, 16, 4, 4, 1, 8),
    (40, 33, 7, 9, 1, 17),
    (33, 130, 9, 6, 0, 33),
    (96, 64, 6, 5, 2, 16),
    (64, 40, 16, 16, 1, 40),
]


def weights_of(case, numbers):
    """Gradient, input and geometry."""
    channels, outputs, height, width, padding, lanes = case
    geometry = ops.Geometry.of("test", 3, 1, padding)
    rows, columns = geometry.output_size(height, width)
    return numbers(outputs, rows, columns, lanes), numbers(channels, height, width, lanes), geometry


def weights_magnitude(grad, values, padding):
    """M of the bound, and the columns that are added up."""
    spread, taps, gather = (np.abs(np.array(table[4, 3], float)) for table in (SPREAD, TAPS, GATHER))
    rows, columns = grad.shape[1:3]
    grad = np.pad(np.abs(grad).astype(np.float64), ((0, 0), (0, 3), (0, 3), (0, 0)))
    values = np.pad(np.abs(values).astype(np.float64), ((0, 0), (padding, padding + 6), (padding, padding + 6), (0, 0)))
    products, count = 0, 0
    for y, x in product(range(0, rows, 4), range(0, columns, 4)):
        tile = np.einsum("ai,oabl,bj->oijl", gather, grad[:, y : y + 4, x : x + 4], gather, optimize=True)
        window = np.einsum("ia,cabl,jb->cijl", spread, values[:, y : y + 6, x : x + 6], spread, optimize=True)
        products = products + np.einsum("oijl,cijl->ocij", tile, window, optimize=True)
        count += grad.shape[3]
    return np.einsum("ia,ocij,jb->ocab", taps, products, taps, optimize=True), count


@pytest.mark.parametrize("case", WEIGHTS)
def test_weight_gradients_of_dyadic_numbers(case, rng):
    """Small integers, and gradients that the divisors divide: every sum is exact."""
    grad, values, geometry = weights_of(case, lambda *shape: rng.integers(-1, 2, shape).astype(np.float32))
    grad *= np.float32(576)
    wanted = reference.conv2d_weight_gradient(grad.astype(np.float64), values.astype(np.float64), geometry)
    assert_same(ops.conv2d_weight_gradient(grad, values, geometry), wanted.astype(np.float32))


@pytest.mark.parametrize("case", WEIGHTS)
def test_bound_and_threads_of_weight_gradients(case, rng):
    """The documented bound: at most 18 roundings on the way in and out, and those of the sum of N columns; and any
    number of threads gives the bits of one.
    """
    grad, values, geometry = weights_of(case, lambda *shape: rng.normal(size=shape).astype(np.float32))
    before, results = _core.threads(), []
    try:
        for threads in (1, 2, 3):
            _core.set_threads(threads)
            results.append(ops.conv2d_weight_gradient(grad, values, geometry))
    finally:
        _core.set_threads(before)
    for other in results[1:]:
        assert_same(other, results[0])
    wanted = reference.conv2d_weight_gradient(grad.astype(np.float64), values.astype(np.float64), geometry)
    magnitude, columns = weights_magnitude(grad, values, case[4])
    assert (np.abs(results[0] - wanted) <= (columns + 20) * 2.0**-24 * magnitude).all()


@pytest.mark.parametrize(
    ("case", "options", "expected"),
    [
        ((32, 16, 8, 8, 1, 8), {}, True),
        ((32, 16, 3, 3, 1, 8), {}, True),
        ((32, 16, 4, 4, 0, 8), {}, False),  # a tile of 4x4 would waste too much
        ((31, 16, 8, 8, 0, 8), {}, False),
        ((32, 15, 8, 8, 0, 8), {}, False),
        ((32, 16, 8, 8, 0, 7), {}, False),
        ((32, 16, 9, 8, 0, 8), {"stride": (2, 1)}, False),
        ((32, 16, 8, 8, 0, 8), {"dilation": (1, 2)}, False),
        ((64, 16, 8, 8, 0, 8), {"groups": 2}, False),
        ((32, 16, 8, 8, 0, 8), {"kernel": (3, 2)}, False),
    ],
)
def test_which_weight_gradients_go_by_it(case, options, expected):
    """An infinite gradient gives infinities where products are added, and differences of two, NaN, by this method. (At
    an edge it is multiplied by zeros.)
    """
    channels, outputs, height, width, padding, lanes = case
    geometry = replace(ops.Geometry.of("test", 3, 1, padding), **options)
    rows, columns = geometry.output_size(height, width)
    grad, values = np.ones((outputs, rows, columns, lanes), np.float32), np.ones((channels, height, width, lanes))
    grad[0, 1, 1, 2] = np.inf
    result = ops.conv2d_weight_gradient(grad, values.astype(np.float32), geometry)
    assert np.isfinite(result[1:]).all()
    assert np.isnan(result[0]).any() == expected
    assert ops.weight_gradient_by_winograd(geometry, channels, grad.shape) == expected


def trains():
    """Signals of 32 channels: of several steps and of one, graded, with an amplitude for each channel, pooled."""
    rng = np.random.default_rng(5)

    def train(steps, planes=1, amplitude=0.7, size=6):
        words = ops_table.bits(rng, 32, size, size, steps, 9)
        words = np.concatenate([words & ops_table.bits(rng, 32, size, size, steps, 9) for _ in range(planes)])
        return SpikeTrain(words, (32, size, size), amplitude, uniform_weights(steps), planes)

    own = np.linspace(0.5, 0.9, 32, dtype=np.float32)
    pooled = dsr.AvgPool2d(2).forward(train(5, size=12), Run())
    return {"T=6": train(6), "T=1": train(1), "graded": train(5, 2), "own": train(4, 1, own), "pooled": pooled}


@pytest.mark.parametrize("kind", trains())
def test_weight_gradients_of_spikes_go_by_it(kind, monkeypatch, rng):
    """They are those of sums of rows, and without lists of spikes."""
    signal, found, choices = trains()[kind], [], []
    conv = dsr.Conv2d(32, 17, 3, padding=1)
    conv.initialise(rng)
    grad = Gradient(ops_table.floats(rng, 17, 6, 6, 9), signal.timesteps)
    for tiles in (True, False):
        if not tiles:
            monkeypatch.setattr(ops, "weight_gradient_by_winograd", lambda *_: False)
        with counted() as calls:
            conv.forward(signal, Run(training=True, choices=choices))
            conv.backward(grad)
        assert ("conv2d_spikes_weight_gradient" in calls) != tiles
        assert ("conv2d_weight_gradient" in calls) == tiles
        found.append(conv.weight.grad)
    assert ("", "weight gradient on counts of spikes, by Winograd's method") in choices
    np.testing.assert_allclose(*found, rtol=0, atol=2e-5 * np.abs(found[1]).max())


@pytest.mark.parametrize(("steps", "tiles"), [(1, False), (2, True)])
def test_many_weights_and_few_spikes(steps, tiles, rng):
    """Of one step there are too few spikes for it where there are more weights than four for each output."""
    signal = SpikeTrain(ops_table.bits(rng, 64, 3, 3, steps, 8), (64, 3, 3), 0.7, uniform_weights(steps))
    conv = dsr.Conv2d(64, 16, 3, padding=1)
    conv.initialise(rng)
    with counted() as calls:
        conv.forward(signal, Run(training=True))
        conv.backward(Gradient(ops_table.floats(rng, 16, 3, 3, 8), steps))
    assert ("conv2d_weight_gradient" in calls) == tiles
