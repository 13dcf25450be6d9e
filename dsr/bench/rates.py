"""Firing rates for benchmarks: untrained networks whose neurons fire as often as those of trained ones do."""

from __future__ import annotations

from collections.abc import Callable

from dsr.nn.currents import Signal, as_current
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.nn.neurons import Neuron
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain
from dsr.ops import Values
from dsr.ops.arguments import as_number
from dsr.train.statistics import estimate_statistics


def mean_rate(network: Network, images: Values, training: bool = False) -> float:
    """Mean over the layers of neurons of their firing rates."""
    rates: list[float] = []

    def observe(path: str, layer: Layer, output: Signal) -> None:
        if isinstance(layer, Neuron) and isinstance(output, SpikeTrain):
            rates.append(output.firing_rate())

    network.forward(images, training=training, observer=observe)
    return sum(rates) / len(rates)


def set_rates(network: Network, images: Values, rate: float, training: bool = False) -> None:
    """Set the threshold of each layer of neurons so that it fires at this rate, in one pass from below.

    Parameters
    ----------
    network : Network
        Its thresholds, and their lower bounds, are changed.
    images : ndarray of float32
        Samples.
    rate : float
        Spikes per neuron and time step, in (0, 1).
    training : bool
        Normalise by the statistics of the batch; else by running statistics, which become those of these images first.

    Raises
    ------
    ValueError
        `rate` is not in (0, 1).
    """
    rate = as_number("set_rates", "rate", rate, lambda value: 0 < value < 1, "a number in (0, 1)")
    neurons = [neuron for _, neuron in network.neurons()]

    def first_set(neuron: Neuron) -> Callable[[Signal, Run], Signal]:
        def forward(signal: Signal, run: Run) -> Signal:
            _set_rate(neuron, signal, rate)
            return type(neuron).forward(neuron, signal, run)

        return forward

    if not training:
        estimate_statistics(network, [images])
    try:
        for neuron in neurons:
            vars(neuron)["forward"] = first_set(neuron)
        network.forward(images, training=training)
    finally:
        for neuron in neurons:
            vars(neuron).pop("forward", None)


def _set_rate(neuron: Neuron, signal: Signal, rate: float) -> None:
    """Bisect the threshold, on a logarithmic scale."""
    current = as_current(signal)
    current.values()  # once for all trials
    neuron.v_threshold_lower_bound = 2.0**-100

    def fires(exponent: float) -> float:
        neuron.v_threshold.value[...] = 2.0**exponent
        train = type(neuron).forward(neuron, current, Run())
        assert isinstance(train, SpikeTrain)
        return train.firing_rate()

    low, high = -20.0, 20.0  # thresholds of a millionth to a million
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if fires(middle) > rate else (low, middle)
    neuron.v_threshold.value[...] = 2.0**low
