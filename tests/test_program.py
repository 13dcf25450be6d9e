"""Programs do what their networks do: every shipped network and layer, by a plain interpreter; folded and as they are.

The network adds float32 numbers in its own order, the interpreter double ones: values agree within rounding. Where a
potential comes within rounding of its threshold a spike differs, and what follows from it; so spikes are equal but for
one in a thousand, and most samples are equal in all.
"""

from __future__ import annotations

import numpy as np
import plan_table
import program_interpreter
import pytest
import test_zoo
from test_testing import IMAGES, LAYERS, ON_SIGNALS, ON_VECTORS, VECTORS

import dsr
from dsr.deploy import program as p
from dsr.deploy.lowering import lower

LARGE = ("preact_resnet34", "preact_resnet50", "vgg13", "vgg16", "vgg19", "resnet34", "resnet50")
"""More of the same blocks."""
SMALL = [name for name in plan_table.NAMES if name not in LARGE]
CASES = [(name, kind) for name, kind in zip(SMALL, ("if", "lif") * 8, strict=False)]
CASES += [("preact_resnet50", "if"), *((name, "relu") for name in plan_table.OWN)]
CASES += [(name, kind) for name, kind in zip(test_zoo.NETWORKS, ("if", "lif") * 4, strict=False)]


def lively(network, data, seed=1):
    """Normalisations that do something, and neurons that fire."""
    rng = np.random.default_rng(seed)
    for _, layer in network.body.walk():
        if isinstance(layer, dsr.BatchNorm):
            layer.momentum = 0.5
            layer.weight.value[:] = rng.uniform(0.5, 1.5, len(layer.running_mean))
            layer.bias.value[:] = rng.normal(0.2, 0.3, len(layer.running_mean))
        elif isinstance(layer, dsr.Conv2d) and layer.bias is not None:
            layer.bias.value = rng.normal(0, 0.1, layer.bias.value.shape).astype(np.float32)
    for _ in range(2):
        network.forward(data, training=True)
    return network


def case(name, kind):
    if name in test_zoo.NETWORKS:
        network, data = test_zoo.network_of(name, kind)
        data = data[:2]
    else:
        network, data = plan_table.network_of(name, kind, 0)
    return lively(network, data), data


@pytest.mark.parametrize(("name", "kind"), CASES, ids=lambda value: value)
def test_programs_of_networks(name, kind):
    network, data = case(name, kind)
    seen = {}

    def observe(path, layer, output):
        if isinstance(layer, dsr.IF | dsr.LIF):
            seen[path] = output.dense()

    rates = network.forward(data, observer=observe)
    for folded in (False, True):
        program = lower(network, data.shape[1:], folded=folded)
        assert program.output_features == rates.shape[1:]
        result = program_interpreter.run(program, data)
        neurons = [number for number, step in enumerate(program.steps) if isinstance(step, p.Neurons)]
        assert {program.steps[number].path for number in neurons} == seen.keys()
        for number in neurons:
            expected = seen[program.steps[number].path]
            found = result.values[number].reshape(expected.shape)
            assert np.mean((found > 0) != (expected > 0)) < 1e-3
        np.testing.assert_allclose(result.rates, rates, rtol=1e-4, atol=1e-4 * np.abs(rates).max())


@pytest.mark.parametrize(("name", "kind"), [("preact_resnet18", "if"), ("resnet18", "lif"), ("cifar_fast", "if")])
def test_no_normalisation_is_left(name, kind):
    """All is in the weights; what is added as it is has a factor for each channel."""
    network, data = plan_table.network_of(name, kind, 0)
    program = lower(network, data.shape[1:])
    sums = [step for step in program.steps if isinstance(step, p.Sum)]
    assert all(len(step.inputs) > 1 for step in sums if not isinstance(program.steps[step.inputs[0]], p.AveragePool))
    norms = sum(isinstance(layer, dsr.BatchNorm) for _, layer in network.body.walk())
    plain = lower(network, data.shape[1:], folded=False)
    assert len(plain.steps) - len(program.steps) >= norms - 1
    assert program.folded and not plain.folded


@pytest.mark.parametrize("given", ["static", "steps"])
@pytest.mark.parametrize("name", LAYERS)
def test_programs_of_layers(name, given):
    """Behind neurons, so that they get spikes, and as the output, so that it is read as the network reads it."""
    layer = LAYERS[name]()
    data = IMAGES[given]
    network = dsr.Network(dsr.Sequential(dsr.LIF(0.2, delta_t=0.3), layer), 4, inputs="NCHW")
    result = program_interpreter.run(lower(network, data.shape[-3:]), data)
    np.testing.assert_allclose(result.rates, network.forward(data), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*ON_SIGNALS, *ON_VECTORS, "MaxPool1d"])
def test_programs_of_layers_of_vectors_and_signals(name):
    make = {**ON_SIGNALS, **ON_VECTORS, "MaxPool1d": lambda: dsr.MaxPool1d(2, 1)}[name]
    data = VECTORS["steps"] if name in ON_VECTORS else IMAGES["steps"][:, :, :, 0]
    network = dsr.Network(dsr.Sequential(dsr.IF(0.4), make()), 4, inputs="NC" if name in ON_VECTORS else "NCL")
    result = program_interpreter.run(lower(network, data.shape[2:]), data)
    np.testing.assert_allclose(result.rates, network.forward(data), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("connect", ["add", "and", "iand"])
def test_spikes_connected_element_by_element(connect):
    body = dsr.Sequential(dsr.Conv2d(2, 2, 3, padding=1), dsr.LIF([0.1, 0.2], delta_t=0.3))
    network = dsr.Network(dsr.Sequential(dsr.IF(0.5), dsr.SpikeResidual(body, connect)), 4)
    data = IMAGES["static"]
    program = lower(network, data.shape[1:])
    assert (program.steps[-1].amplitude is None) == (connect == "add") and program.leak == 0
    result = program_interpreter.run(program, data)
    np.testing.assert_allclose(result.rates, network.forward(data), rtol=1e-5, atol=1e-5)


def test_what_is_read_twice_keeps_its_weights():
    """A convolution that a shortcut reads as well: the normalisation behind it stays a sum."""
    norm = dsr.BatchNorm(3)
    norm.running_var[:] = 4
    network = dsr.Network(dsr.Sequential(dsr.Conv2d(2, 3, 1), dsr.Add(norm, dsr.Identity()), dsr.IF(0.3)), 3)
    program = lower(network, (2, 6, 5))
    assert [type(step).__name__ for step in program.steps] == ["Input", "Convolution", "Sum", "Neurons"]
    np.testing.assert_allclose(program.steps[2].factors[0], 0.5, rtol=1e-5)
    result = program_interpreter.run(program, IMAGES["static"])
    np.testing.assert_allclose(result.rates, network.forward(IMAGES["static"]), rtol=1e-5, atol=1e-6)


def test_folding_is_rounded_once():
    norm = dsr.BatchNorm(1)
    norm.running_var[:], norm.weight.value[:], norm.running_mean[:], norm.bias.value[:] = 0.7, 1.3, 0.11, 0.05
    layer = dsr.Linear(1, 1)
    network = dsr.Network(dsr.Sequential(layer, norm, dsr.IF(1.0)), 1)
    layer.weight.value[:], layer.bias.value[:] = 0.3, 0.7
    _, convolution, _ = lower(network, (1,)).steps
    scale, shift = (float(number[0]) for number in norm._of_running_statistics())
    assert convolution.weight == np.float32(scale * float(np.float32(0.3)))
    assert convolution.bias == np.float32(scale * float(np.float32(0.7)) + shift)


def test_a_program_is_a_copy_and_says_what_is_steady():
    network, data = plan_table.network_of("digits", "if", 0)
    program = lower(network, data.shape[1:])
    before = program_interpreter.run(program, data).rates
    for _, parameter in network.parameters():
        parameter.value[...] = 7
    np.testing.assert_array_equal(program_interpreter.run(program, data).rates, before)
    first = next(i for i, step in enumerate(program.steps) if isinstance(step, p.Neurons))
    assert program.steady() == tuple(number < first for number in range(len(program.steps)))
    assert "Neurons" in repr(program) and "neuron3" in repr(program)


def test_rates_so_far_are_those_of_fewer_steps():
    body = dsr.Sequential(dsr.Linear(12, 7), dsr.LIF(0.1, delta_t=0.3))
    network = dsr.Network(body, 4, inputs="NC")
    program = lower(network, (12,))
    assert program.leak == 0.3
    for steps, rates in enumerate(program_interpreter.run(program, VECTORS["static"]).so_far, start=1):
        shorter = dsr.Network(body, steps, inputs="NC")  # with the same weights: it is of the same seed
        np.testing.assert_allclose(rates, shorter.forward(VECTORS["static"]), rtol=1e-5)


class Silent(dsr.Layer):
    def forward(self, signal, run):
        return signal


class Louder(dsr.Conv2d):
    def forward(self, signal, run):
        return super().forward(signal, run)


class OtherWeights(dsr.IF):
    def time_weights(self, timesteps):
        return np.linspace(0.5, 1.5, timesteps, dtype=np.float32)


@pytest.mark.parametrize(
    ("make", "features", "error", "message"),
    [
        (lambda: dsr.Network(dsr.Sequential(Silent()), 2), (3,), ValueError, "lower: layer '0': .* Silent has no exp"),
        (lambda: dsr.Network(Louder(2, 2, 1), 2), (2, 3, 3), ValueError, "lower: layer 'Louder': .* Louder has no exp"),
        (
            lambda: dsr.Network(OtherWeights(1.0), 3),
            (2,),
            ValueError,
            "lower: layer '': expected time weights of a le",
        ),
        (lambda: dsr.Network(dsr.Linear(3, 2), 2), (4,), ValueError, r"samples of shape \(4,\) do not fit the network"),
        (lambda: dsr.Network(dsr.Linear(3, 2), 2), 3, ValueError, r"argument 'features': expected \(N,\)"),
        (lambda: dsr.Network(dsr.Linear(3, 2), 2), (0,), ValueError, "argument 'features': expected an integer >= 1"),
        (lambda: dsr.Linear(3, 2), (3,), TypeError, "argument 'network': expected a Network, got Linear"),
    ],
)
def test_bad_input(make, features, error, message):
    with pytest.raises(error, match=message):
        lower(make(), features)


def test_weights_that_are_not_finite():
    network = dsr.Network(dsr.Sequential(dsr.Linear(1, 1), dsr.BatchNorm(1), dsr.IF(1.0)), 1)
    network.body.layers["0"].weight.value[...] = 3e38
    network.body.layers["1"].weight.value[...] = 100
    with pytest.raises(FloatingPointError, match="lower: layer '0': its weights with those of the normalisation over"):
        lower(network, (1,))
    network.body.layers["0"].weight.value[...] = np.nan
    with pytest.raises(FloatingPointError, match="lower: layer '0': weight is not finite"):
        lower(network, (1,))
