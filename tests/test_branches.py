"""Branches, concatenation and residual connections of spikes: values, gradients, what stays spikes, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

import dsr
from dsr import inspect, ops, reference
from dsr.nn.currents import Current, trains_of
from dsr.nn.gradients import Gradient
from dsr.nn.run import Run
from dsr.nn.spikes import decaying_weights, to_lanes, uniform_weights

TRAINING = Run(training=True)


class Given(dsr.Layer):
    """A branch that gives a signal, and keeps the gradient that it gets."""

    def __init__(self, signal):
        self.signal, self.gradient = signal, None

    def forward(self, signal, run):
        return self.signal

    def backward(self, gradient):
        self.gradient = gradient


def train_of(rng, channels, amplitude=0.5, weights=None, density=0.3):
    dense = (rng.random((6, 3, channels, 4, 2)) < density).astype(np.float32)
    return dsr.SpikeTrain.from_dense(dense, amplitude, weights)


def values_of(signal):
    return signal.values() if isinstance(signal, dsr.SpikeTrain) else signal.final_values()


@pytest.mark.parametrize("channels", [[3, 5], [32, 1], [31, 33, 2], [1, 64, 40], [0, 7], [33]])
def test_words_of_channels_one_behind_the_other(channels, rng):
    trains = [ops.pack_words((rng.random((n, 2, 3, 4, 5)) < 0.4).astype(np.float32)) for n in channels]
    joined = ops.concat_words(trains, channels)
    np.testing.assert_array_equal(joined, reference.concat_words(trains, channels))
    assert joined.dtype == np.uint32


def test_words_that_do_not_fit():
    words = np.zeros((2, 3), np.uint32)
    for trains, channels in (([words], [65]), ([words], [33, 1]), ([], []), ([words.astype(np.int64)], [33])):
        with pytest.raises(ValueError, match="concat_words: argument 'trains': expected uint32 words of shapes"):
            ops.concat_words(trains, channels)
    with pytest.raises(TypeError, match=r"concat_words: argument 'channels': expected an integer >= 0, got 1.5"):
        ops.concat_words([words], [1.5])


def test_concatenated_spikes_of_different_heights_are_one_train(rng):
    parts = [train_of(rng, 33, 0.5), train_of(rng, 5, 2.0), train_of(rng, 40, 0.25)]
    layer = dsr.Concat(*map(Given, parts))
    output = layer.forward(parts[0], Run())
    assert isinstance(output, dsr.SpikeTrain)
    assert output.features == (78, 4, 2)
    np.testing.assert_array_equal(output.values(), np.concatenate([part.values() for part in parts]))
    np.testing.assert_array_equal(output.time_weights, uniform_weights(6))


def test_concatenated_sums_of_spikes_stay_spikes(rng):
    """Pooled spikes are three trains, those beside them one."""
    pooled = dsr.AvgPool2d((2, 2), 1, (1, 0)).forward(train_of(rng, 3), Run())
    other = dsr.SpikeTrain.from_dense(rng.random((6, 3, 34, 5, 1)) < 0.3, 2.0)
    output = dsr.Concat(Given(pooled), Given(other)).forward(other, Run())
    assert len(trains_of(output)) == 3
    np.testing.assert_allclose(values_of(output), np.concatenate([values_of(pooled), other.values()]), rtol=1e-6)


@pytest.mark.parametrize("static", [False, True])
def test_concatenated_values(static, rng):
    """Of currents beside spikes; one of them may be the same at every step."""
    current = Current.of(rng.normal(size=(3, 4, 2, 1 if static else 6, 3)).astype(np.float32))
    current = Current(current.terms, current.features, 6)
    for parts in ([current, train_of(rng, 4)], [current, current]):
        output = dsr.Concat(*map(Given, parts)).forward(current, Run())
        shapes = [np.broadcast_to(values_of(p), (*values_of(p).shape[:3], *output.shape[3:])) for p in parts]
        np.testing.assert_array_equal(values_of(output), np.concatenate(shapes))


@pytest.mark.parametrize("same", [True, False])
def test_gradients_of_branches(same, rng):
    """Each gets its channels, or all of the gradient, summed with its own weights."""
    weights = [decaying_weights(6, 1.0, 0.3), decaying_weights(6, 1.0, 0.3 if same else 0.1)]
    parts = [train_of(rng, 3, 0.5, weights[0]), train_of(rng, 3, 2.0, weights[1])]
    for kind, channels in ((dsr.Concat, 6), (dsr.Add, 3)):
        branches = list(map(Given, parts))
        layer = kind(*branches)
        output = layer.forward(parts[0], TRAINING)
        slope, x = rng.normal(size=channels), Current.of(rng.normal(size=(channels, 4, 2, 6, 3)).astype(np.float32))
        gradient = Gradient(rng.normal(size=(channels, 4, 2, 3)).astype(np.float32), 6, [(slope.astype(np.float32), x)])
        assert (output.time_weights is not None) == (kind is dsr.Concat and same)
        layer.backward(gradient if output.time_weights is None else gradient.summed(output.time_weights))
        dense = gradient.dense()
        for number, (branch, w) in enumerate(zip(branches, weights, strict=True)):
            own = dense[3 * number :][:3] if kind is dsr.Concat else dense
            np.testing.assert_allclose(branch.gradient, np.einsum("chwtb,t->chwb", own, w), rtol=1e-4, atol=1e-4)


def rates(train):
    weights = train.time_weights / 6
    return np.einsum("chwtb,t->chwb", ops.unpack_words(train.words, train.channels).astype(float), weights)


@pytest.mark.parametrize("connect", ["add", "and", "iand"])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("height", [0.7, np.array([0.2, 0.4, 0.6, 0.8, 1.0], np.float32)])
def test_residual_connections_of_spikes(connect, same, height, rng):
    """Values bit by bit; gradients against finite differences of the mapping of representations."""
    weights = [decaying_weights(6, 1.0, 0.3), decaying_weights(6, 1.0, 0.3 if same else 0.1)]
    body, other = Given(train_of(rng, 5, 0.5, weights[0])), Given(train_of(rng, 5, 0.7, weights[1], 0.5))
    other.signal = dsr.SpikeTrain(other.signal.words, other.signal.features, height, weights[1])
    layer = dsr.SpikeResidual(body, connect, other)
    output = layer.forward(other.signal, TRAINING)
    a, s = body.signal.values() != 0, other.signal.values() != 0
    heights = np.reshape(height, (-1, 1, 1, 1, 1))
    expected = {"add": 0.5 * a + heights * s, "and": heights * (a & s), "iand": heights * (~a & s)}[connect]
    np.testing.assert_allclose(values_of(output), expected, rtol=1e-6)
    assert len(trains_of(output)) == (2 if connect == "add" else 1)
    constant = rng.normal(size=(5, 4, 2, 3)).astype(np.float32)
    gradient = Gradient(constant, 6)
    layer.backward(gradient if output.time_weights is None else gradient.summed(output.time_weights))

    def mapping(of_body, of_other):
        by_rate = {"add": of_body + of_other, "and": of_body / 0.5 * of_other, "iand": (1 - of_body / 0.5) * of_other}
        return by_rate[connect]

    at = 0.5 * rates(body.signal), np.reshape(height, (-1, 1, 1, 1)) * rates(other.signal)
    for number, branch in enumerate((body, other)):
        moved = [[x + sign * 1e-5 * (i == number) for i, x in enumerate(at)] for sign in (1, -1)]
        slope = (mapping(*moved[0]) - mapping(*moved[1])) / 2e-5
        np.testing.assert_allclose(branch.gradient, slope * constant * 6, rtol=1e-3, atol=1e-3)
    if connect != "add":
        found = rates(dsr.SpikeTrain(output.words, output.features, 1.0, weights[1]))
        first, second = rates(dsr.SpikeTrain(body.signal.words, (5, 4, 2), 1.0, weights[1])), rates(other.signal)
        first = first if connect == "and" else 1 - first
        assert (found >= np.maximum(0, first + second - 1) - 1e-5).all()
        assert (found <= np.minimum(first, second) + 1e-5).all()


def multi(kind):
    """Branches of all kinds, with an identity, a nested residual, and batch normalisation over a concatenation."""
    make = {"if": lambda: dsr.IF(0.5), "lif": lambda: dsr.LIF(0.1, delta_t=0.2)}[kind]

    def conv(channels, out, size=3):
        return dsr.Sequential(dsr.Conv2d(channels, out, size, padding=size // 2), dsr.BatchNorm(out), make())

    return dsr.Sequential(
        start=conv(2, 4),
        dense=dsr.Concat(dsr.Identity(), conv(4, 5, 1), dsr.Sequential(dsr.AvgPool2d(3, 1, 1), conv(4, 3, 1))),
        inception=dsr.Concat(one=dsr.Conv2d(12, 6, 1), three=dsr.Conv2d(12, 2, 3, padding=1)),
        bn=dsr.BatchNorm(8),
        neuron=make(),
        sum=dsr.Add(dsr.Identity(), conv(8, 8), dsr.Conv2d(8, 8, 1)),
        neuron2=make(),
        both=dsr.Add(dsr.Identity(), conv(8, 8)),
        last=dsr.Conv2d(8, 3, 3),
        pool=dsr.GlobalAvgPool2d(),
    )


@pytest.mark.parametrize("kind", ["if", "lif"])
def test_networks_with_branches_train(kind, rng):
    network, images = dsr.Network(multi(kind), 5), rng.normal(size=(9, 2, 6, 6))
    labels, losses = np.arange(9) % 3, []
    optimizer = dsr.Adam(network.parameters(), 0.01)
    for _ in range(12):
        loss, grad = dsr.cross_entropy(network.forward(images, training=True), labels)
        network.backward(grad)
        assert all(np.isfinite(p.grad).all() for _, p in network.parameters())
        optimizer.step()
        losses.append(loss)
    assert losses[-1] < 0.9 * losses[0]
    other = dsr.Network(multi(kind), 5, seed=3)
    other.load_state(network.state())
    np.testing.assert_array_equal(other.forward(images), network.forward(images))


def test_what_branches_cost(rng):
    """Concatenated spikes and sums of spikes cost an addition for each connection; spikes into a current one each."""
    network, images, seen = dsr.Network(multi("if"), 5), rng.normal(size=(2, 2, 6, 6)), {}
    network.forward(images, observer=lambda path, layer, output: seen.update({path: output}))
    found = {(o.path, o.source): o for o in inspect.measure(network, images).operations}
    dense = to_lanes(seen["dense"].dense() != 0)
    assert found["inception.one", "spikes"].accumulates == 6 * dense.sum() / 2
    shortcut = (seen["neuron"].dense() != 0).sum() + (seen["sum.1"].dense() != 0).sum()
    assert found["sum", "spikes"].accumulates == shortcut / 2
    assert ("both", "spikes") not in found
    total = sum(to_lanes(seen[path].dense() != 0).sum(axis=(3, 4)) for path in ("neuron2", "both.1"))
    taps = [total[:, y : y + 4, x : x + 4].sum() for y in range(3) for x in range(3)]
    assert found["last", "spikes"].accumulates == 3 * sum(taps) / 2


def test_refusals(rng):
    image, small = train_of(rng, 3), dsr.SpikeTrain.from_dense(np.zeros((6, 3, 3, 2, 2)))

    def run(layer, signal=image):
        return layer.forward(signal, Run())

    current = Current.of(np.zeros((3, 4, 2, 6, 3), np.float32))
    cases = [
        (lambda: dsr.Concat(), "Concat: argument 'branches': expected at least one layer, got none"),
        (
            lambda: run(dsr.Concat(Given(image), Given(small))),
            r"Concat : .* 0: \(3, 4, 2\), 1: \(3, 2, 2\)",
        ),
        (
            lambda: run(dsr.Add(a=Given(image), b=Given(small))),
            r"Add : .*one shape, got a: \(3, 4, 2\), b",
        ),
        (lambda: dsr.SpikeResidual(Given(image), "or"), "argument 'connect': expected one of add, and, iand, got 'or'"),
        (
            lambda: run(dsr.SpikeResidual(Given(current))),
            "SpikeResidual : expected spikes from the body",
        ),
        (
            lambda: run(dsr.SpikeResidual(Given(image)), current),
            "expected spikes from the shortcut, got Current",
        ),
        (lambda: run(dsr.SpikeResidual(Given(image)), small), "expected outputs of one shape"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()
    for kind in (dsr.Concat, dsr.Add, dsr.SpikeResidual):
        with pytest.raises(TypeError, match=f"{kind.__name__}: argument '.*': expected a layer, got int"):
            kind(3)
