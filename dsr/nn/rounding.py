"""Weights rounded to a few bits, with a scale for each output channel: for integer networks, and training for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.ops import PerChannel, Values

DATA_BITS = 8
"""Of weights that read the data, whatever the others have: they are few, and rounding them costs most accuracy."""
LARGEST_SUM = 127
"""The largest sum of four weights: an integer network stores it as a weight, in 8 bits."""
SUMS = range(LARGEST_SUM - 4, LARGEST_SUM - 13, -1)
"""Scales of a kernel that is a sum of shifts: the integer that its largest sum is scaled to.

Rounding the four weights of a sum then changes it by at most 2. Rounded sums are at most the first of these numbers,
so that they still fit 8 bits where another unit rounds a weight the other way. The last two are tried only for weights
that are rounded already, so that each of those finds the scale it was rounded with.
"""
CLIPS = np.linspace(1, 0.3, 15)
"""Where weights are cut off, as fractions of the largest of their channel."""


def largest_weight(bits: int) -> int:
    """The largest integer of so many bits, one of which is the sign."""
    return int(2 ** (bits - 1) - 1)


def shifts_sum(weight: NDArray[Any]) -> NDArray[Any]:
    """The sum of the four shifts of a kernel (O, C, K, L) by no or one pixel along each axis, (O, C, K + 1, L + 1)."""
    *channels, height, width = weight.shape
    total = np.zeros((*channels, height + 1, width + 1), weight.dtype)
    for y, x in np.ndindex(2, 2):
        total[..., y : y + height, x : x + width] += weight
    return total


def summand(weight: NDArray[Any]) -> NDArray[np.float64] | None:
    """The kernel whose `shifts_sum` this one is, but for the last bits of floats; None where there is none.

    Kernels of `dsr.nn.fast_layers.PooledConv2d` are such sums, and so are average poolings over windows of 2x2 pixels.
    """
    *channels, height, width = weight.shape
    if min(height, width) < 2 or not weight.size:
        return None
    weight = weight.astype(np.float64)
    found = np.zeros((*channels, height - 1, width - 1))
    for y, x in np.ndindex(height - 1, width - 1):
        above, left = found[..., y - 1, x] if y else 0, found[..., y, x - 1] if x else 0
        found[..., y, x] = weight[..., y, x] - above - left - (found[..., y - 1, x - 1] if y and x else 0)
    return found if np.abs(shifts_sum(found) - weight).max() <= 1e-5 * np.abs(weight).max() else None


def integers_of(weight: NDArray[np.floating[Any]], unit: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """The weights (O, ...) as integers of `bits` bits, given what 1 is worth in each output channel, (O,).

    A kernel that is a sum of shifts, see `summand`, stays one: its summand has `bits` bits, and the sums have 8.
    """
    most, by_channel = largest_weight(bits), np.where(unit > 0, unit, 1.0).reshape(-1, *[1] * (weight.ndim - 1))
    part = summand(weight) if weight.ndim == 4 else None
    if part is None:
        return np.clip(np.rint(weight / by_channel), -most, most)
    sums = shifts_sum(np.clip(np.rint(part / by_channel), -most, most))
    return np.clip(sums, -LARGEST_SUM, LARGEST_SUM)


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
    part = summand(weight) if weight.ndim == 4 else None
    flat = (weight if part is None else part).reshape(len(weight), -1).astype(np.float64)
    most, largest, power = largest_weight(bits), np.abs(flat).max(axis=1, initial=0), (flat**2).sum(axis=1)
    scales = [largest * clip / most for clip in CLIPS]
    if part is not None:
        sums = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        scales += [sums / count for count in SUMS]
    best, least = scales[0], np.full(len(flat), np.inf)
    for number, scale in enumerate(scales):
        worth = np.where(largest > 0, scale, 1.0)[:, np.newaxis]
        integers = np.clip(np.rint(flat / worth), -most, most)
        error = ((integers * worth - flat) ** 2).sum(axis=1)
        better = (error < least) & (largest > 0)
        if part is not None:
            reached = np.abs(shifts_sum(integers.reshape(part.shape))).reshape(len(weight), -1).max(axis=1)
            is_new = number < len(scales) - 2
            better &= (reached <= SUMS[0]) & (is_new | (error < 1e-9 * power))
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
    worth = np.ones(1)
    if isinstance(unit, np.ndarray):
        inner = weight.shape[1]
        groups = unit.astype(np.float64).reshape(-1, inner)
        worth = groups.repeat(len(weight) // len(groups), axis=0).reshape(-1, inner, *[1] * (weight.ndim - 2))
    product = weight.astype(np.float64) * worth
    scale = weight_scales(product, bits)
    by_channel = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return np.asarray(integers_of(product, scale, bits) * by_channel / worth, np.float32)
