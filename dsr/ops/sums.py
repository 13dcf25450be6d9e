"""Sums over channels and over time, and linear maps of channels: what normalisation and gradients are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import _core
from dsr.ops.layout import Sums, Values, by_channel, merge_pixels, new_sum, require_array


def moments(values: Values) -> tuple[Sums, Sums]:
    """Sum and sum of squares of each channel, added in double. EXACT."""
    require_array("moments", values=values)
    sums, squares = np.empty(len(values)), np.empty(len(values))
    _core.moments(by_channel(values), sums, squares)
    return sums, squares


def same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays have one shape, one dtype and the same bits; without a copy, of float32."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype == np.float32 and a.flags.c_contiguous and b.flags.c_contiguous:
        return _core.compare(a.reshape(-1), b.reshape(-1)) == 0
    return a.tobytes() == b.tobytes()


def product_moments(a: Values, b: Values) -> tuple[Sums, Sums]:
    """Per channel, the sums of a and of a b, added in double. EXACT."""
    require_array("product_moments", a=a, b=b)
    sums, products = np.empty(len(a)), np.empty(len(a))
    _core.product_moments(by_channel(a), by_channel(b), sums, products)
    return sums, products


def expand_gradient(constant: Values, values: Values, slope: Values) -> Values:
    """``constant + slope * values[t]`` for every step; slope is (C,). EXACT."""
    require_array("expand_gradient", 4, constant=constant)
    require_array("expand_gradient", 5, values=values)
    dense = np.empty(values.shape, np.float32)
    _core.expand_gradient(merge_pixels(constant, 1), merge_pixels(values, 2), slope, merge_pixels(dense, 2))
    return dense


def affine(
    x: Values, a: NDArray[Any], c: NDArray[Any], y: Values | None = None, b: NDArray[Any] | None = None
) -> Values:
    """``a * x + b * y + c`` with a, b, c (C,) per channel, rounded to float32; y and b may be missing. EXACT."""
    require_array("affine", x=x)
    if y is not None:
        require_array("affine", y=y)
        if y.shape != x.shape:
            raise ValueError(f"affine: argument 'y': expected shape {x.shape}, that of x, got {y.shape}")
    for name, array in [("a", a), ("c", c), *([] if b is None else [("b", b)])]:
        require_array("affine", 1, **{name: array})
        if array.dtype.kind not in "fiu":
            raise TypeError(f"affine: argument '{name}': expected real numbers, got dtype {array.dtype}")
    out = np.empty(x.shape, np.float32)
    factor, offset = (np.ascontiguousarray(array, np.float32) for array in (a, c))
    other = None if b is None else np.ascontiguousarray(b, np.float32)
    _core.affine(
        by_channel(x),
        None if y is None else by_channel(y),
        factor,
        other,
        offset,
        by_channel(out),
    )
    return out


def weighted_sum(values: Values, weights: Values) -> Values:
    """``sum_t weights[t] values[t]``, (C, H, W, B). EXACT."""
    require_array("weighted_sum", 5, values=values)
    total = new_sum(values)
    _core.weighted_sum(merge_pixels(values, 2), weights, merge_pixels(total, 1))
    return total
