"""`dsr bench step`: what it refuses, and that the twin in PyTorch takes the same step."""

from __future__ import annotations

import importlib.util
import json
import time

import numpy as np
import pytest

import dsr
from dsr.__main__ import main
from dsr.bench import beside_torch, in_turn
from dsr.train import build_network
from dsr.train.recipe import Recipe


def network_of(neuron, model="preact_resnet18", **options):
    heights = (
        {"v_threshold": 0.3, "v_threshold_lower_bound": 0.001, "delta_t": 0.5}
        if neuron == "lif"
        else {"v_threshold": 1.0}
    )
    recipe = Recipe(data="none", model=model, width=4, neuron=neuron, timesteps=3, **heights, **options)
    return build_network(recipe, (3, 32, 32), 10)


@pytest.mark.parametrize("neuron", ["if", "lif"])
def test_the_twin_takes_the_same_step(neuron):
    """Loss and all gradients, thresholds included; spikes are the same but where rounding decides."""
    pytest.importorskip("torch")
    network = network_of(neuron)
    images = np.random.default_rng(0).normal(size=(6, 3, 32, 32)).astype(np.float32)
    labels = np.arange(6)
    twin = beside_torch.Step(network)
    theirs = twin.gradients(images, labels)
    loss, grad = dsr.cross_entropy(network.forward(images, training=True), labels)
    network.backward(grad)
    assert theirs == pytest.approx(loss, rel=1e-4)
    ours = dict(network.parameters())
    assert ours.keys() == twin.parameters.keys()
    total = np.sqrt(sum(float((p.grad.astype(np.float64) ** 2).sum()) for p in ours.values()))
    apart = np.sqrt(
        sum(float(((twin.parameters[n].grad.numpy() - p.grad.astype(np.float64)) ** 2).sum()) for n, p in ours.items())
    )
    assert total > 0.1
    assert apart < 0.02 * total
    twin(images, labels)
    dsr.SGD(network.parameters(), 0.05, 0.9, 5e-4).step()
    for name, parameter in ours.items():
        moved = twin.parameters[name].detach().numpy()
        np.testing.assert_allclose(moved, parameter.value, atol=0.05 * 0.05 * total, err_msg=name)


def test_layers_that_the_twin_lacks():
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"layers that its PyTorch twin has.*got WhitenedConv2d 4x4 at"):
        beside_torch.Step(network_of("if", "cifar_fast"))


def test_without_torch_it_says_what_to_install(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(beside_torch, "find_spec", lambda name: None if name == "torch" else found(name))
    assert main(["bench", "step", "--beside", "torch"]) == 1
    assert "bench: --beside torch: expected PyTorch, which is not installed; pip install" in capsys.readouterr().err


def test_options_that_do_not_go_together_are_refused(capsys):
    assert main(["bench", "step", "--norm-variance", "sampled"]) == 1
    assert "key 'norm_variance': expected 'steps' with norm_gradient = \"exact\"" in capsys.readouterr().err
    assert main(["bench", "step", "--model", "mini"]) == 1
    assert "key 'model': expected one of " in capsys.readouterr().err


def test_a_measurement_says_what_was_measured(capsys):
    words = ["bench", "step", "--model", "digits", "--timesteps", "4", "--batch", "3", "--repeats", "1"]
    assert main([*words, "--norm-gradient", "rate", "--norm-variance", "sampled", "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["norm_gradient"], found["norm_variance"], found["timesteps"]) == ("rate", "sampled", 4)
    assert found["train_seconds"] > 0 and found["peak_memory_mb"] > 10
    assert main(words) == 0
    assert "batch normalisation exact, steps; medians" in capsys.readouterr().out


def test_calls_are_made_in_turn():
    """Of each turn the second call counts; the first one finds the caches of another."""
    made = []

    def first():
        time.sleep(0 if made.count("a") % 2 else 0.2)
        made.append("a")

    found = in_turn([first, lambda: made.append("b")], 2)
    assert "".join(made) == "aabb" * 2 and len(found) == 2 and found[0] < 0.1
