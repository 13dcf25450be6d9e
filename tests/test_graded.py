"""Graded spikes, up to `levels` at a step: laws of the neuron, and all that reads trains of several planes.

Parity of the kernels with the reference is in tests/test_ops.py and tests/test_neurons.py, where graded neurons are
among the models; gradients are in tests/test_testing.py, by finite differences.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import program_interpreter
import pytest

import dsr
from dsr import functional, inspect, ops, reference
from dsr.deploy.c.export import export_c
from dsr.deploy.lowering import lower
from dsr.deploy.model_file import save_model
from dsr.inspect.summary import summary
from dsr.nir.folding import fold
from dsr.nn.gradients import Gradient
from dsr.nn.registry import make_neuron
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, sum_planes
from dsr.train import recipe

CHANNELS = 35
PADDED = ops.Geometry((3, 3), (1, 1), (1, 1, 1, 1))
HEIGHTS = np.linspace(0.3, 1.7, CHANNELS, dtype=np.float32)


def graded(rng, *shape, levels=5, amplitude=0.5):
    """A train (T, B, ...) of 0 to `levels` spikes at a step, and their numbers."""
    numbers = rng.integers(0, levels + 1, shape) * (rng.random(shape) < 0.5)
    planes = [SpikeTrain.from_dense(numbers >> k & 1) for k in range(levels.bit_length())]
    words = np.concatenate([plane.words for plane in planes])
    return SpikeTrain(words, shape[2:], amplitude, planes[0].time_weights, len(planes)), numbers


@pytest.mark.parametrize("levels", [1, 2, 3, 6, 255])
@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_a_step_is_the_formula(levels, alpha, rng):
    """Dyadic numbers, which float32 adds exactly: k = clip(floor(u / V + 1 - alpha), 0, L), and charge is conserved."""
    threshold = 0.25
    current = rng.integers(-64, 65 + 16 * levels, (12, 200)).astype(np.float32) / 64
    train, left = functional.if_forward(current, threshold, alpha, levels=levels, return_v=True)
    v = [Fraction(0)] * 200
    for t in range(12):
        u = [a + Fraction(float(b)) for a, b in zip(v, current[t], strict=True)]
        k = [min(max(floor(x / Fraction(threshold) + 1 - Fraction(alpha)), 0), levels) for x in u]
        assert train[t].tolist() == [threshold * number for number in k]
        v = [x - number * Fraction(threshold) for x, number in zip(u, k, strict=True)]
    assert left.tolist() == [float(x) for x in v]
    np.testing.assert_array_equal(train.sum(axis=0) + left, current.sum(axis=0))
    assert {0.0, threshold * levels} <= set(np.unique(train))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_digits_count_thresholds(dtype, rng):
    """Spike j has the threshold fire + (j - 1) V, rounded after each operation; potentials lie on and beside them."""
    for threshold, alpha, levels in rng.uniform([0.01, 0.1, 2], [3, 1, 40], (20, 3)):
        v, levels = dtype(threshold), int(levels)
        places = [dtype(alpha) * v + dtype(j) * v for j in range(levels)]
        potentials = np.array([np.nextafter(p, side, dtype=dtype) for p in places for side in (0, p, 1000)])
        expected = sum((potentials >= place).astype(int) for place in places)
        train = functional.if_forward(potentials[np.newaxis], threshold, alpha, levels=levels)
        np.testing.assert_array_equal(train[0], expected.astype(dtype) * v)


def test_the_mapping_is_what_many_steps_approach():
    z = np.linspace(-1, 4, 101)
    for levels in (1, 2, 3):
        rate = functional.firing_rate(functional.if_forward(np.tile(z, (4000, 1)), 1.0, levels=levels))
        np.testing.assert_allclose(rate, functional.if_rate(z, 1.0, levels=levels), atol=1e-3)
        assert functional.if_rate(z, 1.0, levels=levels).max() == levels


def network_of(make, seed=0):
    """Fused, with shortcuts, on pooled spikes, on a concatenation, in groups, and on a vector."""
    body = dsr.Sequential(
        conv1=dsr.Conv2d(2, CHANNELS, 3, padding=1),
        neuron1=make(HEIGHTS / 2),
        conv2=dsr.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        bn=dsr.BatchNorm(CHANNELS),
        neuron2=make(0.5),
        block=dsr.Residual(dsr.Conv2d(CHANNELS, CHANNELS, 3, padding=1)),
        neuron3=make(0.3),
        pool=dsr.AvgPool2d(2),
        conv3=dsr.Conv2d(CHANNELS, 6, 1),
        neuron4=make(0.2),
        both=dsr.Concat(dsr.Identity(), dsr.Sequential(dsr.Conv2d(6, 4, 1), make(0.3))),
        grouped=dsr.Conv2d(10, 10, 3, padding=1, groups=2),
        neuron5=make(0.2),
        flatten=dsr.Flatten(),
        linear=dsr.Linear(40, 3),
        neuron6=make(0.2),
    )
    return dsr.Network(body, 5, seed)


MAKE = {
    "if": lambda v: dsr.IF(v, levels=3),
    "six": lambda v: dsr.IF(v, levels=6),
    "lif": lambda v: dsr.LIF(np.asarray(v) / 5, delta_t=0.2, levels=2),
}


@pytest.mark.parametrize("kind", MAKE)
def test_every_way_gives_the_spikes_of_the_reference(kind, rng):
    """Each layer sees what the layer before gave, written out; training and evaluation have the same bits."""
    network, seen = network_of(MAKE[kind]), {}
    images = rng.normal(size=(3, 2, 4, 4)).astype(np.float32)
    network.forward(images, training=True)
    layers = network.body.layers
    trains = []
    for for_backward in (False, True):
        network.forward(images, for_backward=for_backward, observer=lambda path, _, output: seen.update({path: output}))
        for path, below in (("neuron1", "conv1"), ("neuron2", "bn"), ("neuron3", "block"), ("neuron4", "conv3")):
            model, current = layers[path].effective_model(), seen[below]
            expected = reference.neuron_spikes(current.values(), 5, model, None, current.scale, current.shift)[0]
            np.testing.assert_array_equal(seen[path].words, expected, err_msg=path)
            assert seen[path].numbers().max() > 1
        for path, below in (("conv2", "neuron1"), ("conv3", "pool"), ("grouped", "both"), ("linear", "flatten")):
            dense = seen[below].values()
            conv = layers[path]
            flat = ops.conv2d(dense.reshape(*dense.shape[:3], -1), conv.weight.value, conv.bias.value, conv.geometry)
            np.testing.assert_allclose(seen[path].values().reshape(flat.shape), flat, atol=1e-4, err_msg=path)
        trains.append([seen[path].words for path in layers if path.startswith("neuron")])
    for evaluated, trained in zip(*trains, strict=True):
        np.testing.assert_array_equal(evaluated, trained)
    choices = {row.path: row.forward for row in inspect.plan(network, images).rows}
    planes = layers["neuron1"].effective_model().planes
    assert choices["neuron2"] == ("fused with the convolution",)
    assert choices["conv2"] == (f"spikes, {planes} planes",)
    assert choices["neuron3"] == ("from convolved spikes + spikes",)  # a shortcut of several planes is not fused
    assert choices["conv3"] == (f"spikes, {((2**planes - 1) * 4).bit_length()} trains",)
    assert choices["grouped"] == (f"spikes, {planes} trains",)


@pytest.mark.parametrize("groups", [1, 5])
@pytest.mark.parametrize("amplitude", [0.5, HEIGHTS])
def test_gradients_of_weights(groups, amplitude, rng):
    """On bits, and on the values written out."""
    train, numbers = graded(rng, 4, 3, CHANNELS, 5, 5, amplitude=amplitude)
    conv, grad = dsr.Conv2d(CHANNELS, 5, 3, padding=1, groups=groups), rng.normal(size=(5, 5, 5, 3)).astype(np.float32)
    conv.initialise(rng)
    conv.forward(train, Run(training=True))
    conv.backward(Gradient(grad, 4))
    heights = np.reshape(amplitude, (-1, 1, 1)) * np.ones((CHANNELS, 1, 1))
    np.testing.assert_allclose(train.dense(), numbers * heights, rtol=1e-6)
    values = train.values().reshape(CHANNELS, 5, 5, -1)
    dense = np.broadcast_to(grad[:, :, :, None], (5, 5, 5, 4, 3)).reshape(5, 5, 5, -1).copy()
    expected = ops.conv2d_weight_gradient(dense, values, conv.geometry)
    np.testing.assert_allclose(conv.weight.grad, expected, rtol=1e-3, atol=1e-4)


def test_a_train_counts_its_spikes(rng):
    train, numbers = graded(rng, 4, 3, CHANNELS, 2, 5, levels=6)
    np.testing.assert_array_equal(train.counts(), numbers.sum(axis=(0, 1, 3, 4)))
    assert train.firing_rate() == pytest.approx(numbers.mean())
    assert train.density() == pytest.approx(sum((numbers >> k & 1).mean() for k in range(3)) / 3)
    np.testing.assert_allclose(train.rate(), numbers.mean(axis=0) / 2, rtol=1e-6)
    np.testing.assert_array_equal(train[1:3].dense(), train.dense()[1:3])
    assert sum(part.dense() for part in train.split()).tolist() == train.dense().tolist()


def test_a_batch_without_samples():
    network = network_of(MAKE["if"])
    assert network.forward(np.empty((0, 2, 4, 4))).shape == (0, 3)
    train, _ = graded(np.random.default_rng(0), 4, 0, CHANNELS, 2, 2)
    assert (train.firing_rate(), train.density(), train.counts().sum(), len(train.split())) == (0, 0, 0, 3)


def test_planes_are_added_as_numbers(rng):
    """Digits of 32 sums side by side, with carries up to the highest."""
    numbers = rng.integers(0, 8, (3, 50, 32))
    numbers[:, 0] = 7
    digits = [
        np.stack([((n >> k & 1) << np.arange(32)).sum(axis=1).astype(np.uint32) for k in range(3)]) for n in numbers
    ]
    total = sum_planes(digits, 6)
    found = sum((total[k][:, np.newaxis] >> np.arange(32) & 1) << k for k in range(6))
    np.testing.assert_array_equal(found, sum(n << j for j, n in enumerate(numbers)))


def test_layers_that_move_spikes(rng):
    """The values are those of the same layer on the numbers written out."""
    train, _ = graded(rng, 4, 3, CHANNELS, 4, 6)
    plain = dsr.nn.currents.Current.from_dense(train.dense())
    for layer in (
        dsr.AvgPool2d(2),
        dsr.AvgPool2d(3, 2, 1),
        dsr.MaxPool2d(2),
        dsr.Upsample(2),
        dsr.Flatten(),
        dsr.GlobalAvgPool2d(),
        dsr.Concat(dsr.Identity(), dsr.MaxPool2d(1), dsr.Identity()),
        dsr.SpikeResidual(dsr.Identity()),
    ):
        found, expected = (
            layer.forward(signal, Run()) if not isinstance(layer, dsr.SpikeResidual) or signal is train else None
            for signal in (train, plain)
        )
        values = 2 * train.values() if expected is None else expected.values()
        np.testing.assert_allclose(found.values(), values, rtol=1e-6, err_msg=layer.kind())
        sums = sum(part.values() for part in dsr.nn.currents.trains_of(found))
        if dsr.nn.currents.trains_of(found):
            np.testing.assert_allclose(sums, values, rtol=1e-6, err_msg=layer.kind())
    assert isinstance(dsr.Flatten().forward(train, Run()), SpikeTrain)
    assert dsr.Concat(dsr.Identity(), dsr.Identity()).forward(train, Run()).planes == 3


def test_dropout_takes_all_spikes_of_a_step_or_none(rng):
    train, numbers = graded(rng, 4, 30, CHANNELS, 2, 2)
    layer = dsr.Dropout(0.5)
    layer.initialise(rng)
    dropped = layer.forward(train, Run(training=True)).dense()
    kept = dropped != 0
    np.testing.assert_array_equal(dropped[kept], (2 * train.dense())[kept])
    assert 0.4 < kept.sum() / np.count_nonzero(numbers) < 0.6


def test_operations_are_counted_for_each_spike(rng):
    """Five outputs: five additions for each spike."""
    body = dsr.Sequential(dsr.IF(0.5, levels=3), dsr.Conv2d(4, 5, 1), dsr.IF(1.0, levels=3))
    network, images = dsr.Network(body, 3), rng.normal(1, 1, (6, 4, 2, 2)).astype(np.float32)
    report = inspect.measure(network, images)
    spikes = functional.if_forward(np.stack([images] * 3), 0.5, levels=3).sum() / 0.5
    found = {(row.path, row.source): row for row in report.operations if row.kind == "connections"}
    assert found["1", "spikes"].accumulates == pytest.approx(5 * spikes / 6)
    layer = report.layers[0]
    assert layer.firing_rate == pytest.approx(spikes / (6 * 16 * 3))
    assert len(layer.spike_counts) == 3 * 3 + 1 and sum(layer.spike_counts) == 6 * 16
    assert layer.saturated == layer.spike_counts[-1] / (6 * 16) > 0
    rows = {row.path: row for row in summary(network, (4, 2, 2), images)}
    assert rows["0"].kind == "IF, 3 levels"
    assert rows["0"].firing_rate == pytest.approx(layer.firing_rate)


@pytest.mark.parametrize("kind", MAKE)
def test_training_saves_and_loads(kind, rng, tmp_path):
    network, images = network_of(MAKE[kind]), rng.normal(size=(12, 2, 4, 4))
    labels = np.arange(12) % 3
    optimizer, losses = dsr.SGD(network.parameters(), 0.1), []
    for _ in range(20):
        loss, grad = dsr.cross_entropy(network.forward(images, training=True), labels)
        network.backward(grad)
        optimizer.step()
        losses.append(loss)
    assert losses[-1] < 0.8 * losses[0]
    dsr.save(network, tmp_path / "network.safetensors")
    np.testing.assert_array_equal(
        dsr.load(tmp_path / "network.safetensors").network.forward(images), network.forward(images)
    )


def test_a_recipe_has_levels():
    made = recipe.load("digits", ["levels=3"])
    assert make_neuron(made.neuron, made.to_dict()).levels == 3
    with pytest.raises(ValueError, match=r"recipe: key 'levels': expected an integer in \[1, 255\], got 256"):
        recipe.load("digits", ["levels=256"])
    assert make_neuron("lif", {"levels": 2}).levels == 2


def test_wrong_levels():
    for wrong in (0, 256, -1):
        for call in (lambda: dsr.IF(1.0, levels=wrong), lambda: functional.lif_forward([1.0], 1, 1, 1, levels=wrong)):  # noqa: B023
            with pytest.raises(ValueError, match=r"argument 'levels': expected an integer (>= 1|in \[1, 255\]), got"):
                call()
    with pytest.raises(TypeError, match=r"IF: argument 'levels': expected an integer >= 1, got 1\.5"):
        dsr.IF(1.0, levels=1.5)
    with pytest.raises(
        ValueError, match=r"if_forward: argument 'levels': expected levels \* v_threshold up to 2\*\*126"
    ):
        functional.if_forward([1.0], 2.0**125, levels=3)
    train, _ = graded(np.random.default_rng(0), 2, 1, 3, 2, 2)
    with pytest.raises(ValueError, match=r'expected neurons of one level for connect="and", got graded spikes'):
        dsr.SpikeResidual(dsr.Identity(), "and").forward(train, Run())


def test_a_trained_relu_network_becomes_a_graded_one():
    """The mapping ends where the activation does: levels times the threshold."""
    for neuron in (dsr.IF(1.0, levels=3), dsr.LIF(0.1, tau=1.0, delta_t=0.1, levels=4)):
        neuron.v_threshold.value[...] = neuron.threshold_for(6.0)
        assert neuron.effective_model().top == pytest.approx(6.0)
        rate, rises = neuron.mapping(np.array([5.99, 6.01]))
        assert rises.tolist() == [True, False]
        assert rate[1] == pytest.approx(neuron.levels)


def test_pictures_of_graded_spikes(rng, tmp_path):
    pytest.importorskip("matplotlib")
    from dsr.inspect import plots
    from dsr.train.plots import raster

    network, images = network_of(MAKE["six"]), rng.normal(size=(3, 2, 4, 4)).astype(np.float32)
    network.forward(images, training=True)
    plots.firing(inspect.measure(network, images), tmp_path / "firing.png")
    raster(network, images[:1], tmp_path / "raster.png")
    assert (tmp_path / "firing.png").stat().st_size > 1000 < (tmp_path / "raster.png").stat().st_size


def test_nir_has_no_graded_spikes():
    pytest.importorskip("nir")
    from dsr.nir import to_nir

    network = dsr.Network(dsr.Sequential(dsr.Linear(3, 2), dsr.IF(1.0, levels=3)), 4)
    with pytest.raises(
        ValueError, match="layer '1': NIR has no neurons that emit several spikes at a step, got levels = 3"
    ):
        to_nir(network, (3,))


@pytest.mark.parametrize("kind", MAKE)
def test_sessions_have_the_bits_of_the_network(kind, rng, monkeypatch):
    """Whole and in pieces, on images and on frames, and of samples that begin at times of their own."""
    monkeypatch.setattr(ops, "best_table_bits", lambda *_: 1)  # as in a session that has measured nothing
    network, images = network_of(MAKE[kind]), rng.normal(size=(3, 2, 4, 4)).astype(np.float32)
    seen = {}
    expected = network.forward(images, observer=lambda path, _, output: seen.update({path: output}))
    assert all(seen[path].numbers().max() > 1 for path in ("neuron1", "neuron2", "neuron3", "neuron4"))
    session = dsr.compile(network, features=(2, 4, 4))
    np.testing.assert_array_equal(session(images), expected)
    frames = rng.normal(size=(5, 3, 2, 4, 4)).astype(np.float32)
    whole, stream = session(frames), session.start(3)
    np.testing.assert_allclose(whole, network.forward(frames), rtol=1e-5, atol=1e-6)
    for piece in np.split(frames, [1, 3]):
        last = stream.steps(piece)
    np.testing.assert_array_equal(last, whole)
    stream.reset()
    stream.steps(frames[:2])
    stream.reset(1)
    np.testing.assert_array_equal(stream.steps(frames[:3])[1], session.start(3).steps(frames[:3])[1])
    session.measure(images)
    np.testing.assert_allclose(session(images), expected, rtol=1e-5, atol=1e-6)


def test_sessions_of_all_other_steps(rng, monkeypatch):
    """Maximum pooling, which reads values; graded spikes as terms of a sum, of a mean, repeated, and as the output."""
    monkeypatch.setattr(ops, "best_table_bits", lambda *_: 1)
    body = dsr.Sequential(
        dsr.Conv2d(2, CHANNELS, 3, padding=1),
        dsr.IF(HEIGHTS / 2, levels=3),
        dsr.Residual(dsr.Sequential(dsr.AvgPool2d(3, 1, padding=1), dsr.IF(0.1, levels=6))),
        dsr.IF(0.3, levels=5),
        dsr.MaxPool2d(2),
        dsr.IF(HEIGHTS, levels=2),
        dsr.Upsample(2),
        dsr.Concat(dsr.Identity(), dsr.AvgPool2d(3, 1, padding=1)),
        dsr.Conv2d(2 * CHANNELS, 3, 1),
        dsr.LIF(0.02, delta_t=0.2, levels=3),
    )
    network = dsr.Network(body, 4, seed=1)
    images = rng.normal(size=(2, 2, 4, 4)).astype(np.float32)
    session, expected = dsr.compile(network, features=(2, 4, 4)), network.forward(images)
    np.testing.assert_allclose(session(images), expected, rtol=1e-5, atol=1e-6)
    stream = session.start(2)
    for _ in range(4):
        last = stream.step(images)
    np.testing.assert_array_equal(last, session(images))
    assert last.max() > 0.1  # a spike is worth 0.1


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("kind", MAKE)
def test_a_program_has_the_levels(kind, folded, rng):
    network, images = network_of(MAKE[kind]), rng.normal(size=(2, 2, 4, 4)).astype(np.float32)
    program = lower(network, (2, 4, 4), folded=folded)
    levels = network.body.layers["neuron1"].levels
    found = {step.path: step.levels for step in program.steps if step.amplitude is not None}
    assert {"neuron1", "both", "flatten", "neuron6"} <= set(found) and set(found.values()) == {levels}
    interpreted = program_interpreter.run(program, images)
    np.testing.assert_allclose(interpreted.rates, network.forward(images), atol=1e-4)


def test_what_has_no_graded_spikes_names_the_layer(tmp_path, rng):
    """Integers, C, libdsr, NIR, and the gates of SpikeResidual: nothing is computed as if a step had one spike."""
    body = dsr.Sequential(fc=dsr.Linear(3, 2), one=dsr.IF(0.5), out=dsr.Linear(2, 2), many=dsr.IF(1.0, levels=3))
    network, data = dsr.Network(body, 4), rng.normal(size=(4, 3)).astype(np.float32)
    program = lower(network, (3,))
    wanted = "layer 'many': expected neurons with at most one spike at a step, got levels = 3; {} has no graded spikes"
    with pytest.raises(ValueError, match="quantize: " + wanted.format("an integer network")):
        dsr.quantize(network, data)
    with pytest.raises(ValueError, match="export_c: " + wanted.format("the C library")):
        export_c(program, tmp_path / "c")
    with pytest.raises(ValueError, match="save_model: " + wanted.format("libdsr")):
        save_model(program, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="layer 'many': NIR has no neurons that emit several spikes at a step"):
        fold("check", network, (3,))
    gated = dsr.SpikeResidual(dsr.Sequential(dsr.Conv2d(1, 1, 1), dsr.IF(0.5)), connect="iand")
    network = dsr.Network(dsr.Sequential(dsr.IF(0.5, levels=2), block=gated), 2, inputs="NCHW")
    with pytest.raises(ValueError, match='SpikeResidual block: expected neurons of one level for connect="iand"'):
        lower(network, (1, 2, 2))
