"""Graphs for programs that read NIR: what is in them, what is refused, and what they give by the rules of each.

The rules were checked against the programs themselves, which the package does not need: on 60 images of several
networks `dsr.nir.interpret` gave the spike counts of nirtorch 2.6, norse 1.1.0, snntorch 1.0.0, sinabs 3.1.3,
spyx 1.0.0 and rockpool 3.1.0, all equal.
"""

import numpy as np
import pytest

import dsr
from dsr.nir.folding import fold
from dsr.nir.readers import READERS, share_of_threshold

nir = pytest.importorskip("nir", reason="NIR files need the package nir")

import dsr.nir  # noqa: E402

NEURONS = {
    "if": lambda v=0.6: dsr.IF(v, 0.5),
    "lif": lambda v=0.6: dsr.LIF(np.divide(v, 6), 1.0, 0.2, 0.5),
}
FEATURES = {"images": (2, 8, 8), "vectors": (12,)}


def conv(channels, out, size=3, stride=1, padding=1, **more):
    return dsr.Conv2d(channels, out, size, stride, padding, **more)


def network(kind, shape="images", timesteps=5):
    make = NEURONS[kind]
    body = [
        conv(2, 4),
        dsr.BatchNorm(4),
        make(),
        dsr.AvgPool2d(2),
        conv(4, 4),
        make(),
        dsr.Flatten(),
        dsr.Linear(64, 6),
    ]
    if shape == "vectors":
        body = [dsr.Linear(12, 16), dsr.BatchNorm(16), make(), dsr.Linear(16, 6)]
    made = dsr.Network(dsr.Sequential(*body, make()), timesteps, seed=1)
    made.forward(samples(shape, 32), training=True)
    return made


def samples(shape="images", count=20):
    return np.random.default_rng(2).normal(size=(count, *FEATURES[shape])).astype(np.float32)


def kinds(graph):
    return {type(node).__name__ for node in graph.nodes.values()} - {"Input", "Output"}


@pytest.mark.parametrize("kind", NEURONS)
@pytest.mark.parametrize("reader", ["nirtorch", "norse"])
def test_programs_that_subtract_give_the_spikes_of_dsr(reader, kind, tmp_path):
    made = network(kind)
    dsr.nir.save(made, (2, 8, 8), tmp_path / "a.nir", reader=reader)
    found = dsr.nir.verify(made, tmp_path / "a.nir", samples(), np.arange(20) % 6)
    assert found.equal == found.agree == found.samples == 20 and found.right == found.network_right
    assert sum(layer.spikes for layer in found.layers) > 1000
    assert found.first is None or found.first.margin < 1e-5, found
    graph = nir.read(tmp_path / "a.nir")  # nir itself finds it well typed
    neurons = {"nirtorch": {"if": "IF", "lif": "LIF"}[kind], "norse": "CubaLIF"}[reader]
    assert kinds(graph) == {"Conv2d", {"nirtorch": "AvgPool2d", "norse": "SumPool2d"}[reader], neurons}
    assert tuple(graph.nodes["output"].output_type["output"]) == (6, 1, 1)  # batches need no Flatten


@pytest.mark.parametrize("kind", NEURONS)
def test_what_norse_gets(kind):
    """Potentials start at v_leak there, so neurons fire at V and subtract it; the synapse adds v_leak at each step."""
    made = network(kind)
    graph = dsr.nir.to_nir(made, (2, 8, 8), reader="norse")
    (_, first), (_, second), _ = made.neurons()
    height = first.effective_threshold()
    node = graph.nodes["2"]
    assert node.v_threshold.flat[0] == np.nextafter(np.float32(height), np.float32(0))
    assert node.v_leak.flat[0] == np.float32(height / 2) and node.tau_syn.flat[0] == np.float32(1e-3)
    decay = {"if": 1.0, "lif": np.exp(-0.2)}[kind]
    assert 1 - 1e-3 / np.float64(node.tau_mem.flat[0]) == pytest.approx(decay, abs=2e-7)
    assert node.r.flat[0] == {"if": 2**24, "lif": 1}[kind]
    plain = dsr.nir.to_nir(made, (2, 8, 8))
    np.testing.assert_allclose(graph.nodes["0"].bias, plain.nodes["0"].bias - height / 2, rtol=1e-5, atol=1e-6)
    # the mean of four pixels is a quarter of their sum
    np.testing.assert_allclose(graph.nodes["4"].weight, plain.nodes["4"].weight / 4, rtol=1e-6)
    moved = plain.nodes["4"].bias - second.effective_threshold() / 2
    np.testing.assert_allclose(graph.nodes["4"].bias, moved, rtol=1e-5, atol=1e-6)
    weight = plain.nodes["7"].weight.reshape(6, 4, 4, 4)
    np.testing.assert_allclose(graph.nodes["7"].weight, weight, rtol=1e-6)


LOSSY = {
    "snntorch": ("images", "vectors"),
    "sinabs": ("vectors",),
    "spyx": ("images", "vectors"),
    "rockpool": ("vectors",),
}


@pytest.mark.parametrize("kind", NEURONS)
@pytest.mark.parametrize(("reader", "shape"), [(r, s) for r, shapes in LOSSY.items() for s in shapes])
def test_other_programs_lose_something_that_is_measured(reader, shape, kind):
    made = network(kind, shape)
    graph = dsr.nir.to_nir(made, FEATURES[shape], reader=reader)
    assert kinds(graph) <= {"Conv2d", "Affine", "SumPool2d", "AvgPool2d", "IF", "LIF", "CubaLIF"}
    assert graph.metadata["reset"] == READERS[reader].rules.reset and graph.metadata["reader"] == reader
    found = dsr.nir.verify(made, graph, samples(shape, 60))
    assert found.equal < 60 and found.agree > 25, found
    if reader != "spyx":  # whose spikes are late
        assert found.first.name == "2" and found.first.margin > 0.01
        assert "the first layer that differs is '2'" in str(found)


def test_what_is_lost_by_setting_to_zero_is_made_small():
    """At V such neurons fire too seldom, at alpha V too often."""
    assert share_of_threshold(0.5, 0.0, 1) == pytest.approx(0.5, abs=1e-3)
    assert share_of_threshold(1.0, 0.0, 1) == pytest.approx(1, abs=1e-3)
    assert 0.5 < share_of_threshold(0.5, 0.0, 5) < share_of_threshold(0.5, 0.0, 100) < 0.8
    made = network("if")
    graph = dsr.nir.to_nir(made, (2, 8, 8), reader="snntorch")
    height = next(neuron for _, neuron in made.neurons()).effective_threshold()
    share = graph.nodes["2"].v_threshold.flat[0] / height
    assert share == pytest.approx(share_of_threshold(0.5, 0.0, 5), rel=1e-6)

    def agree(factor):
        changed = dsr.nir.to_nir(made, (2, 8, 8), reader="snntorch")
        for name in fold("test", made, (2, 8, 8)).neurons():
            changed.nodes[name].v_threshold *= np.float32(factor)
        return dsr.nir.verify(made, changed, samples(count=100)).equal

    assert agree(1) > max(agree(0.5 / share), agree(1 / share))


def residual(shortcut):
    body = dsr.Sequential(conv(2, 2), dsr.IF(0.5), conv(2, 2))
    return [conv(2, 2), dsr.IF(0.5), dsr.Residual(body, shortcut), dsr.IF(0.5)]


REFUSED = {
    "nodes in the wrong order": ("norse", residual(conv(2, 2)), "norse would run it before '2.shortcut'"),
    "sums": ("spyx", residual(None), "spyx reads chains of nodes only"),
    "convolutions": ("rockpool", [conv(2, 2), dsr.IF()], "rockpool has no convolutions"),
    "leaky images": ("sinabs", [conv(2, 2), dsr.LIF()], "sinabs fails on leaky neurons that are images"),
    "thresholds of channels": ("snntorch", [conv(2, 2), dsr.IF(np.array([1, 2]))], "snntorch has one thresh"),
    "padding": ("snntorch", [dsr.Conv2d(2, 2, 2, padding="same"), dsr.IF()], 'padding "same" of an even kernel'),
    "padded sums": ("norse", [dsr.IF(), dsr.AvgPool2d(2, 2, 1), conv(2, 2), dsr.IF()], "padding of sum pooling"),
    "maximum": ("sinabs", [dsr.IF(), dsr.MaxPool2d(2), conv(2, 2), dsr.IF()], "1.any': sinabs has nothing"),
    "flattened and then spiking": ("snntorch", [conv(2, 2), dsr.Flatten(), dsr.IF()], "an image that was flattened"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_program_would_get_wrong_is_refused(name):
    reader, layers, words = REFUSED[name]
    made = dsr.Network(dsr.Sequential(*layers), 3)
    with pytest.raises(ValueError, match=rf"^to_nir: argument 'reader': {reader} cannot read node '.*{words}"):
        dsr.nir.to_nir(made, (2, 8, 8), reader=reader)


def test_what_no_program_reads_is_said_otherwise():
    """Groups are zeros of a full kernel, maximum pooling a neuron without memory, and shortcuts sums."""
    body = dsr.Sequential(conv(4, 4), dsr.IF(0.5))
    layers = [conv(2, 4), dsr.IF(0.5), dsr.MaxPool2d(2), conv(4, 4, groups=2), dsr.IF(0.5), dsr.SpikeResidual(body)]
    made = dsr.Network(dsr.Sequential(*layers, conv(4, 3), dsr.IF(0.5)), 4, seed=4)
    for reader in ("nirtorch", "norse"):
        graph = dsr.nir.to_nir(made, (2, 8, 8), reader=reader)
        weight = graph.nodes["3"].weight
        assert weight.shape == (4, 4, 3, 3) and not weight[:2, 2:].any() and not weight[2:, :2].any()
        assert type(graph.nodes["2.any"]).__name__ == {"nirtorch": "LIF", "norse": "CubaLIF"}[reader]
        found = dsr.nir.verify(made, graph, samples())
        assert found.equal == 20 and len(found.layers) == 4, found


def test_graphs_for_readers_are_not_read_as_those_of_dsr():
    """Inputs and thresholds are those of other neurons; only the neurons for nirtorch are ours."""
    made = network("lif", "vectors")
    for reader in ("norse", "snntorch", "sinabs", "spyx", "rockpool"):
        with pytest.raises(ValueError, match=f"from_nir: argument 'graph': it was written for {reader}, whose neurons"):
            dsr.nir.from_nir(dsr.nir.to_nir(made, (12,), reader=reader), reset="subtract")
    again = dsr.nir.from_nir(dsr.nir.to_nir(made, (12,), reader="nirtorch"))
    np.testing.assert_allclose(again.forward(samples("vectors")), made.forward(samples("vectors")), rtol=1e-5)


def test_verify_names_the_first_layer_that_differs():
    made = network("lif")
    graph = dsr.nir.to_nir(made, (2, 8, 8))
    assert dsr.nir.verify(made, graph, samples()).first is None
    graph.nodes["5"].v_threshold *= 1.5
    found = dsr.nir.verify(made, graph, samples())
    assert found.first.name == "5" and [bool(layer.different) for layer in found.layers] == [False, True, True]
    assert str(found).startswith(f"the first layer that differs is '5': {found.first.different} spikes of ")


def test_verify_of_frames_and_of_currents():
    """Frames of every step, and a mean current as output."""
    body = dsr.Sequential(conv(2, 3), dsr.IF(0.5), dsr.Flatten(), dsr.Linear(192, 4))
    made = dsr.Network(body, 4, seed=5)
    frames = np.random.default_rng(3).normal(size=(4, 6, 2, 8, 8)).astype(np.float32)
    for reader in (None, "norse"):
        found = dsr.nir.verify(made, dsr.nir.to_nir(made, (2, 8, 8), reader=reader), frames)
        assert (found.equal, found.samples) == (6, 6), found


def test_mistakes_are_named(tmp_path):
    made = network("if", "vectors")
    with pytest.raises(ValueError, match=r"argument 'reader': expected one of nirtorch, norse, .*, got 'nest'"):
        dsr.nir.to_nir(made, (12,), reader="nest")
    with pytest.raises(ValueError, match="to_nir: argument 'reader': expected no delta_t, euler or diagonal"):
        dsr.nir.to_nir(made, (12,), reader="norse", delta_t=1.0)
    graph = dsr.nir.to_nir(made, (12,))
    with pytest.raises(TypeError, match=r"verify: argument 'graph': expected a nir\.NIRGraph or a path, got int"):
        dsr.nir.verify(made, 3, samples("vectors"))
    with pytest.raises(ValueError, match="verify: argument 'graph': expected what to_nir wrote of this network"):
        dsr.nir.verify(network("if"), graph, samples())
    with pytest.raises(ValueError, match=r"verify: argument 'data': .* got 20 and labels of shape \(3,\)"):
        dsr.nir.verify(made, graph, samples("vectors"), np.zeros(3, int))
    with pytest.raises(ValueError, match="verify: argument 'data'"):
        dsr.nir.verify(made, graph, np.full((2, 12), np.nan))
    with pytest.raises(TypeError, match="verify: argument 'labels': expected integers, got float64"):
        dsr.nir.verify(made, graph, samples("vectors"), np.zeros(20))
    graph.metadata["dt"] = "long"
    with pytest.raises(ValueError, match="verify: argument 'graph': metadata 'dt': expected a number > 0, got 'long'"):
        dsr.nir.verify(made, graph, samples("vectors"))
