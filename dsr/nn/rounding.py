"""Weights rounded to a few bits, with a scale for each output channel: for integer networks, and training for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.ops import PerChannel, Values

DATA_BITS = 8
"""Of weights that read the data, whatever the others have: they are few, and the first to lose something."""
CLIPS = np.linspace(1, 0.3, 15)
"""Where weights are cut off, as fractions of the largest of their channel."""


def largest_weight(bits: int) -> int:
    """The largest integer of so many bits, one of which is the sign."""
    return int(2 ** (bits - 1) - 1)


def weight_scales(weight: NDArray[np.floating[Any]], bits: int) -> NDArray[np.float64]:
    """What 1 of the rounded weights of each output channel is worth.

    Parameters
    ----------
    weight : ndarray, shape (O, ...)
        Weights.
    bits : int
        2 to 8.

    Returns
    -------
    ndarray of float64, shape (O,)
        The scale of the least squared error, of those that cut off at a fraction `CLIPS` of the largest weight. 0 where
        all weights are.
    """
    most = largest_weight(bits)
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    largest = np.abs(flat).max(axis=1, initial=0)
    best, least = largest / most, np.full(len(flat), np.inf)
    for clip in CLIPS:
        scale = np.where(largest > 0, largest * clip / most, 1.0)
        rounded = np.clip(np.rint(flat / scale[:, np.newaxis]), -most, most) * scale[:, np.newaxis]
        error = ((rounded - flat) ** 2).sum(axis=1)
        better = (error < least) & (largest > 0)
        best, least = np.where(better, scale, best), np.where(better, error, least)
    return best


def rounded(weight: Values, bits: int, unit: PerChannel | None = None) -> Values:
    """The weights as integers of so many bits would have them.

    Parameters
    ----------
    weight : ndarray of float32, shape (O, C / groups, KH, KW)
        Weights.
    bits : int
        2 to 8.
    unit : float or ndarray, shape (C,), optional
        What a spike of each input channel is worth. An integer network counts spikes, so that what it rounds is the
        product of weight and unit.
    """
    most, worth = largest_weight(bits), np.ones(1)
    if isinstance(unit, np.ndarray):
        inner = weight.shape[1]
        groups = unit.astype(np.float64).reshape(-1, inner)
        worth = groups.repeat(len(weight) // len(groups), axis=0).reshape(-1, inner, *[1] * (weight.ndim - 2))
    product = weight.astype(np.float64) * worth
    scale = weight_scales(product, bits)
    by_channel = np.where(scale > 0, scale, 1.0).reshape(-1, *[1] * (weight.ndim - 1))
    return np.asarray(np.clip(np.rint(product / by_channel), -most, most) * by_channel / worth, np.float32)
