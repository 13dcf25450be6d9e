"""Convolution of spikes: to a current, through neurons to spikes, and the gradient of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np

from dsr import _core
from dsr.ops.arguments import as_count
from dsr.ops.convolution import convolved_size, require_geometry
from dsr.ops.geometry import Geometry
from dsr.ops.layout import (
    PerChannel,
    Values,
    Words,
    aligned_array,
    for_channels,
    merge_pixels,
    new_array,
    require_array,
    require_writable,
    word_count,
)
from dsr.ops.neurons import NeuronModel, one_and_thresholds, planes_of
from dsr.ops.words import transpose_words

MOST_TAPS = 121
"""Taps of the largest kernel that `conv2d_spikes` takes, if each bit is a table of its own (`table_bits` 1)."""


def best_table_bits(firing_rate: float, taps: int = 9) -> int:
    """Bits that share a table of sums in a convolution over spikes: what is fastest at a firing rate.

    Measured on Zen 3 (AVX2) over the four ResNet shapes: single rows win below a rate of 0.12, tables of 4 bits above;
    2 bits gain at most 5 % anywhere. Kernels of more than 30 taps have no room for large tables.
    """
    return 4 if firing_rate > 0.12 and taps <= MOST_TAPS // 4 else 1


def conv2d_spikes(
    words: Words,
    weight: Values,
    bias: Values | None,
    amplitude: float,
    geometry: Geometry,
    table_bits: int,
    out: Values | None = None,
    packed: Values | None = None,
) -> Values:
    """Convolution of a spike train with weights (O, C / groups, KH, KW), each spike being worth `amplitude`.

    Parameters
    ----------
    words : ndarray of uint32, shape (ceil(C / 32), H, W, T, B)
        Spikes.
    geometry : Geometry
        Where the taps fall; a spread makes a transposed convolution.
    table_bits : int
        1, 2 or 4, see `best_table_bits`.
    out : ndarray of float32, shape (O, H', W', T, B), optional
        The result is added to it.
    packed : ndarray of float32, optional
        The weight as `pack_weights` gives it; without it, it is packed in every call.

    Notes
    -----
    EXACT for a given `table_bits`, and within ``(K + 2) eps sum |w| amplitude`` of the exact sum of its K products.
    """
    require_array("conv2d_spikes", 5, words=words)
    groups, height, width, timesteps, batch = words.shape
    rows, columns = convolved_size("conv2d_spikes", "words", height, width, weight, geometry)
    shape = (len(weight), rows, columns, timesteps, batch)
    if out is not None:
        require_writable("conv2d_spikes", "out", out, shape)
    result = new_array("conv2d_spikes", "geometry", shape) if out is None else out
    _core.conv2d_spikes(
        words.reshape(groups, height, width, timesteps * batch),
        weight,
        bias,
        amplitude,
        geometry,
        table_bits,
        out is not None,
        packed,
        result.reshape(len(weight), rows, columns, timesteps * batch),
    )
    return result


def pack_weights(weight: Values, geometry: Geometry) -> Values:
    """Weights as convolutions of spikes read them, in memory that is aligned for them. EXACT.

    Parameters
    ----------
    weight : ndarray of float32, shape (O, C / groups, KH, KW)
        What is convolved with.
    geometry : Geometry
        Its kernel and groups.
    """
    require_array("pack_weights", 4, weight=weight)
    require_geometry("pack_weights", geometry)
    if weight.shape[2:] != geometry.kernel or geometry.taps > MOST_TAPS or len(weight) % geometry.groups:
        raise ValueError(
            f"pack_weights: argument 'weight': expected a kernel {geometry.kernel} of at most {MOST_TAPS} taps and "
            f"outputs that {geometry.groups} groups divide, got shape {weight.shape}"
        )
    try:
        length = int(_core.packed_length(weight, geometry))
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("packed_length", "pack_weights", 1)) from None
    packed = aligned_array((length,))
    _core.pack_weights(weight, geometry, packed)
    return packed


@dataclass(frozen=True, eq=False)
class SpikeConvolution:
    """A convolution over a spike train that is still to be done, and what is added to it.

    Attributes
    ----------
    words, weight, bias, amplitude, geometry, table_bits
        As in `conv2d_spikes`.
    shortcut : ndarray of uint32, shape (ceil(O / 32), H', W', T, B), or None
        Spikes that are added to the result.
    shortcut_amplitude : float or ndarray of float32, shape (O,)
        What each of them is worth, on all channels or on each.
    packed : ndarray of float32, or None
        As in `conv2d_spikes`.
    """

    words: Words
    weight: Values
    bias: Values | None
    amplitude: float
    geometry: Geometry
    table_bits: int
    shortcut: Words | None = None
    shortcut_amplitude: PerChannel = 0.0
    packed: Values | None = None

    def arguments(self) -> tuple[Words, Values, Values | None, float, Geometry, int, Words | None, Values | None]:
        """The attributes in the order in which the operations take them."""
        heights = None
        if self.shortcut is not None:
            function, channels = "conv2d_neuron_spikes", len(self.weight)
            heights = for_channels(function, "shortcut_amplitude", self.shortcut_amplitude, channels)
        return (
            self.words,
            self.weight,
            self.bias,
            self.amplitude,
            self.geometry,
            self.table_bits,
            self.shortcut,
            heights,
        )

    def output_words(self, function: str = "conv2d_spikes", planes: int = 1) -> Words:
        """Room for spikes of the shape of the output, so many planes; errors are those of `function`."""
        require_array(function, 5, words=self.words)
        _, height, width, timesteps, batch = self.words.shape
        rows, columns = convolved_size(function, "words", height, width, self.weight, self.geometry)
        return new_array(
            function, "geometry", (planes * word_count(len(self.weight)), rows, columns, timesteps, batch), np.uint32
        )


@overload
def conv2d_neuron_spikes(
    convolution: SpikeConvolution,
    neuron: NeuronModel,
    scale: Values | None = None,
    shift: Values | None = None,
    potentials: Values | None = None,
    *,
    weights: None = None,
) -> Words: ...
@overload
def conv2d_neuron_spikes(
    convolution: SpikeConvolution,
    neuron: NeuronModel,
    scale: Values | None = None,
    shift: Values | None = None,
    potentials: Values | None = None,
    *,
    weights: Values,
) -> tuple[Words, Values]: ...
def conv2d_neuron_spikes(
    convolution: SpikeConvolution,
    neuron: NeuronModel,
    scale: Values | None = None,
    shift: Values | None = None,
    potentials: Values | None = None,
    *,
    weights: Values | None = None,
) -> Words | tuple[Words, Values]:
    """`conv2d_spikes`, `add_words` of the shortcut and `neuron_spikes` in one, with the same bits. EXACT.

    The current is used while it is in the cache and stored nowhere. `potentials`, from `row_potentials`, are those
    before the first step, and then those after the last; without them they begin at 0. With `weights` (T,) the weighted
    sum over time of the current, (O, H', W', B), before scale and shift, comes with the spikes.
    """
    function, total = "conv2d_neuron_spikes", None
    out = convolution.output_words(function, planes_of(neuron))
    _, rows, columns, _, batch = out.shape
    if potentials is not None:
        blocks = word_count(len(convolution.weight))
        require_writable(function, "potentials", potentials, (blocks, rows, columns, batch, ROW))
    if weights is not None:
        require_array(function, 1, weights=weights)
        total = np.empty((len(convolution.weight), rows, columns, batch), np.float32)
    arguments = *convolution.arguments(), scale, shift, *one_and_thresholds(neuron)
    _core.conv2d_neuron_spikes(*arguments, convolution.packed, weights, out, potentials, total)
    return out if total is None else (out, total)


def conv2d_spikes_sum(convolution: SpikeConvolution, weights: Values) -> Values:
    """The weighted sum over time of a convolution of spikes, without its values at each step. EXACT.

    Parameters
    ----------
    convolution : SpikeConvolution
        Its shortcut is added at each step, its bias once, to the sum.
    weights : ndarray of float32, shape (T,)
        Of the steps: powers of two for the steps of `count_steps`.

    Returns
    -------
    ndarray of float32, shape (O, H', W', B)
        ``bias + sum_t weights[t] (convolution[t] + shortcut[t])``, within ``(K + T + 3) eps`` times the sum of all
        absolute values of the exact one, K being the products of an output.
    """
    _, height, width, _, batch = convolution.output_words("conv2d_spikes_sum").shape
    require_array("conv2d_spikes_sum", 1, weights=weights)
    total = np.empty((len(convolution.weight), height, width, batch), np.float32)
    _core.conv2d_spikes_sum(*convolution.arguments(), weights, convolution.packed, total)
    return total


ROW = 32
"""Channels side by side in the potentials of `conv2d_neuron_spikes`."""


def neuron_steps(
    current: Values,
    timesteps: int,
    neuron: NeuronModel,
    potentials: Values | None,
    scale: Values | None = None,
    shift: Values | None = None,
) -> Words:
    """The spikes of `neuron_spikes`, of neurons whose `potentials` are kept, see `conv2d_neuron_spikes`. EXACT.

    Without potentials, neurons begin at 0.
    """
    require_array("neuron_steps", 5, current=current)
    channels, height, width, _, batch = current.shape
    steps = as_count("neuron_steps", "timesteps", timesteps)
    groups = word_count(channels)
    shape = planes_of(neuron) * groups, height, width, steps, batch
    words = new_array("neuron_steps", "timesteps", shape, np.uint32)
    if potentials is not None:
        require_writable("neuron_steps", "potentials", potentials, (groups, height, width, batch, ROW))
    _core.neuron_steps(
        merge_pixels(current, 2),
        scale,
        shift,
        *one_and_thresholds(neuron),
        merge_pixels(words, 2),
        None if potentials is None else merge_pixels(potentials, 2),
    )
    return words


def row_potentials(channels: int, height: int, width: int, batch: int) -> Values:
    """Potentials for `conv2d_neuron_spikes`, all 0: (ceil(O / 32), H', W', B, 32)."""
    potentials = aligned_array((word_count(channels), height, width, batch, ROW))
    potentials[...] = 0
    return potentials


def conv2d_spikes_weight_gradient(
    constant: Values,
    slope: Values | None,
    values: Values | None,
    words: Words,
    weight_shape: tuple[int, ...],
    amplitude: float,
    geometry: Geometry,
    table_bits: int,
    weights: Values | None = None,
) -> Values:
    """Gradient of `conv2d_spikes` with respect to its weight, for ``weights[t] * constant + slope * values[t]``.

    Parameters
    ----------
    constant : ndarray of float32, shape (O, H', W', B)
        What is the same at every step.
    slope, values : ndarray of float32, shapes (O,) and (O, H', W', T, B), or None
        What varies.
    words : ndarray of uint32, shape (ceil(C / 32), H, W, T, B)
        Spikes.
    weights : ndarray of float32, shape (T,), optional
        By default all one; powers of two for the steps of `count_steps`.

    Notes
    -----
    EXACT for a given `table_bits`, and ROUNDED as `conv2d_weight_gradient`.
    """
    function = "conv2d_spikes_weight_gradient"
    require_array(function, 5, words=words)
    if weights is not None:
        require_array(function, 1, weights=weights)
    require_geometry(function, geometry)
    if words.dtype != np.uint32:
        raise TypeError(f"{function}: argument 'words': expected dtype uint32, got {words.dtype}")
    if not isinstance(weight_shape, tuple) or len(weight_shape) != 4:
        raise ValueError(f"{function}: argument 'weight_shape': expected 4 integers, got {type(weight_shape).__name__}")
    sizes = tuple(as_count(function, "weight_shape", size, 0) for size in weight_shape)
    _, height, width, timesteps, _ = words.shape
    transposed = transpose_words(np.require(words, None, ["C", "A"]))
    out = new_array(function, "weight_shape", sizes)
    _core.conv2d_spikes_weight_gradient(
        constant,
        weights,
        slope,
        values,
        transposed.reshape(height, width, *transposed.shape[1:]),
        timesteps,
        amplitude,
        geometry,
        table_bits,
        out,
    )
    return out
