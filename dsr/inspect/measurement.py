"""What a trained network does: activity and errors of its spiking layers, operations, and errors against T and alpha.

>>> report = inspect.measure(network, images, labels)
>>> print(report.text())
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

from numpy.typing import ArrayLike

from dsr.inspect.activity import Tally
from dsr.inspect.energy import Cost, OperationCounter
from dsr.inspect.report import CurvePoint, NeuronLayer, Report
from dsr.nn.currents import Signal
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.nn.neurons import Neuron
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain
from dsr.ops.arguments import as_array, as_class_numbers

__all__ = ["CurvePoint", "NeuronLayer", "Report", "error_curves", "measure"]

See = Callable[[Layer, Signal, Signal], None]


def measure(
    network: Network,
    images: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    batch_size: int = 32,
    cost: Cost | None = None,
) -> Report:
    """Run samples through a network and report what its layers do.

    Parameters
    ----------
    network : Network
        It is not changed. Of one without spiking layers, such as a ReLU twin, operations and accuracy are reported.
    images : array_like, shape (N, C, H, W), (N, F), (T, N, C, H, W) or (T, N, F)
        Samples, as for `Network.forward`; a memory map is read batch by batch.
    labels : array_like of int, shape (N,), optional
        Classes, for the accuracy.
    batch_size : int
        Samples in memory at a time.
    cost : Cost, optional
        Energy of an operation.

    Raises
    ------
    TypeError, ValueError
        There are no samples, or they do not fit the network or the labels.
    """
    data = _Data("measure", network, images, labels, batch_size)
    tallies = _tallies(network, network.timesteps)
    counter = OperationCounter()
    correct = data.run(_watched(network, tallies, counter.see))
    return Report(
        network.timesteps,
        data.samples,
        correct,
        tuple(tally.result(data.samples) for tally in tallies.values()),
        counter.operations(data.samples),
        cost or Cost(),
    )


def error_curves(
    network: Network,
    images: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    timesteps: Sequence[int] | None = None,
    alphas: Sequence[float | None] = (None,),
    batch_size: int = 32,
) -> tuple[CurvePoint, ...]:
    """Representation errors, and accuracy, of the whole network at other T and alpha than it was trained with.

    Nothing else changes, so each layer gets the currents that the layers below give it in that run.

    Parameters
    ----------
    network : Network
        With spiking layers; it is not changed.
    images, labels
        As for `measure`.
    timesteps : sequence of int, optional
        By default 1, 2, 5, 10, 20 and the network's own T. Samples with a time axis can only be run with their T.
    alphas : sequence of float in [2**-20, 1] or None
        For all layers; None stands for each layer's own.
    batch_size : int
        Samples in memory at a time at the network's own T; fewer where T is larger.

    Returns
    -------
    tuple of CurvePoint
        For each alpha all T, in ascending order.

    Raises
    ------
    TypeError, ValueError
        As `measure`; or T or alpha are out of range, or the network has no spiking layers.
    """
    data = _Data("error_curves", network, images, labels, batch_size)
    if not any(network.neurons()):
        raise ValueError("error_curves: argument 'network': expected one with spiking layers, got none")
    own = network.timesteps
    chosen = {1, 2, 5, 10, 20, own} if timesteps is None else set(timesteps)
    if data.axis == 1:
        if timesteps is not None and chosen != {own}:
            raise ValueError(
                "error_curves: argument 'timesteps': expected none, or the T of samples with a time axis, "
                f"{own}, got {list(timesteps)}"
            )
        chosen = {own}
    for t in chosen:
        if isinstance(t, bool) or not isinstance(t, int) or t < 1:
            raise ValueError(f"error_curves: argument 'timesteps': expected integers >= 1, got {t!r}")
    for alpha in alphas:
        if alpha is not None and not 2.0**-20 <= alpha <= 1:
            raise ValueError(f"error_curves: argument 'alphas': expected numbers in [2**-20, 1], got {alpha!r}")
    points = []
    for alpha in alphas:
        for t in sorted(chosen):
            tallies = _tallies(network, t)
            other = _watched(network, tallies)
            other.timesteps = t
            for _, neuron in other.neurons():
                neuron.alpha = neuron.alpha if alpha is None else alpha
            accuracy = data.run(other, max(1, batch_size * own // max(own, t)))
            errors = {path: tally.result(data.samples).error for path, tally in tallies.items()}
            points.append(CurvePoint(t, alpha, errors, accuracy))
    return tuple(points)


class _Data:
    """Samples in batches, whose axis is 0, or 1 where time comes first."""

    def __init__(
        self, function: str, network: Network, images: ArrayLike, labels: ArrayLike | None, batch_size: int
    ) -> None:
        self.images = as_array(function, "images", images)
        self.axis = network.batch_axis(self.images, function, "images")
        self.samples, self.batch_size = self.images.shape[self.axis], batch_size
        if self.images.size == 0:
            raise ValueError(
                f"{function}: argument 'images': expected at least one sample, got shape {self.images.shape}"
            )
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"{function}: argument 'batch_size': expected an integer >= 1, got {batch_size!r}")
        self.labels = None if labels is None else as_class_numbers(function, "labels", labels, self.samples)
        self.function = function

    def run(self, network: Network, batch_size: int | None = None) -> float | None:
        """Give all samples to a network; the share classified correctly, if there are labels."""
        correct = 0
        for part in self._slices(batch_size or self.batch_size):
            batch = self.images[:, part] if self.axis else self.images[part]
            # with an observer, containers call their layers one by one
            rates = network.forward(batch, observer=lambda *_: None)
            if self.labels is not None:
                labels = self.labels[part]
                as_class_numbers(self.function, "labels", labels, len(labels), rates.shape[1])
                correct += int((rates.argmax(axis=1) == labels).sum())
        return None if self.labels is None else correct / self.samples

    def _slices(self, size: int) -> Iterator[slice]:
        for start in range(0, self.samples, size):
            yield slice(start, start + size)


def _tallies(network: Network, timesteps: int) -> dict[str, Tally]:
    return {path: Tally(neuron, timesteps) for path, neuron in network.neurons()}


def _watched(network: Network, tallies: dict[str, Tally], *others: See) -> Network:
    """A copy with the same parameter arrays, of which each layer shows its input and output.

    An observer sees outputs only, and which layer reads them is known to the container alone.
    """

    def see(layer: Layer, signal: Signal, output: Signal) -> None:
        if isinstance(layer, Neuron) and isinstance(output, SpikeTrain):
            tallies[layer.path].add(layer, signal, output)
        for other in others:
            other(layer, signal, output)

    def shown(layer: Layer) -> Callable[[Signal, Run], Signal]:
        forward = layer.forward

        def forward_and_show(signal: Signal, run: Run) -> Signal:
            output = forward(signal, run)
            see(layer, signal, output)
            return output

        return forward_and_show

    shared = {
        id(array): array
        for _, layer in network.body.walk()
        for array in (*layer.parameters().values(), *layer.buffers().values())
    }
    twin = copy.copy(network)
    twin.body = copy.deepcopy(network.body, shared)
    for _, layer in twin.body.walk():
        vars(layer)["forward"] = shown(layer)
    return twin
