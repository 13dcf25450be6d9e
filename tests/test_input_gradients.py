"""Outputs in the shape of the last layer, and gradients with respect to the data."""

from __future__ import annotations

import re

import numpy as np
import pytest

import dsr


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def smooth():
    """A network without neurons, whose output has a derivative everywhere."""
    return dsr.Sequential(
        dsr.Conv2d(2, 4, 3, padding=1), dsr.BatchNorm(4), dsr.AvgPool2d(2), dsr.Conv2d(4, 3, 2), dsr.BatchNorm(3)
    )


def spiking(neuron):
    return dsr.Sequential(
        dsr.Conv2d(2, 4, 3, padding=1), dsr.BatchNorm(4), neuron(), dsr.Dropout(0.5), dsr.Conv2d(4, 3, 3), neuron()
    )


# ---- outputs in the shape of the last layer ------------------------------------------------------------------------


@pytest.mark.parametrize("neuron", [lambda: dsr.IF(1.0), lambda: dsr.LIF(0.3, delta_t=0.2)])
@pytest.mark.parametrize("data", [(3, 2, 6, 5), (4, 3, 2, 6, 5)])
def test_an_image_of_rates_keeps_its_shape(neuron, data):
    """It is what the same network gives as a vector, forward, backward and in `predict`."""
    image = dsr.Network(spiking(neuron), timesteps=4, seed=1)
    vector = dsr.Network(dsr.Sequential(*spiking(neuron).children().values(), dsr.Flatten()), timesteps=4, seed=1)
    rates, flat = (net.forward(normal(data), training=True) for net in (image, vector))
    assert rates.shape == (3, 3, 4, 3) and rates.any()
    np.testing.assert_array_equal(rates.reshape(3, -1), flat)
    grad = normal(rates.shape, 3)
    image.backward(grad)
    vector.backward(grad.reshape(3, -1))
    for (name, a), (_, b) in zip(image.parameters(), vector.parameters(), strict=True):
        assert a.grad.any() or name.endswith("v_threshold"), name
        np.testing.assert_array_equal(a.grad, b.grad, err_msg=name)
    pixels = image.predict(normal(data))
    assert pixels.shape == (3, 4, 3)
    np.testing.assert_array_equal(pixels, image(normal(data)).argmax(axis=1))


def test_a_current_keeps_its_shape_and_a_vector_is_one():
    assert dsr.Network(smooth(), 4)(normal((5, 2, 6, 6))).shape == (5, 3, 2, 2)
    assert dsr.Network(dsr.Sequential(dsr.Linear(6, 3)), 4)(normal((5, 6))).shape == (5, 3)
    assert dsr.Network(dsr.Sequential(), 4)(normal((5, 2, 6, 6))).shape == (5, 2, 6, 6)


# ---- gradients of the data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["training", "for_backward"])
@pytest.mark.parametrize("shape", [(3, 2, 6, 6), (4, 3, 2, 6, 6)])
def test_input_gradient_is_that_of_finite_differences(shape, mode):
    """The mean over (B, H, W) of a batch and its variance are part of the derivative in training only."""
    network = dsr.Network(smooth(), timesteps=4, seed=2)
    network.forward(normal(shape, 9) * 2 + 1, training=True)  # running statistics that are not 0 and 1
    data = normal(shape)
    rates = network.forward(data, **{mode: True})
    grad = normal(rates.shape, 1)
    found = network.backward(grad, input=True)
    assert found.shape == shape and found.dtype == np.float32
    for seed in range(3):
        direction, outputs = normal(shape, 10 + seed), {}
        for step in (2.0**-6, -(2.0**-6), 2.0**-7, -(2.0**-7)):
            output = network.forward(data + np.float32(step) * direction, **{mode: True})
            outputs[step] = float((output.astype(np.float64) * grad).sum())
        slopes = [(outputs[step] - outputs[-step]) / (2 * step) for step in (2.0**-6, 2.0**-7)]
        slope = (4 * slopes[1] - slopes[0]) / 3  # without the error of order step**2
        expected = float((found.astype(np.float64) * direction).sum())
        # rounding: some hundred outputs of order 1 with float32 errors, divided by the step: 1e-5 * 2**7
        assert abs(slope - expected) < 4e-3 * max(1, abs(expected))


@pytest.mark.parametrize("stem", ["if", "lif"])
def test_input_gradient_of_neurons_is_that_of_the_mapping(stem):
    """By hand, from `dsr.functional`: the read-out's gradient, through the mapping, through the weights."""
    neuron = dsr.IF(0.8) if stem == "if" else dsr.LIF(0.4, tau=1.0, delta_t=0.2)
    network = dsr.Network(dsr.Sequential(dsr.Linear(7, 5), neuron), timesteps=6, seed=3)
    data, grad = 3 * normal((9, 7)), normal((9, 5), 1)
    network.forward(data, for_backward=True)
    found = network.backward(grad, input=True)
    weight = network.body.layers["0"].weight.value[:, :, 0, 0]
    current = data @ weight.T + network.body.layers["0"].bias.value
    if stem == "if":
        expected, _ = dsr.functional.if_rate_backward(grad, current, 0.8)
    else:
        # rate = sum_t w[t] o[t] / T and the neuron sums with w again
        weights = neuron.time_weights(6).astype(np.float64)
        expected, _ = dsr.functional.lif_rate_backward(grad * (weights**2).mean(), current, 0.4, 1.0, 0.2)
    assert 5 < np.count_nonzero(expected) < expected.size - 5
    np.testing.assert_allclose(found, expected @ weight, rtol=1e-4, atol=1e-6)


def test_time_first_data_gets_a_gradient_for_each_step():
    """Copies of a static sample get its gradient in equal shares."""
    network = dsr.Network(spiking(lambda: dsr.IF(1.0)), timesteps=4, seed=1)
    data = normal((3, 2, 6, 5))
    rates = network.forward(data, for_backward=True)
    static = network.backward(normal(rates.shape, 1), input=True)
    network.forward(np.repeat(data[None], 4, axis=0), for_backward=True)
    steps = network.backward(normal(rates.shape, 1), input=True)
    assert steps.shape == (4, 3, 2, 6, 5) and static.any()
    network.timesteps = 1
    for shape in ((3, 2, 6, 5), (1, 3, 2, 6, 5)):  # one step is not the same as no time axis
        network.forward(data.reshape(shape), for_backward=True)
        assert network.backward(normal(rates.shape, 1), input=True).shape == shape
    np.testing.assert_allclose(steps, np.broadcast_to(static / 4, steps.shape), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "first",
    [
        lambda: [],
        lambda: [dsr.BatchNorm(2)],
        lambda: [dsr.AvgPool2d(1)],
        lambda: [dsr.Dropout(0.0)],
        lambda: [dsr.IF(1.0)],
        lambda: [dsr.LIF(0.3, delta_t=0.2)],
        lambda: [dsr.Residual(dsr.Conv2d(2, 2, 1))],
        lambda: [dsr.Residual(dsr.Sequential(dsr.BatchNorm(2), dsr.IF(1.0)), dsr.Sequential())],
    ],
)
def test_every_layer_passes_the_gradient_to_the_data_and_only_if_it_is_asked_for(first):
    def run(**options):
        body = dsr.Sequential(*first(), dsr.Conv2d(2, 3, 3), dsr.IF(1.0), dsr.Flatten(), dsr.Linear(48, 2))
        network = dsr.Network(body, timesteps=4, seed=1)
        rates = network.forward(normal((3, 2, 6, 6)), training=True)
        below = network.backward(normal(rates.shape, 1), **options)
        return below, {name: parameter.grad for name, parameter in network.parameters()}

    (nothing, plain), (gradient, grads) = run(), run(input=True)
    assert nothing is None and gradient.shape == (3, 2, 6, 6) and gradient.any()
    for name, grad in plain.items():
        assert grad is not None, f"{name} is not trained"  # a batch normalisation of the data was not
        np.testing.assert_array_equal(grad, grads[name], err_msg=name)


def test_a_pass_for_backward_is_that_of_evaluation():
    network = dsr.Network(spiking(lambda: dsr.IF(1.0)), timesteps=4, seed=1)
    network.forward(normal((3, 2, 6, 5), 4), training=True)
    before, data = network.state(), normal((1, 2, 6, 5))
    np.testing.assert_array_equal(network.forward(data, for_backward=True), network.forward(data))
    network.backward(np.ones((1, 3, 4, 3)))
    for name, array in network.state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert all(parameter.grad is not None for _, parameter in network.parameters())


def test_wrong_backward():
    network = dsr.Network(smooth(), timesteps=4)
    with pytest.raises(RuntimeError, match="expected a forward pass with training=True or for_backward=True before it"):
        network.backward(np.ones((3, 3, 2, 2)), input=True)
    network.forward(normal((3, 2, 6, 6)), for_backward=True)
    for wrong, kind, message in (
        (
            np.ones((3, 12)),
            ValueError,
            "argument 'grad_rate': expected shape (3, 3, 2, 2), or of every step (4, 3, 3, 2, 2), got (3, 12)",
        ),
        (np.full((3, 3, 2, 2), np.nan), ValueError, "argument 'grad_rate': expected finite values, got nan at (0, 0, "),
        (np.full((3, 3, 2, 2), np.inf), ValueError, "argument 'grad_rate': expected finite values, got inf at (0, 0, "),
        ("text", TypeError, "argument 'grad_rate': expected real numbers, got dtype"),
        (None, TypeError, "argument 'grad_rate': expected real numbers, got dtype object"),
    ):
        with pytest.raises(kind, match=re.escape(f"Network.backward: {message}")):
            network.backward(wrong, input=True)
    with pytest.raises(TypeError, match=r"Network.backward: argument 'input': expected True or False, got 'yes'"):
        network.backward(np.ones((3, 3, 2, 2)), input="yes")
    network.backward(np.ones((3, 3, 2, 2)))  # the pass is still there
    with pytest.raises(RuntimeError, match="expected a forward pass"):
        network.backward(np.ones((3, 3, 2, 2)))
    for name in ("training", "for_backward"):
        with pytest.raises(TypeError, match=f"Network.forward: argument '{name}': expected True or False, got 'no'"):
            network.forward(normal((3, 2, 6, 6)), **{name: "no"})


def test_a_layer_that_gives_no_gradient_is_named():
    class Stop(dsr.Layer):
        def forward(self, signal, run):
            return signal

        def backward(self, gradient):
            return None

    network = dsr.Network(dsr.Sequential(Stop(), dsr.Linear(6, 2)), timesteps=2)
    network.forward(normal((3, 6)), training=True)
    with pytest.raises(RuntimeError, match="expected a Gradient of the data from the first layer, got NoneType"):
        network.backward(np.ones((3, 2)), input=True)
