"""Calibration: layers that are set by training samples rather than trained see some of them before the first step."""

from __future__ import annotations

import numpy as np

from dsr.data import Samples
from dsr.nn.layer import Layer
from dsr.nn.network import Network

SAMPLES, BATCH = 5000, 50
"""Training samples that are shown, and how many of them are in memory at a time."""


def calibrate(network: Network, training: Samples, seed: int) -> None:
    """Calibrate the layers of a network that want it; without such layers no sample is asked for.

    Parameters
    ----------
    network : Network
        It is changed.
    training : Samples
        Of which `SAMPLES` are drawn: the first ones may all be of one class.
    seed : int
        Decides which.
    """
    layers = [layer for _, layer in network.body.walk() if type(layer).calibrate is not Layer.calibrate]
    if not layers:
        return
    drawn = np.random.default_rng([seed, 4]).permutation(len(training))[:SAMPLES]
    parts = [drawn[start : start + BATCH] for start in range(0, len(drawn), BATCH)]
    for layer in layers:
        layer.calibrate(training.batches((part, None) for part in parts))
