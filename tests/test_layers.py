"""Layers against slow, time-resolved formulas, and what they refuse."""

import numpy as np
import pytest
from checks import normal

import dsr
from dsr import reference
from dsr.nn.currents import Current
from dsr.nn.gradients import Gradient
from dsr.nn.run import Run
from dsr.nn.spikes import to_lanes

TRAINING = Run(training=True)


def set_path_weights(layer, seed=1):
    rng = np.random.default_rng(seed)
    for _, inner in layer.walk():
        inner.initialise(rng)
    return layer


# ---- gradients as constant + slope * x -----------------------------------------------------------------------------


def test_gradient_forms_agree():
    constant, x, y = normal((5, 2, 3, 4)), normal((5, 2, 3, 6, 4), 1), normal((5, 2, 3, 6, 4), 2)
    slope, other = normal(5, 3), normal(5, 4)
    gradient = Gradient(constant, 6, [(slope, Current.of(x)), (other, Current.of(y))])
    dense = gradient.dense()
    expected = constant[:, :, :, None] + slope[:, None, None, None, None] * x + other[:, None, None, None, None] * y
    np.testing.assert_allclose(dense, expected, rtol=1e-6, atol=1e-6)
    weights = np.arange(1, 7, dtype=np.float32)
    summed = np.einsum("chwtb,t->chwb", dense.astype(np.float64), weights)
    # 6 steps of values up to about 10 times weights up to 6
    np.testing.assert_allclose(gradient.summed(weights), summed, atol=6 * 60 * 2.0**-23, rtol=0)
    np.testing.assert_array_equal(Gradient.from_dense(dense).dense(), dense)


# ---- batch normalisation -------------------------------------------------------------------------------------------


def batch_norm_64(x, weight, bias, eps=1e-5):
    axes = (1, 2, 3, 4)
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    xhat = (x - mean) / np.sqrt(variance + eps)
    return xhat * weight.reshape(-1, 1, 1, 1, 1) + bias.reshape(-1, 1, 1, 1, 1), xhat, np.sqrt(variance + eps)


def test_batch_norm_forward_and_exact_gradient():
    layer = dsr.BatchNorm(3)
    layer.weight.value[:], layer.bias.value[:] = (0.5, 1.5, -1.0), (0.1, 0.2, 0.3)
    x = normal((3, 4, 5, 6, 7)) * 3 + 2
    current = Current.of(x)
    out = layer.forward(current, TRAINING)
    y, xhat, sigma = batch_norm_64(x.astype(np.float64), layer.weight.value, layer.bias.value)
    # scale and shift are rounded once each, then one product and one sum of values up to about 10
    np.testing.assert_allclose(out.final_values(), y, atol=40 * 2.0**-23, rtol=0)
    g = normal((3, 4, 5, 7), 5)
    steps = np.repeat(g[:, :, :, None], 6, axis=3).astype(np.float64)
    below = layer.backward(Gradient(g, 6))
    axes, weight = (1, 2, 3, 4), layer.weight.value.reshape(-1, 1, 1, 1, 1)
    mean_g, mean_gx = steps.mean(axis=axes, keepdims=True), (steps * xhat).mean(axis=axes, keepdims=True)
    expected = weight / sigma * (steps - mean_g - xhat * mean_gx)
    np.testing.assert_allclose(below.dense(), expected, atol=40 * 2.0**-23, rtol=0)
    np.testing.assert_allclose(layer.bias.grad, steps.sum(axis=axes), rtol=2.0**-22)
    np.testing.assert_allclose(layer.weight.grad, (steps * xhat).sum(axis=axes), rtol=1e-5, atol=1e-4)


def test_batch_norm_with_a_gradient_that_varies_in_time():
    x, z = normal((2, 2, 2, 3, 5)), normal((2, 2, 2, 3, 5), 1)
    constant, slope = normal((2, 2, 2, 5), 2), normal(2, 3)
    first, second = dsr.BatchNorm(2), dsr.BatchNorm(2)
    gradient = Gradient(constant, 3, [(slope, Current.of(z))])
    first.forward(Current.of(x), TRAINING)
    second.forward(Current.of(x), TRAINING)
    a, b = first.backward(gradient), second.backward(Gradient.from_dense(gradient.dense()))
    np.testing.assert_allclose(a.dense(), b.dense(), atol=1e-5, rtol=0)


def test_a_static_current_counts_as_its_copies():
    """Direct coding: one step that stands for T gives what T explicit copies give, running statistics included."""

    def network():
        body = dsr.Sequential(
            dsr.Conv2d(3, 8, 3, padding=1), dsr.BatchNorm(8), dsr.IF(1.0), dsr.Flatten(), dsr.Linear(8 * 16, 4)
        )
        return dsr.Network(body, timesteps=4, seed=3)

    static, copied = network(), network()
    images, labels = normal((6, 3, 4, 4)), np.arange(6) % 4
    for net, data in ((static, images), (copied, np.repeat(images[None], 4, axis=0))):
        _, grad = dsr.cross_entropy(net.forward(data, training=True), labels)
        net.backward(grad)
    for (name, a), (_, b) in zip(static.parameters(), copied.parameters(), strict=True):
        np.testing.assert_allclose(a.grad, b.grad, atol=1e-5, rtol=1e-4, err_msg=name)
    for name, array in static.state().items():
        np.testing.assert_allclose(array, copied.state()[name], atol=1e-6, rtol=1e-6, err_msg=name)


# ---- networks without spikes are ordinary networks: finite differences ---------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        lambda: dsr.Sequential(dsr.Conv2d(2, 4, 3, padding=1), dsr.BatchNorm(4), dsr.Conv2d(4, 3, 3, stride=2)),
        lambda: dsr.Sequential(
            dsr.Conv2d(2, 4, 3), dsr.AvgPool2d(2), dsr.BatchNorm(4), dsr.Flatten(), dsr.Linear(16, 3)
        ),
        lambda: dsr.Sequential(
            dsr.Conv2d(2, 2, 3, padding=1),
            dsr.Residual(dsr.Sequential(dsr.BatchNorm(2), dsr.Conv2d(2, 2, 3, padding=1))),
            dsr.AvgPool2d(3, stride=2, padding=1),
        ),
        lambda: dsr.Sequential(
            dsr.Conv2d(2, 2, 2, stride=2),
            dsr.Residual(
                dsr.Sequential(dsr.Conv2d(2, 3, 3, padding=1), dsr.BatchNorm(3)),
                dsr.Sequential(dsr.Conv2d(2, 3, 1), dsr.BatchNorm(3)),
            ),
        ),
    ],
)
def test_gradients_are_those_of_finite_differences(body):
    network = dsr.Network(body(), timesteps=3, seed=2)
    data = normal((3, 5, 2, 6, 6), 4)
    out = network.forward(data, training=True)
    direction_out = normal(out.shape, 5)
    network.backward(direction_out)

    def difference(parameter, direction, step):
        start, values = parameter.value.copy(), []
        for sign in (1, -1):
            parameter.value[...] = start + sign * step * direction
            values.append(float((network.forward(data, training=True).astype(np.float64) * direction_out).sum()))
        parameter.value[...] = start
        return (values[0] - values[1]) / (2 * step)

    for seed, (name, parameter) in enumerate(network.parameters()):
        direction = normal(parameter.value.shape, 10 + seed)
        # extrapolated: without the error of order step**2
        slope = (4 * difference(parameter, direction, 2.0**-7) - difference(parameter, direction, 2.0**-6)) / 3
        expected = float((parameter.grad.astype(np.float64) * direction).sum())
        # rounding: some hundred outputs of order 1 with float32 errors, divided by the step: 1e-5 * 2**7
        assert abs(slope - expected) < 4e-3 * max(1, abs(expected)), name


# ---- dropout -------------------------------------------------------------------------------------------------------


def test_dropout_draws_a_mask_for_each_step_and_scales():
    layer = set_path_weights(dsr.Dropout(0.25))
    x = np.ones((16, 8, 8, 5, 4), np.float32)
    out = layer.forward(Current.of(x), TRAINING).values()
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.75)}
    # 20,480 draws: standard deviation of the share 0.003; five of them is a false alarm in two million
    assert abs((out != 0).mean() - 0.75) < 0.0152
    assert not np.array_equal(out[:, :, :, 0], out[:, :, :, 1])
    again = layer.forward(Current.of(x), TRAINING).values()
    assert not np.array_equal(out, again)
    assert layer.forward(Current.of(x), Run()).values() is x


def test_dropout_masks_spikes_and_the_gradient_of_every_step():
    layer = set_path_weights(dsr.Dropout(0.5))
    dense = (normal((4, 3, 33, 2, 2)) > 0).astype(np.float32)
    train = dsr.SpikeTrain.from_dense(dense)
    out = layer.forward(train, TRAINING)
    ones = np.ones((33, 2, 2, 4, 3), np.float32)
    mask = out.dense() != 0
    grad = normal((33, 2, 2, 4, 3), 7)
    below = layer.backward(Gradient.from_dense(grad))
    assert (dense[mask] == 1).all()
    assert 0.3 < mask.sum() / dense.sum() < 0.7
    # where a spike survived, the gradient passes doubled; where one was dropped, it does not pass
    passed = np.zeros_like(ones)
    layer.stream[1] -= np.uint32(1)
    full = layer.forward(Current.of(ones), TRAINING).values()
    passed = (grad * full).sum(axis=3)
    np.testing.assert_allclose(below, passed, atol=1e-5)
    np.testing.assert_array_equal(out.dense(), dense * full.transpose(3, 4, 0, 1, 2))


# ---- spiking layers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["if", "lif"])
def test_neuron_layer_is_the_functional_neuron(kind):
    layer = dsr.IF(0.8) if kind == "if" else dsr.LIF(0.8, tau=1.0, delta_t=0.2)
    x = normal((6, 3, 5, 4, 2))
    train = layer.forward(Current.of(to_lanes(x)), TRAINING)
    grad_rate = normal((3, 5, 4, 2), 3)
    if kind == "if":
        expected = dsr.functional.if_forward(x, 0.8)
        steps = np.broadcast_to(grad_rate, x.shape)
        grad_current, grad_threshold = dsr.functional.if_backward(steps, x, 0.8)
    else:
        expected = dsr.functional.lif_forward(x, 0.8, 1.0, 0.2)
        steps = np.broadcast_to(grad_rate, x.shape)
        grad_current, grad_threshold = dsr.functional.lif_backward(steps, x, 0.8, 1.0, 0.2)
    np.testing.assert_array_equal(train.dense(), expected)
    below = layer.backward(Gradient(np.ascontiguousarray(to_lanes(grad_rate[None])[:, :, :, 0]), 6))
    np.testing.assert_allclose(below.dense().transpose(3, 4, 0, 1, 2), grad_current, rtol=1e-6, atol=1e-7)
    assert abs(float(layer.v_threshold.grad) - grad_threshold) < 1e-5


def test_threshold_is_clamped_from_below():
    layer = dsr.IF(1.0, v_threshold_lower_bound=0.01)
    layer.v_threshold.value[...] = 0.001
    assert layer.effective_threshold() == pytest.approx(0.01, rel=1e-6)
    layer.v_threshold.value[...] = np.nan
    with pytest.raises(FloatingPointError, match="v_threshold"):
        layer.effective_threshold()


def test_flatten_of_spikes_keeps_the_order_of_features():
    dense = (normal((3, 2, 5, 4, 3)) > 0.5).astype(np.float32)
    flat = dsr.Flatten().forward(dsr.SpikeTrain.from_dense(dense), Run())
    np.testing.assert_array_equal(flat.dense(), dense.reshape(3, 2, 60))


def test_average_pooling_of_spikes():
    dense = (normal((3, 2, 5, 4, 4)) > 0.5).astype(np.float32)
    pooled = dsr.AvgPool2d(2).forward(dsr.SpikeTrain.from_dense(dense), Run())
    expected = reference.avg_pool(to_lanes(dense).reshape(5, 4, 4, 6), 2, 2)
    np.testing.assert_array_equal(pooled.values().reshape(5, 2, 2, 6), expected)


# ---- networks ------------------------------------------------------------------------------------------------------


def small_network(seed=0):
    body = dsr.Sequential(
        conv=dsr.Conv2d(1, 4, 3, padding=1), bn=dsr.BatchNorm(4), neuron=dsr.IF(1.0), drop=dsr.Dropout(0.2),
        flatten=dsr.Flatten(), linear=dsr.Linear(64, 3), bn2=dsr.BatchNorm(3), out=dsr.LIF(0.5, delta_t=0.2),
    )  # fmt: skip
    return dsr.Network(body, timesteps=3, seed=seed)


def train_a_little(network, steps=5):
    optimizer = dsr.SGD(network.parameters(), 0.05, momentum=0.9)
    for step in range(steps):
        rates = network.forward(normal((8, 1, 4, 4), step), training=True)
        _, grad = dsr.cross_entropy(rates, np.arange(8) % 3)
        network.backward(grad)
        optimizer.step()
    return network.state()


def test_the_same_bits_for_any_number_of_threads():
    before = dsr.get_num_threads()
    try:
        states = []
        for threads in (1, 2, 3, 4):
            dsr.set_num_threads(threads)
            states.append(train_a_little(small_network()))
    finally:
        dsr.set_num_threads(before)
    for state in states[1:]:
        for name, array in state.items():
            np.testing.assert_array_equal(array, states[0][name], err_msg=name)


def test_inference_changes_nothing_and_needs_no_state():
    network = small_network()
    before = network.state()
    first = network.forward(normal((4, 1, 4, 4)))
    second = network.forward(normal((4, 1, 4, 4)))
    np.testing.assert_array_equal(first, second)
    for name, array in network.state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    with pytest.raises(RuntimeError, match="forward pass with training=True"):
        network.backward(np.zeros((4, 3)))


def test_loading_a_state_is_all_or_nothing():
    network, other = small_network(0), small_network(1)
    state = other.state()
    wrong = dict(state) | {"linear.weight": np.zeros((3, 5, 1, 1))}
    before = network.state()
    with pytest.raises(ValueError, match=r"linear.weight.*\(3, 64, 1, 1\)"):
        network.load_state(wrong)
    np.testing.assert_array_equal(network.state()["conv.weight"], before["conv.weight"])
    with pytest.raises(ValueError, match=r"missing.*conv.weight"):
        network.load_state({k: v for k, v in state.items() if k != "conv.weight"})
    network.load_state(state)
    np.testing.assert_array_equal(network.forward(normal((2, 1, 4, 4))), other.forward(normal((2, 1, 4, 4))))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: dsr.Conv2d(0, 3, 3), ValueError, "Conv2d: argument 'in_channels'"),
        (lambda: dsr.Conv2d(1, 3, 3, padding=-1), ValueError, "Conv2d: argument 'padding'"),
        (lambda: dsr.AvgPool2d(2, padding=2), ValueError, "AvgPool2d: argument 'padding'"),
        (lambda: dsr.Dropout(1.0), ValueError, "Dropout: argument 'p'"),
        (lambda: dsr.IF(-1.0), ValueError, "IF: argument 'v_threshold'"),
        (lambda: dsr.IF(1.0, alpha=0), ValueError, "IF: argument 'alpha'"),
        (lambda: dsr.LIF(1.0, tau=0), ValueError, "LIF: argument 'tau'"),
        (lambda: dsr.LIF(1.0, gradient="best"), ValueError, "argument 'gradient'"),
        (lambda: dsr.Sequential(3), TypeError, "Sequential: argument '0'"),
        (lambda: dsr.Network(dsr.Flatten(), 0), ValueError, "Network: argument 'timesteps'"),
        (lambda: small_network().forward(np.zeros((2, 2, 4, 4))), ValueError, "Conv2d conv: expected features"),
        (lambda: small_network().forward(np.zeros((2, 1, 5, 5))), ValueError, "Linear linear: .*Flatten"),
        (lambda: small_network().forward(np.zeros(3)), ValueError, "Network.forward: argument 'data'"),
        (lambda: small_network().forward(np.zeros((2, 1, 1, 4, 4))), ValueError, "T = 3"),
        (lambda: small_network().forward([["a"]]), TypeError, "Network.forward: argument 'data'"),
    ],
)
def test_wrong_use_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_network_is_called_and_printed():
    network = small_network()
    data = normal((2, 1, 4, 4))
    np.testing.assert_array_equal(network(data), network.forward(data))
    assert repr(network) == (
        "Network, T = 3, 251 parameters\n"
        "  conv     Conv2d 3x3            40\n"
        "  bn       BatchNorm              8\n"
        "  neuron   IF                     1\n"
        "  drop     Dropout\n"
        "  flatten  Flatten\n"
        "  linear   Linear               195\n"
        "  bn2      BatchNorm              6\n"
        "  out      LIF                    1"
    )
    assert "(body)  IF" in repr(dsr.Network(dsr.IF(1.0), 2))


def test_a_layer_may_occur_once():
    layer = dsr.Flatten()
    with pytest.raises(ValueError, match="occurs twice"):
        dsr.Network(dsr.Sequential(layer, layer), timesteps=2)


# ---- numbers that mean nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("call", ["forward", "predict"])
def test_data_that_is_not_finite_is_refused(call, value):
    """NaN was below every threshold: no spikes, and class 0."""
    data = normal((2, 1, 4, 4))
    data[1, 0, 2, 3] = value
    with pytest.raises(ValueError, match=rf"'data': expected finite values, got {value} at \(1, 0, 2, 3\), one of 1"):
        getattr(small_network(), call)(data)


@pytest.mark.parametrize("shape", [(1, 6), (3, 1, 6)])
def test_batch_norm_needs_more_than_one_value_per_channel(shape):
    """A batch of one was normalised by the variance of one value, and all gradients were 0."""
    body = dsr.Sequential(dsr.Linear(6, 4), dsr.BatchNorm(4), dsr.IF(1.0))
    network = dsr.Network(body, timesteps=3)
    if len(shape) == 3:  # three steps of one sample are three values
        assert network.forward(normal(shape), training=True).shape == (1, 4)
        return
    before = network.state()
    with pytest.raises(ValueError, match="BatchNorm 1: expected more than one value per channel in training"):
        network.forward(normal(shape), training=True)
    for name, array in network.state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    network.forward(normal((2, 6)), training=True)
    network.forward(normal((1, 6)))
    image = dsr.Network(dsr.Sequential(dsr.BatchNorm(1)), timesteps=3)
    assert image.forward(normal((1, 1, 1, 2)), training=True).shape == (1, 1, 1, 2)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("running_var", -1.0, "variance -1.0"), ("running_var", np.nan, "nan"), ("running_mean", np.inf, "mean inf")],
)
def test_running_statistics_that_mean_nothing_are_refused(name, value, words):
    """A negative variance ended in rates of zero."""
    network = dsr.Network(dsr.Sequential(dsr.Linear(6, 4), dsr.BatchNorm(4), dsr.IF(1.0)), timesteps=3)
    state = network.state()
    state[f"1.{name}"][2] = value
    network.load_state(state)
    with pytest.raises(ValueError, match=f"BatchNorm 1: expected finite running statistics.*{words}.*channel 2"):
        network.forward(normal((2, 6)))
    pytest.importorskip("nir")
    with pytest.raises(ValueError, match="BatchNorm 1"):
        dsr.nir.to_nir(network, (6,))


def test_a_forward_pass_writes_no_parameter():
    """The threshold is clamped as it is used, and by the optimiser."""
    network = dsr.Network(dsr.Sequential(dsr.Linear(6, 4), dsr.IF(1.0, v_threshold_lower_bound=0.5)), timesteps=3)
    threshold = network.body.layers["1"].v_threshold
    threshold.value[...] = 0.25
    rates = network.forward(normal((4, 6)), training=True)
    assert threshold.value == 0.25
    assert set(np.unique(rates)) <= {np.float32(0.5 * k / 3) for k in range(4)}
    network.backward(np.ones((4, 4)))
    for optimizer in (dsr.SGD, dsr.Adam, dsr.Muon):
        threshold.value[...] = 0.25
        optimizer(network.parameters(), 0.0).step()
        assert threshold.value == 0.5
