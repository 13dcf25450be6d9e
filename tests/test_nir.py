"""NIR export and import, against an interpreter of NIR graphs that knows nothing of layers (dsr.nir.interpret).

Two kinds of comparison. EXACT: all weights, statistics, thresholds and inputs are small dyadic fractions, so that every
sum is exact in float32 in any order, and spikes must be equal, neuron by neuron and step by step. ROUNDED: any weights;
each decision to fire is then compared by itself, the interpreter seeing the spikes of dsr as its input (`forced`), and
may differ only where the potential is as near to the threshold as rounding reaches.
"""

import os
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dsr
from dsr import data, models

nir = pytest.importorskip("nir", reason="NIR files need the package nir")

import dsr.nir  # noqa: E402
from dsr.nir import interpret as interpreter  # noqa: E402
from dsr.nir.potentials import potentials, threshold_and_alpha  # noqa: E402
from dsr.nn.relu import ReLU  # noqa: E402

EPS = 2.0**-24


def make_if():
    return dsr.IF(2.0, 0.5)


def make_lif():
    return dsr.LIF(0.5, 1.0, 0.25, 0.5)


NEURONS = {"if": make_if, "lif": make_lif}


def dyadic(body, timesteps=4, seed=1):
    """A network whose numbers are small dyadic fractions, with thresholds that differ from layer to layer."""
    network = dsr.Network(body, timesteps)
    rng = np.random.default_rng(seed)
    for _, layer in network.body.walk():
        if isinstance(layer, dsr.Conv2d):
            fan_in = layer.weight.value[0].size
            layer.weight.value = rng.integers(-4, 5, layer.weight.value.shape).astype(np.float32) / (
                2 ** int(np.log2(fan_in) / 2)
            )
            if layer.bias is not None:
                layer.bias.value = rng.integers(-4, 5, layer.bias.value.shape).astype(np.float32) / 16
        elif isinstance(layer, dsr.BatchNorm):
            channels = len(layer.running_mean)
            layer.eps = 2.0**-16
            layer.running_var[:] = rng.choice([0.25, 1, 4], channels) - 2.0**-16  # roots 1/2, 1, 2
            layer.running_mean[:] = rng.integers(-2, 3, channels) / 8
            layer.weight.value[:] = rng.choice([-0.5, 0.5, 1, 1, 2], channels)
            layer.bias.value[:] = rng.integers(0, 5, channels) / 4
        elif isinstance(layer, dsr.IF | dsr.LIF):
            factor = rng.choice([0.75, 1, 1.5])
            layer.v_threshold.value = np.array(layer.v_threshold.value * factor, np.float32)
            layer.v_threshold_lower_bound = 2.0**-10
    return network


def trained(body, features, timesteps=6, seed=2):
    """A network with random weights and the running statistics of a few batches."""
    network = dsr.Network(body, timesteps, seed)
    rng = np.random.default_rng(seed)
    for path, layer in network.body.walk():
        if isinstance(layer, dsr.BatchNorm):
            layer.momentum = 0.5
            layer.weight.value[:] = rng.uniform(0.5, 1.5, len(layer.running_mean))
            layer.bias.value[:] = rng.normal(0.2, 0.3, len(layer.running_mean))
        elif isinstance(layer, dsr.Conv2d) and layer.bias is not None:
            layer.bias.value = rng.normal(0, 0.1, layer.bias.value.shape).astype(np.float32)
        elif isinstance(layer, dsr.IF | dsr.LIF):
            layer.v_threshold.value *= np.float32(rng.uniform(0.4, 0.8))
        assert path == layer.path
    for _ in range(6):
        network.forward(rng.normal(size=(8, *features)), training=True)
    return network


def samples(features, batch=3, seed=3, timesteps=None):
    shape = (batch, *features) if timesteps is None else (timesteps, batch, *features)
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(np.float32) / 4


def spikes(network, inputs):
    """Spikes of all neuron layers, (T, B, ...), by path, and the output rates."""
    seen = {}

    def observe(path, layer, output):
        if isinstance(layer, dsr.IF | dsr.LIF):
            seen[path] = output.dense() != 0

    rates = network.forward(inputs, observer=observe)
    return seen, rates


def run_graph(graph, data, timesteps, dt, forced=None, **rules):
    return interpreter.run(nir, graph, data, timesteps, dt, interpreter.Rules(**rules), forced)


def interpret(graph, network, inputs, **options):
    return run_graph(graph, inputs, network.timesteps, graph.metadata["dt"], **options)


def assert_lively(seen):
    """No layer is so quiet or so loud that equal spikes would say nothing."""
    for name, train in seen.items():
        assert 0.005 < train.mean() < 0.95, f"{name} fires at a rate of {train.mean():.3f}"


def assert_same_spikes(network, graph, inputs, **options):
    seen, rates = spikes(network, inputs)
    assert_lively(seen)
    result = interpret(graph, network, inputs, **options)
    for name, train in seen.items():
        np.testing.assert_array_equal(result.values[name], train, err_msg=name)
    return seen, rates, result


def assert_same_decisions(network, graph, inputs, **options):
    """ROUNDED.

    Let K be the longest sum that makes a current and A the largest sum of absolute values in it. With the spikes given,
    a potential of step t is a sum of t + 1 currents less the spikes, each current off by at most about (K + 4) eps A
    (sums, and the roundings of folded weights), 2 eps A of it for the potential's own sums. The bound used is a
    thousandth of the worst case K A, 1e-3 T (K + 4) A eps, with A taken as 10 times the largest potential; a wrong
    weight, or a threshold off by more than 1e-4 of the potentials, is far outside.
    """
    seen, _ = spikes(network, inputs)
    assert_lively(seen)
    result = interpret(graph, network, inputs, forced=seen, **options)
    longest = max(layer.weight.value[0].size for _, layer in network.body.walk() if isinstance(layer, dsr.Conv2d))
    for name, train in seen.items():
        different = result.values[name] != train
        potentials = result.potentials[name]
        bound = 1e-2 * network.timesteps * (longest + 4) * EPS * np.abs(potentials).max()
        margin = np.abs(potentials - graph.nodes[name].v_threshold)[different]
        assert margin.max(initial=0) <= bound, f"{name}: {margin.max()} from the threshold, {bound} is rounding"
        assert different.mean() <= 1e-3, name


# ---- networks of the package ---------------------------------------------------------------------------------------

MODELS = {
    "digits": (lambda make: models.digits(make, (1, 8, 8), 10, width=8), (1, 8, 8)),
    "preact_resnet18": (lambda make: models.preact_resnet(make, (3, 32, 32), 10, width=4, dropout=0.1), (3, 32, 32)),
    "preact_resnet50": (lambda make: models.preact_resnet(make, (3, 32, 32), 10, width=2, depth=50), (3, 32, 32)),
    "vgg11": (lambda make: models.vgg(make, (2, 32, 32), 10, width=4), (2, 32, 32)),
    "resnet18": (lambda make: models.imagenet_resnet(make, (3, 32, 32), 10, width=4), (3, 32, 32)),
}


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("model", ["digits", "preact_resnet18"])
def test_models_exact(model, neuron, tmp_path):
    make, features = MODELS[model]
    network = dyadic(make(NEURONS[neuron]))
    inputs = samples(features)
    graph = dsr.nir.to_nir(network, features)
    seen, rates, result = assert_same_spikes(network, graph, inputs)
    # the interpreter's mean over steps is the rate of IF; LIF is read with weights, which the metadata say
    if neuron == "if":
        np.testing.assert_array_equal(result.values["output"].mean(0) * graph.metadata["output_amplitude"], rates)
    assert graph.metadata["readout"] == {"if": "rate", "lif": "weighted rate"}[neuron]
    # and back, through a file that nir itself finds well typed
    path = tmp_path / "graph.nir"
    dsr.nir.save(network, features, path)
    nir.read(path)
    again = dsr.nir.load(path)
    seen_again, rates_again = spikes(again, inputs)
    np.testing.assert_array_equal(rates_again, rates)
    assert len(seen_again) == len(seen)
    for name, train in seen_again.items():
        np.testing.assert_array_equal(train, seen[dsr_name(name, seen)], err_msg=name)
    # a graph of the imported network is the same program once more
    assert_same_spikes(again, dsr.nir.to_nir(again, features), inputs)


def dsr_name(imported, names):
    """The path a neuron had before it came to lie in a residual of the imported network."""
    return max((name for name in names if f".{imported}".endswith(f".{name}")), key=len)


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("model", MODELS)
def test_models_rounded(model, neuron):
    make, features = MODELS[model]
    network = trained(make(NEURONS[neuron]), features)
    graph = dsr.nir.to_nir(network, features)
    assert_same_decisions(network, graph, samples(features, 2))


def test_frames_of_every_step_exact():
    make, features = MODELS["digits"]
    network = dyadic(make(make_lif))
    inputs = samples(features, timesteps=network.timesteps)
    assert_same_spikes(network, dsr.nir.to_nir(network, features), inputs)


# ---- networks that a user may build --------------------------------------------------------------------------------


def conv(channels, out, size=3, stride=1, padding=1, bias=True):
    return dsr.Conv2d(channels, out, size, stride, padding, bias)


ODD = {
    "branches, added and concatenated": lambda n: [
        conv(2, 4), n(), dsr.Concat(dsr.Identity(), dsr.Sequential(conv(4, 2), n()), conv(4, 3)), dsr.BatchNorm(9), n(),
        dsr.Add(dsr.Identity(), conv(9, 9), dsr.Sequential(conv(9, 9, 1, 1, 0), n())), n(), dsr.SpikeResidual(
            dsr.Sequential(conv(9, 9), n())), conv(9, 4, 3, 2), n(), dsr.Flatten(),
        dsr.Concat(dsr.Linear(64, 3), dsr.Sequential(dsr.Linear(64, 4), n())), n(),
    ],
    "windows that are not square, and the mean of all pixels": lambda n: [
        conv(2, 4), n(), dsr.AvgPool2d((1, 4), (1, 2), (0, 2)), conv(4, 4), n(), dsr.GlobalAvgPool2d(),
        dsr.Linear(4, 3), n(),
    ],
    "batch norm of the input": lambda n: [dsr.BatchNorm(2), n(), conv(2, 4), n()],
    "batch norm of spikes and of pooled spikes": lambda n: [
        conv(2, 4), n(), dsr.BatchNorm(4), conv(4, 4), n(), dsr.AvgPool2d(2), dsr.BatchNorm(4), n(),
    ],
    "two batch norms": lambda n: [conv(2, 4), dsr.BatchNorm(4), dsr.BatchNorm(4), n()],
    "neuron on spikes": lambda n: [conv(2, 4), n(), n()],
    "a vector of spikes": lambda n: [
        conv(2, 4, 3, 2), n(), dsr.Flatten(), dsr.BatchNorm(64), n(), dsr.Linear(64, 8, bias=False), n(),
    ],
    "flattened by channel": lambda n: [
        conv(2, 4, 3, 2), n(), dsr.BatchNorm(4), dsr.AvgPool2d(2), dsr.Flatten(), dsr.Linear(16, 8), n(),
    ],
    "two readers of one current": lambda n: [
        conv(2, 4), dsr.BatchNorm(4),
        dsr.Residual(dsr.Sequential(dsr.BatchNorm(4), n(), conv(4, 4))), dsr.BatchNorm(4), n(),
    ],
    "both ways from one node": lambda n: [conv(2, 4), n(), dsr.Residual(dsr.BatchNorm(4)), n()],
    "input and its convolution": lambda n: [dsr.Residual(conv(2, 2)), dsr.BatchNorm(2), n()],
    "residual in a residual": lambda n: [
        conv(2, 4), n(),
        dsr.Residual(
            dsr.Sequential(conv(4, 4), n(), dsr.Residual(conv(4, 4, 1, 1, 0))),
            dsr.Sequential(conv(4, 4, 1, 1, 0), dsr.BatchNorm(4)),
        ),
        dsr.BatchNorm(4), n(),
    ],
    "a sum into a convolution": lambda n: [
        conv(2, 4), n(), dsr.Residual(conv(4, 4)), conv(4, 4), dsr.BatchNorm(4), n(),
    ],
    "a shifted sum into a convolution": lambda n: [
        conv(2, 4), n(), dsr.Residual(conv(4, 4)), dsr.BatchNorm(4), conv(4, 4, 3, 2), n(),
    ],
    "spikes read out as pooled images": lambda n: [conv(2, 4), n(), dsr.AvgPool2d(2)],
}  # fmt: skip


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("name", ODD)
def test_odd_networks_exact(name, neuron, diagonal):
    network = dyadic(dsr.Sequential(*ODD[name](NEURONS[neuron])))
    inputs = samples((2, 8, 8))
    graph = dsr.nir.to_nir(network, (2, 8, 8), diagonal=diagonal)
    seen, rates, _ = assert_same_spikes(network, graph, inputs)
    again, rates_again = spikes(dsr.nir.from_nir(graph), inputs)
    np.testing.assert_array_equal(rates_again, rates)
    for path, train in again.items():
        np.testing.assert_array_equal(train, seen[dsr_name(path, seen)], err_msg=path)
    if diagonal:
        assert not any(isinstance(node, nir.Scale) for node in graph.nodes.values())


POOLED = {
    "images": ((2, 8, 8), lambda n: [
        conv(2, 4), n(), dsr.MaxPool2d(2), conv(4, 4), dsr.BatchNorm(4), n(), dsr.MaxPool2d(3, 2, 1), dsr.Flatten(),
        dsr.Linear(16, 3), n(),
    ]),
    "heights by channel": ((2, 8, 8), lambda n: [
        conv(2, 4), dsr.IF(np.array([0.5, 1, 2, 0.75]), 0.5), dsr.MaxPool2d((2, 1)), conv(4, 3), n(),
    ]),
    "signals": ((2, 24), lambda n: [
        dsr.Conv1d(2, 4, 3, padding=1), n(), dsr.MaxPool1d(3, 2, 1), dsr.Conv1d(4, 4, 3), n(), dsr.AvgPool1d(2),
        dsr.Conv1d(4, 2, 3), n(), dsr.AvgPool1d(3, 1, 1), dsr.Flatten(), dsr.Linear(6, 3), n(),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("name", POOLED)
def test_pooling_goes_and_comes_back_exact(name, neuron, tmp_path):
    """Maximum pooling is a threshold of sums of spikes, and pooling of signals a convolution of each channel."""
    features, layers = POOLED[name]
    network, inputs = dyadic(dsr.Sequential(*layers(NEURONS[neuron]))), samples(features)
    kinds = {type(node).__name__ for node in dsr.nir.to_nir(network, features).nodes.values()}
    assert "Threshold" in kinds and ("SumPool2d" in kinds) == (len(features) == 3)
    assert_same_spikes(network, dsr.nir.to_nir(network, features), inputs)
    dsr.nir.save(network, features, tmp_path / "graph.nir")
    again = dsr.nir.load(tmp_path / "graph.nir")
    np.testing.assert_array_equal(again.forward(inputs), network.forward(inputs))
    pools = [type(layer) for layer in again.body.layers.values() if isinstance(layer, dsr.MaxPool2d)]
    assert pools == [type(layer) for layer in network.body.layers.values() if isinstance(layer, dsr.MaxPool2d)]


@pytest.mark.parametrize("threshold", [1.0, -0.5])
def test_other_thresholds_of_sums_are_refused(threshold):
    """Of 4 spikes at least two, or always."""
    windows = np.array([2, 2])
    size = (4, 4, 4)
    nodes = [if_node(C8, 0.5, -0.5), nir.SumPool2d(windows, windows, 0 * windows), nir.Threshold(full(size, threshold))]
    with pytest.raises(ValueError, match=r"node '4' \(Threshold\): dsr has no threshold of a sum of spikes but one"):
        dsr.nir.from_nir(chain(image(), conv_node((8, 8), W), *nodes, output(size)), 4, delta_t=1.0, reset="subtract")
    with pytest.raises(ValueError, match=r"node '1' \(Threshold\): dsr has thresholds without memory only of sums"):
        dsr.nir.from_nir(chain(image(), nir.Threshold(full((2, 8, 8), 0.5)), output((2, 8, 8))), 4, delta_t=1.0)


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("neuron", NEURONS)
def test_thresholds_of_channels_exact(neuron, metadata, tmp_path):
    """Written for each neuron, and read again; without the metadata too, in which they stand as numbers."""
    heights = np.array([0.5, 1, 2, 0.75])
    make = {"if": dsr.IF, "lif": lambda v, alpha: dsr.LIF(v / 4, 1.0, 0.25, alpha)}[neuron]
    body = dsr.Sequential(
        conv(2, 4), make(heights, 0.5), conv(4, 4, 3, 2), dsr.BatchNorm(4), make(heights[::-1], 0.25),
        dsr.AvgPool2d(2), make(heights, 1.0), dsr.Flatten(), dsr.Linear(16, 3), make(heights[:3], 0.5),
    )  # fmt: skip
    network, inputs = dyadic(body), samples((2, 8, 8))
    graph = dsr.nir.to_nir(network, (2, 8, 8))
    seen, rates, _ = assert_same_spikes(network, graph, inputs)
    path = tmp_path / "graph.nir"
    if metadata:
        dsr.nir.save(network, (2, 8, 8), path)
        again = dsr.nir.load(path)
    else:
        for key in ("v_threshold", "alpha"):
            del graph.metadata[key]
        again = dsr.nir.from_nir(graph)
    seen_again, rates_again = spikes(again, inputs)
    np.testing.assert_array_equal(rates_again, rates)
    for name, train in seen_again.items():
        np.testing.assert_array_equal(train, seen[dsr_name(name, seen)], err_msg=name)


def test_channels_have_one_alpha():
    node, size = if_node((4, 8, 8)), np.array((4, 8, 8))
    node.v_threshold[0], node.v_reset[0] = 0.25, -0.75
    with pytest.raises(ValueError, match=r"node '1' \(IF\): dsr has one alpha"):
        dsr.nir.from_nir(chain(nir.Input(size), node, nir.Output(size)), timesteps=2, delta_t=1, reset="subtract")


def test_scales_go_through_pooling_and_flattening_into_weights():
    norm = dsr.BatchNorm(4)
    layers = [conv(2, 4, 3, 2), make_if(), norm, dsr.AvgPool2d(2), dsr.Flatten(), dsr.Linear(16, 8), make_if()]
    network = dyadic(dsr.Sequential(*layers))
    norm.running_mean[:] = norm.bias.value[:] = 0
    assert len(set(norm.weight.value / np.sqrt(norm.running_var + norm.eps))) > 1
    graph = dsr.nir.to_nir(network, (2, 8, 8))
    _, rates, _ = assert_same_spikes(network, graph, samples((2, 8, 8)))
    assert set(graph.nodes) == {"input", "0", "1", "3", "4", "5", "6", "output"}
    np.testing.assert_array_equal(dsr.nir.from_nir(graph).forward(samples((2, 8, 8))), rates)


def test_spikes_of_height_one_need_no_scale():
    body = [conv(2, 4), dsr.IF(1.0), dsr.Residual(conv(4, 4)), dsr.IF(1.0)]
    network = dyadic(dsr.Sequential(*body))
    for _, neuron in network.neurons():
        neuron.v_threshold.value[...] = 1
    graph = dsr.nir.to_nir(network, (2, 8, 8))
    assert ("1", "3") in graph.edges
    graph.edges.sort()  # the direct edge comes first, and is the shortcut nevertheless
    graph.edges.sort(key=lambda edge: edge != ("1", "3"))
    again = dsr.nir.from_nir(graph)
    assert list(again.body.layers) == ["0", "1", "1.sum", "3"] and again.body.layers["1.sum"].shortcut is None
    np.testing.assert_array_equal(again.forward(samples((2, 8, 8))), network.forward(samples((2, 8, 8))))


@pytest.mark.parametrize("neuron", NEURONS)
def test_a_threshold_below_its_bound(neuron):
    network = dyadic(dsr.Sequential(conv(2, 4), NEURONS[neuron](), conv(4, 4), NEURONS[neuron]()))
    for _, layer in network.neurons():
        layer.v_threshold.value[...] = -1
        layer.v_threshold_lower_bound = 0.5
    graph = dsr.nir.to_nir(network, (2, 8, 8))
    _, rates, _ = assert_same_spikes(network, graph, samples((2, 8, 8)))
    assert graph.metadata["v_threshold"] == {"1": 0.5, "3": 0.5}
    np.testing.assert_array_equal(dsr.nir.from_nir(graph).forward(samples((2, 8, 8))), rates)


def test_a_mean_current_as_output():
    network = dyadic(dsr.Sequential(conv(2, 4), make_if(), dsr.Flatten(), dsr.Linear(256, 3), dsr.BatchNorm(3)))
    inputs = samples((2, 8, 8))
    graph = dsr.nir.to_nir(network, (2, 8, 8))
    _, rates, result = assert_same_spikes(network, graph, inputs)
    assert graph.metadata["readout"] == "mean" and graph.metadata["output_amplitude"] == 1
    np.testing.assert_array_equal(result.values["output"].mean(0), rates)
    np.testing.assert_array_equal(dsr.nir.from_nir(graph).forward(inputs), rates)


@pytest.mark.parametrize("spiking", [True, False])
@pytest.mark.parametrize("weight", [(2, 2, 2, 2), (-1, -1, -1, -1), (1, 2, 0.5, 1)])
def test_a_scaled_output(weight, spiking):
    norm = dsr.BatchNorm(4)
    network = dyadic(dsr.Sequential(conv(2, 4), *([make_if()] if spiking else []), norm))
    norm.running_mean[:] = norm.bias.value[:] = 0
    norm.running_var[:] = 1 - norm.eps
    norm.weight.value[:] = weight
    graph = dsr.nir.to_nir(network, (2, 8, 8))
    _, rates, result = assert_same_spikes(network, graph, samples((2, 8, 8)))
    # all that a reader has to know is that larger is better, so the factor left to it is positive
    amplitude = graph.metadata["output_amplitude"]
    assert amplitude > 0 and (spiking or amplitude == 1)
    np.testing.assert_array_equal(amplitude * result.values["output"].mean(0), rates)
    np.testing.assert_array_equal(dsr.nir.from_nir(graph).forward(samples((2, 8, 8))), rates)


def test_a_shift_goes_into_whichever_way_has_weights():
    ways = dsr.Residual(dsr.BatchNorm(4), conv(4, 4))
    network = dyadic(dsr.Sequential(conv(2, 4), make_if(), ways, make_if()))
    graph = dsr.nir.to_nir(network, (2, 8, 8))
    assert_same_spikes(network, graph, samples((2, 8, 8)))
    assert [type(node) for node in graph.nodes.values()].count(nir.Conv2d) == 2


def test_network_of_a_single_layer():
    network = dsr.Network(dsr.IF(1.0), 3)
    graph = dsr.nir.to_nir(network, (5,))
    assert set(graph.nodes) == {"input", "if", "output"}
    inputs = samples((5,))
    np.testing.assert_array_equal(dsr.nir.from_nir(graph).forward(inputs), network.forward(inputs))


# ---- numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "features"),
    [
        ([lambda: dsr.Conv2d(4, 6, (2, 3), (1, 2), (1, 0), dilation=(2, 1), groups=2)], (4, 7, 9)),
        ([lambda: dsr.Conv2d(4, 4, (4, 3), padding="same", groups=4), lambda: dsr.Conv2d(4, 5, 1)], (4, 7, 9)),
        ([lambda: dsr.Conv1d(4, 6, 4, padding="same", groups=2), lambda: dsr.Conv1d(6, 3, 3, 2, 1)], (4, 19)),
    ],
)
def test_convolutions_of_any_geometry_go_and_come_back(layers, features, tmp_path):
    convolutions = [make() for make in layers]
    parts = [part for conv in convolutions for part in (conv, dsr.BatchNorm(len(conv.bias.value)), make_if())]
    network = dyadic(dsr.Sequential(*parts))
    graph = dsr.nir.to_nir(network, features)
    inputs = samples(features)
    assert_same_spikes(network, graph, inputs)
    np.testing.assert_array_equal(dsr.nir.from_nir(graph).forward(inputs), network.forward(inputs))
    dsr.nir.save(network, features, tmp_path / "graph.nir")
    np.testing.assert_array_equal(dsr.nir.load(tmp_path / "graph.nir").forward(inputs), network.forward(inputs))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (dsr.ConvTranspose2d(2, 2, 2, 2), "NIR has no transposed convolution"),
        (dsr.ConvTranspose2d(2, 2, 3), None),
    ],
)
def test_transposed_convolutions(layer, reason):
    """NIR has those only that are ordinary ones: without a stride."""
    network = dsr.Network(dsr.Sequential(up=layer, neuron=dsr.IF(1.0)), 2)
    if reason:
        with pytest.raises(ValueError, match=f"^to_nir: layer 'up': {reason}"):
            dsr.nir.to_nir(network, (2, 4, 4))
    else:
        assert dsr.nir.to_nir(network, (2, 4, 4)).nodes["up"].weight.shape == (2, 2, 3, 3)


def test_folded_batch_norm_is_rounded_once():
    conv2d, norm = dsr.Conv2d(3, 16, 3, 1, 1), dsr.BatchNorm(16)
    network = trained(dsr.Sequential(conv2d, norm, make_if()), (3, 6, 6))
    graph = dsr.nir.to_nir(network, (3, 6, 6))
    x = samples((3, 6, 6))
    plain = nir.Conv2d((6, 6), conv2d.weight.value, 1, 1, 1, 1, conv2d.bias.value.astype(np.float64))
    scale = norm.weight.value / np.sqrt(norm.running_var.astype(np.float64) + norm.eps)
    shift = norm.bias.value - norm.running_mean * scale

    def per_channel(values):
        return values.reshape(-1, 1, 1)

    expected = per_channel(scale) * interpreter.apply(nir, plain, x.astype(np.float64)) + per_channel(shift)
    actual = interpreter.apply(nir, graph.nodes["0"], x.astype(np.float64))
    # weights and bias are rounded once each, after scale and shift of dsr, rounded too: 2 eps of every product
    absolute = nir.Conv2d((6, 6), np.abs(conv2d.weight.value), 1, 1, 1, 1, np.abs(conv2d.bias.value))
    size = per_channel(np.abs(scale)) * interpreter.apply(nir, absolute, np.abs(x).astype(np.float64))
    size += per_channel(np.abs(shift) + np.abs(norm.running_mean * scale))
    assert (np.abs(actual - expected) <= 2.01 * EPS * size).all()


@given(
    st.floats(2.0**-10, 2.0**10, width=32),
    st.one_of(st.sampled_from([0.25, 0.3, 0.5, 1.0]), st.floats(2.0**-12, 1, width=32)),
)
def test_potentials_say_the_same_as_threshold_and_alpha(v_threshold, alpha):
    height, fire = np.float32(v_threshold), np.float32(alpha) * np.float32(v_threshold)
    threshold, reset = potentials(v_threshold, alpha)
    assert fire > threshold and not np.nextafter(fire, np.float32(0)) > threshold  # v > threshold where u >= fire
    assert np.abs(threshold - reset - height) <= np.spacing(height)
    assert threshold - reset == height or alpha != 0.5
    assert reset == 0 or alpha != 1
    back, fraction = threshold_and_alpha(threshold, reset)
    assert back == (height if alpha == 1 else threshold - reset)
    assert np.abs(np.float32(fraction) * np.float32(back) - fire) <= (0 if back == height else np.spacing(fire))
    # metadata tell which of the pairs that give the same potentials it was; but they are not believed
    neuron = dsr.IF(v_threshold, alpha, 2.0**-12)
    graph = dsr.nir.to_nir(dsr.Network(neuron, 1), (1,))
    again = dsr.nir.from_nir(graph).body.layers["if"]
    assert again.effective_threshold() == neuron.effective_threshold()
    assert np.float32(again.alpha) == np.float32(alpha)
    graph.metadata["v_threshold"]["if"] *= 1.5
    again = dsr.nir.from_nir(graph).body.layers["if"]
    assert abs(again.effective_threshold() - neuron.effective_threshold()) <= np.spacing(height)


@pytest.mark.parametrize("delta_t", [None, 1e-3, 3.0])
@pytest.mark.parametrize("euler", [False, True])
def test_another_time_step(delta_t, euler):
    make, features = MODELS["digits"]
    network = trained(make(make_lif), features)
    graph = dsr.nir.to_nir(network, features, delta_t=delta_t, euler=euler)
    assert graph.metadata["dt"] == (delta_t or 0.25)
    inputs = samples(features)
    assert_same_decisions(network, graph, inputs, euler=euler)
    again = dsr.nir.from_nir(graph)
    # the decay of a step differs by the rounding of tau at most
    decays = [[np.exp(-n.delta_t / n.tau) for _, n in net.neurons()] for net in (network, again)]
    np.testing.assert_allclose(*decays, rtol=4 * EPS)
    assert_same_decisions(again, dsr.nir.to_nir(again, features), inputs)


@pytest.mark.parametrize("delta_t", [1e-4, 7.0])
def test_another_time_step_leaves_the_outputs_as_they_are(delta_t, tmp_path):
    """A spike of LIF is worth V / delta_t: outputs came back times 1,000."""
    heights = np.array([0.25, 0.5, 0.75, 1])
    network = dyadic(dsr.Sequential(dsr.Linear(6, 8), make_lif(), dsr.Linear(8, 4), dsr.LIF(heights, 1.0, 0.25, 0.5)))
    inputs, path = samples((6,)), tmp_path / "graph.nir"
    dsr.nir.save(network, (6,), path, delta_t=delta_t)
    again = dsr.nir.load(path)
    assert [(n.tau, n.delta_t) for _, n in again.neurons()] == [(pytest.approx(1.0, rel=1e-6), 0.25)] * 2
    rates = network.forward(inputs)
    assert rates.any()
    np.testing.assert_allclose(again.forward(inputs), rates, rtol=1e-6)


@pytest.mark.parametrize("delta_t", [0.7, 1e-4])
def test_another_time_step_of_if(delta_t):
    network = dyadic(dsr.Sequential(*ODD["a sum into a convolution"](make_if)))
    graph = dsr.nir.to_nir(network, (2, 8, 8), delta_t=delta_t)
    _, rates, _ = assert_same_spikes(network, graph, samples((2, 8, 8)))
    again = dsr.nir.from_nir(graph)
    np.testing.assert_array_equal(again.forward(samples((2, 8, 8))), rates)
    # 1/dt is rounded in the file, which must not scale all weights, or even add layers that do
    np.testing.assert_array_equal(again.body.layers["0"].weight.value, network.body.layers["0"].weight.value)
    network = dsr.Network(dsr.Sequential(conv(2, 4), dsr.IF(1.0), dsr.IF(1.0)), 4)
    assert len(dsr.nir.from_nir(dsr.nir.to_nir(network, (2, 8, 8), delta_t=delta_t)).body.layers) == 3


def test_layers_with_time_steps_of_their_own():
    first, second = dsr.LIF(0.5, 1.0, 0.25, 0.5), dsr.LIF(0.5, 3.0, 0.5, 0.5)
    network = trained(
        dsr.Sequential(conv(2, 4), dsr.BatchNorm(4), first, conv(4, 4), dsr.BatchNorm(4), second), (2, 8, 8)
    )
    graph = dsr.nir.to_nir(network, (2, 8, 8))
    assert graph.nodes["2"].tau.flat[0] == 1 and graph.nodes["5"].tau.flat[0] == 1.5
    assert_same_decisions(network, graph, samples((2, 8, 8)))


def test_wrong_resets_give_other_spikes():
    """The oracle can tell: the three ways that are not dsr's differ, unless alpha is 1 for one of them."""
    make, features = MODELS["digits"]
    network = dyadic(make(make_if))
    seen, _ = spikes(network, samples(features))
    graph = dsr.nir.to_nir(network, features)
    for reset in ("subtract threshold", "to v_reset", "to zero"):
        result = interpret(graph, network, samples(features), reset=reset)
        assert (result.values["neuron2"] != seen["neuron2"]).mean() > 0.01, reset
    for _, neuron in network.neurons():
        neuron.alpha = 1.0
    assert_same_spikes(network, dsr.nir.to_nir(network, features), samples(features), reset="subtract threshold")


def test_after_training_on_digits(tmp_path):
    digits = data.load("digits")
    network = dsr.Network(models.digits(lambda: dsr.IF(1.0, 0.5), (1, 8, 8), 10, width=8), 5)
    optimizer = dsr.SGD(network.parameters(), learning_rate=0.1, momentum=0.9)
    rng = np.random.default_rng(0)
    for _ in range(3):
        for numbers in np.array_split(rng.permutation(len(digits.train)), 20):
            rates = network.forward(digits.train.batch(numbers), training=True)
            network.backward(dsr.cross_entropy(rates, digits.train.labels[numbers])[1])
            optimizer.step()
    images, labels = digits.test.batch(np.arange(len(digits.test))), digits.test.labels
    seen, rates = spikes(network, images)
    assert (rates.argmax(1) == labels).mean() > 0.9
    dsr.nir.save(network, (1, 8, 8), tmp_path / "digits.nir")
    graph = nir.read(tmp_path / "digits.nir")
    assert_same_decisions(network, graph, images)
    # free running: one decision that rounding turns may carry on to the layers above, so a few may differ
    result = interpret(graph, network, images)
    for name, train in seen.items():
        assert (result.values[name] != train).mean() < 1e-4, name
    by_graph = result.values["output"].mean(0).argmax(1)
    again = dsr.nir.load(tmp_path / "digits.nir")
    assert (by_graph != rates.argmax(1)).sum() <= 1
    assert (again.predict(images) != rates.argmax(1)).sum() <= 1
    assert again.timesteps == 5


# ---- graphs of others ----------------------------------------------------------------------------------------------


def full(shape, value):
    return np.full(shape, value, np.float32)


def if_node(shape, v_threshold=1.0, v_reset=0.0, r=1.0):
    return nir.IF(r=full(shape, r), v_threshold=full(shape, v_threshold), v_reset=full(shape, v_reset))


def lif_node(shape, tau=2.0, v_threshold=0.5, v_reset=-0.5, r=1.0, v_leak=0.0):
    values = {"tau": tau, "r": r, "v_leak": v_leak, "v_threshold": v_threshold, "v_reset": v_reset}
    return nir.LIF(**{key: full(shape, value) for key, value in values.items()})


def integers(shape, seed, unit=8):
    return np.random.default_rng(seed).integers(-4, 6, shape).astype(np.float32) / unit


def conv_node(shape, weight, stride=1, padding=1, groups=1, dilation=1):
    return nir.Conv2d(shape, weight, stride, padding, dilation, groups, integers(len(weight), 9))


def chain(*nodes, metadata=None, type_check=False):
    names = [str(number) for number in range(len(nodes))]
    edges = list(pairwise(names))
    return nir.NIRGraph(dict(zip(names, nodes, strict=True)), edges, metadata or {}, type_check=type_check)


def image(features=(2, 8, 8)):
    return nir.Input(np.array(features))


def output(features):
    return nir.Output(np.array(features))


C8 = (4, 8, 8)
W = integers((4, 2, 3, 3), 0)


def fork(scale, inner):
    """A convolution, a scale, spikes; then `inner` and the spikes themselves, summed; the scale has two readers too."""
    nodes = {
        "0": image(),
        "conv": conv_node((8, 8), W),
        "scale": nir.Scale(full(C8, scale)),
        "other": conv_node((8, 8), integers((4, 4, 3, 3), 1)),
        "spikes": if_node(C8, 0.5, -0.5),
        "inner": inner,
        "last": if_node(C8, 1.5, -0.5),
        "out": output(C8),
    }
    first = [("0", "conv"), ("conv", "scale"), ("scale", "spikes"), ("scale", "other"), ("other", "spikes")]
    then = [("spikes", "last"), ("spikes", "inner"), ("inner", "last"), ("last", "out")]
    return nir.NIRGraph(nodes, first + then, type_check=False)


FOREIGN = {
    "hard reset to zero": lambda: chain(image(), conv_node((8, 8), W), if_node(C8), output(C8)),
    "r, v_leak, sums": lambda: chain(
        image(),
        conv_node((8, 8), W, padding="same"),
        lif_node(C8, r=2.0, v_leak=0.125),
        nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        nir.Scale(np.broadcast_to(np.float32([1, 0.5, 2, 0.25]).reshape(-1, 1, 1), (4, 4, 4))),
        nir.Flatten(np.array((4, 4, 4)), 0, 2),
        nir.Linear(integers((6, 64), 1, 16)),
        if_node(6, 1.0, -1.0, r=0.5),
        nir.Affine(integers((5, 6), 2, 4), integers(5, 3, 4)),
        lif_node(5, v_leak=0.25),
        output(5),
    ),
    "neurons without weights": lambda: chain(
        image(), lif_node((2, 8, 8), r=2.0, v_leak=0.25), if_node((2, 8, 8), 0.5, r=0.5), output((2, 8, 8))
    ),
    "grouped convolution": lambda: chain(
        image((4, 8, 8)),
        nir.Conv2d(None, integers((8, 2, 3, 3), 4), (2, 2), "valid", 1, 2, integers(8, 5)),
        if_node((8, 3, 3), 1.0, -0.25),
        output((8, 3, 3)),
    ),
    "rectangles": lambda: chain(
        image(),
        nir.Conv2d(None, integers((4, 2, 2, 4), 4), (1, 1), "same", (2, 1), 1, integers(4, 5)),
        if_node(C8, 1.0, -0.25),
        nir.Conv2d(None, integers((4, 1, 3, 1), 6), (2, 1), (0, 2), (1, 3), 4, integers(4, 7)),
        if_node((4, 3, 12), 0.5, -0.5),
        output((4, 3, 12)),
    ),
    "signals": lambda: chain(
        image((4, 17)),
        nir.Conv1d(None, integers((6, 2, 4), 4), 1, "same", 2, 2, integers(6, 5)),
        nir.Scale(full((6, 17), 0.5)),
        if_node((6, 17), 0.5, -0.25),
        nir.Conv1d(None, integers((3, 6, 3), 6), 2, 1, 1, 1, integers(3, 7)),
        if_node((3, 9), 1.0, -1.0),
        nir.Scale(full((3, 9), 2)),
        lif_node((3, 9), v_leak=0.25),
        output((3, 9)),
    ),
    "residual": lambda: fork(0.5, conv_node((8, 8), integers((4, 4, 3, 3), 2))),
    "sum of spikes of height 1": lambda: fork(2, if_node(C8, 0.75, -0.25)),
    "sum of spikes of height 2": lambda: fork(2, if_node(C8, 1.0, -1.0, r=1.5)),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_graphs_exact(name):
    graph = FOREIGN[name]()
    network = dsr.nir.from_nir(graph, 6, delta_t=1.0, reset="subtract")
    inputs = samples(tuple(graph.nodes["0"].input_type["input"]))
    seen, _ = spikes(network, inputs)
    assert_lively(seen)
    result = run_graph(graph, inputs, 6, 1.0)
    assert len(seen) == len(result.potentials)
    for path, train in seen.items():
        np.testing.assert_array_equal(result.values[path.rpartition(".")[2]], train, err_msg=path)


def test_a_scale_before_the_output():
    graph = chain(image(), conv_node((8, 8), W), if_node(C8, 1.0, -1.0), nir.Scale(full(C8, 3)), output(C8))
    rates = dsr.nir.from_nir(graph, 4, delta_t=1.0, reset="subtract").forward(samples((2, 8, 8)))
    expected = run_graph(graph, samples((2, 8, 8)), 4, 1.0).values["4"].mean(0)
    np.testing.assert_array_equal(rates, expected)


def diamond(**changes):
    """A fork into three paths, one of them direct, in a graph within a graph."""
    inner = nir.NIRGraph(
        {
            "in": nir.Input(np.array(C8)),
            "a": conv_node((8, 8), integers((4, 4, 3, 3), 1)),
            "n": if_node(C8, 1.0, -1.0),
            "b": conv_node((8, 8), integers((4, 4, 1, 1), 2), padding=0),
            "s": if_node(C8, 1.0, -1.0),
            "out": output(C8),
        },
        [("in", "out"), ("in", "a"), ("a", "n"), ("n", "out"), ("in", "b"), ("b", "out"), ("in", "s"), ("s", "out")],
        type_check=False,
    )
    nodes = {
        "input": image(),
        "first": conv_node((8, 8), W),
        "spikes": if_node(C8, 1.0, -1.0),
        "block": inner,
        "last": if_node(C8, 2.0, -2.0),
        "output": output(C8),
    }
    names = list(nodes)
    return nir.NIRGraph(nodes, list(pairwise(names)), changes, type_check=False)


def test_graph_in_a_graph_exact():
    network = dsr.nir.from_nir(diamond(timesteps=5, dt=1.0, reset="subtract"))
    seen, _ = spikes(network, samples((2, 8, 8)))
    assert_lively(seen)
    inner = diamond().nodes["block"]
    a, b = (run_graph(g, samples((2, 8, 8)), 5, 1.0) for g in (prefix(), prefix()))
    np.testing.assert_array_equal(a.values["2"], seen["spikes"])
    inside = run_graph(inner, b.values["2"], 5, 1.0)
    last = run_graph(chain(image(C8), if_node(C8, 2.0, -2.0), output(C8)), inside.values["out"], 5, 1.0)
    np.testing.assert_array_equal(last.values["1"], seen["last"])
    (name,) = (name for name in seen if name.endswith("block.n"))
    np.testing.assert_array_equal(inside.values["n"], seen[name])


def prefix():
    nodes = diamond().nodes
    return chain(nodes["input"], nodes["first"], nodes["spikes"], output(C8))


def test_names_that_are_taken():
    """Layers that dsr adds get names of their own, and slashes do not become folders of the file."""
    nodes = {
        "x": image(),
        "y": lif_node((2, 8, 8), r=2.0),
        "n": if_node((2, 8, 8), 0.5, -0.5, r=0.5),
        "n.scale": conv_node((8, 8), W),
        "z": output(C8),
    }
    network = dsr.nir.from_nir(
        nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False), 4, delta_t=1.0, reset="subtract"
    )
    assert list(network.body.layers) == ["y.scale", "y", "n.scale", "n", "n.scale_2"]
    slashed = dsr.Network(dsr.Sequential(**{"a/b": dsr.Linear(3, 2), "a_b": dsr.IF()}), 4)
    assert list(dsr.nir.to_nir(slashed, (3,)).nodes) == ["input", "a_b", "a_b_2", "output"]


def test_per_channel_scale_on_a_shortcut_is_trained_as_weights():
    """An imported network can be trained further: its scales are weights, not statistics."""
    network = dyadic(dsr.Sequential(*ODD["a sum into a convolution"](make_if)))
    again = dsr.nir.from_nir(dsr.nir.to_nir(network, (2, 8, 8)))
    inputs = samples((2, 8, 8))
    np.testing.assert_array_equal(again.forward(inputs, training=True), network.forward(inputs))
    again.backward(np.ones((3, 4, 8, 8), np.float32))
    assert all(parameter.grad is not None for _, parameter in again.parameters())


# ---- what is refused -----------------------------------------------------------------------------------------------


def tangled():
    """Two paths that exchange a signal on the way: no chain of residuals."""
    nodes = {"in": nir.Input(np.array([2])), "out": output(2)} | {
        name: nir.Linear(integers((2, 2), 0)) for name in "abcd"
    }
    edges = [("in", "a"), ("in", "b"), ("a", "c"), ("a", "d"), ("b", "d"), ("c", "out"), ("d", "out")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def changed(graph, nodes=(), edges=(), without=()):
    graph = nir.NIRGraph(dict(graph.nodes), list(graph.edges), {}, type_check=False)
    graph.nodes.update(nodes)
    graph.edges = [edge for edge in graph.edges if edge not in without] + list(edges)
    return graph


def simple(node=None, neuron=None):
    return chain(image(), node or conv_node((8, 8), W), neuron or if_node(C8), output(C8))


def uneven():
    node = if_node(C8)
    node.v_threshold[1, 0] = 2
    return node


CUBA = nir.CubaLIF(*(full(C8, 1) for _ in range(5)))
RECURRENT = {"w": nir.Linear(integers((2, 2), 0))}

REFUSED = {
    "cycle": (lambda: changed(simple(), {"w": if_node(C8)}, [("2", "w"), ("w", "2")]), "cycle"),
    "per-neuron thresholds": (lambda: simple(neuron=uneven()), r"node '2' \(IF\).*v_threshold.*1 to 2"),
    "CubaLIF": (lambda: simple(neuron=CUBA), "node '2'.*no layer for CubaLIF"),
    "Delay": (lambda: simple(neuron=nir.Delay(full(C8, 1))), "node '2'.*Delay"),
    "dilation": (lambda: simple(conv_node((8, 8), W, dilation=(1, 0))), "node '1'.*'dilation'.*>= 1, got 0"),
    "kernel": (lambda: simple(conv_node((8, 8), W, dilation=5)), "node '1'.*3x3, dilation 5 fits in"),
    "same at stride 2": (lambda: simple(conv_node((8, 8), W, 2, "same")), "node '1'.*stride .2, 2."),
    "channels": (lambda: simple(conv_node((8, 8), integers((4, 3, 3, 3), 0))), "node '1'.*do not fit"),
    "flatten": (
        lambda: chain(image(), nir.Flatten(np.array((2, 8, 8)), 1), output((2, 64))),
        "node '1'.*0 to 2, got 1 to -1",
    ),
    "reset above zero": (lambda: simple(neuron=if_node(C8, 1.0, 0.5)), "node '2'.*v_reset <= 0"),
    "no threshold": (lambda: simple(neuron=if_node(C8, 0.0)), "node '2'.*v_threshold, got 0 and 0"),
    "tiny alpha": (lambda: simple(neuron=if_node(C8, 1.0, -(2.0**21))), "node '2'.*alpha"),
    "shape of a neuron": (lambda: simple(neuron=if_node((4, 7, 8))), "node '2'.*shape"),
    "scale of pixels": (lambda: simple(nir.Scale(integers((2, 8, 8), 0))), "node '1'.*whole channels"),
    "pooled vector": (
        lambda: chain(nir.Input(np.array([4])), nir.AvgPool2d(*[np.array([2, 2])] * 3), output(4)),
        "node '1'.*image",
    ),
    "window": (
        lambda: simple(nir.AvgPool2d(*[np.array([s, s]) for s in (9, 9, 0)]), None),
        "node '1'.*larger than the image",
    ),
    "two inputs": (lambda: changed(simple(), {"x": image(C8)}, [("x", "2")]), "one Input.*got 2"),
    "no way out": (lambda: changed(simple(), {"x": if_node(C8)}, [("1", "x")]), "node 'x'.*out of"),
    "no way in": (lambda: changed(simple(), {"x": if_node(C8)}, [("x", "3")]), "node 'x'.*into"),
    "unknown node": (lambda: changed(simple(), edges=[("1", "y")]), "no node 'y'"),
    "edge twice": (lambda: changed(simple(), edges=[("1", "2")]), r"\(1, 2\) occurs twice"),
    "tangle": (tangled, "node 'd'.*part at one node"),
    "unequal sum": (
        lambda: changed(simple(), {"p": conv_node((8, 8), W, 2)}, [("0", "p"), ("p", "2")]),
        "node '2'.*have no sum",
    ),
    "empty": (lambda: chain(image(), output((2, 8, 8))), "no layers"),
}


def test_a_flatten_that_counts_the_axis_of_the_batch():
    """As sinabs writes it: its input_type has an axis more."""
    batched = nir.Flatten(np.array((1, 2, 8, 8)), 1, 3)
    linear = nir.Linear(integers((3, 128), 1, 16))
    networks = [
        dsr.nir.from_nir(chain(image(), flat, linear, output(3)), 2)
        for flat in (batched, nir.Flatten(np.array((2, 8, 8)), 0, -1))
    ]
    inputs = samples((2, 8, 8))
    np.testing.assert_array_equal(networks[0].forward(inputs), networks[1].forward(inputs))


def test_import_refuses_weights_that_are_not_finite():
    weight = W.copy()
    weight[1] = np.inf
    with pytest.raises(FloatingPointError, match="from_nir: weights of layer '1' are not finite"):
        dsr.nir.from_nir(simple(conv_node((8, 8), weight)), 4, delta_t=1.0, reset="subtract")


@pytest.mark.parametrize("name", REFUSED)
def test_import_names_the_node_and_the_reason(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"^from_nir: .*{message}"):
        dsr.nir.from_nir(make(), 4, delta_t=1.0, reset="subtract")


def test_import_asks_for_what_the_graph_does_not_say():
    with pytest.raises(ValueError, match=r"argument 'timesteps': the graph does not say"):
        dsr.nir.from_nir(simple(), delta_t=1.0, reset="subtract")
    with pytest.raises(ValueError, match=r"argument 'delta_t': the graph does not say.*'2'"):
        dsr.nir.from_nir(simple(), 4)
    with pytest.raises(
        ValueError, match=r"argument 'reset': the graph does not say that its neurons, such as '2', sub"
    ):
        dsr.nir.from_nir(simple(), 4, delta_t=1.0)
    with pytest.raises(ValueError, match=r"argument 'reset': expected \"subtract\", the reset of dsr, got 'zero'"):
        dsr.nir.from_nir(simple(), 4, delta_t=1.0, reset="zero")
    written = dsr.nir.to_nir(dsr.Network(dsr.IF(1.0), 2), (3,))
    written.metadata["reset"] = "zero"
    with pytest.raises(ValueError, match="argument 'reset': the graph does not say"):
        dsr.nir.from_nir(written)
    with pytest.raises(ValueError, match=r"argument 'delta_t': expected a number > 0, got -1"):
        dsr.nir.from_nir(simple(), 4, delta_t=-1)
    with pytest.raises(TypeError, match=r"expected a nir\.NIRGraph, got str"):
        dsr.nir.from_nir("graph.nir")


class Louder(dsr.Conv2d):
    """What it inherits says what a convolution does, which is not what it does."""

    def forward(self, signal, run):
        return replace(super().forward(signal, run), scale=np.full(2, 2, np.float32), shift=np.zeros(2, np.float32))


class HardReset(dsr.IF):
    """Inherits what IF neurons say, but is another model."""

    def model(self, threshold):
        return replace(super().model(threshold), decay=0.5)


class Named(dsr.Conv2d):
    """Does what a convolution does."""


def test_export_refuses_what_nir_cannot_say():
    def network(*layers, timesteps=1):
        return dsr.Network(dsr.Sequential(*layers), timesteps)

    with pytest.raises(ValueError, match="layer '1': NIR has nothing that does what ReLU does"):
        dsr.nir.to_nir(network(dsr.Linear(3, 4), ReLU()), (3,))
    with pytest.raises(ValueError, match="layer '0': NIR has nothing that does what Upsample does"):
        dsr.nir.to_nir(network(dsr.Upsample(2), make_if()), (2, 8, 8))
    for layers in ([dsr.MaxPool2d(2)], [conv(2, 2), make_if(), dsr.AvgPool2d(2), dsr.MaxPool2d(2)]):
        with pytest.raises(ValueError, match=r"layer '[03]': NIR has no maximum pooling but of spikes"):
            dsr.nir.to_nir(network(*layers, make_if()), (2, 8, 8))
    gated = dsr.SpikeResidual(dsr.Sequential(conv(2, 2), make_if()), "iand", make_if())
    with pytest.raises(ValueError, match="layer '0': NIR has nothing that does what SpikeResidual IAND does"):
        dsr.nir.to_nir(network(gated), (2, 8, 8))
    with pytest.raises(ValueError, match=r"layer '0': .* Louder"):
        dsr.nir.to_nir(network(Louder(2, 2, 3), make_if()), (2, 8, 8))
    with pytest.raises(ValueError, match=r"layer '1': .* HardReset"):
        dsr.nir.to_nir(network(dsr.Linear(3, 4), HardReset(1.0)), (3,))
    assert "0" in dsr.nir.to_nir(network(Named(2, 2, 3), make_if()), (2, 8, 8)).nodes
    with pytest.raises(ValueError, match=r"shape \(5,\) do not fit the network: Linear 0"):
        dsr.nir.to_nir(network(dsr.Linear(3, 4), make_if()), (5,))
    with pytest.raises(
        ValueError, match=r"argument 'features': expected \(N,\), \(C, L\) or \(C, H, W\), got \(8, 8, 8, 8\)"
    ):
        dsr.nir.to_nir(network(dsr.Linear(3, 4), make_if()), (8, 8, 8, 8))
    with pytest.raises(ValueError, match=r"shape \(3, 3\) do not fit the network: it takes"):
        dsr.nir.to_nir(network(dsr.Linear(3, 4), make_if()), (3, 3))
    with pytest.raises(ValueError, match="argument 'delta_t'"):
        dsr.nir.to_nir(network(dsr.Linear(3, 4), make_if()), (3,), delta_t=0)
    with pytest.raises(TypeError, match="expected a Network, got Sequential"):
        dsr.nir.to_nir(dsr.Sequential(), (3,))
    broken = network(dsr.Linear(3, 4), make_if())
    broken.body.layers["0"].weight.value[0] = np.nan
    with pytest.raises(FloatingPointError, match="'0' are not finite"):
        dsr.nir.to_nir(broken, (3,))


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nir", None)
    network = dsr.Network(dsr.IF(), 1)
    for name, call in {
        "to_nir": lambda: dsr.nir.to_nir(network, (3,)),
        "save": lambda: dsr.nir.save(network, (3,), tmp_path / "x.nir"),
        "from_nir": lambda: dsr.nir.from_nir(None),
        "load": lambda: dsr.nir.load(tmp_path / "x.nir"),
    }.items():
        with pytest.raises(ImportError, match=rf"^{name}: nir is not installed; pip install dsr\[nir\]"):
            call()


def test_files(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py", reason="NIR files are HDF5")
    path = tmp_path / "x.nir"
    network = dsr.Network(dsr.Sequential(dsr.Linear(3, 2), dsr.IF()), 4)
    dsr.nir.save(network, (3,), path)
    before = path.read_bytes()

    def full_disk(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
            dsr.nir.save(network, (3,), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    path.write_bytes(before[:200])
    with pytest.raises(ValueError, match=r"load: .*x\.nir: not a readable NIR graph"):
        dsr.nir.load(path)
    with h5py.File(path, "w") as file:
        file["something"] = 1
    with pytest.raises(ValueError, match=r"load: .*x\.nir: not a readable NIR graph"):
        dsr.nir.load(path)
