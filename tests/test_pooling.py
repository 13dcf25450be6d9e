"""Pooling and upsampling layers: values, gradients, shapes, what stays spikes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import dsr
from dsr import inspect, reference
from dsr.nn.currents import Current, Signal, trains_of
from dsr.nn.gradients import Gradient
from dsr.nn.run import Run
from dsr.nn.spikes import decaying_weights, image_shape, to_lanes

TRAINING = Run(training=True)
IMAGES = [
    (lambda: dsr.AvgPool2d((2, 3), (1, 2), (1, 0)), (5, 6, 7)),
    (lambda: dsr.AvgPool2d(2), (33, 4, 4)),
    (dsr.GlobalAvgPool2d, (5, 3, 4)),
    (lambda: dsr.AvgPool1d(4, 2, 1), (5, 11)),
    (lambda: dsr.Upsample((2, 3)), (5, 3, 2)),
]
LARGEST = [
    (lambda: dsr.MaxPool2d((2, 3), (1, 2), (1, 0)), (5, 6, 7)),
    (lambda: dsr.MaxPool2d(2), (33, 4, 4)),
    (lambda: dsr.MaxPool1d(4, 2, 1), (5, 11)),
]


def spikes_of(rng, features, timesteps=6, batch=3, density=0.3):
    return (rng.random((timesteps, batch, *features)) < density).astype(np.float32)


def windows_of(layer):
    return layer.kernel_size, layer.stride, layer.padding


def by_hand(layer: dsr.Layer, values: np.ndarray) -> np.ndarray:
    """The layer applied to (C, H, W, L) in the reference."""
    if isinstance(layer, dsr.Upsample):
        return values.repeat(layer.factor[0], axis=1).repeat(layer.factor[1], axis=2)
    if isinstance(layer, dsr.GlobalAvgPool2d):
        return values.mean(axis=(1, 2), keepdims=True)
    function = reference.max_pool if isinstance(layer, dsr.MaxPool2d) else reference.avg_pool
    return function(values, *windows_of(layer))


def lanes(signal: Signal) -> np.ndarray:
    values = signal.values() if isinstance(signal, dsr.SpikeTrain) else signal.final_values()
    return values.reshape(*values.shape[:3], -1)


@pytest.mark.parametrize(("make", "features"), [*IMAGES, *LARGEST])
def test_values_and_shapes(make, features, rng):
    """Of spikes and of currents, of every step and the same at every step; spikes stay spikes."""
    layer, dense = make(), spikes_of(rng, features)
    train = dsr.SpikeTrain.from_dense(dense, 0.5)
    output = layer.forward(train, Run())
    expected = by_hand(layer, 0.5 * to_lanes(dense).reshape(*image_shape(features), -1))
    np.testing.assert_allclose(lanes(output), expected, rtol=2.0**-22)
    assert image_shape(output.features) == expected.shape[:3]
    assert len(output.features) == (1 if isinstance(layer, dsr.GlobalAvgPool2d) else len(features))
    trains = trains_of(output)
    total = sum(lanes(one) for one in trains)
    np.testing.assert_allclose(total, expected, rtol=2.0**-21, err_msg="spikes do not stay spikes")
    assert output.time_weights is train.time_weights
    # currents
    values = rng.normal(size=(*image_shape(features), 6, 3)).astype(np.float32)
    for given in (values, values[:, :, :, :1]):
        given = np.ascontiguousarray(given)
        current = Current.of(given)
        current = Current(current.terms, features, 6)
        output = layer.forward(current, Run())
        expected = by_hand(layer, given.reshape(*given.shape[:3], -1))
        np.testing.assert_allclose(lanes(output), expected, rtol=2.0**-20, atol=2.0**-20)
        assert (output.timesteps, output.batch, output.is_static) == (6, 3, given.shape[3] == 1)


@pytest.mark.parametrize(("make", "features"), IMAGES)
@pytest.mark.parametrize("kind", ["train", "current", "no weights"])
def test_gradients_of_linear_layers_are_their_transposes(make, features, kind, rng):
    """<A x, g> = <x, A' g>, with g of every step or its weighted sum."""
    layer, shape = make(), (*image_shape(features), 6, 3)
    if kind == "current":
        signal: Signal = Current(Current.of(rng.normal(size=shape).astype(np.float32)).terms, features, 6)
    else:
        signal = dsr.SpikeTrain.from_dense(spikes_of(rng, features), 0.5, decaying_weights(6, 1.0, 0.3))
        if kind == "no weights":
            signal = dsr.SpikeTrain(signal.words, signal.features, 0.5, None)
    output = layer.forward(signal, TRAINING)
    y = lanes(output).reshape(*image_shape(output.features), 6, 3)
    x = lanes(signal).reshape(shape)
    if kind == "train":
        grad = rng.normal(size=(*y.shape[:3], 3)).astype(np.float32)
        below = layer.backward(grad)
        left, right = (y.mean(axis=3) * grad).sum(), (x.mean(axis=3) * below).sum()
    else:
        grad = rng.normal(size=y.shape).astype(np.float32)
        below = layer.backward(Gradient.from_dense(grad)).dense()
        left, right = (y.astype(np.float64) * grad).sum(), (x.astype(np.float64) * below).sum()
    assert below.shape[:3] == shape[:3]
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)


def differences(function, at, step=2.0**-12):
    """Central differences of a scalar function of an array."""
    gradient = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        ahead, behind = at.copy(), at.copy()
        ahead[place] += step
        behind[place] -= step
        gradient[place] = (function(ahead) - function(behind)) / (2 * step)
    return gradient


@pytest.mark.parametrize(("make", "features"), [LARGEST[0], LARGEST[2]])
@pytest.mark.parametrize("weights", [None, decaying_weights(40, 1.0, 0.01)])
def test_the_gradient_of_or_is_that_of_the_largest_representation(make, features, weights, rng):
    """Against finite differences of the mapping max_i r_i of representations."""
    layer, timesteps = make(), 40
    dense = (rng.random((timesteps, 1, *features)) < rng.random(features)).astype(np.float32)
    train = dsr.SpikeTrain.from_dense(dense, 0.5, weights)
    rates = train.rate().astype(np.float64).reshape(1, *image_shape(features)).transpose(1, 2, 3, 0)
    # a different rate for each element, so that the mapping has a gradient
    rates = rates + 1e-6 * np.arange(rates.size)[::-1].reshape(rates.shape)
    grad = rng.normal(size=layer.forward(train, TRAINING).words.shape[1:3]).astype(np.float32)
    grad = np.broadcast_to(grad[None, :, :, None], (features[0], *grad.shape, 1)).copy()
    below = layer.backward(grad)
    expected = differences(lambda r: (reference.max_pool(r, *windows_of(layer)) * grad).sum(), rates, 2.0**-24)
    np.testing.assert_allclose(below, expected, atol=1e-4)


def test_or_lies_between_the_largest_rate_and_the_sum(rng):
    """The bounds from which the gradient is derived."""
    dense = spikes_of(rng, (7, 4, 4), timesteps=20)
    train = dsr.SpikeTrain.from_dense(dense, 0.5)
    pooled = dsr.MaxPool2d(2).forward(train, Run()).rate().transpose(1, 2, 3, 0)
    rates = train.rate().transpose(1, 2, 3, 0)
    assert (pooled >= reference.max_pool(rates, 2, 2) - 1e-6).all()
    assert (pooled <= np.minimum(4 * reference.avg_pool(rates, 2, 2), 0.5) + 1e-6).all()


@pytest.mark.parametrize(("make", "features"), [LARGEST[0], LARGEST[2]])
@pytest.mark.parametrize("static", [False, True])
def test_the_gradient_of_the_largest_current(make, features, static, rng):
    """Against finite differences, at every step."""
    layer, steps = make(), 1 if static else 3
    values = rng.permutation(np.prod(features) * steps * 2).astype(np.float32) / 64
    values = values.reshape(*image_shape(features), steps, 2)
    output = layer.forward(Current(Current.of(values).terms, features, 3), TRAINING)
    shape = (*image_shape(output.features), 2)
    constant, slope = rng.normal(size=shape).astype(np.float32), rng.normal(size=shape[0]).astype(np.float32)
    varying = Current.of(rng.normal(size=(*shape[:3], 3, 2)).astype(np.float32))
    for terms in ((), [(slope, varying)]):
        gradient = Gradient(constant, 3, terms)
        layer.forward(Current(Current.of(values).terms, features, 3), TRAINING)
        below = layer.backward(gradient).dense()
        steps_of = gradient.dense().astype(np.float64)

        def loss(x, steps_of=steps_of):
            pooled = reference.max_pool(x.reshape(*x.shape[:3], -1), *windows_of(layer))
            return (pooled.reshape(*shape[:3], steps, 2) * steps_of).sum()

        expected = differences(loss, values.astype(np.float64), 2.0**-9)
        np.testing.assert_allclose(below.sum(axis=3) if static else below, expected.squeeze(3) if static else expected,
                                   atol=1e-4)  # fmt: skip


def test_spikes_below_zero_are_values():
    """The largest of spikes worth -1 is 0 where one of them does not fire."""
    dense = np.array([1, 1, 1, 0], np.float32).reshape(1, 1, 1, 1, 4)
    train = dsr.SpikeTrain.from_dense(dense, -1.0)
    np.testing.assert_array_equal(lanes(dsr.MaxPool2d((1, 2)).forward(train, Run())).ravel(), [-1, 0])


def test_sums_of_spikes_are_repeated_as_spikes(rng):
    pool, up = dsr.AvgPool2d(2), dsr.Upsample(2)
    pooled = pool.forward(dsr.SpikeTrain.from_dense(spikes_of(rng, (5, 4, 4))), Run())
    output = up.forward(pooled, Run())
    assert len(trains_of(output)) == 3
    np.testing.assert_array_equal(lanes(output), by_hand(up, lanes(pooled)))


def test_the_plan_tells_which_maximum(rng):
    body = dsr.Sequential(dsr.MaxPool2d(2), dsr.IF(0.5), dsr.MaxPool2d(2), dsr.Flatten(), dsr.Linear(12, 2))
    plan = inspect.plan(dsr.Network(body, 4), rng.normal(size=(2, 3, 8, 8)))
    assert [row.forward for row in plan.rows if "MaxPool" in row.kind] == [("largest values",), ("OR of spikes",)]
    assert [row.kind for row in plan.rows if "MaxPool" in row.kind] == ["MaxPool2d 2x2"] * 2


def test_maximum_pooling_is_that_of_the_ordinary_twin(rng):
    """ReLU, T = 1: the maximum of the activations, and its gradient."""
    conv = dsr.Conv2d(2, 4, 3, padding=1)
    body = dsr.Sequential(conv, dsr.ReLU(), dsr.MaxPool2d(2), dsr.Flatten(), dsr.Linear(16, 3))
    network, images = dsr.Network(body, 1), rng.normal(size=(5, 2, 4, 4))
    labels = np.array([0, 1, 2, 1, 0])
    _, grad = dsr.cross_entropy(network.forward(images, training=True), labels)
    network.backward(grad)
    weight = conv.weight
    for place in [(0, 0, 1, 1), (3, 1, 2, 0), (2, 1, 0, 1)]:
        losses = []
        for sign in (1, -1):
            weight.value[place] += sign * 1e-3
            losses.append(dsr.cross_entropy(network.forward(images), labels)[0])
            weight.value[place] -= sign * 1e-3
        assert weight.grad[place] == pytest.approx((losses[0] - losses[1]) / 2e-3, abs=2e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dsr.AvgPool2d((2, 1), (2, 1)),
        lambda: dsr.GlobalAvgPool2d(),
        lambda: dsr.Upsample(2),
        lambda: dsr.AvgPool2d((3, 2), (1, 2), (1, 1)),
    ],
)
def test_spikes_are_counted_where_they_are_used(make, rng):
    """A spike is an addition for each connection of each element that it is part of."""
    layer, conv = make(), dsr.Linear(5, 3) if make().kind() == "GlobalAvgPool2d" else dsr.Conv2d(5, 3, 2)
    network = dsr.Network(dsr.Sequential(dsr.IF(0.5), layer, conv), 4)
    images = rng.normal(size=(2, 5, 4, 6))
    seen = {}
    network.forward(images, observer=lambda path, layer, output: seen.update({path: output}))
    counts = to_lanes(seen["0"].dense() != 0).sum(axis=(3, 4)).astype(np.float64)
    used = by_hand(layer, counts[..., None])[..., 0]
    if not isinstance(layer, dsr.Upsample):
        used = used * (24 if isinstance(layer, dsr.GlobalAvgPool2d) else np.prod(layer.kernel_size))
    height, width = conv.kernel_shape[2:]
    rows, columns = used.shape[1] - height + 1, used.shape[2] - width + 1
    taps = [used[:, y : y + rows, x : x + columns].sum() for y in range(height) for x in range(width)]
    (found,) = [o for o in inspect.measure(network, images).operations if o.path == "2"]
    assert (found.source, found.accumulates) == ("spikes", pytest.approx(3 * sum(taps) / 2))


def test_refusals():
    image, signal = Current.of(np.zeros((2, 3, 3, 1, 1), np.float32)), np.zeros((2, 1, 5, 1, 1), np.float32)
    signal = Current(Current.of(signal).terms, (2, 5), 1)
    cases = [
        (lambda: dsr.MaxPool2d((2, 3), padding=(1, 2)), r"MaxPool2d: argument 'padding': .* got \(1, 2\)"),
        (lambda: dsr.MaxPool2d((2, 3, 4)), "MaxPool2d: argument 'kernel_size': expected an integer or two, got"),
        (lambda: dsr.AvgPool2d((2, 0)), "AvgPool2d: argument 'kernel_size': expected an integer >= 1, got 0"),
        (lambda: dsr.Upsample(0), "Upsample: argument 'factor': expected an integer >= 1, got 0"),
        (lambda: dsr.MaxPool1d(3, padding=2), r"MaxPool1d: argument 'padding'"),
        (
            lambda: dsr.MaxPool2d(4).forward(image, Run()),
            r"MaxPool2d : expected images of at least 4x4, got \(2, 3",
        ),
        (lambda: dsr.MaxPool2d(2).forward(signal, Run()), r"MaxPool2d : expected images .* got \(2, 5\)"),
        (
            lambda: dsr.MaxPool1d(6).forward(signal, Run()),
            r"expected signals \(C, L\) of length 6 or more, got",
        ),
        (lambda: dsr.AvgPool1d(2).forward(image, Run()), r"expected signals \(C, L\)"),
        (lambda: dsr.GlobalAvgPool2d().forward(signal, Run()), r"GlobalAvgPool2d : expected images \(C, H, W\), got"),
        (lambda: dsr.Upsample(2).forward(signal, Run()), r"Upsample : expected images \(C, H, W\), got \(2, 5\)"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="AvgPool1d: argument 'kernel_size': expected an integer >= 1"):
        dsr.AvgPool1d((1, 2))
