"""What 10,000 calls of each function found (test_entry_fuzz.py, test_python_fuzz.py, test_command_fuzz.py)."""

from __future__ import annotations

import numpy as np
import pytest
import wild

import dsr
from dsr import functional, ops
from dsr.optim import schedule
from dsr.train import recipe


def test_layers_take_integers_of_numpy():
    """Checked, and then used as they were given: "an integer is required", without a name."""
    two, true = np.array(2), True
    assert dsr.Conv2d(two, two, two, np.array(1), two).weight.value.shape == (2, 2, 2, 2)
    assert dsr.Linear(two, two).weight.value.shape == (2, 2, 1, 1)
    assert len(dsr.BatchNorm(true).running_mean) == 1
    assert type(dsr.AvgPool2d(two, padding=np.array(1)).padding[0]) is int


def network() -> dsr.Network:
    return dsr.Network(dsr.Sequential(dsr.Conv2d(2, 3, 3, padding=1), dsr.BatchNorm(3), dsr.IF(1.0)), 2)


@pytest.mark.parametrize("shape", [(2, 2, 4, 0), (2, 0, 4, 4), (2, 3, 2, 0, 4)])
def test_samples_without_values(shape):
    with pytest.raises(ValueError, match=r"^Network.forward: argument 'data': expected samples of at least one value"):
        network().forward(np.zeros(shape, np.float32))


def test_one_image_beside_an_address_for_floats(rng):
    """A reshape of it is as unaligned, and was refused by a function the user had not called."""
    image = rng.normal(size=(1, 2, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(network().forward(wild.unaligned(image)), network().forward(image))


def test_a_learning_rate_that_no_step_could_be_made_with():
    with pytest.raises(ValueError, match=r"^SGD: argument 'learning_rate'"):
        dsr.SGD([], 3e38)


def test_schedules_of_no_epochs_and_of_numpy_s_integers():
    """The warm-up of a run of no steps had negative rates."""
    assert schedule.triangular(0.3, base=1.0, epochs=0, step=3, warmup_steps=5, warmup_epochs=0.5) == 0
    rate = schedule.cosine(np.array(0.7), base=np.array(1.0), epochs=np.array(2), step=np.array(3), warmup_steps=8)
    assert type(rate) is float and rate == 0.5


def test_affine_of_arrays_of_other_shapes():
    x, ones = np.zeros((1, 4, 3, 1, 5), np.float32), np.ones(1, np.float32)
    with pytest.raises(ValueError, match=r"^affine: argument 'y': expected shape \(1, 4, 3, 1, 5\)"):
        ops.affine(x, ones, ones, x[np.newaxis], ones)


@pytest.mark.parametrize("value", [np.zeros((2, 2)), 10**5000, np.zeros(3, "f4,i4")], ids=["array", "long", "fields"])
@pytest.mark.parametrize("key", ["data", "epochs", "neuron", "learning_rate"])
def test_values_of_recipes_are_shown_in_a_line(key, value):
    with pytest.raises(ValueError, match=f"^recipe: key '{key}': expected .*") as caught:
        recipe.from_dict({**recipe.load("digits").to_dict(), key: value})
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 300


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 5000])
def test_settings_of_too_many_digits_or_brackets(value):
    with pytest.raises(ValueError, match=r"^recipe: key 'epochs': expected an integer in .*, got '"):
        recipe.load("digits", [f"epochs={value}"])


def test_names_of_recipes_are_shown_in_a_line():
    with pytest.raises(ValueError, match=r"^recipe '\\x1e\\n': expected ") as caught:
        recipe.load("\x1e\n")
    assert len(str(caught.value).splitlines()) == 1


def test_nir_arguments():
    pytest.importorskip("nir")
    with pytest.raises(ValueError, match=r"^to_nir: argument 'features': expected"):
        dsr.nir.to_nir(network(), np.array(3))
    graph = dsr.nir.to_nir(network(), (2, 4, 4))
    with pytest.raises(ValueError, match=r"^from_nir: argument 'delta_t': expected a number in .*, got 1e-320"):
        dsr.nir.from_nir(graph, 2, delta_t=1e-320)


def test_an_out_whose_elements_are_one():
    """All results were written to one place, and the last stayed."""
    out = np.broadcast_to(np.zeros(1, np.float32), (3, 2)).view()
    out.flags.writeable = True
    with pytest.raises(ValueError, match=r"^encode_delta: argument 'out': expected an element for each result"):
        functional.encode_delta(np.ones((3, 2), np.float32), 0.5, out=out)


def test_samples_and_labels_of_a_classifier_that_are_no_arrays():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    ragged = [[1.0], [1, 2]]
    with pytest.raises(ValueError, match=r"^SpikingClassifier\.fit: argument 'X': .*inhomogeneous"):
        dsr.SpikingClassifier().fit(ragged, [0, 1])
    with pytest.raises(ValueError, match=r"^SpikingClassifier\.fit: argument 'y': expected labels .*, got list"):
        dsr.SpikingClassifier().fit(np.zeros((2, 2)), ragged)
    with pytest.raises(ValueError, match=r"^SpikingClassifier\.fit: argument 'X': "):
        dsr.SpikingClassifier().fit(wild.Raises(ZeroDivisionError()), [0, 1])
    with pytest.raises(ValueError, match=r"^SpikingClassifier: argument 'neuron': expected 'if' or 'lif'"):
        dsr.SpikingClassifier(neuron=np.zeros(3, "f4,i4")).fit(np.zeros((2, 2)), [0, 1])


@pytest.mark.parametrize("value", [2.0**-127, 2.0**126.5, 1e300])
def test_layers_take_only_thresholds_that_kernels_take(value):
    """They took up to 2**127, and the first forward pass refused more than 2**126."""
    with pytest.raises(ValueError, match=r"^IF: argument 'v_threshold': expected a number in \[2\*\*-126, 2\*\*126\]"):
        dsr.IF(value)
    with pytest.raises(
        ValueError, match=r"^if_forward: argument 'v_threshold': expected a number in \[2\*\*-126, 2\*\*126\]"
    ):
        functional.if_forward(np.zeros((1, 1), np.float32), value)
    dsr.Network(dsr.IF(2.0**126), 1).forward(np.zeros((1, 1), np.float32))


def test_spikes_of_a_height_beyond_float32():
    """NumPy warned of a division."""
    for v_threshold, delta_t in ((1e30, 1e-30), (1e-30, 1e30)):
        with pytest.raises(ValueError, match=r"^LIF: expected v_threshold / delta_t, .* in \[2\*\*-126, 2\*\*126\]"):
            dsr.LIF(v_threshold, 1.0, delta_t)
    neuron = dsr.LIF(1.0, 1.0, 1e-20)
    neuron.v_threshold.value[...] = 1e30
    with pytest.raises(FloatingPointError, match=r"^LIF: argument 'delta_t': expected v_threshold / delta_t in"):
        dsr.Network(neuron, 1).forward(np.zeros((1, 1), np.float32))


@pytest.mark.parametrize("threshold", [1e-40, 2e38, 1e30])
def test_thresholds_of_a_nir_graph_without_room_in_float32(threshold):
    """The message named IF or LIF, not the node."""
    nir = pytest.importorskip("nir")
    ones = np.ones((2, 4, 4))
    graph = dsr.nir.to_nir(network(), (2, 4, 4))
    (name,) = (name for name, node in graph.nodes.items() if isinstance(node, nir.IF))
    graph.nodes[name] = nir.LIF(ones, ones, 0 * ones, threshold * ones, 0 * ones)
    with pytest.raises(ValueError, match=f"^from_nir: node '{name}' .*LIF"):
        dsr.nir.from_nir(graph, 2, delta_t=1e-20)


def hardly_leaking() -> dsr.Network:
    return dsr.Network(dsr.Sequential(dsr.Linear(3, 2), dsr.LIF(1.0, 1e20, 0.5)), 2)


def test_membranes_of_a_nir_graph_that_hardly_leak():
    """1 - delta_t / tau was 1, and its logarithm 0: a division by zero."""
    pytest.importorskip("nir")
    graph = dsr.nir.to_nir(hardly_leaking(), (3,), euler=True)
    ((_, neuron),) = dsr.nir.from_nir(graph).neurons()
    assert neuron.tau == pytest.approx(1e20, rel=1e-6)


@pytest.mark.parametrize("euler", [False, True])
def test_time_constants_that_a_nir_graph_cannot_hold(euler):
    """It was written as infinity."""
    pytest.importorskip("nir")
    with pytest.raises(ValueError, match=r"^to_nir: layer '1': with delta_t = 1e\+30 its tau is .*, beyond float32"):
        dsr.nir.to_nir(hardly_leaking(), (3,), delta_t=1e30, euler=euler)
