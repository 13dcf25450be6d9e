"""check_layer passes on every layer that ships, and tells what is wrong with layers that are faulty."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

import dsr
from dsr.nn.currents import Current, Dense, signal_values
from dsr.nn.fast_layers import PooledConv2d, WhitenedConv2d
from dsr.nn.gradients import Gradient, as_wanted, map_gradient
from dsr.nn.registry import NEURONS
from dsr.testing import check_layer


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def spikes(*shape, weights=None, amplitude=0.7):
    return dsr.SpikeTrain.from_dense(normal(*shape) > 0.5, amplitude, weights)


def graded_spikes(*shape):
    words = np.concatenate([dsr.SpikeTrain.from_dense(normal(*shape, seed=seed) > 0.7).words for seed in (0, 1)])
    return replace(spikes(*shape), words=words, planes=2)


LIF_WEIGHTS = dsr.LIF(0.3, delta_t=0.3).time_weights(4)
IMAGES = {
    "static": normal(3, 2, 6, 5),
    "steps": normal(4, 3, 2, 6, 5),
    "IF spikes": spikes(4, 3, 2, 6, 5),
    "LIF spikes": spikes(4, 3, 2, 6, 5, weights=LIF_WEIGHTS),
    "graded spikes": graded_spikes(4, 3, 2, 6, 5),
}
VECTORS = {
    "static": normal(5, 12),
    "steps": normal(4, 5, 12),
    "spikes": spikes(4, 5, 12, weights=LIF_WEIGHTS),
}
LAYERS = {
    "Conv2d": lambda: dsr.Conv2d(2, 5, 3, padding=1),
    "Conv2d, stride": lambda: dsr.Conv2d(2, 33, 3, stride=2, bias=False),
    "PooledConv2d": lambda: PooledConv2d(2, 4, 3, padding=1),
    "WhitenedConv2d": lambda: WhitenedConv2d(2, 4, 3, padding=2),
    "BatchNorm": lambda: dsr.BatchNorm(2),
    "BatchNorm without gain": lambda: dsr.BatchNorm(2, gain=False),
    "BatchNorm, rate": lambda: dsr.BatchNorm(2, gradient="rate"),
    "BatchNorm, sampled": lambda: dsr.BatchNorm(2, gradient="rate", variance="sampled"),
    "AvgPool2d": lambda: dsr.AvgPool2d(3, stride=2, padding=1),
    "AvgPool2d, rectangles": lambda: dsr.AvgPool2d((2, 3), (1, 2)),
    "GlobalAvgPool2d": dsr.GlobalAvgPool2d,
    "MaxPool2d": lambda: dsr.MaxPool2d(2),
    "Upsample": lambda: dsr.Upsample(2),
    "Conv2d, depthwise": lambda: dsr.Conv2d(2, 4, 3, padding=1, groups=2),
    "Conv2d, rectangles": lambda: dsr.Conv2d(2, 3, (1, 3), (2, 1), padding="valid", dilation=(1, 2)),
    "ConvTranspose2d": lambda: dsr.ConvTranspose2d(2, 3, 3, 2, 1),
    "IF, by channel": lambda: dsr.IF(np.array([0.4, 0.9])),
    "graded IF": lambda: dsr.IF(0.3, levels=3),
    "graded LIF, by channel": lambda: dsr.LIF(np.array([0.1, 0.2]), tau=1.2, delta_t=0.3, levels=2, gradient="exact"),
    "graded neurons": lambda: dsr.Sequential(
        dsr.Conv2d(2, 4, 3), dsr.BatchNorm(4), dsr.IF(0.4, levels=3),
        dsr.Residual(dsr.Conv2d(4, 4, 3, padding=1)), dsr.BatchNorm(4), dsr.IF(0.4, levels=2), dsr.AvgPool2d(2),
        dsr.Conv2d(4, 4, 1, groups=2), dsr.BatchNorm(4), dsr.LIF(0.1, delta_t=0.2, levels=5),
        dsr.Flatten(), dsr.Linear(8, 3), dsr.BatchNorm(3), dsr.IF(0.4, levels=3),
    ),
    "LIF, by channel": lambda: dsr.LIF(np.array([0.2, 0.5]), tau=1.2, delta_t=0.3),
    "Concat": lambda: dsr.Concat(dsr.Identity(), dsr.IF(0.7)),
    "Branches": lambda: dsr.Add(dsr.Conv2d(2, 3, 1), dsr.Conv2d(2, 3, 3, padding=1)),
    "Flatten": dsr.Flatten,
    "Dropout": lambda: dsr.Dropout(0.4),
    "Dropout, one mask": lambda: dsr.Dropout(0.4, mask="sample"),
    "IF": lambda: dsr.IF(0.6),
    "IF, fixed": lambda: dsr.IF(0.6, train_threshold=False),
    "IF, scaled": lambda: dsr.IF(0.6, threshold_gradient_scale=0.25),
    "LIF": lambda: dsr.LIF(0.3, tau=1.2, delta_t=0.3),
    "LIF, exact": lambda: dsr.LIF(0.3, tau=1.2, delta_t=0.3, gradient="exact"),
    "Sequential": lambda: dsr.Sequential(dsr.Conv2d(2, 4, 3), dsr.BatchNorm(4), dsr.IF(1.0), dsr.AvgPool2d(2)),
    "Residual": lambda: dsr.Residual(dsr.Sequential(dsr.BatchNorm(2), dsr.IF(0.8), dsr.Conv2d(2, 2, 3, padding=1))),
    "Residual, pooled": lambda: dsr.Residual(dsr.Conv2d(2, 2, 3, padding=1), dsr.AvgPool2d(3, 1, 1)),
    "Residual, spikes": lambda: dsr.Residual(
        dsr.Sequential(dsr.Conv2d(2, 2, 1), dsr.LIF(0.3, delta_t=0.3)), dsr.Identity()
    ),
    "without time": lambda: dsr.Sequential(
        dsr.Conv2d(2, 4, 3), dsr.BatchNorm(4, gradient="rate", variance="sampled"), dsr.LIF(0.3, delta_t=0.2),
        dsr.Dropout(0.2), dsr.Residual(dsr.Sequential(
            dsr.Conv2d(4, 4, 3, padding=1), dsr.BatchNorm(4, gradient="rate"), dsr.IF(0.3), dsr.Conv2d(4, 4, 1)
        )), dsr.BatchNorm(4, gradient="rate", variance="sampled"), dsr.IF(0.7), dsr.AvgPool2d(2),
        dsr.Conv2d(4, 3, 1), dsr.BatchNorm(3, gradient="rate"), dsr.LIF(0.3, delta_t=0.2),
    ),
    "two kinds of neurons": lambda: dsr.Sequential(
        dsr.Conv2d(2, 4, 3), dsr.BatchNorm(4), dsr.LIF(0.3, delta_t=0.2), dsr.Dropout(0.2),
        dsr.Residual(dsr.Sequential(dsr.Conv2d(4, 4, 3, padding=1), dsr.BatchNorm(4)), dsr.Conv2d(4, 4, 1)),
        dsr.IF(0.7), dsr.Flatten(), dsr.Linear(48, 3), dsr.BatchNorm(3), dsr.LIF(0.3, delta_t=0.2),
    ),
}  # fmt: skip
ON_SIGNALS = {
    "Conv1d": lambda: dsr.Conv1d(2, 5, 3, padding=1),
    "AvgPool1d": lambda: dsr.AvgPool1d(2),
}
ELSEWHERE = {dsr.MaxPool1d, dsr.Branches, dsr.SpikeResidual}
"""Max pooling of spikes is the OR of bits, whose gradient goes through the largest rate (tests/test_pooling.py); those
of AND and IAND are in tests/test_branches.py. Branches is the base of Add and Concat."""
ON_VECTORS = {"Linear": lambda: dsr.Linear(12, 7), "BatchNorm": lambda: dsr.BatchNorm(12), "IF": lambda: dsr.IF(0.6)}


@pytest.mark.parametrize("given", IMAGES)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_on_images(name, given):
    if name == "MaxPool2d" and "spikes" in given:
        pytest.skip("a maximum of spikes has the gradient of the largest rate, not of the largest value")
    report = check_layer(LAYERS[name](), IMAGES[given])
    assert report.differences.keys() >= {"input"}
    assert max(report.differences.values()) <= 5e-3


@pytest.mark.parametrize("name", ON_SIGNALS)
def test_layers_on_signals(name):
    check_layer(ON_SIGNALS[name](), spikes(4, 3, 2, 9))


@pytest.mark.parametrize("given", VECTORS)
@pytest.mark.parametrize("name", ON_VECTORS)
def test_layers_on_vectors(name, given):
    check_layer(ON_VECTORS[name](), VECTORS[given])


def test_relu_has_one_step():
    check_layer(dsr.ReLU(), normal(3, 2, 6, 5), timesteps=1)
    check_layer(dsr.ReLU(), normal(1, 3, 2, 6, 5))


def test_every_layer_that_ships_is_here():
    layers = {value for value in vars(dsr).values() if inspect.isclass(value) and issubclass(value, dsr.Layer)}
    layers |= set(NEURONS.values())
    checked = {
        type(inner)
        for make in (*LAYERS.values(), *ON_SIGNALS.values(), *ON_VECTORS.values(), dsr.ReLU)
        for _, inner in make().walk()
    }
    assert layers - {dsr.Layer} - ELSEWHERE <= checked


def test_the_report_and_a_layer_that_is_as_before():
    layer = dsr.Sequential(conv=dsr.Conv2d(2, 4, 3), norm=dsr.BatchNorm(4), neuron=dsr.IF(1.0))
    dsr.Network(layer, 4, seed=5)
    before = dsr.Network(layer, 4, seed=5).state()
    threads = dsr.get_num_threads()
    report = check_layer(layer, IMAGES["IF spikes"])
    for name, array in dsr.Network(layer, 4, seed=5).state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert all(parameter.grad is None for _, inner in layer.walk() for parameter in inner.parameters().values())
    assert dsr.get_num_threads() == threads
    assert report.features == (4, 4, 3)
    assert report.plan == (
        ("conv", "spikes"),
        ("neuron", "fused with the convolution"),
        ("conv", "spikes"),
        ("neuron", "from convolved spikes"),
        ("neuron", "gradient from sums"),
        ("conv", "weight gradient on spikes, gradient of every step"),
        ("conv", "input gradient without time"),
    )
    names = ["input", "conv.weight", "conv.bias", "norm.weight", "norm.bias", "neuron.v_threshold"]
    assert list(report.differences) == names
    text = str(report)
    assert text.startswith("output features: (4, 4, 3)\nconv: spikes\nneuron: fused with the convolution\n")
    assert re.search(r"^gradient of conv.weight: within \d\.\de-\d\d of finite differences$", text, re.MULTILINE)


# ---- faulty layers -------------------------------------------------------------------------------------------------


class Gain(dsr.Layer):
    """A trained factor, right in every respect; what is wrong with the others is all that they add."""

    def __init__(self):
        self.gain = dsr.Parameter(1.0)
        self._state = None

    def parameters(self):
        return {"gain": self.gain}

    def forward(self, signal, run):
        if run.training:
            self._state = signal
        return self.output(signal, signal_values(signal) * self.gain.value)

    def output(self, signal, values):
        return Current((Dense(values),), signal.features, signal.timesteps)

    def backward(self, gradient):
        values = signal_values(self._state)
        steps = gradient.total()[:, :, :, np.newaxis] if values.shape[3] == 1 else gradient.dense()
        self.gain.grad = np.array((steps * values).sum(), np.float32)
        return as_wanted(self._state, gradient.map(lambda grad: grad * self.gain.value))


class ForgetsTheGain(Gain):
    def backward(self, gradient):
        super().backward(gradient)
        return as_wanted(self._state, gradient)


class GainOfAnotherSign(Gain):
    def backward(self, gradient):
        below = super().backward(gradient)
        self.gain.grad = np.array(-self.gain.grad)
        return below


class GainWithoutGradient(Gain):
    def backward(self, gradient):
        below = super().backward(gradient)
        self.gain.grad = None
        return below


class GainOfDoubles(Gain):
    def backward(self, gradient):
        below = super().backward(gradient)
        self.gain.grad = np.array(self.gain.grad, np.float64)
        return below


class KeepsInEvaluation(Gain):
    def forward(self, signal, run):
        self._state = signal
        return super().forward(signal, run)


class CountsInEvaluation(Gain):
    def __init__(self):
        super().__init__()
        self.passes = {"all": [0]}

    def forward(self, signal, run):
        self.passes["all"][0] += 1
        return super().forward(signal, run)


class DrawsAnew(Gain):
    draws = count()

    def forward(self, signal, run):
        output = super().forward(signal, run)
        return self.output(signal, output.values() + np.float32(next(self.draws)))


class KnowsThreads(Gain):
    def forward(self, signal, run):
        output = super().forward(signal, run)
        return self.output(signal, output.values() + np.float32(dsr.get_num_threads() == 3))


class KnowsThreadsInTraining(Gain):
    def backward(self, gradient):
        below = super().backward(gradient)
        self.gain.grad += np.float32(1e-5 * (dsr.get_num_threads() == 2))
        return below


class KnowsTheBudget(Gain):
    def forward(self, signal, run):
        output = super().forward(signal, run)
        return self.output(signal, output.values() + np.float32(run.training and run.budget.size == 0))


class WritesTheGain(Gain):
    def forward(self, signal, run):
        if run.training:
            self.gain.value *= np.float32(2)
        return super().forward(signal, run)


class WritesTheGainLater(Gain):
    def backward(self, gradient):
        below = super().backward(gradient)
        self.gain.value *= np.float32(2)
        return below


class CountsInAFrozenPass(Gain):
    def __init__(self):
        super().__init__()
        self.passes = np.zeros(1)

    def buffers(self):
        return {"passes": self.passes}

    def forward(self, signal, run):
        if run.training:
            self.passes += 1
        return super().forward(signal, run)


class NormalisesInAFrozenPass(Gain):
    def forward(self, signal, run):
        output = super().forward(signal, run)
        return self.output(signal, output.values() - np.float32(run.training and output.values().mean()))


class WrongFeatures(Gain):
    def forward(self, signal, run):
        return replace(super().forward(signal, run), features=(2, 5, 6))


class WrongSteps(Gain):
    def forward(self, signal, run):
        return replace(super().forward(signal, run), timesteps=3)


class Doubles(Gain):
    def forward(self, signal, run):
        return self.output(signal, super().forward(signal, run).values().astype(np.float64))


class GivesAnArray(Gain):
    def forward(self, signal, run):
        return super().forward(signal, run).values()


class StopsTheGradient(Gain):
    def backward(self, gradient):
        super().backward(gradient)


class GradientOfEveryStep(Gain):
    """Of the first step alone, as an array where a Gradient is asked for."""

    def backward(self, gradient):
        below = super().backward(gradient)
        return below.total() if isinstance(below, Gradient) else Gradient(below, 4)


class NotANumber(Gain):
    def backward(self, gradient):
        below = super().backward(gradient)
        return map_gradient(below, lambda grad: grad * np.float32(np.nan))


class SmallMistake(Gain):
    def backward(self, gradient):
        return map_gradient(super().backward(gradient), lambda grad: grad * np.float32(1.03))


class SpikesWithoutAMapping(dsr.Layer):
    """A step function, whose own derivative is zero."""

    def forward(self, signal, run):
        if run.training:
            self._signal = signal
        return Current((Dense((signal_values(signal) > 0).astype(np.float32)),), signal.features, signal.timesteps)

    def backward(self, gradient):
        return as_wanted(self._signal, gradient)


FAULTS = {
    ForgetsTheGain: r"the gradient of the input in training gives a slope of \S+ along a direction along which finite",
    GainOfAnotherSign: r"the gradient of parameter 'gain' in training gives a slope of (\S+) .* give -?\S+$",
    GainWithoutGradient: r"expected a float32 gradient of shape \(\) in parameter 'gain' after the .* got NoneType$",
    GainOfDoubles: r"expected a float32 gradient of shape \(\) in parameter 'gain' .* got float64 of shape \(\)",
    KeepsInEvaluation: r"evaluation changed _state; threads that share a network would meet there",
    CountsInEvaluation: r"evaluation changed passes; threads",
    DrawsAnew: r"evaluation with 1 thread gave other bits",
    KnowsThreads: r"evaluation with 3 threads gave other bits",
    KnowsThreadsInTraining: r"training with \d threads? gave other bits of the gradient of gain",
    KnowsTheBudget: r"training that keeps no current gave other bits of the output",
    WritesTheGain: r"the forward pass wrote parameter 'gain'",
    WritesTheGainLater: r"the backward pass wrote parameter 'gain'",
    CountsInAFrozenPass: r"a pass with run.frozen wrote buffer 'passes'",
    NormalisesInAFrozenPass: r"a pass with run.frozen gave another output than evaluation",
    WrongFeatures: r"expected float32 values of shape \(2, 5, 6, 4, 3\) for the features \(2, 5, 6\), got float32 of",
    WrongSteps: r"expected an output of 4 steps, got 3",
    Doubles: r"expected float32 values of shape \(2, 6, 5, 4, 3\) for the features \(2, 6, 5\), got float64 of shape",
    GivesAnArray: r"expected a SpikeTrain or a Current from forward, got ndarray",
    StopsTheGradient: r"expected a .* from backward.*, got NoneType",
    GradientOfEveryStep: r"expected a .* from backward.*, got (Gradient|float32 of shape \(2, 6, 5, 3\))",
    NotANumber: r"expected finite numbers, got others in the gradient of input",
    SmallMistake: r"the gradient of the input in training gives a slope of",
}


@pytest.mark.parametrize("given", IMAGES)
def test_the_right_one_passes(given):
    assert check_layer(Gain(), IMAGES[given]).features == (2, 6, 5)


@pytest.mark.parametrize("given", ["static", "steps", "LIF spikes"])
@pytest.mark.parametrize("layer", FAULTS)
def test_faulty_layers_are_told_what_is_wrong(layer, given):
    DrawsAnew.draws = count()
    with pytest.raises(AssertionError, match=f"^check_layer: {layer.__name__}: {FAULTS[layer]}"):
        check_layer(layer(), IMAGES[given])


def test_spikes_without_a_mapping_are_found():
    with pytest.raises(AssertionError, match="the gradient of the input in training gives"):
        check_layer(SpikesWithoutAMapping(), IMAGES["steps"])


class WrongMapping(dsr.IF):
    """Says of no neuron that its mapping rises."""

    def mapping(self, mean_current):
        share, rises = super().mapping(mean_current)
        return share, np.zeros_like(rises)


class SteepMapping(dsr.IF):
    """Its mapping is not the one that its backward pass knows."""

    def mapping(self, mean_current):
        return super().mapping(2 * mean_current)


def test_mappings_of_neurons_are_checked():
    with pytest.raises(AssertionError, match=r"the mapping of the neurons says that it does not rise at 0\."):
        check_layer(WrongMapping(0.6), IMAGES["steps"])
    with pytest.raises(AssertionError, match=r"SteepMapping: the gradient of the input in training gives a slope of"):
        check_layer(SteepMapping(0.6), IMAGES["steps"])


@pytest.mark.parametrize("neuron", [dsr.IF(0.6), dsr.LIF(0.3, delta_t=0.3)])
def test_a_corner_counts_as_the_neuron_says(neuron):
    """A current of 0 lies inside the interval of IF, and outside that of LIF."""
    check_layer(neuron, np.zeros((2, 3)))


def test_a_fault_inside_another_layer_has_its_path():
    body = dsr.Sequential(first=dsr.Conv2d(2, 2, 1), second=dsr.Sequential(KeepsInEvaluation()))
    with pytest.raises(AssertionError, match=r"^check_layer: Sequential: evaluation changed second\.0\._state;"):
        check_layer(body, IMAGES["static"])


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "given", "options", "error", "message"),
    [
        (dsr.IF, IMAGES["static"], {}, TypeError, "argument 'layer': expected a layer, got type"),
        (None, IMAGES["static"], {}, TypeError, "argument 'layer': expected a layer, got NoneType"),
        (dsr.IF(), np.zeros(3), {}, ValueError, "argument 'input': expected spikes, or data as for Network.forward of"),
        (dsr.IF(), np.zeros((0, 3)), {}, ValueError, "argument 'input': .* got shape (0, 3)"),
        (dsr.IF(), np.zeros((2, 3, 0, 4)), {}, ValueError, "argument 'input': .* got shape (2, 3, 0, 4)"),
        (dsr.IF(), [[np.nan, 1.0]], {}, ValueError, "argument 'input': expected finite values, got nan at (0, 0)"),
        (dsr.IF(), "text", {}, TypeError, "argument 'input': expected real numbers"),
        (dsr.IF(), None, {}, TypeError, "argument 'input': expected real numbers"),
        (dsr.IF(), IMAGES["static"], {"timesteps": 0}, ValueError, "argument 'timesteps': expected an integer >= 1"),
        (dsr.IF(), IMAGES["static"], {"timesteps": 2.5}, TypeError, "argument 'timesteps': expected an integer >= 1"),
        (dsr.IF(), IMAGES["static"], {"seed": -1}, ValueError, "argument 'seed': expected an integer >= 0, got -1"),
    ],
)
def test_bad_input(layer, given, options, error, message):
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(error, match=f"^check_layer: {pattern}"):
        check_layer(layer, given, **options)


def test_errors_of_the_layer_are_the_layers():
    with pytest.raises(ValueError, match="Conv2d: expected features"):
        check_layer(dsr.Conv2d(3, 4, 3), IMAGES["static"])


def test_no_test_framework_is_needed():
    program = """
import sys
sys.modules["pytest"] = None
import numpy, dsr
print(dsr.testing.check_layer(dsr.IF(0.6), numpy.array([[0.25, 0.1]])).features)
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "(2,)\n"
