"""Training steps, and how good a network is: the parts of `dsr.train.Trainer` that other loops can use too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data import Samples
from dsr.data.samples import in_order
from dsr.data.targets import as_targets
from dsr.nn.currents import Signal
from dsr.nn.layer import Layer
from dsr.nn.losses import cross_entropy
from dsr.nn.network import Network
from dsr.ops import Values
from dsr.ops.arguments import as_array, as_count, as_number
from dsr.optim.optimizers import Optimizer
from dsr.train.distributed import ALONE, Group
from dsr.train.inference import Forward, inference
from dsr.train.metrics import ACCURACY, Loss, Metric
from dsr.train.parts import Parts
from dsr.train.views import Views, mean_output


def compute_gradients(
    network: Network,
    images: Values,
    targets: NDArray[Any],
    loss: Loss = cross_entropy,
    metric: Metric = ACCURACY,
    share: float = 1.0,
) -> tuple[float, float]:
    """Forward and backward pass of one batch.

    Parameters
    ----------
    network : Network
        Whose gradients.
    images : ndarray of float32, shape (B, ...) or (T, B, ...)
        The batch.
    targets : ndarray, shape (B, ...)
        What `loss` compares the outputs with.
    loss : callable
        ``loss(rates, targets)`` gives the mean over the batch, and its gradient with respect to the rates.
    metric : Metric
        What is measured of the outputs.
    share : float
        Factor of the gradients: the share of these samples in a batch of several ranks.

    Returns
    -------
    loss : float
    measured : float
        Sum of the metric over the samples, such as the number of those classified correctly.

    Raises
    ------
    TypeError, ValueError
        What the loss gives is not a number and a gradient of the shape of the rates.
    FloatingPointError
        The loss is not finite; the message names the first layer whose output is not.
    """
    rates = network.forward(images, training=True)
    value, grad = _checked_loss(loss, rates, targets)
    if not np.isfinite(value):
        raise FloatingPointError(f"the loss is {value}; {first_not_finite(network, images)}")
    network.backward(grad if share == 1 else np.float32(share) * grad)
    return value, metric.total(rates, targets)


def _checked_loss(loss: Loss, rates: Values, targets: NDArray[Any]) -> tuple[float, NDArray[Any]]:
    given: Any = loss(rates, targets)
    if not isinstance(given, tuple) or len(given) != 2:
        raise TypeError(f"compute_gradients: expected the loss to give (value, gradient), got {type(given).__name__}")
    value = as_number("compute_gradients", "loss", given[0], lambda number: True, "a number as its value")
    grad = as_array("compute_gradients", "gradient of the loss", given[1])
    if grad.shape != rates.shape:
        raise ValueError(
            f"compute_gradients: expected the loss to give a gradient of shape {rates.shape}, got {grad.shape}"
        )
    return value, grad


def train_step(
    network: Network,
    optimizer: Optimizer,
    images: Values,
    labels: NDArray[Any],
    label_smoothing: float = 0.0,
    accumulate: int = 1,
) -> tuple[float, int]:
    """`compute_gradients` with cross-entropy, and one step of the optimiser: loss, and how many samples were right.

    With `accumulate` the batch is computed in so many parts, see `dsr.train.parts`: a step needs the memory of one of
    them, and batch normalisation takes the statistics of each.

    After a step that raises (MemoryError, FloatingPointError, KeyboardInterrupt), parameters, running statistics,
    dropout's stream and the optimiser's state are those from before. Only gradients may have changed.

    Raises
    ------
    ValueError
        `accumulate` is not an integer >= 1, or there are fewer than two samples for each part.
    """
    accumulate = as_count("train_step", "accumulate", accumulate)
    count = len(labels)
    if accumulate > 1 and count < 2 * accumulate:
        raise ValueError(
            f"train_step: argument 'accumulate': expected at least 2 samples for each of {accumulate} parts, got a "
            f"batch of {count}"
        )
    before = [(array, array.copy()) for array in changed_by_passes(network)]
    smoothed = partial(cross_entropy, label_smoothing=label_smoothing)
    try:
        parts = Parts(network, accumulate)
        losses, correct = 0.0, 0
        for number, samples in enumerate(parts.split(np.arange(count))):
            parts.begin(number)
            part, targets, share = images, labels, 1.0
            if accumulate > 1:
                axis = network.batch_axis(np.asarray(images), "train_step", "images")
                part, targets, share = np.take(images, samples, axis), labels[samples], len(samples) / count
            loss, right = compute_gradients(network, part, targets, smoothed, share=share)
            parts.add(optimizer.parameters, share, (loss,))
            losses, correct = losses + share * loss, correct + int(right)
        parts.combine(ALONE, optimizer.parameters)
        optimizer.step()
    except BaseException:
        for array, kept in before:
            array[...] = kept
        raise
    return losses, correct


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
    """Share of samples classified correctly, in [0, 1]: `measure` with the metric of classification."""
    return measure(network, samples, ACCURACY, batch_size, views, group, stop, "accuracy")


def measure(
    network: Network,
    samples: Samples,
    metric: Metric,
    batch_size: int = 256,
    views: Views = "one",
    group: Group = ALONE,
    stop: Callable[[], object] = bool,
    function: str = "measure",
    compiled: bool = False,
) -> float:
    """The mean of a metric over samples: `measure_all` of one."""
    return measure_all(network, samples, (metric,), batch_size, views, group, stop, function, compiled)[0]


def measure_all(
    network: Network,
    samples: Samples,
    metrics: Sequence[Metric],
    batch_size: int = 256,
    views: Views = "one",
    group: Group = ALONE,
    stop: Callable[[], object] = bool,
    function: str = "measure_all",
    compiled: bool = False,
) -> list[float]:
    """The means of some metrics over samples, in one pass; `views` as in `dsr.train.views.mean_output`.

    The ranks of `group` share the batches. Once ``stop()`` is true no more are begun, and the result means nothing.
    With `compiled` the network is compiled for the first batch, see `dsr.train.inference.inference`.

    Raises
    ------
    TypeError, ValueError
        There are no samples, or their labels are not as their task wants them (one class number for each), or not of
        the network's classes; or `batch_size` is not an integer >= 1. Errors begin with `function`.
    FloatingPointError
        Weights or outputs are not finite, so that there is no largest output; the message names the first array or
        layer.
    """
    if len(samples) == 0:
        raise ValueError(f"{function}: argument 'samples': expected at least one, got none")
    batch_size = as_count(function, "batch_size", batch_size)
    targets = as_targets(function, "samples.labels", samples.labels, len(samples), samples.task)
    if words := not_finite(network):
        raise FloatingPointError(f"{function}: {words}")
    totals = np.zeros(len(metrics))
    forward: Forward | None = None if compiled else network
    for batch, images in in_order(samples, batch_size, group.rank, group.size):
        forward = forward or inference(network, images, measured=True)
        outputs = mean_output(forward, images, views)
        if not np.isfinite(outputs).all():
            raise FloatingPointError(
                f"{function}: the network's output is not finite; {first_not_finite(network, images)}"
            )
        as_targets(function, "samples.labels", targets[batch], len(batch), samples.task, outputs.shape[1])
        totals += [metric.total(outputs, targets[batch]) for metric in metrics]
        if stop():
            break
    return [float(total) / len(samples) for total in group.total(totals)]


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
