"""A spiking network that starts from a ReLU network: thresholds, weights, and what the spikes then say."""

from __future__ import annotations

import numpy as np
import pytest
from checks import normal
from safetensors.numpy import save_file

import dsr
from dsr import data, functional
from dsr.files import checkpoint
from dsr.nn.containers import Sequential
from dsr.nn.convolution import Conv2d, Linear
from dsr.nn.flatten import Flatten
from dsr.nn.neurons import IF, LIF
from dsr.nn.norm import BatchNorm
from dsr.nn.relu import ReLU
from dsr.train import hybrid
from dsr.train.build import build_network
from dsr.train.recipe import Recipe

EPS = 2.0**-23


def one_layer(neuron, timesteps, seed=0):
    return dsr.Network(Sequential(linear=Linear(20, 30), bn=BatchNorm(30), neuron=neuron), timesteps, seed)


def trained_one_layer():
    """ReLU, with running statistics and scales that are not those of the start."""
    ann = one_layer(ReLU(), 1, seed=3)
    for step in range(5):
        ann.forward(normal((50, 20), step), training=True)
    state = ann.state()
    state["bn.weight"], state["bn.bias"] = np.linspace(0.5, 2, 30), np.linspace(-0.5, 0.5, 30)
    ann.load_state(state)
    return ann


def small(neuron, timesteps, seed=0):
    body = Sequential(
        conv=Conv2d(2, 8, 3), bn1=BatchNorm(8), n1=neuron(), drop=dsr.Dropout(0.2), flatten=Flatten(),
        linear=Linear(128, 5), bn2=BatchNorm(5), n2=neuron(),
    )  # fmt: skip
    return dsr.Network(body, timesteps, seed)


def trained_small(seed=3):
    ann = small(ReLU, 1, seed)
    optimizer = dsr.SGD(ann.parameters(), 0.05)
    for step in range(3):
        ann.backward(dsr.cross_entropy(ann.forward(normal((10, 2, 6, 6), step), training=True), np.arange(10) % 5)[1])
        optimizer.step()
    return ann


# ---- what a converted layer says -----------------------------------------------------------------------------------


@pytest.mark.parametrize("quantile", [1.0, 0.95])
@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0])
def test_rates_of_if_approach_the_clipped_activations(alpha, quantile):
    """A constant current z in [0, V] leaves a potential in [(a - 1) V, a V), so |rate - z| <= max(a, 1 - a) V / T.

    Below 0 nothing fires, above V every step does. Rounding: potentials are sums of T float32 numbers up to 2 V.
    """
    ann, inputs = trained_one_layer(), normal((200, 20), 9)
    activations = ann.forward(inputs)
    errors = []
    for timesteps in (4, 32, 256):
        spiking = one_layer(IF(1.0, alpha), timesteps)
        threshold = hybrid.convert(ann, spiking, [inputs], quantile)["neuron"]
        clipped = np.minimum(activations, threshold)
        assert (activations > threshold).any() == (quantile < 1)
        error = np.abs(spiking.forward(inputs) - clipped).max()
        bound = max(alpha, 1 - alpha) * threshold / timesteps
        assert error <= bound + timesteps * threshold * EPS
        assert error > 0.7 * bound  # of 6,000 values some are close to it
        errors.append(error)
    assert errors[0] > 7 * errors[1] > 7 * 7 * errors[2] > 0


@pytest.mark.parametrize("alpha", [0.3, 0.5])
def test_rates_of_lif_approach_the_clipped_activations(alpha):
    """A constant current z in [0, m], m = V / h, tau = 1, b = exp(-h), leaves v in [(a - 1) V, a V).

    v[T-1] = sum_t b**(T-1-t) ((1-b) z - V s[t]), so the rate, weighted with b**(T-1-t), is
    z (1-b) / h - v (1-b) / (h (1 - b**T)): off z by at most z (1 - (1-b)/h) + max(a, 1-a) m (1-b) / (1 - b**T).
    It takes a small step h as well as a large T to make that small: about m h (1/2 + max(a, 1-a)) at T h >> 1.
    """
    ann, inputs = trained_one_layer(), normal((200, 20), 9)
    activations = ann.forward(inputs)
    errors = []
    for h, timesteps in ((0.5, 20), (0.05, 200), (0.005, 2000)):
        spiking = one_layer(LIF(0.3, 1.0, h, alpha, v_threshold_lower_bound=1e-6), timesteps)
        threshold = hybrid.convert(ann, spiking, [inputs])["neuron"]
        largest = threshold / h
        assert largest == pytest.approx(activations.max(), rel=1e-6)
        b = np.exp(-h)
        bound = activations * (1 - (1 - b) / h) + max(alpha, 1 - alpha) * largest * (1 - b) / (1 - b**timesteps)
        error = np.abs(spiking.forward(inputs[:50]) - activations[:50])
        # potentials are rounded at every step, errors fade as b does: 1 / (1 - b) of them add up
        assert (error <= bound[:50] + 4 * largest * EPS / (1 - b)).all()
        errors.append(error.max())
    assert errors[0] > 5 * errors[1] > 5 * 5 * errors[2] > 0


def test_a_converted_network_recognises_digits():
    """The purpose: hardly a digit is lost with many steps; with a single one an epoch of training wins back much."""
    digits = data.load("digits")
    images, labels = digits.train.batch(np.arange(1437)), digits.train.labels
    tests = digits.test.batch(np.arange(360))

    def accuracy(network):
        return float((network.predict(tests) == digits.test.labels).mean())

    def train(network, epochs, rate):
        optimizer = dsr.SGD(network.parameters(), rate, 0.9, 5e-4)
        for epoch in range(epochs):
            order = np.random.default_rng(epoch).permutation(len(labels))
            for start in range(0, len(labels) - 1, 64):
                batch = order[start : start + 64]
                _, grad = dsr.cross_entropy(network.forward(images[batch], training=True), labels[batch])
                network.backward(grad)
                optimizer.step()
        return network

    recipe = {"data": "digits", "model": "digits", "width": 16}
    ann = train(build_network(Recipe(**recipe, neuron="relu", timesteps=1), (1, 8, 8), 10), 6, 0.1)
    assert accuracy(ann) > 0.95
    batches = [images[:256], images[256:512]]
    many, few = (build_network(Recipe(**recipe, timesteps=steps, seed=1), (1, 8, 8), 10) for steps in (64, 1))
    assert accuracy(many) < 0.3
    hybrid.convert(ann, many, batches, 0.999)
    assert accuracy(many) > accuracy(ann) - 0.02
    hybrid.convert(ann, few, batches, 0.99)
    converted = accuracy(few)
    assert accuracy(train(few, 1, 0.02)) > converted + 0.1


# ---- thresholds and weights ----------------------------------------------------------------------------------------


def outputs_of(ann, batches):
    """Of each ReLU layer, all values, from the layer under it: its normalised current."""
    found = {"n1": [], "n2": []}

    def observe(path, layer, output):
        if isinstance(layer, BatchNorm):
            found[path.replace("bn", "n")].append(np.maximum(output.final_values(), 0).reshape(-1))

    for batch in batches:
        ann.forward(batch, observer=observe)
    return {path: np.concatenate(values) for path, values in found.items()}


def test_thresholds_are_the_largest_activations_of_all_batches():
    ann, batches = trained_small(), [normal((n, 2, 6, 6), n) for n in (3, 11, 4)]
    spiking = small(IF, 4)
    given = hybrid.convert(ann, spiking, iter(batches))
    for path, values in outputs_of(ann, batches).items():
        assert given[path] == values.max()
        assert dict(spiking.neurons())[path].v_threshold.value == values.max()


@pytest.mark.parametrize("quantile", [0.8, 0.9, 0.99])
def test_quantiles_are_those_of_all_values_together(quantile):
    ann, batches = trained_small(), [normal((n, 2, 6, 6), n) for n in (30, 110, 40)]
    given = hybrid.activations(ann, batches, quantile)
    for path, values in outputs_of(ann, batches).items():
        exact = np.quantile(values, quantile, method="inverted_cdf")
        assert 0 < exact <= given[path] <= min(exact * (1 + 2.0**-9), values.max())
    largest = hybrid.activations(ann, batches)
    assert all(given[path] < largest[path] for path in given)
    assert hybrid.activations(ann, batches, 1e-6) == {"n1": 0.0, "n2": 0.0}


def test_convert_copies_all_but_thresholds_and_random_numbers():
    ann, spiking = trained_small(3), small(lambda: LIF(0.3, delta_t=0.25), 4, seed=8)
    stream = spiking.state()["drop.stream"]
    thresholds = hybrid.convert(ann, spiking, [normal((5, 2, 6, 6))])
    largest = hybrid.activations(ann, [normal((5, 2, 6, 6))])
    copied = ann.state()
    for name, array in spiking.state().items():
        path, _, kind = name.rpartition(".")
        if kind == "v_threshold":
            assert array == np.float32(thresholds[path]) == np.float32(largest[path] * 0.25)
        else:
            np.testing.assert_array_equal(array, stream if kind == "stream" else copied[name], err_msg=name)
    assert not np.array_equal(stream, copied["drop.stream"])


def test_fixed_thresholds_are_set_too():
    spiking = small(lambda: IF(9.0, train_threshold=False), 4)
    given = hybrid.convert(trained_small(), spiking, [normal((5, 2, 6, 6))])
    assert spiking.state()["n1.v_threshold"] == np.float32(given["n1"]) != 9


def test_threshold_for():
    """Where mappings end: clip(z, 0, V) at V, clip(z / tau, 0, V / h) at tau V / h."""
    assert IF(1.0).threshold_for(3.0) == 3.0
    assert LIF(1.0, tau=2.0, delta_t=0.1).threshold_for(3.0) == pytest.approx(0.15)
    for z, slope in ((2.999, 1), (3.001, 0)):
        assert functional.if_rate_backward(1.0, z, 3.0)[0] == slope
        assert functional.lif_rate_backward(1.0, z, 0.15, 2.0, 0.1)[0] == slope / 2


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda a: hybrid.convert(a, small(lambda: LIF(0.3, tau=2.0), 4), []), ValueError, "tau = 1.*got tau = 2"),
        (lambda a: hybrid.convert(a, small(ReLU, 1), []), ValueError, "'spiking': expected a network with IF or LIF"),
        (lambda a: hybrid.convert(a, one_layer(IF(1.0), 2), []), ValueError, "alone at neuron; ReLU alone at n1, n2"),
        (lambda a: hybrid.convert(a, small(IF, 4), []), ValueError, "'batches': expected at least one sample"),
        (lambda a: hybrid.convert(a, small(IF, 4), [normal((5, 2, 6, 6))], 0.1), ValueError, "0.1 .*got 0 at n1, n2"),
        (lambda a: hybrid.activations(a, [], 0.0), ValueError, r"'quantile': expected a number in \(0, 1\], got 0"),
        (lambda a: hybrid.activations(a, [], 99.9), ValueError, "'quantile'"),
        (lambda a: hybrid.activations(small(IF, 4), []), ValueError, "'network': expected a network with ReLU"),
        (
            lambda a: hybrid.activations(a, [np.full((1, 2, 6, 6), 3e38, np.float32)]),
            FloatingPointError,
            "layer 'n1' is not finite",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call(trained_small())


def test_a_network_that_does_not_fit_is_not_changed():
    body = small(IF, 4).body.children()
    wider = dsr.Network(Sequential(**{**body, "linear": Linear(128, 6), "bn2": BatchNorm(6)}), 4)
    before = wider.state()
    with pytest.raises(ValueError, match=r"linear.weight \(expected \(6, 128, 1, 1\), got \(5, 128, 1, 1\)\)"):
        hybrid.convert(trained_small(), wider, [normal((5, 2, 6, 6))])
    for name, array in wider.state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


# ---- weights from files --------------------------------------------------------------------------------------------


def weights():
    """As another library would write them: without thresholds and random numbers, linear weights as matrices."""
    state = {name: array for name, array in trained_small().state().items() if not name.endswith("stream")}
    return state | {"linear.weight": state["linear.weight"][:, :, 0, 0]}


def save_npz(path, arrays):
    np.savez(path, **arrays)


def save_safetensors(path, arrays):
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def save_checkpoint(path, arrays):
    average = {f"average.{name}": array for name, array in arrays.items()}
    network = {f"network.{name}": array + np.float32(1) for name, array in arrays.items()}
    checkpoint.save(path, network | average | {"optimizer.steps": np.array(3)}, {"recipe": {}})


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("w.npz", save_npz),
        (
            "w.safetensors",
            lambda path, arrays: save_file({k: np.ascontiguousarray(a) for k, a in arrays.items()}, path),
        ),
        ("run.safetensors", save_checkpoint),
    ],
)
@pytest.mark.parametrize("neuron", [ReLU, lambda: IF(2.5)])
def test_weights_come_from_files(tmp_path, name, save, neuron):
    arrays = weights()
    save(tmp_path / name, arrays)
    network = small(neuron, 1)
    stream = network.state()["drop.stream"]
    dsr.load_state(network, tmp_path / name, optional_thresholds=True)
    state = network.state()
    for key, array in arrays.items():
        np.testing.assert_array_equal(state[key].reshape(array.shape), array, err_msg=key)
    np.testing.assert_array_equal(state["drop.stream"], stream)
    assert all(state[key] == 2.5 for key in state.keys() - arrays.keys() - {"drop.stream"})


def test_thresholds_and_other_dtypes_are_taken_where_they_are_given():
    network = small(IF, 2)
    given = {name: array.astype(np.float64) for name, array in weights().items()}
    more = {"n2.v_threshold": np.array([0.75], np.float16), "other.stream": np.zeros(2)}
    dsr.load_state(network, given | more, optional_thresholds=True)
    state = network.state()
    assert (state["n1.v_threshold"], state["n2.v_threshold"]) == (6.0, 0.75)
    assert state["conv.weight"].dtype == np.float32


def test_all_that_does_not_fit_is_listed_and_nothing_is_changed():
    network = small(IF, 2)
    before = network.state()
    given = weights() | {
        "fc.weight": np.zeros(3),
        "conv.weight": np.zeros((8, 3, 3, 3)),
        "bn1.bias": np.full(8, np.inf),
    }
    del given["linear.bias"]
    with pytest.raises(ValueError, match="load_state: the mapping does not fit the network") as caught:
        dsr.load_state(network, given, optional_thresholds=True)
    assert str(caught.value).split("; ")[1:] == [
        "missing: linear.bias",
        "unknown: fc.weight",
        "of another shape: conv.weight (expected (8, 2, 3, 3), got (8, 3, 3, 3))",
        "not of finite numbers: bn1.bias",
    ]
    for name, array in network.state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    with pytest.raises(ValueError, match=r"unknown: a0, a1, a2, a3, a4, a5, a6, a7 and 1 more$"):
        dsr.load_state(network, weights() | {f"a{i}": np.zeros(1) for i in range(9)}, optional_thresholds=True)


def test_thresholds_do_not_fit_a_network_without_neurons():
    with pytest.raises(ValueError, match=r"unknown: n1\.v_threshold"):
        dsr.load_state(small(ReLU, 1), weights() | {"n1.v_threshold": np.array(1.0)}, optional_thresholds=True)


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.pth"])
def test_files_that_cannot_be_read_are_named(tmp_path, name):
    network, path = small(ReLU, 1), tmp_path / name
    if name != "w.pth":
        with pytest.raises(OSError, match=r"w\."):
            dsr.load_state(network, path, optional_thresholds=True)
    for content in (b"", b"PK\3\4 no archive", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"load_state: .*w\."):
            dsr.load_state(network, path, optional_thresholds=True)


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, weights())
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match="checksum"):
        dsr.load_state(small(ReLU, 1), path, optional_thresholds=True)
    checkpoint.save(path, {"optimizer.steps": np.array(3)}, {})
    with pytest.raises(ValueError, match="without a network"):
        dsr.load_state(small(ReLU, 1), path, optional_thresholds=True)
