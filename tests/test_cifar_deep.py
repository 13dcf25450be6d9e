"""The network of hours, and the recipes that train it: what it is made of, and that they start and learn."""

from __future__ import annotations

import numpy as np
import pytest
from checks import normal

import dsr
from dsr import inspect, models, train
from dsr.data import ArraySamples, DataSet
from dsr.inspect.summary import summary
from dsr.train import recipe


def test_layers_and_sizes():
    """Ten convolutions; the first pools nothing, each group halves the side, and has 1, 3 and 4 times the width."""
    network = dsr.Network(models.cifar_deep(lambda: dsr.IF(1.0), (3, 32, 32), 10, width=8), 2)
    rows = summary(network, (3, 32, 32))
    shapes = [row.shape for row in rows if "Conv2d" in row.kind]
    assert shapes == [(4, 31, 31)] + [(8, 15, 15)] * 3 + [(24, 7, 7)] * 3 + [(32, 3, 3)] * 3
    # of the whitened image: 12 channels, weights 3x3
    weights = [4 * 12, *[8 * 4, 8 * 8, 8 * 8], *[24 * 8, 24 * 24, 24 * 24], *[32 * 24, 32 * 32, 32 * 32]]
    assert sum(row.parameters for row in rows if "Conv2d" in row.kind) == 9 * sum(weights)
    assert rows[-2].parameters == 32 * 10
    plan = inspect.plan(network, normal((2, 3, 32, 32)))
    sums = {row.path: row.forward for row in plan.rows if row.path.endswith("sum.neuron")}
    assert sums == {f"group{i}.sum.neuron": ("fused with the convolution and the shortcut",) for i in (1, 2, 3)}
    with pytest.raises(ValueError, match=r"cifar_deep: argument 'features': expected \(C, H, W\), 32x32 pixels, got"):
        models.cifar_deep(lambda: dsr.IF(1.0), (3, 28, 28), 10)


def bright_quarters(count=40):
    """Which quarter of a noisy picture is bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 4
    images = rng.normal(size=(count, 3, 32, 32)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[:, 16 * (label // 2) :, 16 * (label % 2) :][:, :16, :16] += 2
    samples = ArraySamples(images, labels)
    return DataSet("quarters", ("a", "b", "c", "d"), (3, 32, 32), samples, samples)


GRADED = ["levels=3", "timesteps=2"]


@pytest.mark.parametrize(
    ("name", "changes"),
    [("cifar10-medium", []), ("cifar10-medium", GRADED), ("cifar10-best", []), ("cifar100-best", [])],
)
def test_its_recipes_start_and_learn(name, changes, tmp_path):
    """As they are but for their size."""
    small = ["width=4", "batch_size=10", "epochs=4", "warmup_steps=4", "flip=false", "alternate_flip=false"]
    trainer = train.Trainer(recipe.load(name, [*small, *changes]), bright_quarters(), tmp_path / "run", str)
    assert type(trainer.network.body.layers["stem"].layers["conv"]).__name__ == "WhitenedConv2d"
    last = trainer.fit()
    assert last["loss"] < 0.85 * trainer.metrics[0]["loss"]
    assert last["test_accuracy"] > 0.6
