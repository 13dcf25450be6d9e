"""Exponential moving average of the weights of a network."""

from __future__ import annotations

import numpy as np

from dsr.nn.network import Network


class WeightAverage:
    """A second network whose weights follow those of the first.

    ``average += (1 - decay) (value - average)`` for all float parameters and buffers, from their start values on.

    Parameters
    ----------
    network, average : Network
        The one that is trained, and one built alike, which becomes the average.
    decay : float
        Share of the old average that stays at each step, in [0, 1).
    """

    def __init__(self, network: Network, average: Network, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"WeightAverage: argument 'decay': expected a number in [0, 1), got {decay}")
        self.decay, self.network, self.average = decay, network, average
        average.load_state(network.state())
        # so that `update` asks for no memory, and cannot fail between a step and its average
        self._room = np.empty(max(array.size for _, array in network.arrays()), np.float32)

    def update(self) -> None:
        """Take in the values after a step."""
        pairs = zip(self.network.arrays(), self.average.arrays(), strict=True)
        for (_, value), (_, average) in pairs:
            if value.dtype == np.float32:
                change = np.subtract(value, average, out=self._room[: value.size].reshape(value.shape))
                change *= np.float32(1 - self.decay)
                average += change
            else:
                average[...] = value
