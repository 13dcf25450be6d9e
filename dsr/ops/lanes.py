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
from dsr.ops.arguments import as_count

Values = NDArray[np.float32]
Words = NDArray[np.uint32]
Sums = NDArray[np.float64]


MOST_TAPS = 121
"""Taps of the largest kernel that `conv2d_spikes` takes, with groups of one bit."""

MOST_PRODUCTS = 1 << 35
"""Products of one call of the compiled part, where lanes can be computed piece by piece: a third of a second on two
cores. Between calls a signal is seen; the input gradients of VGG-11 on events took some seconds in one."""


def word_count(channels: int) -> int:
    """Words that hold the bits of so many channels."""
    return (channels + 31) // 32


def _require(function: str, axes: int = 0, **arrays: Any) -> None:
    """Refuse what is no array, or has another number of axes; 0: any, but one at least. The rest is checked below."""
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{function}: argument '{name}': expected an array, got {type(array).__name__}")
        if array.ndim != axes if axes else array.ndim == 0:
            wanted = f"{axes} axes" if axes else "at least one axis"
            raise ValueError(f"{function}: argument '{name}': expected {wanted}, got shape {array.shape}")


def _require_own(function: str, name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Refuse an array that results cannot be written to: a copy would be, and be lost."""
    _require(function, **{name: array})
    if array.dtype != np.float32:
        raise TypeError(f"{function}: argument '{name}': expected dtype float32, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{function}: argument '{name}': expected shape {shape}, got {array.shape}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{function}: argument '{name}': expected a C-contiguous array, got strides {array.strides}")
    if not array.flags.writeable:
        raise ValueError(f"{function}: argument '{name}': expected a writable array, got a read-only one")


def _room(function: str, name: str, shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> NDArray[Any]:
    """A new array; an error names the argument that makes it so large."""
    try:
        return np.empty(shape, dtype)
    except ValueError:
        raise ValueError(f"{function}: argument '{name}': no array can be as large as {shape}") from None


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


def _spike_words(function: str, current: Values, timesteps: int) -> Words:
    """Room for the spikes of neurons with this current."""
    channels, height, width, _, batch = current.shape
    return _room(function, "timesteps", (word_count(channels), height, width, timesteps, batch), np.uint32)


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
    _require("if_spikes", 5, current=current)
    words = _spike_words("if_spikes", current, as_count("if_spikes", "timesteps", timesteps))
    sums = _without_time(current)
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
    _require("lif_spikes", 5, current=current)
    _require("lif_spikes", 1, weights=weights)
    words = _spike_words("lif_spikes", current, len(weights))
    sums, weighted = _without_time(current), _without_time(current)
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


def if_spikes_backward(
    grad: Values,
    sums: Values,
    timesteps: int,
    v_threshold: float,
    scale: Values | None = None,
    shift: Values | None = None,
) -> tuple[Values, float]:
    """The gradient of every step's ``scale * x + shift``, and the threshold's. EXACT.

    `grad` (C, H, W, B) is the sum over time of the spikes' gradient, `sums` what `if_spikes` gave with the same
    `timesteps`, `scale` and `shift`. Meng et al. 2022: through the mapping of the representations,
    ``functional.if_rate_backward(grad, scale * sums / T + shift, v_threshold)``, the gradient of the mean current
    divided by T.
    """
    room = _require_sums("if_spikes_backward", "sums", grad, sums)
    above = _core.if_spikes_backward(_rows(grad), _rows(sums), scale, shift, timesteps, v_threshold, _rows(room))
    return room, above


def lif_spikes_backward(
    grad: Values,
    weighted: Values,
    timesteps: int,
    v_threshold: float,
    tau: float,
    delta_t: float,
    scale: Values | None = None,
    shift: Values | None = None,
) -> tuple[Values, float]:
    """As `if_spikes_backward`, with the weighted sums of `lif_spikes` and of the gradient. EXACT.

    The threshold's gradient is the plain sum over saturated neurons, without the factor of
    `functional.lif_rate_backward`.
    """
    room = _require_sums("lif_spikes_backward", "weighted", grad, weighted)
    above = _core.lif_spikes_backward(
        _rows(grad), _rows(weighted), scale, shift, timesteps, v_threshold, tau, delta_t, _rows(room)
    )
    return room, above


def _require_sums(function: str, name: str, grad: Values, sums: Values) -> Values:
    """Refuse a gradient and sums that do not belong together; room for the result."""
    _require(function, 4, grad=grad, **{name: sums})
    if grad.shape != sums.shape:
        raise ValueError(f"{function}: argument 'grad': expected shape {sums.shape} as '{name}', got {grad.shape}")
    return np.empty(sums.shape, np.float32)


def pack_words(values: Values) -> Words:
    """A bit where the value is not zero. EXACT."""
    _require("pack_words", values=values)
    words = np.empty((word_count(len(values)), *values.shape[1:]), np.uint32)
    _core.pack_words(_rows(values), _rows(words))
    return words


def transpose_words(words: Words) -> Words:
    """The same bits with 32 lanes a word, (H W, ceil(T B / 32), 32 ceil(C / 32)); bits beyond are zero. EXACT."""
    _require("transpose_words", 5, words=words)
    groups, height, width, timesteps, batch = words.shape
    transposed = np.empty((height * width, word_count(timesteps * batch), 32 * groups), np.uint32)
    _core.transpose_words(words.reshape(groups, height * width, timesteps * batch), transposed)
    return transposed


def unpack_words(words: Words, channels: int, amplitude: float = 1.0) -> Values:
    """`amplitude` where the bit is set, else 0. EXACT."""
    _require("unpack_words", words=words)
    count = as_count("unpack_words", "channels", channels, 0)
    values = _room("unpack_words", "channels", (count, *words.shape[1:]))
    _core.unpack_words(_rows(words), amplitude, _rows(values))
    return values


def add_words(words: Words, values: Values, amplitude: float) -> Values:
    """``values += unpack_words(words, len(values), amplitude)`` in place; returns `values`. EXACT."""
    _require("add_words", words=words, values=values)
    _require_own("add_words", "values", values, (len(values), *words.shape[1:]))
    _core.add_words(_rows(words), amplitude, _rows(values))
    return values


def count_words(words: Words, channels: int) -> NDArray[np.int64]:
    """Spikes of each channel, shape (C,). EXACT."""
    _require("count_words", words=words)
    counts = np.empty(as_count("count_words", "channels", channels, 0), np.int64)
    _core.count_words(_rows(words), counts)
    return counts


def count_bits(words: Words) -> int:
    """Number of spikes. EXACT."""
    _require("count_bits", words=words)
    return int(_core.count_bits(words.reshape(-1)))


def dropout_words(words: Words, keep: float, seed: int) -> Words:
    """Each bit is kept with probability `keep`, independently; the mask depends on seed and position only. EXACT."""
    _require("dropout_words", words=words)
    kept = np.empty(words.shape, np.uint32)
    _core.dropout_words(words.reshape(-1), keep, seed, kept.reshape(-1))
    return kept


def moments(values: Values) -> tuple[Sums, Sums]:
    """Sum and sum of squares of each channel, added in double. EXACT."""
    _require("moments", values=values)
    sums, squares = np.empty(len(values)), np.empty(len(values))
    _core.moments(_rows(values), sums, squares)
    return sums, squares


def product_moments(a: Values, b: Values) -> tuple[Sums, Sums]:
    """Per channel, the sums of a and of a b, added in double. EXACT."""
    _require("product_moments", a=a, b=b)
    sums, products = np.empty(len(a)), np.empty(len(a))
    _core.product_moments(_rows(a), _rows(b), sums, products)
    return sums, products


def expand_gradient(constant: Values, values: Values, slope: Values) -> Values:
    """``constant + slope * values[t]`` for every step; slope is (C,). EXACT."""
    _require("expand_gradient", 4, constant=constant)
    _require("expand_gradient", 5, values=values)
    dense = np.empty(values.shape, np.float32)
    _core.expand_gradient(_pixels(constant, 1), _pixels(values, 2), slope, _pixels(dense, 2))
    return dense


def affine(
    x: Values, a: NDArray[Any], c: NDArray[Any], y: Values | None = None, b: NDArray[Any] | None = None
) -> Values:
    """``a * x + b * y + c`` with a, b, c (C,) per channel, rounded to float32; y and b may be missing. EXACT."""
    _require("affine", x=x)
    if y is not None:
        _require("affine", y=y)
        if y.shape != x.shape:
            raise ValueError(f"affine: argument 'y': expected shape {x.shape}, that of x, got {y.shape}")
    for name, array in [("a", a), ("c", c), *([] if b is None else [("b", b)])]:
        _require("affine", 1, **{name: array})
        if array.dtype.kind not in "fiu":
            raise TypeError(f"affine: argument '{name}': expected real numbers, got dtype {array.dtype}")
    out = np.empty(x.shape, np.float32)
    factor, offset = (np.ascontiguousarray(array, np.float32) for array in (a, c))
    other = None if b is None else np.ascontiguousarray(b, np.float32)
    _core.affine(_rows(x), None if y is None else _rows(y), factor, other, offset, _rows(out))
    return out


def weighted_sum(values: Values, weights: Values) -> Values:
    """``sum_t weights[t] values[t]``, (C, H, W, B). EXACT."""
    _require("weighted_sum", 5, values=values)
    total = _without_time(values)
    _core.weighted_sum(_pixels(values, 2), weights, _pixels(total, 1))
    return total


def output_size(size: int, kernel_size: int, stride: int, padding: int) -> int:
    """Windows along one direction."""
    return (size + 2 * padding - kernel_size) // stride + 1


def _pooled_size(
    function: str, height: int, width: int, kernel_size: int, stride: int, padding: int
) -> tuple[int, int]:
    """Size of a pooled image; ValueError where no window fits."""
    size, step = as_count(function, "kernel_size", kernel_size), as_count(function, "stride", stride)
    around = as_count(function, "padding", padding, 0)
    rows, columns = output_size(height, size, step, around), output_size(width, size, step, around)
    if rows < 1 or columns < 1:
        raise ValueError(
            f"{function}: argument 'kernel_size': expected a window that fits into {height}x{width} with padding "
            f"{around}, got {size}"
        )
    return rows, columns


def _convolved_size(
    function: str, name: str, height: int, width: int, weight: Values, stride: int, padding: int
) -> tuple[int, int]:
    """Size of a convolution's output; ValueError where the kernel does not fit into the image."""
    _require(function, 4, weight=weight)
    _, _, kernel_h, kernel_w = weight.shape
    step, around = as_count(function, "stride", stride), as_count(function, "padding", padding, 0)
    rows, columns = output_size(height, kernel_h, step, around), output_size(width, kernel_w, step, around)
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
    _require("pool_planes", 5, words=words)
    groups, height, width, timesteps, batch = words.shape
    rows, columns = _pooled_size("pool_planes", height, width, kernel_size, stride, padding)
    planes = (int(kernel_size) ** 2).bit_length()
    out = _room("pool_planes", "padding", (planes, groups, rows, columns, timesteps, batch), np.uint32)
    flat = (groups, height, width, timesteps * batch)
    _core.pool_planes(words.reshape(flat), kernel_size, stride, padding, out.reshape(*out.shape[:4], timesteps * batch))
    return out


def avg_pool(values: Values, kernel_size: int, stride: int, padding: int = 0) -> Values:
    """Mean over square windows; what lies outside the image counts as zeros. values: (C, H, W, L). EXACT."""
    _require("avg_pool", 4, values=values)
    channels, height, width, lanes = values.shape
    rows, columns = _pooled_size("avg_pool", height, width, kernel_size, stride, padding)
    out = _room("avg_pool", "padding", (channels, rows, columns, lanes))
    _core.avg_pool(values, kernel_size, stride, padding, out)
    return out


def avg_pool_backward(
    grad_output: Values, height: int, width: int, kernel_size: int, stride: int, padding: int = 0
) -> Values:
    """Gradient of `avg_pool` for an input of height x width. EXACT."""
    _require("avg_pool_backward", 4, grad_output=grad_output)
    channels, _, _, lanes = grad_output.shape
    sizes = as_count("avg_pool_backward", "height", height, 0), as_count("avg_pool_backward", "width", width, 0)
    out = _room("avg_pool_backward", "height", (channels, *sizes, lanes))
    _core.avg_pool_backward(grad_output, kernel_size, stride, padding, out)
    return out


def conv2d(values: Values, weight: Values, bias: Values | None = None, stride: int = 1, padding: int = 0) -> Values:
    """Convolution (cross-correlation) of dense values (C, H, W, L) with weights (O, C, KH, KW).

    ROUNDED: within ``(K + 2) eps sum |w| |x|`` of the exact sum, K = C KH KW.
    """
    _require("conv2d", 4, values=values)
    _, height, width, lanes = values.shape
    rows, columns = _convolved_size("conv2d", "values", height, width, weight, stride, padding)
    out = _room("conv2d", "padding", (len(weight), rows, columns, lanes))
    _core.conv2d(values, weight, bias, stride, padding, out)
    return out


def conv2d_input_gradient(
    grad_output: Values, weight: Values, height: int, width: int, stride: int = 1, padding: int = 0
) -> Values:
    """Gradient of `conv2d` with respect to its values.

    ROUNDED as `conv2d`, K = O KH KW. From 32 channels on, kernels of 3x3 (of 4x4 with stride 2, and the like) go by
    Winograd's method: within ``(K + 12) eps M``, M what the method gives with the absolute values of gradients, weights
    and its coefficients. An infinite gradient then makes NaN in its lane. Weights that are not finite may make NaN of
    any value: beyond the edges they are multiplied by zeros.
    """
    function = "conv2d_input_gradient"
    _require(function, 4, grad_output=grad_output, weight=weight)
    sizes = as_count(function, "height", height, 0), as_count(function, "width", width, 0)
    out = _room(function, "height", (weight.shape[1], *sizes, grad_output.shape[3]))
    lane_count = grad_output.shape[3]
    products = weight.size * grad_output.shape[1] * grad_output.shape[2]  # of a lane
    at_once = max(1, MOST_PRODUCTS // max(1, products) // 256) * 256
    if lane_count <= at_once or not grad_output.flags.c_contiguous:
        _core.conv2d_input_gradient(grad_output, weight, stride, padding, out)
        return out
    for first in range(0, lane_count, at_once):
        piece = np.ascontiguousarray(grad_output[..., first : first + at_once])
        below = np.empty((*out.shape[:3], piece.shape[3]), np.float32)
        _core.conv2d_input_gradient(piece, weight, stride, padding, below)
        out[..., first : first + at_once] = below
    return out


def conv2d_weight_gradient(
    grad_output: Values, values: Values, kernel_h: int, kernel_w: int, stride: int = 1, padding: int = 0
) -> Values:
    """Gradient of `conv2d` with respect to its weight. ROUNDED as `conv2d`, K = pixels times lanes."""
    function = "conv2d_weight_gradient"
    _require(function, 4, grad_output=grad_output, values=values)
    sizes = as_count(function, "kernel_h", kernel_h), as_count(function, "kernel_w", kernel_w)
    out = _room(function, "kernel_h", (len(grad_output), len(values), *sizes))
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
    _require("conv2d_spikes", 5, words=words)
    groups, height, width, timesteps, batch = words.shape
    rows, columns = _convolved_size("conv2d_spikes", "words", height, width, weight, stride, padding)
    shape = (len(weight), rows, columns, timesteps, batch)
    if out is not None:
        _require_own("conv2d_spikes", "out", out, shape)
    result = _room("conv2d_spikes", "padding", shape) if out is None else out
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

    def output_words(self, function: str = "conv2d_spikes") -> Words:
        """Room for spikes of the shape of the output; errors are those of `function`."""
        _require(function, 5, words=self.words)
        _, height, width, timesteps, batch = self.words.shape
        rows, columns = _convolved_size(function, "words", height, width, self.weight, self.stride, self.padding)
        return _room(function, "padding", (word_count(len(self.weight)), rows, columns, timesteps, batch), np.uint32)


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
    out = convolution.output_words("conv2d_if_spikes")
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
    out = convolution.output_words("conv2d_lif_spikes")
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
    function = "conv2d_spikes_weight_gradient"
    _require(function, 5, words=words)
    if words.dtype != np.uint32:
        raise TypeError(f"{function}: argument 'words': expected dtype uint32, got {words.dtype}")
    if not isinstance(weight_shape, tuple) or len(weight_shape) != 4:
        raise ValueError(f"{function}: argument 'weight_shape': expected 4 integers, got {type(weight_shape).__name__}")
    sizes = tuple(as_count(function, "weight_shape", size, 0) for size in weight_shape)
    _, height, width, timesteps, _ = words.shape
    transposed = transpose_words(np.require(words, None, ["C", "A"]))
    out = _room(function, "weight_shape", sizes)
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
