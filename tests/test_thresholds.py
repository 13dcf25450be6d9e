"""Neurons with a threshold for each channel: values, gradients, and everything that reads thresholds."""

from __future__ import annotations

import numpy as np
import pytest

import dsr
from dsr import inspect, reference
from dsr.inspect.summary import summary
from dsr.nn.currents import Current
from dsr.nn.gradients import Gradient
from dsr.nn.run import Run
from dsr.nn.spikes import to_lanes
from dsr.train.hybrid import convert

CHANNELS = 35
PADDED = dsr.ops.Geometry((3, 3), (1, 1), (1, 1, 1, 1))
HEIGHTS = np.linspace(0.3, 1.7, CHANNELS, dtype=np.float32)
MAKE = {"if": lambda v: dsr.IF(v), "lif": lambda v: dsr.LIF(np.asarray(v) / 5, delta_t=0.2)}


def network_of(kind: str, seed: int = 0) -> dsr.Network:
    """Fused neurons, with and without a shortcut, neurons on pooled spikes, and a vector."""
    make = MAKE[kind]
    body = dsr.Sequential(
        conv1=dsr.Conv2d(2, CHANNELS, 3, padding=1),
        neuron1=make(HEIGHTS),
        block=dsr.Residual(dsr.Conv2d(CHANNELS, CHANNELS, 3, padding=1)),
        bn=dsr.BatchNorm(CHANNELS),
        neuron2=make(HEIGHTS[::-1]),
        conv2=dsr.Conv2d(CHANNELS, 5, 3, padding=1),
        neuron3=make(0.5),
        pool=dsr.AvgPool2d(2),
        neuron4=make(HEIGHTS[:5]),
        flatten=dsr.Flatten(),
        linear=dsr.Linear(20, 3),
    )
    return dsr.Network(body, 5, seed)


@pytest.mark.parametrize("kind", MAKE)
def test_every_way_gives_the_spikes_of_the_reference(kind, rng):
    """Fused and not; each layer sees what the layer before gave, written out."""
    network, seen = network_of(kind), {}
    images = rng.normal(size=(3, 2, 4, 4)).astype(np.float32)
    for training in (False, True):
        network.forward(images, training=training, observer=lambda path, layer, output: seen.update({path: output}))
        for path, below in (("neuron1", "conv1"), ("neuron2", "bn"), ("neuron3", "conv2"), ("neuron4", "pool")):
            model, current = network.body.layers[path].effective_model(), seen[below]
            values = current.values()
            expected = reference.neuron_spikes(values, 5, model, None, current.scale, current.shift)[0]
            np.testing.assert_array_equal(seen[path].words, expected, err_msg=path)
            assert 0.02 < seen[path].firing_rate() < 0.9
        heights = np.unique(seen["neuron1"].dense(), axis=None)
        assert len(heights) > CHANNELS / 2
        dense = to_lanes(seen["neuron2"].dense())
        conv = network.body.layers["conv2"]
        flat = dense.reshape(*dense.shape[:3], -1)
        current = dsr.ops.conv2d(flat, conv.weight.value, conv.bias.value, PADDED).reshape(5, 4, 4, 5, 3)
        np.testing.assert_allclose(seen["conv2"].values(), current, atol=1e-4)
    plan = inspect.plan(network, images)
    choices = {row.path: row.forward for row in plan.rows}
    assert choices["neuron2"] == ("fused with the convolution and the shortcut",)
    assert choices["neuron3"] == ("fused with the convolution",)
    assert choices["conv2"] == ("spikes",)


@pytest.mark.parametrize("kind", MAKE)
def test_gradients_are_those_of_the_mapping(kind, rng):
    """Of currents and of thresholds, against finite differences of clip(z, 0, V), by channel."""
    layer = MAKE[kind](HEIGHTS)
    if kind == "lif":
        layer.gradient = "exact"
    z = rng.uniform(-0.5, 2.5, (CHANNELS, 2, 3, 4)).astype(np.float32)
    current = Current((Current.of(np.ascontiguousarray(z[:, :, :, None])).terms), (CHANNELS, 2, 3), 6)
    layer.forward(current, Run(training=True))
    grad = rng.normal(size=z.shape).astype(np.float32)
    below = layer.backward(grad)
    thresholds = layer.effective_threshold().astype(np.float64)
    delta = layer.delta_t or 1.0

    def loss(z, thresholds):
        return (np.clip(z, 0, thresholds.reshape(-1, 1, 1, 1) / delta) * grad).sum()

    step = 2.0**-20
    ahead, behind = (
        np.clip(z.astype(float) + sign * step, 0, thresholds.reshape(-1, 1, 1, 1) / delta) for sign in (1, -1)
    )
    np.testing.assert_allclose(below.total(), (ahead - behind) / (2 * step) * grad, atol=1e-4)
    for channel in range(CHANNELS):
        moved = [thresholds + sign * step * (np.arange(CHANNELS) == channel) for sign in (1, -1)]
        difference = (loss(z.astype(float), moved[0]) - loss(z.astype(float), moved[1])) / (2 * step)
        assert layer.v_threshold.grad[channel] == pytest.approx(difference, abs=1e-3)
    assert layer.v_threshold.grad.shape == (CHANNELS,)


def test_weight_gradient_of_spikes_of_different_heights(rng):
    """On bits, and on the values written out."""
    spikes = dsr.SpikeTrain.from_dense(rng.random((4, 3, CHANNELS, 5, 5)) < 0.2)
    train = dsr.SpikeTrain(spikes.words, spikes.features, HEIGHTS, spikes.time_weights)
    conv, grad = dsr.Conv2d(CHANNELS, 3, 3, padding=1), rng.normal(size=(3, 5, 5, 3)).astype(np.float32)
    conv.initialise(rng)
    output = conv.forward(train, Run(training=True))
    conv.backward(Gradient(grad, 4))
    values = train.values().reshape(CHANNELS, 5, 5, -1)
    dense = np.broadcast_to(grad[:, :, :, None], (3, 5, 5, 4, 3)).reshape(3, 5, 5, -1).copy()
    np.testing.assert_allclose(
        conv.weight.grad, dsr.ops.conv2d_weight_gradient(dense, values, PADDED), rtol=1e-3, atol=1e-4
    )
    expected = dsr.ops.conv2d(values, conv.weight.value, conv.bias.value, PADDED)
    np.testing.assert_allclose(output.values().reshape(3, 5, 5, -1), expected, atol=1e-4)
    rate = train.rate()
    np.testing.assert_allclose(rate, spikes.rate() * HEIGHTS.reshape(-1, 1, 1), rtol=1e-6)


def test_a_kernel_in_groups_is_weighed_by_its_group():
    train = dsr.SpikeTrain(np.zeros((1, 1, 1, 1, 1), np.uint32), (6, 1, 1), np.arange(1, 7, dtype=np.float32), None)
    kernel = np.ones((3, 2, 1, 1), np.float32)  # three groups of two channels
    np.testing.assert_array_equal(train.weigh(kernel)[:, :, 0, 0], [[1, 2], [3, 4], [5, 6]])


@pytest.mark.parametrize("kind", MAKE)
def test_training_saves_loads_and_tells(kind, rng):
    network, images = network_of(kind), rng.normal(size=(12, 2, 4, 4))
    labels = np.arange(12) % 3
    optimizer = dsr.SGD(network.parameters(), 0.3)
    losses = []
    before = network.body.layers["neuron2"].v_threshold.value.copy()
    for _ in range(40):
        loss, grad = dsr.cross_entropy(network.forward(images, training=True), labels)
        network.backward(grad)
        optimizer.step()
        losses.append(loss)
    assert losses[-1] < 0.8 * losses[0]
    moved = network.body.layers["neuron2"].v_threshold.value - before
    assert len(np.unique(moved)) > CHANNELS / 2
    other = network_of(kind, seed=1)
    other.load_state(network.state())
    np.testing.assert_array_equal(other.forward(images), network.forward(images))
    rows = {row.path: row for row in summary(network, (2, 4, 4), images)}
    assert rows["neuron2"].parameters == CHANNELS
    layers = {layer.path: layer for layer in inspect.measure(network, images).layers}
    assert layers["neuron1"].v_threshold == pytest.approx(network.body.layers["neuron1"].v_threshold.value.mean())
    assert all(layer.error < 0.5 for layer in layers.values())


def test_thresholds_are_clamped_by_channel():
    layer = dsr.IF([0.5, 2.0], v_threshold_lower_bound=1.0)
    np.testing.assert_array_equal(layer.effective_threshold(), [1, 2])
    assert layer.mean_threshold() == 1.5
    layer.v_threshold.value[1] = np.nan
    with pytest.raises(FloatingPointError, match="IF : v_threshold of channel 1 is nan"):
        layer.effective_threshold()


def test_a_converted_network_starts_from_the_threshold_of_the_layer(rng):
    def body(neuron):
        return dsr.Sequential(dsr.Linear(6, 4), neuron, dsr.Linear(4, 3))

    ann, spiking = dsr.Network(body(dsr.ReLU()), 1), dsr.Network(body(dsr.IF(np.ones(4))), 50)
    data = rng.normal(size=(20, 6))
    thresholds = convert(ann, spiking, [data])
    np.testing.assert_array_equal(spiking.body.layers["1"].v_threshold.value, np.full(4, thresholds["1"], np.float32))
    np.testing.assert_allclose(spiking.forward(data), ann.forward(data), atol=0.1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: dsr.IF([1.0, -1.0]),
            "IF: argument 'v_threshold': expected a number for each channel.*got -1.0 of channel 1",
        ),
        (lambda: dsr.IF([]), "IF: argument 'v_threshold': expected a number or one for each channel, got none"),
        (lambda: dsr.LIF(np.ones((2, 2))), r"LIF: argument 'v_threshold': .* got shape \(2, 2\)"),
        (lambda: dsr.LIF([1e30, 1], delta_t=1e-20), "LIF: expected v_threshold / delta_t, the height of a spike"),
        (
            lambda: dsr.Network(dsr.Sequential(dsr.Linear(3, 4), dsr.IF(np.ones(3))), 2).forward(np.ones((1, 3))),
            r"IF 1: expected 3 channels, as v_threshold has, got \(4,\)",
        ),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
    with pytest.raises(TypeError, match="IF: argument 'v_threshold'"):
        dsr.IF(["a"])
