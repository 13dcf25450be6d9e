"""What a spiking layer does over many samples: how often its neurons fire, and how far they are from the mapping."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsr import ops
from dsr.inspect.report import NeuronLayer
from dsr.nn.currents import Signal, as_current
from dsr.nn.neurons import Neuron
from dsr.nn.spikes import SpikeTrain, uniform_weights


class Tally:
    """Sums of one spiking layer over batches.

    Parameters
    ----------
    neuron : Neuron
        The layer.
    timesteps : int
        T.
    """

    def __init__(self, neuron: Neuron, timesteps: int) -> None:
        self.neuron = neuron
        self.spike_counts: NDArray[np.int64] = np.zeros(timesteps * neuron.levels + 1, np.int64)
        self.timesteps = timesteps
        self.error, self.in_range = 0.0, 0
        self.features: tuple[int, ...] = ()
        self.fired: NDArray[np.bool_] | None = None

    def add(self, neuron: Neuron, signal: Signal, train: SpikeTrain) -> None:
        """A batch: input and output of the layer, or of a copy of it with another alpha."""
        timesteps, weights = train.timesteps, train.time_weights
        assert weights is not None, "neurons give weights to their trains"
        spikes = train.numbers()
        counts = ops.weighted_sum(spikes, uniform_weights(timesteps))
        rate = ops.weighted_sum(spikes, weights).astype(np.float64) / timesteps
        mapped, in_range = neuron.mapping(as_current(signal).mean(weights).astype(np.float64))
        self.error += float(np.abs(rate - mapped).sum())
        self.in_range += int(np.count_nonzero(in_range))
        self.spike_counts += np.bincount(counts.astype(np.intp).reshape(-1), minlength=len(self.spike_counts))
        fired: NDArray[np.bool_] = np.any(counts, axis=3)
        if self.fired is not None:
            fired |= self.fired
        self.features, self.fired = train.features, fired

    def result(self, samples: int) -> NeuronLayer:
        """What the sums say."""
        assert self.fired is not None
        count = self.fired.size * samples
        return NeuronLayer(
            self.neuron.path,
            type(self.neuron).__name__,
            self.features,
            self.neuron.mean_threshold(),
            self.neuron.alpha,
            firing_rate=int(np.arange(len(self.spike_counts)) @ self.spike_counts) / (count * self.timesteps),
            dead=int(np.count_nonzero(~self.fired)) / self.fired.size,
            saturated=int(self.spike_counts[-1]) / count,
            in_range=self.in_range / count,
            error=self.error / count,
            spike_counts=tuple(self.spike_counts.tolist()),
        )
