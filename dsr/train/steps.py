"""Training steps and the accuracy of a network: the parts of `dsr.train.Trainer` that other loops can use too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data import Samples
from dsr.nn.currents import Signal
from dsr.nn.layer import Layer
from dsr.nn.losses import cross_entropy
from dsr.nn.network import Network
from dsr.ops import Values
from dsr.ops.arguments import as_class_numbers, as_count
from dsr.optim.optimizers import Optimizer
from dsr.train.distributed import ALONE, Group
from dsr.train.views import Views, mean_output


def compute_gradients(
    network: Network, images: Values, labels: NDArray[Any], label_smoothing: float = 0.0, share: float = 1.0
) -> tuple[float, int]:
    """Forward and backward pass of one batch: loss, and the number of samples classified correctly.

    Gradients are multiplied by `share`, the share of these samples in a batch of several ranks.

    Raises
    ------
    FloatingPointError
        The loss is not finite; the message names the first layer whose output is not.
    """
    rates = network.forward(images, training=True)
    loss, grad = cross_entropy(rates, labels, label_smoothing)
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}; {first_not_finite(network, images)}")
    network.backward(grad if share == 1 else np.float32(share) * grad)
    return loss, int((rates.argmax(axis=1) == labels).sum())


def train_step(
    network: Network, optimizer: Optimizer, images: Values, labels: NDArray[Any], label_smoothing: float = 0.0
) -> tuple[float, int]:
    """`compute_gradients`, and one step of the optimiser.

    After a step that raises (MemoryError, FloatingPointError, KeyboardInterrupt), parameters, running statistics,
    dropout's stream and the optimiser's state are those from before. Only gradients may have changed.
    """
    before = [(array, array.copy()) for array in changed_by_passes(network)]
    try:
        loss, correct = compute_gradients(network, images, labels, label_smoothing)
        optimizer.step()
    except BaseException:
        for array, kept in before:
            array[...] = kept
        raise
    return loss, correct


def changed_by_passes(network: Network) -> Iterator[NDArray[Any]]:
    """Arrays that a forward pass in training changes: buffers, and thresholds, which it clamps."""
    for _, layer in network.body.walk():
        yield from layer.buffers().values()
    for _, neuron in network.neurons():
        yield neuron.v_threshold.value


def accuracy(
    network: Network,
    samples: Samples,
    batch_size: int = 256,
    views: Views = "one",
    group: Group = ALONE,
    stop: Callable[[], object] = bool,
) -> float:
    """Share of samples classified correctly, in [0, 1]; `views` as in `dsr.train.views.mean_output`.

    The ranks of `group` share the batches. Once `stop()` is true no more are begun, and the result means nothing.

    Raises
    ------
    TypeError, ValueError
        There are no samples, or their labels are not one class number for each, or not of the network's classes; or
        `batch_size` is not an integer >= 1.
    FloatingPointError
        Weights or outputs are not finite, so that there is no largest output; the message names the first array or
        layer.
    """
    if len(samples) == 0:
        raise ValueError("accuracy: argument 'samples': expected at least one, got none")
    batch_size = as_count("accuracy", "batch_size", batch_size)
    labels = as_class_numbers("accuracy", "samples.labels", samples.labels, len(samples))
    if words := not_finite(network):
        raise FloatingPointError(f"accuracy: {words}")
    numbers = np.arange(len(samples))
    plan = [numbers[i : i + batch_size] for i in range(0, len(numbers), batch_size)][group.rank :: group.size]
    right = 0
    for batch, images in zip(plan, samples.batches((n, None) for n in plan), strict=True):
        outputs = mean_output(network, images, views)
        if not np.isfinite(outputs).all():
            raise FloatingPointError(
                f"accuracy: the network's output is not finite; {first_not_finite(network, images)}"
            )
        as_class_numbers("accuracy", "samples.labels", labels[batch], len(batch), outputs.shape[1])
        right += int((outputs.argmax(axis=1) == labels[batch]).sum())
        if stop():
            break
    return int(group.total(np.array([right], np.float64))[0]) / len(samples)


def not_finite(network: Network) -> str:
    """A phrase that names the first weight, threshold or running statistic that is not finite; empty if all are."""
    for name, array in network.arrays():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"{array.size - int(np.isfinite(array).sum())} of {array.size} numbers of {name} are not finite"
    return ""


def first_not_finite(network: Network, images: Values) -> str:
    """A phrase that names the first layer whose output is not finite."""
    found: list[str] = []

    def observe(path: str, layer: Layer, output: Signal) -> None:
        if not found and not layer.children() and not np.isfinite(output.rate()).all():
            found.append(path)

    network.forward(images, observer=observe)
    return f"layer {found[0]} is the first whose output is not finite" if found else "all layers are finite"
