"""Statistics of batch normalisation estimated anew, for another number of steps than a network was trained with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy

import numpy as np

from dsr.data import Samples
from dsr.nn.network import Network
from dsr.nn.norm import BatchNorm
from dsr.ops import Values

SAMPLES = 5000
"""Training samples on which a run estimates them."""


def estimate_statistics(network: Network, batches: Iterable[Values]) -> None:
    """Give batch normalisation the mean statistics of some batches, at the network's present `timesteps`.

    Spikes of few steps vary more than those of many, so running statistics of one T mislead a network that runs with
    another. Weights stay as they are.

    Parameters
    ----------
    network : Network
        Its running means and variances are changed.
    batches : iterable of array_like
        Training samples, as for `Network.forward`, in batches of the size of the training; the statistics of all have
        the same weight.

    Raises
    ------
    ValueError
        There is no batch.
    """
    passing = deepcopy(network)  # streams of dropout go on as they were, and nothing is kept for a backward pass
    norms, count = _norms(passing), 0
    for count, images in enumerate(batches, 1):
        for norm in norms:
            norm.momentum = 1 / count  # of the first batch nothing before it stays
        passing.forward(images, training=True)
    if count == 0:
        raise ValueError("estimate_statistics: argument 'batches': expected at least one, got none")
    for norm, found in zip(_norms(network), norms, strict=True):
        for name, buffer in norm.buffers().items():
            buffer[...] = found.buffers()[name]


def _norms(network: Network) -> list[BatchNorm]:
    return [layer for _, layer in network.body.walk() if isinstance(layer, BatchNorm)]


def sample_batches(training: Samples, batch_size: int, seed: int) -> Iterator[Values]:
    """`SAMPLES` drawn training samples, as they are, in batches of this size, but for what is left in the end."""
    drawn = np.random.default_rng([seed, 4]).permutation(len(training))[:SAMPLES]
    size = min(batch_size, len(drawn))
    parts = [drawn[start : start + size] for start in range(0, len(drawn) - size + 1, size)]
    return training.batches((part, None) for part in parts)
