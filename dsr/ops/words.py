"""Spikes as bits: packed, unpacked, counted, dropped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dsr import _core
from dsr.ops.arguments import as_count
from dsr.ops.layout import (
    PerChannel,
    Values,
    Words,
    by_channel,
    for_channels,
    new_array,
    require_array,
    require_writable,
    word_count,
)


def pack_words(values: Values) -> Words:
    """A bit where the value is not zero. EXACT."""
    require_array("pack_words", values=values)
    words = np.empty((word_count(len(values)), *values.shape[1:]), np.uint32)
    _core.pack_words(by_channel(values), by_channel(words))
    return words


def transpose_words(words: Words) -> Words:
    """The same bits with 32 lanes a word, (H W, ceil(T B / 32), 32 ceil(C / 32)); bits beyond are zero. EXACT."""
    require_array("transpose_words", 5, words=words)
    groups, height, width, timesteps, batch = words.shape
    transposed = np.empty((height * width, word_count(timesteps * batch), 32 * groups), np.uint32)
    _core.transpose_words(words.reshape(groups, height * width, timesteps * batch), transposed)
    return transposed


def count_steps(words: Words, most: int = 1) -> Words:
    """Numbers added up over the steps, in binary. EXACT.

    Parameters
    ----------
    words : ndarray of uint32, shape (J, ceil(C / 32), H, W, T, B)
        Plane j holds bit j of the numbers at each step: one plane of spikes, or those of `pool_planes`.
    most : int
        The largest of these numbers, whose binary digits are the planes: 1 for spikes.

    Returns
    -------
    ndarray of uint32, shape (ceil(C / 32), H, W, K, B)
        A train whose step k holds bit k of the sums, K being the number of binary digits of ``T * most``.
    """
    require_array("count_steps", 6, words=words)
    largest = as_count("count_steps", "most", most)
    planes, groups, height, width, timesteps, batch = words.shape
    digits, places = (timesteps * largest).bit_length(), groups * height * width
    sums = new_array("count_steps", "words", (groups, height, width, digits, batch), np.uint32)
    _core.count_steps(words.reshape(planes, places, timesteps, batch), largest, sums.reshape(places, digits, batch))
    return sums


def unpack_words(words: Words, channels: int, amplitude: PerChannel = 1.0) -> Values:
    """`amplitude`, of all channels or of each, where the bit is set, else 0. EXACT."""
    require_array("unpack_words", words=words)
    count = as_count("unpack_words", "channels", channels, 0)
    values = new_array("unpack_words", "channels", (count, *words.shape[1:]))
    heights = for_channels("unpack_words", "amplitude", amplitude, count)
    _core.unpack_words(by_channel(words), heights, by_channel(values))
    return values


def add_words(words: Words, values: Values, amplitude: PerChannel) -> Values:
    """``values += unpack_words(words, len(values), amplitude)`` in place; returns `values`. EXACT."""
    require_array("add_words", words=words, values=values)
    require_writable("add_words", "values", values, (len(values), *words.shape[1:]))
    heights = for_channels("add_words", "amplitude", amplitude, len(values))
    _core.add_words(by_channel(words), heights, by_channel(values))
    return values


def sum_words(words: Words, channels: int, weights: Values, amplitude: PerChannel = 1.0) -> Values:
    """The weighted sum over the steps of spikes, (C, H, W, B), without their values at each step. EXACT.

    Parameters
    ----------
    words : ndarray of uint32, shape (ceil(C / 32), H, W, T, B)
        Spikes, or the digits that `count_steps` gives.
    channels : int
        C.
    weights : ndarray of float32, shape (T,)
        Of the steps; their sum is multiplied by the amplitude.
    amplitude : float or ndarray, shape (C,)
        What a spike is worth, on all channels or on each.
    """
    require_array("sum_words", 5, words=words)
    require_array("sum_words", 1, weights=weights)
    groups, height, width, timesteps, batch = words.shape
    count = as_count("sum_words", "channels", channels, 0)
    sums = new_array("sum_words", "channels", (count, height, width, batch))
    heights = for_channels("sum_words", "amplitude", amplitude, count)
    places = height * width
    _core.sum_words(
        words.reshape(groups, places, timesteps, batch), weights, heights, sums.reshape(count, places, batch)
    )
    return sums


def concat_words(trains: Sequence[Words], channels: Sequence[int]) -> Words:
    """Words of so many channels each, one behind the other along the channels. EXACT."""
    counts = [as_count("concat_words", "channels", count, 0) for count in channels]
    for words in trains:
        require_array("concat_words", trains=words)
    found = [(words.dtype, words.shape) for words in trains]
    wanted = [(np.dtype(np.uint32), (word_count(count), *trains[0].shape[1:])) for count in counts] if trains else []
    if found != wanted or not trains:
        given = ", ".join(f"{dtype} {shape}" for dtype, shape in found) or "none"
        shapes = ", ".join(str(shape) for _, shape in wanted) or "at least one train"
        raise ValueError(f"concat_words: argument 'trains': expected uint32 words of shapes {shapes}, got {given}")
    joined = np.zeros((word_count(sum(counts)), *trains[0].shape[1:]), np.uint32)
    first = 0
    for words, count in zip(trains, counts, strict=True):
        at, bit = divmod(first, 32)
        joined[at : at + len(words)] |= words << np.uint32(bit)
        if bit:
            beyond = joined[at + 1 : at + 1 + len(words)]
            beyond |= words[: len(beyond)] >> np.uint32(32 - bit)
        first += count
    return joined


def count_words(words: Words, channels: int) -> NDArray[np.int64]:
    """Spikes of each channel, shape (C,). EXACT."""
    require_array("count_words", words=words)
    counts = np.empty(as_count("count_words", "channels", channels, 0), np.int64)
    _core.count_words(by_channel(words), counts)
    return counts


def count_bits(words: Words) -> int:
    """Number of spikes. EXACT."""
    require_array("count_bits", words=words)
    return int(_core.count_bits(words.reshape(-1)))


def dropout_words(words: Words, keep: float, seed: int) -> Words:
    """Each bit is kept with probability `keep`, independently; the mask depends on seed and position only. EXACT."""
    require_array("dropout_words", words=words)
    kept = np.empty(words.shape, np.uint32)
    _core.dropout_words(words.reshape(-1), keep, seed, kept.reshape(-1))
    return kept
