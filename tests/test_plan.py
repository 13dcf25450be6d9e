"""Which path each layer takes, and which operations a pass calls: a fast path that is switched off fails here."""

from __future__ import annotations

import json

import numpy as np
import pytest
from plan_table import KINDS, NAMES, PLANS, counted, network_of, pinned

import dsr
from dsr import inspect

TABLE = json.loads(PLANS.read_text(encoding="utf-8"))


def test_every_model_is_pinned():
    assert list(TABLE) == [f"{name}, {kind}" for name in NAMES for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_plans_are_as_pinned(name, kind):
    """After a change that is meant to change them: `python tests/plan_table.py`, and look at the difference."""
    assert pinned(name, kind) == TABLE[f"{name}, {kind}"]


def test_the_plan_says_what_was_done():
    """Fused neurons are those that call the fused operation, and so on: the words are not written beside the deed."""
    for name in ("preact_resnet18", "cifar_fast", "spike_element_wise"):
        network, data = network_of(name, "if", 0)
        with counted() as calls:
            rows = inspect.plan(network, data).rows
        neurons = [choice for row in rows for choice in row.forward if row.kind == "IF"]
        assert calls["conv2d_neuron_spikes"] == sum(choice.startswith("fused") for choice in neurons) > 0
        assert calls["neuron_spikes"] == sum(choice.startswith("from") for choice in neurons) > 0


def test_one_network_layer_by_layer():
    network, data = network_of("spike_element_wise", "if", 1 << 40)
    plan = inspect.plan(network, data)
    assert {row.path: row.forward for row in plan.rows if row.forward} == {
        "conv1": ("dense values, once for all steps",),
        "neuron1": ("from computed values",),
        "block.body.conv": ("spikes",),
        "block.body.neuron": ("fused with the convolution",),
        "conv2": ("spikes, 2 trains",),
        "neuron2": ("from convolved spikes + convolved spikes",),
        "linear": ("spikes",),
    }
    assert plan.kept == plan.dropped == ()
    assert "block.body.neuron  IF: fused with the convolution\n" in plan.text()
    training = inspect.plan(network, data, training=True)
    assert {row.path: row.backward for row in training.rows if row.backward} == {
        "linear": ("weight gradient on spikes, by their counts", "input gradient without time"),
        "neuron2": ("gradient from sums",),
        "conv2": ("weight gradient on spikes, by their counts", "input gradient, constant"),
        "block.body.neuron": ("gradient from sums",),
        "block.body.conv": ("weight gradient on spikes, gradient of every step", "input gradient without time"),
        "neuron1": ("gradient from sums",),
        "conv1": ("weight gradient on dense values",),
    }
    assert training.kept == ("neuron1", "block.body.neuron")  # without normalisation the backward pass reads sums alone


def test_keep_bytes_keeps_what_fits():
    """The largest current goes first: 2 x 8 x 32 x 32 x 2 floats are 128 KiB, those of a current of one step 64 KiB."""
    network, data = network_of("spike_element_wise", "if", 0)
    both = ("neuron1", "block.body.neuron")
    for keep_bytes, kept in {0: (), 60_000: (), 70_000: ("neuron1",), 200_000: both}.items():
        network.keep_bytes = keep_bytes
        assert inspect.plan(network, data, training=True).kept == kept


def test_planning_changes_nothing():
    network, data = network_of("shortcuts_of_all_kinds", "if", 0)
    before, output = network.state(), network.forward(data)
    inspect.plan(network, data, training=True)
    for name, array in network.state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    np.testing.assert_array_equal(network.forward(data), output)


@pytest.mark.parametrize("kind", ["if", "lif"])
def test_spikes_added_to_spikes_are_the_sum_of_their_values(kind):
    """Layer by layer by hand, with dense values."""
    network, data = network_of("spike_element_wise", kind, 0)
    seen = {}
    network.forward(data, observer=lambda path, layer, output: seen.update({path: output}))
    total = seen["neuron1"].values() + seen["block.body.neuron"].values()
    np.testing.assert_array_equal(seen["block"].values(), total)
    conv = network.body.layers["conv2"]
    flat = total.reshape(*total.shape[:3], -1)
    expected = dsr.ops.conv2d(flat, conv.weight.value, conv.bias.value, conv.geometry).reshape(8, 15, 15, 2, 2)
    np.testing.assert_allclose(seen["conv2"].values(), expected, atol=1e-5)
