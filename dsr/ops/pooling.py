"""Pooling of spikes, which stay spikes, and of values. A window is an integer or a pair, (vertical, horizontal)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsr import _core
from dsr.ops.arguments import as_count, as_pair
from dsr.ops.layout import Values, Words, new_array, output_size, require_array

Pair = int | tuple[int, int]


class _Windows(NamedTuple):
    """Windows as the compiled part takes them."""

    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    padding_h: int
    padding_w: int

    @classmethod
    def of(cls, function: str, kernel_size: Pair, stride: Pair, padding: Pair) -> _Windows:
        """The checked arguments of a function."""
        return cls(
            *as_pair(function, "kernel_size", kernel_size),
            *as_pair(function, "stride", stride),
            *as_pair(function, "padding", padding, 0),
        )

    def pooled_size(self, function: str, height: int, width: int) -> tuple[int, int]:
        """Size of a pooled image; ValueError where no window fits."""
        rows = output_size(height, self.kernel_h, self.stride_h, self.padding_h)
        columns = output_size(width, self.kernel_w, self.stride_w, self.padding_w)
        if rows < 1 or columns < 1:
            raise ValueError(
                f"{function}: argument 'kernel_size': expected a window that fits into {height}x{width} with padding "
                f"{self.padding_h}x{self.padding_w}, got {self.kernel_h}x{self.kernel_w}"
            )
        return rows, columns


def _of_words(function: str, words: Words, windows: _Windows, *planes: int) -> tuple[Words, Words, tuple[int, ...]]:
    """Words with their lanes on one axis, room for pooled ones, and the shape of these."""
    require_array(function, 5, words=words)
    groups, height, width, timesteps, batch = words.shape
    lanes, sizes = timesteps * batch, (groups, *windows.pooled_size(function, height, width))
    out = new_array(function, "padding", (*planes, *sizes, lanes), np.uint32)
    return words.reshape(groups, height, width, lanes), out, (*planes, *sizes, timesteps, batch)


def pool_planes(words: Words, kernel_size: Pair, stride: Pair, padding: Pair = 0) -> Words:
    """Spikes in each window, counted in binary: plane k, words[k], holds bit k of the counts. EXACT.

    words: (ceil(C / 32), H, W, T, B); result (planes, ceil(C / 32), H', W', T, B).
    """
    windows = _Windows.of("pool_planes", kernel_size, stride, padding)
    planes = (windows.kernel_h * windows.kernel_w).bit_length()
    flat, out, shape = _of_words("pool_planes", words, windows, planes)
    _core.pool_planes(flat, *windows, out)
    return out.reshape(shape)


def or_pool(words: Words, kernel_size: Pair, stride: Pair, padding: Pair = 0) -> Words:
    """A spike where there is one in the window. EXACT.

    words: (ceil(C / 32), H, W, T, B); result (ceil(C / 32), H', W', T, B).
    """
    windows = _Windows.of("or_pool", kernel_size, stride, padding)
    flat, out, shape = _of_words("or_pool", words, windows)
    _core.or_pool(flat, *windows, out)
    return out.reshape(shape)


def avg_pool(values: Values, kernel_size: Pair, stride: Pair, padding: Pair = 0) -> Values:
    """Mean over windows; what lies outside the image counts as zeros. values: (C, H, W, L). EXACT."""
    return _of_values("avg_pool", _core.avg_pool, values, kernel_size, stride, padding)


def max_pool(values: Values, kernel_size: Pair, stride: Pair, padding: Pair = 0) -> Values:
    """Largest value of the part of each window that lies in the image. values: (C, H, W, L). EXACT.

    NaN is larger than all if it is the first value of the window, and is passed over otherwise.
    """
    return _of_values("max_pool", _core.max_pool, values, kernel_size, stride, padding)


def _of_values(
    function: str, call: Callable[..., None], values: Values, kernel_size: Pair, stride: Pair, padding: Pair
) -> Values:
    require_array(function, 4, values=values)
    windows = _Windows.of(function, kernel_size, stride, padding)
    channels, height, width, lanes = values.shape
    out = new_array(function, "padding", (channels, *windows.pooled_size(function, height, width), lanes))
    call(values, *windows, out)
    return out


def avg_pool_backward(
    grad_output: Values, height: int, width: int, kernel_size: Pair, stride: Pair, padding: Pair = 0
) -> Values:
    """Gradient of `avg_pool` for an input of height x width. EXACT."""
    require_array("avg_pool_backward", 4, grad_output=grad_output)
    windows = _Windows.of("avg_pool_backward", kernel_size, stride, padding)
    channels, _, _, lanes = grad_output.shape
    sizes = as_count("avg_pool_backward", "height", height, 0), as_count("avg_pool_backward", "width", width, 0)
    out = new_array("avg_pool_backward", "height", (channels, *sizes, lanes))
    _core.avg_pool_backward(grad_output, *windows, out)
    return out


def max_pool_backward(
    grad_output: Values, values: Values, kernel_size: Pair, stride: Pair, padding: Pair = 0
) -> Values:
    """Gradient of `max_pool` of `values`: to the first of the largest values of each window. EXACT."""
    require_array("max_pool_backward", 4, grad_output=grad_output, values=values)
    windows = _Windows.of("max_pool_backward", kernel_size, stride, padding)
    out = np.empty(values.shape, np.float32)
    _core.max_pool_backward(grad_output, values, *windows, out)
    return out
