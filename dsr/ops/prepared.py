"""Operations whose arguments are bound once, results included: what is called again and again on the same memory.

Each function gives a call without arguments, which does what the function of `dsr.ops` of its name does and writes the
result to `out`. It checks its arrays each time, as every compiled operation does, and allocates nothing that stays.
`join` makes one call of several, whose arrays are checked once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import _core
from dsr.ops.geometry import Geometry
from dsr.ops.layout import PerChannel, Values, Words, by_channel, for_channels, merge_pixels
from dsr.ops.neurons import NeuronModel, one_and_thresholds
from dsr.ops.spike_convolution import SpikeConvolution
from dsr.ops.words import concat_words as concat_words_of

Call = Callable[[], object]
Windows = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Kernel size, stride and padding."""


class Bound(partial[object]):
    """A function of `_core` and its arguments."""


def join(calls: Sequence[Call]) -> list[Call]:
    """The same in fewer calls: those of compiled operations that follow each other are checked now, and become one.

    Their arrays must keep their memory. Where one does not, by ``resize(refcheck=False)``, the call raises
    RuntimeError.
    """
    joined: list[Call] = []
    for compiled, group in groupby(calls, lambda call: isinstance(call, Bound)):
        if compiled:
            bound = [call for call in group if isinstance(call, Bound)]
            joined.append(_core.prepare(tuple((call.func, *call.args) for call in bound)))
        else:
            joined.extend(group)
    return joined


def conv2d(values: Values, weight: Values, bias: Values | None, geometry: Geometry, out: Values) -> Call:
    """Of values (C, H, W, B) of one time step."""
    return Bound(_core.conv2d, values, weight, bias, geometry, out)


def conv2d_by_step(values: Values, weight: Values, bias: Values | None, geometry: Geometry, out: Values) -> Call:
    """Of values (C, H, W, T, B) to one pixel (O, 1, 1, T, B), with the bits of `conv2d` of each step."""
    return Bound(_core.conv2d_by_step, values, weight, bias, geometry, out)


def conv2d_spikes(convolution: SpikeConvolution, accumulate: bool, out: Values) -> Call:
    """To a current (O, H', W', T, B), or added to it."""
    c = convolution
    words, to = c.words.reshape(*c.words.shape[:3], -1), out.reshape(*out.shape[:3], -1)
    arguments = words, c.weight, c.bias, c.amplitude, c.geometry, c.table_bits, int(accumulate), c.packed, to
    return Bound(_core.conv2d_spikes, *arguments)


def conv2d_neuron_spikes(
    convolution: SpikeConvolution,
    neuron: NeuronModel,
    scale: Values | None,
    shift: Values | None,
    out: Words,
    potentials: Values | None,
) -> Call:
    """To spikes; potentials are from `dsr.ops.row_potentials`; None: they begin at 0 in each call, and are not kept."""
    arguments = *convolution.arguments(), scale, shift, *one_and_thresholds(neuron), convolution.packed
    return Bound(_core.conv2d_neuron_spikes, *arguments, None, out, potentials, None)


def neuron_steps(
    current: Values,
    neuron: NeuronModel,
    scale: Values | None,
    shift: Values | None,
    out: Words,
    potentials: Values | None,
) -> Call:
    """To spikes; potentials as in `conv2d_neuron_spikes`."""
    arguments = merge_pixels(current, 2), scale, shift, *one_and_thresholds(neuron), merge_pixels(out, 2)
    return Bound(_core.neuron_steps, *arguments, None if potentials is None else merge_pixels(potentials, 2))


def unpack_words(words: Words, amplitude: PerChannel, out: Values) -> Call:
    """To values."""
    heights = for_channels("unpack_words", "amplitude", amplitude, len(out))
    return Bound(_core.unpack_words, by_channel(words), heights, by_channel(out))


def add_words(words: Words, amplitude: PerChannel, out: Values) -> Call:
    """Added to values."""
    heights = for_channels("add_words", "amplitude", amplitude, len(out))
    return Bound(_core.add_words, by_channel(words), heights, by_channel(out))


def pack_words(values: Values, out: Words) -> Call:
    """To words."""
    return Bound(_core.pack_words, by_channel(values), by_channel(out))


def affine(values: Values, scale: Values, shift: Values, out: Values) -> Call:
    """``scale * values + shift`` of each channel."""
    return Bound(_core.affine, by_channel(values), None, scale, None, shift, by_channel(out))


def weighted_sum(values: Values, weights: Values, out: Values) -> Call:
    """Over time, to values (C, H, W, B)."""
    return Bound(_core.weighted_sum, merge_pixels(values, 2), weights, merge_pixels(out, 1))


def repeat_pixels(array: NDArray[Any], factor: tuple[int, int], out: NDArray[Any]) -> Call:
    """Each pixel of an array (C, H, W, ...) so many times vertically and horizontally, (C, H factor[0], ...)."""
    channels, height, width, *inner = array.shape
    blocks = out.reshape(channels, height, factor[0], width, factor[1], *inner)
    return partial(np.copyto, blocks, array[:, :, np.newaxis, :, np.newaxis])


def concat_words(trains: Sequence[Words], channels: Sequence[int], out: Words) -> Call:
    """To words of all channels."""
    return partial(_concat_words, trains, channels, out)


def _concat_words(trains: Sequence[Words], channels: Sequence[int], out: Words) -> None:
    np.copyto(out, concat_words_of(trains, channels))


def pool_planes(words: Words, windows: Windows, out: Words) -> Call:
    """To words (planes, ceil(C / 32), H', W', T, B)."""
    return Bound(_core.pool_planes, _lanes(words), *_numbers(windows), out.reshape(*out.shape[:4], -1))


def or_pool(words: Words, windows: Windows, out: Words) -> Call:
    """To words."""
    return Bound(_core.or_pool, _lanes(words), *_numbers(windows), _lanes(out))


def avg_pool(values: Values, windows: Windows, out: Values) -> Call:
    """To values (C, H', W', T, B)."""
    return Bound(_core.avg_pool, _lanes(values), *_numbers(windows), _lanes(out))


def max_pool(values: Values, windows: Windows, out: Values) -> Call:
    """To values (C, H', W', T, B)."""
    return Bound(_core.max_pool, _lanes(values), *_numbers(windows), _lanes(out))


def _lanes(array: np.ndarray) -> np.ndarray:
    """Time and batch on one axis."""
    return array.reshape(*array.shape[:3], -1)


def _numbers(windows: Windows) -> tuple[int, int, int, int, int, int]:
    kernel_size, stride, padding = windows
    return *kernel_size, *stride, *padding
