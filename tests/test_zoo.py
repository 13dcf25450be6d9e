"""Networks of other papers: built, trained a few steps, inspected, saved, loaded, and exported if NIR can say them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import zoo

import dsr
from dsr import inspect
from dsr.files.checkpoint import load, save
from dsr.inspect.summary import summary, table

NETWORKS = {
    "unet": ((2, 8, 8), lambda make: zoo.unet(make, 2, 3)),
    "densenet": ((2, 8, 8), lambda make: zoo.densenet(make, 2, 3)),
    "mobilenet": ((2, 8, 8), lambda make: zoo.mobilenet(make, 2, 3)),
    "sew_resnet18": ((2, 16, 16), lambda make: zoo.sew_resnet18(make, 2, 3)),
    "sew_resnet18, and": ((2, 16, 16), lambda make: zoo.sew_resnet18(make, 2, 3, "and")),
    "sew_resnet18, iand": ((2, 16, 16), lambda make: zoo.sew_resnet18(make, 2, 3, "iand")),
    "sound": ((1, 128), lambda make: zoo.sound(make, 1, 3)),
}
EXPORTED = ("densenet", "mobilenet", "sew_resnet18", "sound")
NEURONS = {"if": lambda: dsr.IF(0.5), "lif": lambda: dsr.LIF(0.1, delta_t=0.2)}


def network_of(name: str, kind: str, seed: int = 0) -> tuple[dsr.Network, np.ndarray]:
    """The network, and a batch whose classes differ in their brightness."""
    features, build = NETWORKS[name]
    inputs = {}
    if name == "sound":
        inputs["inputs"] = "NCL"
    rng = np.random.default_rng(5)
    data = 0.5 * rng.normal(size=(12, *features)).astype(np.float32)
    data += np.resize([-1, 0, 1], (12, *[1] * len(features)))
    return dsr.Network(build(NEURONS[kind]), 4, seed, **inputs), data


@pytest.mark.parametrize("kind", NEURONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_another_paper(name, kind, tmp_path):
    network, data = network_of(name, kind)
    labels, losses = np.arange(12) % 3, []
    optimizer = dsr.Adam(network.parameters(), 0.02)
    for _ in range(20):
        rates = network.forward(data, training=True)
        pixels = rates.reshape(12, 3, -1)  # of the U-Net an output for each pixel: its mean is the class
        loss, grad = dsr.cross_entropy(pixels.mean(axis=2), labels)
        network.backward(np.repeat(grad[:, :, None] / pixels.shape[2], pixels.shape[2], axis=2).reshape(rates.shape))
        optimizer.step()
        losses.append(loss)
    assert losses[-1] < 0.8 * losses[0], losses
    # inspected
    features = NETWORKS[name][0]
    assert "IF" in table(summary(network, features, data))
    report = inspect.measure(network, data)
    assert len(report.layers) == sum(1 for _ in network.neurons())
    assert all(layer.firing_rate > 0.001 for layer in report.layers)
    sources = {(o.path, o.source) for o in report.operations if o.kind == "connections"}
    dense = [path for path, source in sources if source == "values"]
    assert len(dense) <= 1, f"not spikes, but values, go into {dense}"
    # saved and loaded
    save(tmp_path / "weights", network.state(), {})
    other, _ = network_of(name, kind, seed=1)
    other.load_state(load(tmp_path / "weights")[0])
    np.testing.assert_array_equal(other.forward(data), network.forward(data))


@pytest.mark.parametrize("kind", NEURONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_export(name, kind):
    """An interpreter of graphs gives their outputs, but for rounding, and so does the network that is read back."""
    nir = pytest.importorskip("nir")
    network, data = network_of(name, kind)
    if name not in EXPORTED:
        with pytest.raises(ValueError, match=r"to_nir: layer '.*': NIR has nothing that does what"):
            dsr.nir.to_nir(network, NETWORKS[name][0])
        return
    from dsr.nir import interpret

    graph = dsr.nir.to_nir(network, NETWORKS[name][0])
    result = interpret.run(nir, graph, data, network.timesteps, graph.metadata["dt"])
    expected = network.forward(data)
    np.testing.assert_allclose(result.values["output"].mean(0), expected, atol=0.05 * np.abs(expected).max())
    again = dsr.nir.from_nir(graph).forward(data)
    np.testing.assert_allclose(again, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_copies_while_a_backward_pass_is_awaited(name):
    """They have the weights, and nothing of the pass; the network itself goes on."""
    network, data = network_of(name, "if")
    rates = network.forward(data, training=True)
    copies = copy.deepcopy(network), pickle.loads(pickle.dumps(network))
    network.backward(np.ones_like(rates))
    for copied in copies:
        np.testing.assert_array_equal(copied(data), network(data))
        with pytest.raises(RuntimeError, match="expected a forward pass"):
            copied.backward(np.ones_like(rates))
        for _, layer in copied.body.walk():
            assert getattr(layer, "_state", None) is None
