"""What chips cannot take: each limit is met by a network that keeps it and broken by one that does not."""

import re

import numpy as np
import pytest

import dsr
from dsr import models
from dsr.nir import targets
from dsr.train import recipe


def conv(channels, out, size=3, stride=1, padding=1, **more):
    return dsr.Conv2d(channels, out, size, stride, padding, **{"bias": False} | more)


def neurons(v=1.0):
    return dsr.IF(v, 1.0)


def shifted(channels):
    norm = dsr.BatchNorm(channels)
    norm.bias.value[:] = 1
    return norm


def findings(layers, features, target):
    network = dsr.Network(dsr.Sequential(*layers), 4)
    found = targets.check(network, features, target)
    assert all(finding.source and finding.change and finding.what for finding in found)
    return [finding for finding in found if not finding.fits], [finding for finding in found if finding.fits]


@pytest.mark.parametrize("features", [(2, 128, 128), (2, 64, 64), (2, 48, 48), (1, 8, 8)])
def test_the_speck_model_fits(features):
    """As the recipe makes it: three cores for convolutions and one for the read-out, of the memory there is."""
    chosen = recipe.load("speck")
    assert (chosen.model, chosen.neuron, chosen.alpha, chosen.width) == ("speck", "if", 1.0, 16)
    network = dsr.Network(models.speck(neurons, features, 10, chosen.width), 4)
    assert [str(finding) for finding in targets.check(network, features, "speck") if not finding.fits] == []
    assert network.forward(np.ones((2, *features), np.float32)).shape == (2, 10)


def test_a_wider_speck_model_does_not_fit():
    network = dsr.Network(models.speck(neurons, (2, 64, 64), 10, 32), 4)
    first = targets.check(network, (2, 64, 64), "speck")[0]
    assert first.layer == "conv1" and not first.fits
    assert "in one core it needs 1,024 entries of weights and 131,072 of neurons" in first.what
    with pytest.raises(ValueError, match=r"speck: argument 'features': expected \(C, H, W\), H and W multiples of 8"):
        models.speck(neurons, (2, 30, 30), 10)


IMAGE = (2, 16, 16)
SPECK = {
    "a large input": ([conv(2, 2, stride=8), neurons()], (2, 256, 256), "input", "up to 128x128"),
    "vectors": ([dsr.Linear(4, 2, bias=False), neurons()], (4,), "input", "Speck takes images"),
    "large maps": ([conv(2, 1), neurons()], (2, 80, 80), "0", "its maps are 80x80; Speck takes 64x64"),
    "many channels": ([conv(2, 1025, 1, 16, 0), neurons()], IMAGE, "0", "1,025 channels; Speck takes 1,024"),
    "a large kernel": ([conv(2, 2, 17, 1, 1), neurons()], IMAGE, "0", "kernel is 17x17"),
    "a kernel that is no square": ([conv(2, 2, (3, 1)), neurons()], IMAGE, "0", "kernel is 3x1"),
    "stride": ([conv(2, 2, stride=3), neurons()], IMAGE, "0", r"stride is \(3, 3\); Speck takes 1, 2, 4 and 8"),
    "padding": ([conv(2, 2, 16, 1, 8), neurons()], IMAGE, "0", "Speck takes 0 to 7"),
    "groups": ([conv(2, 2, groups=2), neurons()], IMAGE, "0", "2 groups; Speck has neither"),
    "a bias": ([conv(2, 2), shifted(2), neurons()], IMAGE, "0", "it has a bias"),
    "a leak": ([conv(2, 2), dsr.LIF()], IMAGE, "1", "Speck has a constant leak only"),
    "thresholds of channels": ([conv(2, 2), dsr.IF(np.array([1, 2]), 1.0)], IMAGE, "1", "Speck has one for a layer"),
    "windows": ([conv(2, 2), neurons(), dsr.AvgPool2d(3), conv(2, 2), neurons()], IMAGE, "2", "it pools 3x3"),
    "maximum": ([conv(2, 2), neurons(), dsr.MaxPool2d(2), conv(2, 2), neurons()], IMAGE, "2", "no maximum pooling"),
    "no neurons": ([conv(2, 2), conv(2, 2), neurons()], IMAGE, "0", "its values go to '1' without neurons"),
    "no weights": ([conv(2, 2), neurons(), neurons()], IMAGE, "2", "it gets spikes or values without weights"),
    "pooled currents": ([conv(2, 2), dsr.AvgPool2d(2), neurons()], IMAGE, "0", "go to '2.scale' without neurons"),
    "a sum of two": (
        [dsr.Add(conv(2, 2), conv(2, 2)), neurons()], IMAGE, "1", "it sums '0.0', '0.1'; on Speck neurons have one"
    ),
    "three readers": (
        [conv(2, 2), neurons(), dsr.Add(*(dsr.Sequential(conv(2, 2), neurons()) for _ in "abc")), conv(2, 2)],
        IMAGE, "1", "its spikes go to '2.0.0', '2.1.0', '2.2.0'; a core of Speck sends to 2",
    ),
    "ten layers": ([part for _ in range(10) for part in (conv(2, 2), neurons())], IMAGE, "", "10 layers of weights"),
    "four large ones": (
        [part for size in (2, 16, 16, 16) for part in (conv(size, 16), neurons())], (2, 64, 64), "",
        "each layer fits in a core, but not all at once: there is none left for '6'",
    ),
    "a high threshold": ([conv(2, 2), neurons(1e6)], IMAGE, "1", "Speck holds 32,767"),
    "an upsampled image": ([conv(2, 2), neurons(), dsr.Upsample(2), conv(2, 2), neurons()], IMAGE, "2", "Upsample"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECK)
def test_what_speck_cannot_take(name):
    layers, features, layer, words = SPECK[name]
    wrong, _ = findings(layers, features, "speck")
    assert [finding.layer for finding in wrong if re.search(words, finding.what)] == [layer], wrong


def test_what_speck_takes_with_a_note():
    """Spikes of two layers may be summed before a convolution; alpha is a matter of the initial potential."""
    body = dsr.Sequential(conv(2, 2), dsr.IF(1.0, 0.5))
    layers = [conv(2, 2), neurons(), dsr.SpikeResidual(body), dsr.AvgPool2d(2), dsr.Flatten()]
    wrong, notes = findings([*layers, dsr.Linear(128, 20, bias=False), neurons()], IMAGE, "speck")
    assert not wrong
    (alpha,) = (note for note in notes if "alpha = 0.5" in note.what)
    assert "'2.body.1' fire at" in alpha.what and "initial potential to (1 - alpha) v_threshold" in alpha.change
    assert any("20 outputs; the read-out pins of Speck tell 15" in note.what for note in notes)


def dense(inputs, hidden, outputs, tau=2.0):
    make = [lambda: dsr.LIF(1.0, tau, 1.0, 1.0)] * 2
    return [dsr.Linear(inputs, hidden), make[0](), dsr.Linear(hidden, outputs), make[1]()]


XYLO = {
    "inputs": (dense(17, 60, 8), (17,), "input", "17 inputs; Xylo has 16"),
    "outputs": (dense(16, 60, 9), (16,), "output", "9 outputs; Xylo Audio 2 has 8"),
    "neurons": (dense(16, 1001, 8), (16,), "", "1,001 hidden neurons; Xylo has 1,000"),
    "fan-out": ([*dense(16, 8, 65), *dense(65, 8, 8)], (16,), "1", "each of its neurons leads to 65 others"),
    "convolutions": ([conv(2, 2), dsr.LIF(1.0, 2.0, 1.0, 1.0)], (2, 2, 2), "0", "Xylo has dense layers only"),
    "no leak": ([dsr.Linear(16, 8), neurons()], (16,), "1", "its neurons do not leak"),
    "another leak": (dense(16, 60, 8, 3.0), (16,), "1", "keep 0.7165 of a step; Xylo shifts bits, and has 0.7500"),
}


@pytest.mark.parametrize("name", XYLO)
def test_what_xylo_cannot_take(name):
    layers, features, layer, words = XYLO[name]
    wrong, _ = findings(layers, features, "xylo")
    assert layer in [finding.layer for finding in wrong if words in finding.what], wrong


def test_what_xylo_takes():
    """Decays of 1 - 2**-k, of which exp(-1/16) is one within a hundredth."""
    assert findings(dense(16, 60, 8, 16.0), (16,), "xylo")[0] == []


def test_loihi_and_spinnaker():
    layers = [conv(2, 4), neurons(), dsr.AvgPool2d(2), conv(4, 4, dilation=2), neurons()]
    wrong, notes = findings(layers, IMAGE, "loihi2")
    assert wrong == [] and any("'2': Lava has no pooling" in note.what for note in notes)
    wrong, _ = findings(layers, IMAGE, "spinnaker2")
    assert [(wrong[0].layer, wrong[0].what)] == [("3", "py-spinnaker2 reads neither dilation nor groups")]
    wide = [dsr.Linear(10, 1000), neurons(1e6), dsr.Linear(1000, 3), neurons()]
    wrong, _ = findings(wide, (10,), "loihi2")
    assert [finding.layer for finding in wrong] == ["1"] and "Loihi 2 holds 131,071" in wrong[0].what
    large = [dsr.Linear(5000, 5000), neurons(), dsr.Linear(5000, 3), neurons()]
    (memory,) = findings(large, (5000,), "spinnaker2")[0]
    assert memory.what.startswith("weights and potentials take 25,035,012 bytes at least; the 152 cores of a chip have")


def test_mistakes_are_named():
    network = dsr.Network(dsr.Sequential(dsr.Linear(3, 2), neurons()), 2)
    with pytest.raises(ValueError, match=r"check: argument 'target': expected one of speck, xylo, .*, got 'brain'"):
        targets.check(network, (3,), "brain")
    with pytest.raises(ValueError, match=r"check: samples of shape \(4,\) do not fit the network"):
        targets.check(network, (4,), "xylo")
    with pytest.raises(ValueError, match=r"check: argument 'features': expected .*, got 'abc'"):
        targets.check(network, "abc", "xylo")
    with pytest.raises(TypeError, match="check: argument 'network': expected a Network, got int"):
        targets.check(3, (4,), "xylo")
