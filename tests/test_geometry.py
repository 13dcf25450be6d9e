"""Convolutions of any geometry: rectangles, paddings, dilation, groups, transposed, one-dimensional.

Weights and values are multiples of 1/8 in [-1, 1] and sums are short, so float32 adds them exactly in any order.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from checks import assert_same
from plan_table import network_of

import dsr
from dsr import inspect, ops, reference
from dsr.nn.currents import Current
from dsr.nn.gradients import Gradient
from dsr.ops import Geometry

# in and out channels of a group, height, width, T, B, geometry
CASES = {
    "rectangles": (5, 40, 6, 9, 3, 7, Geometry((2, 5), (3, 1), (1, 0, 2, 3))),
    "dilation": (33, 3, 9, 8, 2, 9, Geometry((3, 2), (1, 2), (2, 2, 0, 1), (2, 5))),
    "dilation and a stride that share a divisor": (4, 4, 11, 13, 2, 3, Geometry((3, 4), (4, 6), (3, 3, 4, 4), (2, 3))),
    "dilation beyond the image": (3, 2, 3, 3, 2, 3, Geometry((3, 3), padding=(9, 9, 9, 9), dilation=(9, 9))),
    "depthwise": (1, 1, 6, 5, 3, 17, Geometry((3, 3), padding=(1, 1, 1, 1), groups=70)),
    "depthwise, stride and dilation": (1, 1, 9, 9, 2, 65, Geometry((3, 2), (2, 1), (2, 2, 0, 0), (2, 1), 33)),
    "depthwise with a multiplier": (1, 3, 4, 4, 2, 5, Geometry((3, 3), padding=(1, 1, 1, 1), groups=40)),
    "two channels a group": (2, 2, 5, 4, 2, 9, Geometry((2, 2), groups=32)),
    "two channels to one": (2, 1, 5, 4, 2, 9, Geometry((2, 2), groups=37)),
    "groups across words": (24, 24, 5, 4, 2, 9, Geometry((3, 3), padding=(1, 1, 1, 1), groups=2)),
    "32 groups": (4, 8, 4, 4, 2, 9, Geometry((3, 3), groups=32)),
    "transposed": (7, 34, 4, 5, 3, 6, Geometry((4, 4), padding=(2, 2, 2, 2), spread=(2, 2))),
    "transposed, rectangles": (3, 5, 3, 4, 2, 9, Geometry((3, 2), (1, 1), (1, 3, 0, 2), (2, 1), 1, (3, 2))),
    "transposed, groups": (3, 2, 3, 4, 2, 9, Geometry((2, 3), padding=(0, 0, 2, 2), groups=13, spread=(2, 1))),
    "transposed, depthwise": (1, 1, 3, 4, 2, 17, Geometry((4, 4), padding=(2, 2, 2, 2), groups=40, spread=(2, 2))),
    "cut off": (2, 3, 5, 5, 2, 4, Geometry((1, 1), (2, 2), (0, 1, 0, 3))),
}


def dyadic(rng, *shape):
    return (rng.integers(-8, 9, shape) / 8).astype(np.float32)


def draw(name, numbers=dyadic):
    """Values, weight, bias and gradient, each at every lane."""
    channels, outputs, height, width, timesteps, batch, geometry = CASES[name]
    rng, groups = np.random.default_rng(0), geometry.groups
    values = numbers(rng, channels * groups, height, width, timesteps * batch)
    weight, bias = numbers(rng, outputs * groups, channels, *geometry.kernel), numbers(rng, outputs * groups)
    grad = numbers(rng, outputs * groups, *geometry.output_size(height, width), timesteps * batch)
    return values, weight, bias, grad, geometry


def three(module, values, weight, bias, grad, geometry):
    return (
        module.conv2d(values, weight, bias, geometry),
        module.conv2d_input_gradient(grad, weight, *values.shape[1:3], geometry),
        module.conv2d_weight_gradient(grad, values, geometry),
    )


@pytest.mark.parametrize("name", CASES)
def test_dense_values_exact(name):
    *arrays, geometry = draw(name)
    expected = three(reference, *(array.astype(np.float64) for array in arrays), geometry)
    for actual, wanted in zip(three(ops, *arrays, geometry), expected, strict=True):
        assert_same(actual, wanted.astype(np.float32))


@pytest.mark.parametrize("name", CASES)
def test_dense_values_within_the_bound(name):
    """(K + 2) eps sum|w||x|; one product more for a bias, and none of these goes by Winograd's method."""
    *arrays, geometry = draw(name, lambda rng, *shape: rng.normal(size=shape).astype(np.float32))
    exact = three(reference, *(array.astype(np.float64) for array in arrays), geometry)
    sizes = three(reference, *(np.abs(array.astype(np.float64)) for array in arrays), geometry)
    _, weight, _, grad = arrays
    terms = weight[0].size + 1, len(weight) // geometry.groups * geometry.taps, grad[0].size
    for actual, wanted, size, k in zip(three(ops, *arrays, geometry), exact, sizes, terms, strict=True):
        assert (np.abs(actual - wanted) <= (k + 2) * 2.0**-24 * size).all()


@pytest.mark.parametrize("density", [0.1, 1.0])
@pytest.mark.parametrize("name", CASES)
def test_spikes_exact(name, density):
    """To a current, added to one, through neurons with a shortcut, and the gradient of the weights."""
    channels, _, height, width, timesteps, batch, geometry = CASES[name]
    _, weight, bias, grad, _ = draw(name)
    rng = np.random.default_rng(1)
    shape = (channels * geometry.groups, height, width, timesteps, batch)
    words = ops.pack_words((rng.random(shape) < density).astype(np.float32))
    wide = weight.astype(np.float64), bias.astype(np.float64)
    current = reference.conv2d_spikes(words, *wide, 0.5, geometry)
    steps = grad.reshape(current.shape)
    constant, slope = np.ascontiguousarray(steps[:, :, :, 0]), dyadic(rng, len(weight))
    varying = constant[:, :, :, np.newaxis] + slope.astype(np.float64).reshape(-1, 1, 1, 1, 1) * steps
    below = reference.conv2d_spikes_weight_gradient(varying, words, weight.shape, 0.5, geometry)
    shortcut = ops.pack_words((rng.random(current.shape) < 0.3).astype(np.float32))
    for table_bits in (1, 2, 4):
        assert_same(ops.conv2d_spikes(words, weight, bias, 0.5, geometry, table_bits), current.astype(np.float32))
        added = ops.conv2d_spikes(words, weight, None, 0.5, geometry, table_bits, np.ones(current.shape, np.float32))
        assert_same(added, (current - wide[1].reshape(-1, 1, 1, 1, 1) + 1).astype(np.float32))
        found = ops.conv2d_spikes_weight_gradient(
            constant, slope, steps, words, weight.shape, 0.5, geometry, table_bits
        )
        assert_same(found, below.astype(np.float32))
        convolution = ops.SpikeConvolution(words, weight, bias, 0.5, geometry, table_bits, shortcut, 0.25)
        for model in (ops.if_model(0.75, 0.5), ops.lif_model(0.3, 1.0, 0.2, 0.5)):
            fired = ops.conv2d_neuron_spikes(convolution, model, slope, bias)
            assert_same(fired, reference.conv2d_neuron_spikes(convolution, model, slope, bias))
        powers = np.float32(2) ** np.arange(timesteps, dtype=np.float32)
        total = ops.conv2d_spikes_sum(convolution, powers)
        assert_same(total, reference.conv2d_spikes_sum(convolution, powers))
        both = ops.conv2d_neuron_spikes(convolution, ops.if_model(0.75), slope, bias, weights=powers)
        once = (powers.sum() - 1) * bias.reshape(-1, 1, 1, 1)  # at each step here, once in the sum
        assert_same(both[1], total + once)


@pytest.mark.parametrize("name", CASES)
def test_threads(name, threads):
    """Numbers that are not dyadic: the order of sums is the same for any number of threads."""
    channels, _, height, width, timesteps, _, geometry = CASES[name]
    rng, batch = np.random.default_rng(2), 200  # enough for a team
    shape = (channels * geometry.groups, height, width, timesteps, batch)
    words = ops.pack_words((rng.random(shape) < 0.2).astype(np.float32))
    _, weight, bias, _, _ = draw(name, lambda rng, *shape: rng.normal(size=shape).astype(np.float32))
    constant = rng.normal(size=(len(weight), *geometry.output_size(height, width), batch)).astype(np.float32)

    def results():
        convolution = ops.SpikeConvolution(words, weight, bias, 0.5, geometry, 2)
        return [
            ops.conv2d_spikes(words, weight, bias, 0.5, geometry, 2),
            ops.conv2d_neuron_spikes(convolution, ops.if_model(1.0)),
            ops.conv2d_spikes_sum(convolution, np.full(timesteps, 0.7, np.float32)),
            ops.conv2d_spikes_weight_gradient(constant, None, None, words, weight.shape, 0.5, geometry, 2),
            ops.conv2d_input_gradient(constant, weight, height, width, geometry),
        ]

    found = results()
    dsr.set_num_threads(1)  # the fixture sets it back
    for a, b in zip(found, results(), strict=True):
        assert_same(a, b)


LAYERS = {
    "rectangles": (lambda: dsr.Conv2d(4, 6, (2, 3), (2, 1), (1, 0)), (4, 6, 7), (6, 4, 5)),
    "same": (lambda: dsr.Conv2d(4, 6, (2, 4), padding="same", dilation=(1, 3)), (4, 6, 7), (6, 6, 7)),
    "valid": (lambda: dsr.Conv2d(4, 6, 3, padding="valid", dilation=2), (4, 6, 7), (6, 2, 3)),
    "groups": (lambda: dsr.Conv2d(4, 6, 3, padding=1, groups=2), (4, 6, 7), (6, 6, 7)),
    "depthwise": (lambda: dsr.Conv2d(4, 4, 3, 2, 1, groups=4), (4, 6, 7), (4, 3, 4)),
    "signals": (lambda: dsr.Conv1d(4, 6, 5, 2, 2, dilation=2), (4, 19), (6, 8)),
    "signals, same": (lambda: dsr.Conv1d(4, 6, 4, padding="same", groups=2), (4, 19), (6, 19)),
    "transposed": (lambda: dsr.ConvTranspose2d(4, 6, 4, 2, 1), (4, 3, 5), (6, 6, 10)),
    "transposed, groups": (
        lambda: dsr.ConvTranspose2d(4, 6, (3, 2), (3, 1), (1, 0), (2, 0), groups=2, dilation=(1, 2)),
        (4, 3, 5),
        (6, 9, 7),
    ),
}


@pytest.mark.parametrize("of_spikes", [True, False], ids=["spikes", "values"])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_differences(name, of_spikes):
    """A convolution is linear: a difference of outputs, times a gradient, is the step times its gradient, exactly."""
    make, features, after = LAYERS[name]
    layer, rng = make(), np.random.default_rng(3)
    for parameter in layer.parameters().values():
        parameter.value = dyadic(rng, *parameter.value.shape)
    dense = rng.integers(0, 2, (3, 2, *features)).astype(np.float32)

    def output(train):
        signal = dsr.SpikeTrain.from_dense(train) if of_spikes else Current.from_dense(train)
        signal = signal if of_spikes else replace(signal, needs_gradient=True)
        found = layer.forward(signal, dsr.Run(training=True))
        assert found.features == after == layer.output_features(features)
        return found.values().astype(np.float64)

    start = output(dense)
    grad = dyadic(rng, *start.shape)
    for parameter in layer.parameters().values():
        output(dense)
        layer.backward(Gradient.from_dense(grad))
        step, before = dyadic(rng, *parameter.value.shape), parameter.value
        parameter.value = before + step
        assert ((output(dense) - start) * grad).sum() == (parameter.grad.astype(np.float64) * step).sum()
        parameter.value = before
    output(dense)
    below = layer.backward(Gradient.from_dense(grad))
    other = rng.integers(0, 2, dense.shape).astype(np.float32)
    lanes = Current.from_dense(other - dense).values().astype(np.float64)
    steps = below.dense() if isinstance(below, Gradient) else below[:, :, :, np.newaxis]
    if of_spikes:  # summed over time: the step has to be the same at each
        other = np.broadcast_to(rng.integers(0, 2, dense.shape[1:]), dense.shape).astype(np.float32)
        start, lanes = output(dense[:1].repeat(3, 0)), Current.from_dense(other[:1] - dense[:1]).values()
    assert ((output(other) - start) * grad).sum() == (lanes.astype(np.float64) * steps).sum()


@pytest.mark.parametrize("name", LAYERS)
def test_operations_are_connections(name):
    """Each spike is one accumulate for each tap of its channel that an output reads."""
    make, features, _ = LAYERS[name]
    rng = np.random.default_rng(4)
    network = dsr.Network(dsr.Sequential(neuron=dsr.IF(1.0), conv=make()), 3)
    network.inputs = {2: "NCL", 3: "NCHW"}[len(features)]
    data = rng.normal(1, 1, (5, *features))
    seen = {}
    network.forward(data, observer=lambda path, layer, output: seen.update({path: output}))
    conv = network.body.layers["conv"]
    train = (seen["neuron"].values() != 0).astype(np.float64)
    ones = np.ones(conv.kernel_shape)
    expected = reference.conv2d(train.reshape(*train.shape[:3], -1), ones, None, conv.geometry).sum() / 5
    (row,) = (row for row in inspect.measure(network, data).operations if row.path == "conv")
    assert row.accumulates == expected > 0


def test_kinds_and_shapes():
    for layer, kind, shape in (
        (dsr.Conv2d(4, 8, (3, 5), (2, 1), dilation=2), "Conv2d 3x5, stride 2x1, dilation 2", (8, 4, 3, 5)),
        (dsr.Conv2d(4, 8, 3, groups=4), "Conv2d 3x3, groups 4", (8, 1, 3, 3)),
        (dsr.Conv1d(4, 8, 5, 2), "Conv1d 5, stride 2", (8, 4, 5)),
        (dsr.ConvTranspose2d(4, 8, 4, 2, 1, groups=2), "ConvTranspose2d 4x4, stride 2, groups 2", (4, 4, 4, 4)),
    ):
        assert (layer.kind(), layer.weight.value.shape) == (kind, shape)


def test_copies_at_the_start_are_those_of_each_group():
    network = dsr.Network(dsr.Conv2d(4, 8, 3, padding=1, bias=False, dirac=True, groups=2), 1)
    x = np.random.default_rng(5).normal(size=(2, 4, 5, 5)).astype(np.float32)
    out = network.forward(x).reshape(2, 8, 5, 5)
    np.testing.assert_array_equal(out[:, [0, 1, 4, 5]], x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dsr.Conv2d(4, 6, (3, 3, 3)), "'kernel_size': expected an integer >= 1 or two of them, got"),
        (lambda: dsr.Conv2d(4, 6, (3, 0)), "'kernel_size': expected an integer >= 1, got 0"),
        (lambda: dsr.Conv2d(4, 6, 3, (1, -2)), "'stride': expected an integer >= 1, got -2"),
        (lambda: dsr.Conv2d(4, 6, 3, 1, (-1, 0)), "'padding': expected an integer >= 0, got -1"),
        (lambda: dsr.Conv2d(4, 6, 3, 1, "full"), "'padding': expected 'same', 'valid', .* got 'full'"),
        (lambda: dsr.Conv2d(4, 6, 3, 2, "same"), r"'padding': expected numbers with stride \(2, 2\), got 'same'"),
        (lambda: dsr.Conv2d(4, 6, 3, dilation=0), "'dilation': expected an integer >= 1, got 0"),
        (lambda: dsr.Conv2d(4, 6, 3, groups=4), "'groups': expected a divisor of .* 4 and 6, got 4"),
        (lambda: dsr.Conv2d(4, 6, 3, groups=0), "'groups': expected an integer >= 1, got 0"),
        (lambda: dsr.Conv1d(4, 6, 5, padding=-1), "'padding': expected an integer >= 0, got -1"),
        (lambda: dsr.ConvTranspose2d(4, 6, 3, 2, 3), r"'padding': expected at most .*\(2, 2\), got \(3, 3\)"),
        (lambda: dsr.ConvTranspose2d(4, 6, 3, 2, 1, 2), r"'output_padding': expected less than the stride, \(2, 2\)"),
    ],
)
def test_what_layers_refuse(make, message):
    with pytest.raises(ValueError, match=f"^Conv(1d|2d|Transpose2d): argument {message}"):
        make()


def test_images_that_do_not_fit():
    with pytest.raises(ValueError, match=r"Conv2d: expected features that a kernel of 3x3, dilation 4 fits in, got"):
        dsr.Network(dsr.Conv2d(1, 1, 3, dilation=4), 1).forward(np.ones((1, 1, 8, 9)))
    with pytest.raises(ValueError, match=r"Conv1d: expected features \(4, L\), got \(3, 9\)"):
        dsr.Network(dsr.Conv1d(4, 1, 3), 1).forward(np.ones((1, 3, 9)))


def test_axes_follow_from_the_layers_or_from_a_name():
    """(B, C, L) with B equal to T is never taken for (T, B, N)."""
    rng = np.random.default_rng(6)
    signals = rng.normal(size=(3, 4, 9)).astype(np.float32)
    network = dsr.Network(dsr.Sequential(dsr.IF(1.0), dsr.Conv1d(4, 2, 3)), timesteps=3)
    assert network.inputs == "NCL"
    for pooling in (dsr.AvgPool1d(2), dsr.MaxPool1d(2)):
        assert dsr.Network(dsr.Sequential(pool=pooling), timesteps=1).inputs == "NCL"
    for layer in (dsr.MaxPool2d(2), dsr.Upsample(2)):
        assert dsr.Network(dsr.Sequential(layer=layer), timesteps=1).inputs == "NCHW"
    each = network.forward(np.stack([signals] * 3))  # (T, B, C, L)
    np.testing.assert_array_equal(network.forward(signals), each)
    np.testing.assert_array_equal(network.predict(signals), each.argmax(axis=1))
    vectors = dsr.Network(dsr.Sequential(dsr.IF(1.0), dsr.Linear(9, 2)), timesteps=3)
    assert vectors.inputs == "NC" and vectors.forward(signals).shape == (4, 2)
    flat = dsr.Sequential(dsr.Flatten(), dsr.Linear(36, 2))
    with pytest.raises(ValueError, match=r'which is \(T, B, N\) or \(B, C, L\): give the network inputs="NC" or "NCL"'):
        dsr.Network(flat, timesteps=3).forward(signals)
    named = dsr.Network(flat, timesteps=3, inputs="NCL")
    assert named.forward(signals).shape == named.forward(np.stack([signals] * 3)).shape == (3, 2)
    with pytest.raises(ValueError, match=r"expected \(B, C, L\), or with time \(T, B, C, L\), got shape \(3, 4\)"):
        named.forward(signals[:, :, 0])
    with pytest.raises(ValueError, match="Network: argument 'inputs': expected one of NC, NCL, NCHW, got 'CL'"):
        dsr.Network(flat, timesteps=3, inputs="CL")


@pytest.mark.parametrize("kind", ["if", "lif"])
def test_a_watched_network_gives_what_an_unwatched_one_gives(kind):
    """An observer gets every current; without one convolution, shortcut, normalisation and neuron run as one."""
    network, data = network_of("convolutions_of_all_kinds", kind, 1 << 40)
    for _ in range(3):
        network.forward(data, training=True)  # running statistics
    watched = network.forward(data, observer=lambda path, layer, output: output.rate())
    np.testing.assert_array_equal(network.forward(data), watched)
    assert np.abs(watched).max() > 0
