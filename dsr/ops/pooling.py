"""Pooling of spikes, which stay spikes, and of values."""

from __future__ import annotations

import numpy as np

from dsr import _core
from dsr.ops.arguments import as_count
from dsr.ops.layout import Values, Words, new_array, output_size, require_array


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


def pool_planes(words: Words, kernel_size: int, stride: int, padding: int = 0) -> Words:
    """Spikes in each square window, counted in binary: plane k, words[k], holds bit k of the counts. EXACT.

    words: (ceil(C / 32), H, W, T, B); result (planes, ceil(C / 32), H', W', T, B).
    """
    require_array("pool_planes", 5, words=words)
    groups, height, width, timesteps, batch = words.shape
    rows, columns = _pooled_size("pool_planes", height, width, kernel_size, stride, padding)
    planes = (int(kernel_size) ** 2).bit_length()
    out = new_array("pool_planes", "padding", (planes, groups, rows, columns, timesteps, batch), np.uint32)
    flat = (groups, height, width, timesteps * batch)
    _core.pool_planes(words.reshape(flat), kernel_size, stride, padding, out.reshape(*out.shape[:4], timesteps * batch))
    return out


def avg_pool(values: Values, kernel_size: int, stride: int, padding: int = 0) -> Values:
    """Mean over square windows; what lies outside the image counts as zeros. values: (C, H, W, L). EXACT."""
    require_array("avg_pool", 4, values=values)
    channels, height, width, lanes = values.shape
    rows, columns = _pooled_size("avg_pool", height, width, kernel_size, stride, padding)
    out = new_array("avg_pool", "padding", (channels, rows, columns, lanes))
    _core.avg_pool(values, kernel_size, stride, padding, out)
    return out


def avg_pool_backward(
    grad_output: Values, height: int, width: int, kernel_size: int, stride: int, padding: int = 0
) -> Values:
    """Gradient of `avg_pool` for an input of height x width. EXACT."""
    require_array("avg_pool_backward", 4, grad_output=grad_output)
    channels, _, _, lanes = grad_output.shape
    sizes = as_count("avg_pool_backward", "height", height, 0), as_count("avg_pool_backward", "width", width, 0)
    out = new_array("avg_pool_backward", "height", (channels, *sizes, lanes))
    _core.avg_pool_backward(grad_output, kernel_size, stride, padding, out)
    return out
