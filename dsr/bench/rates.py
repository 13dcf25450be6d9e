"""Firing rates for benchmarks: untrained networks whose neurons fire as often as those of trained ones do."""

from __future__ import annotations

import numpy as np

from dsr.nn.network import Network, spike_rates
from dsr.nn.norm import BatchNorm
from dsr.ops import Values


def set_rate(network: Network, data: Values, rate: float, rounds: int = 10) -> float:
    """Set the thresholds so that neurons fire at about `rate`, spikes per neuron and step, in each layer.

    Normalisations get the statistics of `data`. Layers change each other, so it is done in rounds.

    Returns
    -------
    float
        The mean rate of the layers that was reached.
    """
    norms = [layer for _, layer in network.body.walk() if isinstance(layer, BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    for _ in range(rounds):
        if norms:
            network.forward(data, training=True)
        found = spike_rates(network, data)
        for path, neuron in network.neurons():
            factor = ((found[path] + rate / 20) / (rate * 1.05)) ** 0.7
            neuron.v_threshold.value *= np.float32(np.clip(factor, 0.2, 5))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return float(np.mean(list(spike_rates(network, data).values())))
