"""Batch normalisation with a gradient without time: beside NumPy, and what the layers around it do then."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from plan_table import counted
from test_distributed import on_ranks

import dsr
from dsr import inspect, models, reference
from dsr.nn.currents import Current, Dense
from dsr.nn.gradients import Gradient
from dsr.nn.run import Run
from dsr.train import build_network
from dsr.train.recipe import Recipe, from_dict

KINDS = [("exact", "steps"), ("rate", "steps"), ("rate", "sampled")]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(0.3, 1, shape).astype(np.float32)


def current_of(values):
    return Current((Dense(values),), values.shape[:3], values.shape[3])


def norm_of(channels, gradient="exact", variance="steps"):
    norm = dsr.BatchNorm(channels, gradient=gradient, variance=variance)
    norm.weight.value[:], norm.bias.value[:] = 1 + 0.3 * normal(channels, seed=1), normal(channels, seed=2)
    return norm


@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize(("gradient", "variance"), KINDS)
def test_values_and_gradients_are_those_of_numpy(gradient, variance, varies):
    """Samples 0 and 9 of 17, and the third of eight, are those whose variance over time is taken."""
    x, norm = normal(5, 4, 3, 6, 17) * np.float32(2), norm_of(5, gradient, variance)
    sampled = [0, 9] if variance == "sampled" else None
    weight, bias = norm.weight.value.astype(np.float64), norm.bias.value.astype(np.float64)
    expected, mean, var, within = reference.batch_norm(x, weight, bias, norm.eps, sampled)
    output = norm.forward(current_of(x), Run(training=True))
    np.testing.assert_allclose(output.final_values(), expected, atol=2e-5)
    np.testing.assert_allclose(norm.running_mean, 0.1 * mean, rtol=1e-5, atol=1e-7)
    count = prod(x.shape[1:])
    np.testing.assert_allclose(norm.running_var, 0.9 + 0.1 * var * count / (count - 1), rtol=1e-5)
    assert (within > 0.5 * var).all()  # what is left out is not small here
    constant, steps = normal(5, 4, 3, 17, seed=3), normal(*x.shape, seed=4)
    given = Gradient.from_dense(steps) if varies else Gradient(constant, 6)
    grad = steps if varies else np.broadcast_to(constant[:, :, :, np.newaxis], x.shape)
    below = norm.backward(given)
    wanted, of_weight, of_bias = reference.batch_norm_backward(grad, x, weight, norm.eps, gradient, sampled)
    np.testing.assert_allclose(below.dense(), wanted, atol=2e-5)
    np.testing.assert_allclose(norm.weight.grad, of_weight, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(norm.bias.grad, of_bias, rtol=1e-4, atol=1e-3)
    assert bool(below.terms) == (gradient == "exact")


def test_rate_loses_only_what_has_the_mean_zero():
    """As the docstring says: the input gradient of a convolution of IF spikes stays, its weight gradient does not."""
    train = dsr.SpikeTrain.from_dense(normal(6, 9, 4, 8, 8) > 0.5, 0.7)

    def gradients(gradient):
        conv, norm, neuron = dsr.Conv2d(4, 6, 3, padding=1), norm_of(6, gradient), dsr.IF(1.0)
        conv.initialise(np.random.default_rng(0))
        run = Run(training=True)
        neuron.forward(norm.forward(conv.forward(train, run), run), run)
        below = conv.backward(norm.backward(neuron.backward(normal(6, 8, 8, 9, seed=5))))
        return below, norm.weight.grad, norm.bias.grad, conv.bias.grad, conv.weight.grad

    exact, rate = gradients("exact"), gradients("rate")
    for a, b in zip(exact[:3], rate[:3], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(a).max())
    difference = np.abs(exact[4] - rate[4]).max() / np.abs(exact[4]).max()
    assert 0.01 < difference < 1


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("channels", "way"), [(5, "conv2d_spikes_sum"), (32, "conv2d_input_gradient")])
@pytest.mark.parametrize("steps", [1, 7])
def test_sums_from_counts_are_those_from_values(monkeypatch, steps, channels, way, own):
    """Of a convolution with a shortcut, whose neurons are fused with it; the sample's values have the same bits. From
    32 channels on the convolution of the counts goes by Winograd's method.
    """
    from dsr.nn import evaluate

    train = dsr.SpikeTrain.from_dense(normal(steps, 32, channels, 8, 8) > 0.2, 0.7)
    if own:
        train = replace(train, amplitude=np.linspace(0.5, 0.9, channels, dtype=np.float32))
    conv = dsr.Conv2d(channels, channels, 3, padding=1)
    conv.initialise(np.random.default_rng(0))
    conv.bias.value[:] = normal(channels)
    found = []
    for least in (1, 100):
        monkeypatch.setattr(evaluate, "COUNTED_FROM", least)
        current = dsr.Residual(conv).forward(train, Run(training=True))
        with counted() as calls:
            total, values = evaluate.sum_and_sample(current, np.array([0, 9, 18, 27]), "", Run(training=True))
        assert {"conv2d_spikes_sum", "conv2d_input_gradient"} & calls.keys() == ({way} if least == 1 else set())
        assert current.is_written == (least == 100)
        found.append((total, values))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-6, atol=1e-6 * channels)
    np.testing.assert_array_equal(found[0][1], found[1][1])


def network_of(gradient, variance, neuron=dsr.IF, timesteps=8, width=8):
    def norm(channels):
        return dsr.BatchNorm(channels, gradient=gradient, variance=variance)

    def spiking():
        return neuron(1.0) if neuron is dsr.IF else neuron(0.5, delta_t=0.2)

    body = dsr.Sequential(
        conv1=dsr.Conv2d(3, width, 3, padding=1), bn1=norm(width), neuron1=spiking(),
        block=dsr.Residual(dsr.Sequential(
            conv1=dsr.Conv2d(width, width, 3, padding=1), bn=norm(width), neuron=spiking(),
            drop=dsr.Dropout(0.2, mask="sample"), conv2=dsr.Conv2d(width, width, 3, padding=1),
        )),
        bn2=norm(width), neuron2=spiking(), pool=dsr.AvgPool2d(2), conv3=dsr.Conv2d(width, width, 3), bn3=norm(width),
        neuron3=spiking(), flatten=dsr.Flatten(), linear=dsr.Linear(width * 36, 10), bn4=norm(10), neuron4=spiking(),
    )  # fmt: skip
    return dsr.Network(body, timesteps, seed=3)


@pytest.mark.parametrize("neuron", [dsr.IF, dsr.LIF])
def test_no_current_is_stored_or_computed_again(neuron):
    images = normal(16, 3, 16, 16)
    network = network_of("rate", "sampled", neuron)
    with counted() as calls:
        _, grad = dsr.cross_entropy(network.forward(images, training=True), np.arange(16) % 10)
        forward = calls.copy()
        for _, layer in network.neurons():
            assert not layer._state[0].is_written
        network.backward(grad)
    assert not {"conv2d_spikes", "conv2d_spikes, added", "neuron_spikes", "expand_gradient"} & (calls - forward).keys()
    assert calls["conv2d_input_gradient"] == 4  # of one step each: three convolutions and the linear layer
    plan = inspect.plan(network, images, training=True)
    assert plan.kept == plan.dropped == ()
    rows = {row.path: (*row.forward, *row.backward) for row in plan.rows if row.forward or row.backward}
    counts = ("weight gradient on spikes, by their counts", "input gradient without time")
    fused = ("fused with the convolution", "gradient from sums")
    assert rows == {
        "conv1": ("dense values, once for all steps", "weight gradient on dense values"),
        "neuron1": ("from computed values", "gradient from sums"),
        "block.body.conv1": ("spikes", *counts),
        "block.body.bn": ("sum over time from counts of spikes",),
        "block.body.neuron": fused,
        "block.body.conv2": ("spikes", *counts),
        "bn2": ("sum over time from counts of spikes",),
        "neuron2": ("fused with the convolution and the shortcut", "gradient from sums"),
        "conv3": ("spikes, 3 trains", *counts),
        "bn3": ("sum over time from values",),
        "neuron3": ("from " + " + ".join(["convolved spikes"] * 3), "gradient from sums"),
        "linear": ("spikes", *counts),
        "bn4": ("sum over time from values",),
        "neuron4": ("from convolved spikes", "gradient from sums"),
    }


def test_memory_is_that_of_bits_and_sums():
    """Of a step at T = 32, traced: the largest current alone would be 16 MiB, and the exact gradient needs several."""
    images, peaks = normal(16, 3, 16, 16), {}
    for gradient, variance in (KINDS[0], KINDS[2]):
        network = network_of(gradient, variance, timesteps=32, width=32)
        tracemalloc.start()
        _, grad = dsr.cross_entropy(network.forward(images, training=True), np.arange(16) % 10)
        network.backward(grad)
        peaks[gradient] = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    assert peaks["rate"] < 10 < 32 < peaks["exact"], peaks


@pytest.mark.parametrize("neuron", [dsr.IF, dsr.LIF])
def test_the_same_bits_for_any_number_of_threads(neuron):
    images, found, before = normal(16, 3, 16, 16), [], dsr.get_num_threads()
    try:
        for threads in (1, 3):
            dsr.set_num_threads(threads)
            network = network_of("rate", "sampled", neuron)
            _, grad = dsr.cross_entropy(network.forward(images, training=True), np.arange(16) % 10)
            network.backward(grad)
            found.append({name: p.grad for name, p in network.parameters()} | network.state())
    finally:
        dsr.set_num_threads(before)
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][name], err_msg=name)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_that_share_a_batch_sample_what_one_process_does(size):
    """Sample i of the batch is on rank i % size; statistics differ in the order of double sums alone."""
    x = normal(4, 3, 4, 5, 24)
    alone = norm_of(4, "rate", "sampled")
    output = alone.forward(current_of(x), Run(training=True)).final_values()

    def work(group):
        norm = norm_of(4, "rate", "sampled")
        norm.join_ranks(group.rank, group.total)
        part = np.ascontiguousarray(x[..., group.rank :: group.size])
        return norm.forward(current_of(part), Run(training=True)).final_values(), norm.running_var

    for rank, (found, variance) in enumerate(on_ranks(size, work)):
        np.testing.assert_allclose(found, output[..., rank::size], atol=1e-6)
        np.testing.assert_allclose(variance, alone.running_var, rtol=1e-7)


def test_one_mask_for_all_steps():
    layer = dsr.Dropout(0.5, mask="sample")
    layer.initialise(np.random.default_rng(0))
    train = dsr.SpikeTrain.from_dense(np.ones((6, 3, 40, 4, 4)), 0.5)
    output = layer.forward(train, Run(training=True))
    values = output.values()
    assert (values == values[:, :, :, :1]).all() and 0.4 < (values > 0).mean() < 0.6 and values.max() == 1
    np.testing.assert_array_equal(output.time_weights, train.time_weights)  # the layer above needs no time axis
    grad = normal(40, 4, 4, 3)
    np.testing.assert_array_equal(layer.backward(grad), grad * (values[:, :, :, 0] > 0) * np.float32(2))
    assert (layer.kind(), dsr.Dropout(0.5).kind()) == ("Dropout, one mask for a sample", "Dropout")
    with pytest.raises(ValueError, match=r"^Dropout: argument 'mask': expected one of step, sample, got 'batch'"):
        dsr.Dropout(0.5, mask="batch")


def test_a_mask_of_every_step_needs_no_time_axis_where_the_gradient_has_none():
    layer = dsr.Dropout(0.5)
    layer.initialise(np.random.default_rng(0))
    train = dsr.SpikeTrain.from_dense(np.ones((6, 3, 40, 4, 4)), 0.5, dsr.LIF(0.3, delta_t=0.3).time_weights(6))
    kept = layer.forward(train, Run(training=True)).values() > 0
    grad = normal(40, 4, 4, 3)
    expected = (grad[:, :, :, np.newaxis] * kept * 2 * train.time_weights[:, np.newaxis]).sum(axis=3)
    np.testing.assert_allclose(layer.backward(Gradient(grad, 6)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gradient": "mean"}, "argument 'gradient': expected one of exact, rate, got 'mean'"),
        ({"variance": 3}, "argument 'variance': expected one of steps, sampled, got 3"),
        ({"variance": "sampled"}, "argument 'variance': expected 'steps' with gradient = 'exact', which reads every"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(ValueError, match=f"^BatchNorm: {words}"):
        dsr.BatchNorm(3, **options)


def test_recipes_choose_and_files_remember(tmp_path):
    rate = {"norm_gradient": "rate", "norm_variance": "sampled", "dropout_mask": "sample"}
    recipe = Recipe(data="none", model="preact_resnet18", width=4, dropout=0.1, **rate)
    network = build_network(recipe, (3, 32, 32), 10)
    kinds = {layer.kind() for _, layer in network.body.walk() if isinstance(layer, dsr.BatchNorm | dsr.Dropout)}
    assert kinds == {"BatchNorm rate, sampled", "Dropout, one mask for a sample"}
    assert "BatchNorm rate, sampled" in repr(network)
    dsr.save(network, tmp_path / "model.safetensors")
    assert repr(dsr.load(tmp_path / "model.safetensors").network) == repr(network)
    assert from_dict({"data": "none", "model": "mlp"}).norm_gradient == "exact"  # as of runs from before
    with pytest.raises(ValueError, match="key 'norm_variance': expected 'steps' with norm_gradient = \"exact\""):
        Recipe(data="none", model="mlp", norm_variance="sampled")

    def own(make_neuron, features, classes):
        return dsr.Sequential(
            dsr.Flatten(), dsr.Linear(12, 4), dsr.BatchNorm(4, gradient="exact"), make_neuron(), dsr.Linear(4, 4),
            dsr.BatchNorm(4), make_neuron(),
        )  # fmt: skip

    body = build_network(recipe, (3, 2, 2), 4, own).body
    assert [layer.kind() for _, layer in body.walk() if isinstance(layer, dsr.BatchNorm)] == [
        "BatchNorm", "BatchNorm rate, sampled",
    ]  # fmt: skip
    assert "preact_resnet18" in models.names()


def test_graded_spikes_are_counted_by_their_planes():
    """The sum over time from counts, with the lowest digit's kernel, is that of the values."""
    rng = np.random.default_rng(3)
    images = rng.normal(size=(16, 3, 8, 8)).astype(np.float32)

    def run(timesteps, gradient, variance):
        body = dsr.Sequential(
            conv1=dsr.Conv2d(3, 40, 3, padding=1),
            neuron1=dsr.IF(0.4, levels=3),
            conv2=dsr.Conv2d(40, 16, 3, padding=1),
            bn=dsr.BatchNorm(16, gradient=gradient, variance=variance),
        )
        init = np.random.default_rng(1)
        network = dsr.Network(body, timesteps=timesteps)
        for _, parameter in network.parameters():
            parameter.value[...] = init.normal(size=parameter.value.shape) * 0.2 + (parameter.value.ndim == 0)
        rates = network.forward(images, training=True)
        network.backward(np.ones_like(rates))
        return dict(network.arrays())["bn.running_mean"].copy()

    np.testing.assert_allclose(run(8, "rate", "sampled"), run(8, "rate", "steps"), rtol=1e-4, atol=1e-6)
