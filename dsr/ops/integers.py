"""Convolutions of spikes with integer weights, and integer neurons: the same numbers everywhere.

Currents are rows of 64 channels side by side, int32 of shape ``(ceil(O / 64), H, W, T, B, 64)``; channels that do not
exist are 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dsr import _core
from dsr.ops.arguments import as_count
from dsr.ops.geometry import POINTWISE, Geometry
from dsr.ops.layout import Words, new_array, require_array, word_count
from dsr.ops.spike_convolution import MOST_TAPS

Integers = NDArray[np.int32]
Potentials = NDArray[np.int16]

ROW = 64
"""Channels of a row."""
NO_DECAY = 1 << 15
"""The decay of neurons without a leak."""
LIMIT = 32767
"""Potentials are cut off at plus and minus this."""
_WORD_TAPS = 9  # of a block of rows, as in csrc/ops/spike_tiles.h


@dataclass(frozen=True, eq=False)
class PackedWeights:
    """Weights of a convolution as rows, which `pack_integers` makes.

    Attributes
    ----------
    parts : tuple of ndarray of int16, shape (ceil(O / 64), N, R, 64)
        The weights are the sum of the parts; there is more than one where the sums of a block could leave 16 bits.
    geometry : Geometry
        Where the taps fall.
    in_channels, out_channels : int
        C and O.
    together : tuple of int
        For each part: how many of its N blocks, in order, can be added up in 16 bits, whichever inputs fire.
    """

    parts: tuple[NDArray[np.int16], ...]
    geometry: Geometry
    in_channels: int
    out_channels: int
    together: tuple[int, ...] = (1,)

    def output_shape(self, words: Words) -> tuple[int, ...]:
        """``(H', W', T, B)`` for spikes of this shape."""
        _, height, width, timesteps, batch = words.shape
        return (*self.geometry.output_size(height, width), timesteps, batch)

    def without_last(self) -> PackedWeights:
        """All parts but the last one, whose sums neurons read directly."""
        return replace(self, parts=self.parts[:-1], together=self.together[:-1])

    @classmethod
    def none(cls, out_channels: int) -> PackedWeights:
        """Of no input channels: what neurons that read rows alone are given."""
        empty = np.empty((_row_count(out_channels), 0, 1 + 32, ROW), np.int16)
        return cls((empty,), POINTWISE, 0, out_channels)


def pack_integers(weight: NDArray[np.integer], geometry: Geometry, in_channels: int) -> PackedWeights:
    """Pack weights (O, C / groups, KH, KW), integers of 16 bits, for convolutions over spikes of `in_channels`.

    Raises
    ------
    TypeError, ValueError
        The weights are no integers in [-32767, 32767] of this shape, or have more than `MOST_TAPS` taps.
    """
    if geometry.taps > MOST_TAPS:
        raise ValueError(
            f"pack_integers: argument 'geometry': expected at most {MOST_TAPS} taps, got {geometry.kernel}"
        )
    weight = _checked("pack_integers", weight, geometry, in_channels)
    rows = _as_rows(weight, geometry.groups, in_channels)
    parts = tuple(_parts(rows))
    together = tuple(map(_together, parts))
    return PackedWeights(tuple(map(_with_zeros, parts)), geometry, in_channels, len(weight), together)


def _checked(function: str, weight: NDArray[np.integer], geometry: Geometry, in_channels: int) -> NDArray[np.int16]:
    """Weights as 16 bits, or an error."""
    require_array(function, 4, weight=weight)
    if weight.dtype.kind not in "iu":
        raise TypeError(f"{function}: argument 'weight': expected integers, got {weight.dtype}")
    out, inner, *kernel = weight.shape
    groups = geometry.groups
    if inner * groups != as_count(function, "in_channels", in_channels) or out % groups or out == 0:
        raise ValueError(
            f"{function}: argument 'weight': expected (O, {in_channels} / {groups}, KH, KW), got shape {weight.shape}"
        )
    if tuple(kernel) != geometry.kernel:
        raise ValueError(
            f"{function}: argument 'weight': expected the {geometry.kernel} taps of 'geometry', got {tuple(kernel)}"
        )
    if weight.size and max(int(weight.max()), -int(weight.min())) > LIMIT:
        raise ValueError(f"{function}: argument 'weight': expected integers in [-{LIMIT}, {LIMIT}]")
    return weight.astype(np.int16)


def pack_for_values(weight: NDArray[np.integer], geometry: Geometry, in_channels: int) -> PackedWeights:
    """Pack weights as `pack_integers` does, for convolutions over integers that are no spikes: always one part.

    Sums of products have 32 bits, and there may be any number of taps. Errors are those of `pack_integers`.
    """
    weight = _checked("pack_for_values", weight, geometry, in_channels)
    rows = _with_zeros(_as_rows(weight, geometry.groups, in_channels))
    return PackedWeights((rows,), geometry, in_channels, len(weight))


def _row_count(channels: int) -> int:
    return (channels + ROW - 1) // ROW


def _as_rows(weight: NDArray[np.int16], groups: int, in_channels: int) -> NDArray[np.int16]:
    """``(ceil(O / 64), blocks, rows of a block without the zeros, 64)``."""
    out, inner, height, width = weight.shape
    taps, words = height * width, word_count(in_channels)
    block_words = min(words, max(_WORD_TAPS // taps, 1))
    blocks = (words + block_words - 1) // block_words
    full = np.zeros((blocks * block_words * 32, taps, _row_count(out) * ROW), np.int16)
    of_group = out // groups
    for group in range(groups):
        part = weight[group * of_group : (group + 1) * of_group].reshape(of_group, inner, taps)
        full[group * inner : (group + 1) * inner, :, group * of_group : (group + 1) * of_group] = part.transpose(
            1, 2, 0
        )
    return full.reshape(blocks, block_words * 32 * taps, _row_count(out), ROW).transpose(2, 0, 1, 3)


def _parts(rows: NDArray[np.int16]) -> Iterator[NDArray[np.int16]]:
    """The rows as a sum of rows of which any subset of a block's has a sum that 16 bits hold."""
    rest = rows
    while True:
        positive = np.maximum(rest, 0).cumsum(axis=2, dtype=np.int64) <= LIMIT
        negative = np.minimum(rest, 0).cumsum(axis=2, dtype=np.int64) >= -LIMIT
        fits = positive & negative
        if fits.all():
            yield rest
            return
        yield np.where(fits, rest, np.int16(0))
        rest = np.where(fits, np.int16(0), rest)


def _together(rows: NDArray[np.int16]) -> int:
    """How many blocks, in order, have a sum that fits 16 bits, whichever of their rows are added."""
    blocks = max(rows.shape[1], 1)
    most, least = (f(rows, 0).sum(axis=2, dtype=np.int64) for f in (np.maximum, np.minimum))  # (ceil(O / 64), N, 64)
    for groups in range(1, blocks):
        count = -(-blocks // groups)
        first = range(0, blocks, count)
        if (
            np.add.reduceat(most, first, axis=1).max() <= LIMIT
            and np.add.reduceat(least, first, axis=1).min() >= -LIMIT
        ):
            return count
    return 1


def _with_zeros(rows: NDArray[np.int16]) -> NDArray[np.int16]:
    """Rows behind one of zeros in each block, at an address that vectors like."""
    outs, blocks, count, _ = rows.shape
    size = outs * blocks * (1 + count) * ROW
    memory = np.empty(size + 32, np.int16)
    first = -memory.ctypes.data % 64 // 2
    packed = memory[first : first + size].reshape(outs, blocks, 1 + count, ROW)
    packed[:, :, 0] = 0
    packed[:, :, 1:] = rows
    packed.flags.writeable = False
    return packed


def new_rows(channels: int, *shape: int) -> Integers:
    """A current of zeros, ``shape`` being (H, W, T, B)."""
    return np.zeros((_row_count(channels), *shape, ROW), np.int32)


def rows_of(values: NDArray[np.integer]) -> Integers:
    """Values (C, H, W, T, B) as rows. EXACT."""
    require_array("rows_of", 5, values=values)
    padded = np.zeros((_row_count(len(values)), ROW, *values.shape[1:]), np.int32)
    padded.reshape(-1, *values.shape[1:])[: len(values)] = values
    return np.ascontiguousarray(np.moveaxis(padded, 1, -1))


def values_of(rows: Integers, channels: int) -> Integers:
    """Rows as values (C, H, W, T, B). EXACT."""
    require_array("values_of", 6, rows=rows)
    flat = np.moveaxis(rows, -1, 1).reshape(len(rows) * ROW, *rows.shape[1:-1])
    return np.ascontiguousarray(flat[:channels])


def integer_conv2d_spikes(words: Words, weights: PackedWeights, shift: int, table_bits: int, rows: Integers) -> None:
    """Add a convolution of spikes, times ``2**shift``, to a current in place. EXACT, whatever `table_bits` is.

    Parameters
    ----------
    words : ndarray of uint32, shape (ceil(C / 32), H, W, T, B)
        Spikes.
    weights : PackedWeights
        See `pack_integers`.
    shift : int
        In [0, 30].
    table_bits : int
        1, 2 or 4, see `best_table_bits`.
    rows : ndarray of int32, shape (ceil(O / 64), H', W', T, B, 64)
        The current, modulo 2**32.
    """
    require_array("integer_conv2d_spikes", 5, words=words)
    require_array("integer_conv2d_spikes", 6, rows=rows)
    if not rows.flags.c_contiguous:  # the result would be lost in a copy
        raise ValueError("integer_conv2d_spikes: argument 'rows': expected a C-contiguous array")
    lanes = words.shape[3] * words.shape[4]
    for packed, together in zip(weights.parts, weights.together, strict=True):
        _core.integer_conv2d_spikes(
            words.reshape(*words.shape[:3], lanes),
            packed,
            weights.geometry,
            weights.in_channels,
            weights.out_channels,
            shift,
            table_bits,
            together,
            rows.reshape(*rows.shape[:3], rows.shape[3] * rows.shape[4], ROW),
        )


@dataclass(frozen=True, eq=False)
class IntegerNeurons:
    """Numbers of integer neurons.

    A step is ``u = v + x``, or with a leak ``u = (v decay + 2**14 >> 15) + x``, cut off at +-32767; a spike where
    ``u >= fire``, then ``v = u - reset`` or ``v = u``.

    Attributes
    ----------
    bias, reset, fire : ndarray of int32, shape (O,)
        Of each channel; the bias is part of x at each step. A reset is from 0 to ``fire + 32767``, others are refused
        when neurons run: so potentials keep to 16 bits.
    decay : int
        In [0, 2**15], in units of 2**-15; 2**15 for neurons without a leak.
    """

    bias: Integers
    reset: Integers
    fire: Integers
    decay: int = NO_DECAY

    def new_potentials(self, height: int, width: int, batch: int) -> Potentials:
        """Those before the first step, ``(ceil(O / 64), H, W, B, 64)``."""
        return np.zeros((_row_count(len(self.bias)), height, width, batch, ROW), np.int16)


@dataclass(frozen=True, eq=False)
class IntegerInput:
    """Spikes that neurons read: through a convolution, and as they are.

    Attributes
    ----------
    words : ndarray of uint32, shape (ceil(C / 32), H, W, T, B)
        What is convolved.
    weights : PackedWeights
        With what.
    shift : int
        Sums are multiplied with ``2**shift``.
    table_bits : int
        See `best_table_bits`.
    shortcut : ndarray of uint32, shape (ceil(O / 32), H', W', T, B), or None
        Spikes that are added.
    shortcut_weight : ndarray of int32, shape (O,), or None
        What each of them is worth.
    """

    words: Words
    weights: PackedWeights
    shift: int = 0
    table_bits: int = 1
    shortcut: Words | None = None
    shortcut_weight: Integers | None = None


def integer_conv2d_neuron_spikes(
    read: IntegerInput,
    neurons: IntegerNeurons,
    current: Integers | None = None,
    potentials: Potentials | None = None,
) -> Words:
    """Spikes of integer neurons. EXACT.

    Parameters
    ----------
    read : IntegerInput
        Spikes that they read.
    neurons : IntegerNeurons
        What they do.
    current : ndarray of int32, shape (ceil(O / 64), H', W', T or 1, B, 64), optional
        What else they read; of one step: the same at each.
    potentials : ndarray of int16, shape (ceil(O / 64), H', W', B, 64), optional
        Before the first step, changed in place to those after the last; by default 0, and forgotten.

    Returns
    -------
    ndarray of uint32, shape (ceil(O / 32), H', W', T, B)

    Notes
    -----
    Sums of the input are modulo 2**32; weights must be such that they stay below 2**30.
    """
    function, words = "integer_conv2d_neuron_spikes", read.words
    require_array(function, 5, words=words)
    last = read.weights.parts[-1]
    if len(read.weights.parts) > 1:
        whole = new_rows(read.weights.out_channels, *read.weights.output_shape(words))
        if current is not None:
            whole += current
        integer_conv2d_spikes(words, read.weights.without_last(), read.shift, read.table_bits, whole)
        current = whole
    channels = read.weights.out_channels
    shape = (word_count(channels), *read.weights.output_shape(words))
    out = new_array(function, "words", shape, np.uint32)
    _core.integer_conv2d_neuron_spikes(
        words,
        last,
        read.weights.geometry,
        read.weights.in_channels,
        channels,
        read.shift,
        read.table_bits,
        read.weights.together[-1],
        current,
        read.shortcut,
        read.shortcut_weight,
        neurons.bias,
        neurons.reset,
        neurons.fire,
        neurons.decay,
        potentials,
        out,
    )
    return out
