"""`dsr.inspect`: numbers by hand, operations by brute force, and that looking changes nothing."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from checks import normal

import dsr
from dsr import functional, inspect
from dsr.__main__ import main
from dsr.inspect import energy, measurement, plots
from dsr.inspect.energy import Cost, OperationCounter
from dsr.inspect.report import Report
from dsr.nn.currents import Current
from dsr.nn.layer import Layer
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, decaying_weights, from_lanes


def network_of(*layers, timesteps=4, inputs=None, **named):
    return dsr.Network(dsr.Sequential(*layers, **named), timesteps, inputs=inputs)


def residual_network(make_neuron, timesteps=5, channels=5):
    """A pre-activation block whose shape changes, one with an identity shortcut, pooling, flattening, read-out."""
    wide = 2 * channels

    def block(cin, cout, stride):
        body = dsr.Sequential(
            conv1=dsr.Conv2d(cin, cout, 3, stride, 1),
            bn2=dsr.BatchNorm(cout),
            neuron2=make_neuron(),
            conv2=dsr.Conv2d(cout, cout, 3, 1, 1),
        )
        shortcut = dsr.Conv2d(cin, cout, 1, stride) if cin != cout else None
        return dsr.Sequential(bn1=dsr.BatchNorm(cin), neuron1=make_neuron(), residual=dsr.Residual(body, shortcut))

    network = network_of(
        conv=dsr.Conv2d(2, channels, 3, 1, 1, bias=False),
        a=block(channels, wide, 2),
        b=block(wide, wide, 1),
        bn=dsr.BatchNorm(wide),
        neuron=make_neuron(),
        pool=dsr.AvgPool2d(2),
        pooled=make_neuron(),
        flatten=dsr.Flatten(),
        linear=dsr.Linear(wide * 4, 3),
        bn3=dsr.BatchNorm(3),
        readout=make_neuron(),
        timesteps=timesteps,
    )
    for seed in range(5):
        network.forward(normal((6, 2, 8, 8), 100 + seed), training=True)  # running statistics that make sense
    return network


def by_path(operations, kind):
    return {o.path: o for o in operations if o.kind == kind}


# ---- spiking layers ------------------------------------------------------------------------------------------------


def test_layer_by_hand():
    # T = 4, V = 1: a constant current of k / 4 gives k spikes, and 0.375 gives 2 instead of 1.5; each column one neuron
    currents = np.float32([[-1.0, 0.25, 0.5, 1.0, 2.0, 0.375], [-0.5, 0.0, 0.75, 1.0, 1.0, 0.25]])
    report = inspect.measure(network_of(neuron=dsr.IF(1.0, 0.5)), currents)
    (layer,) = report.layers
    assert (layer.path, layer.neuron, layer.features) == ("neuron", "IF", (6,))
    assert (layer.v_threshold, layer.alpha, report.timesteps, report.samples) == (1.0, 0.5, 4, 2)
    assert layer.spike_counts == (3, 2, 2, 1, 4)
    assert layer.firing_rate == (2 * 1 + 2 * 2 + 1 * 3 + 4 * 4) / (12 * 4)
    assert layer.dead == 1 / 6
    assert layer.saturated == 4 / 12
    assert layer.in_range == 9 / 12  # not -1, -0.5 and 2; 0 and 1 are, the interval is closed
    assert layer.error == 0.125 / 12
    assert report.accuracy is None


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_currents_that_are_multiples_have_no_error(alpha):
    # whole multiples of V / T, in numbers that floats hold: nothing is left of the potential at the end
    currents = 3.0 * np.arange(9, dtype=np.float32)[None] / 8
    (layer,) = inspect.measure(network_of(dsr.IF(3.0, alpha), timesteps=8), currents).layers
    assert layer.error == 0
    assert layer.spike_counts == (1,) * 9


def test_lif_by_the_formula():
    tau, delta_t, threshold, steps = 1.0, 0.1, 0.6, 7
    currents = normal((steps, 4, 9)) * 3 + 2
    report = inspect.measure(
        network_of(lif=dsr.LIF(threshold, tau, delta_t, 0.4), timesteps=steps, inputs="NC"), currents, batch_size=3
    )
    (layer,) = report.layers
    spikes = functional.lif_forward(currents, threshold, tau, delta_t, 0.4) != 0
    w = np.exp(-(delta_t / tau) * (steps - 1 - np.arange(steps)))
    r = np.tensordot(w, spikes, 1) / w.sum()  # as a fraction of V / dt
    z = np.tensordot(w, currents.astype(np.float64), 1) / w.sum()
    mapped = np.clip(z / tau, 0, threshold / delta_t) * delta_t / threshold
    # float32 means of 7 values up to about 10, times 1 / 6
    assert layer.error == pytest.approx(np.abs(r - mapped).mean(), abs=1e-5)
    assert layer.in_range == ((z > 0) & (z < tau * threshold / delta_t)).mean()
    assert layer.firing_rate == spikes.mean()
    assert layer.spike_counts == tuple(np.bincount(spikes.sum(0).ravel(), minlength=steps + 1))
    assert layer.dead == (~spikes.any((0, 1))).mean()
    assert layer.error > 0.01


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
def test_error_of_rounding(alpha):
    # constant currents spread evenly over 0 to V: what is left of the potential is even over (alpha - 1) V to alpha V
    currents = ((np.arange(6000) + 0.5) / 6000).astype(np.float32)[None]
    points = inspect.error_curves(network_of(n=dsr.IF(1.0, 0.5)), currents, timesteps=(20, 1, 3), alphas=(alpha,))
    assert [(p.timesteps, p.alpha) for p in points] == [(1, alpha), (3, alpha), (20, alpha)]
    for point in points:
        expected = (alpha**2 + (1 - alpha) ** 2) / 2 / point.timesteps
        assert point.errors["n"] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("kind", ["if", "lif"])
def test_residual_network_against_the_observer(kind):
    def make_neuron():
        return dsr.IF(1.0) if kind == "if" else dsr.LIF(0.3, delta_t=0.1, alpha=0.5)

    network = residual_network(make_neuron)
    images, labels = normal((7, 2, 8, 8), 1), np.arange(7) % 3
    seen = {}
    network.forward(images, observer=lambda path, layer, output: seen.update({path: (layer, output)}))
    report = inspect.measure(network, images, labels, batch_size=3)
    assert report.accuracy == (network.predict(images) == labels).mean()
    below = {
        "a.neuron1": "a.bn1",
        "a.residual.body.neuron2": "a.residual.body.bn2",
        "b.neuron1": "b.bn1",
        "b.residual.body.neuron2": "b.residual.body.bn2",
        "neuron": "bn",
        "pooled": "pool",
        "readout": "bn3",
    }
    assert [layer.path for layer in report.layers] == list(below)
    for layer in report.layers:
        neuron, train = seen[layer.path]
        values = seen[below[layer.path]][1].final_values().astype(np.float64)
        current = np.broadcast_to(values, (*values.shape[:3], 5, 7))
        weights = np.ones(5) if kind == "if" else decaying_weights(5, neuron.tau, neuron.delta_t).astype(np.float64)
        z = np.einsum("chwtb,t->chwb", current, weights) / 5
        r = np.einsum("chwtb,t->chwb", train.values() != 0, weights) / 5
        top = 1.0 if kind == "if" else 0.3 / 0.1
        mapped = np.clip(z, 0, top) / top
        assert layer.error == pytest.approx(np.abs(r - mapped).mean(), abs=1e-6)
        assert layer.firing_rate == pytest.approx(train.firing_rate(), abs=1e-12)
    assert all(layer.error > 0 for layer in report.layers)


class Backwards(Layer):
    """A user's container that calls its second layer first."""

    def __init__(self, first, second):
        self.first, self.second = first, second

    def children(self):
        return {"first": self.first, "second": self.second}

    def forward(self, signal, run):
        return self.first(self.second(signal, run), run)

    def count_operations(self, counter, signal, output):
        """None of its own."""


class Same(Layer):
    """A user's layer that gives its input on."""

    def forward(self, signal, run):
        return signal


class Doubled(dsr.Conv2d):
    """A user's convolution that does something else than its base says."""

    def forward(self, signal, run):
        return super().forward(super().forward(signal, run), run)


@pytest.mark.parametrize("layer", [Same(), Doubled(2, 2, 1)])
def test_a_layer_that_does_not_say_what_it_computes_is_refused(layer):
    """Once it was passed over in silence, and the convolution above a pass-through layer counted as dense."""
    network = network_of(first=dsr.IF(1.0), own=layer, conv=dsr.Conv2d(2, 3, 1), last=dsr.IF(1.0))
    name = type(layer).__name__
    with pytest.raises(ValueError, match=f"inspect: layer 'own': {name} does not say what it computes; give it count_"):
        inspect.measure(network, np.ones((2, 2, 3, 3), np.float32))


def test_a_layer_that_gives_its_input_on_changes_no_count():
    class Told(Same):
        def count_operations(self, counter, signal, output):
            counter.pass_on(signal, output)

    data = np.random.default_rng(0).normal(1, 1, (4, 2, 3, 3)).astype(np.float32)
    counts = []
    for between in ({}, {"own": Told()}):
        network = network_of(first=dsr.IF(1.0), **between, conv=dsr.Conv2d(2, 3, 1), last=dsr.IF(1.0))
        counts.append(by_path(inspect.measure(network, data).operations, "connections")["conv"])
    assert counts[0] == counts[1]
    assert counts[0].accumulates > 0 and counts[0].macs == 0


def test_a_container_of_the_users_own():
    network = network_of(box=Backwards(dsr.IF(1.0), dsr.Linear(2, 2, bias=False)), timesteps=4)
    network.body.layers["box"].second.weight.value[...] = np.eye(2, dtype=np.float32)[..., None, None] / 2
    report = inspect.measure(network, np.float32([[0.5, 0.75]]))
    # 0.25 gives 1 spike of 4; 0.375 gives 2, so the error is 0.125; the data itself would give none
    assert report.layers[0].error == 0.125 / 2
    assert by_path(report.operations, "connections")["box.second"].macs == 4


# ---- operations ----------------------------------------------------------------------------------------------------


def brute_force(spikes, pools, kernel, stride, padding):
    """Connections that the spikes (T, B, C, H, W) really have, to one output channel, spike by spike."""
    total = 0
    for *_, row, column in np.argwhere(spikes):
        height, width = spikes.shape[3:]
        places = {(row, column): 1}
        for size, step, pad in [*pools, (kernel, stride, padding)]:
            rows, columns = ((n + 2 * pad - size) // step + 1 for n in (height, width))
            reached = {}
            for out in product(range(rows), range(columns)):
                corner = [step * o - pad for o in out]
                count = sum(
                    times
                    for place, times in places.items()
                    if all(c <= p < c + size for p, c in zip(place, corner, strict=True))
                )
                if count:
                    reached[out] = count
            places, height, width = reached, rows, columns
        total += sum(places.values())
    return total


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (3, 3, 0), (5, 2, 2), (2, 3, 1)]
)
@pytest.mark.parametrize("pools", [[], [(2, 2, 0)], [(3, 2, 1)], [(3, 1, 1), (2, 2, 0)]])
def test_operations_of_spikes_against_brute_force(kernel, stride, padding, pools):
    spikes = np.random.default_rng(3).random((2, 2, 34, 9, 11)) < 0.02
    layers = [dsr.AvgPool2d(*pool) for pool in pools] + [dsr.Conv2d(34, 3, kernel, stride, padding)]
    dsr.Network(dsr.Sequential(*layers), 2)  # gives paths
    counter, signal = OperationCounter(), SpikeTrain.from_dense(spikes, 0.7)
    for layer in layers:
        output = layer.forward(signal, Run())
        counter.see(layer, signal, output)
        signal = output
    (found,) = counter.operations(samples=1)
    expected = 3 * brute_force(spikes, pools, kernel, stride, padding)
    assert (found.accumulates, found.macs, found.source) == (expected, 0, "spikes")
    # the ordinary twin: one pass for each of 2 samples, each tap that lies inside the image
    image = np.ones((1, 1, 1, *pooled_size(9, 11, pools)))
    assert found.ann_macs == 2 * 34 * 3 * brute_force(image, [], kernel, stride, padding)


def pooled_size(height, width, pools):
    for size, stride, padding in pools:
        height, width = ((n + 2 * padding - size) // stride + 1 for n in (height, width))
    return height, width


def test_spikes_of_each_neuron():
    spikes = np.random.default_rng(0).random((3, 4, 37, 5, 2)) < 0.3
    train = SpikeTrain.from_dense(spikes)
    np.testing.assert_array_equal(energy.spikes_of_each(train), spikes.sum((0, 1)))
    vector = SpikeTrain.from_dense(spikes[..., 0, 0])
    np.testing.assert_array_equal(energy.spikes_of_each(vector), spikes[..., 0, 0].sum((0, 1))[:, None, None])


def test_operations_of_a_residual_network():
    network = residual_network(lambda: dsr.IF(1.0), timesteps=3)
    images = normal((4, 2, 8, 8), 1)
    images[:, :, :3] = 0  # pixels of an image are multiplied whatever they are
    trains, currents = {}, {}

    def observe(path, layer, output):
        (trains if isinstance(output, SpikeTrain) else currents)[path] = output

    network.forward(images, observer=observe)
    report = inspect.measure(network, images, batch_size=3)
    spikes = {path: train.dense() != 0 for path, train in trains.items() if path and path != "flatten"}
    found = by_path(report.operations, "connections")
    assert found["conv"].macs == found["conv"].ann_macs == 5 * 2 * 22 * 22  # the image, once and not T times
    assert (found["conv"].accumulates, found["conv"].events, found["conv"].source) == (0, 2 * 64, "values")
    for path, source, out, conv in [
        ("a.residual.body.conv1", "a.neuron1", 10, (3, 2, 1)),
        ("a.residual.shortcut", "a.neuron1", 10, (1, 2, 0)),
        ("a.residual.body.conv2", "a.residual.body.neuron2", 10, (3, 1, 1)),
        ("b.residual.body.conv1", "b.neuron1", 10, (3, 1, 1)),
        ("b.residual.body.conv2", "b.residual.body.neuron2", 10, (3, 1, 1)),
    ]:
        assert found[path].accumulates == out * brute_force(spikes[source], [], *conv) / 4
        assert found[path].events == spikes[source].sum() / 4
        assert found[path].macs == 0
    # the pooled neurons' spikes go through flatten into the linear layer
    assert found["linear"].accumulates == 3 * spikes["pooled"].sum() / 4
    assert found["linear"].ann_macs == 3 * 40
    direct = by_path(report.operations, "direct")
    assert set(direct) == {"b.residual", "pooled"}  # block a has a convolution in its shortcut
    assert direct["b.residual"].accumulates == spikes["b.neuron1"].sum() / 4
    assert direct["b.residual"].ann_accumulates == 10 * 16
    assert direct["pooled"].accumulates == spikes["neuron"].sum() / 4  # windows of 2x2 side by side
    assert direct["pooled"].ann_accumulates == 10 * 16
    updates = by_path(report.operations, "update")
    assert {path: o.accumulates for path, o in updates.items()} == {p: s[0, 0].size * 3 for p, s in spikes.items()}
    assert report.synaptic_operations == sum(o.accumulates for o in [*found.values(), *direct.values()])


def test_pooled_spikes_through_flatten_and_batch_norm():
    network = network_of(
        neuron=dsr.IF(1.0),
        pool=dsr.AvgPool2d(3, 2, 1),
        bn=dsr.BatchNorm(2),
        flatten=dsr.Flatten(),
        linear=dsr.Linear(2 * 4, 5),
        timesteps=2,
    )
    frames = (np.random.default_rng(0).random((2, 3, 2, 4, 4)) < 0.4).astype(np.float32)
    report = inspect.measure(network, frames)
    found = by_path(report.operations, "connections")["linear"]
    # each spike is in 1, 2 or 4 overlapping windows, each of which has 5 connections
    assert found.accumulates == 5 * brute_force(frames, [], 3, 2, 1) / 3
    assert found.accumulates > 5 * frames.sum() / 3
    assert found.macs == 0


def test_shortcut_that_pools():
    network = network_of(
        neuron=dsr.IF(1.0),
        block=dsr.Residual(dsr.Conv2d(2, 2, 2, 2), dsr.AvgPool2d(2)),
        out=dsr.IF(1.0),
        timesteps=2,
    )
    frames = (np.random.default_rng(0).random((2, 3, 2, 4, 4)) < 0.4).astype(np.float32)
    direct = by_path(inspect.measure(network, frames).operations, "direct")
    assert {path: o.accumulates for path, o in direct.items()} == {"block": frames.sum() / 3}
    assert direct["block"].ann_accumulates == 32


def test_frames_of_events_cost_only_where_something_is():
    frames = np.zeros((3, 2, 1, 5, 5), np.float32)
    frames[0, 0, 0, 2, 2], frames[1, 0, 0, 0, 0], frames[2, 1, 0, 4, 2] = 3.0, 1.0, 0.5
    network = network_of(conv=dsr.Conv2d(1, 4, 3, 1, 1), lif=dsr.LIF(), timesteps=3)
    report = inspect.measure(network, frames)
    conv, update = (by_path(report.operations, kind) for kind in ("connections", "update"))
    assert conv["conv"].macs == 4 * (9 + 4 + 6) / 2
    assert conv["conv"].events == 3 / 2
    assert conv["conv"].ann_macs == 4 * 13 * 13
    assert (update["lif"].macs, update["lif"].accumulates) == (3 * 100, 0)  # a leak is a multiplication


def test_energy_with_constants_of_ones_own():
    network = network_of(dsr.Linear(3, 2), dsr.IF(1.0), dsr.Linear(2, 5), dsr.IF(1.0), timesteps=2)
    network.body.layers["0"].weight.value[...] = 1.0
    report = inspect.measure(network, np.ones((1, 3), np.float32), cost=Cost(accumulate=2.0, mac=10.0))
    # 6 MACs; 2 neurons of a current of 3 fire twice, 5 connections each; 7 neurons, 2 steps
    assert report.synaptic_operations == 20
    assert report.energy == pytest.approx((6 * 10 + 20 * 2 + 14 * 2) / 1000)
    assert report.ann_energy == pytest.approx((6 + 10) * 10 / 1000)
    published = replace(report, cost=Cost())
    assert published.energy == pytest.approx((6 * 4.6 + 34 * 0.9) / 1000)
    for bad in ({"mac": -1.0}, {"accumulate": float("nan")}):
        with pytest.raises(ValueError, match=f"Cost: argument '{next(iter(bad))}': expected a number >= 0"):
            Cost(**bad)


# ---- curves --------------------------------------------------------------------------------------------------------


def test_curves_are_those_of_networks_with_that_timesteps_and_alpha():
    network = residual_network(lambda: dsr.IF(1.0))
    images, labels = normal((6, 2, 8, 8), 1), np.arange(6) % 3
    points = inspect.error_curves(network, images, labels, timesteps=(2, 9), alphas=(None, 0.25), batch_size=4)
    assert [(p.timesteps, p.alpha) for p in points] == [(2, None), (9, None), (2, 0.25), (9, 0.25)]
    for point in points:
        other = residual_network(lambda: dsr.IF(1.0), timesteps=point.timesteps)
        other.load_state(network.state())
        for _, neuron in other.neurons():
            neuron.alpha = point.alpha or neuron.alpha
        report = inspect.measure(other, images, labels, batch_size=4)
        assert point.accuracy == report.accuracy
        assert point.errors == pytest.approx({layer.path: layer.error for layer in report.layers}, rel=1e-12)
    assert points[0].errors != points[2].errors
    assert [p.timesteps for p in inspect.error_curves(network, images)] == [1, 2, 5, 10, 20]


def test_curves_of_event_data_have_one_timesteps():
    network = network_of(dsr.IF(1.0), timesteps=3, inputs="NC")
    frames = normal((3, 2, 4))
    points = inspect.error_curves(network, frames, alphas=(0.25, 1.0))
    assert [(p.timesteps, p.alpha) for p in points] == [(3, 0.25), (3, 1.0)]
    assert points[0].errors != points[1].errors
    with pytest.raises(ValueError, match=r"argument 'timesteps': expected none, or .* 3, got \[3, 5\]"):
        inspect.error_curves(network, frames, timesteps=(3, 5))


def test_looking_changes_nothing():
    network = residual_network(lambda: dsr.IF(1.0))
    network.body.layers["neuron"].v_threshold.value[...] = -1.0  # a training pass would clamp it
    images = normal((4, 2, 8, 8), 1)
    before, rates = network.state(), network.forward(images)
    inspect.measure(network, images)
    inspect.error_curves(network, images, timesteps=(1, 7), alphas=(0.3,))
    with pytest.raises(ValueError, match="expected features"):
        inspect.error_curves(network, images[:, :1], timesteps=(7,), alphas=(0.3,))
    assert network.timesteps == 5
    assert all(neuron.alpha == 0.5 for _, neuron in network.neurons())
    assert not any("forward" in vars(layer) for _, layer in network.body.walk())
    after = network.state()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    np.testing.assert_array_equal(network.forward(images), rates)


def test_parameters_are_shared_not_copied():
    # the copy that is watched must not double the memory of a large network
    network = network_of(dsr.Linear(3, 2), dsr.BatchNorm(2), dsr.IF(1.0))
    twin = measurement._watched(network, {})
    assert all(a is b for (_, a), (_, b) in zip(network.arrays(), twin.arrays(), strict=True))


# ---- batches, data, errors -----------------------------------------------------------------------------------------


def test_batches_do_not_matter():
    network, images = residual_network(lambda: dsr.IF(1.0)), normal((7, 2, 8, 8), 1)
    one, many = inspect.measure(network, images, batch_size=100), inspect.measure(network, images, batch_size=2)
    assert one.operations == many.operations
    for a, b in zip(one.layers, many.layers, strict=True):
        assert a.error == pytest.approx(b.error, abs=1e-7)  # convolutions of images are rounded
        assert replace(a, error=0.0) == replace(b, error=0.0)


def test_a_network_without_batch_norm():
    network = network_of(conv=dsr.Conv2d(1, 3, 3), neuron=dsr.IF(2.0), timesteps=5)
    images = normal((2, 1, 6, 6)) * 2
    (layer,) = inspect.measure(network, images).layers
    seen = {}
    network.forward(images, observer=lambda path, _, output: seen.update({path: output}))
    assert isinstance(seen["conv"], Current)
    z = from_lanes(seen["conv"].values(), (3, 4, 4))[0].astype(np.float64)
    r = (seen["neuron"].dense() != 0).mean(0)
    assert layer.error == pytest.approx(np.abs(r - np.clip(z, 0, 2.0) / 2.0).mean(), abs=1e-6)


def test_what_is_refused():
    network = network_of(dsr.IF(1.0), inputs="NC")
    images = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"measure: argument 'images': expected at least one sample, got .*\(0, 3\)"):
        inspect.measure(network, images[:0])
    with pytest.raises(ValueError, match=r"error_curves: .* at least one sample, got shape \(4, 0, 3\)"):
        inspect.error_curves(network, np.ones((4, 0, 3)))
    with pytest.raises(
        ValueError, match=r"argument 'images': expected \(B, N\), or with time \(T, B, N\), got shape \(3,\)"
    ):
        inspect.measure(network, images[0])
    with pytest.raises(ValueError, match=r"argument 'labels': expected 2 integers.* got int64 of shape \(3,\)"):
        inspect.measure(network, images, np.arange(3))
    with pytest.raises(ValueError, match=r"argument 'labels': expected 2 integers.* got float64"):
        inspect.measure(network, images, np.ones(2))
    with pytest.raises(ValueError, match="argument 'batch_size': expected an integer >= 1, got 0"):
        inspect.measure(network, images, batch_size=0)
    with pytest.raises(ValueError, match="argument 'network': expected one with spiking layers, got none"):
        inspect.error_curves(network_of(dsr.Linear(3, 2)), images)
    with pytest.raises(ValueError, match="argument 'timesteps': expected integers >= 1, got 0"):
        inspect.error_curves(network, images, timesteps=(5, 0))
    with pytest.raises(ValueError, match=r"argument 'alphas': expected numbers in .*, got 1\.5"):
        inspect.error_curves(network, images, alphas=(1.5,))
    with pytest.raises(ValueError, match=r"expected T = 4 steps first, got shape \(3, 2, 3\)"):
        inspect.measure(network, np.ones((3, 2, 3)))


# ---- output --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report():
    network, images = residual_network(lambda: dsr.IF(1.0)), normal((5, 2, 8, 8), 1)
    curves = inspect.error_curves(network, images, np.arange(5) % 3, timesteps=(1, 4), alphas=(None, 0.3))
    return replace(inspect.measure(network, images, np.arange(5) % 3), curves=curves)


def test_json_round_trip(report):
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert Report.from_dict(json.loads(text)) == report
    values = json.loads(text)
    assert values["energy"] == report.energy
    assert values["ann_energy"] == report.ann_energy
    assert values["synaptic_operations"] == report.synaptic_operations


def test_text(report):
    text = report.text()
    lines = {line.strip().split("  ")[0]: line for line in text.splitlines()}
    layer = report.layers[1]
    assert f"{100 * layer.error:.2f} %" in lines[layer.path]
    assert f"{layer.firing_rate:.4f}" in lines[layer.path]
    assert f"{report.energy:,.1f}" in lines["all"]
    assert f"{report.ann_energy:,.1f}" in lines["all"]
    assert "b.residual (no weights)" in lines
    assert f"accuracy {100 * report.accuracy:.2f} %" in text
    point = report.curves[-1]
    worst = max(point.errors, key=point.errors.get)  # of 7 layers the worst is shown, of few all
    assert f"{100 * point.errors[worst]:.2f} %  " in lines["4"]
    assert lines["4"].endswith(worst)
    assert "Horowitz" in text
    assert "Horowitz" not in replace(report, cost=Cost(mac=1.0)).text()
    assert max(map(len, text.splitlines())) <= 120


def test_pictures(report, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    paths = plots.pictures(report, tmp_path / "new")
    assert [path.name for path in paths] == ["firing.png", "energy.png", "errors.png"]
    silent = inspect.measure(network_of(dsr.IF(1.0), timesteps=1), np.full((2, 3), -1.0, np.float32))
    few = replace(silent, curves=inspect.error_curves(network_of(dsr.IF(1.0)), np.full((2, 3), -1.0), timesteps=(1,)))
    paths += plots.pictures(silent, tmp_path / "silent")
    paths += plots.pictures(few, tmp_path / "few")  # no error at all on a logarithmic axis, no accuracy
    assert len(paths) == 8
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in paths)


def test_a_relu_network_has_operations_and_no_firing_rates(tmp_path, capsys):
    """The twin that a spiking network is compared with: the same multiply-adds on both sides of the table."""
    run, out = str(tmp_path / "run"), tmp_path / "out"
    small = ["--set", "width=4", "--set", "epochs=1", "--set", "neuron=relu", "--set", "timesteps=1"]
    assert main(["train", "digits", *small, "--out", run]) == 0
    capsys.readouterr()
    assert main(["inspect", run, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "firing rate" not in text
    total = next(line.split() for line in text.splitlines() if line.startswith("all "))
    assert total[1] == "0" and total[2] == total[4] != "0"
    found = json.loads((out / "report.json").read_text())
    assert found["layers"] == found["curves"] == []
    assert not (out / "firing.png").exists()
    assert main(["inspect", run, "--timesteps", "4"]) == 1
    assert "error_curves: argument 'network': expected one with spiking layers, got none" in capsys.readouterr().err


def test_pictures_without_matplotlib(report, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"matplotlib is not installed; pip install dsr\[plot\]"):
        plots.pictures(report, tmp_path)
