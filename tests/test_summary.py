"""The summary table: sizes by hand, synaptic operations by counting connections one by one."""

from __future__ import annotations

import numpy as np
import pytest
from checks import normal

import dsr
from dsr import reference
from dsr.inspect.summary import summary, table
from dsr.nn.containers import Residual, Sequential
from dsr.nn.convolution import Conv2d, Linear
from dsr.nn.dropout import Dropout
from dsr.nn.flatten import Flatten
from dsr.nn.neurons import IF, LIF
from dsr.nn.norm import BatchNorm
from dsr.nn.pooling import AvgPool2d
from dsr.nn.relu import ReLU
from dsr.train.build import build_network
from dsr.train.recipe import Recipe


def digits(**changes):
    return build_network(Recipe(data="digits", model="digits", width=16, v_threshold=1.0, **changes), (1, 8, 8), 10)


def test_sizes_of_the_digits_network():
    rows = {row.path: row for row in summary(digits(), (1, 8, 8))}
    expected = {
        "conv1": ("Conv2d 3x3", (16, 8, 8), 16 * 9, 16 * 9 * 64),
        "bn1": ("BatchNorm", (16, 8, 8), 32, 0),
        "neuron1": ("IF", (16, 8, 8), 1, 0),
        "conv2": ("Conv2d 3x3, stride 2", (32, 4, 4), 32 * 16 * 9, 32 * 16 * 9 * 16),
        "bn2": ("BatchNorm", (32, 4, 4), 64, 0),
        "neuron2": ("IF", (32, 4, 4), 1, 0),
        "pool": ("AvgPool2d 2x2", (32, 2, 2), 0, 0),
        "flatten": ("Flatten", (128,), 0, 0),
        "linear": ("Linear", (10,), 1290, 1280),
        "bn3": ("BatchNorm", (10,), 20, 0),
        "neuron3": ("IF", (10,), 1, 0),
    }
    assert {path: (row.kind, row.shape, row.parameters, row.macs) for path, row in rows.items()} == expected
    assert [row.neurons for row in rows.values() if row.neurons] == [1024, 512, 10]
    assert all(row.firing_rate is row.synaptic_operations is None for row in rows.values())


def test_macs_of_resnet18_are_those_of_the_literature():
    """1.81 G multiply-adds at 224x224, as torchvision documents them for its ResNet-18; here the same convolutions."""
    network = build_network(Recipe(data="none", model="resnet18"), (3, 224, 224), 1000)
    rows = summary(network, (3, 224, 224))
    assert sum(row.macs for row in rows) == 1_814_073_344
    assert sum(row.parameters for row in rows) == 11_691_660


def branching(timesteps=4):
    """Everything a spike can go through: strides, borders, pooling, shortcuts of both kinds, flattening."""
    return dsr.Network(
        Sequential(
            stem=Sequential(conv=Conv2d(2, 40, 3, padding=1), bn=BatchNorm(40), neuron=IF(0.5)),
            drop=Dropout(0.3),
            same=Residual(Sequential(conv=Conv2d(40, 40, 3, padding=1))),
            bn=BatchNorm(40),
            neuron=LIF(0.3),
            other=Residual(Sequential(conv=Conv2d(40, 6, 3, 2, 1), bn=BatchNorm(6)), Conv2d(40, 6, 1, 2)),
            neuron2=IF(0.5),
            pool=AvgPool2d(3, 2, 1),
            conv=Conv2d(6, 5, 2),
            bn2=BatchNorm(5),
            neuron3=IF(0.3),
            neuron4=IF(0.2),  # takes spikes as they are: no weights, no synaptic operations
            flatten=Flatten(),
            linear=Linear(20, 3),
        ),
        timesteps,
        seed=1,
    )


def test_synaptic_operations_are_the_connections_that_spikes_go_through():
    """A convolution of the spikes with weights of 1 counts them, each output the spikes that reach it."""
    network, data = branching(), normal((3, 2, 9, 9), 2)
    spikes = {}

    def observe(path, layer, output):
        if isinstance(layer, IF | LIF):
            dense = output.values() != 0
            spikes[path] = dense.reshape(*dense.shape[:3], -1).astype(np.float64)

    network.forward(data, observer=observe)
    assert all(0.02 < train.mean() < 0.98 for train in spikes.values())
    pooled = 9 * reference.avg_pool(spikes["neuron2"], 3, 2, 1)

    def connections(train, out, kernel, stride=1, padding=0):
        ones = np.ones((out, len(train), kernel, kernel))
        return reference.conv2d(train, ones, None, dsr.ops.Geometry.of("test", kernel, stride, padding)).sum() / 3

    expected = {
        "same.body.conv": connections(spikes["stem.neuron"], 40, 3, 1, 1),
        "other.body.conv": connections(spikes["neuron"], 6, 3, 2, 1),
        "other.shortcut": connections(spikes["neuron"], 6, 1, 2),
        "conv": connections(pooled, 5, 2),
        "linear": 3 * spikes["neuron4"].sum() / 3,
    }
    before = network.state()
    rows = {row.path: row for row in summary(network, (2, 9, 9), data)}
    given = {path: row.synaptic_operations for path, row in rows.items() if row.synaptic_operations is not None}
    assert given.keys() == expected.keys()
    for path, count in expected.items():
        assert given[path] == pytest.approx(count, rel=1e-9), path
    rates = {path: row.firing_rate for path, row in rows.items() if row.firing_rate is not None}
    assert rates == pytest.approx({path: train.mean() for path, train in spikes.items()})
    for name, array in network.state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_frames_with_time():
    network, frames = branching(), normal((4, 3, 2, 9, 9), 2)
    rates = dsr.spike_rates(network, frames)
    assert {r.path: r.firing_rate for r in summary(network, (2, 9, 9), frames) if r.neurons} == pytest.approx(rates)


def test_table_adds_up_and_is_aligned():
    rows = summary(digits(timesteps=6), (1, 8, 8), normal((4, 1, 8, 8)))
    lines = table(rows).split("\n")
    head, rule, body, total = lines[0], lines[1], lines[2:13], lines[14]
    assert set(rule) == {"-"} and lines[13] == rule
    assert head.split() == ["layer", "kind", "output", "parameters", "MACs", "firing", "rate", "synaptic", "operations"]
    assert all(len(line) <= len(rule) for line in [head, *body, total])
    ends = head.index("MACs") + 4
    for row, line in zip(rows, body, strict=True):
        assert line.startswith(row.path)
        assert line[:ends].endswith(f"{row.macs:,}" if row.macs else " ") or len(line) < ends
    operations = sum(row.synaptic_operations or 0 for row in rows)
    rate = sum((row.firing_rate or 0) * row.neurons for row in rows) / 1546
    assert total.split() == ["total", "1,546", "neurons", "6,161", "84,224", f"{rate:.4f}", f"{operations:,.0f}"]
    assert lines[-1] == "no spikes, but dense values, go into conv1"


@pytest.mark.parametrize("data", [None, np.zeros((2, 1, 8, 8))])
def test_networks_without_spikes(data):
    rows = summary(digits(neuron="relu", timesteps=1), (1, 8, 8), data)
    assert {row.kind for row in rows if row.path.startswith("neuron")} == {ReLU.__name__}
    text = table(rows)
    assert "firing rate" not in text and "neurons" not in text.split("\n")[-2]


def test_a_single_layer():
    (row,) = summary(dsr.Network(Linear(4, 3), 2), (4,))
    assert (row.path, row.parameters, row.macs) == ("", 15, 12)


@pytest.mark.parametrize(
    ("features", "data", "words"),
    [
        (
            (1, 2, 8, 8),
            None,
            r"summary: argument 'features': expected \(N,\), \(C, L\) or \(C, H, W\), got \(1, 2, 8, 8\)",
        ),
        ((8, 8), None, r"Conv2d conv1: expected features \(1, H, W\), got \(8, 8\)"),
        ((2, 8, 8), None, r"Conv2d conv1: expected features \(1, H, W\)"),
        ((1, 8, 8), np.zeros((0, 1, 8, 8)), "expected at least one sample"),
        ((1, 8, 8), np.zeros((2, 2, 8, 8)), r"Conv2d conv1: expected features \(1, H, W\)"),
    ],
)
def test_mistakes_are_named(features, data, words):
    with pytest.raises(ValueError, match=words):
        summary(digits(), features, data)
