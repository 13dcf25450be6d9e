"""The operations that layers are made of, on the lanes layout.

A value is float32 of shape ``(C, H, W, T, B)``: channels and pixels outside, time and batch (the "lanes") innermost.
What is the same at every step has T = 1; a gradient without a time axis has shape ``(C, H, W, B)``. Spikes are
uint32 words of shape ``(ceil(C / 32), H, W, T, B)``, channel c being bit ``c % 32`` of word ``c // 32``; bits of
channels that do not exist are zero. Arrays must be C-contiguous and of exactly these dtypes; results are new arrays.

EXACT: the same bits on each instruction level and for any number of threads. ROUNDED: so for any number of threads,
and within the stated bound on each level; eps is 2**-24.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import _core

Values = NDArray[np.float32]
Words = NDArray[np.uint32]
Sums = NDArray[np.float64]


MOST_TAPS = 121
"""Taps of the largest kernel that `conv2d_spikes` takes, with groups of one bit."""


def word_count(channels: int) -> int:
    """Words that hold the bits of so many channels."""
    return (channels + 31) // 32


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    """All axes but the first merged."""
    return array.reshape(len(array), prod(array.shape[1:]))


def _pixels(array: NDArray[Any], inner: int) -> NDArray[Any]:
    """Axes H, W merged: (C, P) and the `inner` last axes."""
    last = array.ndim - inner
    return array.reshape(len(array), prod(array.shape[1:last]), *array.shape[last:])


def _without_time(values: Values) -> Values:
    """Room for one value of each channel, pixel and sample, (C, H, W, B)."""
    channels, height, width, _, batch = values.shape
    return np.empty((channels, height, width, batch), np.float32)


def _spike_words(current: Values, timesteps: int) -> Words:
    """Room for the spikes of neurons with this current."""
    channels, height, width, _, batch = current.shape
    return np.empty((word_count(channels), height, width, timesteps, batch), np.uint32)


def if_spikes(
    current: Values,
    timesteps: int,
    v_threshold: float,
    alpha: float,
    scale: Values | None = None,
    shift: Values | None = None,
) -> tuple[Words, Values]:
    """IF neurons: spikes as words, and the sum of the current over time (C, H, W, B). EXACT.

    A current of one step is held for all `timesteps`. `scale` and `shift` (C,) are applied first,
    ``scale * x + shift``; the sum is of x itself.
    """
    words, sums = _spike_words(current, timesteps), _without_time(current)
    _core.if_spikes(_pixels(current, 2), scale, shift, v_threshold, alpha, _pixels(words, 2), _pixels(sums, 1))
    return words, sums


def lif_spikes(
    current: Values,
    weights: Values,
    v_threshold: float,
    tau: float,
    delta_t: float,
    alpha: float,
    scale: Values | None = None,
    shift: Values | None = None,
) -> tuple[Words, Values, Values]:
    """LIF neurons: as `if_spikes`, and the sum over time with the weights (T,) of the representation. EXACT."""
    words, sums, weighted = _spike_words(current, len(weights)), _without_time(current), _without_time(current)
    _core.lif_spikes(
        _pixels(current, 2),
        scale,
        shift,
        weights,
        v_threshold,
        tau,
        delta_t,
        alpha,
        _pixels(words, 2),
        _pixels(sums, 1),
        _pixels(weighted, 1),
    )
    return words, sums, weighted


def pack_words(values: Values) -> Words:
    """A bit where the value is not zero. EXACT."""
    words = np.empty((word_count(len(values)), *values.shape[1:]), np.uint32)
    _core.pack_words(_rows(values), _rows(words))
    return words


def transpose_words(words: Words) -> Words:
    """The same bits with 32 lanes a word, (H W, ceil(T B / 32), 32 ceil(C / 32)); bits beyond are zero. EXACT."""
    groups, height, width, timesteps, batch = words.shape
    transposed = np.empty((height * width, word_count(timesteps * batch), 32 * groups), np.uint32)
    _core.transpose_words(words.reshape(groups, height * width, timesteps * batch), transposed)
    return transposed


def unpack_words(words: Words, channels: int, amplitude: float = 1.0) -> Values:
    """`amplitude` where the bit is set, else 0. EXACT."""
    values = np.empty((channels, *words.shape[1:]), np.float32)
    _core.unpack_words(_rows(words), amplitude, _rows(values))
    return values


def add_words(words: Words, values: Values, amplitude: float) -> Values:
    """``values += unpack_words(words, len(values), amplitude)`` in place; returns `values`. EXACT."""
    if not values.flags.c_contiguous:
        raise ValueError(f"add_words: argument 'values': expected a C-contiguous array, got strides {values.strides}")
    _core.add_words(_rows(words), amplitude, _rows(values))
    return values


def count_words(words: Words, channels: int) -> NDArray[np.int64]:
    """Spikes of each channel, shape (C,). EXACT."""
    counts = np.empty(channels, np.int64)
    _core.count_words(_rows(words), counts)
    return counts


def count_bits(words: Words) -> int:
    """Number of spikes. EXACT."""
    return int(_core.count_bits(words.reshape(-1)))


def dropout_words(words: Words, keep: float, seed: int) -> Words:
    """Each bit is kept with probability `keep`, independently; the mask depends on seed and position only. EXACT."""
    kept = np.empty_like(words)
    _core.dropout_words(words.reshape(-1), keep, seed, kept.reshape(-1))
    return kept


def moments(values: Values) -> tuple[Sums, Sums]:
    """Sum and sum of squares of each channel, added in double. EXACT."""
    sums, squares = np.empty(len(values)), np.empty(len(values))
    _core.moments(_rows(values), sums, squares)
    return sums, squares


def product_moments(a: Values, b: Values) -> tuple[Sums, Sums]:
    """Per channel, the sums of a and of a b, added in double. EXACT."""
    sums, products = np.empty(len(a)), np.empty(len(a))
    _core.product_moments(_rows(a), _rows(b), sums, products)
    return sums, products


def expand_gradient(constant: Values, values: Values, slope: Values) -> Values:
    """``constant + slope * values[t]`` for every step; slope is (C,). EXACT."""
    dense = np.empty_like(values)
    _core.expand_gradient(_pixels(constant, 1), _pixels(values, 2), slope, _pixels(dense, 2))
    return dense


def affine(
    x: Values, a: NDArray[Any], c: NDArray[Any], y: Values | None = None, b: NDArray[Any] | None = None
) -> Values:
    """``a * x + b * y + c`` with a, b, c (C,) per channel, rounded to float32; y and b may be missing. EXACT."""
    out = np.empty_like(x)
    factor, offset = (np.ascontiguousarray(array, np.float32) for array in (a, c))
    other = None if b is None else np.ascontiguousarray(b, np.float32)
    _core.affine(_rows(x), None if y is None else _rows(y), factor, other, offset, _rows(out))
    return out


def weighted_sum(values: Values, weights: Values) -> Values:
    """``sum_t weights[t] values[t]``, (C, H, W, B). EXACT."""
    total = _without_time(values)
    _core.weighted_sum(_pixels(values, 2), weights, _pixels(total, 1))
    return total


def output_size(size: int, kernel_size: int, stride: int, padding: int) -> int:
    """Windows along one direction."""
    return (size + 2 * padding - kernel_size) // stride + 1


def _convolved_size(
    function: str, name: str, height: int, width: int, weight: Values, stride: int, padding: int
) -> tuple[int, int]:
    """Size of a convolution's output; ValueError where the kernel does not fit into the image."""
    _, _, kernel_h, kernel_w = weight.shape
    rows = output_size(height, kernel_h, stride, padding)
    columns = output_size(width, kernel_w, stride, padding)
    if rows < 1 or columns < 1:
        raise ValueError(
            f"{function}: argument '{name}': expected an image that a {kernel_h}x{kernel_w} kernel "
            f"with padding {padding} fits in, got {height}x{width}"
        )
    return rows, columns


def pool_planes(words: Words, kernel_size: int, stride: int, padding: int = 0) -> Words:
    """Spikes in each square window, counted in binary: plane k, words[k], holds bit k of the counts. EXACT.

    words: (ceil(C / 32), H, W, T, B); result (planes, ceil(C / 32), H', W', T, B).
    """
    groups, height, width, timesteps, batch = words.shape
    rows = output_size(height, kernel_size, stride, padding)
    columns = output_size(width, kernel_size, stride, padding)
    planes = (kernel_size**2).bit_length()
    out = np.empty((planes, groups, rows, columns, timesteps, batch), np.uint32)
    flat = (groups, height, width, timesteps * batch)
    _core.pool_planes(words.reshape(flat), kernel_size, stride, padding, out.reshape(*out.shape[:4], timesteps * batch))
    return out


def avg_pool(values: Values, kernel_size: int, stride: int, padding: int = 0) -> Values:
    """Mean over square windows; what lies outside the image counts as zeros. values: (C, H, W, L). EXACT."""
    channels, height, width, lanes = values.shape
    out = np.empty(
        (
            channels,
            output_size(height, kernel_size, stride, padding),
            output_size(width, kernel_size, stride, padding),
            lanes,
        ),
        np.float32,
    )
    _core.avg_pool(values, kernel_size, stride, padding, out)
    return out


def avg_pool_backward(
    grad_output: Values, height: int, width: int, kernel_size: int, stride: int, padding: int = 0
) -> Values:
    """Gradient of `avg_pool` for an input of height x width. EXACT."""
    channels, _, _, lanes = grad_output.shape
    out = np.empty((channels, height, width, lanes), np.float32)
    _core.avg_pool_backward(grad_output, kernel_size, stride, padding, out)
    return out


def conv2d(values: Values, weight: Values, bias: Values | None = None, stride: int = 1, padding: int = 0) -> Values:
    """Convolution (cross-correlation) of dense values (C, H, W, L) with weights (O, C, KH, KW).

    ROUNDED: within ``(K + 2) eps sum |w| |x|`` of the exact sum, K = C KH KW.
    """
    _, height, width, lanes = values.shape
    rows, columns = _convolved_size("conv2d", "values", height, width, weight, stride, padding)
    out = np.empty((len(weight), rows, columns, lanes), np.float32)
    _core.conv2d(values, weight, bias, stride, padding, out)
    return out


def conv2d_input_gradient(
    grad_output: Values, weight: Values, height: int, width: int, stride: int = 1, padding: int = 0
) -> Values:
    """Gradient of `conv2d` with respect to its values.

    ROUNDED as `conv2d`, K = O KH KW. From 32 channels on, kernels of 3x3 (of 4x4 with stride 2, and the like) go by
    Winograd's method: within ``(K + 12) eps M``, M what the method gives with the absolute values of gradients, weights
    and its coefficients. An infinite gradient then makes NaN in its lane.
    """
    out = np.empty((weight.shape[1], height, width, grad_output.shape[3]), np.float32)
    _core.conv2d_input_gradient(grad_output, weight, stride, padding, out)
    return out


def conv2d_weight_gradient(
    grad_output: Values, values: Values, kernel_h: int, kernel_w: int, stride: int = 1, padding: int = 0
) -> Values:
    """Gradient of `conv2d` with respect to its weight. ROUNDED as `conv2d`, K = pixels times lanes."""
    out = np.empty((len(grad_output), len(values), kernel_h, kernel_w), np.float32)
    _core.conv2d_weight_gradient(grad_output, values, stride, padding, out)
    return out


def row_group(firing_rate: float, taps: int = 9) -> int:
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
    stride: int,
    padding: int,
    group: int,
    out: Values | None = None,
) -> Values:
    """Convolution of a spike train with weights (O, C, KH, KW), each spike being worth `amplitude`.

    Parameters
    ----------
    words : ndarray of uint32, shape (ceil(C / 32), H, W, T, B)
        Spikes.
    group : int
        1, 2 or 4, see `row_group`.
    out : ndarray of float32, shape (O, H', W', T, B), optional
        The result is added to it.

    Notes
    -----
    EXACT for a given `group`, and within ``(K + 2) eps sum |w| amplitude`` of the exact sum of its K products.
    """
    groups, height, width, timesteps, batch = words.shape
    rows, columns = _convolved_size("conv2d_spikes", "words", height, width, weight, stride, padding)
    result = np.empty((len(weight), rows, columns, timesteps, batch), np.float32) if out is None else out
    _core.conv2d_spikes(
        words.reshape(groups, height, width, timesteps * batch),
        weight,
        bias,
        amplitude,
        stride,
        padding,
        group,
        out is not None,
        result.reshape(len(weight), rows, columns, timesteps * batch),
    )
    return result


@dataclass(frozen=True, eq=False)
class SpikeConvolution:
    """A convolution over a spike train that is still to be done, and what is added to it.

    Attributes
    ----------
    words, weight, bias, amplitude, stride, padding, group
        As in `conv2d_spikes`.
    shortcut : ndarray of uint32, shape (ceil(O / 32), H', W', T, B), or None
        Spikes that are added to the result.
    shortcut_amplitude : float
        What each of them is worth.
    """

    words: Words
    weight: Values
    bias: Values | None
    amplitude: float
    stride: int
    padding: int
    group: int
    shortcut: Words | None = None
    shortcut_amplitude: float = 0.0

    def arguments(self) -> tuple[Words, Values, Values | None, float, int, int, int, Words | None, float]:
        """The attributes in the order in which the operations take them."""
        return (
            self.words,
            self.weight,
            self.bias,
            self.amplitude,
            self.stride,
            self.padding,
            self.group,
            self.shortcut,
            self.shortcut_amplitude,
        )

    def output_words(self) -> Words:
        """Room for spikes of the shape of the output."""
        _, height, width, timesteps, batch = self.words.shape
        rows, columns = _convolved_size("conv2d", "words", height, width, self.weight, self.stride, self.padding)
        return np.empty((word_count(len(self.weight)), rows, columns, timesteps, batch), np.uint32)


def conv2d_if_spikes(
    convolution: SpikeConvolution,
    v_threshold: float,
    alpha: float,
    scale: Values | None = None,
    shift: Values | None = None,
) -> Words:
    """`conv2d_spikes`, `add_words` of the shortcut and `if_spikes` in one, with the same bits. EXACT.

    The current is used while it is in the cache and stored nowhere.
    """
    out = convolution.output_words()
    _core.conv2d_if_spikes(
        *convolution.arguments(),
        scale,
        shift,
        v_threshold,
        alpha,
        out,
    )
    return out


def conv2d_lif_spikes(
    convolution: SpikeConvolution,
    v_threshold: float,
    tau: float,
    delta_t: float,
    alpha: float,
    scale: Values | None = None,
    shift: Values | None = None,
) -> Words:
    """As `conv2d_if_spikes` with LIF neurons. EXACT."""
    out = convolution.output_words()
    _core.conv2d_lif_spikes(
        *convolution.arguments(),
        scale,
        shift,
        v_threshold,
        tau,
        delta_t,
        alpha,
        out,
    )
    return out


def conv2d_spikes_weight_gradient(
    constant: Values,
    slope: Values | None,
    values: Values | None,
    words: Words,
    weight_shape: tuple[int, ...],
    amplitude: float,
    stride: int,
    padding: int,
    group: int,
) -> Values:
    """Gradient of `conv2d_spikes` with respect to its weight, for the gradient ``constant + slope * values[t]``.

    Parameters
    ----------
    constant : ndarray of float32, shape (O, H', W', B)
        What is the same at every step.
    slope, values : ndarray of float32, shapes (O,) and (O, H', W', T, B), or None
        What varies.
    words : ndarray of uint32, shape (ceil(C / 32), H, W, T, B)
        Spikes.

    Notes
    -----
    EXACT for a given `group`, and ROUNDED as `conv2d_weight_gradient`.
    """
    _, height, width, timesteps, _ = words.shape
    transposed = transpose_words(words)
    out = np.empty(weight_shape, np.float32)
    _core.conv2d_spikes_weight_gradient(
        constant,
        slope,
        values,
        transposed.reshape(height, width, *transposed.shape[1:]),
        timesteps,
        amplitude,
        stride,
        padding,
        group,
        out,
    )
    return out
